"""The front page of a study in plain words: question, size, answer, what failed, how to make it again; all computed.

Text is a list of sections (heading, paragraphs), which `to_html` and `to_rst` write down.
"""

import html
import re
import shlex

from vit_plasticity.analysis import matrix
from vit_plasticity.analysis.html import document
from vit_plasticity.analysis.judgement import GIVEN_NULL, NULL, is_single
from vit_plasticity.analysis.summary import GROUP
from vit_plasticity.vit.components import parse

_QUESTION = (
    "Which parts of a Vision Transformer should be fine-tuned on a new dataset, and can that be known before training?"
)


def sections(results, sources, study, command=""):
    """The text of a study: [(heading, [paragraph, …])]. results: name → frame; sources: as of `inputs.read`.

    command: what makes the study again, where it is known.
    """
    summary, ranking = results["summary"], results["ranking"]
    answer = [_best(summary, results["tests"], model, ranks) for model, ranks in ranking.groupby("model", sort=False)]
    return [
        ("Question", [_QUESTION]),
        ("Study", [_size(results, study), *_limits(summary, results["finetune"]), *_enlarged(results["probe"])]),
        ("Answer", answer or ["Nothing has been fine-tuned yet."]),
        ("Could it be known before?", _predictable(results)),
        ("What failed", _failures(results)),
        ("What it cost", _cost(results["finetune"])),
        ("How to make it again", _again(sources, study, command)),
    ]


def _size(results, study):
    summary, runs = results["summary"], results["finetune"]
    trained = summary[summary["n_runs"] > 0]
    counts = [
        _count(summary["model"].nunique(), "model"),
        _count(summary["dataset"].nunique(), "dataset"),
        _count(trained["component"].nunique(), "component trained", "components trained"),
        _count(runs["seed"].nunique(), "seed"),
        _count(runs["lr"].nunique(), "learning rate"),
    ]
    cells = len(runs[["model", "dataset", "component", "seed"]].drop_duplicates())
    models, datasets = (", ".join(summary[key].unique()) for key in ("model", "dataset"))
    return (
        f"Study {study}: {', '.join(counts)}; {_count(cells, 'cell')}, {_count(len(runs), 'run')}. "
        f"Models: {models}. Datasets: {datasets}."
    )


def _limits(summary, runs):
    """What a study of this size cannot tell."""
    trained = summary[summary["n_runs"] > 0]
    words = []
    if (n := trained["dataset"].nunique()) < 3:
        words.append(f"{_count(n, 'dataset gives', 'datasets give')} no interval over datasets (three are needed).")
    elif n < 8:
        words.append(f"With {n} datasets, intervals over datasets are rough and differences have little power.")
    if trained["model"].nunique() == 1:
        words.append("One model says nothing about other families of models.")
    if trained["n_seeds"].max() < 2:
        words.append("One seed: the spread between repetitions is unknown.")
    single = trained[trained["component"].map(is_single).astype(bool)]["component"].nunique()
    if 0 < single < 10:
        words.append(f"Predictors are judged on {_count(single, 'component')}: few points for a correlation.")
    at_ends, n_chosen = _at_ends(trained, runs)
    if at_ends:
        words.append(
            f"In {at_ends} of {n_chosen} cases the learning rate chosen is the smallest or the largest that was tried: "
            "these components may be better than they look."
        )
    return [" ".join(words)] if words else []


def _at_ends(trained, runs):
    """(number of cases whose learning rate was chosen at an end of three or more, number of cases with as many)."""
    if trained.empty:
        return 0, 0
    tried = runs.groupby(GROUP)["lr"].agg(["min", "max", "nunique"])
    chosen = trained[trained["lr"].notna()].join(tried, on=GROUP)
    chosen = chosen[chosen["nunique"] > 2]
    return int((chosen["lr"].eq(chosen["min"]) | chosen["lr"].eq(chosen["max"])).sum()), len(chosen)


def _enlarged(probe):
    """Datasets whose images are stored smaller than a model takes them."""
    small = probe[probe["stored_side"] < probe["image_size"]]
    return [
        f"{model} takes images of {size} pixels, but those of {', '.join(rows['dataset'])} are stored with shorter "
        f"sides of {' and '.join(f'{side:.0f}' for side in sorted(rows['stored_side'].unique()))}, and enlarged."
        for (model, size), rows in small.groupby(["model", "image_size"], sort=False)
    ]


