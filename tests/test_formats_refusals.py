"""What a hostile or contradictory file may try with each format, beyond positions that are wrong."""

import contextlib
import importlib.util
import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from interop import ABOUT, CSR
from networks import available, fitting, fully_connected, network
from strategies import ELEMENTS

import codec
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats import FORMATS, Conversion, Source, format_of, open_file, write_file
from codec.formats import positions as positions_module
from codec.formats.positions import checked_shape, from_mask

SCIPY = {
    "format": np.array(b"csr"),
    "shape": np.array([3, 4]),
    "indptr": np.array([0, 1, 1, 2]),
    "indices": np.array([3, 0]),
    "data": np.ones(2, np.float32),
}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(text, version=b"\x01\0"):
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


# Archives.


def test_only_arrays_that_are_asked_for_are_read(tmp_path):
    np.savez(tmp_path / "m.npz", **SCIPY)
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("bomb.npy", b"\0" * (1 << 20), zipfile.ZIP_LZMA)
    assert open_file(tmp_path / "m.npz")["m"].nnz == 2


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice(tmp_path):
    np.savez(tmp_path / "m.npz", **SCIPY)
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("data.npy", npy(np.zeros(2, np.float32)))
    with pytest.raises(FormatError, match="has the array 'data' twice"):
        open_file(tmp_path / "m.npz")["m"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header("{'descr': '|V0', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"), "expected numbers"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -1), }\n") + b"\0" * 16, "expected numbers"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n", b"\x09\0") + b"\0" * 8, "version"),
    ],
)
def test_headers_of_numpy(tmp_path, data, words):
    np.savez(tmp_path / "m.npz", **{name: a for name, a in SCIPY.items() if name != "data"})
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("data.npy", data)
    with pytest.raises(FormatError, match=words):
        open_file(tmp_path / "m.npz")["m"]


def test_a_folder_has_each_tensor_in_one_form(tmp_path):
    w = np.eye(64, dtype=np.float16)
    for name in ("scipy", "tca-bme"):
        folder, a = tmp_path / name, w if name == "tca-bme" else w.astype(np.float32)
        for sparse in (True, False, True):
            files = write_file({"w": a}, f"{folder}/", name, sparse=lambda name, sparse=sparse: sparse)
            assert sorted(os.listdir(folder)) == sorted(map(os.path.basename, files))
            with open_file(folder, name) as source:
                assert isinstance(source["w"], codec.PackedTensor) == sparse


def test_names_that_make_no_names_of_files(tmp_path):
    a = np.eye(64, dtype=np.float16)
    for name in ("a" * 241, "\ud800"):
        with pytest.raises(ArgumentError, match="name"):
            write_file({name: a}, f"{tmp_path}/out/", "tca-bme")
    write_file({"a" * 239: a}, f"{tmp_path}/out/", "tca-bme")


# binsparse.


@pytest.mark.parametrize(
    ("about", "arrays", "words"),
    [
        ({"structure": "symmetric_lower"}, {}, "structure 'symmetric_lower', of which only one triangle is stored"),
        ({"fill": 1}, {}, "fill is 1; expected true or false"),
        ({"format": ["CSR"]}, {}, r"format \['CSR'\]; expected one of"),
        ({"number_of_stored_values": True}, {}, "without shape"),
    ],
)
def test_descriptions_of_binsparse(tmp_path, about, arrays, words):
    np.savez(tmp_path / "m.npz", binsparse=np.array(json.dumps({"binsparse": {**ABOUT, **about}})), **{**CSR, **arrays})
    with pytest.raises(FormatError, match=words):
        open_file(tmp_path / "m.npz")["m"]


