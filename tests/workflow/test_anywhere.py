"""The workflow where other people run it: locales without UTF-8, awkward folders, a HOME that cannot be written."""

import json
import os
import shutil
import subprocess

import pytest
from PIL import Image
from processes import ROOT, SMOKE, SNAKEMAKE, snakemake, stage, write_config

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture(scope="module")
def latin1(tmp_path_factory):
    """The variables of a Latin-1 locale, as clusters set it; skips where none can be compiled."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "--inputfile", "en_US", "--charmap", "ISO-8859-1", str(folder / "en_US")]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine cannot compile a Latin-1 locale")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US"}


def plain(**variables):
    """This process's environment without what it says of locales, with other variables instead."""
    drop = ("LC_ALL", "LANG", "LANGUAGE", "LC_CTYPE", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING")
    return {name: value for name, value in os.environ.items() if name not in drop} | variables


@pytest.mark.parametrize("profile", ["default", "slurm", "local-gpu"])
def test_profiles_hold_ascii_alone(profile):
    """Snakemake opens them in the encoding of the locale."""
    assert (ROOT / "profiles" / profile / "config.yaml").read_bytes().isascii()


@pytest.mark.parametrize("locale", ["ascii", "latin1"])
def test_plans_in_any_locale(locale, request, tmp_path):
    variables = ASCII if locale == "ascii" else request.getfixturevalue("latin1")
    study = write_config(tmp_path / "study.yaml", {"study": "mine", "catalog": {"datasets": {}}})
    study.write_text(study.read_text(encoding="utf-8") + "# Größe\n", encoding="utf-8")
    words = [SNAKEMAKE, "-n", "--profile", "slurm", "--directory", tmp_path / "d", "--configfile", SMOKE, study]
    done = subprocess.run(words, cwd=ROOT, env=plain(**variables), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finetune" in done.stdout


def test_an_image_folder_with_accents_in_an_ascii_locale_without_a_home(tmp_path):
    """Through a link to the checkout, in a folder with a space and an accent, below a TMPDIR longer than a socket's
    address may be, and with a HOME where nothing can be made."""
    for name in ("café", "thé"):
        for i in range(6):
            path = tmp_path / "mes photos" / name / f"{i}ü.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(path)
    link, temporary = tmp_path / "link", tmp_path / ("x" * 130)
    link.symlink_to(ROOT)
    temporary.mkdir()
    study = tmp_path / "mine.yaml"
    study.write_text(json.dumps({"catalog": {"datasets": {"mine": {"imagefolder": str(tmp_path / "mes photos")}}}}))
    folder = tmp_path / "été 1"
    home = {"HOME": "/proc", "TMPDIR": str(temporary)}
    targets = ["resources/datasets/mine", "resources/models/vit_smoke"]
    without_cache = {name: value for name, value in plain(**ASCII, **home).items() if name != "XDG_CACHE_HOME"}
    snakemake(folder, *targets, config=[SMOKE, study], checkout=link, env=without_cache)
    about = json.loads((folder / "resources/datasets/mine/dataset.json").read_text(encoding="utf-8"))
    assert about["classes"] == ["café", "thé"]
    assert (folder / "resources/models/vit_smoke/model.safetensors").exists()


def test_folders_may_be_links_to_places_that_do_not_exist_yet(tmp_path):
    """As where a home is small, and the large folders are put on a scratch that is still empty."""
    scratch, folder = tmp_path / "scratch", tmp_path / "study"
    folder.mkdir()
    for name in ("resources", "results", "logs"):
        (folder / name).symlink_to(scratch / "deep" / name)
    snakemake(folder, "results/smoke/probe/vit_smoke/digits.parquet")
    assert (scratch / "deep/results/smoke/probe/vit_smoke/digits.parquet").is_file()
    assert (scratch / "deep/logs/smoke/probe/vit_smoke/digits.log").is_file()


def test_a_stage_by_hand_makes_what_a_link_points_to(tmp_path):
    (tmp_path / "resources").symlink_to(tmp_path / "scratch/resources")
    stage("fetch", "dataset", "digits", "--output", "resources/datasets/digits", cwd=tmp_path)
    assert (tmp_path / "scratch/resources/datasets/digits/dataset.json").is_file()
