"""Many image files, decoded in threads, into a dataset."""

import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from vit_plasticity.data import images
from vit_plasticity.runtime.cli import InputError

_WINDOW = 64  # images decoded ahead of the one that is being written
_MAY_BE_DARK = 0.05


def write_images(writer, paths, labels, splits, short_side):
    """Decode image files and write them in their order.

    paths, labels, splits: n paths, class indices and names of splits. Raises InputError naming the files that cannot be
    read, after all have been tried.
    """
    broken, warnings = [], []
    with ThreadPoolExecutor(writer.threads) as pool:
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
        if len(dark) > _MAY_BE_DARK * len(values):
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


def _ten(lines):
    more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
    return "".join(f"\n  {line}" for line in lines[:10]) + more
