"""Folders of images: how they are split, what is refused, and what becomes of unusual images."""

import json
import os
import shutil
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from fixtures_archives import image_bytes, pictures, recognisable, sizes
from PIL import Image

from vit_plasticity import fetch
from vit_plasticity.data import images
from vit_plasticity.data.downloads import Source
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
    assert "hidden or made by a system: 3" in capsys.readouterr().err


def image_of(tmp_path, image, kind, name="x", short_side=None, **options):
    path = tmp_path / f"{name}.{kind.lower()}"
    image.save(path, kind, **options)
    return images.read_image(path, short_side)


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


def record(tmp_path):
    return json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))


# Splits


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", None, "TEST"),
        ("training_set", None, "test_set"),
        ("trn", "Dev", "tst"),
        ("train2017", "val2017", "test2017"),
        ("01_train", "02_Validation", "03_testing"),
        ("flowers-train", "flowers-valid", "flowers-test"),
        ("train_small", "eval_small", "test_small"),
        ("Training Images", "Validation Images", "Test Images"),
    ],
)
def test_splits_are_understood_under_their_many_names(tmp_path, train, val, test):
    for n, (name, start) in enumerate(((train, 0), (val, 3), (test, 6))):
        if name:
            fill(tmp_path / "in" / name, n=10 - n, start=start)
    dataset = prepared(tmp_path / "in", tmp_path)
    expected = {"train": 20, "val": 18, "test": 16} if val else {"train": 16, "val": 4, "test": 16}
    assert sizes(dataset) == expected and dataset.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/a", "train/b", "test/a", "test/b", "pred/x"],
            r"pred is neither a split, as train, test are, nor",
        ),
        (["Train/a", "Train/b", "training/a", "training/b", "test/a"], "Train, training stand for the same split"),
        (["training", "Testing"], "Testing, training must be splits by their names, but hold no class folders"),
        (["train/a", "train/b", "validation/a", "validation/b"], "needs both train/ and test/"),
        (["img/train/a", "img/train/b", "img/test/a", "masks/train/a"], "img holds test, train, which are splits"),
        (["train/a", "train/b", "test"], "test must be splits by their names"),
    ],
)
def test_what_is_neither_a_split_nor_a_class_is_refused_by_name(tmp_path, folders, message):
    for folder in folders:
        fill(tmp_path / "in" / Path(folder).parent, [Path(folder).name])
    with pytest.raises(InputError, match=message):
        prepared(tmp_path / "in", tmp_path)


@pytest.mark.parametrize("name", ["trainer", "steam train", "test-tube", "valley", "contest", "evaluations"])
def test_classes_may_resemble_splits(tmp_path, name):
    assert prepared(fill(tmp_path / "in", ("bus", name)), tmp_path).classes == ("bus", name)


# What is left out


def test_hidden_and_system_folders_are_left_out_at_any_depth_and_counted(tmp_path, capfd):
    folder = fill(tmp_path / "in", n=6)
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "deep/.thumbnails", "deep/System Volume Information"):
        fill(folder / "cat" / Path(name).parent, [Path(name).name])
    fill(folder, [".git", "$RECYCLE.BIN"])
    for name in ("._0.png", "desktop.ini", "cat/.hidden.jpg", "dog/Thumbs.db"):
        (folder / name).write_bytes(b"x")
    assert sum(sizes(prepared(folder, tmp_path)).values()) == 12
    assert record(tmp_path)["left_out"] == {"hidden or made by a system": 11}
    assert "note: dataset mine: left out of" in capfd.readouterr().err


