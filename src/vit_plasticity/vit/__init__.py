"""Models: Vision Transformers from a folder, their components, and what all stages do with them.

`vit.load`, `vit.embed` and the others below import torch and timm at their first use, so that `vit.components` is had
without either.
"""

import importlib

_HOMES = {
    "folder": ("load", "save", "fingerprint", "write_provenance", "WEIGHTS", "CONFIG", "PROVENANCE"),
    "model": ("prepare", "compile_blocks", "new_head", "train_only", "embed", "logits", "features", "features_by_tap"),
    "fresh": ("new_model",),
    "preprocess": ("preprocessing", "Preprocessing"),
    "families": ("family",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
