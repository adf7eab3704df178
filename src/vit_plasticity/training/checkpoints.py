"""Checkpoints: files of tensors that are whole, verified and atomic, written and read one tensor at a time.

A checkpoint is a safetensors file whose metadata hold the key of what it belongs to, a JSON state, and the SHA-256 of
the file (with zeros in place of that digest). One generation is kept back, and a damaged file is refused with a
message, never used. Neither writing nor reading holds more than one tensor beside those of the caller.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from vit_plasticity.runtime.files import atomic

SHARE = 20  # a checkpoint is written no oftener than after so many times what the last one took: 5 % of the time
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_NO_DIGEST = "0" * 64


def is_due(since_s, interval_s, took_s):
    """Whether it is time for a checkpoint, `since_s` after the last one, which took `took_s`; see `Schedule`."""
    return since_s >= interval_s and (not interval_s or since_s >= SHARE * took_s)


class Interrupted(Exception):
    """The process was asked to stop, and its work is safe in a checkpoint."""


def spec_key(specification):
    """The name of a specification: SHA-256 of its JSON text with sorted keys, shortened to 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()[:32]


class Schedule:
    """Decides between steps when to write a checkpoint: not too often, and at once when asked to stop.

    interval_s: at least so many seconds lie between two checkpoints, and SHARE times what the last one took; 0 writes
    one at every opportunity. From its making on, SIGTERM and SIGINT only set `stop`, the number of the signal.
    """

    def __init__(self, interval_s):
        self.interval_s, self.last, self.took_s, self.stop = interval_s, time.monotonic(), 0.0, None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number, frame):
        self.stop = number

    def __call__(self, run, checkpoint):
        """Write a checkpoint of the run where it is time. Raises Interrupted when asked to stop."""
        started = time.monotonic()
        if self.stop or is_due(started - self.last, self.interval_s, self.took_s):
            checkpoint.save(run.tensors(), run.state())
            self.last = time.monotonic()
            self.took_s = self.last - started
        if self.stop:
            raise Interrupted(f"{signal.Signals(self.stop).name} at step {run.step} of lr {run.lr:g}")


class Checkpoint:
    """One checkpoint file, `path`, and where `previous` is given the generation before it."""

    def __init__(self, path, key, previous=None):
        self.path, self.key, self.previous = Path(path), key, previous and Path(previous)

    def save(self, tensors, state):
        """Write tensors (a dict) and a JSON-able state; the file that was there becomes the previous generation."""
        with atomic(self.path) as temporary:
            write(temporary, tensors, self.key, state)
            if self.previous and self.path.exists():
                self.path.replace(self.previous)

    def load(self):
        """(tensors, state) of the newest file that is whole and ours, or None where there is none.

        What was refused is removed then. tensors: pairs of name and tensor, which are read as they are asked for.
        """
        for path in filter(None, (self.path, self.previous)):
            if path.exists():
                try:
                    return read(path, self.key)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    older = " or an older one" if path == self.path and self.previous else ""
                    print(
                        f"checkpoint {path} refused ({error}); going on from the start{older}",
                        file=sys.stderr,
                        flush=True,
                    )
        self.remove()
        return None

    def remove(self):
        """Remove all generations."""
        for path in filter(None, (self.path, self.previous)):
            path.unlink(missing_ok=True)


def write(path, tensors, key, state):
    """Write a safetensors file of a dict of tensors, with its key, state and SHA-256 in its metadata."""
    header, end = {"__metadata__": {"sha256": _NO_DIGEST, "key": key, "state": json.dumps(state)}}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def add(data):
            file.write(data)
            digest.update(data)

        add(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.numel():
                add(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
        file.seek(8 + text.index(_NO_DIGEST.encode()))
        file.write(digest.hexdigest().encode())


def read(path, key=None):
    """(tensors, state) of a file that `write` made, verified; see `Checkpoint.load`.

    Raises AttributeError, KeyError, TypeError or ValueError for any other file, a damaged one, or one of another key
    (None: any).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("not a checkpoint, or cut short")
        text = file.read(length)
        header = json.loads(text)
        metadata = header.pop("__metadata__")
        found = metadata["sha256"].encode()
        digest = hashlib.sha256(length.to_bytes(8, "little") + text.replace(found, _NO_DIGEST.encode(), 1))
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest().encode() != found:
        raise ValueError("its checksum does not match: it is damaged")
    if key not in (None, metadata["key"]):
        raise ValueError(f"it belongs to {metadata['key']}, not to {key}")
    return _tensors(path, 8 + length, header), json.loads(metadata["state"])


def _tensors(path, start, header):
    with path.open("rb") as file:
        for name, entry in header.items():
            dtype, (first, last) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            tensor = torch.empty(entry["shape"], dtype=dtype)
            if last > first:
                file.seek(start + first)
                file.readinto(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
            yield name, tensor


def link(source, target):
    """Give a file a second name, or where that is not possible a copy, atomically."""
    with atomic(target) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:  # a file system may have no hard links, and there are none from one to another
            shutil.copyfile(source, temporary)
        os.utime(temporary)
