"""Which files a study has, and where they lie below its folder: the one home of names and paths."""

import itertools

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit.components import is_single, measurable, parse

CELL_KEYS = ("model", "dataset", "component", "seed")
CELL = "{model}/{dataset}/{component}/seed={seed}"

PATHS = {
    "plasticity": "plasticity/{model}/{dataset}/{component}.parquet",
    "measure": "predictors/{predictor}/{model}/{dataset}.parquet",
    "probe": "probe/{model}/{dataset}.parquet",
    "finetune": f"finetune/{CELL}/runs.parquet",
    "history": f"finetune/{CELL}/history.parquet",
    "trained": f"finetune/{CELL}/trained.safetensors",
    "evaluate": f"shifted/{CELL}.parquet",
}
"""Stage, or what a cell writes → its files below a study's folder."""

OPTIONAL_PATHS = {
    "taps": "probes_by_block/{model}/{dataset}.parquet",
    "landscape": f"loss_landscape/{CELL}.parquet",
}
"""As `PATHS`, of stages that run when a figure of theirs is asked for; the analysis reads none of them."""

RUN_FILES = {name: PATHS[name].rpartition("/")[2] for name in ("finetune", "history", "trained")}
"""What a cell writes into its folder: key of `PATHS` → name of the file."""

TABLES_READ = tuple(name for name, path in PATHS.items() if path.endswith(".parquet"))
"""The keys of `PATHS` whose files are tables, which the analysis reads."""

PAGES = {
    "summary": "One row per fine-tuned or measured component: plasticity (mean over blocks and pairs) with its "
    "interval, the learning rate chosen on validation, accuracy on test over seeds, and what it is compared to.",
    "ranking": "Components over datasets, best mean rank first; rank 1 is the highest test accuracy on a dataset.",
    "predictors": "What was known before fine-tuning, one row per predictor and component; the rows of single blocks "
    "are in the Parquet file alone.",
    "correlation": "Each predictor against test accuracy. Pooled scopes compare components only within a dataset; "
    "spearman_given_parameters is what is left once the number of trained values is accounted for; p-values are of "
    "permutations within datasets.",
    "differences": "Every two predictors: their coefficients on the components that both have, and the difference with "
    "its interval over datasets.",
    "regret": "Test accuracy lost by following a rule instead of knowing the best single component. random: the "
    "expectation of a random choice; validation: known only after all were trained. A component whose runs all "
    "diverged is charged with the worst that another one reached.",
    "tests": "Pairs of components, paired by dataset: Student's t and Wilcoxon's signed-rank test, two-sided, and "
    "adjusted by Holm's method over the pairs of one model and outcome. Adaptive components stand beside as many drawn "
    "ones, and beside the fixed ones of as many that validation chose; these pairs are adjusted by themselves.",
}
"""Tables that are also written as HTML → what a reader must know of them."""

TABLES = ("rates_by_block", "finetune", "history", "probe", "shifted", *PAGES)
"""The tables of a study."""

TEXTS = ("answer.html", "answer.rst", "accuracy.tex", "accuracy.csv")
"""What `correlate` writes beside its tables: the front page, its text for the report, and the accuracy matrix."""

FIGURES = {
    "plasticity_by_component": "Plasticity",
    "plasticity_by_depth": "Plasticity",
    "bounds_vs_plasticity": "Plasticity",
    "relative_gain": "Fine-tuning",
    "critical_difference": "Fine-tuning",
    "accuracy_vs_costs": "Fine-tuning",
    "accuracy_by_lr": "Fine-tuning",
    "shifted": "Fine-tuning",
    "dynamics": "Fine-tuning",
    "dynamics_by_lr": "Fine-tuning",
    "predictors_correlation": "Which predictor?",
    "rules_regret": "Which predictor?",
    "predictors_by_block": "Which predictor?",
    "predictors_vs_accuracy": "Which predictor?",
    "plasticity_vs_accuracy": "Which predictor?",
}
"""The figures of a study → their category in the report."""

OPTIONAL_FIGURES = {"probes_by_block": "Fine-tuning", "loss_landscape": "Fine-tuning"}
"""The figures that are made when they are asked for by name → their category in the report."""

REPORTED = {"tables/answer.html": "Answer"} | {f"tables/{name}.html": "Tables" for name in PAGES}
REPORTED |= {f"figures/{name}.png": category for name, category in (FIGURES | OPTIONAL_FIGURES).items()}
"""Files below a study's folder that its report shows → their category."""

_KINDS = {
    "models": str, "plasticity_models": str, "predictors": str, "datasets": str, "components": str, "seeds": int,
}  # fmt: skip


def tables():
    """The files that `correlate` writes, below a study's folder."""
    return [
        *(f"tables/{name}.parquet" for name in TABLES),
        *(f"tables/{name}.html" for name in PAGES),
        *(f"tables/{name}" for name in TEXTS),
    ]


