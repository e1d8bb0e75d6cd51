"""Other libraries' sparse matrices: CSR arrays out of spans and into them, without a dense copy."""

from itertools import pairwise
from typing import Any

import numpy as np

from codec import kernels
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.source import from_torch_strided
from codec.spans import Spans

Csr = tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]


def entries(spans: Spans) -> Csr:
    """The stored entries of the matrix view as CSR: shape, starts (int64, rows + 1), indices (int64), values."""
    head = spans.head
    starts = np.zeros(head.grid.rows + 1, np.int64)
    indices, values = np.empty(head.nnz, np.int64), np.empty(head.nnz, head.element.dtype)
    count = 0
    for view, first, last in spans.views(0, head.grid.segments, 1):
        result, count = view.entries(first, last, starts, indices, kernels.octets(values), count)
        spans.raise_for(result)
    return (head.grid.rows, head.grid.cols), starts, indices[:count], values[:count]


def to_scipy(spans: Spans, format: str) -> Any:
    """A scipy.sparse array of the matrix."""
    import scipy.sparse

    head = spans.head
    if len(head.shape) != 2:
        raise ArgumentError(f"scipy.sparse holds matrices; this tensor has {len(head.shape)} dimensions")
    if head.element.name not in ("F64", "F32", "BOOL") and head.element.is_float:
        raise ArgumentError(f"scipy.sparse has no {head.element.dtype}; convert to float32 first")
    if format not in ("csr", "csc", "coo", "bsr"):
        raise ArgumentError(f"format={format!r}; expected csr, csc, coo or bsr")
    shape, starts, indices, values = entries(spans)
    return scipy.sparse.csr_array((values, indices, starts), shape=shape).asformat(format)


def from_scipy(a: Any) -> Csr:
    """Proved CSR arrays of anything scipy.sparse; duplicates are added up as scipy does."""
    import scipy.sparse

    if not scipy.sparse.issparse(a):
        raise ArgumentError(f"{type(a).__name__}; expected a scipy.sparse matrix or array")
    csr = a.tocsr().copy() if a.format == "csr" else a.tocsr()
    csr.sum_duplicates()
    return proved(csr.shape, csr.indptr, csr.indices, csr.data)


def proved(shape: Any, starts: Any, indices: Any, values: Any) -> Csr:
    """CSR arrays checked end to end: starts ascend within the arrays, indices within each row and its bounds."""
    rows, cols = (int(n) for n in shape)
    starts, indices = np.asarray(starts).astype(np.int64), np.asarray(indices).astype(np.int64)
    element = element_type(values.dtype)
    values = np.ascontiguousarray(values, element.dtype)
    if (
        starts.shape != (rows + 1,)
        or starts[0] != 0
        or starts[-1] != len(indices)
        or len(indices) != len(values)
        or np.any(np.diff(starts) < 0)
    ):
        raise ArgumentError("the row pointers do not ascend from 0 to the number of entries")
    if len(indices) and (indices.min() < 0 or indices.max() >= cols):
        raise ArgumentError(f"a column index lies outside 0 to {cols - 1}")
    ascending = np.diff(indices) > 0
    ascending[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(indices))] - 1] = True
    if not ascending.all():
        raise ArgumentError("column indices do not ascend within a row: sort them, and add up duplicates, first")
    return (rows, cols), starts, indices, values


def from_torch(a: Any) -> Csr:
    """Proved CSR arrays of a torch tensor of layout COO, CSR or BSR."""
    layout = str(a.layout).removeprefix("torch.")
    if a.ndim != 2 or layout not in ("sparse_coo", "sparse_csr", "sparse_bsr"):
        raise ArgumentError(
            f"a torch tensor of layout {layout}, {a.ndim} dimensions; expected a matrix, strided, COO, CSR or BSR"
        )
    if layout == "sparse_bsr":
        return _from_blocks(a)
    if layout == "sparse_coo":
        a = a.coalesce()
        rows, columns = a.indices().numpy()
        starts = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=a.shape[0]))))
        return proved(a.shape, starts, columns, from_torch_strided(a.values()))
    return proved(a.shape, a.crow_indices().numpy(), a.col_indices().numpy(), from_torch_strided(a.values()))


def _from_blocks(a: Any) -> Csr:
    """BSR row by row of blocks: each block row gives its rows' columns and values in turn."""
    starts, columns = a.crow_indices().numpy(), a.col_indices().numpy()
    values = from_torch_strided(a.values())
    height, width = values.shape[1:]
    lengths = np.repeat(np.diff(starts) * width, height)
    inner = np.arange(width)
    indices, items = [], []
    for begin, end in pairwise(starts):
        row = (columns[begin:end, None] * width + inner).reshape(-1)
        indices.append(np.tile(row, height))
        items.append(values[begin:end].transpose(1, 0, 2).reshape(-1))
    none = np.zeros(0, np.int64)
    return proved(
        a.shape,
        np.concatenate(([0], np.cumsum(lengths))),
        np.concatenate(indices or [none]),
        np.concatenate(items or [values.reshape(-1)]),
    )


def to_torch(spans: Spans, layout: str) -> Any:
    """A torch tensor, sharing the arrays made here."""
    import torch

    def across(array: np.ndarray) -> Any:
        name = element_type(array.dtype).name
        same = {
            "BF16": (np.uint16, torch.bfloat16),
            "F8_E4M3": (np.uint8, torch.float8_e4m3fn),
            "F8_E5M2": (np.uint8, torch.float8_e5m2),
        }
        if name not in same:
            return torch.from_numpy(array)
        bits, dtype = same[name]
        return torch.from_numpy(array.view(bits)).view(dtype)

    if layout == "strided":
        return across(spans.dense(kernels.thread_count(None)))
    if layout not in ("csr", "coo"):
        raise ArgumentError(f"layout={layout!r}; expected strided, csr or coo")
    if len(spans.head.shape) != 2:
        raise ArgumentError(f"torch's {layout} holds matrices; this tensor has {len(spans.head.shape)} dimensions")
    shape, starts, indices, values = entries(spans)
    if layout == "csr":
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts), torch.from_numpy(indices), across(values), shape, check_invariants=False
        )
    rows = np.repeat(np.arange(shape[0]), np.diff(starts))
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, indices])), across(values), shape, is_coalesced=True, check_invariants=False
    )
