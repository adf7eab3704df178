"""`make mutations` is run by hand: what it names must be there when it is."""

import pytest
from processes import ROOT

from tests.mutations import MUTATIONS


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.breaks)
def test_a_mutation_names_a_text_and_a_test_that_are_there(mutation):
    assert (ROOT / "src" / "vit_plasticity" / mutation.file).read_text().count(mutation.old) == 1
    file, _, test = mutation.test.partition("::")
    assert f"\ndef {test.partition('[')[0]}(" in (ROOT / file).read_text()
