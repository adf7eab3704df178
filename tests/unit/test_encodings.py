"""Every text file is opened with an encoding by name, since that of the locale is not always UTF-8."""

import ast

import pytest
from processes import ROOT

FILES = sorted((ROOT / "src").rglob("*.py"))
OPENERS = ("open", "fdopen", "read_text", "write_text", "NamedTemporaryFile")
NOT_FILES = ("Image", "tarfile", "zipped", "zipfile", "urllib", "os", "h5py")
"""Names whose `open` opens no text file."""


def without_encoding(tree):
    """The lines of calls that open a text file without naming its encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if name not in OPENERS or (name == "open" and owner in NOT_FILES):
            continue
        given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [part.value for arg in given for part in ast.walk(arg) if isinstance(part, ast.Constant)]
        binary = name in ("open", "fdopen", "NamedTemporaryFile") and any("b" in str(mode) for mode in modes)
        if not binary and "encoding" not in {keyword.arg for keyword in node.keywords}:
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_text_files_are_opened_as_utf_8(path):
    assert not [*without_encoding(ast.parse(path.read_text(encoding="utf-8")))]


def test_a_call_without_an_encoding_is_found():
    code = 'p.read_text()\np.open("rb")\nopen(p)\np.open("w", encoding="utf-8")\nImage.open(p)\np.write_text("b")\n'
    assert sorted(without_encoding(ast.parse(code))) == [1, 3, 6]
