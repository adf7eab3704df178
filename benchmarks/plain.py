"""The plain baseline: what one would write first in PyTorch. float32, explicit softmax, nothing shared or skipped.

Models are timm's; images are transformed one by one with PIL and torchvision, in the main process.
"""

import torch
from PIL import Image
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torchvision import transforms


def tokens(model, images):
    """Images (N, 3, S, S) → the tokens that enter the first block (N, L, D)."""
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


def attention(module, x):
    n, length, width = x.shape
    qkv = module.qkv(x).reshape(n, length, 3, module.num_heads, module.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(module.scale * q @ k.transpose(-2, -1), dim=-1)  # (N, H, L, L)
    return module.proj((weights @ v).transpose(1, 2).reshape(n, length, width))


def apply(block, component, x):
    """One component of one block, applied to tokens."""
    if component == "mha":
        return attention(block.attn, x)
    if component == "fc2":
        padding = block.mlp.fc2.in_features - x.shape[-1]
        return block.mlp.fc2(functional.pad(x, (0, padding)))
    return {"ln1": block.norm1, "ln2": block.norm2, "fc1": block.mlp.fc1}[component](x)


@torch.inference_mode()
def rates_of_change(model, source, target, component):
    """Rates of change (n_blocks, N): both images through the component of every block, then the definition."""
    x, y = tokens(model, source), tokens(model, target)
    fx = [apply(block, component, x) for block in model.blocks]
    fy = [apply(block, component, y) for block in model.blocks]
    distance = (x - y).flatten(1).norm(dim=1)
    return torch.stack([(a - b).flatten(1).norm(dim=1) / distance for a, b in zip(fx, fy, strict=True)])


def training_transform(size, interpolation, crop_scale=(0.08, 1.0)):
    """A PIL image → a normalised training crop (3, size, size)."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, crop_scale, interpolation=transforms.InterpolationMode(interpolation)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )


def evaluation_transform(size, short, interpolation):
    """A PIL image → its normalised centre (3, size, size)."""
    return transforms.Compose(
        [
            transforms.Resize(short, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )


def batch_of_arrays(arrays, transform):
    return torch.stack([transform(Image.fromarray(array)) for array in arrays])


def batch_of_files(paths, transform):
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(transform(image.convert("RGB")))
    return torch.stack(images)


def explicit_attention(model):
    """The model, with attention as softmax(Q Kᵀ) V written out."""
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def training_step(model, optimizer, images, labels, clip_norm=1.0):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return loss
