"""A small Vision Transformer for tests."""

import timm
import torch


def small_vit(architecture="vit_tiny_patch16_224", **changes):
    """A ViT of two blocks with random weights of a size that shows: seeded, 16² images, 4 patches."""
    torch.manual_seed(0)
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.create_model(architecture, pretrained=False, **arguments | changes)
    half = (0.5, 0.5, 0.5)
    size = model.patch_embed.img_size[0]
    model.pretrained_cfg |= {"input_size": (3, size, size), "mean": half, "std": half, "crop_pct": 1.0}
    model.pretrained_cfg |= {"interpolation": "bilinear"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
