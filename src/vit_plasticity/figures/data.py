"""What figures are drawn from: the tables of a study, and the orders and groups that all figures share. No torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from vit_plasticity.analysis.summary import GROUP, order_of_component

NOTHING_TRAINED = "No fine-tuning has finished in this study yet."


@dataclass(frozen=True)
class Study:
    """The tables of a study, as frames named and built as in `schemas`; of the history, which may be gigabytes, the
    path."""

    predictors: pd.DataFrame
    finetune: pd.DataFrame
    shifted: pd.DataFrame
    summary: pd.DataFrame
    ranking: pd.DataFrame
    correlation: pd.DataFrame
    regret: pd.DataFrame
    history: Path

    @cached_property
    def trained(self):
        """The rows of the summary that were fine-tuned."""
        return self.summary[self.summary["n_runs"] > 0]

    def values(self, predictor, *, blocks=False):
        """The rows of a predictor: of whole components, or those of single blocks."""
        rows = self.predictors[self.predictors["predictor"].eq(predictor)]
        return rows[rows["block"].notna() if blocks else rows["block"].isna()]

    @cached_property
    def predictor_names(self):
        """The predictors that the study judges, the null first."""
        return list(self.correlation["predictor"].unique())

    @cached_property
    def _mean_plasticity(self):
        return self.summary.groupby(["model", "component"])["plasticity"].mean()

    def by_measured_plasticity(self, model, components):
        """(components with a plasticity, highest mean over datasets first; the others, in the vocabulary's order)."""
        means = {c: self._mean_plasticity.get((model, c), float("nan")) for c in components}
        measured = sorted((c for c in means if means[c] == means[c]), key=lambda c: (-means[c], order_of_component(c)))
        return measured, sorted((c for c in means if c not in measured), key=order_of_component)


def panels_of(rows):
    """Rows of a table, panel by panel: [(model, dataset, title, rows)], in the order of their appearance."""
    several = rows["model"].nunique() > 1
    return [
        (model, dataset, f"{dataset}\n{model}" if several else dataset, group)
        for (model, dataset), group in rows.groupby(GROUP[:2], sort=False)
    ]


def means_over_datasets(rows, columns):
    """Means of `columns` over the datasets that all of a model's components have, as panels like those of `panels_of`.

    No panel for a model with fewer than two such datasets.
    """
    several = rows["model"].nunique() > 1
    result = []
    for model, group in rows.groupby("model", sort=False):
        complete = group.groupby("dataset")[columns[0]].count() == group["component"].nunique()
        shared = group[group["dataset"].map(complete)]
        if complete.sum() > 1:
            name = f"mean of {complete.sum()} datasets"
            means = shared.groupby("component", as_index=False)[columns].mean()
            result.append((model, None, f"{name}\n{model}" if several else name, means))
    return result
