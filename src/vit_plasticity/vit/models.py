"""Models: a timm Vision Transformer from a local folder, its parts by name, a new head, and what trains.

Dimensions: B images, L tokens (class and register tokens first), D embedding width, H hidden width of the feed-forward
layer, K classes.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors
import timm
import torch
from timm.layers import Mlp
from timm.layers.attention import Attention
from timm.models._hub import save_for_hf
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vit_plasticity.runtime import gpu_lease
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import components

WEIGHTS, CONFIG, PROVENANCE = "model.safetensors", "config.json", "provenance.json"


def load(folder, device="cpu"):
    """The model in a folder of timm's local-directory format, in evaluation mode, on `device`.

    Raises InputError if the folder lacks a file, the weights do not fit the architecture, or the model is outside the
    family whose components this project knows. Missing weights never become random ones.
    """
    folder = Path(folder).resolve()
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}: a model folder needs {CONFIG} and {WEIGHTS}, as timm saves them. "
                "Fetch the model again, or give it as `local: FOLDER` in catalog.models."
            )
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: weights and architecture do not fit: {error}") from error
    check_family(model, folder.name)
    return with_fast_linears(model).to(device).eval()


def save(model, folder, source):
    """Write `model`, made by timm.create_model, into `folder`, with a note of its `source` and its fingerprint."""
    folder = Path(folder)
    save_for_hf(model, folder, safe_serialization=True)
    write_provenance(folder, source)


def write_provenance(folder, source):
    """Record in a model folder where it comes from and the SHA-256 of its weights."""
    with (folder / WEIGHTS).open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    note = {"format": 1, "source": source, "fingerprint": fingerprint}
    (folder / PROVENANCE).write_text(json.dumps(note, indent=2, sort_keys=True) + "\n")


def fingerprint(folder):
    """SHA-256 of the weights in a model folder, as recorded when it was made. Raises InputError where none was."""
    try:
        return json.loads((Path(folder) / PROVENANCE).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no readable {PROVENANCE}; fetch the model again") from error


def check_family(model, name):
    """Raise InputError unless `model` is a plain Vision Transformer, whose blocks hold norm1, attn, norm2, mlp.fc1,
    mlp.fc2."""
    wanted = "a timm VisionTransformer of pre-norm Blocks with LayerNorm, Attention and Mlp"
    if type(model) is not VisionTransformer:
        raise InputError(f"model {name!r} is a {type(model).__name__}; what can be studied is {wanted}")
    for path, expected in {
        "": Block,
        "norm1": nn.LayerNorm,
        "attn": Attention,
        "norm2": nn.LayerNorm,
        "mlp": Mlp,
    }.items():
        for index, block in enumerate(model.blocks):
            module = block.get_submodule(path)
            exact = type(module) is expected if expected in (Block, Attention, Mlp) else isinstance(module, expected)
            if not exact:
                where = f"blocks.{index}{path and '.' + path}"
                raise InputError(
                    f"model {name!r} has a {type(module).__name__} at {where}; what can be studied is {wanted}"
                )


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


def linear(x, weight, bias=None):
    """functional.linear of x (..., D); on a CPU by oneDNN, up to twice as fast as MKL on processors not made by Intel,
    and as fast on those that are."""
    if torch.compiler.is_compiling() or not _suits_onednn(x):
        return functional.linear(x, weight, bias)
    return _OneDnnLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def _suits_onednn(x):
    plain = x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and torch.backends.mkldnn.is_available()


class _OneDnnLinear(torch.autograd.Function):
    """x (n, D), weight (E, D), bias (E,) → (n, E). What is not wanted of the gradients is neither kept nor computed."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _by_onednn(gradient, weight.T) if of_x else None,
            _by_onednn(gradient.T, x.T) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def _by_onednn(x, weight, bias=None):
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # part of a matrix costs oneDNN a hundred times the time of a whole one
    # What torch.compile calls for a linear layer on a CPU; functional.linear would call MKL.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(nn.Linear):
    def forward(self, x):
        return linear(x, self.weight, self.bias)


def with_fast_linears(model):
    """The model, whose blocks from now on compute their Linear layers by `linear`."""
    for module in model.blocks.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Linear
    return model


def compile_blocks(model):
    """Let torch compile the blocks at their next call; they are alike, and share what is compiled."""
    for block in model.blocks:
        block.compile()


def new_head(model, n_classes):
    """Replace the classifier by a zero one with `n_classes` outputs, as Dosovitskiy et al. (2021, section 3.2)
    fine-tune."""
    model.reset_classifier(n_classes)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)


