"""Models in the format of Hugging Face's transformers, read into the same architecture of timm.

A folder of that format holds ``config.json``, which names a `model_type`, weights under other names than timm's, and
``preprocessor_config.json``, which says how images are normalised. What is read has timm's numbers but for two things:
transformers squeezes an image into a square where evaluation here crops it, and some of its LayerNorms divide by a
deviation with 1e-12 in place of timm's 1e-6.
Source: the modules modeling_vit, modeling_dinov2 and modeling_dinov2_with_registers of transformers.
"""

import re

import timm
import torch

from vit_plasticity.runtime.cli import InputError

PROCESSOR = "preprocessor_config.json"
READ = ("vit", "vit_mae", "vit_msn", "dinov2", "dinov2_with_registers")
"""The model types that are read."""
LIKE_IT = {
    "clip": "vit_*_clip_*.openai",
    "clip_vision_model": "vit_*_clip_*.openai",
    "siglip": "vit_*_siglip_*.webli",
    "siglip_vision_model": "vit_*_siglip_*.webli",
    "deit": "deit_*_patch16_*.fb_in1k",
}
"""Other model type → pattern of the tags of pre-trained ones in timm."""

_ROOT = re.compile(r"(?:vit|dinov2|dinov2_with_registers)\.")
_BLOCK = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
}
_INSIDE = {
    "norm1": "norm1",
    "norm2": "norm2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_ASKING = {"q": "attention.attention.query", "k": "attention.attention.key", "v": "attention.attention.value"}
_INSIDE |= {old: f"attn.{letter}" for letter, old in _ASKING.items()}
_INSIDE |= {f"attention.{letter}_proj": f"attn.{letter}" for letter in "qkv"}
_UNUSED = re.compile(r"(?:pooler|decoder)\..*|embeddings\.mask_token")
"""What pre-training alone needs."""
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}


def describes(config):
    """Whether the content of a ``config.json`` is that of transformers."""
    return isinstance(config, dict) and "model_type" in config and "architecture" not in config


def names(weights):
    """Whether tensors, by name, are named as transformers does."""
    return any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in weights)


def renamed(weights):
    """(tensors under timm's names, names of those that fine-tuning does not need). weights: name → tensor.

    Raises InputError for a tensor that has no place in a timm VisionTransformer.
    """
    found, unused = {}, []
    for name, tensor in weights.items():
        plain = _ROOT.sub("", name, count=1) if _ROOT.match(name) else name
        inside = _BLOCK.fullmatch(plain)
        if _UNUSED.fullmatch(plain):
            unused.append(name)
        elif plain in _OUTSIDE:
            found[_OUTSIDE[plain]] = tensor
        elif inside and inside[2] in _INSIDE:
            found[f"blocks.{inside[1]}.{_INSIDE[inside[2]]}.{inside[3].replace('lambda1', 'gamma')}"] = tensor
        else:
            raise InputError(f"{name} is a tensor of transformers that has no place in a VisionTransformer of timm's")
    for name in [name for name in found if ".attn.q." in name]:
        parts = [found.pop(name.replace(".q.", f".{letter}."), None) for letter in "qkv"]
        if any(part is None for part in parts):
            raise InputError(f"the weights lack the key or the value that goes with {name}")
        found[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    if "reg_token" in found:  # timm adds the position of the class token to the token itself, and registers have none
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    if "head.weight" in found and found["head.weight"].shape[1] != found["norm.weight"].shape[0]:
        unused += [name for name in weights if name.startswith("classifier.")]  # of class token and mean of the others
        del found["head.weight"], found["head.bias"]
    return found, unused


def architecture(config, weights=None):
    """The timm model of a ``config.json`` of transformers, with random weights, or with those of timm's names.

    Raises InputError for another model type and for what a VisionTransformer of timm cannot do.
    """
    kind = config["model_type"]
    if kind not in READ:
        raise InputError(
            f"a model of transformers of the type {kind!r} is not read, only {', '.join(READ)}. {_like_it(kind)}"
        )
    try:
        width, size = config["hidden_size"], config.get("image_size", 224)
        size = (size, size) if isinstance(size, int) else tuple(size)
        arguments = {
            "img_size": size,
            "patch_size": config.get("patch_size", 16),
            "in_chans": config.get("num_channels", 3),
            "embed_dim": width,
            "depth": config["num_hidden_layers"],
            "num_heads": config["num_attention_heads"],
            "mlp_ratio": config["intermediate_size"] / width if "intermediate_size" in config else config["mlp_ratio"],
            "qkv_bias": config.get("qkv_bias", True),
            "act_layer": _ACTIVATIONS[config.get("hidden_act", "gelu")],
        }
    except KeyError as error:
        raise InputError(
            f"config.json of transformers ({kind}): {error} is missing, or is no activation that is read "
            f"({', '.join(_ACTIVATIONS)})"
        ) from error
    if config.get("use_swiglu_ffn") or config.get("layer_norm_eps", 0) > 1e-6:
        raise InputError(
            f"config.json of transformers ({kind}): use_swiglu_ffn {config.get('use_swiglu_ffn', False)}, "
            f"layer_norm_eps {config.get('layer_norm_eps')}; what is read has no SwiGLU, and at most 1e-6"
        )
    if "dinov2" in kind:
        arguments["init_values"] = 1.0
    if registers := config.get("num_register_tokens"):
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    classes = len(weights["head.weight"]) if weights and "head.weight" in weights else 0
    model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=classes, **arguments)
    for about_other_weights in ("tag", "license", "hf_hub_id"):
        model.pretrained_cfg.pop(about_other_weights, None)
    return model


def images(processor, size):
    """What timm calls the data_config of a model, from a ``preprocessor_config.json``. size: (height, width), pixels.

    Raises InputError for images that are prepared in another way than here.
    """
    interpolation = _INTERPOLATIONS.get(processor.get("resample", 2))
    if not interpolation or abs(processor.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise InputError(
            f"{PROCESSOR}: resample {processor.get('resample')}, rescale_factor {processor.get('rescale_factor')}; "
            "known are 2 (bilinear) and 3 (bicubic), and 1/255"
        )
    share = 1.0
    if processor.get("do_center_crop"):
        crop, whole = (_side(processor.get(key)) for key in ("crop_size", "size"))
        share = crop / whole if crop and whole and crop <= whole else 1.0
    plain = processor.get("do_normalize", True) is False
    mean, std = (
        (0.0,) * 3 if plain else processor.get("image_mean"),
        (1.0,) * 3 if plain else processor.get("image_std"),
    )
    if mean is None or std is None:
        raise InputError(f"{PROCESSOR} says do_normalize, but no image_mean and image_std; add them")
    return {
        "input_size": (3, *size),
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": interpolation,
        "crop_pct": share,
    }


def _side(size):
    return size if isinstance(size, int) or size is None else size.get("shortest_edge") or size.get("height")


def _like_it(kind):
    pattern = LIKE_IT.get(kind)
    tags = timm.list_pretrained(pattern, exclude_filters=["*distilled*", "*quickgelu*"]) if pattern else []
    if tags:
        return f"Pre-trained ones are in timm: write {{timm: TAG}}, of {', '.join(tags[:6])}{', …' if tags[6:] else ''}"
    return "If timm has the same weights, write {timm: TAG}; timm.list_pretrained('*PART OF ITS NAME*') finds the tag"
