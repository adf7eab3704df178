"""`python -m tests.soak`: kill cells and Snakemake 200 times, and see that the tables are equal nevertheless."""

import argparse
import importlib
import random
import sys
import tempfile
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their order and moments (default: %(default)s)")
    parser.add_argument("--share-of-snakemake", type=float, default=0.1, help="of the kills (default: %(default)s)")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent / "support"))  # as pytest does
    kills = importlib.import_module("kills")

    choose = random.Random(args.seed)
    strikes = [
        choose.choice(kills.SNAKEMAKE_STRIKES if choose.random() < args.share_of_snakemake else kills.CELL_STRIKES)
        for _ in range(args.kills)
    ]
    for part in (args.kills // 3, 2 * args.kills // 3):
        strikes[part] = kills.WORKER_STRIKE
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        reference, study = (kills.Study(Path(folder, name)) for name in ("reference", "study"))
        reference.undisturbed()
        harness = kills.Harness(study, reference.work, strikes, args.seed, progress)
        try:
            tally = harness.run()
        except BaseException:
            print(study.said())
            raise
    print(tally)
    return bool(tally.lost or tally.retrained or tally.different)


def progress(kills):
    if kills % 10 == 0:
        print(f"{kills} kills", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
