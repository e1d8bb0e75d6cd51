"""Model files and other tools: those that read them, move tensors or drop the index; plain safetensors files."""

import numpy as np
import pytest
import safetensors
from models import MODEL, pruned, read_json, resave, same, write_raw

import codec.tensor
from codec.errors import ArgumentError, ChecksumError, FormatError
from codec.model import load_file, reindex, safe_open, save_file
from codec.model.container import header_bytes

# Other tools.


def test_safetensors_reads_it(path):
    with safetensors.safe_open(path, framework="np") as other, safe_open(path) as model:
        assert sorted(other.keys()) == sorted(MODEL)
        assert {key: value for key, value in other.metadata().items() if key != "codec"} == model.metadata()
        for name in ("small", "ids", "flags"):
            same(other.get_tensor(name), MODEL[name])
        frame = other.get_tensor("gate")
        assert (frame.dtype, frame.shape) == (np.uint8, (model.info("gate").nbytes,))
    same(codec.tensor.loads(frame).to_dense(), MODEL["gate"])


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("order", [sorted, lambda names: list(names)[::-1]])
def test_another_tool_moves_the_tensors(path, tmp_path, order, mmap):
    moved = resave(path, tmp_path / "moved", order=order)
    with safe_open(moved, mmap=mmap) as model:
        assert model.keys() == order(set(model) if order is sorted else safe_open(path).keys())
        assert model.verify().ok
        for name, array in MODEL.items():
            same(model.get_tensor(name), array)
            same(model.get_slice(name)[...], array)
            same(model.get_packed(name).to_dense(), array)


def test_safetensors_saves_it_again(path, tmp_path):
    header, _ = read_json(path)
    tensors = dict(safetensors.deserialize(path.read_bytes()))
    specs = {}
    for name, t in reversed(tensors.items()):
        t["array"] = np.frombuffer(bytes(t["data"]) or b"\0", np.uint8)
        specs[name] = safetensors.TensorSpec(
            dtype=_PYTHON_NAMES[t["dtype"]], shape=t["shape"], data_ptr=t["array"].ctypes.data, data_len=len(t["data"])
        )
    safetensors.serialize_file(specs, tmp_path / "again", header["__metadata__"])
    for name, array in load_file(tmp_path / "again").items():
        same(array, MODEL[name])


_PYTHON_NAMES = {
    "U8": "uint8", "F32": "float32", "F64": "float64", "I64": "int64", "BF16": "bfloat16", "BOOL": "bool", "I8": "int8",
}  # fmt: skip


def test_lost_index_and_reindex(path, tmp_path):
    bare = resave(path, tmp_path / "bare", metadata={"author": "someone", "format": "np"})
    with pytest.raises(FormatError, match="--reindex"):
        safe_open(bare)
    reindex(bare, tmp_path / "new")
    with safe_open(tmp_path / "new") as model, safe_open(path) as old:
        assert model.verify().ok
        assert {name: model.info(name) for name in model} == {name: old.info(name) for name in old}
        assert model.metadata() == old.metadata()
    reindex(path, path)  # in place, and nothing to do
    reindex(bare, bare)
    assert safe_open(bare).verify().ok


def test_reindex_gives_damage_no_new_checksum(path, tmp_path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # the last tensor is stored as itself
    path.write_bytes(raw)
    with pytest.raises(ChecksumError):
        reindex(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_reindex_after_metadata_changed(path, tmp_path):
    header, data = read_json(path)
    header["__metadata__"]["author"] = "someone else"
    write_raw(path, header, data)
    with pytest.raises(ChecksumError, match="--reindex"):
        safe_open(path)
    reindex(path, tmp_path / "new")
    assert safe_open(tmp_path / "new").metadata()["author"] == "someone else"


def test_plain_safetensors(tmp_path):
    floats = np.float32([1, 2])
    specs = {"x": ("F32", [2], floats.tobytes()), "odd": ("C64", [1], bytes(8)), "half": ("F4", [4], b"\x12\x34")}
    header = header_bytes([(name, dtype, shape) for name, (dtype, shape, _) in specs.items()], {})
    (tmp_path / "plain").write_bytes(header + b"".join(data for *_, data in specs.values()))
    with safe_open(tmp_path / "plain") as model:
        same(model.get_tensor("x"), floats)
        same(model.get_slice("x")[1:], floats[1:])
        report = model.verify()
        assert report.ok
        assert [check.checked for check in report.tensors] == [False] * 3
        assert model.info("half").nbytes == 2
        same(model.get_tensor("odd"), np.zeros(1, np.complex64))
        with pytest.raises(ArgumentError, match=r"'half'.*copied from file to file"):
            model.get_tensor("half")
    reindex(tmp_path / "plain", tmp_path / "indexed")
    with safe_open(tmp_path / "indexed") as model:
        assert all(check.checked and check.ok for check in model.verify().tensors)
    assert read_json(tmp_path / "indexed")[1] == specs["odd"][2] + specs["x"][2] + specs["half"][2]


def test_bytes_that_look_like_a_frame_are_packed(tmp_path):
    frame = np.frombuffer(codec.tensor.dumps(codec.tensor.encode(pruned(50, 50))), np.uint8)
    save_file({"x": frame}, tmp_path / "m", plan={"x": "dense"})
    same(load_file(tmp_path / "m")["x"], frame)
    resave(tmp_path / "m", tmp_path / "bare", metadata=None)
    reindex(tmp_path / "bare", tmp_path / "new")
    same(load_file(tmp_path / "new")["x"], frame)
