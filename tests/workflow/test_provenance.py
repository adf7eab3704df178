"""Every file of numbers says what made it, and tables of different revisions do not mix."""

import json

import pyarrow.parquet as pq
import pytest
from processes import stage

STAGES = {
    "plasticity": ("model", "dataset", "component"),
    "measure": ("predictor", "model", "dataset"),
    "probe": ("model", "dataset"),
    "finetune": ("model", "dataset", "component", "seed"),
    "history": ("model", "dataset", "component", "seed"),
    "evaluate": ("model", "dataset", "component", "seed"),
    "correlate": (),
}
"""Stage that wrote a table → the key that it must carry."""


def metadata(path):
    return json.loads(pq.read_schema(path).metadata[b"vit_plasticity"])


def test_every_table_carries_where_it_comes_from(smoke):
    files = sorted((smoke / "results").rglob("*.parquet"))
    assert len(files) == 4 + 2 * 3 + 2 + 2 * 8 + 4 + 12
    stages = set()
    for file in files:
        about = metadata(file)
        stages.add(about["stage"])
        assert about["study"] == "smoke"
        assert about["rev"] >= 1
        assert about["key"].keys() == set(STAGES[about["stage"]])
        origin = about["provenance"]
        assert {"git_commit", "git_dirty", "packages", "python", "machine", "device"} <= origin.keys()
        assert {"torch", "timm", "numpy", "pandas", "vit-plasticity"} <= origin["packages"].keys()
        assert all(origin["packages"][name] for name in ("torch", "timm", "numpy", "vit-plasticity"))
        assert origin["git_commit"] is None or len(origin["git_commit"]) == 40
    assert stages == STAGES.keys()


def test_key_in_the_rows_and_in_the_metadata_is_that_of_the_path(smoke):
    for file in (smoke / "results" / "smoke").glob("finetune/*/*/*/*/*.parquet"):
        *_, model, dataset, component, seed, _ = file.parts
        key = {"model": model, "dataset": dataset, "component": component, "seed": int(seed.removeprefix("seed="))}
        assert metadata(file)["key"] == key
        for name, value in key.items():
            assert set(pq.read_table(file, partitioning=None)[name].to_pylist()) == {value}


def test_tables_of_a_study_name_the_sources_of_every_stage(smoke):
    sources = metadata(smoke / "results" / "smoke" / "tables" / "summary.parquet")["sources"]
    assert sources.keys() == STAGES.keys() - {"correlate"}
    for source in sources.values():
        assert source["rev"] >= 1
        assert source["provenance"][0]["packages"]["numpy"]


@pytest.mark.parametrize(("field", "value"), [("rev", 2), ("study", "other"), ("settings", {"steps": 1})])
def test_rows_of_another_revision_study_or_settings_are_not_mixed(study, field, value):
    """As if one cell were left over from before `rev` was raised, or had come from another study."""
    file = study / "results" / "smoke" / "finetune" / "vit_smoke" / "digits" / "mha" / "seed=0" / "runs.parquet"
    table = pq.read_table(file, partitioning=None)
    about = json.dumps(metadata(file) | {field: value}).encode()
    pq.write_table(table.replace_schema_metadata({b"vit_plasticity": about}), file)
    output = study / "mixed"
    arguments = ["--results", study / "results" / "smoke", "--study", "smoke", "--output", output]
    done = stage("correlate", *arguments, cwd=study, check=False, warm=False)
    assert done.returncode == 2
    assert f"of different {field} cannot be mixed" in done.stdout
    assert str(file) in done.stdout
    assert not output.exists() or not [*output.iterdir()]
