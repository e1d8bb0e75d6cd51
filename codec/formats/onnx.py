"""ONNX: initializers of a graph, dense or as SparseTensorProto, in place: the network around them stays.

Indices go out as the checker has them, INT64 and linear in row-major order; in come also those of 8, 16 and 32 bits,
which ONNX Runtime's own tool writes, and coordinates. Source: onnx.proto3, SparseTensorProto.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME, element_type
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats.base import Format, Place, Source, Stored, array_of
from codec.formats.positions import from_positions, to_positions
from codec.matrix import check_shape
from codec.model import naming
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

_IR_VERSION = 6  # the first with sparse initializers
_MOST = (1 << 31) - 1  # bytes of a protobuf message


class Onnx(Format):
    """The initializers of the main graph."""

    name = "onnx"
    summary = "ONNX: initializers, dense or sparse, in place; ONNX Runtime makes sparse ones dense when it loads them"
    reads = writes = tuple(BY_NAME)
    entry_bits = 64
    networks = keeps_metadata = True
    extra, modules = "onnx", ("onnx",)
    suffix = ".onnx"

    def claims(self, place: Place) -> bool:
        """By its name, or as the first fields of an ONNX file are."""
        if place.is_folder:
            return len(place.ending(self.suffix)) == 1
        first = place.first
        looks = first[:1] == b"\x08" and b"\0" < first[1:2] < b"\x20" and first[2:3] == b"\x12"
        return place.path.endswith(self.suffix) or looks

    def open(self, place: Place) -> Source:
        """Dense initializers stay what they are, also those that lie in other files, until they are asked for."""
        path = place.only(self.suffix)
        model = _load(path)
        graph, metadata = model.graph, {entry.key: entry.value for entry in model.metadata_props}
        stem = os.path.basename(path).removesuffix(self.suffix)
        tensors: dict[str, Stored] = {}
        folder = os.path.dirname(path) or "."
        readers: list[tuple[str, Callable[[], Any]]] = [
            (one.name, partial(_array, one, folder, "the values")) for one in graph.initializer
        ]
        readers += [(one.values.name, partial(_sparse, one, folder)) for one in graph.sparse_initializer]
        for name, read in readers:
            if not name or name in tensors:
                raise FormatError(f"{path!r}: an initializer named {name!r}; expected a name that no other has")
            tensors[name] = Stored(read, stem)
        # Texts, complex numbers and items of fewer than 8 bits: no other format here has them.
        left = [one.name for one in graph.initializer if one.data_type not in _kinds()]
        for name in left:
            del tensors[name]
        notes = [f"left alone, of types that are not packed: {', '.join(map(repr, left[:5]))}"] if left else []
        return Source(self.name, path, tensors, metadata, notes=notes)

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """In the network of ``like``; without that in a graph that has nothing but initializers."""
        import onnx

        model = onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [])) if like is None else _load(like)
        graph, folder = model.graph, os.path.dirname(like or "") or "."
        known = {one.name for one in graph.initializer} | {one.values.name for one in graph.sparse_initializer}
        made: dict[str, Any] = {}
        for name in tensors:
            value = tensors[name]
            with naming(name):
                if like is not None and name not in known:
                    raise ArgumentError(f"{like!r} has no initializer of this name")
                made[name] = self._made(name, value)
        kept = [one for one in graph.initializer if one.name not in made]
        for one in kept:
            _with_data(one, folder)
        sparse = [one for one in graph.sparse_initializer if one.values.name not in made]
        kept += [one for one in made.values() if isinstance(one, onnx.TensorProto)]
        sparse += [one for one in made.values() if not isinstance(one, onnx.TensorProto)]
        _check_shapes(graph, made)
        for field, protos in ((graph.initializer, kept), (graph.sparse_initializer, sparse)):
            copies = [type(proto).FromString(proto.SerializeToString()) for proto in protos]
            del field[:]
            field.extend(copies)
        if sparse:
            model.ir_version = max(model.ir_version, _IR_VERSION)
        for key, value in metadata.items():
            if key not in {entry.key for entry in model.metadata_props}:
                model.metadata_props.add(key=key, value=value)
        if model.ByteSize() > _MOST:
            raise ArgumentError(f"{path!r} would have {model.ByteSize()} bytes; an ONNX file has {_MOST} at most")
        write_atomic(path, [model.SerializeToString()])

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it has elements: the checker knows no sparse tensor without."""
        super().check(name, packed)
        if not packed.ndim or not packed.size:
            raise ArgumentError(f"{self.name} has no sparse tensor of shape {packed.shape}")

    def _made(self, name: str, value: Any) -> Any:
        import onnx

        if not isinstance(value, PackedTensor):
            return _proto(name, array_of(value))
        self.check(name, value)
        positions, values = to_positions(value)
        found = onnx.SparseTensorProto(dims=value.shape)
        found.values.CopyFrom(_proto(name, values))
        found.indices.CopyFrom(_proto(f"{name}_indices", positions))
        return found


