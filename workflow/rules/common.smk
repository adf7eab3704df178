# Validate the configuration, constrain the wildcards, list the cells: the only Python of the workflow.
import re
import shlex
import sys
import time

from snakemake.exceptions import WorkflowError

# Not workflow.basedir, which is another checkout where this workflow is a module of another one.
BASE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
ALONE = workflow.modifier.is_main_snakefile()
if not (BASE / "src").is_dir():
    raise WorkflowError(f"{BASE} is no folder of this machine: the workflow runs from a checkout, also as a module.")
sys.path.insert(0, str(BASE / "src"))

from vit_plasticity.data import registry
from vit_plasticity.runtime import checkout, client, files
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies
from vit_plasticity.study import ending, grid, loading
from vit_plasticity.vit.components import PATTERN

try:
    if ALONE:  # otherwise files and --config belong to the workflow that uses this one
        for file in workflow.configfiles:
            loading.read(file)
        loading.refuse_command_line(dict(workflow.config_settings.config))
    config = studies.resolve(config)
except InputError as error:
    raise WorkflowError(str(error))

if workflow.is_main_process:
    for note in studies.notes(config):
        print(f"note: {note}", file=sys.stderr)

checkout.use(BASE)
if ALONE:  # the prefix of a shell is one for all rules
    # Snakemake takes PYTHONPATH away from jobs in a conda environment, which would then not find the package.
    shell.prefix("set -euo pipefail; export PYTHONPATH={BASE:q}/src${{PYTHONPATH:+:$PYTHONPATH}}; ")

RESULTS = f"results/{config['study']}"


pathvars:
    results=RESULTS,
    logs=f"logs/{config['study']}",


def one_of(names):
    """A regular expression that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(config["catalog"]["models"]),
    dataset=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    component=PATTERN,
    seed=r"\d+",


PRETRAINED = [name for name, entry in config["catalog"]["models"].items() if "pretrain" in entry]
FETCHED = [name for name in config["catalog"]["models"] if name not in PRETRAINED]
# Models that are made here or shipped are so small that to measure them takes less time than a place in a cluster's queue.
SMALL = not any({"timm", "local", "random"} & entry.keys() for entry in config["catalog"]["models"].values())
GRID = studies.grid(config)
FILES = grid.files(GRID)
PATHS = {stage: f"<results>/{path}" for stage, path in (grid.PATHS | grid.OPTIONAL_PATHS).items()}


def study_files(paths):
    """Files of the study, given below its folder; those that its HTML report shows come with their caption."""
    return [in_report(path) if path in grid.REPORTED else f"<results>/{path}" for path in paths]


def in_report(path):
    name = Path(path).stem
    return report(
        f"<results>/{path}",
        caption=str(BASE / "workflow" / "report" / f"{name}.rst"),
        category=grid.REPORTED[path],
        labels={"result": name.replace("_", " ")},
    )


def missing_files():
    """Files of the stages that measure, and of cells, that are not there. Snakemake looks no further than what is asked for:
    it would not see that one is gone which a finished table was made from. What is there is found through that table.
    """
    paths = [path for paths in FILES.values() for path in paths]
    if ALONE:  # otherwise another workflow decides in which folder they are
        paths = [path for path in paths if workflow.is_main_process and not Path(RESULTS, path).exists()]
    return [f"<results>/{path}" for path in paths]


def drawn_from(figure):
    """The files that an optional figure is drawn from."""
    return [f"<results>/{path}" for path in grid.drawn_from(figure, GRID)]


def cells_of(stage):
    """The files of a stage of all cells of one model and dataset, whose wildcards stay."""
    return collect(
        PATHS[stage],
        component=config["components"],
        seed=config["seeds"],
        allow_missing=True,
    )


def settings(stage):
    """The settings of a stage as one JSON text: what Snakemake compares to see whether a result is still true."""
    return studies.json_text(config[stage])


def plasticity_settings():
    """As `settings`, without the keys that are inputs or paths: what to measure, and against which source."""
    return studies.json_text(
        {key: value for key, value in config["plasticity"].items() if key not in ("models", "source")}
    )


def finetune_settings():
    """The settings of a cell. What is the same for all cells is no function: Snakemake would ask it for every one."""
    if not config["overrides"]:
        return settings("finetune")
    return lambda wildcards: studies.json_text(
        studies.stage_settings(config, "finetune", wildcards.dataset, wildcards.model)
    )


def short_run_settings():
    """The settings of the cells where a predictor fine-tunes; otherwise none, so that they change nothing."""
    return finetune_settings() if studies.fine_tunes(config["predictors"]) else "{}"


def candidates():
    """The names that an adaptive component may become; none for every other."""
    return (lambda wildcards: grid.candidates(GRID, wildcards.component)) if grid.adaptive(GRID) else []


def predicted():
    """The files that an adaptive component is resolved from; none for every other."""
    if not grid.adaptive(GRID):
        return []
    return lambda wildcards: [
        f"<results>/{path}" for path in grid.predicted(GRID, wildcards.model, wildcards.dataset, wildcards.component)
    ]


def pretraining_dataset(wildcards):
    return f"resources/datasets/{config['catalog']['models'][wildcards.model]['pretrain']['dataset']}"


def pretrain_settings(wildcards):
    return studies.json_text(studies.pretrain_settings(config, wildcards.model))


def evaluation_datasets(wildcards):
    return collect(
        "resources/datasets/{name}",
        name=GRID["evaluate_on"].get(wildcards.dataset, []),
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


def recipe(wildcards):
    """What the table of datasets says of one, whose change makes it anew."""
    return registry.lookup(wildcards.dataset, config["catalog"]["datasets"]).recipe


def whole_dataset(wildcards):
    """The dataset that the catalog draws this one from, if it does."""
    entry = config["catalog"]["datasets"].get(wildcards.dataset, {})
    return [f"resources/datasets/{entry['of']}"] if "of" in entry else []


def command():
    """What makes this study again from the same folder; nothing where another workflow decides."""
    if not ALONE:
        return ""
    folder, given = Path.cwd(), [Path(file).absolute() for file in workflow.configfiles]
    given = [file.relative_to(folder) if file.is_relative_to(folder) else file for file in given]
    words = ["snakemake", "--cores", "all"]
    words += (
        [] if given == [BASE / "config.yaml"] or given == [Path("config.yaml")] else ["--configfile", *map(str, given)]
    )
    changes = [f"{key}={value}" for key, value in workflow.config_settings.config.items()]
    return shlex.join([*words, *(["--config", *changes] if changes else [])])


DOWNLOADS = download_options()
STARTED = time.time()


onstart:
    if workflow.is_main_process:
        for folder in ("resources", "results", "logs"):  # which may be links to a file system where nothing is yet
            files.make_folder(folder)
        client.start_worker()


onsuccess:
    if workflow.is_main_process:
        ending.tell(RESULTS, STARTED)
