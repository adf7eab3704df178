"""Fine-tune one component of a model on a dataset: a cell, which trains one run per learning rate.

As in arXiv 2602.06883: SGD with momentum (or AdamW), cosine schedule with warm-up, gradients clipped, random crops
and flips. The validation split picks the step and the learning rate; the test split is read once a run, at its best
step.

A cell that is killed and started again goes on from its last checkpoint and ends with the numbers, to the bit, of one
that was never killed (on one device). A run whose loss stops being finite ends as "diverged", which is an outcome.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.runtime.files import atomic
from vit_plasticity.study.config import settings
from vit_plasticity.study.grid import RUN_FILES
from vit_plasticity.training import checkpoints
from vit_plasticity.training import run as runs
from vit_plasticity.training import step as training
from vit_plasticity.vit import components

OUTPUTS = tuple(RUN_FILES.values())


class Interrupted(Exception):
    """The process was asked to stop, and its work is safe in a checkpoint."""


class Keeper:
    """Decides between steps when to write a checkpoint: not too often, and at once when asked to stop."""

    def __init__(self, interval_s):
        self.interval_s, self.last, self.signal = interval_s, time.monotonic(), None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number, frame):
        self.signal = number

    def __call__(self, run, checkpoint, evaluated):
        due = time.monotonic() - self.last >= self.interval_s
        if due or self.signal:
            checkpoint.save(run.tensors(), run.state())
            self.last = time.monotonic()
        if self.signal:
            raise Interrupted(f"{signal.Signals(self.signal).name} at step {run.step} of lr {run.lr:g}")


def finetune(model, dataset, component, seed, params, folder, key, keeper, device, threads=1):
    """All runs of a cell: (rows of runs, history columns, tensors that the chosen run trained).

    folder, key: the owned work folder and the key of the cell's specification. Runs that were finished before are read
    from there; an unfinished one goes on from its checkpoint.
    """
    vit.new_head(model, len(dataset.classes))
    vit.prepare(model.to(device))
    vit.train_only(model, component)
    if params.compile:
        vit.compile_blocks(model)
    pristine = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    preprocessing = vit.preprocessing(model)
    batch_of = batches.TrainingBatches(
        dataset.split("train"), f"{dataset.fingerprint} {seed}".encode(), preprocessing,
        batch_size=params.batch_size, crop_scale=params.crop_scale, flip=params.flip, device=device, threads=threads,
    )  # fmt: skip
    evaluate = {name: _evaluator(model, dataset.split(name), preprocessing, params) for name in ("val", "test")}

    rows, histories, best = [], [], (-1.0, {})
    for index, lr in enumerate(params.lrs):
        finished = checkpoints.Checkpoint(folder, f"finished-{index}", key)
        if loaded := finished.load():
            tensors, row = loaded
        else:
            row, tensors = _one_run(model, pristine, batch_of, evaluate, params, lr, folder, key, keeper, index)
            finished.save(tensors, row)
            checkpoints.Checkpoint(folder, f"run-{index}", key).remove()
        rows.append(row)
        histories.append(
            {n.removeprefix("history/"): t.numpy() for n, t in tensors.items() if n.startswith("history/")}
        )
        accuracy = row["val_accuracy"] if row["outcome"] == "finished" else -1.0
        if accuracy > best[0]:
            best = accuracy, {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
    for row in rows:
        row["chosen"] = row["outcome"] == "finished" and row["val_accuracy"] == best[0]
        best = (best[0] if not row["chosen"] else None, best[1])  # the first of equals alone is chosen
    history = {c: np.concatenate([h[c] for h in histories]) for c in histories[0]}
    return rows, history, best[1]


def _one_run(model, pristine, batch_of, evaluate, params, lr, folder, key, keeper, index):
    """Train one run, from its checkpoint where there is one: (row of runs, tensors "history/…" and "best/…")."""
    checkpoint = checkpoints.Checkpoint(folder, f"run-{index}", key)
    run = runs.Run(model, pristine, params, lr)
    if loaded := checkpoint.load():
        run.restore(*loaded)
        print(f"lr {lr:g}: going on from step {run.step}", flush=True)
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    finite = runs.train(
        run, model, batch_of, evaluate["val"], params,
        between_steps=lambda r, evaluated: keeper(r, checkpoint, evaluated),
        hurry=lambda: getattr(keeper, "signal", None) is not None,
    )  # fmt: skip
    diverged = finite < params.steps
    if not diverged:
        with torch.no_grad():
            for name, tensor in run.best.items():
                run.trained[name].copy_(tensor)
    row = {
        "lr": lr,
        "outcome": "diverged" if diverged else "finished",
        "steps": params.steps,
        "steps_trained": finite,
        "best_step": None if diverged else run.best_step,
        "val_accuracy": None if diverged else run.best_accuracy,
        "test_accuracy": None if diverged else evaluate["test"]()[1],
        "duration_s": run.duration_s,
        "peak_memory_mb": training.peak_memory_mb(device),
    }
    print(
        " ".join(f"{k}={row[k]}" for k in ("lr", "outcome", "best_step", "val_accuracy", "test_accuracy")), flush=True
    )
    # A diverged run keeps the first step whose loss is not finite, so that its history shows what happened.
    history = run.history(min(finite + diverged, params.steps))
    tensors = {f"history/{c}": torch.from_numpy(np.ascontiguousarray(v)) for c, v in history.items()}
    return row, tensors | ({} if diverged else {f"best/{n}": t.cpu() for n, t in run.best.items()})


def _evaluator(model, split, preprocessing, params):
    """A function () → (loss, accuracy) on a split, whose pixels are prepared at the first call and kept."""
    cache = {}

    def evaluate():
        if not cache:
            cache["pixels"] = batches.evaluation_pixels(split.images, preprocessing)
            cache["labels"] = torch.tensor(split.labels)
        return training.evaluate(model, cache["pixels"], cache["labels"], preprocessing, precision=params.precision)

    return evaluate


def check(dataset, params):
    """Raise InputError for settings that cannot train, at the first line of a job rather than at its first step."""
    n = len(dataset.split("train").labels)
    if params.batch_size > n:
        raise InputError(
            f"batch_size {params.batch_size} is more than the {n} training images of {dataset.name}; choose at most {n}"
        )
    if params.batch_size % params.accumulation:
        raise InputError(f"accumulation {params.accumulation} does not divide batch_size {params.batch_size}")


def main(argv=None):
    parser = cli.parser("finetune", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    parser.add_argument("--component", required=True, help="what trains: an id such as mha, or a sum such as mha+fc1")
    parser.add_argument("--seed", required=True, type=int)
    cli.add_table_arguments(parser, "runs.parquet; its folder also gets history.parquet and trained.safetensors")
    cli.add_compute_arguments(parser)
    parser.add_argument("--work", required=True, help="folder for checkpoints, shared by the cells of a study")
    parser.add_argument(
        "--checkpoint-interval-s", type=float, default=60, help="seconds between checkpoints (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    params = settings("finetune", args.params)
    try:
        components.parts(args.component)
    except ValueError as error:
        raise InputError(f"--component: {error}") from error
    device = select_device(args.device, args.threads)
    dataset = datasets.open_dataset(args.dataset)
    check(dataset, params)
    key = {"model": Path(args.model).name, "dataset": dataset.name, "component": args.component, "seed": args.seed}
    spec = key | {
        "rev": args.rev,
        "params": params.as_dict(),
        "model": vit.fingerprint(args.model),
        "data": dataset.fingerprint,
        # On a CPU the number of threads changes the order of sums, and so the last bits.
        "threads": args.threads if device.type == "cpu" else None,
    }
    spec_key = checkpoints.spec_key(spec)
    output = Path(args.output)
    with checkpoints.owned_folder(args.work, spec_key) as folder:
        if _done(output, spec_key):
            print(f"complete: another process made {output.parent} meanwhile; nothing to do")
            return 0
        if _done(folder / output.name, spec_key) and _link_outputs(folder, output.parent):
            print(f"complete: {output.parent} was made already and removed by a Snakemake that did not see it end")
            return 0
        # Half-written by a process that was killed, since we hold the lock.
        for left_over in [file for name in OUTPUTS for file in output.parent.glob(f".{name}.*")]:
            left_over.unlink()
        keeper = Keeper(args.checkpoint_interval_s)
        model = vit.load(args.model)
        try:
            rows, history, trained = finetune(
                model, dataset, args.component, args.seed, params, folder, spec_key, keeper, device, args.threads
            )
        except Interrupted as error:
            print(f"stopped by {error}; the checkpoint in {folder} is where it goes on", file=sys.stderr, flush=True)
            raise SystemExit(128 + keeper.signal) from error
        common = {
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "n_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            **{f"n_{name}": len(dataset.split(name).labels) for name in ("train", "val", "test")},
            "batch_size": params.batch_size,
            "git_commit": tables.provenance()["git_commit"],
            "device": device_name(device),
        }
        about = {"study": args.study, "rev": args.rev, "key": key, "device": device_name(device), "spec": spec_key}
        about |= {"settings": params.as_dict(), "inputs": {"model": spec["model"], "dataset": spec["data"]}}
        for column in runs.EVALUATION_COLUMNS:  # null where nothing was evaluated, which is not the same as NaN
            history[column] = pa.array(history[column], mask=np.isnan(history[column]))
        tables.write(output.with_name("history.parquet"), history, stage="history", **about)
        with atomic(output.with_name("trained.safetensors")) as temporary:
            safetensors.torch.save_file({n: t.contiguous() for n, t in trained.items()}, temporary)
        tables.write(output, [row | common for row in rows], stage="finetune", **about)
        _link_outputs(output.parent, folder)
    print(f"complete: {len(rows)} runs in {output.parent}")


def _done(output, spec_key):
    """Whether all files of the cell are there and made to this specification."""
    if not all(output.with_name(name).exists() for name in OUTPUTS):
        return False
    return tables.about(output).get("spec") == spec_key


def _link_outputs(source, target):
    """Put hard links to the outputs of a finished cell into another folder, runs.parquet last; whether that went well.

    A Snakemake that was killed never learns that a cell ended, and the next one removes its outputs to make them again.
    With these links in the work folder that takes no training. They use no space, and go when a Snakemake that had
    something to do ends in order.
    """
    target.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a file system may have no hard links, and there are none from one to another
        for name in reversed(OUTPUTS):
            (target / name).unlink(missing_ok=True)
            (target / name).hardlink_to(source / name)
            os.utime(target / name)
        return True
    return False


if __name__ == "__main__":
    sys.exit(cli.run(main))
