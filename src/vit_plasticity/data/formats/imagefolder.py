"""A folder of images of one's own; what it may look like stands in `data.folders`, what images may be in `data.images`.

Damaged images are errors: the stage reads all files, then names the first ten and how many there are, and writes
nothing. What is left out is counted by kind, in the dataset's record and on stderr.
"""

import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vit_plasticity.data import images
from vit_plasticity.data.folders import UNLABELLED, list_folder
from vit_plasticity.runtime.cli import InputError

MAY_LEAVE_OUT = 0.05
_WINDOW = 64  # images decoded ahead of the one that is being written


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


def write_images(writer, paths, labels, splits, short_side):
    """Decode image files and write them in their order.

    paths, labels, splits: n paths, class indices and names of splits. Raises InputError naming the files that cannot be
    read, after all have been tried.
    """
    broken, warnings = [], []
    with ThreadPoolExecutor(_cpus()) as pool:
        scales = _full_scales(writer, paths, pool)
        decoded = _ahead(pool, paths, short_side, scales, warnings)
        for number, (future, path, label, split) in enumerate(zip(decoded, paths, labels, splits, strict=True), 1):
            try:
                image = future.result()
            except Exception as error:  # the decoders raise nearly anything on damaged files
                broken.append(f"{path}: {str(error).strip() or type(error).__name__}")
            else:
                writer.add(split, image, label)
            if number % 10_000 == 0:
                print(f"prepared {number:,} of {len(paths):,} images", file=sys.stderr, flush=True)
    if broken:
        raise InputError(f"{len(broken)} of {len(paths)} images cannot be used; mend or remove them:{_ten(broken)}")
    if warnings:
        writer.note("broken_metadata", len(warnings), f"broken metadata was left aside, {min(warnings)}, …; images")


def _full_scales(writer, paths, pool):
    """The full scale of each kind of values of more than 8 bits that the images have."""
    largest = {}
    for path, found in zip(paths, pool.map(images.deep_values, paths), strict=True):
        if found:
            largest.setdefault(found[0], []).append((found[1], path))
    scales = {}
    for kind, values in largest.items():
        most, path = max(values)
        try:
            scales[kind] = images.full_scale(kind, most)
        except images.Refused as error:
            raise InputError(f"{len(values)} images of more than 8 bits, as {path}: {error}") from error
        dark = [path for value, path in values if 0 < value * images.DARKEST < scales[kind]]
        if len(dark) > MAY_LEAVE_OUT * len(values):
            raise InputError(
                f"{len(dark)} of {len(values)} images of more than 8 bits, as {dark[0]}, would be black beside {path}, "
                f"which reaches {most:g}; convert them to 8 bits"
            )
    if scales:
        counts = {kind: {"full_scale": scales[kind], "images": len(values)} for kind, values in largest.items()}
        writer.note("scaled", counts, "images of more than 8 bits, divided by one full scale")
    return scales


def _ahead(pool, paths, short_side, scales, warnings):
    """Futures of the decoded images, in order; the threads work a window ahead of the reader."""

    def read(path):
        return images.read_image(path, short_side, scales, lambda text: warnings.append(f"{path}: {text}"))

    pending = deque()
    for path in paths:
        pending.append(pool.submit(read, path))
        if len(pending) == _WINDOW:
            yield pending.popleft()
    yield from pending


def _cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ten(lines):
    more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
    return "".join(f"\n  {line}" for line in lines[:10]) + more
