"""TFLite (LiteRT): constant tensors of a model, dense or with sparsity parameters, in place.

Every layout of the schema comes in, but for int8 weights of FULLY_CONNECTED in other blocks than 1 x 16: LiteRT runs
those and gives wrong numbers without an error. Out go only the layouts that it was seen to run right: float32 weights
of FULLY_CONNECTED as CSR or in blocks of 1 x 4, int8 ones in blocks of 1 x 16.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from codec.dtypes import element_type
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats.base import Format, Place, Source, Stored, array_of, dense
from codec.formats.positions import checked_shape, from_positions, to_positions
from codec.formats.sparsity import Level, Sparsity, narrowest, positions_of, rows_of_blocks, sparsity_nbytes
from codec.model import naming
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

MAGIC = b"TFL3"
# Dtypes by their names in the schema; those of 4 bits, strings, complex numbers and resources have none here.
_DTYPES = {
    "FLOAT32": np.float32, "FLOAT16": np.float16, "FLOAT64": np.float64, "BFLOAT16": ml_dtypes.bfloat16,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip
# What FULLY_CONNECTED runs right: the widths of blocks in a row.
_BLOCKS = {"F32": (1, 4), "I8": (16,)}
_MOST = (1 << 31) - 1  # bytes of a flatbuffer
_MOST_LEVELS = 64  # of a tensor: more than twice as many as dimensions are no sparsity


class Constant(NamedTuple):
    """A tensor with data: its subgraph, its number there, and the schema's table."""

    graph: int
    number: int
    tensor: Any


