"""Which rules run again when a value of the configuration changes: those that depend on it, and nothing else.

Snakemake compares `params` loosely, so that no stale result may hide behind a changed value is proved value by value.
"""

import collections
import copy
import re

import pyarrow.parquet as pq
import pytest
import yaml
from planning import plan
from processes import ROOT, SMOKE, copy_checkout, edit, remove, smoke_config, snakemake, stable

from vit_plasticity.data import registry as datasets
from vit_plasticity.study import config as studies
from vit_plasticity.study.grid import PATHS

ANALYSIS = {"correlate": 1, "plots": 1}
MEASURE = {"plasticity": 2, "measure": 2, "probe": 2}
CELLS = {"finetune": 8, "evaluate": 4}
ALL_RESULTS = MEASURE | CELLS | ANALYSIS

AFTER = {
    "study": ALL_RESULTS,
    "downloads": {},
    "pretrain": {"pretrain": 1} | ALL_RESULTS,
    "plasticity": {"plasticity": 2} | ANALYSIS,
    "measure": {"measure": 2} | ANALYSIS,
    "probe": {"probe": 2} | ANALYSIS,
    "finetune": CELLS | ANALYSIS,
    "landscape": {},  # of an optional figure, which is not asked for
    "analysis": ANALYSIS,
    "catalog.datasets.fractals_smoke": {"fetch_dataset": 1, "pretrain": 1} | ALL_RESULTS,
}
"""Path of a key, or the start of one → rule → number of jobs, when a value below it changes."""

BY_HAND = {
    "study": "another",
    "downloads.mirror": "/a/mirror",
    "pretrain.pool": "class",
    "probe.pool": "class",
    "probe.tap": "mha",
    "probe.fit_on": "train_and_val",
    "finetune.optimizer": "adamw",
    "finetune.precision": "bf16",
    "finetune.warmup_from": 0,
    "finetune.head_init": "linear",
    "finetune.split": "per_seed",
}
"""Values that must be chosen by hand; any other value is changed by its type."""

ELSEWHERE = {"predictors", "models", "datasets", "components", "seeds", "evaluate_on", "catalog.models", "overrides"}
ELSEWHERE |= {"plasticity.source", "plasticity.models"}
"""Keys whose change has a case of its own below."""


def resolved():
    """The smoke study with every default filled in, as the workflow sees it."""
    base = yaml.safe_load((ROOT / "config.yaml").read_text())
    return studies.resolve({"downloads": base["downloads"]} | smoke_config())


