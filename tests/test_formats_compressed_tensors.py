"""Checkpoints of compressed-tensors 0.14.0.1, the last release that reads sparse ones, in and out, bit for bit."""

import json

import numpy as np
import pytest
from networks import same, tensor

import codec
from codec.formats import open_file, write_file
from codec.formats.base import array_of

SHAPES = [(16, 64), (3, 12), (1, 4), (40, 36), (7, 20)]


def two_of_four(a):
    """An array with two entries at most in every four of a row."""
    bits = a.reshape(-1, 4).view(f"u{a.itemsize}")
    bits[np.cumsum(bits != 0, axis=1) > 2] = 0
    return a


@pytest.fixture
def compressors():
    pytest.importorskip("torch")
    pytest.importorskip("compressed_tensors", exc_type=ImportError)
    found = pytest.importorskip("compressed_tensors.compressors.sparse_compressors", exc_type=ImportError)
    config = pytest.importorskip("compressed_tensors.config")
    return {
        "sparse-bitmask": found.BitmaskCompressor(config=config.BitmaskConfig()),
        "sparse-24-bitmask": found.Sparse24BitMaskCompressor(config=config.Sparse24BitMaskConfig()),
    }


def torch_tensors(arrays):
    from codec.arraylike import to_torch

    return {name: to_torch(a) for name, a in arrays.items()}


@pytest.mark.parametrize("name", ["sparse-bitmask", "sparse-24-bitmask"])
@pytest.mark.parametrize("dtype", ["I8", "BF16", "F16", "F32"])
@pytest.mark.parametrize("style", ["new", "old"])
def test_checkpoints_of_compressed_tensors_come_in(compressors, tmp_path, name, dtype, style):
    from safetensors.torch import save_file

    arrays = {f"layers.{n}.weight": tensor(shape, dtype, seed=n) for n, shape in enumerate(SHAPES)}
    if name == "sparse-24-bitmask":
        arrays = {key: two_of_four(a) for key, a in arrays.items()}
    dense = {**arrays, "layers.0.bias": tensor((64,), "F32"), "layers.0.weight_scale": tensor((16, 1), "F32", 0)}
    state = compressors[name].compress(torch_tensors(dense))
    expected = {key: array_of(value) for key, value in compressors[name].decompress_from_state_dict(dict(state))}
    if style == "old":
        state = {_old(key): value for key, value in state.items()}
    (tmp_path / "checkpoint").mkdir()
    save_file(state, tmp_path / "checkpoint" / "model.safetensors")
    with open_file(tmp_path / "checkpoint") as source:
        assert source.format == name
        assert sorted(source) == sorted(dense)
        for key, a in expected.items():
            assert isinstance(source[key], codec.PackedTensor) == (key in arrays)
            same(source[key], a)
            # Of 2:4 its encoder keeps the two of largest magnitude, and takes that of -128 for -128.
            assert name == "sparse-24-bitmask" or a.tobytes() == dense[key].tobytes()


def _old(key):
    """A key as releases before 0.9 had it."""
    stem, _, suffix = key.rpartition(".")
    return f"{stem}.weight.{suffix}" if suffix in ("shape", "compressed", "bitmask", "row_offsets") else key


@pytest.mark.parametrize("name", ["sparse-bitmask", "sparse-24-bitmask"])
@pytest.mark.parametrize("dtype", ["I8", "BF16", "F16", "F32", "F8_E4M3"])
def test_ours_are_read_by_compressed_tensors(compressors, tmp_path, name, dtype):
    arrays = {f"layers.{n}.weight": tensor(shape, dtype, seed=n) for n, shape in enumerate(SHAPES)}
    if name == "sparse-24-bitmask":
        arrays = {key: two_of_four(a) for key, a in arrays.items()}
    dense = {**arrays, "layers.0.bias": tensor((64,), "F32")}
    path = tmp_path / "model.safetensors"
    write_file(dense, path, name, sparse=lambda key: key in arrays)
    found = dict(compressors[name].decompress(str(path)))
    assert sorted(found) == sorted(dense)
    for key, a in dense.items():
        same(found[key], a)


def test_folders_of_compressed_tensors(compressors, tmp_path):
    """Its own reader opens the folder that we write, by the config.json, and we the one that it writes."""
    from commands import run
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.config import BitmaskConfig

    theirs, ours, packed = tmp_path / "theirs", tmp_path / "ours", tmp_path / "packed"
    theirs.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (theirs / "config.json").write_text(json.dumps(config))
    ModelCompressor(sparsity_config=BitmaskConfig(global_sparsity=0.6)).update_config(str(theirs))
    a = tensor((64, 64), "BF16")
    write_file({"l.weight": a}, theirs / "model.safetensors", "sparse-bitmask")
    assert run("convert", theirs, packed).exit_code == 0
    said = json.loads((packed / "config.json").read_text())
    assert said.pop("quantization_config")["quant_method"] == "codec"
    assert said == config
    assert run("convert", packed, ours, "--to", "sparse-bitmask").exit_code == 0
    for folder in (theirs, ours):
        compressor = ModelCompressor.from_pretrained(str(folder))
        same(dict(compressor.sparsity_compressor.decompress(str(folder)))["l.weight"], a)


def test_filters_of_compressed_tensors(compressors, tmp_path):
    from safetensors.torch import save_file

    conv = tensor((6, 3, 5, 3), "F32")
    save_file(compressors["sparse-bitmask"].compress(torch_tensors({"conv.weight": conv})), tmp_path / "a.safetensors")
    same(open_file(tmp_path / "a.safetensors")["conv.weight"], conv)
    write_file({"conv.weight": conv}, tmp_path / "b.safetensors", "sparse-bitmask")
    with codec.safe_open(tmp_path / "a.safetensors") as theirs, codec.safe_open(tmp_path / "b.safetensors") as ours:
        assert sorted(theirs) == sorted(ours)
        for key in theirs:
            assert array_of(ours.get_stored(key)).tobytes() == array_of(theirs.get_stored(key)).tobytes()
