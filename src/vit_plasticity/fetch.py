"""Fetch a dataset or a model: download, verify, prepare, and put it where the other stages read it.

  fetch dataset cifar100 --output resources/datasets/cifar100
  fetch dataset mine --catalog '{"imagefolder": "/path/to/images"}' --output resources/datasets/mine
  fetch model vit_base --catalog '{"timm": "vit_base_patch16_224.orig_in21k"}' --output resources/models/vit_base
  fetch model mine --catalog '{"timm": "vit_base_patch16_224"}' --from model_best.pth.tar --output resources/models/mine
  fetch model dino --catalog '{"timm": "facebook/dinov2-small"}' --output resources/models/dino

A dataset is one of the built-in names (data/datasets.csv has their sources, checksums and licences) or
one that --catalog defines. A model is what --catalog defines: weights of timm, a repository of the Hugging Face hub, or
a folder of one's own, the latter two in the format of timm or of transformers.
Downloads are kept, verified at each use, and go on where they were cut off.
"""

import argparse
import json
import sys
from pathlib import Path

from vit_plasticity.data import registry as datasets
from vit_plasticity.data.downloads import Source
from vit_plasticity.data.formats import fetch_dataset
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study.config import check_model_entry


def main(argv=None):
    """Parse the command line and fetch one dataset or model."""
    parser = cli.parser("fetch", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("dataset", "model"):
        sub = kinds.add_parser(kind, allow_abbrev=False, help=f"fetch a {kind}", description=f"Fetch a {kind}.")
        _add_arguments(sub, kind)
    arguments = parser.parse_args(argv)
    entry = None if arguments.catalog is None else _json(arguments.catalog)
    source = Source(arguments.downloads, arguments.offline, arguments.mirror)
    if arguments.kind == "dataset":
        catalog = {} if entry is None else {arguments.name: entry}
        fetch_dataset(datasets.lookup(arguments.name, catalog), arguments.output, source, arguments.threads)
    else:
        from vit_plasticity.vit.fetch import fetch_model  # imports torch and timm

        check_model_entry(arguments.name, entry)
        fetch_model(arguments.name, entry, arguments.output, source, arguments.checkpoint)


def _add_arguments(parser: argparse.ArgumentParser, kind):
    examples = {"dataset": '{"imagefolder": "/path"}', "model": '{"timm": "vit_base_patch16_224.orig_in21k"}'}
    parser.add_argument("name", help=f"name of the {kind}")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; it appears when it is complete")
    parser.add_argument("--catalog", metavar="JSON", help=f"what the name stands for, e.g. '{examples[kind]}'")
    parser.add_argument(
        "--downloads", type=Path, default=Path("resources/downloads"), help="where downloads are kept (%(default)s)"
    )
    if kind == "dataset":
        parser.add_argument("--threads", type=int, help="threads that decode images (default: one for each CPU core)")
    if kind == "model":
        parser.add_argument(
            "--from", dest="checkpoint", metavar="FILE", help="own weights for the architecture of the tag in --catalog"
        )
    parser.add_argument("--offline", action="store_true", help="never use the net; say which file is missing")
    parser.add_argument(
        "--mirror",
        help="folder or URL to use instead of the net: it holds archives of datasets by their file names, and models "
        "as the hub does (folder: timm/NAME/model.safetensors; URL: a mirror of the Hugging Face hub)",
    )


def _json(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--catalog is not JSON ({error}): {text!r}") from error


if __name__ == "__main__":
    sys.exit(cli.run(main))
