"""timm's VisionTransformerDistilled: DeiT with a distillation token, whose head is the mean of two classifiers."""

from timm.models.deit import VisionTransformerDistilled

from vit_plasticity.vit.families import vision_transformer


class Distilled(vision_transformer.VisionTransformers):
    """See `families.Family`. Both classifiers train, and the mean of both tokens is what the head reads."""

    name = "a timm VisionTransformerDistilled of the same Blocks"
    model_class = VisionTransformerDistilled

    def classifiers(self, model):
        return [model.head, model.head_dist]

    def logits(self, model, images, *, recompute=False):
        return self._logits(model, model.blocks, images, recompute)


FAMILY = Distilled()
