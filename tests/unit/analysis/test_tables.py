"""Tables: whole or absent, with key and provenance, never mixed."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vit_plasticity.analysis import tables
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.files import atomic


def write(path, value=1.0, **changes):
    about = {"study": "s", "stage": "probe", "rev": 1, "key": {"model": "m", "seed": 0}}
    tables.write(path, [{"accuracy": value}], **about | changes)
    return path


def test_key_and_provenance_travel_with_the_rows(tmp_path):
    path = write(tmp_path / "deep" / "a.parquet", device="a GPU")
    assert pq.read_table(path).to_pylist() == [{"model": "m", "seed": 0, "accuracy": 1.0}]
    about = tables.about(path)
    assert (about["study"], about["stage"], about["rev"], about["key"]) == ("s", "probe", 1, {"model": "m", "seed": 0})
    source = about["provenance"]
    assert source["device"] == "a GPU"
    assert {"git_commit", "git_dirty", "packages", "python"} <= source.keys()


def test_many_tables_become_one_in_their_order(tmp_path):
    paths = [write(tmp_path / f"{i}.parquet", float(i), key={"model": "m", "seed": i}) for i in range(20)]
    table, abouts = tables.read_many(reversed(paths))
    assert table["seed"].to_pylist() == [*reversed(range(20))]
    assert [about["key"]["seed"] for about in abouts] == [*reversed(range(20))]


def test_what_is_no_table_of_ours_is_refused(tmp_path):
    with pytest.raises(InputError, match="no table to read"):
        tables.read_many([])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="not a table of this project"):
        tables.read_many([tmp_path / "foreign.parquet"])
    (tmp_path / "cut.parquet").write_bytes(write(tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        tables.read_many([tmp_path / "cut.parquet"])


def test_a_key_column_is_not_given_twice(tmp_path):
    with pytest.raises(ValueError, match="part of the key"):
        tables.write(tmp_path / "a", [{"model": "x"}], study="s", stage="p", rev=1, key={"model": "m"})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "new")]