@pytest.mark.parametrize(
    ("kind", "arrays", "words"),
    [
        ("COO", {"indices_0": np.array([0.5, 2.0]), "indices_1": np.array([0, 1])}, "expected integers"),
        (
            "DCSR",
            {"indices_0": np.array([1]), "pointers_to_1": np.array([0, 1 << 40]), "indices_1": np.array([0, 1])},
            "ascending from 0 to the 2 entries",
        ),
    ],
)
def test_indices_of_binsparse(tmp_path, kind, arrays, words):
    types = {name: str(a.dtype) for name, a in arrays.items()} | {"values": "float32"}
    text = np.array(json.dumps({"binsparse": {**ABOUT, "format": kind, "data_types": types}}))
    np.savez(tmp_path / "m.npz", binsparse=text, values=np.ones(2, np.float32), **arrays)
    with pytest.raises(FormatError, match=words):
        open_file(tmp_path / "m.npz")["m"]


# Shapes, masks, names.


def test_words_for_shapes():
    with pytest.raises(FormatError, match=r"a shape of \[1\.5, 2\]; expected whole numbers"):
        checked_shape([1.5, 2], 1, "float32")
    with pytest.raises(FormatError, match=r"^cannot code dtype complex64"):
        checked_shape([2, 2], 1, "complex64")


def test_bits_are_counted_before_they_are_positions(monkeypatch):
    monkeypatch.setattr(positions_module, "set_bits", lambda *_: pytest.fail("positions were made"))
    with pytest.raises(FormatError, match="0 values for 512 set bits"):
        from_mask((64, 8), np.full((64, 1), 255, np.uint8), 8, np.zeros(0, np.float32))


def test_two_masked_tensors_of_one_name(tmp_path):
    from safetensors.numpy import save_file

    ones = np.ones((4, 4), np.float32)
    names = ("weight_orig", "weight_mask", "parametrizations.weight.original", "parametrizations.weight.0.mask")
    save_file({f"m.{name}": ones for name in names}, tmp_path / "m.safetensors")
    with pytest.raises(FormatError, match=r"'m\.weight': is there twice"):
        open_file(tmp_path / "m.safetensors", "safetensors")


def test_sizes_of_core_ml_are_numbers_of_32_bits(tmp_path):
    scipy = pytest.importorskip("scipy.sparse")
    packed = codec.PackedTensor.from_scipy(scipy.csr_array((1, 1 << 33), dtype=np.int8))
    with pytest.raises(ArgumentError, match="coreml has shapes of 32-bit numbers"):
        write_file({"w": packed}, tmp_path / "m.safetensors", "coreml", sparse=lambda name: True)


def test_what_is_to_be_sparse_is_not_left_dense(tmp_path):
    with pytest.raises(ArgumentError, match=r"tensor 'w': cannot code dtype complex64"):
        write_file({"w": np.ones((4, 4), np.complex64)}, tmp_path / "m.safetensors", "coreml", sparse=lambda name: True)
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="is not a regular file"):
        open_file(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["onnx", "tflite", "torch", "scipy"])
def test_folders_without_such_files(tmp_path, name):
    if not all(map(importlib.util.find_spec, FORMATS[name].modules)):
        pytest.skip(f"{FORMATS[name].modules} are not installed")
    with pytest.raises(ArgumentError, match=r"holds no|holds 0 files"):
        open_file(tmp_path, name)


