"""The program measure: several predictors of one model and dataset, shared passes, one file each."""

import pytest
from small_vit import FAMILIES, small_vit

from vit_plasticity import measure, predictors, vit
from vit_plasticity.analysis import schemas, tables
from vit_plasticity.runtime import cli

PARAMS = (
    '{"pairs": 12, "images": 12, "local_images": 4, "probes": 2, "batches": 2, "batch_size": 8, "short_share": 0.2}'
)
FINETUNE = '{"lrs": [0.1], "steps": 10, "evaluation_period": 5, "batch_size": 8, "warmup_steps": 2}'


def run(tmp_path, model_folder, dataset_folder, *names, components=("mha", "ln1@1", "full")):
    outputs = [tmp_path / f"{name}.parquet" for name in names]
    arguments = ["--model", model_folder, "--source", dataset_folder, "--dataset", dataset_folder]
    arguments += ["--params", PARAMS, "--finetune", FINETUNE, "--study", "s", "--device", "cpu", "--threads", "1"]
    arguments += ["--predictor", *names, "--components", *components, "--output", *outputs]
    measure.main(list(map(str, arguments)))
    return outputs


@pytest.mark.parametrize("family", ["paper's", *FAMILIES])
def test_every_predictor_writes_a_table_of_its_own(family, tmp_path, model_folder, dataset_folder):
    names = predictors.names()
    if family in FAMILIES:
        model_folder = tmp_path / "model"
        vit.save(small_vit(**FAMILIES[family]), model_folder, {"test": True})
    for name, path in zip(names, run(tmp_path, model_folder, dataset_folder, *names), strict=True):
        table, _ = tables.read_many([path])
        rows = schemas.conform(table, "predictors").to_pandas()
        assert set(rows["predictor"]) == {name}
        assert set(rows["component"]) <= {"mha", "ln1@1", "full"}
        assert rows["block"].isna().any()
        assert rows["value"].notna().any()
        assert (rows["duration_s"] > 0).all()
        assert tables.about(path)["inputs"]["model"] == vit.fingerprint(model_folder)
        assert ("finetune" in tables.about(path)["settings"]) == (name == "short_run")
        assert tables.about(path)["stage"] == "measure"


def test_values_do_not_depend_on_what_is_measured_beside(tmp_path, model_folder, dataset_folder):
    (alone,) = run(tmp_path, model_folder, dataset_folder, "snip")
    before = tables.read_many([alone])[0].drop_columns("duration_s")
    beside, _ = run(tmp_path, model_folder, dataset_folder, "snip", "elasticity")
    assert tables.read_many([beside])[0].drop_columns("duration_s") == before


def test_a_wrong_component_or_range_is_refused(tmp_path, model_folder, dataset_folder):
    with pytest.raises(cli.InputError, match="unknown component 'mhs'"):
        run(tmp_path, model_folder, dataset_folder, "parameters", components=["mhs"])
    with pytest.raises(cli.InputError, match="the model's blocks are 0 to 1"):
        run(tmp_path, model_folder, dataset_folder, "parameters", components=["mha@7"])
    assert not [*tmp_path.iterdir()]
