"""Which parts of a Vision Transformer to fine-tune on your images, and how sure that is.

  recommend --model vit_small_patch14_dinov2.lvd142m --data ~/my_images
  recommend --model FOLDER --data FOLDER --budget 10min --json answer.json

Without --budget nothing is trained: components are ordered by the predictor that has done best so far, whose record is
shown. With --budget candidates are trained for real, by successive halving on the validation images, and the answer is
their ranking, compared with a linear probe on the test images. Ctrl-C ends it with what is known by then.
"""

import json
import re
import sys
from pathlib import Path

from vit_plasticity.advice import answer, page
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.files import atomic

_UNITS = {"s": 1, "min": 60, "h": 3600}


def main(argv=None):
    parser = cli.parser("recommend", __doc__)
    add = parser.add_argument
    add("--model", required=True, help="a tag of timm, ORGANISATION/NAME on the hub, a folder, or a shipped model")
    add("--data", required=True, help="a folder with a folder of images per class, or a prepared dataset")
    add("--budget", type=seconds, metavar="TIME", help="train for at most so long: 90s, 10min, 2h")
    add("--components", nargs="+", default=answer.choices.NAMES, metavar="C", help="default: %(default)s")
    add("--lrs", nargs="+", type=float, default=answer.LRS, metavar="LR", help="peak learning rates (%(default)s)")
    add("--batch-size", type=int, default=answer.BATCH_SIZE, help="images per step (default: %(default)s)")
    add("--no-flip", action="store_true", help="do not mirror images in training: text, digits")
    add("--source", help="images like those of the pre-training, as --data; the training images where left out")
    add("--record", nargs="+", default=(), metavar="TABLES", help="folders of tables of finished studies to learn from")
    add("--patience", type=seconds, default=answer.PATIENCE_S, metavar="TIME", help="for measuring (%(default)s s)")
    add("--json", type=Path, metavar="FILE", help="also write the answer as JSON")
    add("--html", type=Path, metavar="FILE", help="also write the page as HTML")
    add("--cache", type=Path, help="folder for prepared images and searches (default: ~/.cache/vit-plasticity)")
    add("--offline", action="store_true", help="never use the network")
    cli.add_compute_arguments(parser)
    parser.set_defaults(threads=None)
    args = parser.parse_args(argv)
    if args.batch_size < 1 or min(args.lrs) <= 0:
        raise InputError(f"--batch-size {args.batch_size}, --lrs {args.lrs}: both must be above 0")
    found = answer.answer(
        args.model, args.data, args.budget, components=tuple(args.components), lrs=tuple(args.lrs),
        batch_size=args.batch_size, flip=not args.no_flip, source=args.source, records=args.record,
        patience=args.patience, cache=args.cache,
        offline=args.offline, device=args.device, threads=args.threads,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(page.text(found), end="")
    if args.json:
        _write(args.json, json.dumps(page.as_dict(found), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        _write(args.html, page.page(found))


def seconds(text):
    """A time such as 90s, 10min or 2h, in seconds. Raises ValueError for another text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|min|h)", text.strip())
    if not match or float(match[1]) == 0:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]]


def _write(file, text):
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(cli.run(main))
