"""Copies of open models: pickled or deep-copied, they read the same file or refuse; never another one."""

import copy
import multiprocessing
import operator
import os
import pickle
import shutil

import numpy as np
import pytest
import safetensors.numpy
from models import MODEL, resave, same

import codec
from codec.errors import ArgumentError, CodecError, FormatError
from codec.model import safe_open, save_file

COPIES = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_copy_reads_the_same_file(path, tmp_path, how, mmap):
    save_file({"gate": np.ones((96, 128), np.float32)}, tmp_path / "other")
    with safe_open(path, mmap=mmap) as model:
        again, piece = how(model), how(model.get_slice("gate"))
    # Descriptors are given out again: a copied number would be that of the other file.
    with safe_open(tmp_path / "other"), safe_open(tmp_path / "other"):
        assert again.keys() == model.keys()
        for name, array in MODEL.items():
            same(again.get_tensor(name), array)
        same(piece[3:5], MODEL["gate"][3:5])
        assert again.verify().ok
    again.close()


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
def test_a_copy_is_refused_where_another_file_lies(path, how):
    with safe_open(path) as model:
        save_file(MODEL, path, {"author": "someone else"})
        with pytest.raises(FormatError, match="has changed since the model was opened"):
            how(model)
        os.unlink(path)
        with pytest.raises(FileNotFoundError):
            how(model)


@pytest.fixture
def plain(path, tmp_path):
    """A plain file, which has no checksums."""
    return resave(path, tmp_path / "plain", metadata=None, order=lambda names: ["ids", "norm"])


def test_a_copy_of_a_plain_file_goes_by_its_time(plain):
    with safe_open(plain) as model:
        data = pickle.dumps(model)
        assert sorted(pickle.loads(data).keys()) == ["ids", "norm"]
        os.utime(plain, ns=(0, 0))
        with pytest.raises(FormatError, match="has changed"):
            pickle.loads(data)


def refused_with_the_old_time(file, raw):
    """Another file of these bytes, put in the place of an open one and given its time, is not taken for it."""
    with safe_open(file) as model:
        data, times = pickle.dumps(model), os.stat(file)
    kept = file.read_bytes()
    for content, right in ((raw, False), (kept, True)):
        other = file.with_name("other")
        other.write_bytes(content)
        os.replace(other, file)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        if right:
            pickle.loads(data).close()
        else:
            with pytest.raises(FormatError, match="has changed"):
                pickle.loads(data)


def test_a_plain_file_of_the_same_time_is_known_by_its_values(plain):
    whole = plain.read_bytes()
    for at in (-1, len(whole) // 2, 8 + int.from_bytes(whole[:8], "little")):
        raw = bytearray(whole)
        raw[at] ^= 1
        refused_with_the_old_time(plain, raw)


def test_checkpoints_of_one_architecture_are_known_by_samples(tmp_path):
    """A file far larger than its samples, in which one small tensor changed, or one block of a large one."""
    file = tmp_path / "large"
    parts = {"body": np.arange(1 << 20, dtype=np.float32), "head": np.ones(5, np.float32)}
    safetensors.numpy.save_file({**parts, "tail": np.arange(1 << 18, dtype=np.float32)}, file)
    whole = file.read_bytes()
    at = whole.index(parts["head"].tobytes())
    for start, length in ((at, 4), (8 + int.from_bytes(whole[:8], "little") + 100_000, 200_000), (0, len(whole))):
        raw = bytearray(whole)
        begin = max(start, 8 + int.from_bytes(whole[:8], "little"))
        raw[begin : start + length] = bytes(b ^ 1 for b in raw[begin : start + length])
        refused_with_the_old_time(file, raw)


def test_a_copy_of_a_plain_file_reads_a_copy_that_kept_its_time(plain, tmp_path):
    """Nothing of a fingerprint belongs to one file or machine."""
    with safe_open(plain) as model:
        reopen, (_, *rest) = model.__reduce__()
        (tmp_path / "elsewhere").mkdir()
        there = shutil.copy2(plain, tmp_path / "elsewhere")
        same(reopen(str(there), *rest).get_tensor("ids"), MODEL["ids"])


def test_a_fingerprint_reads_little(tmp_path, monkeypatch):
    names = [f"t{number}" for number in range(3000)]
    safetensors.numpy.save_file({name: np.ones(2048, np.float32) for name in names}, tmp_path / "many")
    with safe_open(tmp_path / "many") as model:
        reads, read = [], type(model.files[0].raw).read_private
        monkeypatch.setattr(
            type(model.files[0].raw), "read_private", lambda raw, *at: (reads.append(at[1]), read(raw, *at))[1]
        )
        model.files[0].fingerprint()
    assert len(reads) <= 2 + 64 + 1024
    assert max(reads[2:]) <= 4096


def test_a_copy_finds_a_relative_path_again(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(safe_open(path.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    same(pickle.loads(data).get_tensor("gate"), MODEL["gate"])


def test_a_closed_model_has_no_copies(path):
    with safe_open(path) as model:
        piece = model.get_slice("gate")
    for how in COPIES.values():
        for thing in (model, piece):
            with pytest.raises(ArgumentError, match="closed"):
                how(thing)


def test_parts_of_an_open_model_have_none(path):
    with safe_open(path) as model:
        for part in (model.files[0], model.files[0].raw):
            with pytest.raises(CodecError, match="cannot be copied"):
                copy.deepcopy(part)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_of_a_pool_read_slices(path, method):
    with safe_open(path) as model, multiprocessing.get_context(method).Pool(1) as pool:
        same(pool.apply(operator.getitem, (model.get_slice("gate"), 0)), MODEL["gate"][0])


def test_a_copy_of_a_sharded_model(path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(path, folder / "model-00001-of-00001.safetensors")
    names = ",".join(f'"{name}": "model-00001-of-00001.safetensors"' for name in MODEL)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {' + names + "}}")
    with safe_open(folder) as model:
        same(copy.deepcopy(model).get_tensor("ids"), MODEL["ids"])
        codec.save_file({"ids": np.arange(3)}, folder / "model-00001-of-00001.safetensors")
        with pytest.raises(FormatError):
            copy.deepcopy(model)
