"""Draw a study's figures from its tables, each as PNG and PDF.

Reads what `correlate` wrote and nothing else. A figure whose tables have no rows yet says so. The optional figures, one
at a time, are drawn from the files that the stages `taps` and `landscape` wrote.
"""

import sys
from functools import partial
from pathlib import Path

from vit_plasticity.figures import catalog, theme
from vit_plasticity.runtime import cli
from vit_plasticity.study.grid import FIGURES, OPTIONAL_FIGURES


def main(argv=None):
    parser = cli.parser("plots", __doc__)
    parser.add_argument("--tables", type=Path, metavar="DIR", help="folder that correlate wrote")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the figures into")
    parser.add_argument("--predictor", metavar="NAME", help="draw the figures of this predictor alone, by its name")
    parser.add_argument("--optional", choices=OPTIONAL_FIGURES, help="draw this optional figure alone, from --files")
    parser.add_argument("--files", nargs="+", default=[], metavar="FILE", help="tables for the optional figure")
    args = parser.parse_args(argv)
    if bool(args.optional) != bool(args.files) or bool(args.optional) == bool(args.tables):
        parser.error("give either --tables DIR, or --optional NAME and its --files")
    theme.use()
    if args.optional:
        rows = catalog.read_files(args.optional, args.files)
        styles = theme.styles(rows["component"].dropna().unique())
        theme.save(catalog.OPTIONAL[args.optional](rows, styles), args.output, args.optional)
        return
    study = catalog.read(args.tables)
    styles = theme.styles(study.summary["component"].unique())
    drawn = {name: partial(catalog.FUNCTIONS[name], study, styles) for name in FIGURES}
    if args.predictor:
        known = list(study.predictors["predictor"].unique())
        if args.predictor not in known:
            raise cli.InputError(f"--predictor {args.predictor!r}: these tables have {', '.join(known) or 'none'}")
        one = (study, styles, args.predictor)
        drawn = {f"{args.predictor}_{end}": partial(draw, *one) for end, draw in catalog.OF_ONE.items()}
    for name, draw in drawn.items():
        theme.save(draw(), args.output, name)
    print(f"{len(drawn)} figures in {args.output}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