def _best(summary, tests, model, ranks):
    """Which single component came first under one model, how far from full, at what share of the parameters."""
    single = ranks[ranks["component"].map(is_single).astype(bool)]
    n_single, single = len(single), single[single["test_accuracy_mean"].notna()]
    if single.empty:
        return f"{model}: no single component has finished on all of its datasets."
    first = single.iloc[0]
    tied = single[single["rank_mean"].eq(first["rank_mean"])]["component"]
    came = "came first" if len(tied) == 1 else f"ties for the first place with {len(tied) - 1} more"
    rows = summary[summary["model"].eq(model) & summary["component"].eq(first["component"])]
    words = (
        f"{model}: {parse(first['component']).label} {came} of {_count(n_single, 'single component')}, mean rank "
        f"{first['rank_mean']:.1f} of all {len(ranks)} trained, over {_count(first['n_datasets'], 'dataset')}: test "
        f"accuracy {_percent(first['test_accuracy_mean'])}, training {_percent(rows['trained_fraction'].mean())} of "
        "the parameters."
    )
    full = ranks[ranks["component"].eq("full") & ranks["test_accuracy_mean"].notna()]
    if len(full):
        gap = 100 * (full["test_accuracy_mean"].iloc[0] - first["test_accuracy_mean"])
        than = "below" if gap >= 0 else "above"
        words += (
            f" That is {abs(gap):.1f} points {than} full fine-tuning ({_percent(full['test_accuracy_mean'].iloc[0])})."
        )
    words += _against_probe(rows)
    if len(single) > 1:
        words += " " + _against_second(tests, model, first["component"], single.iloc[1]["component"])
    return words


def _against_probe(rows):
    """Whether fine-tuning was worth it: the mean gain over the linear probe, on the datasets that have one."""
    both = rows.dropna(subset=["test_accuracy_mean", "probe_accuracy"])
    if both.empty:
        return ""
    probe = both["probe_accuracy"].mean()
    gain = 100 * (both["test_accuracy_mean"].mean() - probe)
    words = f"{gain:.1f} points less" if gain > 0 else f"{-gain:.1f} points more" if gain < 0 else "as much"
    worth = "." if gain > 0 else ": this component was not worth training here."
    return f" A linear probe on the frozen model has {_percent(probe)}, {words}{worth}"


def _against_second(tests, model, first, second):
    pair = tests[tests["model"].eq(model) & tests["outcome"].eq("accuracy")]
    a, b = pair["component_a"], pair["component_b"]
    pair = pair[(a.eq(first) & b.eq(second)) | (a.eq(second) & b.eq(first))]
    gap = 100 * abs(pair["mean_difference"].iloc[0]) if len(pair) else float("nan")
    if gap != gap:
        return ""
    p = pair["t_p_value_holm"].iloc[0]
    sure = "too few datasets to test" if p != p else f"{_p(p)} of the paired t test, adjusted"
    return f"The second, {parse(second).label}, is {gap:.1f} points away ({sure})."


def _predictable(results):
    """Whether plasticity went with accuracy, which predictor did best, and at what regret."""
    correlation, regret = results["correlation"], results["regret"]
    pooled = correlation[correlation["scope"].eq("all") & correlation["outcome"].eq("accuracy")]
    pooled = pooled.set_index(["predictor", "statistic"])
    words = [_correlated(pooled, name) for name in ("plasticity", NULL) if (name, "spearman") in pooled.index]
    rules = regret[regret["scope"].eq("all")].set_index("rule")
    known = [rule for rule in pooled.index.unique("predictor") if rule in rules.index] if len(pooled) else []
    if known:
        best = min(known, key=lambda rule: (rules.at[rule, "regret"], rule != NULL))
        tied = [_rule(r) for r in known if rules.at[r, "regret"] == rules.at[best, "regret"]]
        others = [r for r in ("plasticity", NULL) if r in known and _rule(r) not in tied] + ["random"]
        always = [rule for rule in rules.index if rule.startswith("always-")]
        others += [min(always, key=lambda rule: rules.at[rule, "regret"])] if always else []
        costs = [f"{_rule(rule)} {_points(rules.loc[rule])}" for rule in others if rule in rules.index]
        words.append(
            f"Followed on every dataset, the predictor that loses least is {' and '.join(tied)}"
            f"{' (tied)' if len(tied) > 1 else ''}: "
            f"{_points(rules.loc[best])} below the best single component, at most "
            f"{100 * rules.at[best, 'regret_max']:.1f}. For comparison: {', '.join(costs)}. Chosen after seeing the "
            "results, the best of several predictors and the best constant choice look better than they are."
        )
    return words + _beaten(results["differences"]) if words else ["No predictor has three components to be judged on."]


def _correlated(pooled, name):
    one = pooled.loc[(name, "spearman")]
    if one["estimate"] != one["estimate"]:
        return f"{_rule(name).capitalize()} cannot be correlated with accuracy here (n = {one['n']:.0f})."
    words = f"{_rule(name).capitalize()} and test accuracy: Spearman's ρ within datasets {_estimate(one)}"
    if (name, GIVEN_NULL) in pooled.index and pooled.loc[(name, GIVEN_NULL), "estimate"] == pooled.loc[
        (name, GIVEN_NULL), "estimate"
    ]:
        words += f"; given the number of parameters {_estimate(pooled.loc[(name, GIVEN_NULL)])}"
    sure = one["p_value"] < 0.05
    return f"{words}. {'More than permutations give.' if sure else 'Permutations give as much: not shown.'}"


