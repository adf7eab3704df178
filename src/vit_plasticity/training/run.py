"""One run: a component of a model, trained at one learning rate, with all that must survive an interruption.

What a run has seen is in `Run.tensors` and `Run.state`, and nowhere else: batches are pure functions of the step, and
the models draw no random numbers.
"""

import time

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.training import step as training
from vit_plasticity.vit import masks

STEP_COLUMNS = ("loss", "gradient_norm", "component_gradient_norm", "step_lr")
EVALUATION_COLUMNS = ("val_loss", "val_accuracy")


class Run:
    """One run: the model at the learning rate `lr`, its optimizer, and all that it has seen so far.

    `tensors` and `state` are the whole of it: what a checkpoint holds, and what `restore` needs.
    """

    def __init__(self, model, pristine, params, lr):
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, tensor in pristine.items():
                self.trained[name].copy_(tensor)
        self.optimizer = training.make_optimizer(
            self.trained.values(), params.optimizer, lr, momentum=params.momentum, weight_decay=params.weight_decay
        )
        masks.hold(model, self.optimizer, pristine)
        head = {id(p) for module in vit.family(model).head(model) for p in module.parameters()}
        self.component = [p for p in self.trained.values() if id(p) not in head]
        self.lr, self.step, self.duration_s, self.evaluation_s, self.peak_memory_mb = lr, 0, 0.0, 0.0, 0.0
        self.best_step, self.best_accuracy, self.best = 0, -1.0, {}
        self.steps = {c: np.full(params.steps, np.nan) for c in STEP_COLUMNS}
        self.evaluations = {c: np.full(params.steps, np.nan) for c in EVALUATION_COLUMNS}

    def keep_best(self, accuracy):
        """Remember the trained tensors if `accuracy` is above that of every evaluation before."""
        if accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy = self.step, accuracy
            self.best = {name: p.detach().clone() for name, p in self.trained.items()}

    def take_best(self):
        """Give the model the tensors of the best step."""
        with torch.no_grad():
            for name, tensor in self.best.items():
                self.trained[name].copy_(tensor)

    def tensors(self):
        groups = {
            "trained": self.trained,
            "best": self.best,
            "history": {c: torch.from_numpy(v[: self.step]) for c, v in (self.steps | self.evaluations).items()},
        }
        flat = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
        for name, parameter in self.trained.items():
            for slot, value in self.optimizer.state[parameter].items():
                if torch.is_tensor(value):
                    flat[f"optimizer/{slot}/{name}"] = value
        return flat

    def state(self):
        return {
            "step": self.step,
            "best_step": self.best_step,
            "best_accuracy": self.best_accuracy,
            "duration_s": self.duration_s,
            "evaluation_s": self.evaluation_s,
            "peak_memory_mb": self.peak(),
        }

    def peak(self):
        """Peak memory in MB so far, also before an interruption."""
        return max(self.peak_memory_mb, training.peak_memory_mb(next(iter(self.trained.values())).device))

    def restore(self, tensors, state):
        """Take the place of the run that `tensors()` and `state()` came from; tensors: pairs of name and tensor."""
        for name, value in state.items():
            setattr(self, name, value)
        for path, tensor in tensors:
            group, _, name = path.partition("/")
            if group == "trained":
                with torch.no_grad():
                    self.trained[name].copy_(tensor)
            elif group == "best":
                self.best[name] = tensor.to(self.trained[name].device)
            elif group == "history":
                (self.steps | self.evaluations)[name][: self.step] = tensor.numpy()
            else:
                slot, _, name = name.partition("/")
                parameter = self.trained[name]
                # AdamW counts its steps on the CPU unless it is fused.
                where = "cpu" if slot == "step" and not parameter.is_cuda else parameter.device
                self.optimizer.state[parameter][slot] = tensor.to(where)

    def history(self, steps):
        """The history as columns: one row for each of the first `steps` steps (step counts from 1)."""
        columns = {"lr": np.full(steps, self.lr), "step": np.arange(1, steps + 1)}
        return columns | {c: v[:steps] for c, v in (self.steps | self.evaluations).items()}


def _say(line):
    print(line, flush=True)


def train(run, model, batch_of, evaluate_val, params, between_steps, stop_requested=lambda: False, report=_say):
    """Train a run to its end, or to divergence; return the number of steps after which its loss was still finite.

    batch_of: step → (images, labels). evaluate_val: () → (loss, accuracy, …). between_steps(run) is called
    every 25 steps, after evaluations, and after any step at which stop_requested() is true; it may raise
    `checkpoints.Interrupted`. report is called with a line of text at each evaluation.
    """
    pending = []  # losses and norms that are still on the device
    started = time.perf_counter() - run.duration_s
    while run.step < params.steps:
        lr = training.learning_rate(run.step, params.steps, params.warmup_steps, run.lr, params.warmup_from)
        images, labels = batch_of(run.step)
        loss, norm = training.step(
            model, run.optimizer, images, labels, lr=lr, clip_norm=params.clip_norm,
            accumulation=params.accumulation, precision=params.precision, recompute=params.recompute,
        )  # fmt: skip
        pending.append((loss, norm, training.component_norm(run.component, norm, params.clip_norm)))
        run.steps["step_lr"][run.step] = lr
        run.step += 1
        evaluated = run.step % params.evaluation_period == 0 or run.step == params.steps
        if evaluated or len(pending) == 25 or stop_requested():
            finite = _record(run, pending)
            if finite < run.step:
                run.duration_s = time.perf_counter() - started
                return finite
        if evaluated:
            evaluating = time.perf_counter()
            loss, accuracy = evaluate_val()[:2]
            run.evaluation_s += time.perf_counter() - evaluating
            run.evaluations["val_loss"][run.step - 1], run.evaluations["val_accuracy"][run.step - 1] = loss, accuracy
            run.keep_best(accuracy)
            where = f"lr {run.lr:g}: step {run.step}/{params.steps}"
            report(f"{where} loss {run.steps['loss'][run.step - 1]:.4g} val_accuracy {accuracy:.4f}")
        run.duration_s = time.perf_counter() - started
        if not pending:
            between_steps(run)
    return run.step


def _record(run, pending):
    """Move pending losses and norms into the history; return the number of steps before the first that is not
    finite."""
    first = run.step - len(pending)
    values = torch.stack([torch.stack(one) for one in pending]).double().cpu().numpy()  # (steps, 3)
    pending.clear()
    for column, found in zip(STEP_COLUMNS[:3], values.T, strict=True):
        run.steps[column][first : run.step] = found
    broken = ~np.isfinite(values[:, :2]).all(axis=1)  # a component of no tensors has no norm
    return first + int(broken.argmax()) if broken.any() else run.step
