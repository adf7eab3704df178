"""The code that makes a number, as a fingerprint. Standard library only."""

import functools
import hashlib
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "pillow", "timm", "torch", "torchvision")
"""What fine-tuning computes with: another version of any may give another number."""


@functools.cache
def fingerprint():
    """SHA-256 over the source files of this package, names and contents: equal wherever the code is equal."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(f for kind in ("*.py", "*.yaml") for f in package.rglob(kind)):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def versions():
    """Package → its version, for those that fine-tuning computes with."""
    return {name: metadata.version(name) for name in PACKAGES}
