"""Model files: what is written comes back, whole or in slices, and as NumPy would give it."""

import os
import re

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODEL, RNG, pruned, read_json, same

import codec.tensor
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.model import load_file, safe_open, save_file

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
        layouts = [model.info(name).layout for name in model]
    frames = [name for name, kind in zip(header, kinds, strict=True) if kind == "frame"]
    last = [name for name, layout in zip(header, layouts, strict=True) if layout == "context"]  # not aligned
    plain = [name for name in header if name not in frames]
    first = [name for name in frames if name not in last]
    assert list(header) == [*first, *plain, *last]
    for group in (first, last):
        assert group == [name for name in MODEL if name in group]
    widths = [MODEL[name].dtype.itemsize for name in plain]
    assert widths == sorted(widths, reverse=True)
    assert all(header[name]["data_offsets"][0] % MODEL[name].dtype.itemsize == 0 for name in plain)
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


@pytest.mark.parametrize("key", ["a.wieght", "b.*"])
def test_a_plan_for_no_tensor_is_refused(tmp_path, key):
    """A name that is misspelt would be passed over, and nobody would notice."""
    tensors, words = {"a.weight": pruned(64, 64)}, f"plan names {key!r}, and no tensor has such a name"
    words = re.escape(words) + ("; close: a.weight" if "*" not in key else "")
    save_file(tensors, tmp_path / "m.safetensors")
    for run in (
        lambda: save_file(tensors, tmp_path / "n", plan={"a.*": "csr", key: "dense"}),
        lambda: codec.save(tensors, plan={key: "dense"}),
        lambda: codec.encode_checkpoint(tmp_path / "m.safetensors", tmp_path / "n", plan={key: "csr"}),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            run()
    assert not (tmp_path / "n").exists()
    save_file({}, tmp_path / "n", plan={key: "csr"})  # for no tensors, a plan is for none
