"""Downloads: a file of the registry from the net, a mirror or the disk, verified before anybody reads it.

A download goes on where it was cut off, also in a later process, and appears in the downloads folder only when its
checksum is right. A file that is there already is verified again at each use, and never replaced. Where the table has
no checksum, that of the first download is kept in ``<file>.sha256``, in the format of sha256sum, and holds from then
on; put that file there beforehand to pin what you trust.
"""

import errno
import hashlib
import os
import shutil
import sys
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from vit_plasticity.runtime import locks
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.files import atomic

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
RETRY = urllib3.Retry(5, backoff_factor=1, status_forcelist={408, 416, 425, 429, 500, 502, 503, 504})
"""How often to try again, after 0, 2, 4, 8 and 16 s or what the server asks; a try that brought bytes starts over."""


@dataclass(frozen=True)
class Source:
    """Where files come from.

    folder: where downloads are kept.
    offline: never use the net; what is not there already is an error.
    mirror: a folder, or the URL of one, that holds all files by their names; nothing else is then asked.
    """

    folder: Path
    offline: bool = False
    mirror: str | None = None

    def get(self, file):
        """The path of a RemoteFile, verified. Raises InputError where it cannot be had or is not what was published."""
        if self.mirror and "://" not in self.mirror:
            path = Path(self.mirror, file.name)
            if not path.is_file():
                raise InputError(f"the mirror {self.mirror} has no {file.name}; {_how_to_get(file, path)}")
            verify(path, file, self.folder)
            return path
        path = self.folder / file.name
        with locks.hold(self.folder / f".{file.name}.lock", f"fetches {file.name}"):
            if not path.exists():
                self._download(file, path)
            else:
                verify(path, file, self.folder)
        return path

    def _download(self, file, path):
        url = f"{self.mirror.rstrip('/')}/{urllib.parse.quote(file.name)}" if self.mirror else file.url
        if self.offline or not url:
            why = "--offline is set" if self.offline else "it cannot be downloaded freely"
            raise InputError(f"{file.name} is not there, and {why}; {_how_to_get(file, path)}")
        part = path.with_name(f".{path.name}.part")
        resumed = part.exists()
        transfer(url, part, file.bytes, resume=bool(file.checksum))
        try:
            verify(part, file, self.folder)
        except InputError:
            part.unlink()
            if not resumed:
                raise
            transfer(url, part, file.bytes)
            verify(part, file, self.folder)
        with part.open("rb") as data:
            os.fsync(data.fileno())
        part.replace(path)


def verify(path, file, folder):
    """Raise InputError unless the file at `path` has the size and the checksum of a RemoteFile.

    folder: where the checksum is kept that stands in for one that is not published.
    """
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        raise InputError(f"{path}: {size} bytes, but {file.name} has {file.bytes}. {_replace(path)}")
    expected, pin = file.checksum, folder / f"{file.name}.sha256"
    if not expected and pin.exists():
        expected = "sha256:" + pin.read_text(encoding="utf-8").split()[0]
    algorithm = expected.partition(":")[0] or "sha256"
    with path.open("rb") as data:
        found = hashlib.file_digest(data, algorithm).hexdigest()
    if not expected:
        print(f"{file.name}: no checksum is published; trusting this one from now on: {found}", file=sys.stderr)
        with atomic(pin) as temporary:
            temporary.write_text(f"{found}  {file.name}\n", encoding="utf-8")
    elif f"{algorithm}:{found}" != expected:
        raise InputError(f"{path}: {algorithm} {found}, but {file.name} has {expected}. {_replace(path)}")


