"""Model files that are damaged: every truncation and every flipped bit is found, and named."""

import contextlib
import itertools
import os

import numpy as np
import pytest
from models import MODEL, pack, pruned, read_json, same, unpack, write_raw

import codec.tensor
from codec.errors import ChecksumError, CodecError, FormatError
from codec.kernels import crc32c
from codec.model import load_file, safe_open, save_file

# Damage.


def snapshot(target):
    with safe_open(target) as model:
        tensors = {name: (model.info(name), model.get_tensor(name).tobytes()) for name in model}
        return model.keys(), model.metadata(), tensors


@pytest.fixture(params=["frame", "dense"])
def tiny(request, tmp_path):
    tensors = {"b": np.arange(3, dtype=np.float32), "e": np.zeros((0,), np.int8)}
    if request.param == "frame":
        tensors["w"] = codec.tensor.encode(np.float32([[0, 1.5, 0, 0], [-2, 0, 0, 3]]), layout="bitmap", entropy="none")
    save_file(tensors, tmp_path / "tiny")
    assert (tmp_path / "tiny").stat().st_size <= 1536
    return tmp_path / "tiny"


def test_every_truncation_is_found(tiny):
    raw = tiny.read_bytes()
    for length in range(len(raw)):
        tiny.write_bytes(raw[:length])
        with pytest.raises(CodecError):
            snapshot(tiny)
    tiny.write_bytes(raw + b"\0")
    with pytest.raises(FormatError, match="belong to no tensor"):
        snapshot(tiny)


def test_every_bit_flip_is_found(tiny):
    expected, raw = snapshot(tiny), bytearray(tiny.read_bytes())
    with open(tiny, "r+b", buffering=0) as file:
        for at, bit in itertools.product(range(len(raw)), range(8)):
            os.pwrite(file.fileno(), bytes([raw[at] ^ 1 << bit]), at)
            with contextlib.suppress(CodecError):
                assert snapshot(tiny) == expected, (at, bit)
            os.pwrite(file.fileno(), raw[at : at + 1], at)
    assert snapshot(tiny) == expected


def test_damage_names_the_tensor(path):
    with safe_open(path) as model:
        start = path.stat().st_size - len(read_json(path)[1])
        order = model.keys()
    raw = bytearray(path.read_bytes())
    raw[start + 40] ^= 1
    raw[-1] ^= 1
    path.write_bytes(raw)
    with safe_open(path) as model:
        report = model.verify(raise_on_error=False)
        assert not report.ok
        assert [check.name for check in report.tensors if not check.ok] == [order[0], order[-1]]
        with pytest.raises(FormatError) as caught:
            model.verify()
        assert caught.value.tensor == order[0]
        with pytest.raises(ChecksumError) as caught:
            model.get_tensor(order[-1])
        assert caught.value.tensor == order[-1]
        same(model.get_tensor(order[1]), MODEL[order[1]])


def test_swapped_frames_are_found(tmp_path):
    tensors = {name: codec.tensor.encode(pruned(8, 8, keep=1), layout="bitmap", entropy="none") for name in "ab"}
    save_file(tensors, tmp_path / "m")
    header, data = read_json(tmp_path / "m")
    header["a"], header["b"] = header["b"], header["a"]
    write_raw(tmp_path / "m", header, data)
    with pytest.raises(ChecksumError):
        load_file(tmp_path / "m")


def test_frame_that_differs_from_the_index(tmp_path):
    a, b = (codec.tensor.encode(np.full((8, 8), v, np.float32), layout="csr", entropy="none") for v in (1, 2))
    save_file({"x": a}, tmp_path / "m")
    header, _ = read_json(tmp_path / "m")
    index = unpack(header)
    index["tensors"][0][3:] = [63, crc32c(codec.tensor.dumps(b))]
    write_raw(tmp_path / "m", pack(header, index), codec.tensor.dumps(b))
    with safe_open(tmp_path / "m") as model:
        for read in (model.get_tensor, model.get_packed, lambda name: model.get_slice(name)[0]):
            with pytest.raises(FormatError, match="the index says"):
                read("x")
        with pytest.raises(FormatError, match="the index says"):
            model.verify()
