"""The vocabulary of components."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_plasticity.vit import components


@given(st.sets(st.sampled_from([c for c in components.COMPONENTS if c != "full"]), min_size=1))
def test_each_set_of_ids_has_exactly_one_name(ids):
    name = "+".join(i for i in components.COMPONENTS if i in ids)
    assert set(components.parts(name)) == ids
    if len(ids) > 1:
        with pytest.raises(ValueError, match="in this order"):
            components.parts("+".join(reversed(name.split("+"))))


@pytest.mark.parametrize("wrong", ["", "attn", "MHA", "mha+", "mha+mha", "full+mha", "fc1+mha", "mha, fc1"])
def test_what_is_no_component_is_refused(wrong):
    with pytest.raises(ValueError, match="component"):
        components.parts(wrong)


def test_labels_are_for_figures():
    assert components.label("mha+fc1") == "MHA+FC1"
    assert components.BLOCK_COMPONENTS == ("ln1", "mha", "ln2", "fc1", "fc2")
