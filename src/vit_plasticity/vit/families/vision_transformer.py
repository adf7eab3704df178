"""timm's VisionTransformer: ViT, DeiT, DINO, DINOv2, MAE, CLIP, SigLIP and others of pre-norm blocks."""

from timm.layers import GluMlp, Mlp
from timm.layers import attention as timm_attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional

from vit_plasticity.vit.families import Attention
from vit_plasticity.vit.families._pre_norm import PreNorm
from vit_plasticity.vit.kernels import linear


class VisionTransformers(PreNorm):
    """See `families.Family`."""

    name = "a timm VisionTransformer of pre-norm Blocks with LayerNorm, Attention, and Mlp or GluMlp"
    model_class, block_class = VisionTransformer, Block
    attentions, mlps = (timm_attention.Attention,), (Mlp, GluMlp)

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
        """Without the output projection, which `PreNorm` would compute in vain."""
        module, (n, length, _) = block.attn, tokens.shape
        qkv = linear(tokens, module.qkv.weight, module.qkv.bias).view(n, length, 3, module.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, H, L, W)
        mixed = functional.scaled_dot_product_attention(module.q_norm(q), module.k_norm(k), v)
        mixed = module.norm(mixed.transpose(1, 2).reshape(n, length, module.attn_dim))
        return mixed if module.gate is None else mixed * module.gate(tokens).sigmoid()

    def embed(self, model, images):
        tokens = model._pos_embed(model.patch_embed(images))
        return model.norm_pre(model.patch_drop(tokens))

    def logits(self, model, images, *, recompute=False):
        """Where the head reads the class token alone, so does the last block: only that token asks, attends and passes
        through the feed-forward layer."""
        reads_class_token = model.global_pool == "token" and model.attn_pool is None
        reads_class_token &= isinstance(model.blocks[-1].attn.qkv, nn.Linear)  # an adapter is called as a whole
        blocks = [*model.blocks[:-1], _ClassTokenBlock(model.blocks[-1])] if reads_class_token else model.blocks
        return self._logits(model, blocks, images, recompute)


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