def leaves(value, path=()):
    """(path, value) of everything in a configuration that is no map; items of lists have paths of their own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from leaves(below, (*path, key))
    if not isinstance(value, (dict, list)):
        yield path, value


def dotted(path):
    return ".".join(map(str, path))


def within(path, start):
    return path == start or path.startswith(f"{start}.")


def another(path, value):
    """Another valid value for a key."""
    if dotted(path) in BY_HAND:
        return BY_HAND[dotted(path)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value * 2 if value else 1
    return value * 0.9 if value else 0.25


SMALL_CHANGES = [
    (path, value) for path, value in leaves(resolved()) if not any(within(dotted(path), key) for key in ELSEWHERE)
]


def with_value(config, path, value):
    """A copy of `config` with one value replaced; maps on the way are made where they are missing."""
    config = copy.deepcopy(config)
    place = config
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = value
    return config


def rerun(folder, config, **options):
    return collections.Counter(job.rule for job in plan(folder, config, **options))


@pytest.mark.parametrize(("path", "value"), SMALL_CHANGES, ids=[dotted(path) for path, _ in SMALL_CHANGES])
def test_changed_value_reruns_what_depends_on_it_and_nothing_else(smoke, path, value):
    expected = next(jobs for start, jobs in AFTER.items() if within(dotted(path), start))
    assert rerun(smoke, with_value(smoke_config(), path, another(path, value))) == expected


def test_changed_row_of_the_table_of_datasets_makes_that_dataset_anew(smoke, tmp_path, monkeypatch):
    header, *rows = datasets.TABLE.read_text().splitlines()
    digits = next(row for row in rows if row.startswith("digits,")).replace(",1151,287,359,,", ",1151,287,359,16,")
    (tmp_path / "datasets.csv").write_text(f"{header}\n{digits}\n")
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(tmp_path / "datasets.csv"))
    ones = dict.fromkeys(("fetch_dataset", "measure", "probe"), 1)
    assert rerun(smoke, smoke_config()) == ALL_RESULTS | ones | {"finetune": 4}


def test_cases_cover_every_section():
    """At least the number of keys that there were when this was written, so that none is lost unseen."""
    assert len(SMALL_CHANGES) >= 45
    assert {path[0] for path, _ in SMALL_CHANGES} | {key.partition(".")[0] for key in ELSEWHERE} == resolved().keys()


def test_nothing_changed_runs_nothing(smoke):
    assert plan(smoke, SMOKE) == []
    assert plan(smoke, resolved()) == []


REMADE = {
    "plasticity": ["plasticity"],
    "measure": ["measure"],
    "probe": ["probe"],
    "evaluate": ["evaluate"],
    "finetune": ["finetune", "evaluate"],
    "history": ["finetune", "evaluate"],
    "trained": ["finetune", "evaluate"],
}
"""What a cell or a measurement wrote → the rules that run when it is gone, beside the analysis."""


@pytest.mark.parametrize("name", PATHS)
def test_a_lost_file_is_made_again_though_the_tables_are_finished(study, name):
    key = {"model": "vit_smoke", "dataset": "digits", "component": "mha", "seed": 0, "predictor": "bound"}
    remove(study / "results" / "smoke" / PATHS[name].format(**key))
    assert rerun(study, SMOKE) == dict.fromkeys(REMADE[name], 1) | ANALYSIS


def test_order_of_keys_does_not_matter(smoke):
    config = smoke_config()
    turned = {
        section: dict(reversed(value.items())) if isinstance(value, dict) else value
        for section, value in reversed(config.items())
    }
    assert plan(smoke, turned) == []


def test_defaults_may_be_left_out(smoke):
    """A value that equals the schema's default is the same study whether it is written or not."""
    config = smoke_config()
    del config["pretrain"]["seed"], config["analysis"]["seed"]
    assert plan(smoke, config) == []


def test_values_swapped_between_keys_are_a_change(smoke):
    """Snakemake compares several params as a set: two swapped values would be none. One JSON text is not fooled."""
    config = smoke_config()
    finetune = config["finetune"]
    finetune["steps"], finetune["batch_size"] = finetune["batch_size"], finetune["steps"]
    assert rerun(smoke, config) == CELLS | ANALYSIS


def test_smallest_change_of_a_number_is_a_change(smoke):
    assert rerun(smoke, smoke_config(finetune__lrs=[0.03, 0.10000000000000002])) == CELLS | ANALYSIS