def _beaten(differences):
    """Which predictors correlate better or worse than the null, beyond their interval."""
    rows = differences[
        differences["scope"].eq("all") & differences["statistic"].eq("spearman") & differences["predictor_a"].eq(NULL)
    ]
    rows = rows[rows["ci_low"].notna()]
    if rows.empty:
        return []
    better = [_rule(name) for name in rows.loc[rows["ci_high"] < 0, "predictor_b"]]
    worse = [_rule(name) for name in rows.loc[rows["ci_low"] > 0, "predictor_b"]]
    return [
        f"Against the number of parameters, of {_count(len(rows), 'other predictor')}: "
        f"better beyond the interval {', '.join(better) or 'none'}; worse {', '.join(worse) or 'none'}."
    ]


def _failures(results):
    runs, summary, probe = results["finetune"], results["summary"], results["probe"]
    diverged = runs[runs["outcome"].eq("diverged")]
    words = []
    if len(diverged):
        counts = diverged["component"].value_counts()
        each = ", ".join(f"{parse(component).label} {n}" for component, n in counts.items())
        words.append(f"{_count(len(diverged), 'run')} of {len(runs)} diverged: {each}.")
    lost = summary[summary["n_runs"].gt(0) & summary["n_diverged"].eq(summary["n_runs"])]
    if len(lost):
        names = ", ".join(f"{parse(row.component).label} on {row.dataset}" for row in lost.itertuples())
        words.append(f"No learning rate worked for {names}: ranked last, and charged in the regret.")
    if n := int((~probe["converged"].astype(bool)).sum()):
        words.append(f"{_count(n, 'linear probe')} of {len(probe)} did not converge.")
    return words or [f"None of {_count(len(runs), 'run')} diverged."]


def _cost(runs):
    if runs.empty:
        return ["Nothing was trained."]
    devices = ", ".join(runs["device"].dropna().unique()) or "an unknown device"
    hours = runs["duration_s"].sum() / 3600
    total = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    each = runs.groupby("component", sort=False)["duration_s"].mean().sort_values()
    ends = " to ".join(
        f"{each.loc[c]:.3g} s ({parse(c).label})" for c in dict.fromkeys([each.index[0], each.index[-1]])
    )
    return [f"Training took {total} in all on {devices}; a run {ends} on average."]


def _again(sources, study, command):
    commits = {one["git_commit"] for source in sources.values() for one in source["provenance"]} - {None}
    dirty = any(one["git_dirty"] for source in sources.values() for one in source["provenance"])
    words = []
    if commits:
        state = ", with changes that were not committed" if dirty else ""
        words.append(f"Made by commit {', '.join(sorted(f'{c:.10}' for c in commits))}{state}.")
    if command:
        words.append(f"The study: {command}")
    words.append(f"The tables anew from what is finished: {_command(study)}")
    return words


def _command(study):
    name = shlex.quote(study)
    results = shlex.quote(f"results/{study}")
    tables = shlex.quote(f"results/{study}/tables")
    return f"python -m vit_plasticity.correlate --study {name} --results {results} --output {tables}"


def _count(n, one, many=None):
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


def _percent(share):
    return f"{100 * share:.1f} %"


def _p(value):
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _rule(name):
    return f"always {parse(name[7:]).label}" if name.startswith("always-") else name.replace("_", " ")


def _points(row):
    interval = "" if row["ci_low"] != row["ci_low"] else f" [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    return f"{100 * row['regret']:.1f} points{interval}"


def _estimate(row):
    interval = "" if row["ci_low"] != row["ci_low"] else f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    return f"{row['estimate']:.2f}{interval} ({_p(row['p_value'])}, n = {row['n']:.0f})".replace("-", "−")


def to_html(text, results, study):
    """The front page with its accuracy matrices as one document."""
    accuracies = []
    for model, frame in matrix.matrices(results["summary"], results["ranking"]).items():
        title = html.escape(f"Test accuracy of {model} (%)")
        accuracies += [f"<p><b>{title}</b>, mean ± standard deviation over seeds; the best of a column is bold.</p>"]
        accuracies += [matrix.to_html(frame)]
    body = [f"<h1>{html.escape(f'Study {study}')}</h1>"]
    for heading, paragraphs in text:
        body += [f"<h2>{html.escape(heading)}</h2>", *(f"<p>{html.escape(words)}</p>" for words in paragraphs)]
        body += accuracies if heading == "Answer" else []
    return document(f"Study {study}", "\n".join(body))


def to_rst(text):
    """The text for Snakemake's report, in reStructuredText."""
    lines = []
    for heading, paragraphs in text:
        lines += [f"**{_escaped(heading)}**", ""]
        lines += [line for words in paragraphs for line in (_escaped(words), "")]
    return "\n".join(lines)


def _escaped(words):
    return re.sub(r"([\\*`_|<>\[\]])", r"\\\1", words)
