"""Archives: what is unpacked, and what is refused before it is."""

import contextlib
import io
import tarfile
import zipfile

import pytest
from fixtures_archives import tar
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_plasticity.data import extraction as archives
from vit_plasticity.data.extraction import extract
from vit_plasticity.runtime.cli import InputError

MEMBERS = {"a/one.txt": b"1", "a/b/two.txt": b"22", "three.txt": b""}


def unpacked(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "inner" / "target"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_a_tar_file_is_unpacked(tmp_path, target, mode):
    extract(tar(tmp_path / "x.bin", MEMBERS, mode), target)
    assert unpacked(target) == MEMBERS


def test_a_zip_file_is_unpacked(tmp_path, target):
    with zipfile.ZipFile(zipped(tmp_path / "x.zip", MEMBERS), "a") as archive:
        archive.mkdir("empty")
    extract(tmp_path / "x.zip", target)
    assert unpacked(target) == MEMBERS
    assert (target / "empty").is_dir()


@pytest.mark.parametrize("write", [tar, zipped], ids=["tar", "zip"])
@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "a/..", "..", "a\\..\\out", "C:/out", "x" * 300, "~/../../out"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, target, write, name):
    if write is zipped:
        archive = zipped(tmp_path / "x", {"first": b"1"})
        with zipfile.ZipFile(archive, "a") as file:
            info = zipfile.ZipInfo("x")
            info.filename = name
            file.writestr(info, b"evil")
    else:
        archive = tar(tmp_path / "x", {"first": b"1", name: b"evil"})
    with pytest.raises(InputError, match="is refused"):
        extract(archive, target)
    assert unpacked(tmp_path / "inner").keys() <= {"target/first"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../../out", "first"])
def test_links_devices_and_pipes_are_refused(tmp_path, target, kind, link):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("second")
        info.type, info.linkname = kind, link
        archive.addfile(info)
    with pytest.raises(InputError, match="a link, a device or a pipe"):
        extract(tmp_path / "x.tar", target)
    assert not any(target.iterdir())


def test_a_link_in_a_zip_file_is_refused(tmp_path, target):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("second")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="a link, a device or a pipe"):
        extract(tmp_path / "x.zip", target)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, target):
    with pytest.raises(InputError, match="a file and a folder"):
        extract(tar(tmp_path / "x.tar", {"a": b"1", "a/b": b"2"}), target)


@pytest.mark.parametrize("write", [tar, zipped], ids=["tar", "zip"])
def test_a_bomb_is_refused_before_it_unpacks(tmp_path, target, write, monkeypatch):
    monkeypatch.setattr(archives, "ANYWAY", 1 << 20)
    archive = write(tmp_path / "x", {f"{n}.txt": bytes(1 << 19) for n in range(4)})
    with pytest.raises(InputError, match="as a bomb does"):
        extract(archive, target)
    assert sum(map(len, unpacked(target).values())) <= 1 << 20


def test_a_lie_about_the_size_does_not_help_a_bomb(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archives, "ANYWAY", 1000)
    path = zipped(tmp_path / "x.zip", {"a": bytes(100_000)})
    data = bytearray(path.read_bytes())
    for position in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        data[position : position + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError):
        extract(path, target)
    assert sum(map(len, unpacked(target).values())) <= 1000


def test_too_many_files_are_refused(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    with pytest.raises(InputError, match="more than 2 files"):
        extract(tar(tmp_path / "x", MEMBERS), target)


def test_an_encrypted_member_is_refused(tmp_path, target):
    path = zipped(tmp_path / "x.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        extract(path, target)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["w:", "w:gz", "w:bz2", "w:xz", "zip"]))
def test_a_damaged_archive_is_an_input_error_or_harmless(tmp_path_factory, data, kind):
    folder = tmp_path_factory.mktemp("damaged")
    path = zipped(folder / "x", MEMBERS) if kind == "zip" else tar(folder / "x", MEMBERS, kind)
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    content = content[:cut]
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    (folder / "target").mkdir()
    with contextlib.suppress(InputError):
        extract(path, folder / "target")
    assert {p.name for p in folder.iterdir()} == {"x", "target"}


def test_an_odd_name_is_refused_or_kept(tmp_path, target):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("bad\udcff"))
        info = tarfile.TarInfo("x")
        info.pax_headers = {"path": "a\0b"}
        archive.addfile(info)
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("bad\udcff"))
    with pytest.raises(InputError, match="is refused"):
        extract(tmp_path / "x.tar", target)
    assert unpacked(target) == {}
    extract(tmp_path / "y.tar", target)
    assert unpacked(target) == {"bad\udcff": b""}


@pytest.mark.parametrize("write", [tar, zipped], ids=["tar", "zip"])
def test_a_refusal_of_the_last_member_leaves_nothing(tmp_path, target, write):
    write(tmp_path / "x", {"a/1": b"1", "b/2": b"2", "../3": b"3"})
    with pytest.raises(InputError, match="would leave the folder"):
        extract(tmp_path / "x", target)
    assert not unpacked(target)


def test_what_is_no_archive_is_refused(tmp_path, target):
    (tmp_path / "x.tar").write_bytes(b"<html>no</html>" * 100)
    with pytest.raises(InputError, match="not a whole tar or zip file"):
        extract(tmp_path / "x.tar", target)


def test_modes_are_not_restored(tmp_path, target):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("run")
        info.mode, info.size = 0o4777, 1
        archive.addfile(info, io.BytesIO(b"1"))
    extract(tmp_path / "x.tar", target)
    assert not (target / "run").stat().st_mode & 0o4111
