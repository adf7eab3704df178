"""timm's Beit: BEiT and BEiTv2, whose attention adds a bias by relative position."""

import torch
from timm.layers import Mlp, SwiGLU
from timm.models import beit

from vit_plasticity.vit.families._pre_norm import PreNorm


class Beits(PreNorm):
    """See `families.Family`. The paper's bound is for attention that positions do not enter, so there is none here."""

    name = "a timm Beit of Blocks with LayerNorm"
    model_class, block_class = beit.Beit, beit.Block
    attentions, mlps = (beit.Attention,), (Mlp, SwiGLU)

    def context(self, model):
        shared = None if model.rel_pos_bias is None else model.rel_pos_bias()
        return [{"shared_rel_pos_bias": shared}] * len(model.blocks)

    def embed(self, model, images):
        patches = model.patch_embed(images)
        tokens = torch.cat([model.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return model.pos_drop(tokens if model.pos_embed is None else tokens + model.pos_embed)


FAMILY = Beits()
