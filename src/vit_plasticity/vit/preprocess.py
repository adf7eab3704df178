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
    """The Preprocessing of a timm model. Raises InputError for images that are not square or not RGB, or of
    another size than the model's own, and for a resizing that is not known here."""
    cfg = model.pretrained_cfg
    channels, height, width = cfg["input_size"]
    if channels != 3 or height != width:
        raise InputError(
            f"the model takes {channels} x {height} x {width} images; this project feeds square RGB images"
        )
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if own is not None and tuple(own) != (height, width):
        raise InputError(
            f"the model is made for {own[0]} x {own[1]} pixels, and its pretrained_cfg says input_size {height} x "
            f"{width}; write the one that its weights are for into both places of config.json"
        )
    crop_mode = cfg.get("crop_mode") or "center"
    if crop_mode != "center":
        raise InputError(
            f"the model asks for crop_mode {crop_mode!r}; evaluation here resizes the shorter side and crops the "
            "center. Choose weights of another input, or set crop_mode to 'center' in a copy of its folder"
        )
    interpolation = cfg.get("interpolation") or "bicubic"
    if interpolation not in ("bilinear", "bicubic"):
        raise InputError(f"the model asks for {interpolation!r} interpolation; known are bilinear and bicubic")
    return Preprocessing(height, tuple(cfg["mean"]), tuple(cfg["std"]), interpolation, cfg.get("crop_pct") or 1.0)
