"""The printed lines of Python, run: they train what they say and nothing else."""

import pytest
import torch
from small_vit import FAMILIES, small_vit

from vit_plasticity import vit
from vit_plasticity.advice import choices, code


def run(lines):
    """The model that the lines make."""
    variables = {}
    exec("\n".join(lines), variables)
    return variables["model"]


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("component", ["mha", "fc1", "ln1", "mha+fc1", "full"])
def test_the_lines_train_the_parameters_of_a_component(component, model_folder):
    model = small_vit()
    names = vit.train_only(model, component)
    create = code.create_line(f"local-dir:{model_folder}", 3)
    lines = code.training_lines(create, names, [name for name, _ in model.named_parameters()])
    assert trained(run(lines)) == names
    assert len(lines) < 35


def test_blocks_that_are_alike_share_a_pattern_and_a_range_of_blocks_does_not():
    every = [f"blocks.{i}.attn.proj.{kind}" for i in range(3) for kind in ("weight", "bias")] + ["head.weight"]
    lines = code.training_lines("model = None", every, every)
    assert [line.strip() for line in lines if "attn" in line] == [
        '"blocks.*.attn.proj.weight",',
        '"blocks.*.attn.proj.bias",',
    ]
    lines = code.training_lines("model = None", every[:2], every)
    assert [line.strip() for line in lines if "attn" in line] == [f'"{name}",' for name in every[:2]]


def test_the_lines_for_adapters_put_them_on_the_modules_named_alone(model_folder):
    pytest.importorskip("peft")
    modules = ["blocks.1.attn.qkv", "blocks.1.attn.proj"]
    create = code.create_line(f"local-dir:{model_folder}", 3)
    names = trained(run(code.lora_lines([create], 4, 8, modules, ["norm", "head"])))
    adapted = {name.split("base_model.model.")[1].split(".lora_")[0] for name in names if ".lora_" in name}
    assert adapted == set(modules)
    rest = {name.split("base_model.model.")[1].split(".")[0] for name in names if ".lora_" not in name}
    assert rest == {"norm", "head"}


@pytest.mark.parametrize("family", ["eva", "beit", "dinov3", "eva02"])
def test_the_lines_for_adapters_make_a_model_that_calls_them(family, tmp_path):
    """Eva's and Beit's attention with a bias reads the weight of qkv: adapters would be left aside unseen."""
    pytest.importorskip("peft")
    model = small_vit(**FAMILIES[family])
    vit.save(model, tmp_path / "m", {"test": True})
    made = run(choices.describe(model, "lora2:qkv", f"local-dir:{tmp_path / 'm'}", 8).lines)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(made(images), model(images))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    assert not torch.allclose(made(images), model(images))
