"""What a model file may be and hold; a write that fails changes nothing."""

import errno
import fnmatch
import itertools
import os
import stat

import numpy as np
import pytest
from models import MODEL, START, pruned, same

from codec.errors import ArgumentError, FormatError, UnknownTensorError
from codec.model import load_file, safe_open, save_file

# Files that are not files, or change.


def test_what_is_not_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for target in (tmp_path / "fifo", "/dev/zero", "/dev/null"):
        with pytest.raises(FormatError, match="not a regular file"):
            safe_open(target)
        with pytest.raises(ArgumentError, match="not a regular file"):
            save_file({}, target)
    with pytest.raises(ArgumentError, match="not a regular file"):
        save_file({}, tmp_path)
    with pytest.raises(FileNotFoundError):
        safe_open(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        save_file({}, tmp_path / "absent" / "m")


def test_file_that_shrinks(path):
    with safe_open(path) as model:
        os.truncate(path, path.stat().st_size - 900)
        last = model.keys()[-1]
        with pytest.raises(FormatError, match="changed while open") as caught:
            model.get_tensor(last)
        assert caught.value.tensor == last


def test_short_reads(path, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:100]], offset))
    for name, array in load_file(path).items():
        same(array, MODEL[name])


def test_closed(path):
    with safe_open(path) as model:
        piece = model.get_slice("gate")
    model.close()
    for read in (model.get_tensor, model.get_packed, lambda name: piece[0]):
        with pytest.raises(ArgumentError, match="closed"):
            read("gate")


def test_unknown_names(path):
    with safe_open(path) as model:
        for read in (model.get_tensor, model.get_packed, model.get_slice, model.info):
            with pytest.raises(UnknownTensorError, match="close: gate"):
                read("gat")
        assert "gat" not in model


def test_mapped_arrays_outlive_the_model(path):
    with safe_open(path, mmap=True) as model:
        ids, packed = model.get_tensor("ids"), model.get_packed("gate")
    assert not ids.flags.writeable
    same(ids, MODEL["ids"])
    same(packed.to_dense(), MODEL["gate"])
    assert safe_open(path).get_tensor("ids").flags.writeable


def test_framework(path):
    with pytest.raises(ArgumentError, match="framework 'jax'"):
        safe_open(path, framework="jax")
    assert safe_open(path, framework="numpy").get_tensor("gate").shape == (96, 128)


def test_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    names = ("bfloat16", "float8_e4m3fn", "float16", "int8", "bool")
    tensors = {name: torch.arange(-4, 4).to(getattr(torch, name)) for name in names}
    tensors["packed"] = torch.zeros(64, 64, dtype=torch.bfloat16)
    tensors["packed"][::5, ::7] = 1.5
    tensors["parameter"] = torch.nn.Parameter(torch.ones(3, 2).T)
    save_file(tensors, tmp_path / "m")
    with safe_open(tmp_path / "m", framework="pt") as model:
        for name, tensor in tensors.items():
            found = model.get_tensor(name)
            assert found.dtype == tensor.dtype
            assert torch.equal(found.to(torch.float64), tensor.to(torch.float64))
        assert torch.equal(model.get_slice("packed")[5].float(), tensors["packed"][5].float())


# Writing.


def fail_at(monkeypatch, name, number):
    """Let the call with that number fail as a full disk does, and the writes before it be short."""
    real, calls = getattr(os, name), itertools.count()

    def call(*args, **kwargs):
        if next(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        if name == "write":
            args = (args[0], args[1][:200])
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(("name", "number"), [("write", 0), ("write", 1), ("write", 7), ("fsync", 0), ("replace", 0)])
@pytest.mark.parametrize("existing", [True, False])
def test_failed_write_changes_nothing(tmp_path, monkeypatch, name, number, existing):
    target = tmp_path / "m"
    if existing:
        save_file({"old": np.arange(3)}, target)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        fail_at(patch, name, number)
        with pytest.raises(OSError, match="No space"):
            save_file(MODEL, target)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    save_file(MODEL, target)
    same(load_file(target)["gate"], MODEL["gate"])


def test_interrupted_write_changes_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_file(MODEL, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_order_of_a_write(tmp_path, monkeypatch):
    calls = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (calls.append(name), real(*args))[1])
    save_file({"x": np.ones(3)}, tmp_path / "m")
    assert [name for name, _ in itertools.groupby(calls)] == ["write", "fsync", "replace", "fsync"]


def test_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        save_file({}, tmp_path / "m")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


def test_open_file_survives_being_replaced(path):
    with safe_open(path) as model:
        save_file({"other": np.ones(2)}, path)
        same(model.get_tensor("gate"), MODEL["gate"])
    assert load_file(path).keys() == {"other"}


def test_saved_over_itself(path):
    save_file(load_file(path, packed=True), path)
    for name, array in load_file(path).items():
        same(array, MODEL[name])


@pytest.mark.parametrize("name", ["", "__metadata__", "x" * 1025, "\ud800", 3, None])
def test_refused_names(tmp_path, name):
    with pytest.raises(ArgumentError, match="name"):
        save_file({name: np.ones(2)}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "x" * 1024, "caf\u00e9", "a b", "nul\0", "*"])
def test_names_are_only_names(tmp_path, name):
    save_file({name: pruned(64, 64), "other": np.ones(2)}, tmp_path / "m")
    assert fnmatch.filter(load_file(tmp_path / "m"), name) or name in load_file(tmp_path / "m")
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "metadata", [{"codec": START[:12]}, {"codec": 1}, {"a": 1}, {1: "a"}, "text", {"a": "\ud800"}, {"a": START}]
)
def test_refused_metadata(tmp_path, metadata):
    with pytest.raises(ArgumentError, match="metadata"):
        save_file({}, tmp_path / "m", metadata)


REFUSED = {
    "strings": np.array(["a"]),
    "objects": np.array([None]),
    "complex": np.array([1j]),
    "masked": np.ma.masked_array([1.0], [True]),
    "structured": np.zeros(1, "i4,f4"),
    "ragged": [[1], [1, 2]],
    "rank": np.zeros((1,) * 33),
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_refused_arrays(tmp_path, value):
    with pytest.raises(ArgumentError, match="'bad'"):
        save_file({"good": np.ones(2), "bad": value}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_refused_arguments(tmp_path):
    plans = [{"plan": plan} for plan in (["csr"], {"x": 3}, {"x": "nope"}, {"x": {"bits": 3}})]
    for arguments in ({"objective": "size"}, {"zero": "none"}, *plans):
        with pytest.raises(ArgumentError):
            save_file({"x": pruned(64, 64)}, tmp_path / "m", **arguments)
    with pytest.raises(ArgumentError, match="mapping"):
        save_file([np.ones(2)], tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
