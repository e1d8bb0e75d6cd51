"""Model files: what is written comes back, other tools read it, damage is found, a failed write changes nothing."""

import base64
import contextlib
import errno
import fnmatch
import itertools
import json
import os
import stat
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

import codec.tensor
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, ChecksumError, CodecError, FormatError, UnknownTensorError, VersionError
from codec.kernels import crc32c
from codec.modelfile import load_file, reindex, safe_open, save_file
from codec.safetensors_io import header_bytes

RNG = np.random.default_rng(7)


def pruned(*shape, dtype=np.float32, keep=0.2):
    values = RNG.integers(1, 100, shape).astype(dtype)
    values[RNG.random(shape) > keep] = 0
    return values


MODEL = {
    "gate": pruned(96, 128),
    "small": np.arange(6, dtype=np.float32).reshape(2, 3),
    "ids": RNG.integers(-(2**63), 2**63 - 1, 1000),
    "conv": pruned(16, 4, 3, 3, dtype=np.float16, keep=0.1),
    "scale": np.array(2.5),
    "none": np.zeros((0, 3), np.int8),
    "flags": np.array([True, False, True]),
    "norm": RNG.normal(size=300).astype(ml_dtypes.bfloat16),
}


def same(found, expected):
    assert found.shape == np.shape(expected)
    assert found.dtype == np.asarray(expected).dtype
    assert found.tobytes() == np.asarray(expected).tobytes()


def write_raw(path, header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    Path(path).write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def read_json(path):
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def resave(src, dst, *, order=sorted, metadata=True):
    """Write a file again as another tool would: other order, no alignment."""
    header, data = read_json(src)
    kept = header.pop("__metadata__")
    parts, moved = [], {"__metadata__": kept if metadata is True else metadata} if metadata else {}
    position = 0
    for name in order(header):
        start, stop = header[name]["data_offsets"]
        parts.append(data[start:stop])
        moved[name] = header[name] | {"data_offsets": [position, position + stop - start]}
        position += stop - start
    return write_raw(dst, json.dumps(moved).encode(), b"".join(parts))


@pytest.fixture
def path(tmp_path):
    save_file(MODEL, tmp_path / "model.safetensors", {"author": "someone", "format": "np"})
    return tmp_path / "model.safetensors"


# What is written comes back.


@pytest.mark.parametrize("mmap", [False, True])
def test_round_trip(path, mmap):
    with safe_open(path, mmap=mmap) as model:
        assert sorted(model) == sorted(model.keys()) == sorted(MODEL)
        assert len(model) == len(MODEL)
        assert "gate" in model
        assert model.metadata() == {"author": "someone", "format": "np"}
        for name, array in MODEL.items():
            same(model.get_tensor(name), array)
        assert model.verify().ok
        same(model.get_packed("gate").to_dense(), MODEL["gate"])
        same(model.get_packed("norm").to_dense(), MODEL["norm"])


@pytest.mark.parametrize("dtype", BY_NAME)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0, 2), (40, 50)])
def test_every_dtype(tmp_path, dtype, shape):
    width = BY_NAME[dtype].width
    values = RNG.integers(0, 2 if dtype == "BOOL" else 256, (int(np.prod(shape)), width), np.uint8)
    values[RNG.random(len(values)) < 0.9] = 0
    array = values.reshape(-1).view(BY_NAME[dtype].dtype).reshape(shape)
    save_file({"x": array}, tmp_path / "m", zero="bits")
    same(load_file(tmp_path / "m")["x"], array)
    same(load_file(tmp_path / "m", packed=True)["x"].to_dense(), array)


def test_info_reads_no_data(path, monkeypatch):
    with safe_open(path) as model:
        monkeypatch.setattr(os, "preadv", None)
        gate, norm = model.info("gate"), model.info("norm")
    assert (gate.dtype, gate.shape, gate.stored_as) == ("F32", (96, 128), "frame")
    assert gate.nnz == np.count_nonzero(MODEL["gate"])
    assert gate.dense_nbytes == MODEL["gate"].nbytes > gate.nbytes
    assert (norm.dtype, norm.layout, norm.stored_as, norm.nnz, norm.nbytes) == ("BF16", "dense", "dense", None, 600)


