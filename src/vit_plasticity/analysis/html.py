"""Pages for reading: one table, or several with text. Rounded, labelled, escaped, sortable, complete in themselves."""

import html

import pyarrow as pa

from vit_plasticity.analysis.dictionary import COLUMNS, heading
from vit_plasticity.vit.components import parse

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 1.4em 0 .3em; }
p, caption { max-width: 60em; margin: .3em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .22em .6em; text-align: right; }
td { white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #222; vertical-align: bottom; position: sticky; top: 0; background: #fff; }
thead th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " ▴"; } th[aria-sort=descending]::after { content: " ▾"; }
th.text, td.text { text-align: left; }
caption { text-align: left; padding-bottom: .8em; }
"""
_SORT = """
document.querySelectorAll("thead th").forEach(head => head.addEventListener("click", () => {
  const table = head.closest("table"), body = table.tBodies[0], i = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[i].dataset.value ?? row.cells[i].textContent;
  const compare = (a, b) => (a === "") - (b === "") ||
    (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach(row => body.append(row));
}));
"""
_COMPONENTS = ("component", "component_a", "component_b", "resolved")


def document(title, body):
    """A whole HTML document around `body`, whose tables sort where their heads are clicked. No network is needed."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>{body}\n<script>{_SORT}</script></body></html>\n"
    )


def page(table, title, note, kinds=None):
    """An HTML document with one Arrow table. Columns and components get their names for people.

    Shares are percent with one decimal; other numbers have four significant digits, whole numbers all of theirs; what
    is null shows as a dash. kinds: column → kind, where it is another than the dictionary's.
    """
    kinds = {name: COLUMNS[name].kind for name in table.column_names if name in COLUMNS} | (kinds or {})
    is_text = {field.name: pa.types.is_string(field.type) for field in table.schema}
    head = "".join(_head(name, is_text[name], kinds.get(name)) for name in table.column_names)
    rows = "".join(
        f"<tr>{''.join(_cell(row[name], name, is_text[name], kinds.get(name)) for name in is_text)}</tr>\n"
        for row in table.to_pylist()
    )
    caption = f"<caption><b>{html.escape(title)}.</b> {html.escape(note)}</caption>"
    body = f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>"
    return document(title, f'<div class="wide">{body}</div>')


def _head(name, is_text, kind):
    known = COLUMNS.get(name)
    text = heading(name) if known else name.replace("_", " ")
    if kind in ("share", "points") and not text.endswith("(%)"):
        text += " (%)"
    meaning = html.escape(f"{name}: {known.meaning}" if known else name)
    return f'<th title="{meaning}"{_class(is_text)}>{html.escape(text)}</th>'


def _cell(value, name, is_text, kind):
    key = "" if is_text else f' data-value="{"" if value is None else float(value)}"'
    return f"<td{_class(is_text)}{key}>{html.escape(_shown(value, name, kind))}</td>"


def _class(is_text):
    return ' class="text"' if is_text else ""


def _shown(value, column, kind):
    """One value as text; p-values below 0.001 say just that."""
    if value is None:
        return "–"
    if column in _COMPONENTS:
        return ", ".join(parse(name).label for name in value.split(", "))  # where a rule's choices tie, all of them
    if isinstance(value, bool):
        return "yes" if value else "no"
    if kind in ("share", "points"):
        return f"{100 * value:.1f}"
    if not isinstance(value, float):
        return str(value)
    if "p_value" in column and value < 0.001:
        return "< 0.001"
    return f"{value:.4g}"
