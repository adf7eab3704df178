"""A folder of images of one's own; what it may look like stands in `data.folders`, what images may be in `data.images`.

Damaged images are errors: the stage reads all files, then names the first ten and how many there are, and writes
nothing. What is left out is counted by kind, in the dataset's record and on stderr.
"""

import sys
from pathlib import Path

from vit_plasticity.data.decoding import write_images
from vit_plasticity.data.folders import UNLABELLED, list_folder
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.runtime.cli import InputError

MAY_LEAVE_OUT = 0.05


@dataset_format
def imagefolder(entry, writer, source):
    """The folder that a catalog entry names."""
    folder = Path(entry.options["path"]).expanduser()
    if not folder.is_dir():
        raise InputError(f"dataset {entry.name}: the folder {folder} does not exist (seen from {Path.cwd()})")
    write_folder(folder, writer, entry)


def write_folder(folder, writer, entry):
    """Write a folder of images, with its own or drawn splits. Raises InputError for one that cannot serve."""
    listing = list_folder(folder, entry.options.get("smallest_class", 0))
    writer.classes = listing.classes
    if listing.left_out:
        writer.note("left_out", dict(sorted(listing.left_out.items())), f"left out of {folder}")
    looked_like = len(listing.paths) + listing.unread
    share, allowed = listing.unread / looked_like, entry.options.get("may_leave_out", MAY_LEAVE_OUT)
    if share > allowed:
        kinds = "; ".join(f"{kind}: {n}" for kind, n in listing.left_out.items())
        raise InputError(
            f"{folder}: {listing.unread} of {looked_like} files that look like images would be left out ({kinds}), and "
            f"at most {allowed:g} of them may be; convert or move them, or write may_leave_out: {_ceil(share)} beside "
            "imagefolder"
        )
    if tuple(listing.classes) == UNLABELLED:
        print(f"{folder} has no class folders: it can be a source of plasticity, and nothing else", file=sys.stderr)
    write_images(writer, listing.paths, listing.labels, listing.splits, entry.short_side)


def _ceil(share):
    return min(1, int(share * 100 + 1) / 100)
