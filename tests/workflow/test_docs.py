"""Every command of README and docs: Snakemake plans it, make knows its target, a program knows its options."""

import re
import shlex
import subprocess

import pytest
from processes import ROOT, SNAKEMAKE, stage

from vit_plasticity.__main__ import programs

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
_STARTS = r"(?:snakemake|make|vit-plasticity|python -m vit_plasticity\.\w+)\b"
_NOT_FOR_EVERYBODY = re.compile(r"…|--report|--unlock|--sdm|local-gpu")
"""What stands for more than it says, or wants results or a GPU."""


def commands():
    """(page, command) of every line of code that is one, or holds some after &&, and of every one in a sentence."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        lines = [part for line in re.findall(r"^ {4}(.*)$", text, re.MULTILINE) for part in line.split("&&")]
        for found in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            words = shlex.split(found.strip(), comments=True) if re.match(_STARTS, found.strip()) else []
            if len(words) > 1 and not _NOT_FOR_EVERYBODY.search(found.partition("#")[0]):
                yield page, " ".join(words)


COMMANDS = sorted({command for _, command in commands()})


def starting(word):
    return [command for command in COMMANDS if command.split()[0] == word]


def test_there_are_commands():
    assert {"make run", "snakemake --cores all"} <= set(COMMANDS)
    assert any(command.startswith("vit-plasticity recommend") for command in COMMANDS)


@pytest.mark.parametrize("command", starting("make"))
def test_make_knows_its_target(command):
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", starting("snakemake"))
def test_snakemake_plans_it(command, tmp_path):
    """Files of the reader's own (mine.yaml, my.yaml) and what hangs on them are left out; image folders are there."""
    for name in ("images/a", "images/b", "photographs"):
        (tmp_path / name).mkdir(parents=True)
    words = shlex.split(command)[1:]
    own = [word for word in words if word.endswith(".yaml") and not (ROOT / word).is_file()]
    if own:
        words = words[: words.index("--forcerun")] if "--forcerun" in words else words
        words = [str(ROOT / "workflow/studies/smoke.yaml") if word in own else word for word in words]
    asked = [SNAKEMAKE, *words, "--dry-run", "--directory", tmp_path]
    done = subprocess.run([str(word) for word in asked], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [*starting("python"), *starting("vit-plasticity")])
def test_programs_know_their_options(command):
    words = shlex.split(command)
    program = words[1] if words[0] == "vit-plasticity" else words[2].removeprefix("vit_plasticity.")
    assert program in programs()
    source = (ROOT / "src" / "vit_plasticity" / f"{program}.py").read_text(encoding="utf-8")
    shared = (ROOT / "src" / "vit_plasticity" / "runtime" / "cli.py").read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source + shared


def test_the_readme_shows_what_recommend_says_of_the_shipped_model(tmp_path):
    stage("fetch", "dataset", "digits", "--output", "digits", cwd=tmp_path, warm=False)
    asked = ["--model", "vit_mini", "--data", "digits", "--patience", "4s", "--cache", "cache", "--device", "cpu"]
    said = stage("recommend", *asked, cwd=tmp_path, warm=False).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("the one without a budget says:\n\n")[2].split("\n\n")[0].splitlines()
    assert len(shown) == 2
    for line in shown:
        assert line.strip().removesuffix("…").strip() in said
