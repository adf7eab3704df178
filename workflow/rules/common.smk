# Validate the configuration, constrain the wildcards, list the cells: the only Python of the workflow.
import re
import shlex
import sys

from snakemake.exceptions import WorkflowError

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "src"))

from vit_plasticity.runtime import checkout, client
from vit_plasticity.study import config as studies
from vit_plasticity.runtime.cli import InputError

try:
    for file in workflow.configfiles:
        studies.refuse_repeated_keys(file)
    config = studies.resolve(config)
except InputError as error:
    raise WorkflowError(str(error))

checkout.use(BASE)
# Snakemake takes PYTHONPATH away from jobs in a conda environment, which would then not find the package.
shell.prefix("set -euo pipefail; export PYTHONPATH={BASE:q}/src${{PYTHONPATH:+:$PYTHONPATH}}; ")

RESULTS = f"results/{config['study']}"
WORK = f"{RESULTS}/work"


pathvars:
    results=RESULTS,
    logs=f"logs/{config['study']}",


def one_of(names):
    """A regular expression that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(config["catalog"]["models"]),
    dataset=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    component=r"[a-z0-9+]+",
    seed=r"\d+",


PRETRAINED = [name for name, entry in config["catalog"]["models"].items() if "pretrain" in entry]
FETCHED = [name for name in config["catalog"]["models"] if name not in PRETRAINED]
# Models that are made here or shipped are so small that to measure them takes less time than a place in a cluster's queue.
SMALL = not any({"timm", "local"} & entry.keys() for entry in config["catalog"]["models"].values())
CELL = "{model}/{dataset}/{component}/seed={seed}"
RUN_FILES = ["runs.parquet", "history.parquet", "trained.safetensors"]
EVALUATED_ON = studies.evaluated_on(config)
GRID = {key: config[key] for key in ("models", "datasets", "components", "seeds")} | {
    "plasticity_models": studies.measured_models(config),
    "evaluate_on": EVALUATED_ON,
}
PAGES = ["summary", "predictors", "ranking", "correlation", "differences", "regret", "tests"]
TABLES = ["rates_by_block", "finetune", "history", "probe", "shifted", *PAGES]
FIGURES = {
    "plasticity_by_component": "Plasticity",
    "plasticity_by_depth": "Plasticity",
    "bounds_vs_plasticity": "Plasticity",
    "relative_gain": "Fine-tuning",
    "accuracy_vs_fraction": "Fine-tuning",
    "accuracy_by_lr": "Fine-tuning",
    "shifted": "Fine-tuning",
    "dynamics": "Fine-tuning",
    "plasticity_vs_accuracy": "Does plasticity predict accuracy?",
}


def measurements():
    """Every file of the stages that measure: plasticity, bounds, linear probes."""
    models, measured = studies.measured_models(config), studies.measured_components(config)
    return [
        *collect(
            "<results>/plasticity/{model}/{dataset}/{component}.parquet",
            model=models,
            dataset=config["datasets"],
            component=measured,
        ),
        *collect(
            "<results>/bounds/{model}/{component}.parquet",
            model=models,
            component=measured,
        ),
        *collect(
            "<results>/probe/{model}/{dataset}.parquet",
            model=config["models"],
            dataset=config["datasets"],
        ),
    ]


def cells():
    """Every file of every cell. Snakemake looks no further than what is asked for, so the cells are asked for one by one."""
    return [
        *(f"<results>/finetune/{CELL.format(**cell)}/{name}" for cell in studies.cells(config) for name in RUN_FILES),
        *(
            f"<results>/shifted/{CELL.format(**cell)}.parquet"
            for cell in studies.cells(config)
            if cell["dataset"] in EVALUATED_ON
        ),
    ]


def study_tables():
    return [
        *collect("<results>/tables/{name}.parquet", name=TABLES),
        *(in_report("tables", name, "html", "Tables") for name in PAGES),
    ]


def study_figures():
    return [
        *(in_report("figures", name, "png", category) for name, category in FIGURES.items()),
        *collect("<results>/figures/{name}.pdf", name=FIGURES),
    ]


def in_report(folder, name, kind, category):
    """A result that the HTML report shows, with its caption."""
    return report(
        f"<results>/{folder}/{name}.{kind}",
        caption=str(BASE / "workflow" / "report" / f"{name}.rst"),
        category=category,
        labels={"result": name.replace("_", " ")},
    )


def settings(stage):
    """The settings of a stage as one JSON text: what Snakemake compares to see whether a result is still true."""
    return studies.json_text(config[stage])


def plasticity_settings():
    """As `settings`, without the keys that are inputs or paths: what to measure, and against which source."""
    return studies.json_text(
        {key: value for key, value in config["plasticity"].items() if key not in ("models", "source")}
    )


def finetune_settings(wildcards):
    return studies.json_text(studies.stage_settings(config, "finetune", wildcards.dataset, wildcards.model))


def pretraining_dataset(wildcards):
    return f"resources/datasets/{config['catalog']['models'][wildcards.model]['pretrain']['dataset']}"


def pretrain_settings(wildcards):
    return studies.json_text(studies.pretrain_settings(config, wildcards.model))


def evaluation_datasets(wildcards):
    return collect(
        "resources/datasets/{name}",
        name=EVALUATED_ON.get(wildcards.dataset, []),
    )


def download_options():
    """Options of `fetch` that say where files come from. They change no result, so they are no params."""
    options = ["--offline"] if config["downloads"]["offline"] else []
    if mirror := config["downloads"]["mirror"]:
        options += ["--mirror", shlex.quote(mirror)]
    return " ".join(options)


def catalog_entry(kind, name):
    """The catalog entry of a dataset or model as a JSON text; null for a built-in one."""
    return studies.json_text(config["catalog"][kind].get(name))


DOWNLOADS = download_options()


onstart:
    if workflow.is_main_process:
        client.start_worker()


# Not after an error or a signal: then some cells may have ended unseen, and the next run finds them by what they left.
onsuccess:
    if workflow.is_main_process:
        studies.clear_work(WORK)