def test_images_are_known_by_their_content_and_what_is_left_out_is_counted_by_kind(tmp_path):
    folder = fill(tmp_path / "in", n=20)
    (folder / "cat" / "0.png").rename(folder / "cat" / "0")
    (folder / "cat" / "1.png").rename(folder / "cat" / "1.dat")
    (folder / "cat" / "2.jfif").write_bytes(image_bytes(pictures([0])[0]))
    Image.new("L", (20, 20), 90).save(folder / "cat" / "3.pgm")
    Image.new("RGB", (20, 20), 90).save(folder / "dog" / "3.avif")
    (folder / "dog" / "notes.txt").write_text("a note")
    (folder / "dog" / "empty").write_bytes(b"")
    (folder / "dog" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "dog" / "renamed.bin").write_bytes(b"\0\0\0\x18ftypheic")
    os.mkfifo(folder / "dog" / "pipe.png")
    assert sum(sizes(prepared(folder, tmp_path)).values()) == 43
    assert record(tmp_path)["left_out"] == {
        "image in a format that is not read (.bin)": 1,
        "image in a format that is not read (.heic)": 1,
        "no image (.png)": 1,
        "no image (.txt)": 1,
        "no image (no suffix)": 1,
    }


def test_more_than_a_twentieth_of_the_images_left_out_is_an_error_unless_the_study_says_so(tmp_path):
    folder = fill(tmp_path / "in", n=10)
    (folder / "0.png").write_bytes((folder / "cat" / "0.png").read_bytes())  # outside the class folders
    assert sum(sizes(prepared(folder, tmp_path / "a")).values()) == 20
    (folder / "dog" / "1.svg").write_text("<svg/>")
    with pytest.raises(InputError, match=r"2 of 22 files that look like images(?s:.*)may_leave_out: 0\.1 beside"):
        prepared(folder, tmp_path / "b")
    assert sum(sizes(prepared(folder, tmp_path / "b", may_leave_out=0.1)).values()) == 20


# Links


def test_linked_folders_are_followed_once(tmp_path):
    fill(tmp_path / "elsewhere", ["more"], n=4)
    folder = fill(tmp_path / "in")
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (folder / "cat" / "again").symlink_to(tmp_path / "elsewhere" / "more")
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "dog" / "self").symlink_to(".")
    (folder / "dog" / "sister").symlink_to("../cat")
    (folder / "cow").symlink_to(fill(tmp_path / "farm", ["kine"]) / "kine")
    dataset = prepared(folder, tmp_path)
    assert dataset.classes == ("cat", "cow", "dog") and sum(sizes(dataset).values()) == 12 + 4 + 6
    assert record(tmp_path)["left_out"] == {"link to a folder that was read": 4}


def test_links_that_lead_nowhere_are_damaged_images(tmp_path):
    folder = fill(tmp_path / "in")
    (folder / "cat" / "9.jpg").symlink_to("/nowhere/x.jpg")
    (folder / "cat" / "loop.png").symlink_to("loop.png")
    (folder / "dog" / "annexed").symlink_to("../.git/annex/objects/x")
    (folder / "dog" / "notes.txt").symlink_to("gone.txt")
    with pytest.raises(InputError, match="3 of 15 images cannot be used") as info:
        prepared(folder, tmp_path)
    assert "cat/9.jpg: a link to /nowhere/x.jpg, which does not exist" in str(info.value)


# Names


@pytest.mark.parametrize(
    "name", ["a b", "naïve 猫", "-rf", "x,y;z", "new\nline", "{x}", "%s", "a" * 250, "'\"", "class.jpg"]
)
def test_any_legal_class_and_file_name_works(tmp_path, name):
    folder = fill(tmp_path / "in", (name, "other"))
    (folder / name / "0.png").rename(folder / name / f"{name}")
    (folder / name / "1.png").rename(folder / name / "\udcff\udcfe.png")
    assert prepared(folder, tmp_path).classes == tuple(sorted((name, "other")))
    assert sum(sizes(open_dataset(tmp_path / "out")).values()) == 12


