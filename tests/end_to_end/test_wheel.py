"""The package as other people install it: a wheel, in an environment without Snakemake, away from the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest
from PIL import Image
from processes import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs a command of an environment that holds the wheel and its dependencies, without Snakemake."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = (folder / "dist").glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (site / "snakemake.py").write_text("raise ImportError('not installed')\n", encoding="utf-8")
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def run(program, *arguments):
        command = [folder / "venv" / "bin" / program, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=kept | home, capture_output=True, text=True, timeout=200)

    return run


def test_nothing_of_the_checkout_is_used(installed):
    lines = "import vit_plasticity, importlib.util as u; print(vit_plasticity.__file__); u.find_spec('snakemake.utils')"
    done = installed("python", "-c", lines)
    assert "not installed" in done.stderr
    assert str(ROOT / "src") not in done.stdout and "site-packages" in done.stdout


def test_recommend_runs_with_the_shipped_model_and_leaves_what_was_asked_for(installed, tmp_path):
    random = np.random.default_rng(0)
    for name, colour in (("red", 0), ("blue", 2)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            image = random.integers(0, 150, (20, 20, 3), dtype=np.uint8)
            image[..., colour] += 100
            Image.fromarray(image).save(tmp_path / "images" / name / f"{i}.png")
    words = ["recommend", "--model", "vit_mini", "--data", tmp_path / "images", "--components", "ln1", "mha"]
    words += ["--budget", "2s", "--lrs", "0.03", "--threads", "1", "--json", tmp_path / "answer.json"]
    done = installed("vit-plasticity", *words)
    assert done.returncode == 0, done.stderr
    assert "Fine-tune" in done.stdout and "left" in done.stderr
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert answer["recommended"] in ("ln1", "mha")
    assert str(ROOT) not in done.stdout + done.stderr


def test_every_program_explains_itself(installed):
    usage = installed("vit-plasticity").stderr
    programs = usage.partition("one of ")[2].partition(";")[0].split(", ")
    assert {"recommend", "fetch", "finetune", "status"} <= set(programs)
    for program in ("status", "fetch"):
        done = installed("vit-plasticity", program, "--help")
        assert done.returncode == 0 and f"vit_plasticity.{program}" in done.stdout
