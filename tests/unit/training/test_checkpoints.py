"""Checkpoints: verified, of one key, streamed, and no oftener than they cost a twentieth of the time."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import safetensors.torch
import torch

from vit_plasticity.training import checkpoints

TENSORS = {
    "half": torch.arange(5).bfloat16(),
    "count": torch.tensor(7.0),
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False]),
    "long": torch.arange(6, dtype=torch.int64).reshape(2, 3),
    "strided": torch.arange(12.0).reshape(3, 4).T,
}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with two generations, of steps 1 and 2."""
    made = checkpoints.Checkpoint(tmp_path / "a.checkpoint", "key", tmp_path / "a.previous")
    assert made.load() is None
    for step in (1, 2):
        made.save({"x": torch.full((3,), float(step))}, {"step": step})
    return made


def test_tensors_of_every_kind_come_back_and_others_can_read_them(tmp_path):
    checkpoints.write(tmp_path / "f", TENSORS, "key", {"step": 1})
    tensors, state = checkpoints.read(tmp_path / "f", "key")
    ours, theirs = dict(tensors), safetensors.torch.load_file(tmp_path / "f")
    assert state == {"step": 1}
    assert ours.keys() == theirs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert ours[name].dtype == theirs[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)
        assert torch.equal(theirs[name], tensor)


DAMAGES = {
    "no byte": lambda data: b"",
    "one byte": lambda data: data[:1],
    "header only": lambda data: data[:60],
    "last byte missing": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "byte too many": lambda data: data + b"\0",
    "first byte flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "checksum flipped": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "last byte flipped": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "middle byte flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "other digest": lambda data: data.replace(data[data.index(b'256": "') + 7 :][:64], b"f" * 64),
    "zeros": lambda data: bytes(len(data)),
    "pickle": lambda data: b"\x80\x04cos\nsystem\n.",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoint, damage, capsys):
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    tensors, state = checkpoint.load()
    assert state == {"step": 1}
    assert dict(tensors)["x"].tolist() == [1.0] * 3
    assert f"checkpoint {checkpoint.path} refused (" in capsys.readouterr().err


def test_a_checkpoint_of_another_key_is_refused_and_removed(checkpoint, capsys):
    other = checkpoints.Checkpoint(checkpoint.path, "other", checkpoint.previous)
    assert other.load() is None
    assert "it belongs to key, not to other" in capsys.readouterr().err
    assert not checkpoint.path.exists()
    assert not checkpoint.previous.exists()


def test_a_second_name_or_a_copy(tmp_path, monkeypatch):
    (tmp_path / "source").write_text("x")
    checkpoints.link(tmp_path / "source", tmp_path / "linked")
    checkpoints.link(tmp_path / "source", tmp_path / "linked")
    assert (tmp_path / "linked").samefile(tmp_path / "source")
    monkeypatch.setattr("pathlib.Path.hardlink_to", _refuse)
    checkpoints.link(tmp_path / "source", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "x"
    assert not (tmp_path / "copied").samefile(tmp_path / "source")
    assert len([*tmp_path.iterdir()]) == 3


def _refuse(*_):
    raise OSError("no hard links here")


@pytest.mark.parametrize(
    ("interval_s", "took_s", "since_s", "due"),
    [(60, 1, 59, False), (60, 1, 61, True), (60, 10, 199, False), (60, 10, 201, True), (0, 10, 0, True)],
)
def test_a_checkpoint_costs_at_most_a_twentieth_of_the_time(interval_s, took_s, since_s, due):
    assert checkpoints.is_due(since_s, interval_s, took_s) is due


MEMORY = """
    import json, sys, torch
    from pathlib import Path
    from vit_plasticity.training import checkpoints
    megabytes = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    reset = lambda: Path("/proc/self/clear_refs").write_text("5")
    path, used = Path(sys.argv[1]), []
    tensors = {f"{kind}/{i}": torch.full((1_250_000,), 1.0) for kind in "abc" for i in range(10)}
    for work in (
        lambda: checkpoints.write(path, tensors, "key", {}),
        lambda: [tensors[name].copy_(tensor) for name, tensor in checkpoints.read(path, "key")[0]],
    ):
        reset()
        before = megabytes()
        work()
        used.append(megabytes() - before)
    print(json.dumps(used))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_saving_and_loading_take_less_than_one_copy_of_what_trains(tmp_path):
    """Three groups of 50 MB, as trained tensors, best tensors and momentum: one more is more than is allowed."""
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / "f")]
    # The C library gives back each tensor that is freed, rather than learning to keep some.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    used = json.loads(done.stdout)
    assert max(used) < 50, used