class TFLite(Format):
    """The constant tensors of a model."""

    name = "tflite"
    summary = "TFLite: constant tensors, in place; every sparse layout comes in, those that LiteRT runs right go out"
    reads = tuple(element_type(dtype).name for dtype in _DTYPES.values())
    writes = tuple(_BLOCKS)
    entry_bits = 8
    matrices = True
    networks = True
    extra, modules = "tflite", ("ai_edge_litert",)
    suffix = ".tflite"

    def form(self, name: str, value: Any, wanted: bool | None) -> Any:
        """Tensors that cannot be weights of FULLY_CONNECTED stay dense, unless they are asked for."""
        possible = len(value.shape) == 2 and element_type(_dtype_of(value)).name in self.writes
        return dense(value) if wanted is None and not possible else super().form(name, value, wanted)

    def claims(self, place: Place) -> bool:
        """By the identifier of the file."""
        return place.first[4:8] == MAGIC or (place.is_folder and len(place.ending(self.suffix)) == 1)

    def open(self, place: Place) -> Source:
        """The file is in memory."""
        path = place.only(self.suffix)
        with open(path, "rb") as file:
            data = file.read()
        stem = os.path.basename(path).removesuffix(self.suffix)
        with _reading(path):
            model = _model(data)
            weights = {(c.graph, c.number) for c in _weights_of_fully_connected(model)}
            found = constants(data, model)
            left = [name for name, one in found.items() if one.tensor.Type() not in _types()]
            tensors = {
                name: Stored(partial(_tensor, path, data, model, one, (one.graph, one.number) in weights), stem)
                for name, one in found.items()
                if name not in left
            }
        notes = [f"left alone, of types that are not packed: {', '.join(map(repr, left[:5]))}"] if left else []
        return Source(self.name, path, tensors, notes=notes)

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """In the network of ``like``, which has to be given."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        if like is None:
            raise ArgumentError("a TFLite file is a network: name one whose tensors are to be replaced (--like)")
        with open(like, "rb") as file:
            data = file.read()
        with _reading(like):
            table = _model(data)
            known = constants(data, table)
            weights = {(c.graph, c.number) for c in _weights_of_fully_connected(table)}
            fixed = {(c.graph, c.number) for c in _inputs_of(table, "DENSIFY", range(1))}
            model = schema.ModelT.InitFromPackedBuf(data, 0)
            _fetch_data_behind(data, table, model)
        for name in tensors:
            value = tensors[name]
            with naming(name):
                if name not in known or known[name].tensor.Type() not in _types():
                    raise ArgumentError(f"{like!r} has no constant tensor of this name")
                place = known[name].graph, known[name].number
                tensor = model.subgraphs[place[0]].tensors[place[1]]
                if place not in fixed:
                    self._put(model, tensor, name, value, place in weights)
                elif not _same(_tensor(like, data, table, known[name], False), value):
                    raise ArgumentError("it feeds an operation DENSIFY, which takes it as it is: it cannot change")
        used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in model.metadata or ()}
        for number, buffer in enumerate(model.buffers):
            if number not in used:
                buffer.data = None
        if (size := sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)) > _MOST:
            raise ArgumentError(f"{path!r} would hold {size} bytes of weights; a flatbuffer has {_MOST} at most")
        builder = flatbuffers.Builder(len(data))
        builder.Finish(model.Pack(builder), file_identifier=MAGIC)
        write_atomic(path, [bytes(builder.Output())])

    def _put(self, model: Any, tensor: Any, name: str, value: Any, is_weight: bool) -> None:
        """Store a value in the place of a tensor."""
        from ai_edge_litert import schema_py_generated as schema

        shape, dtype = tuple(int(n) for n in tensor.shape), _types()[tensor.type]
        if tuple(value.shape) != shape or _dtype_of(value) != dtype:
            raise ArgumentError(
                f"{_dtype_of(value)} of shape {tuple(value.shape)}; the tensor that it replaces is {dtype} of {shape}"
            )
        sparsity, stored = None, None
        if isinstance(value, PackedTensor):
            self.check(name, value)
            if not is_weight:
                raise ArgumentError("it is no weight of FULLY_CONNECTED, the only operation that runs sparse ones")
            scale = tensor.quantization
            if scale is not None and scale.zeroPoint is not None and np.any(scale.zeroPoint):
                raise ArgumentError("its quantisation has a zero point other than 0, so that zeros are not zero")
            found, stored = _best(value)
            sparsity = _packed_sparsity(schema, found)
        else:
            stored = np.ascontiguousarray(array_of(value))
        tensor.sparsity, tensor.buffer = sparsity, len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = stored.reshape(-1).view(np.uint8)
        model.buffers.append(buffer)


def _fetch_data_behind(data: bytes, table: Any, model: Any) -> None:
    """Put data that lie behind the flatbuffer, as in files near 2 GB, into the model: their offsets will not hold."""
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > 1:
            buffer.data, buffer.offset, buffer.size = _bytes(data, table.Buffers(number)), 0, 0
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if (start := operator.largeCustomOptionsOffset) > 1:
                if operator.largeCustomOptionsSize > len(data) - start:
                    raise FormatError(f"options of an operator at {start}; the file has {len(data)} bytes")
                operator.customOptions = np.frombuffer(data, np.uint8, operator.largeCustomOptionsSize, start)
                operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0


def _best(packed: PackedTensor) -> tuple[Sparsity, np.ndarray]:
    """The smallest of the layouts that run right."""
    positions, values = to_positions(packed)
    rows, cols = packed.shape
    fitting = [width for width in _BLOCKS[packed.spans.head.element.name] if cols % width == 0]
    if not fitting:
        raise ArgumentError(f"{cols} columns of {packed.dtype}; LiteRT runs rows in blocks of 16 only")
    found = [rows_of_blocks((rows, cols), positions, values, width) for width in fitting]
    return min(found, key=lambda one: sparsity_nbytes(*one))


def _packed_sparsity(schema: Any, sparsity: Sparsity) -> Any:
    """The schema's objects."""
    found = schema.SparsityParametersT()
    found.traversalOrder, found.dimMetadata = list(sparsity.order), []
    found.blockMap = list(sparsity.block_map) or None
    for level in sparsity.levels:
        one = schema.DimensionMetadataT()
        if level.segments is None:
            one.format, one.denseSize = schema.DimensionType.DENSE, level.size
        else:
            one.format = schema.DimensionType.SPARSE_CSR
            one.arraySegmentsType, one.arraySegments = _vector(schema, level.segments)
            one.arrayIndicesType, one.arrayIndices = _vector(schema, level.indices)
        found.dimMetadata.append(one)
    return found


