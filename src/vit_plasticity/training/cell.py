"""A cell: one component of a model, fine-tuned on a dataset from one seed, by one run per learning rate.

As in arXiv 2602.06883, validation picks the step and the learning rate; the test split is read once a run, at its best
step. What a cell is working on, and its finished runs, lie in a folder of its own, `runs/` among its outputs:

    lr=0.1.checkpoint, .previous    an unfinished run
    lr=0.1.run                      a finished one: its row and its history
    lr=0.1.tensors                  what it trained, of the best run alone

Each file is keyed by everything that its numbers depend on, the code and the versions of the packages among them, but
not by the other learning rates: to add one trains that run alone.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches, splits
from vit_plasticity.runtime import locks, source
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name
from vit_plasticity.runtime.files import atomic
from vit_plasticity.study.grid import RUN_FILES
from vit_plasticity.training import checkpoints, run, step
from vit_plasticity.vit import masks

OUTPUTS = tuple(RUN_FILES.values())


def check(dataset, params):
    """Raise InputError for settings that cannot train on a dataset, at the first line of a job."""
    n = len(dataset.split("train").labels)
    if params.batch_size > n:
        raise InputError(
            f"batch_size {params.batch_size} is more than the {n} training images of {dataset.name}; choose at most {n}"
        )
    if params.batch_size % params.accumulation:
        raise InputError(f"accumulation {params.accumulation} does not divide batch_size {params.batch_size}")


def head_seed(params, seed):
    """What the head of a cell is drawn from: its seed, or None where it starts as zero."""
    return seed if params.head_init == "linear" else None


def run_keys(inputs, component, seed, params, rev, device, threads):
    """Learning rate → the key of its run.

    inputs: the fingerprints of model and dataset, by these names.
    """
    specification = {
        "rev": rev, "inputs": inputs, "component": component, "seed": seed, "source": source.fingerprint(),
        "versions": source.versions(), "device": device.type,
        # On a CPU the number of threads changes the order of sums, and so the last bits.
        "threads": threads if device.type == "cpu" else None,
    }  # fmt: skip
    settings = {name: value for name, value in params.as_dict().items() if name != "lrs"}
    return {lr: checkpoints.spec_key(specification | {"params": settings, "lr": lr}) for lr in params.lrs}


@contextmanager
def owned(folder):
    """The work folder of a cell, which this process owns until the block ends; another owner is waited for.

    The lock (flock) goes with its process, however that ends. Whoever waited must look whether the work is still to
    be done.
    """
    with locks.hold(folder.with_suffix(".lock"), f"owns {folder}"):
        folder.mkdir(exist_ok=True)
        for half_written in folder.glob(".*"):
            half_written.unlink()
        yield folder


class Cell:
    """One cell, at work. model: becomes its own, with a new head, and is trained in place. folder: its work folder.

    keys: of its runs, from `run_keys`. schedule: (run, checkpoint) is called between steps, and its `stop` is true
    once the process is to stop; see `checkpoints.Schedule`.
    """

    def __init__(self, model, dataset, component, seed, params, folder, keys, schedule, device, threads=1):
        dataset = splits.redrawn(dataset, seed) if params.split == "per_seed" else dataset
        vit.new_head(model, len(dataset.classes), head_seed(params, seed))
        vit.train_only(model, component)
        self.model, self.dataset, self.params = vit.prepare(model.to(device)), dataset, params
        self.folder, self.keys, self.schedule, self.device = Path(folder), keys, schedule, device
        if params.compile:
            vit.compile_blocks(model)
        self.pristine = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        self.preprocessing, self.pixels = vit.preprocessing(model), {}
        self.batch_of = batches.TrainingBatches(
            dataset.split("train"), f"{dataset.fingerprint} {seed}".encode(), self.preprocessing,
            batch_size=params.batch_size, crop_scale=params.crop_scale, flip=params.flip, device=device,
            threads=threads,
        )  # fmt: skip

    def train(self):
        """All runs: (rows, history as columns, file of the tensors of the chosen run, or None where all diverged).

        Runs that are finished are read from the folder; an unfinished one resumes from its checkpoint.
        """
        wanted = {f"lr={lr!r}" for lr in self.keys}
        for file in self.folder.iterdir():
            if file.stem not in wanted:
                file.unlink()  # of a learning rate that is asked for no more
        finished = {lr: found for lr in self.keys if (found := self._file(lr, "run").load())}
        finished = {lr: (row, dict(history)) for lr, (history, row) in finished.items()}
        for lr in self.keys:
            if lr in finished:
                print(f"lr {lr:g}: finished before, by the same code, settings and inputs", flush=True)
            else:
                finished[lr] = self._train(lr, finished)
        best = _best(finished, self.keys)
        if best is not None and not self._file(best, "tensors").load():  # a better run was kept in its stead
            finished[best] = self._train(best, finished)
        rows = [finished[lr][0] | {"chosen": lr == best} for lr in self.keys]
        histories = [finished[lr][1] for lr in self.keys]
        history = {column: np.concatenate([h[column].numpy() for h in histories]) for column in histories[0]}
        return rows, history, None if best is None else self._file(best, "tensors").path

    def evaluate(self, name):
        """(loss, accuracy) on a split, whose pixels are prepared at the first call and, if they are few, kept."""
        if name not in self.pixels:
            split = self.dataset.split(name)
            self.pixels[name] = batches.kept(split.images, self.preprocessing), torch.tensor(split.labels)
        pixels, labels = self.pixels[name]
        return step.evaluate(self.model, pixels, labels, self.preprocessing, precision=self.params.precision)

    def _file(self, lr, kind):
        path = self.folder / f"lr={lr!r}.{kind}"
        previous = path.with_name(f"lr={lr!r}.previous") if kind == "checkpoint" else None
        return checkpoints.Checkpoint(path, self.keys[lr], previous)

    def _train(self, lr, finished):
        """Train one run, from its checkpoint where there is one: (row, history). finished: those before it."""
        checkpoint, one = self._file(lr, "checkpoint"), run.Run(self.model, self.pristine, self.params, lr)
        if loaded := checkpoint.load():
            one.restore(*loaded)
            print(f"lr {lr:g}: going on from step {one.step}", flush=True)
        step.reset_peak_memory(self.device)
        finite = run.train(
            one, self.model, self.batch_of, lambda: self.evaluate("val"), self.params,
            between_steps=lambda r: self.schedule(r, checkpoint), stop_requested=lambda: bool(self.schedule.stop),
        )  # fmt: skip
        row = self._row(one, finite)
        told = ("lr", "outcome", "best_step", "val_accuracy", "test_accuracy")
        print(" ".join(f"{name}={row[name]}" for name in told), flush=True)
        # A diverged run keeps the first step whose loss is not finite, so that its history shows what happened.
        columns = one.history(min(finite + (row["outcome"] == "diverged"), self.params.steps))
        history = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in columns.items()}
        others = {other: kept for other, kept in finished.items() if other != lr}
        if _best(others | {lr: (row, history)}, self.keys) == lr:
            state = {"lr": lr, "precision": self.params.precision, "classes": list(self.dataset.classes)}
            self._file(lr, "tensors").save(one.best, state)
            for other in others:
                self._file(other, "tensors").remove()
        self._file(lr, "run").save(history, row)
        checkpoint.remove()
        return row, history

    def _row(self, one, finite):
        """The row of a run, of whose steps the first `finite` had a finite loss; a finished one is tested here."""
        diverged = finite < self.params.steps
        validated = {"best_step": one.best_step or None, "val_accuracy": one.best_accuracy if one.best_step else None}

        if not diverged:
            one.take_best()
            tested = self.evaluate("test")
        labels = self.dataset.split("test").labels
        return {
            "lr": one.lr,
            "outcome": "diverged" if diverged else "finished",
            "steps": self.params.steps,
            "steps_trained": finite,
            **(dict.fromkeys(validated) if diverged else validated),
            "test_accuracy": None if diverged else tested.accuracy,
            "test_balanced_accuracy": None if diverged else tested.balanced_accuracy,
            "largest_class_share": np.bincount(labels).max().item() / len(labels),  # what always naming it would give
            # The best step that was validated before the loss stopped being finite: it is not chosen, only told.
            **{f"{name}_before_divergence": value if diverged else None for name, value in validated.items()},
            "duration_s": one.duration_s,
            "step_duration_s": (one.duration_s - one.evaluation_s) / one.step,
            "peak_memory_mb": one.peak(),
            "n_parameters": sum(p.numel() for p in self.model.parameters()),
            "n_trained": masks.n_trained(self.model),
            **{f"n_{name}": len(self.dataset.split(name).labels) for name in ("train", "val", "test")},
            "batch_size": self.params.batch_size,
            "git_commit": tables.provenance()["git_commit"],
            "device": device_name(self.device),
        }


def _best(finished, order):
    """The learning rate of the best run on validation, the first of equals in `order`; None where all diverged.

    finished: learning rate → (row, history).
    """
    accuracy = {lr: finished[lr][0]["val_accuracy"] for lr in order if lr in finished}
    accuracy = {lr: value for lr, value in accuracy.items() if value is not None}
    return max(accuracy, key=accuracy.get, default=None)


def is_done(output, keys):
    """Whether all files of the cell are there, made by these runs."""
    if not all(output.with_name(name).exists() for name in OUTPUTS):
        return False
    return tables.about(output).get("spec") == checkpoints.spec_key([*keys.values()])


def write(output, rows, history, trained, keys, **about):
    """Write the files of a cell, `output` last, from what `Cell.train` returned; about: for `tables.write`."""
    for name in OUTPUTS:  # half-written by a process that was killed, since we hold the lock
        for left_over in output.parent.glob(f".{name}.*"):
            left_over.unlink()
    about |= {"device": rows[-1]["device"], "spec": checkpoints.spec_key([*keys.values()])}
    for column in run.EVALUATION_COLUMNS:  # null where nothing was evaluated, which is not the same as NaN
        history[column] = pa.array(history[column], mask=np.isnan(history[column]))
    tables.write(output.with_name("history.parquet"), history, stage="history", **about)
    if trained:
        checkpoints.link(trained, output.with_name("trained.safetensors"))
    else:
        with atomic(output.with_name("trained.safetensors")) as temporary:
            checkpoints.write(temporary, {}, about["spec"], {})
    tables.write(output, rows, stage="finetune", **about)
