"""What a write does to the file that it replaces, to links and to files left by those that failed; what errors name."""

import errno
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import facts, refused, run
from models import MODEL, pruned, same

import codec
from codec.errors import ArgumentError
from codec.model import load_file, reindex, save_file
from codec.model.atomic import sweep, write_atomic
from codec.model.shards import stale_shards

TENSORS = {"w": np.arange(3)}


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# The file that is replaced.


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400, 0o755])
def test_permissions_are_handed_on(path, mode):
    for write in (lambda: save_file(TENSORS, path), lambda: reindex(path, path)):
        path.chmod(mode)
        write()
        assert mode_of(path) == mode
    assert run("encode", path, path, "--force").exit_code == 0
    assert mode_of(path) == mode


def test_a_new_file_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        save_file(TENSORS, tmp_path / "m")
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "m") == 0o640


def test_nobody_reads_a_private_file_while_it_is_replaced(path, monkeypatch):
    path.chmod(0o600)
    seen, real = [], os.write

    def write(fd, data):
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    save_file(TENSORS, path)
    assert set(seen) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_handed_on(path):
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    save_file(TENSORS, path)
    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (1234, 5678, 0o640)


def test_a_group_that_cannot_be_kept_gets_what_all_get(path, monkeypatch):
    path.chmod(0o664)
    real = os.stat

    def elsewhere(name, *args, **kwargs):
        found = real(name, *args, **kwargs)
        if name != str(path):
            return found
        return os.stat_result((*found[:4], 54321, 54321, *found[6:]))

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "stat", elsewhere)
    monkeypatch.setattr(os, "fchown", refuse)
    save_file(TENSORS, path)
    monkeypatch.undo()
    assert mode_of(path) == 0o644


# Links.


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"old": np.ones(3)}, folder / "real")
    (folder / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("folder/real")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "dangling").symlink_to("folder/new")
    for link, real in (("link", "real"), ("chain", "real"), ("dangling", "new")):
        save_file(TENSORS, tmp_path / link)
        assert (tmp_path / link).is_symlink()
        assert not (folder / real).is_symlink()
        assert load_file(folder / real).keys() == TENSORS.keys()
    assert mode_of(folder / "real") == 0o600
    assert sorted(os.listdir(folder)) == ["new", "real"]


def test_a_link_into_the_hub_cache_is_refused(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file({"old": np.ones(3)}, blobs / ("0" * 40))
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{'0' * 40}")
    with pytest.raises(ArgumentError, match="Hugging Face cache"):
        save_file(TENSORS, snapshot / "model.safetensors")
    assert load_file(blobs / ("0" * 40)).keys() == {"old"}


def test_a_link_that_leads_to_no_file_is_refused(tmp_path):
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "lost").symlink_to("nowhere/file")
    with pytest.raises(ArgumentError, match="not a regular file"):
        save_file(TENSORS, tmp_path / "device")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_file(TENSORS, tmp_path / "lost")


# Temporary files.

WRITER = """
import os, signal, sys, time
from codec.model.atomic import write_atomic
def parts():
    yield b"x" * 4_000_000
    print("begun", flush=True)
    time.sleep(60)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
write_atomic(sys.argv[1], parts())
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a write."""
    started = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "m")], stdout=subprocess.PIPE)
    assert started.stdout.readline() == b"begun\n"
    yield started
    started.kill()
    started.wait()
    started.stdout.close()


def temporary(folder):
    return [path for path in Path(folder).iterdir() if re.fullmatch(r"\.codec-.*\.tmp", path.name)]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_it_leave_nothing(tmp_path, writer, end):
    assert len(temporary(tmp_path)) == 1
    writer.send_signal(end)
    assert writer.wait(30) == -end
    assert list(tmp_path.iterdir()) == []


def test_what_sigkill_leaves_goes_with_the_next_write(tmp_path, writer):
    writer.kill()
    writer.wait(30)
    assert len(temporary(tmp_path)) == 1
    save_file(TENSORS, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_write_that_goes_on_is_left_alone(tmp_path, writer):
    left = temporary(tmp_path)
    os.utime(left[0], (0, 0))  # age does not tell what a lock tells
    save_file(TENSORS, tmp_path / "other")
    assert temporary(tmp_path) == left


def test_sweeping_leaves_what_it_does_not_know(tmp_path):
    host = temporary_name = None
    with pytest.raises(RuntimeError):
        write_atomic(str(tmp_path / "m"), _raise_with(tmp_path, found := []))
    temporary_name = found[0].name
    host = temporary_name.split("-")[1]
    day, now = 24 * 3600, time.time()
    names = {
        f".codec-{host}-{'0' * 16}.tmp": (0, False),  # of this machine, and its writer is gone
        f".codec-{'f' * 8}-{'1' * 16}.tmp": (0, True),  # of another machine: only age tells
        f".codec-{'f' * 8}-{'2' * 16}.tmp": (2 * day, False),
        f".codec-{'3' * 16}.tmp": (0, True),  # as earlier releases named them
        f".codec-{'4' * 16}.tmp": (2 * day, False),
        ".codec-mine.tmp": (2 * day, True),
        f"codec-{'5' * 16}.tmp": (2 * day, True),
        ".codec-model.safetensors.index.json.journal": (2 * day, True),
    }
    for name, (age, _) in names.items():
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / f".codec-{host}-{'6' * 16}.tmp").symlink_to("elsewhere")
    (tmp_path / f".codec-{host}-{'7' * 16}.tmp").mkdir()
    sweep(str(tmp_path))
    kept = {name for name, (_, stays) in names.items() if stays}
    assert {path.name for path in tmp_path.iterdir()} == kept | {
        f".codec-{host}-{'6' * 16}.tmp",
        f".codec-{host}-{'7' * 16}.tmp",
    }
    sweep(str(tmp_path / "absent"))


