"""What timm's families of pre-norm blocks share: norm1 and attn, then norm2 and mlp, added to the residual stream."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit.components import MEASURABLE


class PreNorm:
    """A `families.Family` but for `name` and `embed`. The attributes are timm's classes: of the model, of its blocks,
    and of the attention and feed-forward layers that are known to work."""

    model_class: type
    block_class: type
    attentions: tuple
    mlps: tuple

    def owns(self, model):
        return type(model) is self.model_class

    def check(self, model, name):
        if not model.global_pool:
            raise InputError(
                f"model {name!r} has global_pool '': its head reads every token, and none to classify by; set "
                "global_pool to 'token' or 'avg' in model_args of its config.json"
            )
        expected = {
            "": (self.block_class,),
            "norm1": None,
            "attn": self.attentions,
            "norm2": None,
            "mlp": self.mlps,
        }
        for path, kinds in expected.items():
            for index, block in enumerate(model.blocks):
                module = block.get_submodule(path)
                if not (isinstance(module, nn.LayerNorm) if kinds is None else type(module) in kinds):
                    where = f"blocks.{index}{path and '.' + path}"
                    raise InputError(
                        f"model {name!r} has a {type(module).__name__} at {where}; what can be studied is {self.name}"
                    )

    def blocks(self, model):
        return model.blocks

    def parts(self, block, id):
        mlp = block.mlp
        if id == "fc1":
            return (mlp.fc1,) if hasattr(mlp, "fc1") else (mlp.fc1_g, mlp.fc1_x)
        return ({"ln1": block.norm1, "mha": block.attn, "ln2": block.norm2, "fc2": mlp.fc2}[id],)

    def context(self, model):
        """What each block is called with beside the tokens: a list of keyword arguments."""
        return [{}] * len(model.blocks)

    def apply(self, model, block, id, tokens):
        given = self._given(model, block) if id == "mha" else {}
        found = [part(tokens, **given) for part in self.parts(block, id)]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def _given(self, model, block):
        return next(given for one, given in zip(model.blocks, self.context(model), strict=True) if one is block)

    def attention(self, block):
        return None

    def heads(self, model, block, tokens):
        found = []
        handle = block.attn.proj.register_forward_pre_hook(lambda module, received: found.append(received[0]))
        try:
            block.attn(tokens, **self._given(model, block))
        finally:
            handle.remove()
        return found[0]

    def projection(self, block):
        return block.attn.proj

    def embedding(self, model):
        named = (getattr(model, name, None) for name in ("cls_token", "dist_token", "reg_token", "pos_embed"))
        return [model.patch_embed, *(tensor for tensor in named if tensor is not None)]

    def head(self, model):
        return [model.norm, model.fc_norm, *self.classifiers(model)]

    def new_head(self, model, n_classes):
        device = next(model.parameters()).device
        model.reset_classifier(n_classes)
        for head in self.classifiers(model):
            head.to(device)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def classifiers(self, model):
        return [model.head]

    def width(self, model):
        return model.embed_dim

    def n_tokens(self, model):
        return model.num_prefix_tokens, model.patch_embed.num_patches + model.num_prefix_tokens

    def inputs(self, model, tokens):
        for block, given in zip(model.blocks, self.context(model), strict=True):
            found = {}

            def note(id, found=found):
                return lambda module, received: found.update({id: received[0]})

            handles = [part.register_forward_pre_hook(note(id)) for id in MEASURABLE for part in self.parts(block, id)]
            try:
                tokens = block(tokens, **given)
            finally:
                for handle in handles:
                    handle.remove()
            yield found

    def after_blocks(self, model, tokens):
        for block, given in zip(model.blocks, self.context(model), strict=True):
            tokens = block(tokens, **given)
        return tokens

    def pre_logits(self, model, images):
        return model.forward_head(model.norm(self.after_blocks(model, self.embed(model, images))), pre_logits=True)

    def logits(self, model, images, *, recompute=False):
        return self._logits(model, model.blocks, images, recompute)

    def _logits(self, model, blocks, images, recompute):
        tokens = self.embed(model, images)
        for block, given in zip(blocks, self.context(model), strict=True):
            tokens = checkpoint(block, tokens, use_reentrant=False, **given) if recompute else block(tokens, **given)
        return model.forward_head(model.norm(tokens))

    def prepare(self, model):
        # On a CPU, attention between few tokens is faster written out.
        fused = next(model.parameters()).is_cuda or self.n_tokens(model)[1] > 64
        for block in model.blocks:
            block.attn.fused_attn = fused
        self.call_linears(model)

    def call_linears(self, model):
        for block in model.blocks:
            if _reads_qkv(block.attn):
                block.attn.qkv_bias_separate = True

    def lines_before_adapters(self, model):
        if not any(_reads_qkv(block.attn) for block in model.blocks):
            return []
        return [
            "for block in model.blocks:  # otherwise the module qkv is never called, and adapters on it do nothing",
            "    block.attn.qkv_bias_separate = True",
        ]


def _reads_qkv(attention):
    """Whether an attention keeps the bias of qkv apart: it then reads the weight, unless told to call the module."""
    return getattr(attention, "q_bias", None) is not None
