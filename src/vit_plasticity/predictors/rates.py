"""How far a component moves two inputs apart: ‖f(x) − f(y)‖² in every block at once, and without its outputs.

- A linear layer gives f(x) - f(y) = W d with d = x - y, and ||W d||² = <WᵀW, dᵀd>: one Gram matrix per pair serves
  all blocks, and fc2, whose input is padded with zeros, needs only the first D columns of W;
- class and register tokens are the same in x and y, so their rows of d are zero;
- LayerNorm normalises x and y the same way in every block: only the gains γ differ, and ||f(x) - f(y)||² = Σ_c γ_c²
  S_c;
- attention projects its heads linearly: the difference of the heads is projected, once.

Dimensions: n pairs, L tokens, D embedding width, H heads.
"""

import torch
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.vit.kernels import linear


def changes(model, component):
    """The measuring instrument of a component: `squared_changes(x, ys)` yields, for each y, the squared changes
    (n_blocks, n) between x and y, both (n, L, D); `numbers_per_pair(L, D)` says how many floats it works with."""
    kind = {"ln1": LayerNorms, "ln2": LayerNorms, "fc1": Linears, "fc2": Linears, "mha": Attentions}[component]
    family = vit.family(model)
    return kind([family.parts(block, component) for block in family.blocks(model)], model)


class LayerNorms:
    """Normalised without gain, then one product with the squared gains of all blocks."""

    def __init__(self, parts, model):
        modules = [module for (module,) in parts]
        eps = {module.eps for module in modules}
        if len(eps) != 1:
            raise ValueError(f"the LayerNorms of the blocks differ in eps ({sorted(eps)}); expected one value")
        self.eps = eps.pop()
        self.squared_gains = torch.stack([module.weight.double().square() for module in modules])  # (n_blocks, D)
        self.prefix = vit.family(model).n_tokens(model)[0]

    def numbers_per_pair(self, length, width):
        return 3 * length * width

    def squared_changes(self, x, ys):
        normalised = self._normalise(x)
        for y in ys:
            per_channel = (normalised - self._normalise(y)).square_().sum(dim=1)  # (n, D)
            yield self.squared_gains @ per_channel.double().T  # (n_blocks, n)

    def _normalise(self, x):
        return functional.layer_norm(x[:, self.prefix :], x.shape[-1:], eps=self.eps)


class Linears:
    """The inner product of the Gram matrices WᵀW, of all blocks, and dᵀd."""

    def __init__(self, parts, model):
        width = vit.family(model).width(model)
        self.grams = parts[0][0].weight.new_zeros(width, len(parts), width)  # (D, n_blocks, D)
        for index, modules in enumerate(parts):
            # D outputs at a time: the Gram matrices fill most of the memory that is needed, and copies count.
            for rows in (rows for module in modules for rows in module.weight[:, :width].split(width)):
                w = rows.T.contiguous()  # (D, D)
                self.grams[:, index] += linear(w, w)
        self.prefix = vit.family(model).n_tokens(model)[0]

    def numbers_per_pair(self, length, width):
        return width * (width + 2 * length)

    def squared_changes(self, x, ys):
        for y in ys:
            d = (x - y)[:, self.prefix :]  # (n, L - prefix, D)
            gram = d.mT @ d  # (n, D, D)
            # D sums of D products each, added up in double: one sum of D² products would lose two digits.
            by_row = torch.bmm(self.grams, gram.permute(1, 2, 0))  # (D, n_blocks, n)
            yield by_row.sum(dim=0, dtype=torch.float64)


class Attentions:
    """Block by block: heads of x and of each y, and one projection of their difference."""

    def __init__(self, parts, model):
        self.model, self.family = model, vit.family(model)

    def numbers_per_pair(self, length, width):
        return 8 * length * width

    def squared_changes(self, x, ys):
        model, blocks = self.model, self.family.blocks(self.model)
        changes = [x.new_empty(len(blocks), len(x)) for _ in ys]
        for index, block in enumerate(blocks):
            heads, projection = self.family.heads(model, block, x), self.family.projection(block).weight
            for y, change in zip(ys, changes, strict=True):
                difference = linear(heads - self.family.heads(model, block, y), projection)
                change[index] = difference.square_().sum(dim=(1, 2))
        return changes