def _raise_with(folder, found):
    yield b"x"
    found += temporary(folder)
    raise RuntimeError


def test_without_locks_only_age_tells(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RuntimeError):
        write_atomic(str(tmp_path / "m"), _raise_with(tmp_path, found := []))
    for age, stays in ((0, True), (2 * 24 * 3600, False)):
        found[0].write_bytes(b"")
        os.utime(found[0], (time.time() - age,) * 2)
        save_file(TENSORS, tmp_path / "m")
        assert found[0].exists() is stays


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_of_the_callers_own_stays(tmp_path, end):
    before = signal.getsignal(end)

    def mine(*_):
        raise SystemExit

    def parts():
        yield b"x"
        os.kill(os.getpid(), end)
        yield b"y"

    signal.signal(end, mine)
    try:
        with pytest.raises(SystemExit):
            write_atomic(str(tmp_path / "m"), parts())
        assert signal.getsignal(end) is mine
    finally:
        signal.signal(end, before)
    assert list(tmp_path.iterdir()) == []


# Errors name the file.


def test_a_full_disk_names_the_file(tmp_path):
    script = (
        "import resource, signal, sys, numpy as np, codec\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "codec.save_file({'w': np.random.default_rng(0).random(99_999)}, sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"File too large: '{tmp_path / 'm'}'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_errors_of_the_system_name_the_file(tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match="quota") as caught:
            save_file(MODEL, tmp_path / "m")
        assert caught.value.filename == str(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(PermissionError) as caught:
        save_file(MODEL, folder / "m")
    assert caught.value.filename == str(folder / "m")


# Shards of an earlier model.


def test_shards_of_an_earlier_model_are_removed(sharded, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "model.safetensors.index.json"
    for number in range(1, 4):
        (folder / f"model-0000{number}-of-00003.safetensors").write_bytes(b"old")
    kept = [
        "model-00001-of-00003.bin",
        "other-00001-of-00003.safetensors",
        "model.safetensors",
        "model-1-of-3.safetensors",
    ]
    for name in kept:
        (folder / name).write_bytes(b"not a shard of it")
    refused(run("encode", sharded, target), 2, "model-00001-of-00003.safetensors", "exists already", "--force")
    result = run("encode", sharded, target, "--force")
    assert result.exit_code == 0
    assert "Removed shards of an earlier model: " in result.stderr
    assert result.stderr.count("-of-00003") == 3
    new = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", target.name]
    assert sorted(os.listdir(folder)) == sorted(kept + new)


def test_they_stay_until_the_new_index_is_there(sharded, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    old = folder / "model-00001-of-00009.safetensors"
    old.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("codec.model.checkpoint.write_shard_index", fail)
        with pytest.raises(OSError, match="No space"):
            codec.encode_checkpoint(sharded.parent, folder)
    assert old.exists()
    report = codec.encode_checkpoint(sharded.parent, folder)
    assert report.removed == (str(old),)
    assert not old.exists()


def test_only_shards_of_the_same_name_are_old(tmp_path):
    for name in ("m-00001-of-00002.safetensors", "mm-00001-of-00002.safetensors", "m.x-00001-of-00002.safetensors"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "m-00009-of-00009.safetensors").mkdir()
    found = stale_shards(str(tmp_path / "m.safetensors.index.json"), set())
    assert [Path(path).name for path in found] == ["m-00001-of-00002.safetensors"]


def test_replacing_a_model_while_it_is_open(path):
    with codec.safe_open(path) as model:
        save_file({"gate": pruned(3, 3)}, path)
        same(model.get_tensor("gate"), MODEL["gate"])


def test_facts_of_a_replaced_file(path, tmp_path):
    assert facts("encode", path, path, "--force")["tensors"] == len(MODEL)
    assert sorted(os.listdir(tmp_path)) == [path.name]
