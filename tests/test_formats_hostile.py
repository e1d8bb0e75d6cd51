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

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats import FORMATS, format_of, open_file, support, write_file
from codec.formats.compressed_tensors import sparsity_format, with_sparsity, without_sparsity
from codec.formats.conversion import named_format
from codec.formats.positions import checked_shape, from_csr, from_positions
from codec.formats.sparsity import Level, Sparsity, positions_of

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
    assert without_sparsity(old) == {"a": 1, "quantization_config": groups}
    new = with_sparsity(old, "sparse-bitmask", 0.5)["quantization_config"]
    assert (new["config_groups"], new["sparsity_config"]["global_sparsity"]) == ({"a": 1}, 0.5)
    with pytest.raises(ArgumentError, match="'gptq'"):
        with_sparsity({"quantization_config": {"quant_method": "gptq"}}, "sparse-bitmask", 0.5)


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("codec.formats.base.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"format onnx needs the package onnx.*pip install 'codec\[onnx\]'"):
        named_format("onnx")


# compressed-tensors.

GOOD = {
    "w.compressed": np.array([1, 2, 3], np.float32),
    "w.bitmask": np.array([[3], [128]], np.uint8),
    "w.shape": np.array([2, 8]),
    "w.row_offsets": np.array([0, 2]),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"w.compressed": None}, r"w\.compressed is missing beside w\.bitmask"),
        ({"w.bitmask": None}, r"w\.bitmask is missing beside w\.compressed"),
        ({"w.shape": None}, r"w\.shape is missing"),
        ({"w.row_offsets": None, "w.weight": np.ones(2)}, r"w\.row_offsets is missing"),
        ({"w.shape": np.array([2, 9])}, "'w.weight': a bitmask of shape"),
        ({"w.shape": np.array([-2, 8])}, "'w.weight': a shape of"),
        ({"w.shape": np.array([1 << 40, 1 << 40])}, "'w.weight'"),
        ({"w.shape": np.array([2.0, 8.0])}, "'w.weight': a shape of"),
        ({"w.shape": np.array([2, 7])}, "a bit behind the 7 of a line"),
        ({"w.bitmask": np.array([[7], [128]], np.uint8)}, "'w.weight': 3 values for 4 set bits"),
        ({"w.bitmask": np.array([[3], [64]], np.int8)}, "a mask of shape"),
        ({"w.compressed": np.ones((3, 1), np.float32)}, "values of shape"),
        ({"w.weight": np.ones((2, 8), np.float32)}, "'w.weight': is in the file twice"),
        (
            {f"w.weight.{part}": GOOD[f"w.{part}"] for part in ("compressed", "bitmask", "shape", "row_offsets")},
            "twice",
        ),
    ],
)
def test_bitmasks_that_contradict_themselves(tmp_path, changed, words):
    tensors = {name: a for name, a in {**GOOD, **changed}.items() if a is not None}
    path = plain(tmp_path / "m.safetensors", tensors)
    with pytest.raises(FormatError, match=words), open_file(path, "sparse-bitmask") as source:
        dict(source)


@pytest.mark.parametrize(
    ("compressed", "mask", "shape", "words"),
    [
        (np.ones((1, 4)), [[0b11100001]], [1, 8], "elements 0 to 3 have 1 set bits; expected two of four"),
        (np.ones((1, 4)), [[0b00000111]], [1, 8], "4 values for 3 set bits"),
        (np.ones((1, 3)), [[0b00110001]], [1, 8], "two of four"),
        (np.ones((1, 4)), [[0b01110001]], [1, 8], "elements 0 to 3 have 1 set bits"),
        (np.ones((1, 3)), [[0b00011011]], [1, 6], "3 values for 4 set bits"),
        (np.ones(4), [[0b00110011]], [8], "two of four"),
    ],
)
def test_two_of_four_that_is_not(tmp_path, compressed, mask, shape, words):
    tensors = {"w.compressed": compressed, "w.bitmask": np.array(mask, np.uint8), "w.shape": np.array(shape)[:, None]}
    path = plain(tmp_path / "m.safetensors", tensors)
    with pytest.raises(FormatError, match=words), open_file(path, "sparse-24-bitmask") as source:
        dict(source)


