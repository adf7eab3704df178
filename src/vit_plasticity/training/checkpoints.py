"""Checkpoints: a work folder owned by one process at a time, and files in it that are whole, verified and atomic.

A work folder is named by the hash of the full specification of a cell, so that a cell never meets the work of another
one, of another `rev`, or of other settings. A checkpoint is a safetensors payload (tensors and a JSON state) behind
its SHA-256; one generation is kept back, and a damaged file is refused with a message, never used.
"""

import hashlib
import json
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import safetensors.torch

from vit_plasticity.runtime import locks
from vit_plasticity.runtime.files import atomic

_MAGIC = b"vit-plasticity checkpoint 1\n"


def spec_key(spec):
    """The name of a specification: SHA-256 of its JSON text with sorted keys, shortened to 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def owned_folder(root, key):
    """The work folder `root/key`, created and locked for this process until the block ends; another owner is waited
    for.

    The lock (flock) goes with its process, however that ends. Whoever waited must look whether the work is still to
    be done. When the block ends well, the checkpoints go, and the folder too unless something else is left in it.
    """
    folder = Path(root, key)
    with locks.hold(folder.with_suffix(".lock"), f"owns {folder}"):
        folder.mkdir(exist_ok=True)
        yield folder
        for pattern in ("*.checkpoint", "*.previous", ".*"):
            for file in folder.glob(pattern):
                file.unlink()
        with suppress(OSError):  # not empty
            folder.rmdir()


class Checkpoint:
    """One checkpoint file and the generation before it."""

    def __init__(self, folder, name, key):
        self.path = Path(folder) / f"{name}.checkpoint"
        self.previous = self.path.with_suffix(".previous")
        self.key = key

    def save(self, tensors, state):
        """Write tensors (a dict) and a JSON-able state; the file that was there becomes the previous generation."""
        metadata = {"key": self.key, "state": json.dumps(state)}
        payload = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
        with atomic(self.path) as temporary:
            with temporary.open("wb") as file:
                file.write(_MAGIC)
                file.write(hashlib.sha256(payload).digest())
                file.write(payload)
            if self.path.exists():
                self.path.replace(self.previous)

    def load(self):
        """(tensors, state) of the newest file that is whole and ours, or None where there is none."""
        for path in (self.path, self.previous):
            if path.exists():
                try:
                    return self._read(path)
                except (ValueError, KeyError, safetensors.SafetensorError) as error:
                    older = " or an older one" if path == self.path else ""
                    print(
                        f"checkpoint {path} refused ({error}); going on from the start{older}",
                        file=sys.stderr,
                        flush=True,
                    )
        return None

    def remove(self):
        """Remove both generations."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)

    def _read(self, path):
        data = path.read_bytes()
        head = len(_MAGIC) + 32
        if len(data) < head or not data.startswith(_MAGIC):
            raise ValueError("not a checkpoint, or cut short")
        payload = data[head:]
        if hashlib.sha256(payload).digest() != data[len(_MAGIC) : head]:
            raise ValueError("its checksum does not match: it is damaged")
        # safetensors: 8 bytes of header length, the header as JSON, the tensors.
        metadata = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])["__metadata__"]
        if metadata["key"] != self.key:
            raise ValueError(f"it belongs to {metadata['key']}, not to {self.key}")
        return safetensors.torch.load(payload), json.loads(metadata["state"])
