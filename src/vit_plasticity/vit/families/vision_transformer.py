"""timm's VisionTransformer: ViT, DeiT, DINO, DINOv2, MAE, CLIP, SigLIP and others of pre-norm blocks."""

from timm.layers import Mlp
from timm.layers import attention as timm_attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit.families import Attention
from vit_plasticity.vit.kernels import linear

PATHS = {
    "ln1": "norm1",
    "mha": "attn",
    "ln2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
"""Component → path of its module in a block."""


class VisionTransformers:
    """See `families.Family`."""

    name = "a timm VisionTransformer of pre-norm Blocks with LayerNorm, Attention and Mlp"

    def owns(self, model):
        return type(model) is VisionTransformer

    def check(self, model, name):
        if not model.global_pool:
            raise InputError(
                f"model {name!r} has global_pool '': its head reads every token, and none to classify by; set "
                "global_pool to 'token' or 'avg' in model_args of its config.json"
            )
        expected = {
            "": Block,
            "norm1": nn.LayerNorm,
            "attn": timm_attention.Attention,
            "norm2": nn.LayerNorm,
            "mlp": Mlp,
        }
        for path, kind in expected.items():
            for index, block in enumerate(model.blocks):
                module = block.get_submodule(path)
                if not (isinstance(module, kind) if kind is nn.LayerNorm else type(module) is kind):
                    where = f"blocks.{index}{path and '.' + path}"
                    raise InputError(
                        f"model {name!r} has a {type(module).__name__} at {where}; what can be studied is {self.name}"
                    )

    def blocks(self, model):
        return model.blocks

    def part(self, block, id):
        return block.get_submodule(PATHS[id])

    def apply(self, model, block, id, tokens):
        return self.part(block, id)(tokens)

    def attention(self, block):
        module = block.attn
        plain = module.gate is None and all(
            isinstance(norm, nn.Identity) for norm in (module.q_norm, module.k_norm, module.norm)
        )
        if not plain:
            return None
        query, key, value = module.qkv.weight.chunk(3)
        query_bias = None if module.qkv.bias is None else module.qkv.bias.chunk(3)[0]
        return Attention(query, key, value, module.proj.weight, module.num_heads, query_bias)

    def heads(self, model, block, tokens):
        module, (n, length, _) = block.attn, tokens.shape
        qkv = linear(tokens, module.qkv.weight, module.qkv.bias).view(n, length, 3, module.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, H, L, W)
        mixed = functional.scaled_dot_product_attention(module.q_norm(q), module.k_norm(k), v)
        mixed = module.norm(mixed.transpose(1, 2).reshape(n, length, module.attn_dim))
        return mixed if module.gate is None else mixed * module.gate(tokens).sigmoid()

    def projection(self, block):
        return block.attn.proj

    def embedding(self, model):
        parameters = (model.cls_token, model.reg_token, model.pos_embed)
        return [model.patch_embed, *(tensor for tensor in parameters if tensor is not None)]

    def head(self, model):
        return [model.norm, model.fc_norm, model.head]

    def new_head(self, model, n_classes):
        device = next(model.parameters()).device
        model.reset_classifier(n_classes)
        model.head.to(device)
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)

    def width(self, model):
        return model.embed_dim

    def n_tokens(self, model):
        return model.num_prefix_tokens, model.patch_embed.num_patches + model.num_prefix_tokens

    def embed(self, model, images):
        tokens = model._pos_embed(model.patch_embed(images))
        return model.norm_pre(model.patch_drop(tokens))

    def inputs(self, model, tokens):
        for block in model.blocks:
            normed = block.norm1(tokens)
            middle = tokens + block.drop_path1(block.ls1(block.attn(normed)))
            normed2, mlp = block.norm2(middle), block.mlp
            hidden = mlp.norm(mlp.drop1(mlp.act(mlp.fc1(normed2))))
            yield {"ln1": tokens, "mha": normed, "ln2": middle, "fc1": normed2, "fc2": hidden}
            tokens = middle + block.drop_path2(block.ls2(mlp.drop2(mlp.fc2(hidden))))

    def after_blocks(self, model, tokens):
        return model.blocks(tokens)

    def pre_logits(self, model, images):
        return model.forward_head(model.norm(self.after_blocks(model, self.embed(model, images))), pre_logits=True)

    def classifier(self, model):
        return model.head

    def logits(self, model, images, *, recompute=False):
        """Where the head reads the class token alone, so does the last block: only that token asks, attends and passes
        through the feed-forward layer."""
        tokens = self.embed(model, images)
        reads_class_token = model.global_pool == "token" and model.attn_pool is None
        reads_class_token &= isinstance(model.blocks[-1].attn.qkv, nn.Linear)  # an adapter is called as a whole
        blocks = [*model.blocks[:-1], _ClassTokenBlock(model.blocks[-1])] if reads_class_token else model.blocks
        for block in blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return model.forward_head(model.norm(tokens))

    def prepare(self, model):
        # On a CPU, attention between few tokens is faster written out.
        fused = next(model.parameters()).is_cuda or self.n_tokens(model)[1] > 64
        for block in model.blocks:
            block.attn.fused_attn = fused


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


FAMILY = VisionTransformers()