def test_three_of_four_do_not_go_out(tmp_path):
    a = np.zeros((4, 16), np.float32)
    a[2, 4:7] = 1
    with pytest.raises(
        ArgumentError, match=r"tensor 'w\.weight': row 2, columns 4 to 7: three entries or more in a group of four"
    ):
        write_file({"w.weight": a}, tmp_path / "m.safetensors", "sparse-24-bitmask")
    with pytest.raises(ArgumentError, match=r"names end in '.weight'"):
        write_file({"w": a}, tmp_path / "m.safetensors", "sparse-bitmask")
    assert not list(tmp_path.iterdir())


def test_names_that_collide(tmp_path):
    a = np.zeros((8, 64), np.float32)
    with pytest.raises(ArgumentError, match=r"'w\.shape': another tensor's part"):
        write_file({"w.weight": a, "w.shape": np.ones(3)}, tmp_path / "m.safetensors", "sparse-bitmask")


# Positions, rows, levels.


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([0, 12], "index 12 lies outside the tensor's 12 elements"),
        ([-1, 3], "index -1 lies outside"),
        ([3, 3], "index 3 occurs twice"),
        ([5, 3], "index 5 is followed by 3"),
        ([1], "one integer for each value"),
        ([1.0, 2.0], "one integer for each value"),
    ],
)
def test_positions(positions, words):
    with pytest.raises(FormatError, match=words):
        from_positions((3, 4), np.array(positions), np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("starts", "indices", "words"),
    [
        ([0, 2, 1, 2], [0, 1], "ascend from 0"),
        ([-1, 0, 1, 2], [0, 1], "ascend from 0"),
        ([0, 1, 2], [0, 1], "ascend from 0"),
        ([0, 1, 1, 2], [0, 4], "column index 4 lies outside"),
        ([0, 1, 1, 2], [-1, 0], "column index -1"),
        ([0, 2, 2, 2], [1, 0], "index 1 is followed by 0"),
        ([0, 2, 2, 2], [1, 1], "index 1 is followed by 1"),
        ([0.0, 2, 2, 2], [0, 1], "expected integers"),
    ],
)
def test_rows(starts, indices, words):
    with pytest.raises(FormatError, match=words):
        from_csr((3, 4), np.array(starts), np.array(indices), np.ones(2, np.float32))


@pytest.mark.parametrize(
    "shape", [(1 << 60, 1 << 60), (1 << 25, 1), (1 << 20, 1 << 22), (-1, 2), (2.5,), "ab", (1,) * 40]
)
def test_shapes_that_entries_do_not_justify(shape):
    with pytest.raises(FormatError, match="shape"):
        checked_shape(
            np.array(shape) if isinstance(shape, tuple) and max(shape) < 1 << 59 else list(shape), 1, "float32"
        )


