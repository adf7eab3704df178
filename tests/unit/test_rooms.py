"""The house: which room of the package may use which, and what stands at its top."""

import ast
import importlib.util
import sys

import pytest
from processes import ROOT

PACKAGE = ROOT / "src" / "vit_plasticity"
PROGRAMS = {"fetch", "pretrain", "plasticity", "measure", "probe", "finetune", "evaluate", "correlate", "plots"}
PROGRAMS |= {"status", "recommend", "warm", "taps", "landscape"}
ARROWS = {
    "runtime": set(),
    "data": {"runtime"},
    "vit": {"runtime"},
    "analysis": {"runtime"},
    "figures": {"analysis", "runtime"},
    "study": {"data.registry", "predictors", "runtime"},
    "predictors": {"vit", "data", "runtime", "training"},
    "training": {"vit", "data", "analysis.tables", "runtime"},
    "advice": {"predictors", "training", "data", "vit", "analysis", "study", "runtime"},
}
"""Room → rooms, or single modules of them, that it may import from. All may use what is in OPEN."""
OPEN = {"vit_plasticity", "__version__", "vit.components", "study.grid"}
LINES = 80


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path):
    """Full names of what a module imports, `from a import b` as a.b; relative imports resolved."""
    package = ".".join(("vit_plasticity", *path.relative_to(PACKAGE).parent.parts))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name, module):
    return f"{name}.".startswith(f"{module}.")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_between_rooms_point_down(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room not in ARROWS:
        return  # a program may use every room
    allowed = {room} | ARROWS[room] | OPEN
    ours = {name.removeprefix("vit_plasticity.") for name in imported(path) if within(name, "vit_plasticity")}
    assert sorted(name for name in ours if not any(within(name, module) for module in allowed)) == []


def test_every_room_is_in_the_table():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ARROWS.keys()


def test_the_top_level_is_the_list_of_programs():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"} == PROGRAMS


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_programs_are_short(name):
    assert len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()) < LINES


def test_timm_is_known_to_models_alone():
    using = {path.relative_to(PACKAGE) for path in modules() if any(within(name, "timm") for name in imported(path))}
    assert [str(path) for path in using if path.parts[0] not in ("vit", "pretrain.py")] == []


@pytest.mark.parametrize("name", ["vit/components.py", "study/grid.py"])
def test_what_every_room_may_use_needs_the_standard_library_alone(name):
    others = {module.partition(".")[0] for module in imported(PACKAGE / name)} - sys.stdlib_module_names
    assert others <= {"vit_plasticity"}
