"""The loss around the path along which a cell was trained: on a plane, with the path on it.

Trains the chosen run of the cell again, from the start to the step that was chosen, and keeps the component's tensors
on the way; on a CPU, with as many threads, they end equal to those of the cell, to the bit. The plane is the one
through that end that lies closest to the path. On it the component alone moves; the head and the final norm stay as
they ended. The loss is that of training images, without crops and flips.
"""

import json
import sys
from pathlib import Path

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training import cell, evaluation, finished, landscape

COLUMNS = ("part", "step", "x", "y", "loss", "distance", "share_x", "share_y", "end_error", "n")


def main(argv=None):
    parser = cli.parser("landscape", __doc__)
    parser.add_argument("--model", required=True, help="model folder that the cell was fine-tuned from")
    parser.add_argument("--dataset", required=True, help="dataset folder that it was fine-tuned on")
    parser.add_argument("--runs", required=True, type=Path, help="runs.parquet of the cell")
    cli.add_table_arguments(parser, "the loss at each point of the grid and of the path, one row each")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = settings("landscape", args.params)
    dataset = datasets.open_dataset(args.dataset)
    inputs = {"model": vit.fingerprint(args.model), "dataset": dataset.fingerprint}
    made = finished.read(args.runs, inputs)
    tuning = settings("finetune", json.dumps(made.settings))
    device = select_device(args.device, args.threads, precision=tuning.precision, compile=tuning.compile)
    if made.run:
        one = cell.Cell(
            vit.load(args.model), dataset, made.trains, made.seed, tuning, Path(), {}, None, device, args.threads
        )
        rows = landscape.rows(one, made.run, evaluation.read(made.trained)[0], params)
        error = rows[0]["end_error"]
        told = f"at a relative distance of {error:.1e} from" if error else "equal to"
        print(f"the path of {made.component}, seed {made.seed}, ends {told} the cell's tensors")
    else:
        rows = [{}]
        print(f"every run of {made.component}, seed {made.seed} diverged, so that there is no path; its row is null")
    key = {"model": Path(args.model).name, "dataset": dataset.name, "component": made.component, "seed": made.seed}
    about = {"study": args.study, "stage": "landscape", "rev": args.rev, "key": key, "spec": made.spec}
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    columns["lr"] = [made.run and made.run["lr"]] * len(rows)
    tables.write(args.output, columns, settings=params.as_dict(), inputs=inputs, device=device_name(device), **about)


if __name__ == "__main__":
    sys.exit(cli.run(main))