LEVELS = {
    "segments": (Level(3), Level(0, np.array([0, 2, 1, 2]), np.array([0, 1]))),
    "negative": (Level(3), Level(0, np.array([-1, 0, 1, 2]), np.array([0, 1]))),
    "outside": (Level(3), Level(0, np.array([0, 1, 1, 2]), np.array([0, 4]))),
    "unsorted": (Level(3), Level(0, np.array([0, 2, 2, 2]), np.array([1, 0]))),
    "double": (Level(3), Level(0, np.array([0, 2, 2, 2]), np.array([1, 1]))),
    "size": (Level(4), Level(0, np.array([0, 1, 1, 2]), np.array([0, 1]))),
    "dense": (Level(3), Level(4)),
    "short": (Level(3),),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_levels(kind):
    with pytest.raises(FormatError):
        positions_of(Sparsity((0, 1), (), LEVELS[kind]), (3, 4), 2)


@pytest.mark.parametrize(
    ("order", "blocks", "sizes"),
    [((0, 0), (), [3, 4]), ((0, 1, 2), (2,), [3, 2, 2]), ((0, 1, 2), (1,), [3, 1, 3]), ((1, 2, 0), (1,), [4, 3, 1])],
)
def test_orders_and_blocks(order, blocks, sizes):
    with pytest.raises(FormatError):
        positions_of(Sparsity(order, blocks, tuple(map(Level, sizes))), (3, 4), 12)


def test_examples_of_the_schema():
    a = np.array([[6, 0, 9, 8], [0, 0, 0, 0], [5, 0, 0, 7]])
    rows = Sparsity((0, 1), (), (Level(3), Level(0, np.array([0, 3, 3, 5]), np.array([0, 2, 3, 0, 3]))))
    cols = Sparsity((1, 0), (), (Level(4), Level(0, np.array([0, 2, 2, 3, 5]), np.array([0, 2, 0, 0, 2]))))
    for sparsity, values in ((rows, [6, 9, 8, 5, 7]), (cols, [6, 5, 9, 8, 7])):
        found = np.zeros(12, int)
        found[positions_of(sparsity, (3, 4), 5)] = values
        assert found.tolist() == a.reshape(-1).tolist()
    levels = (Level(2), Level(0, np.array([0, 1, 2]), np.array([0, 1])), Level(2), Level(2))
    found = np.zeros(16, int)
    found[positions_of(Sparsity((0, 1, 2, 3), (0, 1), levels), (4, 4), 8)] = [6, 0, 0, 5, 0, 0, 0, 7]
    assert np.argwhere(found.reshape(4, 4)).tolist() == [[0, 0], [1, 1], [3, 3]]


# ONNX, binsparse, scipy, MACKO, SpInfer.


@pytest.mark.parametrize(
    ("dims", "indices", "words"),
    [
        ([3, 4], [5, 3], "index 5 is followed by 3"),
        ([3, 4], [3, 3], "index 3 occurs twice"),
        ([3, 4], [-1, 3], "index -1 lies outside"),
        ([3, 4], [3, 12], "index 12 lies outside"),
        ([3, 4], [[0, 1], [0, 4]], r"the index \[0, 4\] lies outside"),
        ([3, 4], [[0, 1], [0, -1]], r"the index \[0, -1\] lies outside"),
        ([3, 4], [[1, 0], [0, 1]], "is followed by"),
        ([3, 4], [1], "expected integers of shape"),
        ([3, 4], [[1, 2, 3], [1, 2, 3]], "expected integers of shape"),
        ([3, 0], [0, 1], "a sparse tensor of shape"),
        ([1 << 40, 1 << 40], [0, 1], "shape"),
    ],
)
def test_sparse_initializers(tmp_path, dims, indices, words):
    pytest.importorskip("onnx")
    from onnx import SparseTensorProto, helper, numpy_helper, save

    sparse = SparseTensorProto(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices), "i"))
    save(helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[sparse])), tmp_path / "m.onnx")
    with pytest.raises(FormatError, match=rf"tensor 'w': .*{words}"):
        open_file(tmp_path / "m.onnx")["w"]


