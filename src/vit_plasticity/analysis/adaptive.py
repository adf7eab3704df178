"""Adaptive components against what they are to beat at equal budget. The budget is the number of single components that
train; how many values these are is another matter, which `n_trained` of the summary tells."""

from vit_plasticity.vit.components import is_single, parse


def is_adaptive(component):
    """Whether a component is adaptive. Those have no rank and stand in no test but those of `pairs`."""
    return parse(component).auto is not None


def pairs(rows):
    """(adaptive component, what it is compared with) of one model: as many drawn ones, and the best fixed one.

    rows: of the summary, of what was trained. The best fixed component is the one of the highest mean validation
    accuracy over all datasets of the model, among those that are as many single components of the study and finished on
    all; there may be none.
    """
    names = list(rows["component"].unique())
    fixed = [name for name in names if not is_adaptive(name)]
    if len(fixed) == len(names):
        return
    validated = rows.pivot(index="dataset", columns="component", values="val_accuracy_mean")
    for name in names:
        if is_adaptive(name):
            predictor, count = parse(name).auto
            if predictor != "random" and f"auto:random:{count}" in names:
                yield name, f"auto:random:{count}"
            means = validated.reindex(columns=_of_budget(fixed, count)).mean(skipna=False).dropna()
            if len(means):
                yield name, means.idxmax()


def _of_budget(names, count):
    """Those of some components that train just what `count` single ones of them train, which share no parameters."""
    singles = [parse(name).leaves for name in names if is_single(name)]
    plain = [name for name in names if parse(name).rank is None and parse(name).size is None]
    return [name for name in plain if count in _numbers(parse(name).leaves, singles)]


def _numbers(whole, parts):
    """Into how many disjoint parts a set can be taken apart: every number that is possible."""
    if not whole:
        return {0}
    one = next(iter(whole))
    found = (_numbers(whole - part, parts) for part in parts if one in part and part <= whole)
    return {1 + number for numbers in found for number in numbers}
