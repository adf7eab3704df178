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
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
_CLASHES = (FileExistsError, IsADirectoryError, NotADirectoryError)


def extract(archive, folder):
    """Unpack the tar (compressed or not) or zip file `archive` into `folder`.

    Raises InputError for a damaged archive, and before anything is written for a name that is absolute, climbs with
    ``..`` or is no file name here; for links of any kind, devices and pipes; and for a bomb: more than MOST_FILES
    files, or more bytes than RATIO times the archive's own. A file in the place of a folder is refused when it is met.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _check(archive, map(_of_zip, zipped.infolist()))
                zipped.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                _check(archive, map(_of_tar, tar))
                tar.extractall(folder, filter=_without_mode)
    except _DAMAGE as error:
        raise InputError(f"{archive} is not a whole tar or zip file ({error}); remove it to fetch it again") from error
    except _CLASHES as error:
        raise InputError(f"{archive} is refused: {error.filename} is a file and a folder in it") from error


def _without_mode(member, folder):
    """As the filter "data", which refuses names and links that leave the folder; modes are this process's own."""
    return tarfile.data_filter(member, folder).replace(mode=None, deep=False)


def _of_tar(member):
    """(name, what it is, size)."""
    plain = member.isreg() or member.isdir()
    return member.name, None if plain else "a link, a device or a pipe", member.size


def _of_zip(member):
    kind, mode = None, stat.S_IFMT(member.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link, a device or a pipe"
    elif member.flag_bits & 1:
        kind = "encrypted"
    return member.filename, kind, member.file_size


def _check(archive, members):
    """Raise InputError for what `extract` refuses. members: (name, what is wrong with it or None, bytes) of each."""
    budget = max(ANYWAY, RATIO * archive.stat().st_size)
    for number, (name, kind, size) in enumerate(members):
        _check_name(archive, name)
        if kind:
            raise InputError(f"{archive} is refused: its member {name!r} is {kind}")
        if number == MOST_FILES:
            raise InputError(f"{archive} is refused: it holds more than {MOST_FILES:,} files")
        budget -= size
        if budget < 0:
            raise InputError(f"{archive} is refused: it unpacks to more than {RATIO} times its size, as a bomb does")


def _check_name(archive, name):
    path = PurePosixPath(name)
    odd = "\0" in name or "\\" in name or any(len(os.fsencode(part)) > 255 for part in path.parts)
    if path.is_absolute() or ".." in path.parts or odd or ":" in name[:2]:
        raise InputError(f"{archive} is refused: its member {name!r} would leave the folder, or is no file name")
