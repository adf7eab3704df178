"""Small untrained Vision Transformers for tests, of every family."""

import timm
import torch

from vit_plasticity import vit

FAMILIES = {
    "gated feed-forward": {"architecture": "vit_giant_patch14_dinov2"},
    "distilled": {"architecture": "deit_tiny_distilled_patch16_224"},
    "dinov3": {"architecture": "vit_small_patch16_dinov3"},
    "dinov3 with biases": {"architecture": "vit_small_patch16_dinov3_qkvb"},
    "dinov3 with swiglu": {"architecture": "vit_small_plus_patch16_dinov3"},
    "eva": {"architecture": "eva_giant_patch14_224"},
    "eva02": {"architecture": "eva02_tiny_patch14_224"},
    "eva02 with inner norms": {"architecture": "eva02_base_patch14_224"},
    "perception encoder": {"architecture": "vit_pe_core_tiny_patch16_384"},
    "rotations by block": {"architecture": "vit_small_patch16_rope_mixed_224"},
    "beit": {"architecture": "beit_base_patch16_224"},
    "beit with shared positions": {
        "architecture": "beit_base_patch16_224",
        "use_rel_pos_bias": False,
        "use_shared_rel_pos_bias": True,
    },
}
"""What differs from the family of the paper's models → arguments of `small_vit`."""

VARIANTS = {
    "vit": {},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "query and key norms": {"qk_norm": True},
    "mean pooling, no class token": {"class_token": False, "global_pool": "avg"},
    "mean pooling": {"global_pool": "avg"},
    "norm before the blocks": {"pre_norm": True},
    "layer scale": {"init_values": 0.5},
    "no query, key and value bias": {"qkv_bias": False},
} | FAMILIES


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


def as_called(model, component):
    """For each block the function that a measurable component is: its modules, called as the model calls them, outputs
    side by side."""
    given = {}
    handles = [
        block.attn.register_forward_pre_hook(lambda module, _, named: given.update({module: named}), with_kwargs=True)
        for block in model.blocks
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, *model.patch_embed.img_size))
    for handle in handles:
        handle.remove()

    def function(parts):
        return lambda tokens: torch.cat([part(tokens, **given.get(part, {})) for part in parts], dim=-1)

    return [function(vit.family(model).parts(block, component)) for block in model.blocks]