ABOUT = {
    "version": "0.1.0",
    "format": "CSR",
    "shape": [3, 4],
    "number_of_stored_values": 2,
    "data_types": {"pointers_to_1": "int64", "indices_1": "int64", "values": "float32"},
}
CSR = {"pointers_to_1": np.array([0, 1, 1, 2]), "indices_1": np.array([3, 0]), "values": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("about", "arrays", "words"),
    [
        ({"version": "2.0"}, {}, "version '2.0' of binsparse; expected one of 0.1, 0.1.0"),
        ({"format": "exec"}, {}, "format 'exec'; expected one of CSR"),
        ({"shape": 3}, {}, "without shape"),
        ({"number_of_stored_values": 3}, {}, "2 values; the description says 3"),
        ({"fill": True}, {}, "'fill_value' is missing"),
        ({"data_types": {**ABOUT["data_types"], "values": "complex[float32]"}}, {}, "of type 'complex"),
        ({"data_types": {**ABOUT["data_types"], "values": "iso[float32]"}}, {}, "expected one for all"),
        ({"data_types": {**ABOUT["data_types"], "values": "float64"}}, {}, "the description says float64"),
        ({}, {"indices_1": np.array([0, 4])}, "column index 4 lies outside"),
        ({}, {"pointers_to_1": np.array([0, 2, 1, 2])}, "ascend from 0"),
        ({"shape": [3, 4, 5]}, {}, "of a CSR"),
    ],
)
def test_descriptions_of_binsparse(tmp_path, about, arrays, words):
    text = np.array(json.dumps({"binsparse": {**ABOUT, **about}}))
    np.savez(tmp_path / "m.npz", binsparse=text, **{**CSR, **arrays})
    with pytest.raises(FormatError, match=rf"tensor 'm': .*{words}"):
        open_file(tmp_path / "m.npz")["m"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"format": np.array(b"lil")}, "format 'lil'; expected one of csr"),
        ({"indptr": None}, "a csr matrix without its arrays indptr"),
        ({"indices": np.array([0, 9])}, "column index 9 lies outside"),
        ({"indptr": np.array([0, -1, 1, 2])}, "ascend from 0"),
        ({"data": np.ones((2, 2))}, "expected one for each entry"),
        ({"shape": np.array([3])}, "expected the rows and the columns"),
        ({"format": np.array("dia"), "offsets": np.array([0])}, "for 2 diagonals|for diagonals|offsets of shape"),
        ({"data": np.ones(2, np.complex64)}, "cannot code dtype complex64"),
    ],
)
def test_matrices_of_scipy(tmp_path, arrays, words):
    csr = {"format": np.array(b"csr"), "shape": np.array([3, 4]), "indptr": np.array([0, 1, 1, 2])}
    csr |= {"indices": np.array([3, 0]), "data": np.ones(2, np.float32), **arrays}
    np.savez(tmp_path / "m.npz", **{name: a for name, a in csr.items() if a is not None})
    with pytest.raises(FormatError, match=rf"tensor 'm': .*(?:{words})"):
        open_file(tmp_path / "m.npz")["m"]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (1, None, r"m\.c_1 is missing"),
        (2, [0, 2, 1, 4], "do not ascend"),
        (2, [0, 1], "for 3 rows"),
        (2, [0, 1, 2, 99], "do not ascend from 0 to at most"),
        (3, -3, "expected a number of rows"),
        (4, 2, "column index"),
        (2, [0, 1, 1, 1], "entries behind the last row"),
    ],
)
def test_macko_that_contradicts_itself(tmp_path, part, value, words):
    torch = pytest.importorskip("torch")
    a = np.zeros((3, 40), np.float16)
    a[0, 3] = a[1, 30] = a[2, 0] = 1
    write_file({"m.weight": a}, tmp_path / "m.pt", "macko")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    if value is None:
        del state[f"m.c_{part}"]
    else:
        state[f"m.c_{part}"] = torch.tensor(value, dtype=torch.int32) if isinstance(value, list) else value
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(FormatError, match=words):
        dict(open_file(tmp_path / "m.pt", "macko"))


@pytest.mark.parametrize(
    "ending", [".gtile.bin", ".mtile.bin", ".ltile.bin", ".intile.bin", ".OutputSizes.bin", ".Shape.bin"]
)
def test_tiles_that_contradict_themselves(tmp_path, ending):
    a = np.zeros((64, 128), np.float16)
    a[3, 5] = a[60, 100] = 1
    write_file({"w": a}, tmp_path, "tca-bme")
    path = tmp_path / f"w{ending}"
    data = bytearray(path.read_bytes())
    data[4 if ending == ".mtile.bin" else 0] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="tensor 'w'"):
        open_file(tmp_path, "tca-bme")["w"]
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="expected a multiple of"):
        open_file(tmp_path, "tca-bme")["w"]
    path.unlink()
    with pytest.raises(FormatError, match="is missing beside"):
        open_file(tmp_path, "tca-bme")["w"]


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
        with pytest.raises(FormatError, match=r"NumPy|expected an array of shape"):
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


def test_shards_of_pickles_stay_in_their_folder(tmp_path):
    pytest.importorskip("torch")
    for name in ("../x.bin", "/x.bin", "..", 3):
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(FormatError, match=r"not in its folder|weight_map"):
            open_file(tmp_path)


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
    with pytest.raises(ArgumentError, match="of no format that is known here; codec formats lists"):
        format_of(str(tmp_path / "x"))
    for name in [one.name for one in AVAILABLE]:
        with pytest.raises(CodecError):
            dict(open_file(tmp_path / "x", name))


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