def test_file_order_and_alignment(path):
    header, data = read_json(path)
    assert (path.stat().st_size - len(data)) % 64 == 0
    del header["__metadata__"]
    with safe_open(path) as model:
        assert model.keys() == list(header)
        kinds = [model.info(name).stored_as for name in model]
    assert kinds == sorted(kinds, reverse=True)  # frames first
    frames = [name for name, kind in zip(header, kinds, strict=True) if kind == "frame"]
    assert frames == [name for name in MODEL if name in frames]
    widths = [MODEL[name].dtype.itemsize for name in header if name not in frames]
    assert widths == sorted(widths, reverse=True)
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert [start for start, _ in offsets] == [0, *(stop for _, stop in offsets[:-1])]


def test_default_metadata_and_empty_model(tmp_path):
    save_file({}, tmp_path / "m")
    with safe_open(tmp_path / "m") as model:
        assert model.metadata() == {"format": "pt"}
        assert model.keys() == []
    assert safetensors.deserialize((tmp_path / "m").read_bytes()) == []


def test_same_bytes_every_time(tmp_path, path):
    save_file(MODEL, tmp_path / "again", {"format": "np", "author": "someone"})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_arrays_of_any_memory_order(tmp_path):
    base = pruned(60, 80)
    odd = {"t": base.T, "step": base[::2, ::-3], "big": base.astype(">f4"), "wide": np.broadcast_to(base[:1], (9, 80))}
    odd["list"] = [1.5, 2.5]
    save_file(odd, tmp_path / "m")
    for name, array in load_file(tmp_path / "m").items():
        np.testing.assert_array_equal(array, odd[name])


def test_negative_zero(tmp_path):
    packed, itself = pruned(64, 64), np.array([-0.0, 1.0], np.float32)
    packed[0, :9] = -0.0
    save_file({"packed": packed, "itself": itself}, tmp_path / "value")
    found = load_file(tmp_path / "value")
    assert not np.signbit(found["packed"]).any()
    same(found["itself"], itself)
    with safe_open(tmp_path / "value") as model:
        assert model.get_packed("packed").negative_zeros == 9
        same(model.get_packed("itself").to_dense(), itself)
    save_file({"packed": packed}, tmp_path / "bits", zero="bits")
    same(load_file(tmp_path / "bits")["packed"], packed)


def test_packed_tensors_are_stored_unchanged(tmp_path):
    packed = codec.tensor.encode(pruned(70, 90), layout="csr", objective="memory")
    save_file({"p": packed}, tmp_path / "m", objective="disk", plan={"p": "bitmap"})
    with safe_open(tmp_path / "m") as model:
        assert codec.tensor.dumps(model.get_packed("p")) == codec.tensor.dumps(packed)


def test_plan(tmp_path):
    tensors = {"a.weight": pruned(64, 64), "b.weight": pruned(64, 64), "c.weight": pruned(64, 64), "c.bias": np.ones(4)}
    plan = {"*.weight": "csr", "b.weight": {"layout": "bitmap", "entropy": "none"}, "c.*": "dense"}
    save_file(tensors, tmp_path / "m", plan=plan | {"c.weight": "dense"})
    with safe_open(tmp_path / "m") as model:
        layouts = {name: (model.info(name).layout, model.info(name).stored_as) for name in model}
    csr, bitmap, itself = ("csr", "frame"), ("bitmap", "frame"), ("dense", "dense")
    assert layouts == {"a.weight": csr, "b.weight": bitmap, "c.weight": itself, "c.bias": itself}
    save_file({"tiny": np.ones(3)}, tmp_path / "m", plan={"tiny": "csr"})
    with safe_open(tmp_path / "m") as model:
        assert model.info("tiny").stored_as == "frame"  # a planned layout is an order


def test_progress(tmp_path):
    calls = []
    save_file(MODEL, tmp_path / "m", progress=lambda *call: calls.append(call))
    total = sum(array.nbytes for array in MODEL.values())
    assert [name for *_, name in calls] == list(MODEL)
    assert calls[-1][:2] == (total, total)