def block_module(block, component):
    """The module of a timm block that is the component, for instance ``mlp.fc1`` for ``fc1``."""
    return block.get_submodule(components.COMPONENTS[component].module)


def train_only(model, component):
    """Let the component train, with the head and the final norm, and freeze everything else; return the names that
    train.

    Raises ValueError for an unknown component (see `components.parts`).
    """
    ids = components.parts(component)
    model.requires_grad_("full" in ids)
    for block in model.blocks:
        for part in ids:
            if part in components.BLOCK_COMPONENTS:
                block_module(block, part).requires_grad_(True)
    if "embed" in ids:
        model.patch_embed.requires_grad_(True)
        for tensor in (model.cls_token, model.reg_token, model.pos_embed):
            if tensor is not None:
                tensor.requires_grad_(True)
    for module in (model.norm, model.fc_norm, model.head):
        module.requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def embed(model, images):
    """Images (B, 3, S, S), already normalised → the tokens that enter the first block (B, L, D)."""
    tokens = model.patch_embed(images)
    tokens = model._pos_embed(tokens)
    return model.norm_pre(tokens)


def logits(model, images, *, recompute=False):
    """Images (B, 3, S, S), already normalised → class logits (B, K), equal to ``model(images)``.

    Where the head reads the class token alone, so does the last block: only that token asks, attends and passes through
    the feed-forward layer. recompute: trade time for memory by computing each block again in the backward pass.
    """
    tokens = embed(model, images)
    for block in model.blocks:
        # On a CPU, attention between few tokens is faster written out.
        block.attn.fused_attn = tokens.is_cuda or tokens.shape[1] > 64
    reads_class_token = model.global_pool == "token" and model.attn_pool is None
    blocks = [*model.blocks[:-1], _ClassTokenBlock(model.blocks[-1])] if reads_class_token else model.blocks
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
    return model.forward_head(model.norm(tokens))


class _ClassTokenBlock:
    """A timm Block of which only the class token's output is wanted: (B, L, D) → (B, 1, D)."""

    def __init__(self, block):
        self.block = block

    def __call__(self, tokens):
        block = self.block
        first = tokens[:, :1]
        first = first + block.drop_path1(block.ls1(_attend_first(block.attn, block.norm1(tokens))))
        return first + block.drop_path2(block.ls2(block.mlp(block.norm2(first))))


def _attend_first(attention, tokens):
    """Output of a timm Attention for the first token only: (B, L, D) → (B, 1, D)."""
    batch, length, _ = tokens.shape
    first = tokens[:, :1]
    width = attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = linear(first, weight[:width], None if bias is None else bias[:width])
    kv = linear(tokens, weight[width:], None if bias is None else bias[width:])
    q = q.view(batch, 1, attention.num_heads, attention.head_dim).transpose(1, 2)
    k, v = kv.view(batch, length, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    mixed = attention.norm(mixed.transpose(1, 2).reshape(batch, 1, width))
    if attention.gate is not None:
        mixed = mixed * attention.gate(first).sigmoid()
    return attention.proj_drop(attention.proj(mixed))


def features(model, images, pool):
    """Images (B, 3, S, S) → tokens after the last block, pooled to (B, D): their mean, or the class token.

    pool: "mean" (over all tokens) or "class". Raises InputError for "class" where the model has no class token.
    """
    if pool == "class" and not model.has_class_token:
        raise InputError("probe.pool is 'class', and this model has no class token; choose 'mean'")
    tokens = model.blocks(embed(model, images))
    return tokens[:, 0] if pool == "class" else tokens.mean(dim=1)


def use(name, threads):
    """The torch device of that name ("auto": the first GPU, or the CPU where there is none), with `threads` CPU
    threads.

    Raises InputError for a device that this machine lacks.
    """
    torch.set_num_threads(threads)
    # The C library learns from the largest piece that it has freed, up to 32 MB, what to keep rather than give back:
    # fetching and clearing the same memory at every step would cost up to a fifth of the step.
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
    if name in ("auto", "cuda"):
        gpu_lease.take()  # where there are several, one that no other job uses
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES"):
            print("a GPU was given (CUDA_VISIBLE_DEVICES), but torch finds none: computing on the CPU", file=sys.stderr)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: {str(error).splitlines()[0]}; choose auto, cpu, or a GPU that is there"
        ) from error
    return device


def describe(device):
    """The name of a device for provenance: the GPU's product name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
