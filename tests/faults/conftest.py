"""What the tests of faults share."""

import pytest
from one_cell import Cell


@pytest.fixture
def cell(smoke, warm_worker, tmp_path):
    """A `Cell` that has not been run."""
    return Cell(tmp_path, smoke)


@pytest.fixture(scope="session")
def undisturbed(smoke, warm_worker, tmp_path_factory):
    """The numbers of that cell when nothing happens to it."""
    cell = Cell(tmp_path_factory.mktemp("undisturbed"), smoke)
    cell.run()
    return cell.numbers()
