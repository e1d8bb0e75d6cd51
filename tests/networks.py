"""What tests of formats of other tools share: small networks, tensors that fit each format, and comparing."""

import numpy as np
from strategies import seeded, under_rule

import codec
from codec.dtypes import BY_NAME, ElementType
from codec.formats import FORMATS, Format
from codec.formats.base import array_of

SHAPE = (64, 128)


def available() -> list[Format]:
    """Formats whose extras are installed."""
    found = []
    for one in FORMATS.values():
        try:
            one.require()
        except codec.ArgumentError:
            continue
        found.append(one)
    return found


def fitting(one: Format, element: ElementType, sparsity: float = 0.9, seed: int = 0) -> np.ndarray:
    """A matrix that a format can express sparse, if it can express the dtype: 2:4, and of whole tiles."""
    a = under_rule(seeded(SHAPE, element, sparsity, seed), "value", element)
    if one.name == "sparse-24-bitmask":
        bits = a.reshape(-1, 4).view(element.unsigned)
        bits[np.cumsum(bits != 0, axis=1) > 2] = 0
    return a


def network(one: Format, folder, element: ElementType, name: str = "fc.weight") -> str | None:
    """A file of the format whose network takes a matrix of that dtype, where the format needs one."""
    if one.name != "tflite":
        return None
    path = folder / f"network-{element.name}.tflite"
    dtype = element.dtype if element.name in one.reads else np.int8
    path.write_bytes(fully_connected(np.ones(SHAPE, dtype), name))
    return str(path)


def fully_connected(weights: np.ndarray, name: str = "fc.weight", scales=None) -> bytes:
    """A TFLite network that multiplies a vector by weights."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    rows, cols = weights.shape
    types = {"F32": "FLOAT32", "F64": "FLOAT64", "F16": "FLOAT16", "BF16": "BFLOAT16", "BOOL": "BOOL"}
    types |= {f"{k}{b}": f"{'U' * (k == 'U')}INT{b}" for k in "IU" for b in (8, 16, 32, 64)}
    element = next(e for e in BY_NAME.values() if e.dtype == weights.dtype)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.description = 3, [graph], "one layer"
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.ascontiguousarray(weights).reshape(-1).view(np.uint8)

    def tensor(label: str, shape: list[int], kind: str, buffer: int) -> object:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = label, shape, buffer
        made.type = getattr(schema.TensorType, kind)
        return made

    graph.tensors = [
        tensor("x", [1, cols], "FLOAT32", 0),
        tensor(name, [rows, cols], types[element.name], 1),
        tensor("y", [1, rows], "FLOAT32", 0),
    ]
    if scales is not None:
        quantisation = schema.QuantizationParametersT()
        quantisation.scale, quantisation.zeroPoint = [scales], [0]
        graph.tensors[1].quantization = quantisation
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 8 if element.name == "F32" else 9
    operator.inputs, operator.outputs = [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    model.operatorCodes, graph.operators, graph.inputs, graph.outputs = [code], [operator], [0], [2]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tensor(shape, name, sparsity=0.6, seed=0):
    """Random bits of any kind, with +0.0 for every zero."""
    return under_rule(seeded(shape, BY_NAME[name], sparsity, seed), "value", BY_NAME[name])


def same(found, a):
    """A source's tensor has the elements of an array, bit for bit."""
    back = array_of(found)
    assert (back.dtype, back.shape, back.tobytes()) == (a.dtype, a.shape, a.tobytes())
