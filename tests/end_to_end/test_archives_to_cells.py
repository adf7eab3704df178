"""The paper's datasets, from archives in their original formats to fine-tuned cells, through Snakemake.

A server on this machine stands in for the network. One study is run three times in one folder: first with two broken
downloads, then with mended ones, then offline with the server gone.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_archives import FileServer, image_bytes, paper_datasets, pictures
from study_runs import rows, snakemake

from vit_plasticity.data.registry import TABLE_VARIABLE, open_dataset

STUDY = Path(__file__).with_name("paper_small.yaml")
# Dataset → classes, images in train, val and test, and their files at home.
EXPECTED = {
    "cifar10": (10, 120, 30, 20, ["cifar-10-python.tar.gz"]),
    "cifar100": (100, 300, 100, 100, ["cifar-100-python.tar.gz"]),
    "cifar10_c_contrast_5": (10, 60, 20, 20, ["CIFAR-10-C.tar"]),
    "cifar10_c_snow_5": (10, 60, 20, 20, ["CIFAR-10-C.tar"]),
    "domainnet_clipart": (3, 15, 3, 6, ["clipart.zip"]),
    "domainnet_sketch": (3, 15, 3, 6, ["sketch.zip"]),
    "flowers102": (102, 102, 102, 102, ["102flowers.tgz", "imagelabels.mat", "setid.mat"]),
    "pet": (3, 12, 3, 6, ["images.tar.gz", "annotations.tar.gz"]),
}
BROKEN = {"domainnet_sketch": "sketch.zip", "pet": "annotations.tar.gz"}


def finished_cells(folder):
    return {path.parts[-4] for path in folder.glob("results/paper_small/finetune/*/*/*/*/runs.parquet")}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What happened: the three runs, the requests of each, and what was there after the first."""
    folder, home = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("home")
    for label in range(3):  # ImageNet cannot be downloaded freely: its owner brings a folder
        for number in range(4):
            image = folder / "resources/downloads/imagenet" / f"n{label}" / f"{number}.JPEG"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(image_bytes(pictures([label], size=40, seed=number)[0]))
    with FileServer(home) as server:
        environment = {TABLE_VARIABLE: str(paper_datasets(home, server.url))}
        whole = {name: (home / name).read_bytes() for name in BROKEN.values()}
        (home / BROKEN["domainnet_sketch"]).write_bytes(bytes(len(whole["sketch.zip"])))  # as long, and wrong
        (home / BROKEN["pet"]).unlink()
        runs = [snakemake(folder, "--keep-going", config=[STUDY], **environment)]
        cells_after_first = finished_cells(folder)
        tables_after_first = list(folder.glob("results/paper_small/tables/*"))
        reasons = {name: (folder / f"logs/fetch/datasets/{name}.log").read_text() for name in BROKEN}
        requests = [list(server.requests)]
        for name, data in whole.items():
            (home / name).write_bytes(data)
        runs.append(snakemake(folder, config=[STUDY], **environment))
        requests.append(server.requests[len(requests[0]) :])
    offline = folder / "offline.yaml"
    offline.write_text("downloads: {offline: true}\n")
    runs.append(snakemake(folder, config=[STUDY, offline], **environment))
    return SimpleNamespace(
        folder=folder,
        runs=runs,
        requests=[[path.lstrip("/") for path, _ in some] for some in requests],
        cells_after_first=cells_after_first,
        tables_after_first=tables_after_first,
        reasons=reasons,
    )


def test_a_broken_download_fails_only_its_own_cells(story):
    assert story.runs[0].status == 1
    assert story.cells_after_first == set(EXPECTED) - set(BROKEN)
    assert story.tables_after_first == []
    assert story.runs[0].said.count("Error in rule fetch_dataset:") == len(BROKEN)
    assert "annotations.tar.gz: HTTP status 404" in story.reasons["pet"]
    assert "sketch.zip.part: sha256" in story.reasons["domainnet_sketch"]


def test_the_next_call_finishes_and_does_nothing_twice(story):
    first, second, _ = story.runs
    assert second.status == 0, second.said[-3000:]
    assert set(second.outputs("fetch_dataset")) == {f"resources/datasets/{name}" for name in BROKEN}
    cells = {f"results/paper_small/finetune/vit_tiny/{name}/mha/seed=0/runs.parquet" for name in EXPECTED}
    done = first.outputs("finetune") + second.outputs("finetune")
    assert len(done) == len(cells) and set(done) == cells
    assert {Path(path).stem for path in second.outputs("measure")} == set(BROKEN)
    assert not {"pretrain", "evaluate"} & {rule for rule, _ in second.started}


def test_each_archive_is_asked_for_once(story):
    files = sorted({file for *_, files in EXPECTED.values() for file in files})
    assert sorted(story.requests[0]) == files
    assert sorted(story.requests[1]) == sorted(BROKEN.values())  # and what was whole of a dataset is kept


def test_offline_there_is_nothing_to_do_and_no_server_is_needed(story):
    third = story.runs[2]
    assert third.status == 0 and third.started == []
    assert "Nothing to be done" in third.said


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dataset_reaches_the_tables(story, name):
    n_classes, *sizes, _ = EXPECTED[name]
    dataset = open_dataset(story.folder / "resources/datasets" / name)
    assert len(dataset.classes) == n_classes
    runs = [row for row in rows(story.folder, "paper_small", "finetune") if row["dataset"] == name]
    assert [row["lr"] for row in runs] == [0.03, 0.1] and sum(row["chosen"] for row in runs) == 1
    for row in runs:
        assert row["outcome"] == "finished" and 0 <= row["test_accuracy"] <= 1
        assert [row["n_train"], row["n_val"], row["n_test"]] == sizes
        assert 0 < row["n_trained"] < row["n_parameters"]


def test_images_and_labels_arrive_together(story):
    """Each class has a colour, which even a model that was hardly trained passes on to its linear probe."""
    accuracy = {row["dataset"]: row["accuracy"] for row in rows(story.folder, "paper_small", "probe")}
    assert set(accuracy) == set(EXPECTED)
    for name, (n_classes, *_) in EXPECTED.items():
        assert accuracy[name] > (0.8 if n_classes <= 10 else 0.3), name


def test_plasticity_is_measured_against_the_folder_of_imagenet(story):
    source = open_dataset(story.folder / "resources/datasets/imagenet")
    assert source.classes == ("n0", "n1", "n2") and len(source.split("test")) == 12
    measured = {(row["dataset"], row["block"]): row for row in rows(story.folder, "paper_small", "rates_by_block")}
    assert set(measured) == {(name, block) for name in EXPECTED for block in range(2)}
    assert all(row["n_pairs"] == 12 and row["rate_mean"] > 0 for row in measured.values())


def test_the_summary_has_a_row_per_cell_and_cifar10_on_shifted_test_sets(story):
    shifted = {row["evaluated_on"]: row["n_test"] for row in rows(story.folder, "paper_small", "shifted")}
    assert shifted == {"cifar10_c_contrast_5": 20, "cifar10_c_snow_5": 20}
    summary = {row["dataset"]: row for row in rows(story.folder, "paper_small", "summary")}
    assert set(summary) == set(EXPECTED)
    assert {name for name, row in summary.items() if row["shifted_accuracy_mean"] is not None} == {"cifar10"}
