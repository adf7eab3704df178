"""The plain baseline: what a good researcher writes in PyTorch with timm, and would run instead of this package.

float32 in one process. Plasticity in one pass: images are embedded once, every component of every block is applied to
both images by its module, timm's fused attention included, outputs are kept and then compared. Training is timm's model
in the usual loop. Images are transformed one by one with PIL and torchvision, in the main process.
"""

import torch
from PIL import Image
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torchvision import transforms

AT_ONCE = 16
"""Pairs whose outputs are kept at one time: of ViT-Base those of one pair are 116 MB."""


@torch.inference_mode()
def rates_of_change(model, source, target):
    """Rates of change of every component in every block: {component: (n_blocks, N)}."""
    parts = [_rates_of_batch(model, x, y) for x, y in zip(source.split(AT_ONCE), target.split(AT_ONCE), strict=True)]
    return {component: torch.cat([part[component] for part in parts], dim=1) for component in parts[0]}


def _rates_of_batch(model, source, target):
    x, y = tokens(model, source), tokens(model, target)
    of_x, of_y = outputs(model, x), outputs(model, y)
    distance = (x - y).flatten(1).norm(dim=1)
    return {
        component: torch.stack(
            [(a - b).flatten(1).norm(dim=1) / distance for a, b in zip(of_x[component], of_y[component], strict=True)]
        )
        for component in of_x
    }


def tokens(model, images):
    """Images (N, 3, S, S) → the tokens that enter the first block (N, L, D)."""
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


def outputs(model, x):
    """What every component of every block makes of tokens: {component: [(N, L, E) of each block]}."""
    first = model.blocks[0].mlp.fc2
    padded = functional.pad(x, (0, first.in_features - x.shape[-1]))
    return {
        "ln1": [block.norm1(x) for block in model.blocks],
        "mha": [block.attn(x) for block in model.blocks],
        "ln2": [block.norm2(x) for block in model.blocks],
        "fc1": [block.mlp.fc1(x) for block in model.blocks],
        "fc2": [block.mlp.fc2(padded) for block in model.blocks],
    }


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


def training_step(model, optimizer, images, labels, clip_norm=1.0):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    return loss
