"""A new model with random weights, for pre-training."""

import timm
import torch

from vit_plasticity.runtime.cli import InputError


def new_model(settings, n_classes):
    """A timm ViT with random weights (seeded), whose images are normalised to [-1, 1].

    Its head reads the mean of the tokens, or the class token; see the section `pretrain` of the schema.
    Raises InputError for settings that make no model.
    """
    torch.manual_seed(settings.seed)
    try:
        model = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, num_classes=n_classes, img_size=settings.image_size,
            patch_size=settings.patch_size, embed_dim=settings.embed_dim, depth=settings.depth,
            num_heads=settings.num_heads, global_pool={"mean": "avg", "class": "token"}[settings.pool],
            init_values=settings.layer_scale or None,
        )  # fmt: skip
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(f"no model can be built from {settings}: {error}") from error
    model.pretrained_cfg |= {
        "input_size": (3, settings.image_size, settings.image_size),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "tag": "",
        "license": "",
    }
    return model
