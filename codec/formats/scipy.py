"""scipy.sparse.save_npz: a matrix in one of scipy's formats in a .npz file.

The arrays are read here, not by scipy's load_npz: that trusts them.
"""

from typing import Any

import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import FormatError
from codec.formats.archives import FilePerTensor, archive_bytes, archive_names, read_archive
from codec.formats.positions import from_coordinates, from_csr, to_csr
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

_NEEDS = {
    "csr": ("indptr", "indices", "data"),
    "csc": ("indptr", "indices", "data"),
    "bsr": ("indptr", "indices", "data"),
    "coo": ("row", "col", "data"),
    "dia": ("offsets", "data"),
}
_NAMES = {"format", "shape", *(name for needs in _NEEDS.values() for name in needs)}


class ScipyNpz(FilePerTensor):
    """CSR goes out; CSR, CSC, BSR, COO and DIA come in, as scipy reads them: in any order, duplicates added up."""

    name = "scipy"
    summary = "scipy.sparse.save_npz: one matrix in a .npz file; CSR, CSC, BSR, COO and DIA come in, CSR goes out"
    reads = writes = tuple(name for name, e in BY_NAME.items() if not e.is_float or name in ("F64", "F32"))
    suffix = ".npz"
    endings = (".npz",)
    entry_bits = 32
    matrices = True

    def claims_file(self, path: str) -> bool:
        """By the names of its arrays."""
        return {"format.npy", "shape.npy", "data.npy"} <= archive_names(path)

    def write_sparse(self, path: str, packed: PackedTensor) -> None:
        """CSR with indices of 32 bits where they suffice, as scipy chooses them."""
        csr = to_csr(packed)
        index = np.int32 if max(*csr.shape, len(csr.indices)) < 1 << 31 else np.int64
        arrays = {
            "indices": csr.indices.astype(index),
            "indptr": csr.starts.astype(index),
            "format": np.array(b"csr"),
            "shape": np.array(csr.shape),
            "data": csr.values,
        }
        write_atomic(path, [archive_bytes(arrays)])

    def read_file(self, path: str) -> PackedTensor:
        """FormatError for arrays that make no matrix."""
        arrays = read_archive(path, _NAMES)
        kind = arrays.get("format")
        word = kind.item() if kind is not None and kind.ndim == 0 else None
        word = word.decode("ascii", "replace") if isinstance(word, bytes) else word
        needs = _NEEDS.get(word) if isinstance(word, str) else None
        if needs is None:
            raise FormatError(f"{path!r}: format {word!r}; expected one of {', '.join(_NEEDS)}")
        absent = [name for name in (*needs, "shape") if name not in arrays]
        if absent:
            raise FormatError(f"{path!r}: a {word} matrix without its arrays {', '.join(absent)}")
        return _matrix(str(word), arrays)


def _matrix(kind: str, arrays: dict[str, Any]) -> PackedTensor:
    shape, data = arrays["shape"], arrays["data"]
    if kind == "coo":
        return from_coordinates(shape, arrays["row"], arrays["col"], data)
    if kind == "dia":
        return _diagonals(shape, arrays["offsets"], data)
    if kind != "bsr" and data.ndim != 1:
        raise FormatError(f"values of shape {data.shape}; expected one for each entry")
    return from_csr(shape, arrays["indptr"], arrays["indices"], data, by_columns=kind == "csc", ordered=False)


def _diagonals(shape: Any, offsets: np.ndarray, data: np.ndarray) -> PackedTensor:
    """Column j of diagonal k is element (j - offset, j); what lies outside the matrix is room that scipy left."""
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or data.ndim != 2 or len(offsets) != len(data):
        raise FormatError(
            f"offsets of shape {offsets.shape} for diagonals of shape {data.shape}; expected one for each"
        )
    sizes = np.asarray(shape).reshape(-1)
    if len(sizes) != 2 or len(np.unique(offsets)) != len(offsets):
        raise FormatError(
            f"offsets {offsets[:4].tolist()}... of a matrix of shape {sizes.tolist()}; expected each once"
        )
    cols = np.broadcast_to(np.arange(data.shape[1]), data.shape)
    rows = cols - offsets.astype(np.int64)[:, None]
    inside = (rows >= 0) & (rows < int(sizes[0])) & (cols < int(sizes[1])) & (data != 0)
    return from_coordinates(shape, rows[inside], cols[inside], data[inside])