def figures(names=FIGURES):
    """The files that `plots` writes for some figures, below a study's folder."""
    return [f"figures/{name}.{kind}" for name in names for kind in ("png", "pdf")]


def drawn_from(figure, grid):
    """The files, below a study's folder, that one of OPTIONAL_FIGURES is drawn from. grid: as for `files`.

    Probes by block are those of all cells; the loss landscape, for which runs are trained again, is that of each
    component for the first model, dataset and seed.
    """
    if figure == "probes_by_block":
        places = itertools.product(grid["models"], grid["datasets"])
        return [OPTIONAL_PATHS["taps"].format(model=model, dataset=dataset) for model, dataset in places]
    first = {"model": grid["models"][0], "dataset": grid["datasets"][0], "seed": grid["seeds"][0]}
    return [OPTIONAL_PATHS["landscape"].format(component=component, **first) for component in grid["components"]]


def cells(grid):
    """The cells of a study, as dicts of model, dataset, component, seed, in the order of the lists."""
    values = (grid["models"], grid["datasets"], grid["components"], grid["seeds"])
    return [dict(zip(CELL_KEYS, cell, strict=True)) for cell in itertools.product(*values)]


def files(grid):
    """Key of `PATHS` → the files of a study, below its folder.

    grid: models, datasets, components, seeds; plasticity_models (those measured; default: models); predictors (those of
    the stage measure; default: none); evaluate_on (dataset → datasets that its cells are also evaluated on). Only
    measurable components have rates.
    Raises InputError where the grid is malformed.
    """
    grid = _checked(grid)
    models, datasets = grid["models"], grid["datasets"]
    cell = {"model": models, "dataset": datasets, "component": grid["components"], "seed": grid["seeds"]}
    rates = {"model": grid["plasticity_models"], "dataset": datasets, "component": measurable(grid["components"])}
    axes = {
        "plasticity": rates,
        "measure": {"predictor": grid["predictors"], "model": grid["plasticity_models"], "dataset": datasets},
        "probe": {"model": models, "dataset": datasets},
        "finetune": cell,
        "history": cell,
        "trained": cell,
        "evaluate": cell | {"dataset": [d for d in datasets if d in grid["evaluate_on"]]},
    }
    return {
        stage: [
            PATHS[stage].format(**dict(zip(keys, values, strict=True))) for values in itertools.product(*keys.values())
        ]
        for stage, keys in axes.items()
    }


def adaptive(grid):
    """Names of the components that become others for every model and dataset."""
    return [name for name in grid["components"] if parse(name).auto]


def candidates(grid, component):
    """Names of the study's components that an adaptive one may become, sorted: single ones, which have the predictor as
    far as their names tell. None for every other component."""
    auto = parse(component).auto
    names = sorted(name for name in grid["components"] if is_single(name)) if auto else []
    return [name for name in names if auto[0] != "plasticity" or parse(name).base]


def predicted(grid, model, dataset, component):
    """The files, below the study's folder, that an adaptive component is resolved from; none for every other."""
    auto, key = parse(component).auto, {"model": model, "dataset": dataset}
    if auto is None or auto[0] == "random":
        return []
    if auto[0] == "plasticity":
        return [PATHS["plasticity"].format(component=c, **key) for c in measurable(candidates(grid, component))]
    return [PATHS["measure"].format(predictor=auto[0], **key)]


def measured(grid):
    """Names of the components that predictors have values of: all but adaptive ones, sorted."""
    return sorted(set(grid["components"]) - set(adaptive(grid)))


def _checked(grid):
    """The grid with its defaults, or InputError."""
    example = '{"models": ["m"], "datasets": ["d"], "components": ["mha"], "seeds": [0]}'
    if not isinstance(grid, dict):
        raise InputError(f"--grid must be a JSON object such as {example}, got {grid!r}")
    unknown = [key for key in grid if key not in {*_KINDS, "evaluate_on"}]
    if unknown:
        raise InputError(f"--grid: unknown key {unknown[0]!r}; choose from {', '.join(_KINDS)}, evaluate_on")
    grid = {"plasticity_models": grid.get("models"), "predictors": [], "evaluate_on": {}} | grid
    for key, kind in _KINDS.items():
        values = grid.get(key)
        if (
            not isinstance(values, list)
            or not (values or key == "predictors")
            or any(type(value) is not kind for value in values)
        ):
            what = "strings" if kind is str else "whole numbers"
            raise InputError(f"--grid: {key} must be a list of one or more {what}, got {values!r}; e.g. {example}")
    if not isinstance(grid["evaluate_on"], dict):
        raise InputError(f'--grid: evaluate_on must be like {{"digits": ["pet"]}}, got {grid["evaluate_on"]!r}')
    try:
        for component in grid["components"]:
            parse(component)
    except ValueError as error:
        raise InputError(f"--grid: {error}") from error
    return grid
