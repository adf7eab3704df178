"""An answer for people and for programs: a page of text, the same as HTML, and JSON."""

import html
import math

import pandas as pd

from vit_plasticity.analysis.judgement import NULL
from vit_plasticity.vit.components import parse


def sentences(answer):
    """What the answer says, sentence by sentence."""
    about, images = answer.about, answer.about["images"]
    sizes = ", ".join(f"{n:,} {split}" for split, n in images.items())
    yield f"{answer.model} on {about['name']}: {len(about['classes'])} classes; {sizes} images."
    yield from (f"Note: {note}" for note in answer.notes)
    if answer.interrupted:
        yield "Stopped before the end: this is what was known by then; the same command goes on with the training."
    if answer.first is None:
        yield "Nothing can be recommended yet: no component has a value of the predictor that orders them."
        return
    yield from _choice(answer)
    yield from _of_record(answer)
    yield from _worth(answer)


def _choice(answer):
    first = answer.first
    name = f"{first.component} ({parse(first.component).label})"
    size = f"{first.n_trained:,} of {first.n_all:,} values, {100 * first.n_trained / first.n_all:.1f} %"
    memory = f"about {first.memory_bytes / 1e9:.2f} GB for batches of {answer.batch_size} images"
    if answer.search is None or not answer.search.runs:
        yield f"Fine-tune {name}: the first by {answer.followed}. It trains {size} (head included), and needs {memory}."
        yield "This was not tried on your images: --budget 10min trains for real and says how sure the order is."
        return
    top, search = answer.table.iloc[0], answer.search
    yield (
        f"Fine-tune {name} at learning rate {top['lr']:g}: validation accuracy {_percent(top['val_accuracy'])}, "
        f"95 % interval {_percent(top['ci_low'])} to {_percent(top['ci_high'])}, after {top['steps']:.0f} steps."
    )
    yield f"It trains {size} (head included), and needs {memory}."
    equals = answer.table[(answer.table["round"] == top["round"]) & (answer.table["ci_high"] >= top["ci_low"])]
    if others := list(equals["component"].iloc[1:]):
        yield f"With these validation images it cannot be told apart from {', '.join(others)}."
    tried = answer.table["round"].notna().sum()
    yield f"{len(search.runs)} runs of {tried} components took {search.seconds:.0f} s of training."
    if saved := search.saved():
        gain = f"{abs(saved['seconds']):.0f} s {'less' if saved['seconds'] >= 0 else 'more'}"
        yield (
            f"{answer.followed} led the order: the winner came {_th(saved['place'])} of {saved['tried']}, "
            f"{gain} than in a random order."
        )


def _of_record(answer):
    record = answer.record.set_index("rule")
    if answer.followed not in record.index:
        yield f"{answer.followed} has no record yet."
        return
    row = record.loc[answer.followed]
    where = f"on {row['n']:.0f} (model, dataset) pairs of {row['studies']}"
    lost = f"lost {_points(row['regret'])} points of accuracy on average, {_points(row['regret_max'])} at most, {where}"
    if answer.followed == NULL:
        yield (
            f"The record: no predictor has beaten the number of parameters for sure so far, so that decides. Following "
            f"it {lost}."
        )
    else:
        yield f"The record: following {answer.followed} {lost}; the number of parameters {_points(row['null_regret'])}."


def _worth(answer):
    if answer.probe is None:
        return
    accuracy = _percent(answer.probe["test_accuracy"])
    n_train, n_test = (answer.probe[f"n_{name}"] for name in ("train", "test"))
    yield (
        f"A linear probe, which trains no part of the model, has test accuracy {accuracy} (fitted on {n_train:,} "
        f"training images, tested on {n_test:,})."
    )
    if answer.worth is None:
        return
    worth = answer.worth
    interval = f"{100 * worth['low']:+.1f} to {100 * worth['high']:+.1f}"
    gain = f"{100 * worth['difference']:+.1f} points, 95 % interval {interval}, on {worth['n']} test images"
    if worth["low"] > 0:
        yield f"Fine-tuning is worth it: {_percent(worth['test_accuracy'])}, {gain}."
    elif worth["high"] < 0:
        yield f"Fine-tuning is not worth it in this time: {_percent(worth['test_accuracy'])}, {gain}."
    else:
        yield f"Whether fine-tuning is worth it is not sure: {_percent(worth['test_accuracy'])}, {gain}."


def _percent(share):
    return f"{100 * share:.1f} %"


def _points(share):
    return f"{100 * share:.2f}"


def _th(number):
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"


