"""Models: what trains, what is refused, and logits that equal timm's own."""

import json
import shutil

import pytest
import timm
import torch
from small_vit import FAMILIES, small_vit

from vit_plasticity import vit
from vit_plasticity.runtime.cli import InputError

ALWAYS = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
OF_COMPONENT = {
    "ln1": {"norm1.weight", "norm1.bias"},
    "mha": {"attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"},
    "ln2": {"norm2.weight", "norm2.bias"},
    "fc1": {"mlp.fc1.weight", "mlp.fc1.bias"},
    "fc2": {"mlp.fc2.weight", "mlp.fc2.bias"},
}


@pytest.mark.parametrize("component", OF_COMPONENT)
def test_a_component_trains_in_every_block_with_head_and_final_norm(component, model):
    expected = {f"blocks.{i}.{name}" for i in range(2) for name in OF_COMPONENT[component]}
    assert set(vit.train_only(model, component)) == expected | ALWAYS


def test_embedding_full_and_sums(model):
    embedding = {"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed"}
    assert set(vit.train_only(model, "embed")) == embedding | ALWAYS
    assert set(vit.train_only(model, "full")) == {name for name, _ in model.named_parameters()}
    both = {f"blocks.{i}.{name}" for i in range(2) for name in OF_COMPONENT["mha"] | OF_COMPONENT["fc1"]}
    assert set(vit.train_only(model, "mha+fc1")) == both | ALWAYS
    with pytest.raises(ValueError, match="unknown component"):
        vit.train_only(model, "attn")


VARIANTS = [
    {},
    {"reg_tokens": 2, "no_embed_class": True, "qk_norm": True, "init_values": 0.3},
    {"global_pool": "avg"},
    {"class_token": False, "global_pool": "map"},
    {"pre_norm": True, "qkv_bias": False},
    {"fc_norm": True},
    {"final_norm": False},
    *FAMILIES.values(),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("recompute", [False, True])
def test_logits_and_gradients_equal_those_of_timm(changes, recompute):
    model = vit.prepare(small_vit(**changes))
    images = torch.randn(3, 3, 16, 16)
    gradients = []
    for forward in (lambda: vit.logits(model, images, recompute=recompute), lambda: model(images)):
        model.zero_grad()
        out = forward()
        out.square().sum().backward()
        gradients.append((out.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_grads), (theirs, their_grads) = gradients
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert our_grads.keys() == their_grads.keys()
    for name, gradient in our_grads.items():
        torch.testing.assert_close(gradient, their_grads[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_saved_model_comes_back_with_its_weights_and_preprocessing(tmp_path):
    model = small_vit(global_pool="avg")
    vit.save(model, tmp_path / "m", {"made": "here"})
    loaded = vit.load(tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert vit.preprocessing(loaded) == vit.Preprocessing(16, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
    assert len(vit.fingerprint(tmp_path / "m")) == 64
    reopened = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)
    assert torch.equal(reopened.head.weight, model.head.weight)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_never_become_random_weights(missing, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=missing):
        vit.load(folder)


def test_weights_of_another_architecture_are_refused(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["depth"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="do not fit"):
        vit.load(folder)
    (folder / "model.safetensors").write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match="do not fit"):
        vit.load(folder)


def test_a_new_head_is_zero_and_has_the_classes(model):
    vit.new_head(model, 7)
    assert model.head.weight.shape == (7, 24)
    assert not vit.logits(model, torch.randn(2, 3, 16, 16)).any()


def test_a_drawn_head_is_that_of_torch_and_of_its_seed(model):
    heads = []
    for seed in (0, 0, 1):
        vit.new_head(model, 2000, seed)
        heads.append(model.head.weight.detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    like = torch.nn.Linear(24, 2000)
    for drawn, theirs in zip(model.head.parameters(), like.parameters(), strict=True):
        assert drawn.abs().max() <= 24**-0.5
        assert drawn.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


def test_features_are_tokens_after_the_last_block(model):
    images = torch.randn(2, 3, 16, 16)
    tokens = model.blocks(vit.embed(model, images))
    torch.testing.assert_close(vit.features(model, images, "mean"), tokens.mean(dim=1))
    torch.testing.assert_close(vit.features(model, images, "class"), tokens[:, 0])
    with pytest.raises(InputError, match="no class token"):
        vit.features(small_vit(class_token=False, global_pool="avg"), images, "class")
