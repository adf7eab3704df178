"""A table as an HTML page for reading: rounded, labelled, escaped, and complete in itself."""

import html

import pyarrow as pa

from vit_plasticity.vit.components import parse

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #222; position: sticky; top: 0; background: #fff; }
td { border-bottom: 1px solid #ddd; }
th.text, td.text { text-align: left; }
caption { text-align: left; padding-bottom: .8em; max-width: 60em; }
"""
_COMPONENTS = ("component", "component_a", "component_b")


def page(table, title, note):
    """An HTML document with one Arrow table. Column names lose their underscores, components get their labels.

    Numbers have four significant digits, whole numbers all of theirs; what is null shows as a dash.
    """
    is_text = {field.name: pa.types.is_string(field.type) for field in table.schema}
    head = "".join(_cell("th", name.replace("_", " "), text) for name, text in is_text.items())
    rows = "".join(
        f"<tr>{''.join(_cell('td', _shown(row[name], name), text) for name, text in is_text.items())}</tr>\n"
        for row in table.to_pylist()
    )
    title, note = html.escape(title), html.escape(note)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body><table><caption><b>{title}.</b> {note}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></body></html>\n"
    )


def _cell(tag, text, is_text):
    kind = ' class="text"' if is_text else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def _shown(value, column):
    """One value as text; p-values below 0.001 say just that."""
    if value is None:
        return "–"
    if column in _COMPONENTS:
        return ", ".join(parse(name).label for name in value.split(", "))  # where a rule's choices tie, all of them
    if not isinstance(value, float):
        return str(value)
    if "p_value" in column and value < 0.001:
        return "< 0.001"
    return f"{value:.4g}"