def _load(path: str) -> Any:
    """The model of a file, without the data that lie in others; FormatError for what is none."""
    import onnx
    from google.protobuf.message import DecodeError

    if os.path.getsize(path) > _MOST:
        raise FormatError(f"{path!r} has {os.path.getsize(path)} bytes; an ONNX file has {_MOST} at most")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)  # whatever the name ends in
    except (DecodeError, ValueError, RuntimeError, TypeError) as error:
        raise FormatError(f"{path!r} is no ONNX model: {error}") from None
    if not model.HasField("graph"):
        raise FormatError(f"{path!r} is an ONNX file without a graph")
    return model


def _kinds() -> set[int]:
    """ONNX's numbers of the dtypes that the format has."""
    import onnx

    return {onnx.helper.np_dtype_to_tensor_dtype(element.dtype) for element in BY_NAME.values()}


def _proto(name: str, array: np.ndarray) -> Any:
    import onnx

    array = np.ascontiguousarray(array).reshape(array.shape)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())


def _with_data(proto: Any, folder: str) -> None:
    """Fetch the data of a tensor that lies in another file of the folder."""
    import onnx

    if onnx.external_data_helper.uses_external_data(proto):
        try:
            onnx.external_data_helper.load_external_data_for_tensor(proto, folder)
            proto.data_location = onnx.TensorProto.DEFAULT
            del proto.external_data[:]
        except OSError:
            raise
        except Exception as error:  # of its checker, which has a class of its own for each fault
            raise FormatError(f"the file that holds its data cannot be used: {error}", tensor=proto.name) from None


def _array(proto: Any, folder: str, what: str) -> np.ndarray:
    """The array of a TensorProto; FormatError where its data do not fit its shape, or for an unknown type."""
    import onnx

    _with_data(proto, folder)
    try:
        dims = tuple(proto.dims)
        kind = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)
        element = element_type(kind)
        if proto.HasField("raw_data") and len(proto.raw_data) != prod(check_shape(dims, element)) * element.width:
            raise FormatError(f"{what} have {len(proto.raw_data)} bytes for shape {dims} of {element.dtype}")
        return np.asarray(onnx.numpy_helper.to_array(proto))
    except CodecError as error:
        raise FormatError(f"{what}: {error}") from None
    except (TypeError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise FormatError(f"{what} cannot be read: {error}") from None


def _sparse(proto: Any, folder: str) -> PackedTensor:
    """FormatError for indices out of range, out of order or double, and for other numbers of them than of values."""
    dims, values = tuple(proto.dims), _array(proto.values, folder, "the values")
    if not dims or min(dims) <= 0 or values.ndim != 1:
        raise FormatError(f"a sparse tensor of shape {dims} with values of shape {values.shape}")
    if not len(values) and not proto.HasField("indices"):
        return from_positions(dims, np.zeros(0, np.int64), values)
    indices = _array(proto.indices, folder, "the indices")
    if indices.dtype.kind not in "iu" or indices.shape not in ((len(values),), (len(values), len(dims))):
        raise FormatError(
            f"indices are {indices.dtype} of shape {indices.shape}; expected integers of shape ({len(values)},) or "
            f"({len(values)}, {len(dims)})"
        )
    if indices.ndim == 2:
        outside = (indices < 0) | (indices >= np.array(dims))
        if outside.any():
            raise FormatError(f"the index {indices[outside.any(axis=1)][0].tolist()} lies outside shape {dims}")
        indices = indices.astype(np.int64) @ np.array([prod(dims[d + 1 :]) for d in range(len(dims))])
    return from_positions(dims, indices, values)


def _check_shapes(graph: Any, made: Mapping[str, Any]) -> None:
    """ArgumentError if a tensor has another shape or type than the one whose place it takes."""
    import onnx

    olds = {one.name: (tuple(one.dims), one.data_type) for one in graph.initializer}
    olds |= {one.values.name: (tuple(one.dims), one.values.data_type) for one in graph.sparse_initializer}
    for name, proto in made.items():
        kind = proto.data_type if isinstance(proto, onnx.TensorProto) else proto.values.data_type
        found = tuple(proto.dims), kind
        if olds.get(name, found) != found:
            shape, old = olds[name]
            raise ArgumentError(
                f"tensor {name!r}: has shape {found[0]} and ONNX type {kind}; the initializer that it replaces has "
                f"{shape} and {old}"
            )
