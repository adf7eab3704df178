"""The answer to "what do I fine-tune?" for one model and one image dataset, and what makes it as sure as it is.

Without a budget: everything that is known without training, ordered by the predictor with the best record. With one:
successive halving by real training, which that order leads.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import vit_plasticity
from vit_plasticity import vit
from vit_plasticity.advice import checks, choices, halving, inputs, record
from vit_plasticity.advice.measurement import Measurement
from vit_plasticity.advice.sample import EVALUATED, MEASURED, UNTRAINED, sampled
from vit_plasticity.advice.trial import Trial
from vit_plasticity.analysis.association import percentiles
from vit_plasticity.data.registry import open_dataset
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import select_device
from vit_plasticity.training.checkpoints import spec_key
from vit_plasticity.vit.components import parse

LRS = (0.01, 0.03, 0.1)
"""Peak learning rates that are tried with a budget: of SGD with momentum."""
BATCH_SIZE = 32
MOST_STEPS = 10_000
PATIENCE_S = 90
"""What is measured without training stops before a predictor with which it would take longer."""


def recommend(model, dataset, budget=None, **options):
    """The table of an `answer`: one row per component, the first to be fine-tuned first.

    model: a tag of timm, a model folder, or the name of a shipped model. dataset: a folder of images, or a prepared
    dataset. budget: seconds of training, or None for none. options: see `answer`.
    Columns: rank (null for what the record does not speak of), component, n_trained, share (of the model's values),
    memory_mb, a column per predictor; with a budget also val_accuracy, ci_low, ci_high, lr, steps, round.
    Raises InputError for what cannot be used.
    """
    return answer(model, dataset, budget, **options).table


@dataclasses.dataclass
class Answer:
    """What is known; see `answer`. followed: the predictor that orders. notes: sentences on the images and on what
    could not be measured. worth: the comparison with the linear probe, or None. interrupted: stopped by Ctrl-C."""

    model: str
    about: dict
    batch_size: int
    table: pd.DataFrame
    choices: dict
    followed: str
    record: pd.DataFrame
    notes: list
    probe: dict | None
    search: halving.Search | None
    worth: dict | None
    interrupted: bool
    seconds: float

    @property
    def first(self):
        """The Choice that is recommended, or None where nothing was ordered."""
        return self.choices[self.table["component"].iloc[0]] if self.table["rank"].notna().any() else None


def answer(
    model, dataset, budget=None, *, components=choices.NAMES, lrs=LRS, batch_size=BATCH_SIZE, flip=True, source=None,
    records=(), seed=0, patience=PATIENCE_S, cache=None, offline=False, device="auto", threads=None, report=print,
):  # fmt: skip
    """The Answer for a model and a dataset, named as in `recommend`.

    components, lrs: what is looked at. flip: whether training mirrors half of the images. source: a dataset like what
    the model was pre-trained on, for pairs of images; the training images where there is none. records: folders of
    tables of finished studies. patience: seconds that measuring may take, about.
    cache: the folder for what is prepared and for a search that may resume. report: takes
    the lines that say what is being done. Ctrl-C ends it with what there is by then.
    """
    started = time.perf_counter()
    cache = inputs.default_cache() if cache is None else Path(cache)
    device = select_device(device, threads or cli.available_cpus())
    parsed = [_parsed(name) for name in components]
    frames = record.summarise(record.load(records))
    report(f"preparing {model} and {dataset}")
    folder = inputs.model_folder(model, cache, offline)
    images = inputs.dataset_folder(dataset, cache)
    whole = open_dataset(images)
    if len(whole.classes) < 2:
        raise InputError(f"--data {dataset}: has no classes; give a folder with one folder of images per class")
    few = sampled(whole, MEASURED if budget else UNTRAINED)
    of_source = None if source is None else open_dataset(inputs.dataset_folder(source, cache)).split("test")
    net = vit.load(folder, device)
    vit.new_head(net, len(whole.classes))

    local = (folder / "config.json").is_file() and not _is_tag(model)
    created_as = f"local-dir:{folder.resolve()}" if local else str(model)
    found = {name: choices.describe(net, name, created_as, batch_size) for name in components}
    measurement = Measurement(net, few, of_source, list(found.values()), parsed)
    finished = _measure(measurement, device, budget, patience, report)
    followed = record.best(frames, [*measurement.values, record.NULL])
    ordered = _order(found, followed, measurement.values, list(frames["rule"]))
    search = None
    if finished and budget:
        del net
        search = _search(folder, sampled(whole, EVALUATED), ordered, lrs, batch_size, flip, seed, device, budget,
                         cache, report)  # fmt: skip
    return Answer(
        model=str(model), about=checks.describe(whole), batch_size=batch_size,
        table=_table(found, ordered, measurement, followed, search, len(few.split("val"))), choices=found,
        followed=followed, record=frames,
        notes=[
            *inputs.left_out(images), *checks.warnings(whole),
            *(f"{name} was not measured: {why}" for name, why in measurement.failed.items()),
        ],
        probe=measurement.probe, search=search, worth=_worth(search, measurement.probe, len(few.split("test"))),
        interrupted=not finished or (search is not None and search.interrupted),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _parsed(name):
    try:
        return parse(name)
    except ValueError as error:
        raise InputError(f"--components: {error}") from error


def _is_tag(model):
    """Whether a model is named by a tag of timm, rather than a folder, a shipped model or a repository of the hub."""
    return "/" not in str(model) and not Path(model).expanduser().is_dir() and not inputs.shipped(model)


def _measure(measurement, device, budget, patience, report):
    """Do all steps of a measurement, saying how long they may still take; whether it came to its end."""
    steps = list(measurement.steps())
    try:
        per_image = _seconds_per_image(measurement.model, device)
        left = min(sum(work for _, work, _ in steps), patience / per_image)
        after = f", then training for at most {_time(budget)}" if budget else ""
        report(f"measuring {len(steps)} things without training: about {_time(left * per_image)}{after}")
        started, done, spent = time.perf_counter(), 0, 0.0
        for number, (name, work, function) in enumerate(steps, 1):
            work = 0 if measurement.is_free(name) else work
            if work and time.perf_counter() - started + work * per_image > patience:
                measurement.failed[name] = f"left out, it would take about {_time(work * per_image)}"
                report(f"{number} of {len(steps)}: {name} {measurement.failed[name]}")
                continue
            left = sum(w for _, w, _ in steps[number - 1 :]) * per_image
            left = min(left, patience - (time.perf_counter() - started))
            report(f"{number} of {len(steps)}: {name}; about {_time(max(left, 0))} left")
            before = time.perf_counter()
            function()
            if work:
                done, spent = done + work, spent + time.perf_counter() - before
                per_image = spent / done
    except KeyboardInterrupt:
        return False
    return True


def _seconds_per_image(model, device):
    size = vit.preprocessing(model).size
    images, times = torch.zeros(16, 3, size, size, device=device), []
    with torch.inference_mode():
        for _ in range(3):
            started = time.perf_counter()
            vit.features(model, images, "mean").cpu()
            times.append(time.perf_counter() - started)
    return min(times) / len(images)


def _time(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _order(found, followed, values, rules):
    """Names of the choices: those that the record speaks of first, each kind by the predictor that is followed.

    What has no value of it comes last; where values are equal, the predictor of the next best record decides.
    """
    deciding = [followed, *(name for name in rules if name in values and name != followed)]
    known = {name: [values.get(predictor, {}).get(name, -np.inf) for predictor in deciding] for name in found}
    return sorted(found, key=lambda name: (found[name].single, known[name]), reverse=True)


def _search(folder, dataset, ordered, lrs, batch_size, flip, seed, device, budget, cache, report):
    trial = Trial(
        folder, dataset, batch_size=batch_size, flip=flip, seed=seed, device=device, threads=torch.get_num_threads()
    )
    spec = {"model": vit.fingerprint(folder), "data": dataset.fingerprint, "batch_size": batch_size, "flip": flip}
    spec |= {"seed": seed, "version": vit_plasticity.__version__}
    file = cache / "searches" / f"{spec_key(spec)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    asked = halving.candidates(ordered, sorted(lrs))
    report(f"training {len(asked)} candidates by successive halving; Ctrl-C ends it with what there is")
    return halving.Search(asked, trial, budget, file, most_steps=MOST_STEPS, report=report).run()


def _table(found, ordered, measurement, followed, search, n_val):
    """See `recommend`."""
    tried = {} if search is None else {run["component"]: run for run in search.ranking()}
    order = [*tried, *(name for name in ordered if name not in tried)]
    rows = []
    for name in order:
        one = found[name]
        row = {"component": name, "n_trained": one.n_trained, "share": one.n_trained / one.n_all}
        row |= {"memory_mb": one.memory_bytes / 1e6} | {p: v.get(name) for p, v in measurement.values.items()}
        if search is not None:
            row |= _tried(tried.get(name), n_val)
        rows.append(row)
    table = pd.DataFrame(rows)
    numbers = {name: float for name in measurement.values}
    ranked = table["component"].isin(tried) if tried else [found[n].single and n in measurement.values.get(followed, {})
                                                           for n in order]  # fmt: skip
    ranked = pd.Series(ranked, dtype=bool)
    table.insert(0, "rank", ranked.cumsum().where(ranked).astype("Int64"))
    return table.astype(numbers)


def _tried(run, n_val):
    """The columns of a search for a component: its run by which it is ranked, or nothing."""
    columns = ["val_accuracy", "ci_low", "ci_high", "lr", "steps", "round"]
    if run is None or run["val_accuracy"] is None:
        return dict.fromkeys(columns) | ({} if run is None else {"lr": run["lr"], "round": run["rung"] + 1})
    low, high = wilson(run["val_accuracy"], n_val)
    return dict(zip(columns, (run["val_accuracy"], low, high, run["lr"], run["steps"], run["rung"] + 1), strict=True))


def wilson(share, n, quantile=1.959964):
    """The 95 % interval of a share of n images (Wilson 1927)."""
    middle, z = share + quantile**2 / (2 * n), quantile**2 / n
    half = quantile * np.sqrt(share * (1 - share) / n + z / (4 * n))
    return float((middle - half) / (1 + z)), float((middle + half) / (1 + z))


def _worth(search, probe, n_test):
    """The best run against the linear probe on the same test images, which chose neither: a dict of test_accuracy,
    probe_accuracy, difference and its 95 % interval, low and high. None without both."""
    if search is None or probe is None or not search.runs or search.ranking()[0]["val_accuracy"] is None:
        return None
    wrong = search.ranking()[0]["test_wrong"]
    difference, low, high = paired_difference(wrong, probe["test_wrong"], n_test)
    return {
        "test_accuracy": 1 - len(wrong) / n_test, "probe_accuracy": probe["test_accuracy"], "difference": difference,
        "low": low, "high": high, "n": n_test,
    }  # fmt: skip


def paired_difference(wrong, other_wrong, n, resamples=4000):
    """Accuracy minus another accuracy on the same n images, and its 95 % bootstrap interval over images: three floats.

    wrong, other_wrong: positions of the images that each gets wrong.
    """
    better, worse = len(set(other_wrong) - set(wrong)), len(set(wrong) - set(other_wrong))
    shares = np.array([better, worse, n - better - worse]) / n
    drawn = np.random.default_rng(0).multinomial(n, shares, resamples)
    low, high = percentiles((drawn[:, 0] - drawn[:, 1]) / n, 0.95)
    return (better - worse) / n, float(low), float(high)
