"""binsparse 0.1 in .npz files: a JSON description under "binsparse", and the arrays that it names.

Source: the binsparse specification, version 0.1, and its Python package, which reads version "0.1.0" only.
"""

import json
from math import prod
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError
from codec.formats.archives import FilePerTensor, archive_bytes, archive_names, read_archive
from codec.formats.positions import check_ascending, checked_shape, from_coordinates, from_csr, from_positions, to_csr
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor
from codec.tensor import encode

KEY = "binsparse"
VERSION, VERSIONS = "0.1.0", ("0.1", "0.1.0")
_TYPES = {
    name: "bint8" if name == "BOOL" else str(element.dtype)
    for name, element in BY_NAME.items()
    if not element.is_float or name in ("F64", "F32")
}
_DTYPES = {word: np.dtype(np.uint8 if word == "bint8" else word) for word in _TYPES.values()}
# The arrays of each format beside its values. Formats made of levels ("custom") are not read.
_ARRAYS = {
    "CSR": ("pointers_to_1", "indices_1"),
    "CSC": ("pointers_to_1", "indices_1"),
    "DCSR": ("indices_0", "pointers_to_1", "indices_1"),
    "DCSC": ("indices_0", "pointers_to_1", "indices_1"),
    "COO": ("indices_0", "indices_1"),
    "COOR": ("indices_0", "indices_1"),
    "COOC": ("indices_0", "indices_1"),
    "CVEC": ("indices_0",),
    "DMAT": (),
    "DMATR": (),
    "DMATC": (),
    "DVEC": (),
}
_INTEGERS = {name for names in _ARRAYS.values() for name in names}
_NAMES = {KEY, "values", "fill_value", *_INTEGERS}


