"""One image file: whether it is one, and its pixels as 8-bit RGB.

- EXIF orientation is applied; grey, palette and CMYK images are converted to RGB; transparent pixels are laid over
  white; of an animated image the first frame is taken.
- Values of more than 8 bits (16-bit and 32-bit grey, float) are divided by a full scale, the same for all images of a
  dataset: the smallest of `FULL_SCALES` that holds its largest value. Negative values and such as are no numbers are
  refused, and so are images that the full scale would turn black.
- Metadata that cannot be read is left aside with a warning, where the pixels can.
"""

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageOps

IMAGE, UNREAD, OTHER = "image", "image in a format that is not read", "no image"
SUFFIXES = {".apng", ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"}
SUFFIXES |= {".ppm", ".tif", ".tiff", ".webp"}
_UNREAD = {".arw", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".eps", ".exr", ".fits", ".hdr", ".heic", ".heif", ".ico"}
_UNREAD |= {".jxl", ".jxr", ".nef", ".nii", ".orf", ".pcx", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf"}
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_MAGIC = {b"ftyphei": 4, b"ftypmif1": 4, b"ftyphev": 4, b"\xff\x0a": 0, b"JXL ": 4, b"DICM": 128, b"8BPS": 0}
_PHOTOMETRIC = 262
"""TIFF's tag that says whether 0 is black (1) or white (0), which Pillow heeds in images of at most 8 bits."""
MOST_PIXELS = 89_478_485
FULL_SCALES = {
    "whole": [2**bits - 1 for bits in (8, 10, 12, 14, 16, 20, 24, 32)],
    "float": [1, 2**8 - 1, 2**16 - 1],
}
DARKEST = 16
"""An image whose largest value is less than this part of the full scale would be black to the eye and to a model."""

# Pillow's own limit comes before JPEG's reduction and cannot be caught by threads; ours, below, comes after it.
Image.MAX_IMAGE_PIXELS = None


def kind_of(path):
    """IMAGE, UNREAD (an image by its suffix or content, which is not read here) or OTHER."""
    suffix = path.suffix.lower()
    if path.is_symlink() and not path.exists():  # damaged, if it was an image
        return IMAGE if suffix in SUFFIXES or not suffix else UNREAD if suffix in _UNREAD else OTHER
    if not path.is_file():  # opening a pipe would wait for ever
        return OTHER
    if suffix in SUFFIXES:
        return IMAGE
    if suffix in _UNREAD:
        return UNREAD
    with path.open("rb") as file:
        start = file.read(132)
    if any(start[at:].startswith(magic) for magic, at in _MAGIC.items()):
        return UNREAD
    try:
        with Image.open(path, formats=_formats()):
            return IMAGE
    except Image.UnidentifiedImageError:
        return OTHER
    except Exception:  # it is one, and damaged
        return IMAGE


def read_image(path, short_side=None, full_scales=None, warn=None):
    """An image file as uint8 (H, W, 3), its shorter side at most `short_side` pixels.

    full_scales: {"whole": …, "float": …} for the kinds of values in `FULL_SCALES`; by default those that this image
    would have alone. warn: is called with a text for metadata that cannot be read. Raises as Pillow does, and
    ValueError for what is refused.
    """
    warn = warn or (lambda text: None)
    if path.is_symlink() and not path.exists():
        raise ValueError(f"a link to {path.readlink()}, which does not exist")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    try:
        return _read(path, short_side, full_scales, warn)
    except Refused:
        raise
    except Exception as error:
        return _read_without_metadata(path, error, short_side, full_scales, warn)


class Refused(ValueError):
    """Pixels that were read, and cannot be used."""


def deep_values(path):
    """(kind of its values in FULL_SCALES, largest value) of a grey image of more than 8 bits, else None."""
    if path.suffix.lower() in (".jpg", ".jpeg"):  # at most 8 bits
        return None
    try:
        with Image.open(path, formats=_formats()) as image:
            if not (kind := _deep(image.mode)) or image.width * image.height > MOST_PIXELS:
                return None
            return kind, float(_valid(np.asarray(image)).max())
    except Exception:  # reading it says what is wrong
        return None


def full_scale(kind, most):
    """The full scale for the largest value of some images; Refused if there is none."""
    scales = [scale for scale in FULL_SCALES[kind] if scale >= most]
    if not scales or 0 < most * DARKEST < scales[0]:
        known = ", ".join(map(str, FULL_SCALES[kind]))
        raise Refused(
            f"values of at most {most:g} fit none of the full scales {known}, of which they must use a {DARKEST}th; "
            "convert the images to 8 bits"
        )
    return scales[0]


def _read(file, short_side, full_scales, warn):
    with Image.open(file, formats=_formats()) as image:
        if short_side:  # lets JPEG decode at a fraction of its size, at least twice what is kept
            image.draft(None, [2 * short_side * side // min(image.size) for side in image.size])
        if image.width * image.height > MOST_PIXELS:
            raise Refused(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
        if _deep(image.mode) and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
            raise Refused("its values of more than 8 bits count from white (TIFF's WhiteIsZero); convert it to 8 bits")
        stored = str(image.tile)
        image.load()
        turned = image
        try:
            turned = ImageOps.exif_transpose(image)
        except Exception as error:
            warn(f"its orientation cannot be read ({str(error) or type(error).__name__})")
        image = _to_rgb(turned, stored, full_scales)
    scale = short_side / min(image.size) if short_side else 1
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def _read_without_metadata(path, error, *arguments):
    warn = arguments[-1]
    data = _without_metadata(path.read_bytes())
    if data is None:
        raise error
    try:
        pixels = _read(io.BytesIO(data), *arguments)
    except Exception:
        raise error from None
    warn(f"its metadata cannot be read ({str(error).strip() or type(error).__name__})")
    return pixels


def _without_metadata(data):
    """A PNG or JPEG file without what its pixels do not need; None for other files, and for broken ones."""
    parts = []
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            at = 8
            while at < len(data):
                end = at + 12 + struct.unpack_from(">I", data, at)[0]
                if data[at + 4 : at + 5].isupper() or data[at + 4 : at + 8] == b"tRNS":
                    parts.append(data[at:end])
                at = end
            return data[:8] + b"".join(parts)
        if data.startswith(b"\xff\xd8"):
            at = 2
            while data[at + 1] != 0xDA:  # the pixels
                end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
                if data[at] != 0xFF:
                    return None
                if data[at + 1] not in (*range(0xE1, 0xEE), 0xEF, 0xFE):  # JFIF and Adobe say what the colours are
                    parts.append(data[at:end])
                at = end
            return data[:2] + b"".join(parts) + data[at:]
    except (IndexError, struct.error):
        pass
    return None


def _to_rgb(image, stored, full_scales):
    """stored: how the pixels lie in the file, as a text that has 16 for colours of 16 bits."""
    if kind := _deep(image.mode):
        values = _valid(np.asarray(image))
        scale = (full_scales or {}).get(kind) or full_scale(kind, float(values.max()))
        image = Image.fromarray(_to_bytes(values, kind, scale))
    elif ";16" in stored and max(high for _, high in _extrema(image)) < 256 // DARKEST:  # Pillow keeps the upper 8
        raise Refused("its 16-bit colours use less than a 16th of their range; convert it to 8 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _extrema(image):
    """(least, largest) of each colour, without transparency."""
    extrema = image.getextrema()
    extrema = extrema if isinstance(extrema[0], tuple) else [extrema]
    return [pair for pair, band in zip(extrema, image.getbands(), strict=True) if band != "A"]


def _deep(mode):
    return "float" if mode == "F" else "whole" if mode == "I" or mode.startswith("I;16") else None


def _valid(values):
    if not np.isfinite(values).all() or values.min() < 0:
        raise Refused("it has values below zero or that are no numbers; convert it to 8 bits")
    return values


def _to_bytes(values, kind, scale):
    values = np.minimum(values, scale)
    if kind == "whole":
        return (values.astype(np.int64) >> (int(scale).bit_length() - 8)).astype(np.uint8)
    return np.rint(values.astype(np.float64) * (255 / scale)).astype(np.uint8)


@functools.cache
def _formats():
    """Those of `_FORMATS` that this Pillow was built for."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
