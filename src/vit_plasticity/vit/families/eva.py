"""timm's Eva: DINOv3, EVA, EVA-02, Perception Encoder and others, many with rotary positions and SwiGLU."""

from timm.layers import GluMlp, Mlp, SwiGLU
from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock

from vit_plasticity.vit.families._pre_norm import PreNorm


class Evas(PreNorm):
    """See `families.Family`. There is no bound of attention: the paper's is for attention that positions do not enter,
    which here that of EVA alone is."""

    name = "a timm Eva of EvaBlocks with LayerNorm"
    model_class, block_class = Eva, EvaBlock
    attentions, mlps = (EvaAttention, AttentionRope), (Mlp, GluMlp, SwiGLU)

    def context(self, model):
        n = len(model.blocks)
        if model.rope is None:
            return [{}] * n
        rope = model.rope.get_embed(shape=model.patch_embed.grid_size)
        return [{"rope": one} for one in rope] if model.rope_mixed else [{"rope": rope}] * n

    def embed(self, model, images):
        return model.norm_pre(model._pos_embed(model.patch_embed(images))[0])


FAMILY = Evas()