def test_load_packed_for_an_objective(path):
    for name, packed in load_file(path, packed=True, objective="speed").items():
        same(packed.to_dense(), MODEL[name])
    with pytest.raises(ArgumentError, match="packed=True"):
        load_file(path, objective="speed")


# Slices.

SHAPES = [(), (7,), (9, 5), (1, 9, 4), (3, 4, 2, 3)]
AXIS = st.one_of(
    st.integers(-4, 4), st.builds(slice, *[st.none() | st.integers(-6, 6)] * 2, st.sampled_from([None, 1, 2, -1, -3]))
)


@pytest.fixture(scope="module", params=[None, {"*": "csr"}], ids=["dense", "frames"])
def sliced(request, tmp_path_factory):
    arrays = {str(shape): RNG.integers(0, 3, shape).astype(np.float32) for shape in SHAPES}
    arrays["empty"] = np.zeros((3, 0, 2), np.float32)
    target = tmp_path_factory.mktemp("slices") / "m"
    save_file(arrays, target, plan=request.param)
    with safe_open(target) as model:
        yield arrays, model


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_slices_are_numpys(sliced, data):
    arrays, model = sliced
    name = data.draw(st.sampled_from(list(arrays)))
    index = data.draw(st.lists(AXIS, max_size=5))
    if data.draw(st.booleans()):
        index.insert(data.draw(st.integers(0, len(index))), Ellipsis)
    piece = model.get_slice(name)
    try:
        expected = arrays[name][tuple(index)]
    except IndexError:
        with pytest.raises(IndexError):
            piece[tuple(index)]
        return
    same(piece[tuple(index)], expected)


def test_slice_facts(path):
    with safe_open(path) as model:
        piece = model.get_slice("conv")
        assert (piece.get_shape(), piece.get_dtype()) == ([16, 4, 3, 3], "F16")
        last = piece[:, 3, 2, 1]
        assert last.base is None or last.base.nbytes == last.nbytes  # does not hold what was read for it


class Reads:
    """Counts the bytes that are read."""

    def __init__(self, monkeypatch):
        self.bytes, real = 0, os.preadv

        def preadv(fd, buffers, offset):
            count = real(fd, buffers, offset)
            self.bytes += count
            return count

        monkeypatch.setattr(os, "preadv", preadv)


def test_partial_reads(tmp_path, monkeypatch):
    big = np.zeros((4096, 1024), np.float32)
    big[:, ::64] = RNG.normal(size=(4096, 16))
    save_file({"frame": big, "dense": np.ones((4096, 512), np.float32)}, tmp_path / "m", plan={"dense": "dense"})
    reads = Reads(monkeypatch)
    with safe_open(tmp_path / "m") as model:
        frame, dense = model.info("frame"), model.info("dense")
        assert (frame.stored_as, dense.stored_as) == ("frame", "dense")
        reads.bytes = 0
        same(model.get_slice("frame")[100:110, 3], big[100:110, 3])
        assert reads.bytes < frame.nbytes / 3  # one segment of eight, and the head
        reads.bytes = 0
        rows = model.get_slice("dense")[1000:1010]
        assert rows.shape == (10, 512)
        assert rows.base is None or rows.base.nbytes == rows.nbytes  # does not hold the MiB
        assert reads.bytes == 1 << 20
        reads.bytes = 0
        assert model.get_slice("dense")[3, 5:9].shape == (4,)
        assert reads.bytes == 1 << 20


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
        for name in ("odd", "half"):
            with pytest.raises(ArgumentError, match=f"'{name}'.*carried"):
                model.get_tensor(name)
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
    index["tensors"]["x"] |= {"nnz": 63, "crcs": [crc32c(codec.tensor.dumps(b))]}
    write_raw(tmp_path / "m", pack(header, index), codec.tensor.dumps(b))
    with safe_open(tmp_path / "m") as model:
        for read in (model.get_tensor, model.get_packed, lambda name: model.get_slice(name)[0]):
            with pytest.raises(FormatError, match="the index says"):
                read("x")
        with pytest.raises(FormatError, match="the index says"):
            model.verify()