EVALUATE_TWICE = [{"trained_on": "digits", "tested_on": ["digits_c_contrast_5", "digits_c_snow_3"]}]
LISTS = {
    "seed added": ({"seeds": [0, 1, 2]}, {"finetune": 4, "evaluate": 2} | ANALYSIS),
    "seed removed": ({"seeds": [0]}, ANALYSIS),
    "component added": (
        {"components": ["mha", "ln1", "full"]},
        {"measure": 2, "finetune": 4, "evaluate": 2} | ANALYSIS,
    ),
    "block component added": (
        {"components": ["mha", "ln1", "fc1"]},
        {"plasticity": 1, "measure": 2, "finetune": 4, "evaluate": 2} | ANALYSIS,
    ),
    "adaptive component added": (
        {"components": ["mha", "ln1", "auto:bound:1"]},
        {"finetune": 4, "evaluate": 2} | ANALYSIS,
    ),
    "component removed": ({"components": ["mha"]}, {"measure": 2} | ANALYSIS),
    "components turned": ({"components": ["ln1", "mha"]}, ANALYSIS),
    "predictor added": ({"predictors": ["parameters", "bound", "snip"]}, {"measure": 2} | ANALYSIS),
    "predictors of no job": ({"predictors": ["plasticity"]}, ANALYSIS),
    "dataset added": (
        {"datasets": ["digits", "digits_c_contrast_5", "digits_c_snow_3"]},
        {"fetch_dataset": 1, "plasticity": 2, "measure": 1, "probe": 1, "finetune": 4} | ANALYSIS,
    ),
    "dataset removed": ({"datasets": ["digits"]}, {"plasticity": 2} | ANALYSIS),  # one job measures all datasets
    "learning rate added": ({"finetune__lrs": [0.03, 0.1, 0.3]}, CELLS | ANALYSIS),
    "evaluated on one more": ({"evaluate_on": EVALUATE_TWICE}, {"fetch_dataset": 1, "evaluate": 4} | ANALYSIS),
    "evaluated on none": ({"evaluate_on": []}, ANALYSIS),
    "model added": (
        {
            "models": ["vit_smoke", "other"],
            "catalog__models__other": {"pretrain": {"dataset": "fractals_smoke", "seed": 1}},
        },
        {"pretrain": 1} | ALL_RESULTS,
    ),
    "model's own pre-training changed": (
        {"catalog__models__vit_smoke": {"pretrain": {"dataset": "fractals_smoke", "depth": 3}}},
        {"pretrain": 1} | ALL_RESULTS,
    ),
    "model's own pre-training equals the section": (
        {"catalog__models__vit_smoke": {"pretrain": {"dataset": "fractals_smoke", "depth": 2}}},
        {},
    ),
    "pre-trained on another dataset": (
        {"catalog__models__vit_smoke": {"pretrain": {"dataset": "digits"}}},
        {"pretrain": 1} | ALL_RESULTS,
    ),
    "model in the catalog that nothing uses": ({"catalog__models__unused": {"timm": "vit_base_patch16_224"}}, {}),
    "another source": ({"plasticity__source": "digits"}, {"plasticity": 2, "measure": 2} | ANALYSIS),
    "the same models measured, by name": ({"plasticity__models": ["vit_smoke"]}, {}),
    "override of a dataset": (
        {"overrides": {"digits": {"finetune": {"steps": 12}}}},
        {"finetune": 4, "evaluate": 4} | ANALYSIS,
    ),
    "override of a model": ({"overrides": {"vit_smoke": {"finetune": {"lrs": [0.3]}}}}, CELLS | ANALYSIS),
    "override that changes nothing": ({"overrides": {"digits": {"finetune": {"steps": 10}}}}, {}),
}
"""What is changed → (the changes, rule → number of jobs)."""


@pytest.mark.parametrize(("changes", "expected"), LISTS.values(), ids=LISTS)
def test_changed_list_reruns_what_is_new_and_the_analysis(smoke, changes, expected):
    assert rerun(smoke, smoke_config(**changes)) == expected


def test_a_new_dataset_is_measured_and_the_others_keep_their_rates(study, smoke):
    """One job measures all datasets of a component, so that it runs again; nothing of it is old, nothing is missing."""
    config = smoke_config(datasets=["digits", "digits_c_contrast_5", "digits_c_snow_3"])
    folder = "results/smoke/plasticity/vit_smoke"
    snakemake(study, f"{folder}/digits_c_snow_3/mha.parquet", config=config)
    for dataset in ("digits", "digits_c_contrast_5"):
        assert stable(study / folder / dataset / "mha.parquet") == stable(smoke / folder / dataset / "mha.parquet")
    added = pq.read_table(study / folder / "digits_c_snow_3" / "mha.parquet", partitioning=None)
    assert set(added["dataset"].to_pylist()) == {"digits_c_snow_3"}
    assert {job.wildcards for job in plan(study, config) if job.rule == "plasticity"} == {"vit_smoke/ln1"}


