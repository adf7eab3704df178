"""Fine-tune one component of a model on a dataset: a cell, which trains one run per learning rate.

As in arXiv 2602.06883: SGD with momentum (or AdamW), cosine schedule with warm-up, gradients clipped, random crops
and flips. The validation split picks the step and the learning rate; the test split is read once a run, at its best
step.

A cell that is killed and started again resumes from its last checkpoint; the result is bit-identical to that of one
that was never killed (on one device). Finished runs lie in ``runs/`` beside the output, so that another learning rate
trains that run alone; they serve the same code, versions, settings and inputs only. A run whose loss stops being
finite ends as "diverged", which is an outcome.
"""

import sys
from pathlib import Path

from vit_plasticity import vit
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training import adaptive, cell, checkpoints
from vit_plasticity.vit import components


def main(argv=None):
    parser = cli.parser("finetune", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    parser.add_argument("--component", required=True, help="what trains, such as mha, mha@0-5, auto:bound:2")
    parser.add_argument("--candidates", nargs="*", default=[], metavar="C", help="what an auto: component may become")
    parser.add_argument("--predicted", nargs="*", default=[], metavar="FILE", help="tables of an auto:'s predictor")
    parser.add_argument("--seed", required=True, type=int)
    cli.add_table_arguments(parser, "runs.parquet; its folder also gets history.parquet and trained.safetensors")
    cli.add_compute_arguments(parser)
    parser.add_argument(
        "--checkpoint-interval-s", type=float, default=60, help="least seconds between checkpoints (default: 60)"
    )
    args = parser.parse_args(argv)
    params, output = settings("finetune", args.params), Path(args.output)
    try:
        component, *candidates = map(components.parse, (args.component, *args.candidates))
    except ValueError as error:
        raise InputError(f"--component, --candidates: {error}") from error
    dataset = datasets.open_dataset(args.dataset)
    cell.check(dataset, params)
    inputs = {"model": vit.fingerprint(args.model), "dataset": dataset.fingerprint}
    key = {"model": Path(args.model).name, "dataset": dataset.name, "component": args.component, "seed": args.seed}
    trained = adaptive.resolve(component, candidates, args.predicted, inputs, key).name
    if component.auto:
        print(f"{component.name} is {trained} of {key['model']} on {key['dataset']}", flush=True)
    with cell.owned(output.parent / "runs") as folder:
        # Which may take a GPU: not while another process has the cell.
        device = select_device(args.device, args.threads, precision=params.precision, compile=params.compile)
        keys = cell.run_keys(inputs, trained, args.seed, params, args.rev, device, args.threads)
        if cell.is_done(output, keys):
            print(f"complete: {output.parent} was made already; nothing to do")
            return
        schedule = checkpoints.Schedule(args.checkpoint_interval_s)
        one = cell.Cell(
            vit.load(args.model), dataset, trained, args.seed, params, folder, keys, schedule, device, args.threads
        )
        try:
            rows, *others = one.train()
        except checkpoints.Interrupted as error:
            print(f"stopped by {error}; the checkpoint in {folder} is where it goes on", file=sys.stderr, flush=True)
            raise SystemExit(128 + schedule.stop) from error
        rows = [row | ({"resolved": trained} if component.auto else {}) for row in rows]
        about = {"study": args.study, "rev": args.rev, "key": key, "settings": params.as_dict(), "inputs": inputs}
        cell.write(output, rows, *others, keys, **about)
    print(f"complete: {len(keys)} runs in {output.parent}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
