"""Downloads against a server on this machine that cuts, lies, stalls and breaks."""

import errno
import hashlib
import multiprocessing
import threading
import time
from functools import partial

import pytest
from fixtures_archives import FileServer

from vit_plasticity.data import downloads
from vit_plasticity.data.downloads import Source
from vit_plasticity.data.registry import RemoteFile
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError

DATA = bytes(range(256)) * 1200  # 300 kB
SIZE = len(DATA)
SHA = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "RETRY", downloads.RETRY.new(total=2, backoff_factor=0.01))
    monkeypatch.setattr(downloads, "CHUNK", 10_000)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.bin").write_bytes(DATA)
    with FileServer(tmp_path / "served") as running:
        yield running


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "downloads")


def remote(server, checksum=f"sha256:{SHA}", size=SIZE, name="data.bin"):
    return RemoteFile(name, f"{server.url}/data.bin" if server else "", checksum, size)


def visible(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("checksum", [f"sha256:{SHA}", f"md5:{MD5}"])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_file_arrives_and_is_not_fetched_again(server, source, checksum, size):
    file = remote(server, checksum, size)
    assert source.get(file).read_bytes() == DATA
    assert source.get(file) == source.folder / "data.bin"
    assert server.requests == [("/data.bin", None)]
    assert visible(source.folder) == {"data.bin"}


def test_a_cut_download_goes_on_where_it_stopped(server, source):
    server.faults += [("cut", 100_000), ("cut", 50_000), ("cut", 0), ("cut", 1)]
    assert source.get(remote(server)).read_bytes() == DATA
    starts = [int(asked.split("=")[1].rstrip("-")) for _, asked in server.requests[1:]]
    assert starts == [100_000, 150_000, 150_000, 150_001]


def test_a_later_process_goes_on_too(server, source):
    server.faults += [("cut", 100_000), ("status", 404)]
    with pytest.raises(InputError, match="404"):
        source.get(remote(server))
    assert not visible(source.folder)
    server.requests.clear()
    assert source.get(remote(server)).read_bytes() == DATA
    assert server.requests == [("/data.bin", "bytes=100000-")]


def test_a_server_without_ranges_starts_over(server, source):
    server.faults += [("cut", 100_000), ("no range",)]
    assert source.get(remote(server)).read_bytes() == DATA


def test_a_rotten_rest_of_an_earlier_download_is_thrown_away(server, source):
    source.folder.mkdir()
    (source.folder / ".data.bin.part").write_bytes(b"rotten" * 1000)
    assert source.get(remote(server)).read_bytes() == DATA
    assert [asked for _, asked in server.requests] == ["bytes=6000-", None]


@pytest.mark.parametrize("size", [len(DATA), None])
@pytest.mark.parametrize("length", [len(DATA), len(DATA) + 10])
def test_a_rest_as_long_as_the_file_or_longer_is_thrown_away(server, source, size, length):
    source.folder.mkdir()
    (source.folder / ".data.bin.part").write_bytes(b"x" * length)
    assert source.get(remote(server, size=size)).read_bytes() == DATA


def test_passing_errors_are_tried_again_and_lasting_ones_are_not(server, source):
    server.faults += [("status", 503), ("status", 429)]
    assert source.get(remote(server)).read_bytes() == DATA
    for code in (401, 403, 404, 410):
        server.faults.append(("status", code))
        with pytest.raises(InputError, match=f"{code}.*--mirror"):
            source.get(remote(server, name=f"other{code}.bin"))


def test_it_gives_up_after_some_tries(server, source):
    server.faults += [("status", 500)] * 10
    with pytest.raises(InputError, match=r"500.*gave up after 3 tries.*Run the same command again"):
        source.get(remote(server))
    assert len(server.requests) == 3


def test_it_waits_as_long_as_the_server_asks(server, source, capsys):
    server.faults += [("status", 503, {"Retry-After": "1"}), ("status", 429, {"Retry-After": "soon"})]
    started = time.monotonic()
    assert source.get(remote(server)).read_bytes() == DATA
    assert time.monotonic() - started >= 1
    said = [line.partition("HTTP status ")[2] for line in capsys.readouterr().err.splitlines()[:2]]
    assert said == ["503 Service Unavailable; trying again in 1 s", "429 Too Many Requests; trying again in 0.02 s"]


def test_pauses_double_and_start_over_once_bytes_came(server, source, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "RETRY", downloads.RETRY.new(total=3, backoff_factor=0.05))
    server.faults += [("drop",), ("drop",), ("cut", 100_000), ("cut", 0), ("cut", 0)]
    assert source.get(remote(server)).read_bytes() == DATA
    said = [line.partition("trying again in ")[2] for line in capsys.readouterr().err.splitlines()[:-1]]
    assert [pause for pause in said if pause] == ["0 s", "0.1 s", "0 s", "0.1 s", "0.2 s"]


def test_a_connection_without_an_answer_and_one_cut_without_a_length_are_tried_again(server, source):
    server.faults += [("drop",), ("untold", 100_000), ("drop",)]
    assert source.get(remote(server)).read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [None, None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize("url", ["gopher://127.0.0.1/data.bin", "data.bin", "http:///data.bin"])
def test_what_is_no_web_address_is_refused_at_once(source, url, capsys):
    with pytest.raises(InputError, match="is the address right"):
        source.get(RemoteFile("data.bin", url, f"sha256:{SHA}"))
    assert "trying again" not in capsys.readouterr().err


def test_a_server_that_is_not_there(source, monkeypatch):
    monkeypatch.setattr(downloads, "RETRY", downloads.RETRY.new(total=0))
    with pytest.raises(InputError, match="Connection refused; gave up after 1 tries"):
        source.get(RemoteFile("data.bin", "http://127.0.0.1:9/data.bin", f"sha256:{SHA}", len(DATA)))


def test_a_stalled_server_counts_as_cut(server, source, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    server.faults += [("slow", 0.4)]
    assert source.get(remote(server)).read_bytes() == DATA


def test_a_web_page_is_refused(server, source):
    server.faults.append(("html",))
    with pytest.raises(InputError, match="web page"):
        source.get(remote(server, size=None))
    assert not visible(source.folder)


def test_wrong_bytes_are_refused_and_removed(server, source):
    (server.folder / "data.bin").write_bytes(DATA[:-1] + b"!")
    with pytest.raises(InputError, match=rf"sha256 \w+, but data.bin has sha256:{SHA}"):
        source.get(remote(server))
    assert not visible(source.folder) and not (source.folder / ".data.bin.part").exists()


def test_another_size_is_refused_before_it_is_fetched(server, source):
    with pytest.raises(InputError, match="offers 307200 bytes, but the file has 307201"):
        source.get(remote(server, size=len(DATA) + 1))


def test_a_file_that_was_there_is_verified_and_left_alone(server, source):
    source.folder.mkdir()
    (source.folder / "data.bin").write_bytes(DATA[:-1] + b"!")
    with pytest.raises(InputError, match="Remove it to fetch it again"):
        source.get(remote(server))
    assert (source.folder / "data.bin").read_bytes()[-1:] == b"!"
    (source.folder / "data.bin").write_bytes(DATA)
    assert source.get(remote(server)).read_bytes() == DATA
    assert not server.requests


def test_without_a_checksum_the_first_download_is_trusted_and_kept_to(server, source, capsys):
    file = remote(server, checksum="", size=None)
    source.get(file)
    assert f"trusting this one from now on: {SHA}" in capsys.readouterr().err
    assert (source.folder / "data.bin.sha256").read_text() == f"{SHA}  data.bin\n"
    (source.folder / "data.bin").unlink()
    (server.folder / "data.bin").write_bytes(b"another")
    with pytest.raises(InputError, match=f"data.bin has sha256:{SHA}"):
        source.get(file)


def test_a_checksum_can_be_pinned_beforehand(server, source):
    source.folder.mkdir()
    (source.folder / "data.bin.sha256").write_text(f"{'0' * 64}  data.bin\n")
    with pytest.raises(InputError, match=f"sha256:{'0' * 64}"):
        source.get(remote(server, checksum="", size=None))


def test_without_a_checksum_a_cut_download_starts_over(server, source):
    server.faults += [("cut", 100_000)]
    assert source.get(remote(server, checksum="")).read_bytes() == DATA
    assert server.requests == [("/data.bin", None)] * 2


def test_offline_names_the_file_and_its_place(server, source):
    offline = Source(source.folder, offline=True)
    with pytest.raises(InputError, match=rf"--offline.*{server.url}/data.bin and put it at {source.folder}/data.bin"):
        offline.get(remote(server))
    (source.folder / "data.bin").write_bytes(DATA)
    assert offline.get(remote(server)).read_bytes() == DATA
    assert not server.requests


def test_what_cannot_be_downloaded_says_from_where_to_get_it(source):
    file = RemoteFile("data.bin", "", f"sha256:{SHA}", note="register at example.org")
    with pytest.raises(InputError, match=rf"register at example.org and put it at {source.folder}/data.bin"):
        source.get(file)


def test_a_mirror_folder_stands_in_for_the_net(server, tmp_path):
    source = Source(tmp_path / "downloads", offline=True, mirror=str(server.folder))
    assert source.get(remote(server)) == server.folder / "data.bin"
    with pytest.raises(InputError, match=r"the mirror .* has no other.bin"):
        source.get(remote(server, name="other.bin"))
    (server.folder / "data.bin").write_bytes(b"another")
    with pytest.raises(InputError, match="7 bytes"):
        source.get(remote(server))
    assert not server.requests


def test_a_mirror_url_stands_in_for_the_net(server, tmp_path):
    source = Source(tmp_path / "downloads", mirror=f"{server.url}/")
    file = RemoteFile("data.bin", "http://127.0.0.1:9/somewhere/else", f"sha256:{SHA}", len(DATA))
    assert source.get(file).read_bytes() == DATA


def test_a_file_url_stands_in_for_the_net(server, tmp_path):
    folder = (tmp_path / "served").rename(tmp_path / "with space")
    source = Source(tmp_path / "downloads", mirror=folder.as_uri())
    assert source.get(remote(None)).read_bytes() == DATA
    with pytest.raises(InputError, match=r"with%20space/other.bin: there is no such file"):
        source.get(remote(None, name="other.bin"))
    (folder / "wrong.bin").write_bytes(DATA[:-1] + b"!")
    with pytest.raises(InputError, match="sha256"):
        source.get(remote(None, name="wrong.bin"))
    assert visible(source.folder) == {"data.bin"} and not server.requests


def test_two_threads_fetch_a_file_once(server, source):
    server.faults.append(("slow", 0.3))
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(source.get(remote(server)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [source.folder / "data.bin"] * 3
    assert server.requests == [("/data.bin", None)]


def test_two_processes_fetch_a_file_once(server, source, capfd):
    server.faults.append(("slow", 0.5))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=source.get, args=(remote(server),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.requests == [("/data.bin", None)]
    assert "waiting for another process that fetches data.bin" in capfd.readouterr().err


def test_too_little_room_is_found_before_the_download(server, source, monkeypatch, capsys):
    usage = downloads.shutil.disk_usage(source.folder.parent)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="307,200 bytes to download, 1,000 bytes free") as info:
        source.get(remote(server))
    assert info.value.errno == errno.ENOSPC

    def main(argv=None):
        source.get(remote(server))

    assert cli.run(main) == 1
    assert "No space left on device: 307,200 bytes" in capsys.readouterr().err
    assert not visible(source.folder)


def test_a_full_disk_during_the_download(server, small_disk, tmp_path, monkeypatch):
    source = Source(small_disk / "downloads")
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    assert cli.run(partial(_get, source, remote(server))) == 1
    assert not visible(source.folder)
    (server.folder / "data.bin").write_bytes(DATA[:1000])  # there is room for this one, once the other rest has gone
    small = RemoteFile("data.bin", f"{server.url}/data.bin", f"sha256:{hashlib.sha256(DATA[:1000]).hexdigest()}", 1000)
    assert source.get(small).read_bytes() == DATA[:1000]


def _get(source, file, argv=None):
    source.get(file)


def test_progress_is_a_line_off_a_terminal(server, source, capsys):
    source.get(remote(server))
    assert capsys.readouterr().err == "data.bin: 0.3 MB (100%)\n"