def test_an_adaptive_cell_runs_again_when_what_it_is_chosen_from_changes(study, smoke):
    """And the cells of fixed components do not. It is the cell of what it was resolved to, to the bit."""
    adaptive = ["auto:bound:1", "auto:random:1"]
    config = smoke_config(components=["mha", "ln1", *adaptive])
    cells = [f"results/smoke/finetune/vit_smoke/digits/{name}/seed=0/runs.parquet" for name in adaptive]
    snakemake(study, *cells, config=config)
    for cell in cells:
        columns, _, _ = stable(study / cell)
        (fixed,) = {name.strip("'") for name in columns.pop("resolved")}
        other = stable(study / f"results/smoke/finetune/vit_smoke/digits/{fixed}/seed=0/runs.parquet")[0]
        assert columns | {"component": other["component"]} == other
    rules = pq.read_table(study / "results/smoke/tables/regret.parquet").to_pylist()
    followed = [row["component"] for row in rules if (row["rule"], row["dataset"]) == ("bound", "digits")]
    assert followed == pq.read_table(study / cells[0], partitioning=None)["resolved"].to_pylist()[:1]

    others = {"finetune": 2 * 4 - 2, "evaluate": 2 * 2} | ANALYSIS
    assert rerun(study, config) == others
    added = rerun(study, smoke_config(components=["mha", "ln1", "fc1", *adaptive]))
    assert added["finetune"] == 2 * 4 + 4
    turned = rerun(study, smoke_config(components=[*reversed(adaptive), "ln1", "mha"]))
    assert turned == others
    measured = rerun(study, smoke_config(components=["mha", "ln1", *adaptive], measure__seed=1))
    assert measured["finetune"] == others["finetune"] + 1  # the random one has nothing to do with it


def test_only_the_cells_of_a_new_seed_run(smoke):
    cells = {job.wildcards for job in plan(smoke, smoke_config(seeds=[0, 1, 2])) if job.rule == "finetune"}
    names = [f"vit_smoke/{d}/{c}/2" for d in ("digits", "digits_c_contrast_5") for c in ("mha", "ln1")]
    assert cells == set(names)


REVISIONS = {
    "data.smk": {"fetch_dataset": 3, "pretrain": 1} | ALL_RESULTS,
    "models.smk": {"pretrain": 1} | ALL_RESULTS,
    "plasticity.smk": {"plasticity": 2, "measure": 2} | ANALYSIS,
    "probe.smk": {"probe": 2} | ANALYSIS,
    "finetune.smk": CELLS | ANALYSIS,
    "analysis.smk": ANALYSIS,
}


@pytest.mark.parametrize("rules", REVISIONS)
def test_new_revision_of_a_rule_reruns_it(smoke, tmp_path, rules):
    checkout = copy_checkout(tmp_path / "checkout")
    path = checkout / "workflow" / "rules" / rules
    path.write_text(re.sub(r"rev=\d+,", "rev=1000,", path.read_text()))
    assert rerun(smoke, SMOKE, checkout=checkout) == REVISIONS[rules]


def test_changed_code_alone_reruns_nothing(smoke, tmp_path):
    """`git pull` must not run a thousand jobs again: `rev` says when numbers change."""
    checkout = copy_checkout(tmp_path / "checkout")
    for module in (checkout / "src" / "vit_plasticity").glob("*.py"):
        module.write_text(module.read_text() + "\n# changed\n")
    edit(checkout / "workflow" / "rules" / "finetune.smk", "rule evaluate:", "# moved\n\n\nrule evaluate:")
    assert plan(smoke, SMOKE, checkout=checkout) == []
