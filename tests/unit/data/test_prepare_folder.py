"""Folders of images: how they are split, what is refused, and what becomes of unusual images."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from fixtures_archives import image_bytes, pictures, recognisable, sizes
from PIL import Image

from vit_plasticity import fetch
from vit_plasticity.data.downloads import Source
from vit_plasticity.data.formats import folder as prepare_folder
from vit_plasticity.data.registry import lookup, open_dataset
from vit_plasticity.runtime.cli import InputError


def fill(folder, classes=("cat", "dog"), n=6, size=20, start=0):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures([label] * n, size, seed=label + start)):
            (folder / name / f"{number}.png").write_bytes(image_bytes(picture, "PNG"))
    return folder


def prepared(folder, tmp_path, **options):
    entry = lookup("mine", {"mine": {"imagefolder": str(folder), **options}})
    fetch.fetch_dataset(entry, tmp_path / "out", Source(tmp_path / "downloads"))
    return open_dataset(tmp_path / "out")


def test_a_folder_of_class_folders_is_split(tmp_path):
    dataset = prepared(fill(tmp_path / "in", n=10), tmp_path)
    assert sizes(dataset) == {"train": 12, "val": 4, "test": 4}
    assert dataset.classes == ("cat", "dog") and recognisable(dataset)


def test_train_and_test_folders_are_kept_and_val_is_drawn(tmp_path):
    fill(tmp_path / "in" / "train", n=10)
    fill(tmp_path / "in" / "test", n=3, start=5)
    assert sizes(prepared(tmp_path / "in", tmp_path)) == {"train": 16, "val": 4, "test": 6}
    fill(tmp_path / "in" / "val", n=1, start=9)
    assert sizes(prepared(tmp_path / "in", tmp_path)) == {"train": 20, "val": 2, "test": 6}


def test_a_class_may_be_called_train(tmp_path):
    assert prepared(fill(tmp_path / "in", ("bus", "train")), tmp_path).classes == ("bus", "train")


def one_class(folder):
    shutil.rmtree(folder / "dog")


def no_class(folder):
    one_class(folder)
    shutil.rmtree(folder / "cat")


def empty_class(folder):
    (folder / "horse").mkdir()
    (folder / "horse" / "notes.txt").write_text("none yet")


def too_few(folder):
    for number in range(2, 6):
        (folder / "dog" / f"{number}.png").unlink()


def no_test(folder):
    fill(folder / "train")


def missing_in_val(folder):
    for split in ("train", "val", "test"):
        fill(folder / split)
    shutil.rmtree(folder / "val" / "dog")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (one_class, r"found 1 class folder \(cat\); a classifier needs at least two"),
        (no_class, "found 0 class folder"),
        (empty_class, "no image of class horse"),
        (too_few, "too few images of class dog"),
        (no_test, "needs both train/ and test/"),
        (missing_in_val, "val: no image of class dog"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused(tmp_path, harm, message):
    harm(fill(tmp_path / "in"))
    with pytest.raises(InputError, match=message):
        prepared(tmp_path / "in", tmp_path)
    assert not (tmp_path / "out").exists()


def test_unusable_images_are_named_together(tmp_path, monkeypatch):
    folder = fill(tmp_path / "in", n=30)
    good = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "1.png").write_bytes(b"")
    (folder / "cat" / "2.png").write_bytes(good[:200])
    (folder / "cat" / "3.png").write_bytes(b"no image at all")
    (folder / "dog" / "1.jpg").write_bytes(image_bytes(pictures([0], 64)[0])[:900])
    with pytest.raises(InputError) as info:
        prepared(folder, tmp_path)
    text = str(info.value)
    assert "4 of 61 images cannot be used" in text
    for name in ("cat/1.png: the file is empty", "cat/2.png", "cat/3.png", "dog/1.jpg"):
        assert name in text
    for number in range(4, 20):
        (folder / "cat" / f"{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"20 of 61 images(?s:.*)and 10 more"):
        prepared(folder, tmp_path)


def claiming(side):
    """A PNG file of one pixel whose header claims to be `side` pixels wide and high."""
    data = bytearray(image_bytes(np.zeros((1, 1, 3), np.uint8), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    folder = fill(tmp_path / "in")
    for side in (10_000, 20_000):  # where Pillow warns, and where it refuses by itself
        (folder / "cat" / f"{side}.png").write_bytes(claiming(side))
    with pytest.raises(InputError, match=r"2 of 14(?s:.*)10000 x 10000 pixels are more than 89,478,485"):
        prepared(folder, tmp_path)


def test_files_that_are_no_images_are_counted(tmp_path, capsys):
    folder = fill(tmp_path / "in")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    assert sum(sizes(prepared(folder, tmp_path)).values()) == 12
    assert "left out 1 files that are no images" in capsys.readouterr().err


def image_of(tmp_path, image, kind, name="x", short_side=None, **options):
    path = tmp_path / f"{name}.{kind.lower()}"
    image.save(path, kind, **options)
    return prepare_folder.read_image(path, short_side)


RED = (200, 30, 40)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGB", (9, 6), RED), "PNG"),
        (Image.new("RGB", (9, 6), RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        (Image.new("RGBA", (9, 6), (*RED, 255)), "PNG"),
        (Image.new("RGB", (9, 6), RED).convert("CMYK"), "JPEG"),
        (Image.new("RGB", (9, 6), RED).convert("CMYK"), "TIFF"),
        (Image.new("RGB", (9, 6), RED), "WEBP"),
    ],
)
def test_colour_modes_become_rgb(tmp_path, image, kind):
    pixels = image_of(tmp_path, image, kind)
    assert pixels.shape == (6, 9, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RED).max() < 8


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    expected = [[0, 0, 1], [128, 255, 255]]
    for kind in ("PNG", "TIFF"):
        assert image_of(tmp_path, Image.fromarray(values), kind)[..., 1].tolist() == expected
    assert image_of(tmp_path, Image.fromarray(values.astype(np.int32)), "TIFF")[..., 2].tolist() == expected


def test_transparency_lies_over_white(tmp_path):
    half = image_of(tmp_path, Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")
    assert np.abs(half.astype(int) - 127).max() <= 1
    grey = image_of(tmp_path, Image.new("LA", (4, 4), (0, 0)), "PNG", "grey")
    assert (grey == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert (image_of(tmp_path, palette, "PNG", "palette", transparency=0) == 255).all()


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in (RED, (0, 0, 0), (255, 255, 255))]
    pixels = image_of(tmp_path, frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(pixels.astype(int) - RED).max() < 8


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (30, 10), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert image_of(tmp_path, image, "JPEG", exif=exif).shape == (30, 10, 3)
    assert image_of(tmp_path, image, "JPEG", "small", short_side=5, exif=exif).shape == (15, 5, 3)


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (256, 341)), ((100, 80), (80, 100)), ((2000, 2), (2, 2000))]
)
def test_only_larger_images_are_reduced(tmp_path, size, expected):
    assert image_of(tmp_path, Image.new("RGB", size, RED), "JPEG", short_side=256).shape[:2] == expected


def test_a_large_jpeg_is_reduced_as_if_decoded_whole(tmp_path):
    smooth = Image.fromarray(pictures([0], 12)[0]).resize((1600, 1200), Image.Resampling.BICUBIC)
    fast = image_of(tmp_path, smooth, "JPEG", short_side=100, quality=95)
    whole = image_of(tmp_path, smooth, "PNG", short_side=100)
    assert fast.shape == whole.shape == (100, 133, 3)
    assert np.abs(fast.astype(int) - whole).mean() < 2