# Files made to do harm.


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ENTRY = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
HEADERS = {
    "not an object": b"[]",
    "leading space": b' {"x":' + ENTRY + b"}",
    "not json": b'{"x":',
    "not utf-8": b'{"\xff":1}',
    "lone surrogate": b'{"\\ud800":' + ENTRY + b"}",
    "two values": b"{} {}",
    "deep": b'{"x":' + b"[" * 200_000,
    "huge integer": b'{"x":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
    "duplicate name": b'{"x":' + ENTRY + b',"x":' + ENTRY + b"}",
    "duplicate key": b'{"x":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "nan": b'{"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}',
    "missing key": {"x": {"dtype": "U8", "shape": [4]}},
    "unknown key": {"x": entry() | {"more": 1}},
    "not a map": {"x": 3},
    "empty name": {"": entry()},
    "long name": {"x" * 1025: entry()},
    "unknown dtype": {"x": entry("Q7")},
    "dtype no string": {"x": entry(["U8"])},
    "shape no array": {"x": {"dtype": "U8", "shape": 4, "data_offsets": [0, 4]}},
    "negative side": {"x": entry(shape=(-4,))},
    "boolean side": {"x": entry(shape=(4, True))},
    "float side": {"x": entry(shape=(4.0,))},
    "too many sides": {"x": entry(shape=(4,) + (1,) * 32)},
    "too large": {"x": entry(shape=(2**62, 2**62))},
    "wraps to 4": {"x": entry("F64", (2**61 + 1, 2**32, 2**32), (0, 4))},
    "zero hides overflow": {"x": entry(shape=(0, 2**62, 2**62), offsets=(0, 0)), "y": entry()},
    "half a byte": {"x": entry("F4", (7,))},
    "wrong length": {"x": entry(shape=(3,))},
    "backwards": {"x": entry(shape=(0,), offsets=(4, 0))},
    "one offset": {"x": entry(offsets=(4,))},
    "boolean offset": {"x": entry(offsets=(False, 4))},
    "hole at start": {"x": entry(shape=(3,), offsets=(1, 4))},
    "hole": {"x": entry(shape=(1,), offsets=(0, 1)), "y": entry(shape=(2,), offsets=(2, 4))},
    "overlap": {"x": entry(shape=(3,), offsets=(0, 3)), "y": entry(shape=(2,), offsets=(2, 4))},
    "twice the same": {"x": entry(), "y": entry()},
    "past the end": {"x": entry(shape=(5,), offsets=(0, 5))},
    "short of the end": {"x": entry(shape=(3,), offsets=(0, 3))},
    "metadata no map": {"__metadata__": ["x"], "x": entry()},
    "metadata no string": {"__metadata__": {"a": 1}, "x": entry()},
    "metadata surrogate": b'{"__metadata__":{"a":"\\udfff"},"x":' + ENTRY + b"}",
    "index under another key": {"__metadata__": {"coddc": "g6d2ZXJzaW9uAKd0ZW5zb3Jz"}, "x": entry()},
}


@pytest.mark.parametrize("case", HEADERS)
def test_hostile_headers(tmp_path, case):
    write_raw(tmp_path / "m", HEADERS[case], bytes(4))
    with pytest.raises(FormatError):
        load_file(tmp_path / "m")
    write_raw(tmp_path / "m", {"x": entry()}, bytes(4))
    assert load_file(tmp_path / "m")["x"].tolist() == [0] * 4


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 2**64 - 8, 100_000_001, 59, 61])
def test_hostile_header_lengths(tmp_path, length):
    write_raw(tmp_path / "m", {"x": entry()}, bytes(4), length)
    with pytest.raises(FormatError):
        safe_open(tmp_path / "m")


def unpack(header):
    return msgpack.unpackb(base64.b64decode(header["__metadata__"]["codec"])[:-4])


def pack(header, index):
    raw = index if isinstance(index, bytes) else msgpack.packb(index)
    text = base64.b64encode(raw + crc32c(raw).to_bytes(4, "little")).decode()
    return json.dumps(header | {"__metadata__": header["__metadata__"] | {"codec": text}}).encode()


