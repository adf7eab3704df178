"""Linear layers on a CPU by oneDNN instead of MKL: up to twice as fast on processors that Intel did not make.

The only file that knows this kernel. It is left out where torch lacks it, and where the environment variable
``VIT_PLASTICITY_ONEDNN`` is 0. Dimensions: n rows, D inputs, E outputs.
"""

import os
import types

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn import functional

SWITCH = "VIT_PLASTICITY_ONEDNN"


def linear(x, weight, bias=None):
    """functional.linear of x (..., D) with weight (E, D), bias (E,) → (..., E); on a CPU in float32 by oneDNN."""
    if torch.compiler.is_compiling() or not _suits_onednn(x):
        return functional.linear(x, weight, bias)
    return _OneDnnLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def use_fast_linears(module):
    """Let every Linear layer below `module` compute by `linear`."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.forward = types.MethodType(_forward, part)


def _forward(module, x):
    return linear(x, module.weight, module.bias)


def _suits_onednn(x):
    plain = x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and _available() and os.environ.get(SWITCH) != "0" and not _is_transformed()


def _is_transformed():
    """Whether torch.func or forward-mode differentiation is at work: both need more than this autograd.Function has."""
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def _available():
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _OneDnnLinear(torch.autograd.Function):
    """x (n, D), weight (E, D), bias (E,) → (n, E). Gradients that nobody wants are neither kept nor computed."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
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
