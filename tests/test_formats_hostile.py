"""Files that are damaged, contradict themselves or ask for too much: refused by name, and nothing loaded."""

import contextlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from networks import available, fitting, fully_connected, network
from strategies import ELEMENTS

import codec
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats import FORMATS, format_of, open_file, support, write_file
from codec.formats.compressed_tensors import sparsity_format, with_sparsity
from codec.formats.registry import named_format
from codec.model.huggingface import without_removed

AVAILABLE = available()


def plain(path, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


# Names of formats.


@pytest.mark.parametrize("name", ["sparse-bitmap", "../evil.py", "os.system", "", "pack-quantized-sparse"])
def test_a_format_that_is_not_known_is_refused(tmp_path, name):
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"sparsity_config": {"format": name}, "quant_method": "compressed-tensors"}})
    )
    parts = {"w.compressed": np.ones(2, np.float32), "w.bitmask": np.array([[3]], np.uint8)}
    plain(tmp_path / "model.safetensors", {**parts, "w.shape": np.array([1, 8]), "w.row_offsets": np.array([0])})
    with pytest.raises(FormatError, match=f"names the sparse format {name!r}; known are sparse-bitmask"):
        open_file(tmp_path)
    with pytest.raises(ArgumentError, match="no format 'x'; codec formats lists all"):
        open_file(tmp_path, "x")
    with pytest.raises(ArgumentError, match="did you mean 'sparse-bitmask'"):
        named_format("sparse-bitmap")


def test_marlin_is_refused_with_a_word():
    for config in (
        {"quantization_config": {"format": "marlin-24"}},
        {"sparsity_config": {"format": "marlin-24"}},
        {"compression_config": {"sparsity_config": {"format": "marlin-24"}}},
    ):
        with pytest.raises(
            FormatError, match=r"'marlin-24': values in the order of one GPU kernel.*convert the checkpoint"
        ):
            sparsity_format(config)