class Binsparse(FilePerTensor):
    """CSR goes out, a vector as CVEC; every named format comes in."""

    name = "binsparse"
    summary = "binsparse 0.1 in a .npz file; all its named formats come in, CSR and CVEC go out"
    reads = writes = tuple(_TYPES)
    suffix = ".bsp.npz"
    endings = (".bsp.npz", ".npz")
    entry_bits = 32

    def claims_file(self, path: str) -> bool:
        """By its description."""
        return f"{KEY}.npy" in archive_names(path)

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it is a matrix or a vector."""
        super().check(name, packed)
        if packed.ndim not in (1, 2):
            raise ArgumentError(f"{self.name} has matrices and vectors; this tensor has shape {packed.shape}")

    def write_sparse(self, path: str, packed: PackedTensor) -> None:
        """Indices of 32 bits where they suffice."""
        csr, element = to_csr(packed), packed.spans.head.element
        index = np.uint32 if max(*csr.shape, len(csr.indices)) < 1 << 32 else np.uint64
        arrays = {"values": csr.values.view(np.uint8) if element.name == "BOOL" else csr.values}
        if packed.ndim == 2:
            arrays |= {"pointers_to_1": csr.starts.astype(index), "indices_1": csr.indices.astype(index)}
        else:
            arrays["indices_0"] = csr.indices.astype(index)
        about = {
            "version": VERSION,
            "format": "CSR" if packed.ndim == 2 else "CVEC",
            "shape": list(packed.shape),
            "number_of_stored_values": len(csr.values),
            "data_types": {name: str(array.dtype) for name, array in arrays.items()} | {"values": _TYPES[element.name]},
        }
        header = np.array(json.dumps({KEY: about}, sort_keys=True))
        write_atomic(path, [archive_bytes({**arrays, KEY: header})])

    def read_file(self, path: str) -> Any:
        """FormatError for a description that is not understood, and arrays that make no such tensor."""
        arrays = read_archive(path, _NAMES)
        about = _description(arrays.get(KEY))
        shape, count, types = about.get("shape"), about.get("number_of_stored_values"), about.get("data_types")
        kind = about.get("format")
        if not isinstance(kind, str) or kind not in _ARRAYS:
            raise FormatError(f"{path!r}: format {kind!r}; expected one of {', '.join(_ARRAYS)}")
        if not isinstance(shape, list) or not isinstance(types, dict) or type(count) is not int:
            raise FormatError(f"{path!r}: a description without shape, number_of_stored_values and data_types")
        if (structure := about.get("structure")) is not None:
            raise FormatError(
                f"{path!r}: structure {structure!r}, of which only one triangle is stored; expected a matrix with both "
                "triangles"
            )
        if not isinstance(fill := about.get("fill", False), bool | None):
            raise FormatError(f"{path!r}: fill is {fill!r}; expected true or false")
        if fill:
            _check_fill(arrays, types)
        read = {name: _typed(name, arrays, types, count) for name in (*_ARRAYS[kind], "values")}
        values = read["values"]
        if types["values"].endswith(("bint8", "bint8]")):
            values = _as_bool(values)
        if len(values) != count:
            raise FormatError(f"{len(values)} values; the description says {count}")
        return _tensor(kind, shape, read, values)


def _description(found: np.ndarray | None) -> dict[str, Any]:
    if found is None or found.ndim or found.dtype.kind != "U":
        raise FormatError(f"no text under {KEY!r}, which describes the arrays")
    try:
        about = json.loads(str(found.item()))[KEY]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"the text under {KEY!r} is no description: {error}") from None
    if not isinstance(about, dict) or about.get("version") not in VERSIONS:
        version = about.get("version") if isinstance(about, dict) else None
        raise FormatError(f"version {version!r} of binsparse; expected one of {', '.join(VERSIONS)}")
    return about


def _typed(name: str, arrays: dict[str, np.ndarray], types: dict[str, Any], count: int) -> np.ndarray:
    """An array, which must have the type that the description gives it; one value for all is repeated."""
    said, array = types.get(name), arrays.get(name)
    if array is None or not isinstance(said, str):
        raise FormatError(f"array {name!r} is missing, or has no type")
    inner = said.removeprefix("iso[").removesuffix("]") if said.startswith("iso[") else said
    if inner not in _DTYPES:
        raise FormatError(f"array {name!r} is of type {said!r}; expected one of {', '.join(_DTYPES)}")
    if array.ndim != 1 or array.dtype != _DTYPES[inner]:
        raise FormatError(f"array {name!r} is {array.dtype} of shape {array.shape}; the description says {said}")
    if name in _INTEGERS and array.dtype.kind not in "iu":
        raise FormatError(f"array {name!r} is {array.dtype}; expected integers")
    if inner is said:
        return array
    if len(array) != 1 or name != "values" or not 0 <= count <= max(len(one) for one in arrays.values() if one.ndim):
        raise FormatError(f"array {name!r} has {len(array)} values; expected one for all")
    return np.repeat(array, count)


def _check_fill(arrays: dict[str, np.ndarray], types: dict[str, Any]) -> None:
    fill = _typed("fill_value", arrays, types, 1)
    if len(fill) != 1 or fill[0] != 0:
        raise FormatError(f"elements that are not stored are {fill[:1].tolist()}; expected 0")


def _as_bool(values: np.ndarray) -> np.ndarray:
    if (values > 1).any():
        raise FormatError(f"a truth value of {int(values.max())}; expected 0 or 1")
    return values.view(np.bool_)


def _tensor(kind: str, shape: list[Any], read: dict[str, np.ndarray], values: np.ndarray) -> Any:
    spec = checked_shape(shape, len(values), values.dtype)
    if len(spec.shape) != (1 if kind in ("CVEC", "DVEC") else 2):
        raise FormatError(f"shape {shape} of a {kind}")
    if kind in ("DVEC", "DMAT", "DMATR", "DMATC"):
        if prod(spec.shape) != len(values):
            raise FormatError(f"{len(values)} values for shape {shape}")
        dense = values.reshape(spec.shape, order="F" if kind == "DMATC" else "C")
        return encode(np.ascontiguousarray(dense), layout="dense", entropy="none", zero="bits")
    if kind == "CVEC":
        return from_positions(spec.shape, read["indices_0"], values)
    rows, cols = spec.shape
    if kind in ("CSR", "CSC"):
        return from_csr(shape, read["pointers_to_1"], read["indices_1"], values, by_columns=kind == "CSC")
    major, minor = read["indices_0"], read["indices_1"]
    if kind in ("DCSR", "DCSC"):
        starts = read["pointers_to_1"].astype(np.int64)
        lengths: np.ndarray = np.diff(starts)
        if len(starts) != len(major) + 1 or starts[0] != 0 or (lengths < 0).any() or starts[-1] != len(minor):
            raise FormatError(
                f"{len(starts)} pointers for {len(major)} rows or columns; expected one more, ascending from 0 to the "
                f"{len(minor)} entries"
            )
        major = np.repeat(major, lengths)
    if len(major) != len(minor) or len(minor) != len(values):
        raise FormatError(f"{len(major)} and {len(minor)} indices for {len(values)} values")
    first, second = (cols, rows) if kind in ("DCSC", "COOC") else (rows, cols)
    if (major >= first).any() or (minor >= second).any() or min(major.min(initial=0), minor.min(initial=0)) < 0:
        raise FormatError(f"an index lies outside a matrix of {rows} x {cols}")
    # In the order of the format positions ascend, whichever way it walks.
    order = major.astype(np.int64) * second + minor.astype(np.int64)
    if kind not in ("DCSC", "COOC"):
        return from_positions(spec.shape, order, values)
    check_ascending(order, spec.grid.size)
    return from_coordinates(spec.shape, minor, major, values)
