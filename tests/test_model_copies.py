"""Copies of open models: pickled or deep-copied, they read the same file or refuse; never another one."""

import copy
import multiprocessing
import operator
import os
import pickle
import shutil

import numpy as np
import pytest
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


def test_a_copy_of_a_plain_file_goes_by_its_time(path, tmp_path):
    plain = resave(path, tmp_path / "plain", metadata=None, order=lambda names: ["ids", "norm"])
    with safe_open(plain) as model:
        data = pickle.dumps(model)
        assert sorted(pickle.loads(data).keys()) == ["ids", "norm"]
        raw = bytearray(plain.read_bytes())
        raw[-1] ^= 1
        plain.write_bytes(raw)  # the same header, another value
        os.utime(plain, ns=(0, 0))
        with pytest.raises(FormatError, match="has changed"):
            pickle.loads(data)


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