def _vector(schema: Any, array: Any) -> tuple[int, Any]:
    dtype = narrowest(array)
    name = {1: "Uint8Vector", 2: "Uint16Vector", 4: "Int32Vector"}[dtype.itemsize]
    found = getattr(schema, name + "T")()
    found.values = array.astype(dtype)
    return getattr(schema.SparseIndexVector, name), found


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Whatever the schema's code meets in damaged bytes is the file's fault."""
    try:
        yield
    except (CodecError, OSError):
        raise
    except (
        struct.error,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        OverflowError,
        AttributeError,
        AssertionError,
    ) as error:
        raise FormatError(f"{path!r} is no TFLite model, or damaged: {type(error).__name__}: {error}") from None


def _model(data: bytes) -> Any:
    """The schema's table of a model, whose counts fit into the file: tables may be named many times over."""
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != MAGIC:
        raise FormatError(f"it does not begin as a TFLite model: {data[4:8]!r} where {MAGIC!r} belongs")
    model = schema.Model.GetRootAs(data, 0)
    count = model.BuffersLength() + model.OperatorCodesLength()
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        count += 1 + graph.TensorsLength() + graph.OperatorsLength()
        if count > len(data) // 4:  # each takes a word
            raise FormatError(f"{count} tables and more in {len(data)} bytes")
    return model


def constants(data: bytes, model: Any) -> dict[str, Constant]:
    """Tensors with data by name; a name that several have is followed by the number of subgraph and tensor."""
    found = []
    for graph in range(model.SubgraphsLength()):
        table = model.Subgraphs(graph)
        for number in range(table.TensorsLength()):
            tensor = table.Tensors(number)
            buffer = tensor.Buffer()
            if not 0 <= buffer < model.BuffersLength():
                raise FormatError(f"tensor {number} of subgraph {graph} names buffer {buffer}, which there is not")
            if len(_bytes(data, model.Buffers(buffer))):
                found.append((_name(tensor.Name()), Constant(graph, number, tensor)))
    times: dict[str, int] = {}
    for name, _ in found:
        times[name] = times.get(name, 0) + 1
    named = {name if times[name] == 1 and name else f"{name}#{c.graph}.{c.number}": c for name, c in found}
    if len(named) < len(found):
        raise FormatError("tensors of one name, and one that is called as we number these: rename it")
    return named


def _name(raw: Any) -> str:
    return "" if raw is None else bytes(raw).decode("utf-8", "backslashreplace")


def _bytes(data: bytes, buffer: Any) -> np.ndarray:
    """The bytes of a buffer, inside the flatbuffer or behind it."""
    offset, size = buffer.Offset(), buffer.Size()
    if offset > 1:
        if size > len(data) - offset:
            raise FormatError(f"a buffer of {size} bytes at {offset}; the file has {len(data)}")
        return np.frombuffer(data, np.uint8, size, offset)
    found = buffer.DataAsNumpy()
    return found if isinstance(found, np.ndarray) else np.zeros(0, np.uint8)


def _inputs_of(model: Any, operation: str, which: range) -> Iterator[Constant]:
    """The tensors that go into an operation at some places."""
    from ai_edge_litert import schema_py_generated as schema

    wanted = getattr(schema.BuiltinOperator, operation)
    for graph in range(model.SubgraphsLength()):
        table = model.Subgraphs(graph)
        for number in range(table.OperatorsLength()):
            operator = table.Operators(number)
            code = model.OperatorCodes(operator.OpcodeIndex())
            # The newer field is the one that counts where it is set; the older one has no room for later operations.
            if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) != wanted:
                continue
            for place in which:
                if place < operator.InputsLength() and 0 <= operator.Inputs(place) < table.TensorsLength():
                    yield Constant(graph, operator.Inputs(place), table.Tensors(operator.Inputs(place)))


def _weights_of_fully_connected(model: Any) -> list[Constant]:
    return list(_inputs_of(model, "FULLY_CONNECTED", range(1, 2)))


def _types() -> dict[int, np.dtype]:
    """Dtypes by the schema's numbers."""
    from ai_edge_litert import schema_py_generated as schema

    return {getattr(schema.TensorType, name): np.dtype(dtype) for name, dtype in _DTYPES.items()}


