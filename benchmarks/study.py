"""The whole plasticity part of a study through Snakemake, the start of every job counted, against one plain script.

ViT-Base with random weights, the three datasets of the default study, five components, one core. Models and datasets
are fetched before; the script reads the same prepared images. Wall seconds, from nothing started to all files written.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas
import yaml

from benchmarks import ROOT, plain
from benchmarks.harness import at_least, interleaved, ratios
from benchmarks.plasticity import vit_base
from vit_plasticity import vit
from vit_plasticity.data import registry
from vit_plasticity.predictors import points
from vit_plasticity.runtime.device import select_device
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid
from vit_plasticity.vit.components import MEASURABLE

PAIRS = 64


def measure():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        given = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
        own = {"study": "bench", "models": ["vit_base"], "components": list(MEASURABLE)}
        catalog = {"models": {"vit_base": {"local": str(folder / "vit_base")}}, "datasets": {}}
        study = given | own | {"catalog": catalog, "plasticity": given["plasticity"] | {"pairs": PAIRS}}
        vit.save(vit_base(), folder / "vit_base", {"benchmark": True})
        (folder / "study.json").write_text(json.dumps(study))
        files = grid.files(studies.grid(studies.resolve(study)))["plasticity"]
        names = [given["plasticity"]["source"], *given["datasets"]]
        snakemake(folder, "resources/models/vit_base", *(f"resources/datasets/{name}" for name in names))

        def ours():
            shutil.rmtree(folder / "results", ignore_errors=True)
            snakemake(folder, *(f"results/bench/{file}" for file in files))

        command = [sys.executable, "-m", "benchmarks.study", folder, *names]
        functions = {"plain": lambda: subprocess.run(list(map(str, command)), check=True), "ours": ours}
        seconds = interleaved(1, functions, warm_up=0)
    note = f"{seconds['plain'][0]:.0f} s plain, {seconds['ours'][0]:.0f} s ours, wall"
    what = f"Plasticity of a study through Snakemake, ViT-Base, {len(names) - 1} targets of {PAIRS} pairs, one core"
    return [at_least(what, 4, ratios(seconds, "plain", "ours"), note=note)]


def snakemake(folder, *targets):
    command = ["-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "1"]
    command += ["--quiet", "all", "--configfile", folder / "study.json", "--", *targets]
    done = subprocess.run([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"Snakemake failed:\n{done.stdout.decode()[-2000:]}")


def script(folder, source, *targets):
    """What one would write instead: one process, a file of rates for every target."""
    select_device("cpu", threads=1)
    model = vit.load(folder / "resources/models/vit_base")
    for target in targets:
        splits = [
            registry.open_dataset(folder / "resources/datasets" / name).split("test") for name in (source, target)
        ]
        x, y = (points.images(model, split, range(PAIRS)) for split in splits)
        rates = plain.rates_of_change(model, x, y)
        pandas.DataFrame({one: values.flatten() for one, values in rates.items()}).to_parquet(
            folder / f"{target}.parquet"
        )


if __name__ == "__main__":
    os.environ["VIT_PLASTICITY_ONEDNN"] = "0"  # Linear layers as torch has them
    script(Path(sys.argv[1]), *sys.argv[2:])
