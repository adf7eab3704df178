"""Draw a study's figures from its tables, each as PNG and PDF.

Reads what `correlate` wrote and nothing else. A figure whose tables have no rows yet says so.
"""

import sys
from functools import partial
from pathlib import Path

from vit_plasticity.figures import catalog, theme
from vit_plasticity.runtime import cli
from vit_plasticity.study.grid import FIGURES


def main(argv=None):
    parser = cli.parser("plots", __doc__)
    parser.add_argument("--tables", required=True, type=Path, metavar="DIR", help="folder that correlate wrote")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the figures into")
    parser.add_argument("--predictor", metavar="NAME", help="draw the figures of this predictor alone, by its name")
    args = parser.parse_args(argv)
    study = catalog.read(args.tables)
    theme.use()
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
