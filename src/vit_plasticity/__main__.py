"""The programs of the package as subcommands: ``vit-plasticity recommend …``, or ``python -m vit_plasticity recommend
…``. Standard library only."""

import runpy
import sys
from pathlib import Path


def programs():
    """The names of all programs: the modules at the top of the package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main():
    """Run ``PROGRAM …`` as ``python -m vit_plasticity.PROGRAM …`` would."""
    given = sys.argv[1:2]
    if given and given[0] not in {*programs(), "-h", "--help"}:
        print(f"vit-plasticity: error: no program {given[0]!r}", file=sys.stderr)
    if not given or given[0] not in programs():
        asked = given in (["-h"], ["--help"])
        usage = f"usage: vit-plasticity PROGRAM …, one of {', '.join(programs())}; each explains itself with --help"
        print(usage, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    del sys.argv[0]
    runpy.run_module(f"vit_plasticity.{given[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(main())
