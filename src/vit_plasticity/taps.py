"""Linear probes at every tap of a pretrained model, and of cells that were fine-tuned from it.

The taps are the embedding and, in each block, the residual stream after the attention branch was added and after the
feed-forward branch was. The probe and its settings are those of ``probe``, which reports the last tap of the pretrained
model. Of the cells of one component, which differ in their seed, the one of the highest validation accuracy is probed.
Holds the features of all taps in memory.
"""

import sys
from pathlib import Path

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study import grid
from vit_plasticity.study.config import settings
from vit_plasticity.training import evaluation, finished
from vit_plasticity.training.probe import probe_taps

COLUMNS = ("component", "seed", "tap", "block", "accuracy", "converged", "n_iter", "n_train", "n_test", "n_features")


def main(argv=None):
    parser = cli.parser("taps", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    parser.add_argument(
        "--runs", nargs="*", default=[], metavar="FILE", help="runs.parquet of cells of this model and dataset"
    )
    cli.add_table_arguments(parser, "the accuracy of each probe, one row per model and tap")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = settings("probe", args.params)
    device = select_device(args.device, args.threads)
    dataset = datasets.open_dataset(args.dataset)
    inputs = {"model": vit.fingerprint(args.model), "dataset": dataset.fingerprint}
    cells = finished.best_by_validation([finished.read(path, inputs) for path in args.runs])
    rows = found = probe_taps(vit.load(args.model, device), dataset, params)
    _tell("pretrained", found)
    for cell in cells:
        tensors, run = evaluation.read(cell.trained)
        if run:
            found = probe_taps(evaluation.rebuild(args.model, tensors, run, device), dataset, params)
            _tell(f"{cell.component}, seed {cell.seed}", found)
        else:
            found = [{"tap": row["tap"], "block": row["block"]} for row in found]
            print(f"{cell.component}: every run diverged, so that there is no model to probe; its rows are null")
        rows = rows + [row | {"component": cell.component, "seed": cell.seed} for row in found]
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    key = {"model": Path(args.model).name, "dataset": dataset.name}
    about = {"study": args.study, "stage": "taps", "rev": args.rev, "key": key, "device": device_name(device)}
    inputs |= {grid.CELL.format(**key, component=cell.component, seed=cell.seed): cell.spec for cell in cells}
    tables.write(args.output, columns, settings=params.as_dict(), inputs=inputs, **about)


def _tell(what, rows):
    first, *_, last = (f"{row['accuracy']:.4f}" for row in rows)
    print(f"{what}: accuracy {first} after the embedding, {last} after the last block", flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