def transfer(url, part, size=None, resume=True):
    """Download `url` into the file `part`, from where it ends; `size` in bytes if known. Tries again when cut off.

    resume: False where no checksum would tell whether the rest belongs to the same file; then it starts over each time.
    Raises InputError for what another try will not mend: a status such as 404, a web page, another size.
    """
    if url.startswith("file:"):
        path = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
        if not path.is_file():
            raise InputError(f"{url}: there is no such file; is the address right? See --mirror")
        return shutil.copyfile(path, part)
    retry = RETRY
    while True:
        if not resume:
            part.unlink(missing_ok=True)
        before = part.stat().st_size if part.exists() else 0
        try:
            return _transfer_once(url, part, before, size)
        except (ValueError, requests.TooManyRedirects) as error:  # what requests refuses as an address
            raise InputError(f"{url}: {error}; is the address right? See --mirror") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            why = getattr((*error.args, None)[0], "reason", error)  # what requests wraps is for programs
            retry = RETRY if part.exists() and part.stat().st_size > before else retry
            if not retry.total:
                raise InputError(
                    f"{url}: {why}; gave up after {len(retry.history) + 1} tries. Run the same command again, and it "
                    "goes on from there; or get the file in another way and use --mirror"
                ) from error
            retry = retry.increment("GET", url, error=error)
            pause = retry.get_backoff_time()
            with suppress(AttributeError, urllib3.exceptions.InvalidHeader):  # no answer, or one that asks for nonsense
                pause = retry.get_retry_after(error.response) or pause
            print(f"{url}: {why}; trying again in {round(pause, 2):g} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _transfer_once(url, part, start, size):
    if start == size:
        return
    asked = f"bytes={start}-" if start else None
    headers = {"User-Agent": "vit-plasticity", "Accept-Encoding": "identity", "Connection": "close", "Range": asked}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the part is as long as the file, or longer: start over
            part.unlink(missing_ok=True)
        _receive(response.raw, part, *_check_response(url, response, start, size))


def _check_response(url, response, start, size):
    """Where the body starts in the file and the size of the whole (None if not told); refuses what is not the file."""
    status = f"HTTP status {response.status_code} {response.reason}"
    if RETRY.is_retry("GET", response.status_code, "Retry-After" in response.headers):
        raise requests.HTTPError(status, response=response)
    if not response.ok:
        raise InputError(f"{url}: {status}; is the address right? See --mirror")
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml+xml")):
        raise InputError(f"{url}: the server sent a web page instead of the file; see --mirror")
    if response.status_code != 206:
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise InputError(f"{url}: asked for byte {start} on, got {response.headers.get('Content-Range')!r}")
    length = response.raw.length_remaining
    total = size if length is None else start + length
    if size not in (None, total):
        raise InputError(
            f"{url}: the server offers {total} bytes, but the file has {size}; was it replaced? See --mirror"
        )
    return start, total


def _receive(body, part, start, total):
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        text = f"{total - start:,} bytes to download, {free:,} bytes free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text}", str(part.parent))
    body.enforce_content_length = False  # a cut is told below, also where the server gave no length
    progress = _Progress(part.name.removeprefix(".").removesuffix(".part"), total)
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        done = start
        while chunk := body.read1(CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done)
    progress(done, end=True)
    if total is not None and done < total:
        raise requests.ConnectionError(f"cut off at {done:,} of {total:,} bytes")


class _Progress:
    """Progress on stderr: a line that moves on a terminal, else a plain line every ten seconds and at the end."""

    def __init__(self, name, total):
        self._name, self._total, self._terminal = name, total, sys.stderr.isatty()
        self._next = time.monotonic() + (0 if self._terminal else 10)

    def __call__(self, done, end=False):
        if not end and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (0.2 if self._terminal else 10)
        share = f" ({done / self._total:.0%})" if self._total else ""
        text = f"{self._name}: {done / 1e6:,.1f} MB{share}"
        before, after = ("\r", "\n" if end else "") if self._terminal else ("", "\n")
        print(f"{before}{text}", end=after, file=sys.stderr, flush=True)


def _how_to_get(file, path):
    origin = f"get it from {file.url}" if file.url else file.note
    return f"{origin} and put it at {path}"


def _replace(path):
    return "Remove it to fetch it again" if not path.name.endswith(".part") else "Is the address right? See --mirror"
