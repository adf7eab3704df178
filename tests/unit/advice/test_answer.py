"""The answer as a whole, on a small model: what it holds with and without a budget, and when it is stopped."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from small_vit import small_vit

from vit_plasticity import predictors, recommend, vit
from vit_plasticity.advice import answer, choices, page
from vit_plasticity.advice.sample import sampled
from vit_plasticity.runtime import cli

COMPONENTS = ("mha", "fc1", "ln1", "full")
SMALL = 1e-9  # seconds


@pytest.fixture(scope="module")
def measured(model_folder, dataset_folder, tmp_path_factory):
    """An answer without a budget, and the lines that it reported."""
    lines = []
    found = answer.answer(
        model_folder, dataset_folder, components=COMPONENTS, threads=1, report=lines.append, patience=1e6,
        cache=tmp_path_factory.mktemp("cache"), device="cpu",
    )  # fmt: skip
    return found, lines


def trained(model_folder, dataset_folder, cache, **options):
    return answer.answer(
        model_folder, dataset_folder, **{"components": ("mha", "ln1"), "lrs": (0.1,), "batch_size": 16} | options,
        flip=False, threads=1, device="cpu", cache=cache, report=lambda line: None,
    )  # fmt: skip


def test_every_predictor_that_trains_nothing_is_a_column(measured):
    found, _ = measured
    without_training = {name for name, trains in predictors.known().items() if not trains}
    assert {"parameters", "plasticity"} | without_training <= set(found.table.columns)
    assert not found.notes or all("was not measured" not in note for note in found.notes)


def test_what_trains_is_what_train_only_says(measured, model_folder):
    found, _ = measured
    for row in found.table.to_dict("records"):
        model = vit.load(model_folder)
        vit.new_head(model, 3)
        names = vit.train_only(model, row["component"])
        assert list(found.choices[row["component"]].names) == names
        assert row["n_trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_single_components_are_ranked_by_the_predictor_that_is_followed(measured):
    found, _ = measured
    ranked = found.table[found.table["rank"].notna()]
    assert list(ranked["rank"]) == [1, 2, 3] and set(ranked["component"]) == {"mha", "fc1", "ln1"}
    assert ranked[found.followed].is_monotonic_decreasing
    assert found.first.component == ranked["component"].iloc[0]


def test_plasticity_is_the_mean_over_blocks_and_pairs(measured):
    found, _ = measured
    assert (found.table.set_index("component")["plasticity"].loc[["mha", "fc1", "ln1"]] > 0).all()
    assert np.isnan(found.table.set_index("component")["plasticity"].loc["full"])


def test_it_says_what_it_does_and_how_long_it_may_take(measured):
    _, lines = measured
    assert any("things without training: about" in line for line in lines)
    assert sum(line.endswith(" left") for line in lines) == 2 + sum(
        not trains for name, trains in predictors.known().items() if name != "plasticity"
    )


def test_stopped_while_measuring_it_leaves_what_it_has(model_folder, dataset_folder, tmp_path):
    def stop_at_the_third(line):
        if line.startswith("4 of"):
            raise KeyboardInterrupt

    found = answer.answer(
        model_folder, dataset_folder, 60, components=COMPONENTS, threads=1, device="cpu", cache=tmp_path,
        report=stop_at_the_third,
    )  # fmt: skip
    assert found.interrupted and found.search is None
    assert "parameters" in found.table and "one_step_gain" not in found.table
    assert "Stopped before the end" in page.text(found)


def test_with_a_budget_candidates_train_and_the_best_is_compared_with_the_probe(
    model_folder, dataset_folder, tmp_path, capsys
):
    found = trained(model_folder, dataset_folder, tmp_path, budget=3)
    table = found.table
    assert set(table["component"]) == {"mha", "ln1"} and table["rank"].tolist() == [1, 2]
    assert (table["ci_low"] <= table["val_accuracy"]).all() and (table["val_accuracy"] <= table["ci_high"]).all()
    assert table["val_accuracy"].iloc[0] > 0.8  # the classes differ in their channel
    assert found.worth["n"] == 30 and found.worth["low"] <= found.worth["difference"] <= found.worth["high"]
    again = trained(model_folder, dataset_folder, tmp_path, budget=3)
    assert again.search.runs[: len(found.search.runs)] == found.search.runs  # nothing is trained twice
    assert capsys.readouterr().out == ""  # which is for the page alone


def test_the_pages_say_the_same_and_their_python_trains_the_names(measured, tmp_path):
    found, _ = measured
    answered = json.loads(json.dumps(page.as_dict(found), allow_nan=False))
    assert answered["recommended"] == found.first.component
    text, html = page.text(found), page.page(found)
    for sentence in answered["sentences"]:
        assert sentence in text
    assert f"fitted on {found.probe['n_train']} training images, tested on {found.probe['n_test']}" in text
    assert "<script" not in html and html.count("<table") == 3
    for one in answered["components"]:
        names = {}
        exec("\n".join(one["python"]), names)
        assert [n for n, p in names["model"].named_parameters() if p.requires_grad] == one["parameters"]


def test_what_would_take_too_long_is_left_out_and_said(model_folder, dataset_folder, tmp_path):
    found = answer.answer(
        model_folder, dataset_folder, components=COMPONENTS, threads=1, device="cpu", cache=tmp_path, patience=SMALL,
        report=lambda line: None,
    )  # fmt: skip
    assert "parameters" in found.table and "one_step_gain" not in found.table
    assert any("one_step_gain was not measured: left out, it would take" in note for note in found.notes)


def test_python_for_adapters_trains_their_layers_and_the_head(model_folder):
    pytest.importorskip("peft")
    model = vit.load(model_folder)
    vit.new_head(model, 3)
    choice = choices.describe(model, "lora4:fc2", f"local-dir:{model_folder}", 8)
    made = {}
    exec("\n".join(choice.lines), made)
    names = [name for name, p in made["model"].named_parameters() if p.requires_grad]
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in names if ".lora_" in name}
    assert layers == {name.split(".lora_")[0] for name in choice.names if ".lora_" in name}
    assert len(layers) == 2 and any("head" in name for name in names)


def test_recommend_is_the_table(model_folder, dataset_folder, tmp_path):
    table = answer.recommend(
        model_folder, dataset_folder, components=("ln1", "ln2"), threads=1, device="cpu", cache=tmp_path
    )
    assert list(table.columns[:5]) == ["rank", "component", "n_trained", "share", "memory_mb"]


def test_components_with_equal_values_are_ordered_by_the_next_predictor():
    class One:
        single = True

    found = dict.fromkeys(["a", "b", "c"], One)
    values = {"parameters": {"a": 1.0, "b": 1.0, "c": 2.0}, "plasticity": {"a": 0.1, "b": 0.2}}
    assert answer._order(found, "parameters", values, ["random", "plasticity", "parameters"]) == ["c", "b", "a"]


@pytest.mark.parametrize(("right", "n"), [(3, 7), (50, 100), (100, 100)])
def test_the_interval_of_an_accuracy_is_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    assert answer.wilson(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_difference_is_paired():
    assert answer.paired_difference([1, 2], [1, 2], 10) == (0, 0, 0)
    assert answer.paired_difference([], range(10), 10) == (1, 1, 1)
    difference, low, high = answer.paired_difference([0], [1, 2, 3], 10)
    assert difference == pytest.approx(0.2) and low < difference < high


def test_large_splits_are_sampled(dataset):
    few = sampled(dataset, {"train": 20, "test": 100})
    assert [len(few.split(name)) for name in ("train", "val", "test")] == [20, 12, 30]
    kept = few.split("train").images.positions
    assert (few.split("train").labels == np.asarray(dataset.split("train").labels)[kept]).all()
    assert (few.split("train").images.uniform[3] == dataset.split("train").images[int(kept[3])]).all()


def draw(folder, per_class):
    random = np.random.default_rng(0)
    for name, n in per_class.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.fromarray(random.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")


@pytest.mark.parametrize("kind", ["no classes", "one class", "too few", "damaged", "no folder"])
def test_images_that_cannot_serve_get_a_sentence(kind, model_folder, tmp_path, capsys):
    folder = tmp_path / "images"
    draw(folder, {"no classes": {".": 20}, "one class": {"cat": 20}, "too few": {"cat": 2, "dog": 20},
                  "damaged": {"cat": 10, "dog": 10}, "no folder": {}}[kind])  # fmt: skip
    if kind == "damaged":
        for i in range(3):
            (folder / "cat" / f"{i}.png").write_bytes(b"\x89PNG no image")
    words = ["--model", str(model_folder), "--data", str(folder), "--cache", str(tmp_path / "cache")]
    assert cli.run(recommend.main, [*words, "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said


def test_twenty_images_of_two_classes_are_answered_and_called_few(tmp_path, capsys):
    folder, model = tmp_path / "<images> & more", tmp_path / "model"
    draw(folder, {"cat": 10, "dog": 10})
    vit.save(small_vit(), model, {"test": True})
    words = ["--model", model, "--data", folder, "--cache", tmp_path / "cache", "--threads", "1"]
    words += ["--components", "ln1", "mha", "--json", tmp_path / "a.json", "--html", tmp_path / "a.html"]
    assert cli.run(recommend.main, [str(word) for word in words]) == 0
    assert "collect more images first" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["dataset"]["images"]["train"] < 20
    assert "fewer than 10 training images" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("1.5 h", 5400), ("10min", 600)])
def test_times_are_read(text, expected):
    assert recommend.seconds(text) == expected


@pytest.mark.parametrize("text", ["10", "0s", "-1min", "soon"])
def test_other_times_are_refused(text, model_folder, dataset_folder, capsys):
    with pytest.raises(SystemExit):
        recommend.main(["--model", str(model_folder), "--data", str(dataset_folder), "--budget", text])


def test_an_unknown_component_is_refused(model_folder, dataset_folder, tmp_path):
    with pytest.raises(cli.InputError, match=r"unknown component 'attention'.*choose from"):
        trained(model_folder, dataset_folder, tmp_path, components=("attention",))