def _backwards(entry):
    return dict(reversed(entry.items()))


def _tensor(**changes):
    return lambda index: index["tensors"]["x"].update(changes)


INDEXES = {
    "newer": (lambda index: index.update(version=1), VersionError),
    "no version": (lambda index: index.update(version=None), FormatError),
    "boolean version": (lambda index: index.update(version=False), FormatError),
    "unknown key": (lambda index: index.update(more=1), FormatError),
    "missing key": (lambda index: index.pop("header_crc"), FormatError),
    "key order": (lambda index: index.update(version=index.pop("version")), FormatError),
    "other header": (lambda index: index.update(header_crc=index["header_crc"] ^ 1), ChecksumError),
    "header_crc no int": (lambda index: index.update(header_crc="1"), FormatError),
    "header_crc too large": (lambda index: index.update(header_crc=2**32), FormatError),
    "tensors no map": (lambda index: index.update(tensors=[]), FormatError),
    "missing tensor": (lambda index: index["tensors"].pop("x"), FormatError),
    "more tensors": (lambda index: index["tensors"].update(y=index["tensors"]["x"]), FormatError),
    "bytes as name": (lambda index: index["tensors"].update({b"y": index["tensors"]["x"]}), FormatError),
    "entry no map": (lambda index: index["tensors"].update(x=7), FormatError),
    "entry key order": (lambda index: index.update(tensors={"x": _backwards(index["tensors"]["x"])}), FormatError),
    "dtype": (_tensor(dtype="F16"), FormatError),
    "dtype no string": (_tensor(dtype=["F32"]), FormatError),
    "unknown dtype": (_tensor(dtype="Q7"), FormatError),
    "shape": (_tensor(shape=[3, 2]), FormatError),
    "shape no array": (_tensor(shape=6), FormatError),
    "boolean side": (_tensor(shape=[True, 6]), FormatError),
    "nbytes": (_tensor(nbytes=20), FormatError),
    "nbytes negative": (_tensor(nbytes=-24), FormatError),
    "nnz of a tensor stored as itself": (_tensor(nnz=6), FormatError),
    "layout without a frame": (_tensor(layout="csr", nnz=6), FormatError),
    "layout no string": (_tensor(layout=3), FormatError),
    "no crc": (_tensor(crcs=[]), FormatError),
    "more crcs": (_tensor(crcs=[1, 2]), FormatError),
    "crc too large": (_tensor(crcs=[2**32]), FormatError),
    "boolean crc": (_tensor(crcs=[True]), FormatError),
    "crcs no array": (_tensor(crcs=5), FormatError),
    "timestamp": (_tensor(crcs=msgpack.Timestamp(0)), FormatError),
    "wrong crc": (_tensor(crcs=[7]), ChecksumError),
}


@pytest.mark.parametrize("case", INDEXES)
def test_hostile_indexes(tmp_path, case):
    change, error = INDEXES[case]
    save_file({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, tmp_path / "m")
    header, data = read_json(tmp_path / "m")
    index = unpack(header)
    write_raw(tmp_path / "m", pack(header, index), data)
    load_file(tmp_path / "m")
    change(index)
    write_raw(tmp_path / "m", pack(header, index), data)
    with pytest.raises(error) as caught:
        load_file(tmp_path / "m")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", FormatError), ("AAA=", FormatError), ("AAAAAA==", FormatError), ("AAAAAAA=", ChecksumError),
        ("AAAAAAB=", FormatError), ("AAAAAB==", FormatError), ("AAAAAA=", FormatError), ("g6d2ZXJ", FormatError),
        ("g6d2 ZXJz", FormatError), ("g6d2_XJz", FormatError), ("\u00e9", FormatError),
    ],
)  # fmt: skip
def test_index_text(tmp_path, text, error):
    write_raw(tmp_path / "m", {"__metadata__": {"codec": text}, "x": entry()}, bytes(4))
    with pytest.raises(error):
        safe_open(tmp_path / "m")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xc1", b"\x80\x80", b"\x81\0\0", b"\xd9\x01a", b"\x91" * 5000, b"\x81\xa1\xff\0", b"\xdf\xff\xff\xff\xff"],
)
def test_index_that_is_not_canonical_msgpack(tmp_path, raw):
    header = {"__metadata__": {}, "x": entry()}
    write_raw(tmp_path / "m", pack(header, raw), bytes(4))
    with pytest.raises(FormatError, match="index"):
        safe_open(tmp_path / "m")


