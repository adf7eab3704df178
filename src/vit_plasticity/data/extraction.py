"""Unpacking archives without trusting them."""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath

from vit_plasticity.runtime.cli import InputError

RATIO = 10  # an archive of images unpacks to about its own size
ANYWAY = 64 << 20  # bytes that even the smallest archive may unpack to
MOST_FILES = 2_000_000
_CHUNK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
_CLASHES = (FileExistsError, IsADirectoryError, NotADirectoryError)


def extract(archive, folder):
    """Unpack the tar (compressed or not) or zip file `archive` into `folder`; owners, modes and times are not restored.

    Raises InputError for a damaged archive, and before it writes anything of the member in question for a name that
    is absolute, climbs with ``..`` or is no file name here; for links of any kind, devices and pipes; for a file in the
    place of a folder; and for a bomb: more than MOST_FILES files, or more bytes than RATIO times the archive's own.
    """
    budget = max(ANYWAY, RATIO * archive.stat().st_size)
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    try:
        for number, (name, kind, open_member) in enumerate(members(archive)):
            target = folder / _safe(archive, name)
            if kind not in ("file", "folder"):
                raise InputError(f"{archive} is refused: its member {name!r} is {kind}")
            if number == MOST_FILES:
                raise InputError(f"{archive} is refused: it holds more than {MOST_FILES:,} files")
            if kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as data, target.open("wb") as file:
                budget = _copy(archive, data, file, budget)
    except _DAMAGE as error:
        raise InputError(f"{archive} is not a whole tar or zip file ({error}); remove it to fetch it again") from error
    except _CLASHES as error:
        raise InputError(f"{archive} is refused: {error.filename} is a file and a folder in it") from error


def _tar_members(archive):
    with tarfile.open(archive) as tar:
        for member in tar:
            kind = "file" if member.isreg() else "folder" if member.isdir() else "a link, a device or a pipe"
            yield member.name, kind, lambda member=member: tar.extractfile(member)


def _zip_members(archive):
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)
            kind = "folder" if member.is_dir() else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link, a device or a pipe"
            elif member.flag_bits & 1:
                kind = "encrypted"
            yield member.filename, kind, lambda member=member: zipped.open(member)


def _safe(archive, name):
    """The name as a relative path below the target folder, or InputError."""
    path = PurePosixPath(name)
    odd = "\0" in name or "\\" in name or any(len(os.fsencode(part)) > 255 for part in path.parts)
    if path.is_absolute() or ".." in path.parts or odd or ":" in name[:2]:
        raise InputError(f"{archive} is refused: its member {name!r} would leave the folder, or is no file name")
    return path


def _copy(archive, data, file, budget):
    """Copy a member, and return what is left of the bytes that the archive may unpack to."""
    while chunk := data.read(_CHUNK):
        budget -= len(chunk)
        if budget < 0:
            raise InputError(f"{archive} is refused: it unpacks to more than {RATIO} times its size, as a bomb does")
        file.write(chunk)
    return budget
