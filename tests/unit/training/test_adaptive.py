"""What an adaptive component is resolved to, and that its cell is the cell of that sum to the bit."""

import itertools
import json

import pyarrow.parquet as pq
import pytest
from processes import UNSTABLE

from vit_plasticity import evaluate, finetune, measure
from vit_plasticity.analysis import tables
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.training import adaptive
from vit_plasticity.vit import components
from vit_plasticity.vit.components import parse

KEY = {"model": "m", "dataset": "d", "seed": 0}
INPUTS = {"model": "weights", "dataset": "pixels"}
FIVE = ("mha", "fc1", "fc2", "ln1", "ln2")
ABOUT = {"study": "s", "rev": 1, "inputs": INPUTS | {"source": "others"}}


def resolve(name, candidates, files=(), key=KEY):
    return adaptive.resolve(parse(name), [parse(one) for one in candidates], files, INPUTS, key).name


@pytest.fixture
def values(tmp_path):
    """A function that writes a table of snip, {component: value}, each also with one of a block, which says nothing."""

    def write(known, **about):
        rows = [{"component": c, "block": b, "value": v} for c, v in known.items() for b, v in ((None, v), (0, 99.0))]
        path = tmp_path / "snip.parquet"
        key = {"predictor": "snip", "model": "m", "dataset": "d"}
        tables.write(path, rows, stage="measure", key=key, **ABOUT | about)
        return [path]

    return write


def test_what_is_not_adaptive_is_itself():
    assert resolve("mha+fc1", ()) == "mha+fc1"


def test_the_components_of_the_highest_values_make_one_sum(values):
    files = values({"mha": 1.0, "fc1": 4.0, "fc2": 3.0, "ln1": 2.0, "ln2": -1.0})
    found = [resolve(f"auto:snip:{k}", reversed(FIVE), files) for k in range(1, 6)]
    assert found == ["fc1", "ffn", "ln1+ffn", "ln1+mha+ffn", "mha+norm+ffn"]


def test_only_single_components_of_the_study_are_chosen(values):
    files = values({"mha": 1.0, "fc1": 4.0, "full": 9.0, "norm": 9.0, "mha~8": 9.0, "ln2": 5.0})
    assert resolve("auto:snip:2", ("mha", "fc1", "full", "norm", "mha~8"), files) == "mha+fc1"


def test_ranges_of_blocks_compete_and_what_overlaps_a_better_one_is_passed_over(values):
    files = values({"mha": 3.0, "mha@0": 5.0, "mha@1": 1.0, "qkv@1": 2.0, "fc1@0-1": 0.5})
    names = ("mha", "mha@0", "mha@1", "qkv@1", "fc1@0-1")
    assert [resolve(f"auto:snip:{k}", names, files) for k in (1, 2, 3)] == [
        "mha@0",
        "qkv@0-1+proj@0",  # mha@0+qkv@1
        "qkv@0-1+proj@0+fc1@0-1",
    ]
    with pytest.raises(InputError, match="only 3 components of the study have a value and share no parameters"):
        resolve("auto:snip:4", names, files)


def test_ties_that_decide_are_refused_and_others_are_not(values):
    files = values({"mha": 4.0, "fc1": 4.0, "ln1": 1.0, "ln2": 1.0})
    assert resolve("auto:snip:2", FIVE, files) == "mha+fc1"
    with pytest.raises(InputError, match="of m on d: mha, fc1 tie at 4; choose another number"):
        resolve("auto:snip:1", FIVE, files)
    with pytest.raises(InputError, match="ln1, ln2 tie at 1"):
        resolve("auto:snip:3", FIVE, files)
    with pytest.raises(InputError, match="mha@0, qkv tie at 4"):  # both would be chosen, but they overlap
        resolve("auto:snip:2", ("mha@0", "qkv", "ln1"), values({"mha@0": 4.0, "qkv": 4.0, "ln1": 1.0}))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_component_without_a_value_is_refused(value, values):
    with pytest.raises(InputError, match="snip has no value for ln1; name another predictor"):
        resolve("auto:snip:1", FIVE, values({"mha": 4.0, "ln1": value}))


def test_tables_of_anything_else_are_refused(values):
    with pytest.raises(InputError, match="needs the tables of snip on this model and dataset"):
        resolve("auto:snip:1", FIVE)
    for name, other in (("auto:fisher:1", {}), ("auto:snip:1", {"inputs": INPUTS | {"model": "other weights"}})):
        with pytest.raises(InputError, match=r"is not of .* this model and this dataset"):
            resolve(name, FIVE, values({"mha": 4.0}, **other))


