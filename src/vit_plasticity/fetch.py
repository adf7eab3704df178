"""Fetch a dataset or a model: download, verify, prepare, and put it where the other stages read it.

A dataset is one of the built-in names (vit_plasticity/datasets.csv lists them) or one that --catalog defines.
A model is what --catalog defines: weights of timm, or a folder in timm's local-directory format.
"""

import argparse
import json
import sys
from pathlib import Path

from vit_plasticity import cli, datasets, prepare_embedded, prepare_folder
from vit_plasticity.cli import InputError
from vit_plasticity.dataset_writer import create

PREPARE = {
    "digits": prepare_embedded.digits,
    "digits_c": prepare_embedded.digits_c,
    "fractals": prepare_embedded.fractal_classes,
    "imagefolder": prepare_folder.imagefolder,
}
"""DatasetEntry.format → the function (entry, writer, source) that adds its images to the writer."""


def fetch_dataset(entry, output, source):
    """Prepare one dataset into the folder `output`, downloading what it needs through `source`."""
    with create(output, entry.name, source=entry.source, licence=entry.licence) as writer:
        PREPARE[entry.format](entry, writer, source)


def main(argv=None):
    """Parse the command line and fetch one thing."""
    parser = cli.parser("fetch", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="{dataset,model}")
    for kind in ("dataset", "model"):
        sub = kinds.add_parser(
            kind, allow_abbrev=False, help=f"fetch a {kind}", formatter_class=argparse.RawTextHelpFormatter
        )
        sub.add_argument("name", help=f"name of the {kind}")
        sub.add_argument("--output", type=Path, required=True, help="folder to write")
        sub.add_argument("--catalog", metavar="JSON", help="""its catalog entry, e.g. '{"imagefolder": "/path"}'""")
    arguments = parser.parse_args(argv)
    catalog = {arguments.name: _json(arguments.catalog)} if arguments.catalog else None
    if arguments.kind == "model":
        raise InputError("fetching models is not built yet")
    fetch_dataset(datasets.lookup(arguments.name, catalog), arguments.output, None)


def _json(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--catalog is not JSON ({error}): {text!r}") from error


if __name__ == "__main__":
    sys.exit(cli.run(main))