def test_errors_name_the_file(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w.compressed": np.ones(2), "w.bitmask": np.ones((1, 1), np.uint8)}, tmp_path / "m.safetensors")
    with pytest.raises(FormatError, match=r"w\.shape, w\.row_offsets is missing .*m\.safetensors"):
        open_file(tmp_path / "m.safetensors")


def test_a_network_to_keep_is_for_networks(tmp_path):
    with pytest.raises(ArgumentError, match="a network to keep is for onnx and tflite; scipy has none"):
        write_file({"w": np.eye(64)}, tmp_path / "w.npz", "scipy", like=tmp_path / "x.onnx")


def test_metadata_that_has_no_room_is_told():
    source = Source("safetensors", "", {}, {"format": "pt", "license": "mit"})
    assert Conversion(source, FORMATS["scipy"], "x.npz").metadata_left_out == ["license"]
    assert Conversion(source, FORMATS["coreml"], "x.safetensors").metadata_left_out == []


def test_files_for_transformers_say_their_framework(tmp_path):
    for name in ("safetensors", "sparse-bitmask", "coreml"):
        write_file({"l.weight": np.eye(64, dtype=np.float32)}, tmp_path / "m.safetensors", name)
        with codec.safe_open(tmp_path / "m.safetensors") as model:
            assert model.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", ["macko", "tca-bme"])
def test_negative_zeros_that_a_format_drops_are_counted(tmp_path, name):
    if name == "macko":
        pytest.importorskip("torch")
    a = np.eye(64, dtype=np.float16)
    a[3, :3] = -0.0
    source = Source.of({"l.weight": codec.encode(a, layout="csr", zero="bits")})
    made = Conversion(source, FORMATS[name], str(tmp_path / f"l.weight{FORMATS[name].suffix}"))
    made.run(made.output())
    assert made.negative_zeros == 3


# Damage where formats are told apart.


@pytest.mark.parametrize("one", available(), ids=lambda one: one.name)
@pytest.mark.filterwarnings("ignore")
def test_telling_formats_apart_never_fails(one, tmp_path):
    element = next(e for e in ELEMENTS if e.name in one.writes)
    path = tmp_path / f"fc.weight{one.suffix}"
    files = write_file({"fc.weight": fitting(one, element)}, path, one.name, like=network(one, tmp_path, element))
    rng = np.random.default_rng(0)
    with open(files[0], "rb") as file:
        data = file.read()
    for number in range(200):
        raw = bytearray(data)
        for at in rng.integers(0, len(raw), 2):
            raw[-1 - at % min(len(raw), 600) if number % 2 else at] = rng.integers(0, 256)
        if number % 5 == 0:
            del raw[: int(rng.integers(0, 40))]
        path.write_bytes(raw)
        with contextlib.suppress(CodecError, OSError):
            format_of(str(path))


# TFLite and ONNX.


def test_data_behind_the_flatbuffer_come_along(tmp_path):
    pytest.importorskip("ai_edge_litert")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    w = np.arange(1, 16 * 64 + 1, dtype=np.float32).reshape(16, 64)
    model = schema.ModelT.InitFromPackedBuf(fully_connected(w), 0)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = "other", [4], 2, schema.TensorType.FLOAT32
    model.subgraphs[0].tensors.append(tensor)
    model.buffers.append(schema.BufferT())
    model.buffers[1].data = None

    def packed():
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    model.buffers[1].offset = model.buffers[1].size = model.buffers[2].offset = model.buffers[2].size = 1 << 40
    start = len(packed())
    model.buffers[1].offset, model.buffers[1].size = start, w.nbytes
    model.buffers[2].offset, model.buffers[2].size = start + w.nbytes, 16
    other = np.array([1, 2, 3, 4], np.float32)
    (tmp_path / "like.tflite").write_bytes(packed() + w.tobytes() + other.tobytes())
    write_file({"fc.weight": w * 2}, tmp_path / "m.tflite", "tflite", like=tmp_path / "like.tflite")
    with open_file(tmp_path / "m.tflite") as source:
        assert np.array_equal(source["fc.weight"], w * 2)
        assert np.array_equal(source["other"], other)


def test_metadata_of_onnx_come_in(tmp_path):
    pytest.importorskip("onnx")
    source = Source.of({"w": np.eye(64, dtype=np.float32)})
    source.metadata["license"] = "mit"
    write_file(source, tmp_path / "m.onnx", "onnx")
    with open_file(tmp_path / "m.onnx") as found:
        assert found.metadata["license"] == "mit"


def test_an_onnx_file_is_read_as_one_whatever_its_name(tmp_path):
    pytest.importorskip("onnx")
    write_file({"w": np.eye(64, dtype=np.float32)}, tmp_path / "m.json", "onnx")
    assert open_file(tmp_path / "m.json", "onnx")["w"].nnz == 64
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(FormatError, match="is no ONNX model"):
        open_file(tmp_path / "x.json", "onnx")
