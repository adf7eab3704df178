"""The judgement of predictors: how they correlate with accuracy, and what is lost by following them.

Places are *single components*: those that train one component of every block, or of a range of blocks. `full`, `embed`,
`head`, unions (sums, `bias`, `norm`, `ffn`), adapters, size-matched masks and adaptive components are left out of
correlations and regret alike.
"""

import dataclasses
import itertools

import pandas as pd

from vit_plasticity.analysis.association import STATISTICS, associate, difference
from vit_plasticity.analysis.regret import regrets
from vit_plasticity.vit.components import is_single

NULL = "parameters"
"""The predictor that every other one must beat."""
GIVEN_NULL = "spearman_given_parameters"
_BLOCK = ["model", "dataset"]
_NEEDED = {
    "accuracies": [*_BLOCK, "component", "test_accuracy_mean"],
    "predictors": ["predictor", *_BLOCK, "component", "value"],
}


def judge(accuracies, predictors, *, confidence=0.95, bootstrap=2000, permutations=10000, seed=0):
    """How well each predictor tells which component fine-tunes best.

    accuracies: frame with model, dataset, component, test_accuracy_mean, and optionally val_accuracy_mean (for the rule
    "validation") and relative_gain; accuracies in [0, 1]. predictors: frame with predictor, model, dataset, component,
    value; rows with a `block` are values of single blocks and do not count. A null accuracy says that every run of the
    component diverged: it takes no part in correlations and is charged in the regret; leave out what was not trained.

    Returns frames: "correlation", one row per predictor, scope ("dataset", "model": pooled within datasets, "all"),
    outcome and statistic, see `association.associate` (clusters are datasets); relative_gain stands only where it can
    differ from accuracy, pooled Pearson; spearman_given_parameters is the partial coefficient given `parameters`.
    "differences", for every two predictors the difference of their coefficients with its interval over datasets.
    "regret", see `regret.regrets`. Raises ValueError for a column that is missing or a key that occurs twice.
    """
    accuracies, predictors = _checked(accuracies, predictors)
    settings = {"confidence": confidence, "resamples": bootstrap, "seed": seed}
    scopes = _scopes(accuracies[accuracies["test_accuracy_mean"].notna()], predictors)
    return {
        "correlation": _correlations(scopes, settings | {"permutations": permutations}),
        "differences": _differences(scopes, settings),
        "regret": regrets(accuracies, predictors, **settings),
    }


def _checked(accuracies, predictors):
    """The rows that take part, with checked columns and keys."""
    for name, frame in (("accuracies", accuracies), ("predictors", predictors)):
        if missing := [column for column in _NEEDED[name] if column not in frame]:
            raise ValueError(f"{name}: column {missing[0]!r} is missing; needed are {', '.join(_NEEDED[name])}")
    if "block" in predictors:
        predictors = predictors[predictors["block"].isna()]
    frames = []
    for name, frame in (("accuracies", accuracies), ("predictors", predictors)):
        frame = frame[frame["component"].map(is_single).astype(bool)]
        keys = _NEEDED[name][:-1]
        if frame.duplicated(keys).any():
            twice = frame[frame.duplicated(keys)][keys].iloc[0].to_dict()
            raise ValueError(f"{name}: more than one row for {twice}; give one value per key")
        frames.append(frame)
    return frames


@dataclasses.dataclass(frozen=True)
class _Scope:
    """What is pooled: grids (D, K) of each outcome and predictor, and the dataset of each block."""

    keys: dict
    outcomes: dict
    values: dict
    datasets: list


def _scopes(accuracies, predictors):
    """Every dataset of every model, every model, and all."""
    chosen = [
        ({"scope": "dataset", "model": model, "dataset": dataset}, rows)
        for (model, dataset), rows in accuracies.groupby(_BLOCK, sort=False)
    ]
    chosen += [
        ({"scope": "model", "model": model, "dataset": None}, rows)
        for model, rows in accuracies.groupby("model", sort=False)
    ]
    chosen += [({"scope": "all", "model": None, "dataset": None}, accuracies)]
    return [_scope(keys, rows, predictors) for keys, rows in chosen]


def _scope(keys, rows, predictors):
    blocks = pd.MultiIndex.from_frame(rows[_BLOCK].drop_duplicates())
    places = list(rows["component"].unique())

    def grid(frame, column):
        wide = frame.pivot(index=_BLOCK, columns="component", values=column)
        return wide.reindex(index=blocks, columns=places).to_numpy(dtype=float)

    outcomes = {"accuracy": grid(rows, "test_accuracy_mean")}
    if "relative_gain" in rows:
        outcomes["relative_gain"] = grid(rows, "relative_gain")
    values = {name: grid(frame, "value") for name, frame in predictors.groupby("predictor", sort=False)}
    values = dict(sorted(values.items(), key=lambda item: item[0] != NULL))
    return _Scope(keys, outcomes, values, [dataset for _, dataset in blocks])


def _correlations(scopes, settings):
    """One row per scope, predictor, outcome and statistic; what cannot differ from another row is left out."""
    result, known = [], {}
    for scope in scopes:
        for predictor, outcome, statistic in _asked(scope):
            given = scope.values[NULL] if statistic == GIVEN_NULL else None
            arrays = (scope.values[predictor], scope.outcomes[outcome], given)
            call = (statistic, tuple(scope.datasets), *(None if a is None else a.tobytes() for a in arrays))
            if call not in known:  # the scopes of a study with one model, or one dataset, are the same numbers
                known[call] = dataclasses.asdict(
                    associate(
                        *arrays[:2], statistic.split("_")[0], given=given, clusters=scope.datasets or None, **settings
                    )
                )
            named = {"predictor": predictor, **scope.keys, "outcome": outcome, "statistic": statistic}
            result.append(named | known[call])
    columns = ["predictor", "scope", *_BLOCK, "outcome", "statistic", "estimate", "n", "n_blocks", "ci_low", "ci_high"]
    return pd.DataFrame(result, columns=[*columns, "p_value"])


def _asked(scope):
    """(predictor, outcome, statistic) of every row that a scope has.

    Relative gain is an increasing linear map of accuracy within a dataset: only the pooled Pearson coefficient, where
    datasets weigh differently, can differ.
    """
    for predictor in scope.values:
        yield from ((predictor, "accuracy", statistic) for statistic in STATISTICS)
        if NULL in scope.values and predictor != NULL:
            yield predictor, "accuracy", GIVEN_NULL
        if "relative_gain" in scope.outcomes and len(scope.datasets) > 1:
            yield predictor, "relative_gain", "pearson"


def _differences(scopes, settings):
    """Every two predictors, pooled scopes: the coefficients on the places that both have, and their difference."""
    result = []
    for scope in scopes:
        if scope.keys["scope"] == "dataset":
            continue
        for (a, b), statistic in itertools.product(itertools.combinations(scope.values, 2), STATISTICS):
            first, second, n, n_blocks, low, high = difference(
                scope.values[a], scope.values[b], scope.outcomes["accuracy"], statistic,
                clusters=scope.datasets or None, **settings,
            )  # fmt: skip
            result.append({
                "predictor_a": a, "predictor_b": b, "scope": scope.keys["scope"], "model": scope.keys["model"],
                "statistic": statistic, "estimate_a": first, "estimate_b": second, "difference": first - second,
                "n": n, "n_blocks": n_blocks, "ci_low": low, "ci_high": high,
            })  # fmt: skip
    columns = "predictor_a predictor_b scope model statistic estimate_a estimate_b difference n n_blocks ci_low ci_high"
    return pd.DataFrame(result, columns=columns.split())
