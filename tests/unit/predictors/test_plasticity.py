"""Rates of change: golden numbers, the plain definition, values known by hand, and what has no rate."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_vit import VARIANTS, as_called, small_vit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vit_plasticity import plasticity as program
from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.predictors import plasticity, points
from vit_plasticity.vit.components import MEASURABLE
from vit_plasticity.vit.fetch import SHIPPED

GOLDEN = Path(__file__).parents[2] / "data" / "plasticity_tiny"


def pairs(n=5, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, size, size, generator=generator).unbind(0)


def plain(model, source, target, component):
    """The definition, word by word: both images through the component of each block."""
    x, y = vit.embed(model, source), vit.embed(model, target)
    rates = []
    for block, f in zip(model.blocks, as_called(model, component), strict=True):
        a, b = x, y
        if component == "fc2":
            a, b = (nn.functional.pad(t, (0, block.mlp.fc2.in_features - t.shape[-1])) for t in (x, y))
        rates.append((f(a) - f(b)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1))
    return torch.stack(rates).double().detach()


@pytest.mark.parametrize("component", MEASURABLE)
def test_the_number_of_threads_changes_no_more_than_rounding(component):
    """So that what the default study measures is the same on every machine."""
    model = vit.load(SHIPPED / "vit_mini")
    source, target = torch.randn(2, 40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    before, rates = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rates.append(plasticity.rates_of_change(model, source, target, component))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*rates, rtol=1e-6, atol=0)


@pytest.mark.parametrize("component", MEASURABLE)
def test_golden_rates(component):
    arguments = json.loads((GOLDEN / "model.json").read_text())
    norm = functools.partial(nn.LayerNorm, eps=arguments.pop("layer_norm_eps"))
    model = VisionTransformer(**arguments, norm_layer=norm).eval()
    model.load_state_dict(load_file(GOLDEN / "model.safetensors"))
    images, expected = np.load(GOLDEN / "pairs.npz"), np.load(GOLDEN / "expected.npz")
    source, target = torch.from_numpy(images["source"]), torch.from_numpy(images["target"])
    rates = plasticity.rates_of_change(model, source, target, component)
    assert rates.dtype == torch.float64
    np.testing.assert_allclose(rates.numpy(), expected[component], rtol=1e-5)


@pytest.mark.parametrize("component", MEASURABLE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_shortcuts_equal_the_definition(variant, component):
    model = small_vit(**VARIANTS[variant])
    source, target = pairs()
    rates = plasticity.rates_of_change(model, source, target, component)
    torch.testing.assert_close(rates, plain(model, source, target, component), rtol=1e-5, atol=0)


@pytest.mark.parametrize("component", MEASURABLE)
def test_chunks_of_pairs_change_nothing(component, monkeypatch):
    source, target = pairs(7)
    whole = plasticity.rates_of_change(small_vit(), source, target, component)
    monkeypatch.setattr(plasticity, "CHUNK_BYTES", 1)
    one_by_one = plasticity.rates_of_change(small_vit(), source, target, component)
    torch.testing.assert_close(whole, one_by_one, rtol=1e-6, atol=0)


@pytest.mark.parametrize("component", MEASURABLE)
def test_one_source_serves_many_targets(component, model):
    source, first = pairs(seed=1)
    _, second = pairs(seed=2)
    together = plasticity.rates_of_change_to_each(model, source, [first, second], component)
    for rates, target in zip(together, (first, second), strict=True):
        torch.testing.assert_close(rates, plasticity.rates_of_change(model, source, target, component))


def test_rates_known_by_hand(model):
    """A multiple of an isometry changes at that multiple; attention that projects to nothing, not at all."""
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight.copy_(3 * torch.eye(96, 24))
            block.mlp.fc2.weight.copy_(torch.cat([-2 * torch.eye(24), 7 * torch.ones(24, 72)], dim=1))
            block.attn.proj.weight.zero_()
    source, target = pairs()
    assert plasticity.rates_of_change(model, source, target, "fc1").numpy() == pytest.approx(3, rel=1e-6)
    # The padded part of fc2 meets only zeros.
    assert plasticity.rates_of_change(model, source, target, "fc2").numpy() == pytest.approx(2, rel=1e-6)
    assert plasticity.rates_of_change(model, source, target, "mha").abs().max() == 0


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(-8, 8).filter(lambda s: abs(s) > 0.01), component=st.sampled_from(["ln1", "ln2", "fc1", "fc2"]))
def test_rates_scale_with_the_weights(scale, component):
    model, (source, target) = small_vit(), pairs()
    before = plasticity.rates_of_change(model, source, target, component)
    with torch.no_grad():
        for block in model.blocks:
            vit.family(model).parts(block, component)[0].weight.mul_(scale)
    after = plasticity.rates_of_change(model, source, target, component)
    torch.testing.assert_close(after, abs(scale) * before, rtol=1e-5, atol=0)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), component=st.sampled_from(MEASURABLE))
def test_pairs_are_independent_and_symmetric(order, component):
    model, (source, target) = small_vit(), pairs()
    rates = plasticity.rates_of_change(model, source, target, component)
    shuffled = plasticity.rates_of_change(model, target[order], source[order], component)
    torch.testing.assert_close(shuffled, rates[:, order], rtol=1e-5, atol=0)


@pytest.mark.parametrize("component", ["embed", "full", "mha+fc1", "attn"])
def test_components_without_a_rate_are_refused(component, model):
    with pytest.raises(ValueError, match="no rate of change is defined"):
        plasticity.rates_of_change(model, *pairs(), component)


def test_pairs_that_do_not_fit_are_refused(model):
    source, target = pairs()
    with pytest.raises(ValueError, match="same embedding"):
        plasticity.rates_of_change(model, source, source, "fc1")
    with pytest.raises(ValueError, match="must agree"):
        plasticity.rates_of_change(model, source, target[:2], "fc1")


def test_a_target_has_the_same_rates_beside_any_others(model, dataset):
    """Also where each stops at its own look."""
    source, targets = dataset.split("train"), [(dataset.split(name), name == "train") for name in ("test", "train")]
    params = SimpleNamespace(pairs=200, seed=0, relative_width=0.17)
    together = plasticity.measure(model, source, targets, "mha", params)
    alone = [plasticity.measure(model, source, [target], "mha", params)[0] for target in targets]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.rates, other.rates)
        assert np.array_equal(one.target_image, other.target_image)
    assert len({one.rates.shape[1] for one in together}) == 2


def test_files_say_which_images_make_a_pair(model_folder, dataset_folder, tmp_path):
    """Rates of a pair are those of the images named; the source itself as a target is told by its fingerprint."""
    outputs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    program.main([
        "--model", str(model_folder), "--source", str(dataset_folder), "--component", "fc1",
        "--params", '{"pairs": 70}', "--output", *map(str, outputs),
        "--targets", str(dataset_folder), str(dataset_folder),
    ])  # fmt: skip
    table, test = pq.read_table(outputs[0]).to_pandas(), datasets.open_dataset(dataset_folder).split("test")
    assert table.equals(pq.read_table(outputs[1]).to_pandas())
    columns = ["model", "dataset", "component", "block", "pair", "source_image", "target_image", "rate"]
    assert list(table.columns) == columns
    model, some = vit.load(model_folder), table[table["pair"].eq(69)]
    x, y = (points.images(model, test, some[side][:1]) for side in ("source_image", "target_image"))
    np.testing.assert_allclose(some["rate"], program.rates_of_change(model, x, y, "fc1")[:, 0], rtol=1e-5)
    inputs = tables.about(outputs[0])["inputs"]
    assert inputs["source"] == inputs["dataset"] != inputs["model"]
    assert (table["source_image"] != table["target_image"]).all()


def test_as_many_outputs_as_targets(capsys):
    with pytest.raises(SystemExit):
        program.main(["--model", "m", "--source", "s", "--targets", "a", "b", "--component", "fc1", "--output", "one"])
    assert "2 --targets and 1 --output files" in capsys.readouterr().err


@given(n_source=st.integers(1, 40), n_target=st.integers(1, 40), n=st.integers(1, 100), seed=st.integers(0, 9))
def test_pairs_use_images_evenly_and_one_source_sample(n_source, n_target, n, seed):
    params = SimpleNamespace(pairs=n, seed=seed)
    source, target = points.pair_indices(n_source, n_target, params)
    for indices, size in ((source, n_source), (target, n_target)):
        counts = np.bincount(indices, minlength=size)
        assert len(indices) == n
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(source, points.pair_indices(n_source, n_target + 1, params)[0])


@given(n=st.integers(2, 20), pairs=st.integers(1, 60), seed=st.integers(0, 9))
def test_an_image_never_meets_itself(n, pairs, seed):
    params = SimpleNamespace(pairs=pairs, seed=seed)
    source, target = points.pair_indices(n, n, params, same_images=True)
    assert (source != target).all()
    assert len(source) == len(target) == pairs
