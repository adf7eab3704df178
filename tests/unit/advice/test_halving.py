"""Successive halving, with trials whose accuracy and time are known."""

import pytest

from vit_plasticity.advice.halving import LEAST_STEPS, Candidate, Search, candidates, number_of_rungs

LRS = (0.01, 0.03, 0.1)


class Trials:
    """Trials of 0.1 s a step, whose accuracy grows with the steps towards a limit per candidate."""

    def __init__(self, limits, stop_at=None):
        self.limits, self.stop_at, self.calls = limits, stop_at, []

    def __call__(self, candidate, steps):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((candidate.component, candidate.lr, steps))
        limit = self.limits.get((candidate.component, candidate.lr), self.limits.get(candidate.component))
        accuracy = None if limit is None else limit * steps / (steps + 10)
        return {"val_accuracy": accuracy, "seconds": 0.1 * steps}


def search(trials, components, tmp_path, budget_s=1000, lrs=LRS, most_steps=500):
    ordered = candidates(components, lrs)
    return Search(ordered, trials, budget_s, tmp_path / "runs.json", most_steps=most_steps, report=lambda _: None)


def test_candidates_come_in_the_order_of_components_middle_learning_rates_first():
    assert candidates(["b", "a"], LRS) == [
        Candidate(c, lr) for lr, c in [(0.03, "b"), (0.03, "a"), (0.1, "b"), (0.1, "a"), (0.01, "b"), (0.01, "a")]
    ]


@pytest.mark.parametrize(("n", "rungs"), [(1, 1), (3, 1), (4, 2), (9, 2), (10, 3), (27, 3), (36, 4)])
def test_rungs_lead_down_to_three_candidates(n, rungs):
    assert number_of_rungs(n) == rungs


def test_the_best_is_found_within_the_budget(tmp_path):
    limits = {c: 0.5 + 0.01 * i for i, c in enumerate("abcdefghi")} | {("e", 0.1): 0.9}
    found = search(trials := Trials(limits), list("abcdefghi"), tmp_path).run()
    assert (found.ranking()[0]["component"], found.ranking()[0]["lr"]) == ("e", 0.1)
    assert {(c, lr) for c, lr, _ in trials.calls} == {(c, lr) for c in "abcdefghi" for lr in LRS}
    assert 500 < found.seconds <= 1100
    assert [run["component"] for run in found.ranking()[:2]] == ["e", "i"]


def test_later_rungs_are_longer_and_hold_a_third(tmp_path):
    found = search(Trials(dict.fromkeys("abcdefghi", 0.5)), list("abcdefghi"), tmp_path).run()
    sizes = [sum(run["rung"] == rung for run in found.runs) for rung in range(3)]
    assert sizes == [27, 9, 3]
    assert found.steps == sorted(found.steps) and found.steps[0] < found.steps[-1]


def test_a_small_budget_tries_the_first_candidates_alone(tmp_path):
    trials = Trials(dict.fromkeys("abcdefghi", 0.5))
    found = search(trials, list("abcdefghi"), tmp_path, budget_s=20).run()
    tried = list(dict.fromkeys(component for component, _, steps in trials.calls[3:]))
    assert tried == list("abcdefghi")[: len(tried)]
    assert 2 <= len(tried) < 9
    assert min(run["steps"] for run in found.runs) == LEAST_STEPS


def test_a_stopped_search_resumes_and_ends_as_if_it_had_not_been_stopped(tmp_path):
    limits = {c: 0.5 + 0.01 * i for i, c in enumerate("abcdef")}
    whole = search(Trials(limits), list("abcdef"), tmp_path / "whole").run()
    stopped = search(Trials(limits, stop_at=7), list("abcdef"), tmp_path / "parts").run()
    assert stopped.interrupted and len(stopped.runs) == 4  # the first three calls measured the cost of a run
    resumed = search(trials := Trials(limits), list("abcdef"), tmp_path / "parts").run()
    assert resumed.runs == whole.runs
    assert len(trials.calls) == len([run for run in whole.runs if run["seconds"]]) - 4


def test_a_diverged_run_is_the_worst_and_does_not_stop_the_search(tmp_path):
    found = search(Trials({"a": None, "b": 0.1, "c": 0.2, "d": 0.3}), list("abcd"), tmp_path).run()
    assert [run["component"] for run in found.ranking()] == ["d", "c", "b", "a"]


def test_a_run_of_full_length_is_not_trained_again(tmp_path):
    found = search(trials := Trials(dict.fromkeys("abcdef", 0.5)), list("abcdef"), tmp_path, most_steps=30).run()
    assert len(set(trials.calls[3:])) == len(trials.calls[3:])
    assert [run["seconds"] for run in found.runs if run["rung"] == 1] == [0.0] * 6


def test_what_the_order_saved_is_the_distance_to_a_random_order(tmp_path):
    limits = {"a": 0.9, "b": 0.5, "c": 0.4}
    found = search(Trials(limits), list("abc"), tmp_path, lrs=(0.1,), most_steps=30).run()
    assert found.saved() == {"place": 1, "tried": 3, "expected": 2.0, "seconds": pytest.approx(3.0)}
