"""Measure the plasticity of one component of a model against any number of datasets, in one pass over the source.

Writes one table per target: the rate of change of every block over every pair of images, with the images' positions in
their test splits. See `vit_plasticity.predictors.plasticity` for the definition.
"""

import sys
from pathlib import Path

import numpy as np

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.predictors.plasticity import measure, rates_of_change, rates_of_change_to_each  # noqa: F401 (public)
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study.config import settings
from vit_plasticity.vit import components


def rows(measurement):
    """A Measurement as columns: one row per block and pair."""
    n_blocks, n_pairs = measurement.rates.shape
    return {
        "block": np.repeat(np.arange(n_blocks), n_pairs),
        "pair": np.tile(np.arange(n_pairs), n_blocks),
        "source_image": np.tile(measurement.source_image, n_blocks),
        "target_image": np.tile(measurement.target_image, n_blocks),
        "rate": measurement.rates.ravel(),
    }


def main(argv=None):
    parser = cli.parser("plasticity", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--source", required=True, help="dataset whose test split stands for the pre-training images")
    parser.add_argument("--targets", required=True, nargs="+", metavar="F", help="datasets whose test splits meet it")
    parser.add_argument("--component", required=True, choices=components.MEASURABLE)
    cli.add_table_arguments(parser, "rates of change, one row per block and pair; one file per target", many=True)
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    if len(args.output) != len(args.targets):
        parser.error(f"{len(args.targets)} --targets and {len(args.output)} --output files: name one per target")
    params = settings("plasticity", args.params)
    device = select_device(args.device, args.threads)
    source, *targets = (datasets.open_dataset(folder) for folder in (args.source, *args.targets))
    model = vit.load(args.model, device)
    splits = [(target.split("test"), target.fingerprint == source.fingerprint) for target in targets]
    try:
        measurements = measure(model, source.split("test"), splits, args.component, params)
    except ValueError as error:
        raise InputError(f"{args.source} against {', '.join(args.targets)}: {error}") from error
    for target, measurement, output in zip(targets, measurements, args.output, strict=True):
        key = {"model": Path(args.model).name, "dataset": target.name, "component": args.component}
        about = {"study": args.study, "stage": "plasticity", "rev": args.rev, "device": device_name(device)}
        inputs = {"model": vit.fingerprint(args.model), "source": source.fingerprint, "dataset": target.fingerprint}
        tables.write(output, rows(measurement), key=key, inputs=inputs, settings=params.as_dict(), **about)
        print(f"{args.component} on {target.name}: {measurement.rates.mean():.4f}, shape {measurement.rates.shape}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
