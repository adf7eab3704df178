"""Evaluate a fine-tuned cell on the test splits of other datasets of the same classes, without training again.

For shifted test sets: a cell trained on clean images, evaluated on corrupted ones. Its chosen run is put together again
from the pretrained model and ``trained.safetensors``, and evaluated in the precision that it was trained in.
"""

import sys
from pathlib import Path

from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.training.evaluation import evaluate


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
    cell = tables.about(args.runs)
    precision = (cell.get("settings") or {}).get("precision", "fp32")
    device = select_device(args.device, args.threads, precision=precision)
    targets = [datasets.open_dataset(folder) for folder in args.on]
    rows = evaluate(args.model, args.runs.with_name("trained.safetensors"), targets, device)
    about = {"study": args.study, "stage": "evaluate", "rev": args.rev, "key": cell["key"], "spec": cell.get("spec")}
    inputs = (cell.get("inputs") or {}) | {f"evaluated on {target.name}": target.fingerprint for target in targets}
    tables.write(args.output, rows, settings=cell.get("settings"), inputs=inputs, device=device_name(device), **about)


if __name__ == "__main__":
    sys.exit(cli.run(main))