def tables(answer):
    """(title, frame of texts) of each table of the page."""
    table, n = answer.table, len(answer.table)
    shown = pd.DataFrame({"rank": table["rank"].map(_whole), "component": table["component"]})
    shown["trains"] = table["n_trained"].map("{:,}".format)
    shown["share"] = table["share"].map(_percent)
    shown["memory"] = (table["memory_mb"] / 1000).map("{:.2f} GB".format)
    if "val_accuracy" in table:
        shown["validation"] = [_interval(row) for row in table.to_dict("records")]
        shown["lr"], shown["steps"], shown["round"] = (table[c].map(_number) for c in ("lr", "steps", "round"))
    yield "Components", shown
    names = [name for name in table if name in _predictors(answer)]
    values = pd.DataFrame({"component": table["component"]} | {name: table[name].map(_number) for name in names})
    yield f"Predictors: the higher, the better it should fine-tune (of {n} components)", values
    record = answer.record
    lines = pd.DataFrame({"rule": record["rule"]})
    lines["mean regret"], lines["largest"] = (record[c].map(_points) for c in ("regret", "regret_max"))
    lines["pairs"] = record["n"].map(_whole)
    lines[f"against {NULL}"] = [
        "–" if math.isnan(r["excess"]) else f"{100 * r['excess']:+.2f} ({_range(r['excess_low'], r['excess_high'], 2)})"
        for r in record.to_dict("records")
    ]
    lines["studies"] = record["studies"]
    yield "The record: points of test accuracy lost by following each rule instead of the best component", lines


def _predictors(answer):
    own = {"rank", "component", "n_trained", "share", "memory_mb"}
    own |= {"val_accuracy", "ci_low", "ci_high", "lr", "steps", "round"}
    return [name for name in answer.table if name not in own]


def _interval(row):
    if pd.isna(row["val_accuracy"]):
        return "–" if pd.isna(row["lr"]) else "diverged"
    return f"{_percent(row['val_accuracy'])} ({_range(row['ci_low'], row['ci_high'])})"


def _range(low, high, digits=1):
    return "no interval" if pd.isna(low) else f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"


def _whole(value):
    return "–" if pd.isna(value) else f"{value:.0f}"


def _number(value):
    return "–" if pd.isna(value) else f"{value:.4g}"


def text(answer):
    """The page for a terminal."""
    parts = ["\n".join(sentences(answer))]
    parts += [f"{title}\n{_columns(frame)}" for title, frame in tables(answer)]
    if answer.first is not None:
        parts.append("\n".join(["In Python:", "", *(f"    {line}".rstrip() for line in answer.first.lines)]))
    return "\n\n".join(parts) + "\n"


def _columns(frame):
    rows = [list(frame.columns), *frame.to_numpy().tolist()]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; text-align: left; white-space: nowrap; border-bottom: 1px solid #ddd; }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; }
"""


def page(answer):
    """The page as an HTML document that is complete in itself."""
    title = html.escape(f"What to fine-tune of {answer.model} on {answer.about['name']}")
    body = [f"<h1>{title}</h1>", *(f"<p>{html.escape(one)}</p>" for one in sentences(answer))]
    for name, frame in tables(answer):
        body += [f"<h2>{html.escape(name)}</h2>", frame.to_html(index=False, border=0)]
    if answer.first is not None:
        code = html.escape("\n".join(answer.first.lines))
        body += ["<h2>In Python</h2>", f"<pre>{code}</pre>"]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def as_dict(answer):
    """The answer as JSON values: what was asked, the sentences, each component with its parameters and its lines of
    Python, the record, and the runs."""
    choices = answer.choices
    return {
        "model": answer.model,
        "dataset": answer.about,
        "batch_size": answer.batch_size,
        "interrupted": answer.interrupted,
        "seconds": round(answer.seconds, 3),
        "sentences": list(sentences(answer)),
        "recommended": None if answer.first is None else answer.first.component,
        "followed": answer.followed,
        "components": [
            _plain(row)
            | {"parameters": list(choices[row["component"]].names), "python": list(choices[row["component"]].lines)}
            for row in answer.table.to_dict("records")
        ],
        "linear_probe": answer.probe,
        "fine_tuning_against_probe": answer.worth,
        "record": [_plain(row) for row in answer.record.to_dict("records")],
        "runs": None if answer.search is None else answer.search.runs,
    }


def _plain(row):
    """A row of a frame with None where it is missing or not finite."""
    return {key: None if pd.isna(v) or (isinstance(v, float) and not math.isfinite(v)) else v for key, v in row.items()}