def test_a_class_name_that_is_no_text_is_refused_before_decoding(tmp_path):
    folder = fill(tmp_path / "in")
    (folder / "cat").rename(folder / "ch\udce2t")
    (folder / "dog" / "0.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"must be UTF-8, got b'ch\\xe2t'; rename it"):
        prepared(folder, tmp_path)


def test_accents_written_in_two_ways_are_one_class(tmp_path):
    fill(tmp_path / "in" / "train", ("caf\u00e9", "bar"))
    fill(tmp_path / "in" / "test", ("cafe\u0301", "bar"), start=4)
    assert prepared(tmp_path / "in", tmp_path).classes == ("bar", "caf\u00e9")


# Sources, and classes that are too small


def test_a_flat_folder_is_a_source(tmp_path):
    fill(tmp_path / "in", ["x"], n=7)
    (tmp_path / "in" / "x" / "readme.md").write_text("photographs")
    dataset = prepared(tmp_path / "in" / "x", tmp_path)
    assert sizes(dataset) == {"test": 7} and dataset.classes == ("unlabelled",)
    with pytest.raises(InputError, match="no train split"):
        dataset.split("train")


def test_classes_too_small_to_be_split_are_named_with_the_key_that_leaves_them_out(tmp_path):
    fill(fill(fill(tmp_path / "in", n=5), ["owl"], n=2), ["elk"], n=1)
    with pytest.raises(InputError, match=r"elk \(1\), owl \(2\); each needs 3(?s:.*)smallest_class: 3"):
        prepared(tmp_path / "in", tmp_path)
    assert prepared(tmp_path / "in", tmp_path, smallest_class=3).classes == ("cat", "dog")
    assert record(tmp_path)["left_out"] == {"image of a class below smallest_class (elk, owl)": 3}


def test_a_class_needs_two_images_where_only_val_is_drawn(tmp_path):
    fill(fill(tmp_path / "in" / "train", n=5), ["owl"], n=1)
    fill(tmp_path / "in" / "test", ("cat", "dog", "owl"), n=2, start=4)
    with pytest.raises(InputError, match=r"owl \(1\); each needs 2"):
        prepared(tmp_path / "in", tmp_path)


# Images of science, and broken metadata


def deep(folder, values, name):
    for label, kind in enumerate(("cat", "dog")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for n in range(5):
            Image.fromarray(np.roll(values, n + label)).save(folder / kind / f"{name[0]}{n}{name[1:]}")
    return folder


@pytest.mark.parametrize(
    ("values", "name", "scale"),
    [
        (np.linspace(0, 1, 400, dtype=np.float32), "f.tif", {"float": 1}),
        (np.linspace(0, 240, 400, dtype=np.float32), "f.tiff", {"float": 255}),
        (np.linspace(0, 60000, 400, dtype=np.float32), "f", {"float": 65535}),
        (np.linspace(0, 200, 400).astype(np.int32), "i.tif", {"whole": 255}),
        (np.linspace(0, 4095, 400).astype(np.uint16), "w.png", {"whole": 4095}),
        (np.linspace(0, 1000, 400).astype(np.uint16), "w.tif", {"whole": 1023}),
        (np.linspace(0, 2**24 - 1, 400).astype(np.int32), "w.tif", {"whole": 2**24 - 1}),
    ],
)
def test_values_of_more_than_eight_bits_share_one_full_scale(tmp_path, values, name, scale):
    if name == "f":
        name = "f.tif"
    folder = deep(tmp_path / "in", values.reshape(20, 20), name)
    dark = values.reshape(20, 20) * np.array(0.5).astype(values.dtype) if values.dtype == np.float32 else None
    if dark is not None:
        Image.fromarray(dark).save(folder / "cat" / "dark.tif")
    dataset = prepared(folder, tmp_path)
    (kind,) = scale
    assert record(tmp_path)["scaled"] == {kind: {"full_scale": scale[kind], "images": 10 + (dark is not None)}}
    most = sorted(
        dataset.splits[split].images[n].max() for split, part in dataset.splits.items() for n in range(len(part))
    )
    assert most[-1] >= 180 and (dark is None or most[0] == pytest.approx(most[-1] / 2, abs=1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.linspace(-1, 1, 400, dtype=np.float32), "below zero or that are no numbers"),
        (np.full(400, np.nan, np.float32), "below zero or that are no numbers"),
        (np.linspace(0, 3.5, 400, dtype=np.float32), "at most 3.5 fit none of the full scales"),
        (np.linspace(0, 1e9, 400, dtype=np.float32), "fit none of the full scales"),
        (np.linspace(0, 5, 400).astype(np.int32), "at most 5 fit none"),
        (np.linspace(-1000, 3000, 400).astype(np.int32), "below zero"),
    ],
)
def test_values_that_no_full_scale_fits_are_refused(tmp_path, values, message):
    folder = deep(tmp_path / "in", values.reshape(20, 20), "x.tif")
    with pytest.raises(InputError, match=message):
        prepared(folder, tmp_path)


@pytest.mark.parametrize(("dtype", "works"), [(np.uint16, False), (np.uint8, True)])
def test_values_that_count_from_white(tmp_path, dtype, works):
    """Pillow turns 8 bits around, and leaves 16 as they are stored: negatives of what the user sees."""
    Image.fromarray(np.full((20, 20), np.iinfo(dtype).max, dtype)).save(tmp_path / "x.tif", tiffinfo={262: 0})
    if works:
        assert images.read_image(tmp_path / "x.tif").min() == 255  # turned around in writing and in reading
    else:
        with pytest.raises(ValueError, match="count from white"):
            images.read_image(tmp_path / "x.tif")


def test_images_that_one_bright_one_would_turn_black_are_refused(tmp_path):
    folder = deep(tmp_path / "in", np.linspace(0, 900, 400).astype(np.uint16).reshape(20, 20), "x.png")
    Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(folder / "cat" / "hot.png")
    with pytest.raises(InputError, match=r"10 of 11 images of more than 8 bits(?s:.*)would be black beside .*hot\.png"):
        prepared(folder, tmp_path)


def png_chunk(kind, data, checksum=None):
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def test_colours_of_twelve_bits_in_sixteen_are_refused(tmp_path):
    for most, refused in ((4095, True), (65535, False)):
        rows = b"".join(b"\0" + np.full((8, 3), most, ">u2").tobytes() for _ in range(8))
        parts = [
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            png_chunk(b"IDAT", zlib.compress(rows)),
        ]
        path = tmp_path / f"{most}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b""))
        if refused:
            with pytest.raises(ValueError, match="16-bit colours"):
                images.read_image(path)
        else:
            assert (images.read_image(path) == 255).all()


def broken_metadata(kind):
    pixels = pictures([0], 24)[0]
    if kind == "png checksum":
        data = image_bytes(pixels, "PNG")
        return data[:33] + png_chunk(b"tEXt", b"Comment\0x", checksum=1) + data[33:]
    if kind == "png text bomb":
        data = image_bytes(pixels, "PNG")
        return data[:33] + png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 24))) + data[33:]
    if kind == "png exif":
        return image_bytes(pixels, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff")
    data = image_bytes(pixels)
    return data[:2] + b"\xff\xe1\0\x12Exif\0\0II*\0\xff\xff\xff\x7f\0\0" + data[2:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png checksum", "png text bomb", "png exif", "jpeg exif"])
def test_broken_metadata_on_good_pixels_is_no_error(tmp_path, kind):
    folder = fill(tmp_path / "in")
    (folder / "cat" / "odd.png").write_bytes(broken_metadata(kind))
    dataset = prepared(folder, tmp_path)
    assert sum(sizes(dataset).values()) == 13 and all(recognisable(dataset, split) for split in dataset.splits)
    if kind in ("png checksum", "png text bomb"):
        assert record(tmp_path)["broken_metadata"] == 1


def test_a_broken_picture_is_not_saved_by_leaving_metadata_aside(tmp_path):
    data = bytearray(image_bytes(pictures([0], 24)[0], "PNG"))
    data[60] ^= 255
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)broken|crc|truncated|decod"):
        images.read_image(tmp_path / "x.png")


def test_a_very_large_jpeg_is_read_at_a_fraction(tmp_path):
    Image.new("L", (10_000, 9_500), 77).save(tmp_path / "x.jpg")
    assert images.read_image(tmp_path / "x.jpg", 64).shape == (64, 67, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_are_decoded_on_the_threads_given(tmp_path, monkeypatch, threads):
    busy, read = set(), images.read_image

    def read_image(*arguments):
        busy.add(threading.get_ident())
        return read(*arguments)

    monkeypatch.setattr(images, "read_image", read_image)
    catalog = json.dumps({"imagefolder": str(fill(tmp_path / "in", n=30))})
    fetch.main(["dataset", "mine", "--catalog", catalog, "--output", str(tmp_path / "out"), "--threads", str(threads)])
    assert 1 <= len(busy) <= threads
