"""Evaluate a fine-tuned cell on the test splits of other datasets of the same classes, without training again.

For shifted test sets: a cell trained on clean images, evaluated on corrupted ones. Its chosen run is put together again
from the pretrained model and ``trained.safetensors``, which holds the tensors that this run trained.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.training import step as training


def restore(model, trained, n_classes):
    """Give `model` a head of `n_classes` and the fine-tuned tensors (a dict), in place.

    Raises InputError for tensors that the model lacks, of another shape, or without the head.
    """
    vit.new_head(model, n_classes)
    own = model.state_dict()
    wrong = [name for name, tensor in trained.items() if name not in own or own[name].shape != tensor.shape]
    if wrong or "head.weight" not in trained:
        raise InputError(f"the fine-tuned tensors do not fit the model: {', '.join(wrong) or 'head.weight is missing'}")
    model.load_state_dict(trained, strict=False)


def main(argv=None):
    parser = cli.parser("evaluate", __doc__)
    parser.add_argument("--model", required=True, help="model folder that the cell was fine-tuned from")
    parser.add_argument(
        "--runs", required=True, type=Path, help="runs.parquet of the cell; trained.safetensors lies beside it"
    )
    parser.add_argument("--on", required=True, nargs="+", help="dataset folders to evaluate on")
    cli.add_table_arguments(parser, "accuracy on each dataset, one row each")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    device = select_device(args.device, args.threads)
    cell = tables.about(args.runs)
    chosen = [row for row in pq.read_table(args.runs).to_pylist() if row["chosen"]]
    targets = [datasets.open_dataset(folder) for folder in args.on]
    if any(target.classes != targets[0].classes for target in targets):
        raise InputError(f"the datasets differ in their classes: {', '.join(args.on)}")
    rows = []
    if chosen:
        model = vit.load(args.model)
        restore(model, safetensors.torch.load_file(args.runs.with_name("trained.safetensors")), len(targets[0].classes))
        vit.prepare(model.to(device))
    for target in targets:
        split, accuracy = target.split("test"), None
        if chosen:
            accuracy = training.evaluate(model, split.images, split.labels, vit.preprocessing(model))[1]
        lr = chosen[0]["lr"] if chosen else None
        rows.append({"evaluated_on": target.name, "lr": lr, "accuracy": accuracy, "n_test": len(split.labels)})
    about = {"study": args.study, "stage": "evaluate", "rev": args.rev, "key": cell["key"], "spec": cell.get("spec")}
    inputs = (cell.get("inputs") or {}) | {f"evaluated on {target.name}": target.fingerprint for target in targets}
    tables.write(args.output, rows, settings=cell.get("settings"), inputs=inputs, device=device_name(device), **about)


if __name__ == "__main__":
    sys.exit(cli.run(main))
