"""scipy.sparse: matrices and arrays of every format in, the common ones out."""

from typing import Any

from codec.arraylike import is_scipy_sparse
from codec.errors import ArgumentError
from codec.frame import Spans
from codec.interop.csr import Csr, compressed, coordinates, entries
from codec.matrix import dimensions

FORMATS = ("csr", "csc", "coo", "bsr")


def to_scipy(spans: Spans, format: str) -> Any:
    """A scipy.sparse array of a tensor of two dimensions, of the tensor's own shape.

    Raises ArgumentError for a tensor of other dimensions, and for the dtypes and formats that scipy does not have.
    """
    import scipy.sparse

    head = spans.head
    if len(head.shape) != 2:
        raise ArgumentError(f"scipy.sparse holds matrices; this tensor has {dimensions(len(head.shape))}")
    if head.element.name not in ("F64", "F32", "BOOL") and head.element.is_float:
        raise ArgumentError(f"scipy.sparse has no {head.element.dtype}; convert to float32 first")
    if format not in FORMATS:
        raise ArgumentError(f"format={format!r}; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    shape, starts, indices, values = entries(spans)
    return scipy.sparse.csr_array((values, indices, starts), shape=shape).asformat(format)


def from_scipy(a: Any) -> Csr:
    """Proved CSR arrays of a scipy.sparse matrix or array of any format.

    Entries out of order are sorted, duplicates are added up, and stored zeros stay entries. scipy's own conversions
    and its flags ``has_sorted_indices`` and ``has_canonical_format`` are not used: they trust the arrays.
    """
    if not is_scipy_sparse(a):
        raise ArgumentError(f"{type(a).__name__}; expected a scipy.sparse matrix or array")
    if a.ndim != 2:
        raise ArgumentError(
            f"a scipy.sparse array of shape {a.shape}; expected 2 dimensions: a.reshape(rows, cols) makes a matrix of "
            "it, and encode(a.toarray()) packs other shapes"
        )
    if a.format in ("csr", "csc", "bsr"):
        # Entries behind the last pointer are room that scipy left, not part of the matrix.
        count = int(a.indptr[-1]) if len(a.indptr) else 0
        return compressed(a.shape, a.indptr, a.indices[:count], a.data[:count], by_columns=a.format == "csc")
    if a.format == "lil" and [*map(len, a.rows)] != [*map(len, a.data)]:
        raise ArgumentError(
            f"a scipy.sparse {type(a).__name__} whose rows have other numbers of columns than of values"
        )
    try:
        coo = a if a.format == "coo" else a.tocoo()
    except (TypeError, ValueError, IndexError) as error:
        raise ArgumentError(f"a scipy.sparse {type(a).__name__} that scipy cannot read itself: {error}") from error
    return coordinates(coo.shape, coo.row, coo.col, coo.data)
