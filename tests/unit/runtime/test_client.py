"""The warm worker's client where its socket has an awkward address, or no place."""

import os
import sys
import tempfile
import time

import pytest

from vit_plasticity.runtime import client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm worker on Linux only")


def test_a_worker_is_reached_below_a_long_tmpdir(tmp_path, monkeypatch):
    """Longer than the 107 bytes of a socket's address."""
    folder = tmp_path / ("é" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv(client.VARIABLE, "")
    client.start_worker()
    process = client.start_worker.process
    # A job is a child of Snakemake; here this process is both.
    monkeypatch.setattr(client, "_ancestors", lambda: [os.getpid()])
    try:
        while (connection := client._connect()) is None:
            assert process.poll() is None, "the worker ended"
            time.sleep(0.05)
        connection.close()
    finally:
        process.stdin.close()
        process.wait()
    assert not [*folder.iterdir()]


def test_without_a_temporary_folder_there_is_no_worker_but_a_word(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    monkeypatch.setenv(client.VARIABLE, "")
    client.start_worker()
    assert os.environ[client.VARIABLE] == ""
    assert "no warm worker" in capsys.readouterr().err
