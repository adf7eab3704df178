"""Finished cells, read from the files that they left."""

from pathlib import Path
from typing import NamedTuple

from vit_plasticity.analysis import tables
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study.grid import RUN_FILES


class Finished(NamedTuple):
    """A finished cell.

    settings: those of its fine-tuning, a dict; spec: the hash of all that its numbers depend on; run: the row of its
    chosen run, a dict, or None where all diverged; trained: the path of that run's tensors.
    """

    component: str
    seed: int
    settings: dict
    spec: str
    run: dict | None
    trained: Path

    @property
    def trains(self):
        """The name of the component that trained in it, which an adaptive one was resolved to."""
        return (self.run or {}).get("resolved") or self.component


def read(runs, inputs):
    """The cell that wrote the table `runs`. inputs: the fingerprints of model and dataset, by these names.

    Raises InputError for another table, and for a cell made from another model or dataset.
    """
    table, (about,) = tables.read_many([runs])
    if about["stage"] != "finetune":
        raise InputError(f"{runs} was written by stage {about['stage']!r}; name the runs.parquet of a cell")
    for name, fingerprint in inputs.items():
        if about["inputs"][name] != fingerprint:
            raise InputError(
                f"{runs}: the cell was fine-tuned with another {name} than the one given, of other contents; name its "
                "own, or fine-tune the cell again"
            )
    chosen = next((row for row in table.to_pylist() if row["chosen"]), None)
    trained = Path(runs).with_name(RUN_FILES["trained"])
    key = about["key"]
    return Finished(key["component"], key["seed"], about["settings"], about["spec"], chosen, trained)


def best_by_validation(cells):
    """Of each component the cell of the highest validation accuracy, the first of equals: a list, in their order."""
    best = {}
    for cell in cells:
        if cell.component not in best or _val_accuracy(cell) > _val_accuracy(best[cell.component]):
            best[cell.component] = cell
    return [*best.values()]


def _val_accuracy(cell):
    return -1.0 if cell.run is None else cell.run["val_accuracy"]
