"""The tables of a study: computed from what the stages wrote, and written as Parquet, and as HTML where for reading."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vit_plasticity.analysis import answer, html, judge, matrix, predictor_table, schemas, summary, tables
from vit_plasticity.runtime.files import atomic
from vit_plasticity.study.grid import PAGES

PASSED_ON = ("rates_by_block", "probe", "finetune", "history", "shifted")
"""Tables that are their stages' rows, joined."""

_KINDS = {"regret": {"ci_low": "points", "ci_high": "points"}}
"""Page → column → kind, where a column is of another kind there than elsewhere."""


def analyse(rows, settings):
    """Every table of a study by name, from the frames that `inputs.read` returns. settings: of the stage, a dict."""
    plasticity = summary.with_ranges(rows["plasticity_means"], rows["rates_by_block"], rows["finetune"])
    known = predictor_table.join(
        plasticity=plasticity,
        rates=rows["rates_by_block"],
        measured=rows["predictors"],
        runs=rows["finetune"],
    )
    whole = predictor_table.whole(known)
    summed = summary.summarise(
        runs=rows["finetune"],
        plasticity=plasticity,
        predictors=whole,
        probe=rows["probe"],
        shifted=rows["shifted"],
    )
    judged = judge(summed[summed["n_runs"] > 0], whole[whole["dataset"].notna()], **settings)
    computed = {"summary": summed, "ranking": summary.rank(summed), "tests": summary.paired_tests(summed)}
    return {name: rows[name] for name in PASSED_ON} | computed | {"predictors": known} | judged


def write(folder, results, *, study, rev, settings, sources, command=""):
    """Write every table (frame or Arrow table, by name) into `folder` as Parquet, and those of PAGES as HTML.

    sources: stage → where its rows come from, as of `inputs.read`. command: what makes the study again, for its page.
    """
    about = {"study": study, "stage": "correlate", "rev": rev, "key": {}, "provenance": tables.provenance()}
    inputs = {stage: source["fingerprint"] for stage, source in sources.items()}
    about |= {"settings": settings, "inputs": inputs, "sources": sources}
    for name, rows in results.items():
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pandas(rows.reindex(columns=schemas.columns(name)), preserve_index=False)
        table = schemas.conform(rows, name)
        tables.write_table(Path(folder, f"{name}.parquet"), table, about)
        if name in PAGES:
            if name == "predictors":
                table = table.filter(pc.is_null(table["block"])).drop_columns("block")
            _write_text(folder, f"{name}.html", html.page(table, f"{study}: {name}", PAGES[name], _KINDS.get(name)))
    text = answer.sections(results, sources, study, command)
    found = matrix.matrices(results["summary"], results["ranking"])
    _write_text(folder, "answer.html", answer.to_html(text, results, study))
    _write_text(folder, "answer.rst", answer.to_rst(text))
    _write_text(folder, "accuracy.tex", matrix.to_latex(found))
    _write_text(folder, "accuracy.csv", matrix.to_csv(found))


def _write_text(folder, name, text):
    with atomic(Path(folder, name)) as temporary:
        temporary.write_text(text, encoding="utf-8")