def _same(old: Any, new: Any) -> bool:
    """Whether two tensors have the same elements, bit for bit."""
    return array_of(old).tobytes() == np.ascontiguousarray(array_of(new)).tobytes()


def _dtype_of(value: Any) -> np.dtype:
    return np.dtype(value.dtype if isinstance(value, PackedTensor | np.ndarray) else array_of(value).dtype)


def _sparsity(table: Any) -> Sparsity | None:
    """The schema's sparsity parameters as ours."""
    from ai_edge_litert import schema_py_generated as schema

    found = table.Sparsity()
    if found is None:
        return None
    if found.DimMetadataLength() > _MOST_LEVELS:
        raise FormatError(f"{found.DimMetadataLength()} levels; expected {_MOST_LEVELS} at most")
    vectors = {
        getattr(schema.SparseIndexVector, name): getattr(schema, name)
        for name in ("Int32Vector", "Uint16Vector", "Uint8Vector")
    }

    def array(kind: int, union: Any) -> np.ndarray:
        if union is None or kind not in vectors:
            raise FormatError(f"a compressed level without an array of a known type ({kind})")
        vector = vectors[kind]()
        vector.Init(union.Bytes, union.Pos)
        return np.asarray(vector.ValuesAsNumpy()).reshape(-1) if vector.ValuesLength() else np.zeros(0, np.int32)

    levels = []
    for number in range(found.DimMetadataLength()):
        level = found.DimMetadata(number)
        if level.Format() == schema.DimensionType.DENSE:
            levels.append(Level(level.DenseSize()))
        elif level.Format() == schema.DimensionType.SPARSE_CSR:
            segments = array(level.ArraySegmentsType(), level.ArraySegments())
            levels.append(Level(0, segments, array(level.ArrayIndicesType(), level.ArrayIndices())))
        else:
            raise FormatError(f"a level of format {level.Format()}; expected dense or compressed")
    order, blocks = (
        tuple(int(n) for n in np.asarray(part()).reshape(-1)) if length() else ()
        for part, length in (
            (found.TraversalOrderAsNumpy, found.TraversalOrderLength),
            (found.BlockMapAsNumpy, found.BlockMapLength),
        )
    )
    return Sparsity(order, blocks, tuple(levels))


def _tensor(path: str, data: bytes, model: Any, one: Constant, is_weight: bool) -> Any:
    """A PackedTensor of a tensor with sparsity parameters, else an array."""
    with _reading(path):
        table, dtype = one.tensor, _types()[one.tensor.Type()]
        shape = tuple(int(n) for n in table.ShapeAsNumpy()) if table.ShapeLength() else ()
        raw = _bytes(data, model.Buffers(table.Buffer()))
        if len(raw) % dtype.itemsize or min(shape, default=0) < 0:
            raise FormatError(f"{len(raw)} bytes of {dtype} for shape {shape}")
        values, sparsity = np.frombuffer(raw.tobytes(), dtype), _sparsity(table)
        if sparsity is None:
            if prod(shape) != len(values):
                raise FormatError(f"{len(values)} values for shape {shape}")
            return values.reshape(shape)
        if is_weight and dtype == np.int8:
            _check_runs_right(sparsity)
        checked_shape(shape, len(values), dtype)
        positions = positions_of(sparsity, shape, len(values))
        kept = values.view(element_type(dtype).unsigned) != 0  # blocks hold zeros as well
        order = np.argsort(positions[kept], kind="stable")
        return from_positions(shape, positions[kept][order], values[kept][order])


def _check_runs_right(sparsity: Sparsity) -> None:
    """FormatError for int8 weights of FULLY_CONNECTED in a layout that LiteRT runs wrongly."""
    (width,) = _BLOCKS["I8"]
    order, blocks, levels = sparsity
    if order != (0, 1, 2) or blocks != (1,) or levels[2].size != width or levels[1].segments is None:
        raise FormatError(
            f"int8 weights of FULLY_CONNECTED in another layout than rows of 1 x {width} blocks: LiteRT gives wrong "
            "numbers for it, so that nobody can tell what was meant"
        )
