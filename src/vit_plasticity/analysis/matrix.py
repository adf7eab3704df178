"""The accuracy matrix: components × datasets, mean ± deviation over seeds, mean rank, best bold; HTML, LaTeX, CSV."""

import html

import pandas as pd

from vit_plasticity.vit.components import parse

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
)


def matrices(summary, ranking):
    """Model → frame of cells (text, is_best), components by mean rank down, datasets and then "mean" and "rank" across.

    Accuracies in percent; a dash where a component was not trained, "diverged" where all of its runs did. The mean is
    over all datasets, a dash where one is missing; the rank is that of `summary.rank`, adaptive ones have a dash.
    """
    found = {}
    for model, rows in summary[summary["n_runs"] > 0].groupby("model", sort=False):
        ranks = ranking[ranking["model"].eq(model)].set_index("component")["rank_mean"]
        order = [*ranks.index, *(c for c in rows["component"].unique() if c not in ranks.index)]
        accuracy, deviation, runs = (
            rows.pivot(index="component", columns="dataset", values=column).reindex(order)[rows["dataset"].unique()]
            for column in ("test_accuracy_mean", "test_accuracy_std", "n_runs")
        )
        frame = pd.DataFrame(index=order, columns=[*accuracy.columns, "mean", "rank"], dtype=object)
        for dataset in accuracy:
            best = accuracy[dataset].max()
            for component in order:
                value, spread = accuracy.at[component, dataset], deviation.at[component, dataset]
                words = "–" if runs.at[component, dataset] != runs.at[component, dataset] else "diverged"
                if value == value:
                    words = f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if spread == spread else "")
                frame.at[component, dataset] = (words, value == best)
        means = accuracy.mean(axis=1, skipna=False)
        for component in order:
            mean, rank = means[component], ranks.get(component, float("nan"))
            frame.at[component, "mean"] = (f"{100 * mean:.1f}" if mean == mean else "–", mean == means.max())
            frame.at[component, "rank"] = (f"{rank:.1f}" if rank == rank else "–", rank == ranks.min())
        found[model] = frame
    return found


def to_html(frame):
    """One matrix as an HTML table."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = []
    for component, row in frame.iterrows():
        cells = "".join(
            f'<td data-value="{_number(text)}">{f"<b>{text}</b>" if best else text}</td>' for text, best in row
        )
        rows.append(f'<tr><td class="text">{html.escape(parse(component).label)}</td>{cells}</tr>')
    head = f'<th class="text">Component</th>{head}'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{"".join(rows)}</tbody></table></div>'


def to_latex(found):
    """All matrices as LaTeX tables (package booktabs)."""
    tables = []
    for model, frame in found.items():
        names = " & ".join(str(name).translate(_LATEX) for name in frame.columns)
        rows = [
            " & ".join(
                [
                    parse(component).label,
                    *(_bold(text.replace("±", r"$\pm$").replace("–", "--"), best) for text, best in row),
                ]
            )
            for component, row in frame.iterrows()
        ]
        tables.append("\n".join([
            f"% {model}: test accuracy (%), mean and standard deviation over seeds; best in bold",
            rf"\begin{{tabular}}{{l{'r' * len(frame.columns)}}}",
            r"\toprule",
            rf"Component & {names} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]))  # fmt: skip
    return "\n\n".join(tables) + "\n"


def to_csv(found):
    """All matrices as one CSV text, with the model and the component first."""
    parts = [
        frame.map(lambda cell: cell[0]).rename_axis("component").reset_index().assign(model=model)
        for model, frame in found.items()
    ]
    if not parts:
        return "model,component\n"
    whole = pd.concat(parts)
    return whole[["model", *whole.columns.drop("model")]].to_csv(index=False, lineterminator="\n")


def _bold(text, best):
    return rf"\textbf{{{text}}}" if best else text


def _number(text):
    first = text.split(" ")[0]
    return first if first.replace(".", "").isdigit() else ""
