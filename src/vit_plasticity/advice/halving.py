"""Successive halving over candidates (component, learning rate): many short runs, then fewer and longer ones.

A rung trains each of its candidates from the start, with a whole learning rate schedule of the rung's length; the best
third go on to the next rung (Karnin et al. 2013; Jamieson and Talwalkar 2016). The time is shared equally by the rungs.
What is finished is kept in a file, so that a search that was stopped resumes after the last finished run.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from vit_plasticity.runtime.files import atomic

KEPT = 3  # one candidate in so many goes on
LEAST_STEPS = 20  # a shorter run tells nothing


@dataclass(frozen=True)
class Candidate:
    """What one run trains."""

    component: str
    lr: float


def candidates(components, lrs):
    """All candidates, in the order in which they are tried: components in the order given, the middle learning rate of
    each first, then those further from it."""
    middle = (len(lrs) - 1) / 2
    by_distance = sorted(lrs, key=lambda lr: (abs(sorted(lrs).index(lr) - middle), -lr))
    return [Candidate(component, lr) for lr in by_distance for component in components]


def number_of_rungs(n):
    """Rungs from n candidates down to at most KEPT."""
    return 1 + max(0, math.ceil(math.log(max(n, 1) / KEPT, KEPT) - 1e-9))


class Search:
    """A search and its finished runs, which lie in a file.

    trial: (Candidate, steps) → dict with val_accuracy (in [0, 1]; None where the loss diverged) and seconds.
    budget_s: seconds of training, those of earlier sessions counted in. most_steps: no run is longer.
    runs: the finished runs, dicts of rung, component, lr, steps and what the trial returned.
    """

    def __init__(self, ordered, trial, budget_s, file, *, most_steps, report=print):
        self.ordered, self.trial, self.budget_s, self.file = ordered, trial, budget_s, Path(file)
        self.most_steps, self.report = most_steps, report
        self.steps, self.runs, self.cost, self.interrupted = [], [], None, False
        if self.file.is_file():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            self.steps, self.runs, self.cost = kept["steps"], kept["runs"], kept["cost"]

    @property
    def seconds(self):
        """Seconds of training so far."""
        return sum(run["seconds"] for run in self.runs)

    def run(self):
        """Train rung after rung until the budget is spent; Ctrl-C ends the search with what is finished."""
        rungs = number_of_rungs(len(self.ordered))
        try:
            for rung in range(rungs):
                asked = self._survivors(rung) if rung else self.ordered
                last = rung == rungs - 1 or len(asked) < 2
                self._rung(rung, asked, self.budget_s * (1 if last else (rung + 1) / rungs))
                if last:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        return self

    def _rung(self, rung, asked, ends):
        for number, candidate in enumerate(asked):
            if self._find(rung, candidate):
                continue
            if self.cost is None:
                self.cost = self._measured_cost(candidate)
            if rung == len(self.steps):
                self.steps.append(self._steps(asked, rung, ends))
            steps = self.steps[rung]
            if number >= min(2, len(asked)) and self.seconds + self._expected(candidate, steps) > 1.1 * ends:
                break  # the rest of the rung has no time
            same = [run for run in self._find(rung - 1, candidate) if run["steps"] == steps]
            outcome = same[0] | {"seconds": 0.0} if same else self.trial(candidate, steps)
            about = {"rung": rung, "component": candidate.component, "lr": candidate.lr, "steps": steps}
            self.runs.append(outcome | about)
            self._save()
            self.report(self._progress(rung, number + 1, len(asked)))

    def _steps(self, asked, rung, ends):
        """How many steps each run of a rung has."""
        each = max(0.0, ends - self.seconds) / sum(self._expected(candidate, 0, relative=True) for candidate in asked)
        fixed, per_step = self.cost
        return int(min(self.most_steps, max((each - fixed) / per_step, LEAST_STEPS, *self.steps)))

    def _measured_cost(self, candidate):
        """(seconds of a run without steps, seconds per step), from two short trials."""
        self.trial(candidate, 1)  # a first one is slower
        few, more = (self.trial(candidate, steps)["seconds"] for steps in (2, 12))
        per_step = max((more - few) / 10, more / 100)
        return max(0.0, more - 12 * per_step), per_step

    def _expected(self, candidate, steps, relative=False):
        """Seconds that a run will take: the measured cost, times what the runs of this component so far took more or
        less than it (those of all, where there are none). relative: that factor alone."""
        trained = [run for run in self.runs if run["seconds"]]
        own = [run for run in trained if run["component"] == candidate.component] or trained
        fixed, per_step = self.cost
        expected = sum(fixed + per_step * run["steps"] for run in own)
        factor = sum(run["seconds"] for run in own) / expected if own else 1.0
        return factor if relative else factor * (fixed + per_step * steps)

    def _of(self, rung):
        return [run for run in self.runs if run["rung"] == rung]

    def _find(self, rung, candidate):
        return [r for r in self._of(rung) if (r["component"], r["lr"]) == (candidate.component, candidate.lr)]

    def _survivors(self, rung):
        """The best third of the rung before, at least one; of equals, the one that was tried first."""
        before = sorted(self._of(rung - 1), key=_goodness, reverse=True)
        return [Candidate(run["component"], run["lr"]) for run in before[: math.ceil(len(before) / KEPT)]]

    def _save(self):
        with atomic(self.file) as temporary:
            text = json.dumps({"cost": self.cost, "steps": self.steps, "runs": self.runs}, indent=1) + "\n"
            temporary.write_text(text, encoding="utf-8")

    def _progress(self, rung, number, n):
        run = self.runs[-1]
        accuracy = "diverged" if run["val_accuracy"] is None else f"validation {100 * run['val_accuracy']:.1f} %"
        left = max(0.0, self.budget_s - self.seconds)
        return (
            f"round {rung + 1}, run {number} of {n}: {run['component']} at learning rate {run['lr']:g}, "
            f"{run['steps']} steps: {accuracy}; at most {left:.0f} s left"
        )

    def ranking(self):
        """The runs by which components are ranked, best first: of each its best in the highest rung that it reached."""
        best = {}
        for run in self.runs:
            known = best.get(run["component"])
            if known is None or (run["rung"], _goodness(run)) > (known["rung"], _goodness(known)):
                best[run["component"]] = run
        return sorted(best.values(), key=lambda run: (run["rung"], _goodness(run)), reverse=True)

    def saved(self):
        """What the order of the candidates was worth, or None before a first run: the place of the winning component
        among those tried, the place to expect in a random order, and the seconds between the two."""
        tried = list(dict.fromkeys(run["component"] for run in self._of(0)))
        if not tried:
            return None
        place, expected = tried.index(self.ranking()[0]["component"]) + 1, (len(tried) + 1) / 2
        seconds = sum(run["seconds"] for run in self._of(0)) / len(tried)
        return {"place": place, "tried": len(tried), "expected": expected, "seconds": (expected - place) * seconds}


def _goodness(run):
    return -1.0 if run["val_accuracy"] is None else run["val_accuracy"]
