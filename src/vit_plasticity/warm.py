"""Run a stage in the warm worker of this Snakemake where there is one, else right here: ``python -m
vit_plasticity.warm STAGE …``

Same arguments, output, signals and exit status as ``python -m vit_plasticity.STAGE …``. Standard library only: with a
worker, a job costs the start of a bare Python. See `vit_plasticity.runtime.worker`.
"""

import runpy
import sys

from vit_plasticity.runtime import client


def main(arguments):
    """Run ``STAGE …`` and return its exit status."""
    status = client.run(arguments)
    if status is None:
        sys.argv = arguments
        runpy.run_module(f"vit_plasticity.{arguments[0]}", run_name="__main__", alter_sys=True)
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