def test_plasticity_is_the_mean_over_the_blocks_of_a_component(tmp_path):
    """Its tables are of whole components, one each, by block and pair."""
    files = []
    for name, rates in {"mha": (1.0, 5.0), "fc1": (4.0, 3.0)}.items():
        rows = {"block": [0, 0, 1, 1], "pair": [0, 1, 0, 1], "rate": [rates[0] - 1, rates[0] + 1, *2 * rates[1:]]}
        files.append(tmp_path / f"{name}.parquet")
        tables.write(
            files[-1], rows, stage="plasticity", key={"model": "m", "dataset": "d", "component": name}, **ABOUT
        )
    assert resolve("auto:plasticity:1", ("mha", "fc1", "qkv", "ln1"), files) == "fc1"  # 3 against 3.5
    by_block = ("mha@0", "mha@1", "fc1@0", "fc1@1")
    assert [resolve(f"auto:plasticity:{k}", by_block, files) for k in (1, 2, 3)] == [
        "mha@1", "mha@1+fc1@0", "mha@1+fc1@0-1",
    ]  # fmt: skip
    with pytest.raises(InputError, match="the model's blocks are 0 to 1"):
        resolve("auto:plasticity:1", ("mha@2",), files)


def test_a_random_choice_depends_on_seed_model_and_dataset_alone():
    def drawn(count=1, names=FIVE, **key):
        return resolve(f"auto:random:{count}", names, key=KEY | key)

    assert drawn(2) == drawn(2, reversed(FIVE)) == drawn(2, (*FIVE, "full", "mha~8", "auto:random:2"))
    assert [drawn(seed=seed) for seed in range(6)] == ["fc2", "fc1", "ln2", "mha", "ln1", "fc2"]
    assert len({drawn(seed=s) for s in range(20)}) == len({drawn(model=f"m{i}") for i in range(20)}) == 5
    assert len({drawn(dataset=f"d{i}") for i in range(20)}) == 5
    for seed in range(5):  # a larger choice contains a smaller one
        leaves = [parse(drawn(count, seed=seed)).leaves for count in range(1, 6)]
        assert all(few < more for few, more in itertools.pairwise(leaves))


SETTINGS = json.dumps({"steps": 12, "evaluation_period": 4, "batch_size": 8, "warmup_steps": 2, "lrs": [0.05, 0.2]})
PARAMS = json.dumps({"pairs": 4, "images": 4, "batches": 2, "batch_size": 8})


def run(main, *arguments):
    return cli.run(main, [*map(str, arguments), "--study", "s", "--device", "cpu", "--threads", "1"])


def test_an_adaptive_cell_is_the_cell_of_its_sum_to_the_bit(model_folder, dataset_folder, tmp_path, capsys):
    on = ["--model", model_folder, "--dataset", dataset_folder]
    predicted = tmp_path / "fisher.parquet"
    measuring = ["--source", dataset_folder, "--predictor", "fisher", "--params", PARAMS, "--components", *FIVE]
    assert run(measure.main, *on, *measuring, "--output", predicted) == 0
    known = {row["component"]: row["value"] for row in pq.read_table(predicted).to_pylist() if row["block"] is None}
    best = components.union([parse(name) for name in sorted(known, key=known.get)[-2:]]).name
    found = {}
    for name in ("auto:fisher:2", best):
        more = ["--candidates", *FIVE, "--predicted", predicted] if name != best else []
        output = tmp_path / name / "runs.parquet"
        options = ["--component", name, "--seed", 3, "--params", SETTINGS, "--output", output]
        assert run(finetune.main, *on, *options, *more) == 0
        shifted = ["--model", model_folder, "--runs", output, "--on", dataset_folder]
        assert run(evaluate.main, *shifted, "--output", tmp_path / name / "shifted.parquet") == 0
        frames = [pq.read_table(tmp_path / name / f"{kind}.parquet").to_pydict() for kind in KINDS]
        assert {one for frame in frames for one in frame.pop("component")} == {name}
        resolved = frames[0].pop("resolved", None)
        stable = [{c: values for c, values in frame.items() if c not in UNSTABLE} for frame in frames]
        found[name] = *stable, (tmp_path / name / "trained.safetensors").read_bytes()
        assert resolved == ([best] * 2 if name != best else None)
    assert repr(found["auto:fisher:2"]) == repr(found[best])
    assert f"auto:fisher:2 is {best} of small on colours" in capsys.readouterr().out


KINDS = ("runs", "history", "shifted")


def test_what_cannot_be_resolved_stops_before_the_cell_has_a_folder(model_folder, dataset_folder, tmp_path, capsys):
    options = ["--model", model_folder, "--dataset", dataset_folder, "--seed", 0, "--params", SETTINGS]
    options += ["--output", tmp_path / "cell" / "runs.parquet", "--component"]
    for more, words in (
        (["auto:random:3", "--candidates", "mha", "fc1"], "only 2 components of the study"),
        (["auto:bound:1", "--candidates", "mha"], "name them by --predicted"),
        (["auto:random:1", "--candidates", "attn"], "unknown component 'attn'"),
        (["auto:random"], "write auto:PREDICTOR:NUMBER"),
    ):
        assert run(finetune.main, *options, *more) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "cell").exists()