def test_what_config_json_says():
    assert sparsity_format({}) is None
    assert sparsity_format({"sparsity_config": {"format": "dense"}}) is None
    assert (
        sparsity_format({"compression_config": {"sparsity_config": {"format": "sparse-24-bitmask"}}})
        == "sparse-24-bitmask"
    )
    groups = {"config_groups": {"a": 1}, "quant_method": "compressed-tensors"}
    old = {"a": 1, "quantization_config": {**groups, "sparsity_config": {"format": "dense"}}, "sparsity_config": {}}
    assert without_removed(old) == {"a": 1, "quantization_config": groups}
    new = with_sparsity(old, "sparse-bitmask", 0.5)["quantization_config"]
    assert (new["config_groups"], new["sparsity_config"]["global_sparsity"]) == ({"a": 1}, 0.5)
    with pytest.raises(ArgumentError, match="'gptq'"):
        with_sparsity({"quantization_config": {"quant_method": "gptq"}}, "sparse-bitmask", 0.5)


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("codec.formats.base.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"format onnx needs the package onnx.*pip install 'codec\[onnx\]'"):
        named_format("onnx")


# TFLite's int8 outside of 1 x 16.


@pytest.mark.parametrize("width", [1, 4, 16])
def test_int8_that_litert_runs_wrongly(tmp_path, width):
    pytest.importorskip("ai_edge_litert")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from codec.formats.sparsity import rows_of_blocks
    from codec.formats.tflite import _packed_sparsity

    w = np.zeros((8, 32), np.int8)
    w[1, 16:32] = 3
    model = schema.ModelT.InitFromPackedBuf(fully_connected(w, scales=0.1), 0)
    positions = np.flatnonzero(w)
    sparsity, values = rows_of_blocks(w.shape, positions, w.reshape(-1)[positions], width)
    model.subgraphs[0].tensors[1].sparsity = _packed_sparsity(schema, sparsity)
    model.buffers[1].data = values.view(np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (tmp_path / "m.tflite").write_bytes(bytes(builder.Output()))
    with open_file(tmp_path / "m.tflite") as source:
        if width == 16:
            assert np.array_equal(source["fc.weight"].to_dense(), w)
        else:
            with pytest.raises(FormatError, match=r"'fc.weight': int8 weights of FULLY_CONNECTED in another layout"):
                source["fc.weight"]
    (tmp_path / "like.tflite").write_bytes(fully_connected(w[:, :24].copy()))
    with pytest.raises(ArgumentError, match="24 columns of int8; LiteRT runs rows in blocks of 16 only"):
        write_file({"fc.weight": w[:, :24]}, tmp_path / "out.tflite", "tflite", like=tmp_path / "like.tflite")


# Archives and pickles.


def test_archives_that_ask_for_more_than_they_hold(tmp_path):
    header = (
        b"\x93NUMPY\x01\0v\0"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117)
        + b"\n"
    )
    for name, data in (("big", header), ("objects", pickled()), ("text", b"no array")):
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for array in ("format", "shape", "data"):
                archive.writestr(f"{array}.npy", data)
        with pytest.raises(FormatError, match=r"NumPy|expected numbers that fill them"):
            open_file(path)[name]


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    return stream.getvalue()


class Evil:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_pickles_run_nothing(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    for number, value in enumerate(({"w": Evil()}, Evil(), torch.nn.Linear(2, 2), [1, 2], torch.ones(2))):
        torch.save(value, tmp_path / f"{number}.pt")
        with pytest.raises(FormatError, match=r"weights_only=True|expected the state_dict"):
            open_file(tmp_path / f"{number}.pt")
    (tmp_path / "old.bin").write_bytes(pickle.dumps({"w": Evil()}, protocol=2))
    with pytest.raises(FormatError, match="weights_only=True"):
        open_file(tmp_path / "old.bin")
    assert capsys.readouterr().out == ""


def test_tensors_larger_than_their_file(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(1).expand(1 << 36), "x": torch.ones(2)}, tmp_path / "m.pt")
    with open_file(tmp_path / "m.pt") as source:
        assert source["x"].tolist() == [1, 1]
        with pytest.raises(FormatError, match=r"'w': a tensor of shape .* that repeats"):
            source["w"]


# Damage of any kind.


@pytest.mark.parametrize("one", AVAILABLE, ids=lambda one: one.name)
@pytest.mark.filterwarnings("ignore")
def test_every_error_is_ours(one, tmp_path):
    """Whatever lies in a file, what is raised for it is a CodecError, or the system's."""
    element = next(e for e in ELEMENTS if e.name in one.writes)
    path = tmp_path / f"fc.weight{one.suffix}"
    a = fitting(one, element)[:64, :64].copy() if one.name != "tflite" else fitting(one, element)
    files = write_file({"fc.weight": a}, path, one.name, like=network(one, tmp_path, element), sparse=lambda name: True)
    rng = np.random.default_rng(0)
    for file in files:
        with open(file, "rb") as opened:
            data = opened.read()
        for number in range(150 if len(files) == 1 else 12):
            raw = bytearray(data)
            if number % 4 == 0:
                del raw[int(rng.integers(0, len(raw))) :]
            for at in rng.integers(0, min(len(raw), 1 << (3 + number % 12)) or 1, 2) if raw else ():
                raw[at] = rng.integers(0, 256)
            with open(file, "wb") as opened:
                opened.write(raw)
            with contextlib.suppress(CodecError, OSError), open_file(path, one.name) as source:
                for name in source:
                    with contextlib.suppress(CodecError):
                        source[name]
        with open(file, "wb") as opened:
            opened.write(data)


def test_files_of_no_format(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing that anyone knows")
    assert format_of(str(tmp_path / "x")) is None
    with pytest.raises(ArgumentError, match="of no format that is known here; codec formats lists"):
        open_file(tmp_path / "x")
    for name in [one.name for one in AVAILABLE]:
        with pytest.raises(CodecError):
            dict(open_file(tmp_path / "x", name))


def test_arrays_outlive_their_source(tmp_path):
    w = np.eye(64, dtype=np.float32)
    write_file({"l.weight": w, "l.bias": w[0]}, tmp_path / "m.safetensors", "sparse-bitmask")
    with open_file(tmp_path / "m.safetensors") as source:
        found = dict(source)
    assert isinstance(found["l.weight"], codec.PackedTensor)
    assert isinstance(found["l.bias"], np.ndarray)
    write_file(found, tmp_path / "matrices", "scipy")
    with open_file(tmp_path / "matrices") as source:
        assert np.array_equal(source["l.bias"], w[0])
        assert np.array_equal(source["l.weight"].to_dense(), w)
    with pytest.raises(KeyError, match=r"no tensor 'l\.wait' in this file; close: l\.weight"):
        source["l.wait"]


def test_the_table_is_that_of_the_formats():
    rows = support()
    assert [row["format"] for row in rows] == list(FORMATS)
    for row in rows:
        one = FORMATS[row["format"]]
        assert list(row["dtypes"]) == list(BY_NAME)
        for name, ways in row["dtypes"].items():
            assert ("in" in ways.split(", ")) == (name in one.reads)
            assert ("out" in ways.split(", ")) == (name in one.writes)
        assert set(one.writes) <= set(one.reads)