def test_index_with_longer_integers(tmp_path):
    save_file({"x": np.zeros(4, np.uint8)}, tmp_path / "m")
    header, data = read_json(tmp_path / "m")
    raw = msgpack.packb(unpack(header)).replace(b"\xa7version\x00", b"\xa7version\xcc\x00")
    write_raw(tmp_path / "m", pack(header, raw), data)
    with pytest.raises(FormatError, match="canonical"):
        safe_open(tmp_path / "m")


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
    "metadata", [{"codec": "x"}, {"a": 1}, {1: "a"}, "text", {"a": "\ud800"}, {"a": "g6d2ZXJzaW9uAKd0ZW5zb3Jz"}]
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


# Shards.


@pytest.fixture
def shards(tmp_path):
    names, folder = list(MODEL), tmp_path / "model"
    folder.mkdir()
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for number, (file, part) in enumerate(parts.items()):
        save_file({name: MODEL[name] for name in part}, folder / file, {"author": "someone", "part": str(number)})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


INDEX = "model.safetensors.index.json"


def remap(folder, **changes):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= changes
    (folder / INDEX).write_text(json.dumps(index))


def test_shards(shards):
    for target in (shards, shards / INDEX):
        with safe_open(target) as model:
            assert sorted(model) == sorted(MODEL)
            assert model.metadata() == {"author": "someone", "format": "pt"}
            assert model.verify().ok
            same(model.get_slice("gate")[3], MODEL["gate"][3])
        for name, array in load_file(target).items():
            same(array, MODEL[name])


def test_shards_from_the_current_folder(shards, monkeypatch):
    monkeypatch.chdir(shards)
    assert load_file(INDEX).keys() == MODEL.keys()
    assert load_file(".").keys() == MODEL.keys()


@pytest.mark.parametrize(
    "name", ["../model/model.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:x", "~x", "a\0", ".x", "a\n"]
)
def test_shard_names_are_bare(shards, name):
    remap(shards, gate=name)
    with pytest.raises(FormatError, match="not a bare file name"):
        safe_open(shards)


def test_shards_must_be_regular_files(shards, tmp_path):
    shard = shards / "model-00001-of-00002.safetensors"
    kept = shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(kept)
    with pytest.raises(FormatError, match="is a link"):
        safe_open(shards)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(FormatError, match="not a regular file"):
        safe_open(shards)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        safe_open(shards)
    shard.mkdir()
    with pytest.raises(FormatError, match="not a regular file"):
        safe_open(shards)


def test_hub_cache(shards, tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(shards.iterdir()):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    assert load_file(snapshot).keys() == MODEL.keys()


def test_shards_that_disagree(shards):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    remap(shards, gate=second)
    with pytest.raises(FormatError, match="maps it to"):
        safe_open(shards)
    remap(shards, gate=first, more=first)
    with pytest.raises(FormatError, match=r"'more'.*is not in shard"):
        safe_open(shards)
    save_file({"gate": MODEL["gate"]}, shards / second)
    with pytest.raises(FormatError, match="maps it to"):
        safe_open(shards)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map":[]}', '{"weight_map":{"a":1}}', '{"weight_map":{"a":"x","a":"y"}}']
)
def test_bad_shard_index(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(FormatError):
        safe_open(tmp_path)


def test_folders(tmp_path, path):
    assert load_file(tmp_path).keys() == MODEL.keys()
    save_file({}, tmp_path / "second.safetensors")
    with pytest.raises(ArgumentError, match="2 files"):
        safe_open(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ArgumentError, match="holds no"):
        safe_open(tmp_path / "none")
