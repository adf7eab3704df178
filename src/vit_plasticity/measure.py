"""Measure predictors of one model on one dataset: numbers per component that are known without fine-tuning.

Any number of predictors may be named; what several of them need is computed once. Writes one table per predictor, with
rows of components as a whole (block null) and of single blocks, and the seconds that the predictor would take alone.
See `vit_plasticity.predictors`; the one file of each predictor has its definition.
"""

import sys
from pathlib import Path

from vit_plasticity import predictors, vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.predictors.task import Task
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study.config import settings
from vit_plasticity.vit import components

COLUMNS = ("component", "block", "value", "ci_low", "ci_high", "n")


def main(argv=None):
    parser = cli.parser("measure", __doc__)
    names = {"nargs": "+", "metavar": "P", "choices": predictors.names()}
    parser.add_argument("--predictor", required=True, **names, help=f"of {', '.join(predictors.names())}")
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--source", required=True, help="dataset whose test split stands for the pre-training images")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    parser.add_argument("--components", required=True, nargs="+", metavar="C", help="components, such as mha or ln1")
    parser.add_argument(
        "--finetune", default="{}", metavar="JSON", help="settings of the cells, of which a share is run"
    )
    cli.add_table_arguments(parser, "values by component and block; one file per predictor", many=True)
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    if len(args.output) != len(args.predictor):
        parser.error(f"{len(args.predictor)} --predictor and {len(args.output)} --output files: name one per predictor")
    params, finetune = settings("measure", args.params), settings("finetune", args.finetune)
    device = select_device(args.device, args.threads)
    source, dataset = (datasets.open_dataset(folder) for folder in (args.source, args.dataset))
    try:
        chosen = [components.parse(name) for name in args.components]
    except ValueError as error:
        raise InputError(f"--components: {error}") from error
    same = source.fingerprint == dataset.fingerprint
    model = vit.load(args.model, device)
    task = Task(model, chosen, source.split("test"), dataset, params, finetune=finetune, same_images=same)
    inputs = {"model": vit.fingerprint(args.model), "source": source.fingerprint, "dataset": dataset.fingerprint}
    for name, output in zip(args.predictor, args.output, strict=True):
        try:
            rows = task.rows(predictors.load(name), name)
        except ValueError as error:
            raise InputError(f"{name} of {args.model} on {args.dataset}: {error}") from error
        columns = {column: [row.get(column) for row in rows] for column in COLUMNS}
        key = {"predictor": name, "model": Path(args.model).name, "dataset": dataset.name}
        about = {"study": args.study, "stage": "measure", "rev": args.rev, "device": device_name(device)}
        used = params.as_dict() | ({"finetune": finetune.as_dict()} if predictors.known()[name] else {})
        columns["duration_s"] = [task.duration(name)] * len(rows)
        tables.write(output, columns, key=key, inputs=inputs, settings=used, **about)
        print(f"{name}: {len(rows)} values in {task.duration(name):.2f} s")


if __name__ == "__main__":
    sys.exit(cli.run(main))
