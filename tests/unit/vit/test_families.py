"""Which of timm's models can be studied: the paper's, and others of the Vision Transformer family; none outside of it.

None of their weights are needed: an architecture is built on torch's meta device, or small and at random.
"""

import pytest
import timm
import torch
import yaml
from processes import ROOT
from small_cells import finetuned
from small_vit import FAMILIES, as_called, small_vit
from torch.nn import functional

from vit_plasticity import evaluate, plasticity, vit
from vit_plasticity.analysis import tables
from vit_plasticity.data.downloads import Source
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import families
from vit_plasticity.vit import fetch as fetch_models
from vit_plasticity.vit.components import MEASURABLE, parse

STUDIES = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "workflow" / "studies").glob("paper*.yaml"))]
PAPER = sorted({entry["timm"] for study in STUDIES for entry in study["catalog"]["models"].values()})
FAMILY = {
    "vit_small_patch16_224.augreg_in21k": 16,
    "deit_small_patch16_224.fb_in1k": 16,
    "deit3_small_patch16_224.fb_in22k_ft_in1k": 16,
    "vit_base_patch16_224.mae": 16,
    "vit_small_patch16_224.dino": 16,
    "vit_small_patch14_dinov2.lvd142m": 14,
    "vit_small_patch14_reg4_dinov2.lvd142m": 14,
    "vit_base_patch16_siglip_224.webli": 16,
    "vit_base_patch16_clip_224.openai": 16,
    "vit_little_patch16_reg1_gap_256.sbb_in12k": 16,
    "vit_giant_patch14_dinov2.lvd142m": 14,
    "deit_small_distilled_patch16_224.fb_in1k": 16,
    "vit_small_patch16_dinov3.lvd1689m": 16,
    "vit_huge_plus_patch16_dinov3.lvd1689m": 16,
    "eva02_tiny_patch14_224.mim_in22k": 14,
    "eva02_base_patch14_224.mim_in22k": 14,
    "eva_giant_patch14_224.clip_ft_in1k": 14,
    "vit_pe_core_tiny_patch16_384.fb": 16,
    "beit_base_patch16_224.in22k_ft_in22k": 16,
    "beitv2_base_patch16_224.in1k_ft_in22k": 16,
}
"""Tag of timm → side of a patch in pixels."""
OUTSIDE = {
    "swin_tiny_patch4_window7_224.ms_in1k": "is a SwinTransformer",
    "convnext_tiny.fb_in1k": "is a ConvNeXt",
    "eva02_enormous_patch14_clip_224.laion2b": r"has a EvaBlockPostNorm at blocks\.0",
    "vitamin_small_224.datacomp1b_clip": r"has a HybridEmbed|is a |has a ",
    "vit_srelpos_small_patch16_224.sw_in1k": "is a VisionTransformerRelPos",
}


def on_meta(tag):
    with torch.device("meta"):
        return timm.create_model(tag)


def small(tag, patch):
    """The architecture of a tag with two blocks, 24 channels and four patches; every parameter at random."""
    torch.manual_seed(0)
    model = timm.create_model(tag, img_size=2 * patch, embed_dim=24, depth=2, num_heads=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_the_paper_has_three_models():
    assert [tag.split("_patch")[0] for tag in PAPER] == ["vit_base", "vit_huge", "vit_large"]
    assert all(tag.endswith("_224.orig_in21k") for tag in PAPER)


@pytest.mark.parametrize("tag", [*PAPER, *FAMILY])
def test_a_model_of_the_family_has_every_component_in_every_block(tag):
    model = on_meta(tag)
    families.check(model, tag)
    size = vit.preprocessing(model).size
    vit.new_head(model, 7)
    for component in MEASURABLE:
        own = {id(p) for part in parse(component).modules(model) for p in part.parameters()}
        names = vit.train_only(model, component)
        trained = {id(p) for name, p in model.named_parameters() if name in names and name.startswith("blocks.")}
        assert own == trained and len(own) >= 2 * len(model.blocks)
    assert vit.logits(model, torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


@torch.no_grad()
def rates_by_definition(model, x, y, component):
    """‖f(x) − f(y)‖ / ‖x − y‖ of tokens x, y (N, L, D), with all outputs kept: (n_blocks, N)."""
    distance = (x - y).flatten(1).norm(dim=1)
    rates = []
    for block, f in zip(model.blocks, as_called(model, component), strict=True):
        width = block.mlp.fc2.in_features if component == "fc2" else x.shape[-1]
        fx, fy = (f(functional.pad(tokens, (0, width - tokens.shape[-1]))) for tokens in (x, y))
        rates.append((fx - fy).flatten(1).norm(dim=1) / distance)
    return torch.stack(rates).double()


@pytest.mark.parametrize(("tag", "patch"), FAMILY.items())
def test_the_rates_of_a_family_are_those_of_the_definition(tag, patch):
    model = small(tag, patch)
    source, target = torch.randn(2, 3, 3, 2 * patch, 2 * patch)
    with torch.no_grad():
        x, y = vit.embed(model, source), vit.embed(model, target)
    for component in MEASURABLE:
        expected = rates_by_definition(model, x, y, component)
        rates = plasticity.rates_of_change(model, source, target, component)
        torch.testing.assert_close(rates, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("tag", "reason"), OUTSIDE.items())
def test_a_model_outside_the_families_is_refused_by_name_before_any_download(tag, reason, tmp_path):
    with pytest.raises(InputError, match=rf"'{tag}' {reason}.*; what can be studied is .*a timm "):
        fetch_models.fetch_model("m", {"timm": tag}, tmp_path / "m", Source(tmp_path, mirror="/nowhere"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_work_in_every_layer_of_every_family(family):
    """Some models read the weight of qkv and never call its module: there an adapter would do nothing."""
    model, images = small_vit(**FAMILIES[family]), torch.randn(2, 3, 16, 16)
    before = vit.logits(model, images)
    vit.train_only(model, "lora2:mha+ffn")
    torch.testing.assert_close(vit.logits(model, images), before)
    for name, parameter in parse("lora2:mha+ffn").parameters(model).items():
        if ".lora_B." in name:
            with torch.no_grad():
                parameter.normal_()
            assert not torch.allclose(vit.logits(model, images), before), name
            with torch.no_grad():
                parameter.zero_()


@pytest.mark.parametrize("component", ["mha", "fc1@1", "lora2:qkv", "full"])
@pytest.mark.parametrize("family", ["distilled", "dinov3 with swiglu", "eva02", "beit"])
def test_a_cell_of_every_family_is_trained_restored_and_evaluated(family, component, dataset_folder, tmp_path):
    vit.save(small_vit(**FAMILIES[family]), tmp_path / "model", {"test": True})
    runs = finetuned(tmp_path, tmp_path / "model", dataset_folder, component)
    output = tmp_path / "shifted.parquet"
    command = ["--model", tmp_path / "model", "--runs", runs, "--on", dataset_folder, "--output", output]
    evaluate.main([*map(str, command), "--device", "cpu"])
    (chosen,) = (row for row in tables.read_many([runs])[0].to_pylist() if row["chosen"])
    (row,) = tables.read_many([output])[0].to_pylist()
    assert row["accuracy"] == chosen["test_accuracy"]
