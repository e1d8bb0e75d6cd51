"""Arrays of a format that contradict each other: refused by name, and nothing loaded."""

import json

import numpy as np
import pytest
from interop import ABOUT, CSR

from codec.errors import ArgumentError, FormatError
from codec.formats import open_file, write_file
from codec.formats.positions import checked_shape, from_csr, from_positions
from codec.formats.sparsity import Level, Sparsity, positions_of


def plain(path, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


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
    "shape", [(1 << 60, 1 << 60), (1 << 25, 1), (1 << 20, 1 << 22), (64, 1 << 31), (-1, 2), (2.5,), "ab", (1,) * 40]
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
