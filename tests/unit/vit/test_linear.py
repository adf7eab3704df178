"""Linear layers by oneDNN: the numbers and gradients of torch's own, in every mode of training."""

import copy

import pytest
import torch
from small_vit import small_vit
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.training import step as training
from vit_plasticity.vit import kernels


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model wide enough for oneDNN: as it was made, and as it is loaded."""
    made, folder = small_vit(embed_dim=128), tmp_path_factory.mktemp("wide")
    vit.save(made, folder, {"test": True})
    vit.family(made).prepare(made)  # bf16 tells written from fused attention
    return made, vit.load(folder)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(128,), (3, 128), (2, 5, 128), (2, 5, 24)])
def test_products_are_those_of_torch(shape, bias):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(shape, generator=generator), torch.randn(150, shape[-1], generator=generator)
    bias = torch.randn(150, generator=generator) if bias else None
    torch.testing.assert_close(
        kernels.linear(x, weight, bias), functional.linear(x, weight, bias), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(
    "part", [lambda w: w.T, lambda w: w[:, :20], lambda w: w[:, 8:].T, lambda w: w[3:], lambda w: w[::2]]
)
def test_weights_may_be_parts_of_others(part):
    generator = torch.Generator().manual_seed(4)
    weight = part(torch.randn(40, 30, generator=generator))
    x = torch.randn(5, weight.shape[1], generator=generator)
    torch.testing.assert_close(kernels.linear(x, weight), functional.linear(x, weight), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"recompute": True}, {"accumulation": 2}, {"precision": "bf16"}])
@pytest.mark.parametrize("component", ["full", "mha", "fc2", "ln1"])
def test_steps_are_those_of_torch(wide, component, settings):
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(4, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 1])
    results = []
    for model in map(copy.deepcopy, wide):
        vit.train_only(model, component)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = training.make_optimizer(trained.values(), "sgd", 0.1)
        loss, norm = training.step(model.train(), optimizer, images, labels, lr=0.1, clip_norm=1.0, **settings)
        results.append((loss, norm, trained))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_a_loaded_model_saves_and_evaluates_as_before(wide):
    made, loaded = wide
    assert list(made.state_dict()) == list(loaded.state_dict())
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(vit.logits(loaded, images), made(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_layer_does_not_keep_its_input(frozen):
    x, weight = torch.randn(5, 128, requires_grad=True), torch.randn(130, 128, requires_grad=not frozen)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        kernels.linear(x, weight)
    assert (x.shape in kept) is not frozen


@pytest.mark.parametrize(
    "trained", [(True, True, True), (True, False, False), (False, True, True), (False, True, False)]
)
def test_gradients_are_those_of_torch(trained):
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 5, 128), (130, 128), (130,)]
    inputs = [torch.randn(s, generator=generator).requires_grad_(t) for s, t in zip(shapes, trained, strict=True)]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    weights = torch.randn(2, 5, 130, generator=generator)
    ours = torch.autograd.grad((weights * kernels.linear(*inputs)).sum(), wanted)
    torchs = torch.autograd.grad((weights * functional.linear(*inputs)).sum(), wanted)
    torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


def test_the_switch_and_a_torch_without_the_kernel_leave_it_out(monkeypatch):
    calls = []
    monkeypatch.setattr(kernels, "_by_onednn", lambda x, weight, bias=None: calls.append(1) or x @ weight.T)
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    kernels.linear(x, weight)
    assert calls == ([1] if kernels._available() else [])
    monkeypatch.setenv(kernels.SWITCH, "0")
    torch.testing.assert_close(kernels.linear(x, weight), functional.linear(x, weight))
    monkeypatch.delenv(kernels.SWITCH)
    monkeypatch.setattr(kernels, "_available", lambda: False)
    torch.testing.assert_close(kernels.linear(x, weight), functional.linear(x, weight))
    assert len(calls) <= 1


def test_fast_linears_of_a_copy_are_its_own(model):
    vit.prepare(model)
    linears = [module for module in model.blocks.modules() if isinstance(module, torch.nn.Linear)]
    assert all(type(module) is torch.nn.Linear and "forward" in vars(module) for module in linears)
    copied = copy.deepcopy(model)
    own = copied.blocks[0].mlp.fc1
    assert own.forward.__self__ is own


def test_second_derivatives_are_refused_and_forward_mode_is_torchs():
    x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(5, 8)
    if kernels._available():
        (gradient,) = torch.autograd.grad(kernels.linear(x, weight).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()
    tangent = torch.randn(3, 8)
    _, change = torch.func.jvp(lambda x: kernels.linear(x, weight), (x.detach(),), (tangent,))
    torch.testing.assert_close(change, tangent @ weight.T)
