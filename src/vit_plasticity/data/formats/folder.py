"""Preparing a folder of images: class folders, with or without splits.

The folder holds ``train/`` and ``test/`` (and ``val/`` or not), each with one folder per class; or it holds the class
folders themselves, and is then split. (A folder ``train`` without folders in it is a class, of trains.) What becomes
of images that are not plain RGB:

- EXIF orientation is applied; grey, palette, CMYK and 16-bit images are converted to 8-bit RGB (16-bit grey by its
  upper 8 bits); transparent pixels are laid over white; of an animated image the first frame is taken.
- Empty, truncated and unreadable files, and images of more than 89 million pixels, are errors: the stage reads all
  files, then names the first ten and how many there are, and writes nothing.
- Files that are not images by their suffix are counted in a message and left out, and so are hidden files.
- One class only, a class folder without images, and a class that is missing from a split are errors.
"""

import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vit_plasticity.data.registry import SPLITS
from vit_plasticity.data.splits import split_labels
from vit_plasticity.runtime.cli import InputError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MOST_PIXELS = 89_478_485  # from where on Pillow suspects a decompression bomb
_WINDOW = 64  # images decoded ahead of the one that is being written


def imagefolder(entry, writer, source):
    """The folder that a catalog entry names."""
    folder = Path(entry.options["path"]).expanduser()
    if not folder.is_dir():
        raise InputError(f"dataset {entry.name}: the folder {folder} does not exist (seen from {Path.cwd()})")
    write_folder(folder, writer, entry.short_side)


def write_folder(folder, writer, short_side):
    """Write a folder of class folders, or of split folders, with its own or drawn splits."""
    paths, labels, splits, writer.classes = list_folder(folder)
    write_images(writer, paths, labels, splits, short_side)


def list_folder(folder):
    """The images below a folder: paths, labels (n,), splits (n,) names, and the class names; all in sorted order.

    Raises InputError for a folder that cannot serve as a dataset, see above.
    """
    own = [split for split in SPLITS if any(path.is_dir() for path in folder.glob(f"{split}/*"))]
    if own and not {"train", "test"} <= set(own):
        raise InputError(f"{folder} has {', '.join(own)}/ but needs both train/ and test/ (val/ is optional)")
    roots = {split: folder / split for split in own} if own else {"train": folder}
    found = {split: class_images(root) for split, root in roots.items()}
    classes = sorted(set().union(*found.values()))
    if len(classes) < 2:
        raise InputError(
            f"{folder}: found {len(classes)} class folder ({', '.join(classes)}); a classifier needs at least two"
        )
    for split, images in found.items():
        if empty := [name for name in classes if not images.get(name)]:
            raise InputError(f"{roots[split]}: no image of class {_some(empty)}; every class needs one in every split")
    paths, labels, splits = [], [], []
    for split, images in found.items():
        own_labels = np.repeat(np.arange(len(classes)), [len(images[name]) for name in classes])
        given = own or ["train"]
        try:
            splits.append(
                split_labels(own_labels, given) if split == "train" else np.full(len(own_labels), split, "<U5")
            )
        except ValueError as error:
            small = [name for name in classes if len(images[name]) < 3]
            raise InputError(f"{roots[split]}: too few images of class {_some(small)} to draw splits from") from error
        labels.append(own_labels)
        paths += [path for name in classes for path in images[name]]
    return paths, np.concatenate(labels), np.concatenate(splits), classes


def write_images(writer, paths, labels, splits, short_side):
    """Decode image files and write them in their order.

    paths, labels, splits: n paths, class indices and names of splits. Raises InputError naming the files that cannot be
    read, after all have been tried.
    """
    broken = []
    futures = _decode(paths, short_side)
    for number, (future, path, label, split) in enumerate(zip(futures, paths, labels, splits, strict=True), 1):
        try:
            image = future.result()
        except Exception as error:  # the decoders raise nearly anything on damaged files
            broken.append(f"\n  {path}: {str(error).strip() or type(error).__name__}")
        else:
            writer.add(split, image, label)
        if number % 10_000 == 0:
            print(f"prepared {number:,} of {len(paths):,} images", file=sys.stderr, flush=True)
    if broken:
        more = f"\n  and {len(broken) - 10} more" if len(broken) > 10 else ""
        listing = "".join(broken[:10]) + more
        raise InputError(f"{len(broken)} of {len(paths)} images cannot be used; mend or remove them:{listing}")


def _decode(paths, short_side):
    """Futures of the decoded images, in order; threads work a window ahead of the reader."""
    pending = deque()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for path in paths:
            pending.append(pool.submit(read_image, path, short_side))
            if len(pending) == _WINDOW:
                yield pending.popleft()
        yield from pending


def read_image(path, short_side):
    """An image file as uint8 (H, W, 3), its shorter side at most `short_side` pixels. Raises as Pillow does."""
    from PIL import Image, ImageOps

    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with Image.open(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
        if short_side:  # lets JPEG decode at a fraction of its size, at least twice what is kept
            image.draft(None, [2 * short_side * side // min(image.size) for side in image.size])
        image = _to_rgb(ImageOps.exif_transpose(image))
    scale = short_side / min(image.size) if short_side else 1
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def class_images(root):
    """class name → the image files in its folder, at any depth, sorted; hidden folders are left out."""
    images, skipped = {}, 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        images[folder.name] = [path for path in files if path.suffix.lower() in SUFFIXES]
        skipped += len(files) - len(images[folder.name])
    if skipped:
        print(f"{root}: left out {skipped} files that are no images by their suffix", file=sys.stderr)
    return images


def _some(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
