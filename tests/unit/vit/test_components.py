"""The vocabulary of components: one name for each set of parameters, and what the names train."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import components
from vit_plasticity.vit.components import parse

DEPTH = 4
MODEL = small_vit(depth=DEPTH, init_values=0.1, qk_norm=True)
ALWAYS = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
SPARE = {"bias", "embed", "full", "head"}

RIGHT = {
    "qkv+proj": "mha",
    "ln1+ln2": "norm",
    "fc1+fc2": "ffn",
    "ln1+mha+ln2": "mha+norm",
    "mha+qkv": "mha",
    "bias+qkv@3+bias@2": "qkv@3+bias",
    "mha@0-2+mha@3-5": "mha@0-5",
    "mha@0+mha@1": "mha@0-1",
    "mha@0-2+mha@2-5": "mha@0-5",
    "mha@3-5+mha@0-1": "mha@0-1+mha@3-5",
    "mha+mha@3": "mha",
    "mha@3-3": "mha@3",
    "mha@03": "mha@3",
    "qkv@0-5+proj@0-5": "mha@0-5",
    "ln1@2+ln2@2": "norm@2",
    "norm@0-1+ln2@2": "ln1@0-1+ln2@0-2",
    "mha@1+norm@1+ffn@1+bias@0-2": "mha@1+norm@1+ffn@1+bias@0+bias@2",
    "mha+norm+ffn+embed": "full",
}
"""What is refused → what it is called."""


@pytest.mark.parametrize(("name", "right"), RIGHT.items())
def test_another_name_is_refused_with_the_right_one(name, right):
    with pytest.raises(ValueError, match=rf"{re.escape(right)}($|;)"):
        parse(name)
    assert parse(right).name == right


def term():
    where = st.tuples(st.integers(0, DEPTH - 1), st.integers(0, DEPTH - 1)).map(lambda pair: tuple(sorted(pair)))
    whole = st.sampled_from(sorted({*components.LABELS} - {"full", "head"}))
    return whole | st.tuples(st.sampled_from(components.IN_BLOCKS), where).map(lambda t: f"{t[0]}@{t[1][0]}-{t[1][1]}")


@given(st.lists(term(), min_size=1, max_size=5), st.randoms())
def test_any_sum_has_one_name_that_trains_the_same(terms, random):
    right = _right("+".join(terms))
    shuffled = random.sample(terms, len(terms))
    assert _right("+".join([*shuffled, *random.choices(terms)])) == right
    assert re.fullmatch(components.PATTERN, right)
    expected = {name for one in terms for name in parse(_right(one)).parameters(MODEL)}
    if right == "full":  # with layer scale more than the sum
        assert expected < parse(right).parameters(MODEL).keys()
    else:
        assert parse(right).parameters(MODEL).keys() == expected


def _right(name):
    try:
        return parse(name).name
    except ValueError as error:
        return re.search(r"(?:called|order:) ([^;]+)", str(error)).group(1)


@pytest.mark.parametrize("id", components.IN_BLOCKS)
def test_disjoint_ranges_train_the_whole(id):
    low, high, whole = (parse(f"{id}{blocks}").parameters(MODEL) for blocks in ("@0-1", "@2-3", ""))
    assert not low.keys() & high.keys()
    everywhere = {"patch_embed.proj.bias"} if id == "bias" else set()
    assert low.keys() | high.keys() | everywhere == whole.keys()
    assert all(name.startswith(("blocks.0.", "blocks.1.")) for name in low)


def test_what_each_id_trains():
    named = dict(MODEL.named_parameters())
    expected = {
        "qkv": {n for n in named if ".attn." in n and ".proj." not in n},
        "proj": {n for n in named if ".attn.proj." in n},
        "mha": {n for n in named if ".attn." in n},
        "norm": {n for n in named if ".norm1." in n or ".norm2." in n},
        "ffn": {n for n in named if ".mlp." in n},
        "bias": {n for n in named if n.endswith("bias")} - ALWAYS,
        "head": set(),
        "full": named.keys() - ALWAYS,
        "fc1@2+embed": {n for n in named if n.startswith(("blocks.2.mlp.fc1", "patch_embed", "cls", "pos"))},
    }
    for name, names in expected.items():
        assert parse(name).parameters(MODEL).keys() == names, name
        assert set(vit.train_only(MODEL, name)) == names | ALWAYS, name
        assert all(p is named[n] for n, p in parse(name).parameters(MODEL).items())


WRONG = ["", "attn", "MHA", "mha+", "mha+mha", "full+mha", "head+mha", "fc1+mha", "mha, fc1", "mha@", "mha@-1",
         "mha@1-", "mha@5-3", "mha@0-1-2", "mha@@1", "embed@0", "full@0-5", "head@1", "mha@1000", "mha/0", "mha~0",
         "mha~", "mha@٣"]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_component_is_refused(wrong):
    with pytest.raises(ValueError, match="component"):
        parse(wrong)


@pytest.mark.parametrize("name", ["mha@4", "mha@2-4", "mha@0+bias@4"])
def test_blocks_that_the_model_does_not_have_are_refused(name):
    for use in (parse(name).parameters, lambda model: vit.train_only(model, name), lambda _: parse(name).blocks(DEPTH)):
        with pytest.raises(InputError, match="the model's blocks are 0 to 3"):
            use(MODEL)


def test_what_a_component_answers():
    assert parse("mha") is parse("mha")
    assert parse("mha").measurable and not parse("mha@0").measurable and not parse("norm").measurable
    bases = {"mha": "mha", "mha@0-2": "mha", "mha@0+mha@2": "mha", "mha+fc1": None, "qkv": None, "full": None}
    assert {name: one and one.name for name, one in ((n, parse(n).base) for n in bases)} == bases
    assert components.measurable(["fc1@0", "full", "fc1@1", "ln1"]) == ["fc1", "ln1"]
    names = ["mha@0-1+mha@3", "embed", "head", "full", "ffn"]
    assert [parse(name).blocks(4) for name in names] == [[0, 1, 3], [], [], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert [part.name for part in parse("mha@0-1+fc1").parts] == ["mha@0-1", "fc1"]
    assert [parse(name).label for name in ("mha+fc1", "mha@0-5", "ln1@3")] == ["MHA+FC1", "MHA 0-5", "LN1 3"]
    assert sorted(["mha+fc1", "full", "fc2", "mha@1", "mha@0-5", "mha", "ln1"], key=lambda name: parse(name).order) == [
        "ln1", "mha", "mha@0-5", "mha@1", "fc2", "full", "mha+fc1",
    ]  # fmt: skip


def test_modules_are_those_of_the_blocks():
    assert parse("fc1@1-2").modules(MODEL) == [MODEL.blocks[1].mlp.fc1, MODEL.blocks[2].mlp.fc1]
    assert len(parse("mha").modules(MODEL)) == DEPTH
    assert parse("ffn").modules(MODEL) is None


def test_an_update_of_ranges_is_that_of_the_whole():
    """One step on blocks 0-1 and 2-3 moves each tensor to the bit as a step on all does."""
    images = torch.randn(2, 3, 16, 16)
    gradients = []
    for name in ("mha", "mha@0-1", "mha@2-3"):
        vit.train_only(MODEL, name)
        MODEL.zero_grad()
        vit.logits(MODEL, images).square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in parse(name).parameters(MODEL).items()})
    whole, *ranges = gradients
    for name, gradient in {**ranges[0], **ranges[1]}.items():
        assert torch.equal(whole[name], gradient), name


def test_a_mask_chooses_as_many_values_of_each_block_and_a_larger_one_contains_it():
    model = small_vit()
    chosen = []
    for size in (10, 200):
        vit.train_only(model, f"mha~{size}")
        masks = {name: mask.mask.clone() for name, mask in model.masks.items()}
        for block in range(2):
            assert sum(int(m.sum()) for name, m in masks.items() if name.startswith(f"blocks.{block}.")) == size
        chosen.append(masks)
    assert all((large | small).equal(large) for small, large in zip(*(c.values() for c in chosen), strict=True))
    assert not chosen[1]["blocks.0.attn.qkv.weight"].equal(chosen[1]["blocks.1.attn.qkv.weight"])
    vit.train_only(model, "mha")
    assert not model.masks
    with pytest.raises(InputError, match="it has 48 values in block 0"):
        vit.train_only(model, "ln1~49")


@pytest.mark.parametrize(
    "name", ["mha+fc1~3", "lora2:mha~3", "bias~3", "full~3", "embed~3", "head~3", "mha~03", "norm~3~3"]
)
def test_masks_are_of_one_term_in_blocks(name):
    with pytest.raises(ValueError, match="component"):
        parse(name)
    assert parse("mha@0-5~1536").base.name == "mha" and parse("norm~3").base is None


def test_an_adaptive_component_is_named_and_has_no_parameters_before_it_is_resolved():
    one = parse("auto:plasticity_in_situ:2")
    assert (one.auto, one.terms, one.base, one.measurable) == (("plasticity_in_situ", 2), (), None, False)
    assert (one.label, one.parts, parse("mha").auto) == ("Auto-2 plasticity in situ", (), None)
    assert re.fullmatch(components.PATTERN, one.name)
    names = ["mha", "mha+fc1", "mha~8", "lora2:mha", "auto:bound:1", "auto:bound:10", "auto:random:1"]
    assert sorted(reversed(names), key=lambda name: parse(name).order) == names
    for use in (one.parameters, lambda model: vit.train_only(model, one.name)):
        with pytest.raises(InputError, match="chosen for a model and a dataset"):
            use(MODEL)


@pytest.mark.parametrize(
    "name",
    ["", "bound", "bound:", "bound:0", "bound:01", "bound:100", "bound:1~3", "bound:1+mha", "Bound:1", "bound:1\n"],
)
def test_what_is_no_adaptive_component_is_refused_with_an_example(name):
    with pytest.raises(ValueError, match=r"write auto:PREDICTOR:NUMBER, from 1 to 99, such as auto:plasticity:2"):
        parse(f"auto:{name}")


SINGLE = [f"{id}{blocks}" for id in ("ln1", "mha", "qkv", "proj", "fc1") for blocks in ("", "@0", "@1-2")]


@pytest.mark.parametrize("one", SINGLE)
def test_components_overlap_where_they_share_parameters_and_their_union_trains_both(one):
    for other in SINGLE:
        a, b = parse(one), parse(other)
        names = [set(component.parameters(MODEL)) for component in (a, b)]
        assert a.overlaps(b) == bool(names[0] & names[1]), other
        assert set(components.union([a, b]).parameters(MODEL)) == names[0] | names[1], other
