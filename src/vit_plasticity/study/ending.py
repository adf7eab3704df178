"""What a finished study says at the end of a run: its answer, the accuracy of each component, and where to read on.

Standard library only.
"""

import csv
import re
import sys
from pathlib import Path

SECTIONS = ("Answer", "Could it be known before?")


def tell(results, since):
    """Print what `told` returns, also where the terminal knows no ± sign."""
    if words := told(results, since):
        encoding = sys.stdout.encoding or "ascii"
        print(words.encode(encoding, "replace").decode(encoding), flush=True)


def told(results, since):
    """The answer of the study in the folder `results` as a text; "" where its tables are older than `since` (s)."""
    tables = Path(results, "tables")
    answer, accuracy = tables / "answer.rst", tables / "accuracy.csv"
    if not (answer.is_file() and accuracy.is_file()) or answer.stat().st_mtime < since:
        return ""
    page = f"All of it: {tables / 'answer.html'}, and snakemake --report FILE.html for the figures beside it."
    return "\n\n".join(["", *_sentences(answer.read_text(encoding="utf-8")), _aligned(accuracy), page])


def _sentences(text):
    """The first paragraph of each of SECTIONS: reStructuredText, a heading in bold before its paragraphs."""
    found = []
    for heading in SECTIONS:
        _, _, rest = text.partition(f"**{heading}**\n\n")
        if words := rest.partition("\n\n")[0]:
            found.append(re.sub(r"\\(.)", r"\1", words))
    return found


def _aligned(file):
    """A CSV file as columns of equal width."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
