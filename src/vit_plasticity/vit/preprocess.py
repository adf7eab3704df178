"""What a model expects of its images."""

from dataclasses import dataclass

from vit_plasticity.runtime.cli import InputError


@dataclass(frozen=True)
class Preprocessing:
    """What a model expects of its images, from its own pretrained_cfg: size in pixels, channel mean and standard
    deviation of pixels in [0, 1], interpolation (bilinear or bicubic), and the share of the resized image that
    evaluation keeps."""

    size: int
    mean: tuple
    std: tuple
    interpolation: str
    crop_share: float


def preprocessing(model):
    """The Preprocessing of a timm model. Raises InputError for images that are not square or not RGB."""
    cfg = model.pretrained_cfg
    channels, height, width = cfg["input_size"]
    if channels != 3 or height != width:
        raise InputError(
            f"the model takes {channels} x {height} x {width} images; this project feeds square RGB images"
        )
    interpolation = cfg.get("interpolation") or "bicubic"
    if interpolation not in ("bilinear", "bicubic"):
        raise InputError(f"the model asks for {interpolation!r} interpolation; known are bilinear and bicubic")
    return Preprocessing(height, tuple(cfg["mean"]), tuple(cfg["std"]), interpolation, cfg.get("crop_pct") or 1.0)
