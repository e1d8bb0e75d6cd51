"""What a tensor's sizes depend on, counted in one pass: enough to predict every layout's bytes without encoding."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codec import _native, kernels
from codec.dtypes import ElementType
from codec.entropy import histogram_size
from codec.errors import ArgumentError
from codec.geometry import Grid
from codec.layouts import Counts
from codec.source import Source, source_of
from codec.spans import Spans


@dataclass(frozen=True)
class TensorStats:
    """Counts over one tensor under one zero rule and matrix view; what ``encoded_nbytes(stats=...)`` needs.

    Attributes
    ----------
    shape, dtype, row_dims, zero
        What was counted, and how.
    nnz, negative_zeros : int
        Stored entries, and elements that are -0.0 and count as zeros.
    row_counts, col_counts : ndarray of uint64
        Stored entries of each matrix row and column.
    gaps : ndarray of uint64, (256,)
        Items of layout huffman's gaps by value: zeros before an entry, 255 for each 255 of them.
    mask_bytes, lane_bytes : ndarray of uint64, (256,)
        Bytes of bitmap's mask by value, for order "rows" and "lanes".
    keys : ndarray of uint64
        Stored values by the top bits of their keys (spec section 6.2).
    or_of_keys : int
        Bitwise OR of these keys: low bits that are zero in it are zero in every value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    row_dims: int
    zero: str
    nnz: int
    negative_zeros: int
    row_counts: np.ndarray = field(repr=False)
    col_counts: np.ndarray = field(repr=False)
    gaps: np.ndarray = field(repr=False)
    mask_bytes: np.ndarray = field(repr=False)
    lane_bytes: np.ndarray = field(repr=False)
    keys: np.ndarray = field(repr=False)
    or_of_keys: int = field(repr=False)
    grid: Grid = field(repr=False)

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return self.grid.size

    @property
    def sparsity(self) -> float:
        """Share of elements that are not stored; 0.0 for an empty tensor."""
        return 1 - self.nnz / self.size if self.size else 0.0

    @property
    def counts(self) -> Counts:
        """What layouts' stream sizes take."""
        return Counts(self.nnz, self.gaps)

    def histogram(self, layout: str, stream: str, params: Mapping[str, Any], element: ElementType) -> tuple[np.ndarray, int]:
        """Keys of a stream's items by their top bits, and the OR of all: what its Huffman code is chosen from.

        Raises ArgumentError for a stream that these statistics do not tell about.
        """
        if stream == "values" and layout != "dense":
            return self.keys, self.or_of_keys
        if stream == "values":  # every element: the entries, and a zero for each other
            keys = self.keys.copy()
            keys[_zero_key(element)] += np.uint64(self.size - self.nnz)
            return keys, self.or_of_keys | (1 << 8 * element.width - 1 if element.kind == "signed" else 0)
        if stream == "mask":
            counted = self.mask_bytes if params["order"] == "rows" else self.lane_bytes
            return counted, _or(np.flatnonzero(counted))
        if stream == "gaps":
            return self.gaps, _or(np.flatnonzero(self.gaps))
        if stream == "columns":
            counts = self.col_counts if params["of"] == "nonzeros" else np.uint64(self.grid.rows) - self.col_counts
            return _histogram(np.arange(self.grid.cols) % max(1, self.grid.segment_cols), counts, params["index"] // 8)
        if stream == "rows":
            if self.grid.across > 1:
                raise ArgumentError("statistics do not tell the row pointers of a matrix whose rows are cut into segments")
            counts = self.row_counts if params["of"] == "nonzeros" else np.uint64(self.grid.cols) - self.row_counts
            pointers = [
                np.concatenate(([0], np.cumsum(counts[p.row : p.row + p.rows]))) for p in self.grid.places()
            ]
            every = np.concatenate(pointers).astype(np.int64) if pointers else np.zeros(0, np.int64)
            return _histogram(every, np.ones(len(every), np.uint64), 4)
        raise ArgumentError(f"these statistics do not tell about stream {stream!r} of layout {layout}; encode to know its size")


def _zero_key(element: ElementType) -> int:
    return histogram_size(element.width) // 2 if element.kind == "signed" else 0


def _histogram(items: np.ndarray, counts: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    bits = histogram_size(width)
    shifted = items >> max(0, 8 * width - 16)
    out = np.zeros(bits, np.uint64)
    np.add.at(out, shifted, counts)
    return out, _or(items[counts > 0])


def _or(items: np.ndarray) -> int:
    return int(np.bitwise_or.reduce(items)) if len(items) else 0


def _tables(grid: Grid, width: int) -> list[np.ndarray]:
    return [np.zeros(n, np.uint64) for n in (grid.rows, grid.cols, 256, 256, 256, histogram_size(width))]


def stats_of(source: Source) -> TensorStats:
    """Count a checked source."""
    element, grid = source.element, source.grid
    tables = _tables(grid, element.width)
    native = _native.Streams(
        grid.rows, grid.cols, grid.segment_rows, grid.segment_cols, element.width, source.nonzero_bits, source.negative, 0, (4, False, False), 1
    )
    nnz, negative, every = native.measure(source.dense, source.keep, kernels.kind_code(element.kind), *tables)
    return TensorStats(source.shape, element.dtype, source.row_dims, source.zero, nnz, negative, *tables, every, grid)


def stats_of_spans(spans: Spans, threads: int) -> TensorStats:
    """Count a packed tensor, segment by segment."""
    head = spans.head
    tables = _tables(head.grid, head.element.width)
    nnz = every = 0
    for view, first, last in spans.views(0, head.grid.segments, threads):
        result, stored, keys = view.measure(
            first, last, head.element.nonzero_bits(head.zero), kernels.kind_code(head.element.kind), *tables
        )
        spans.raise_for(result)
        nnz, every = nnz + stored, every | keys
    return TensorStats(
        head.shape, head.element.dtype, head.row_dims, head.zero, nnz, head.negative_zeros, *tables, every, head.grid
    )


def tensor_stats(a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None, block: tuple[Any, ...] = ()) -> TensorStats:
    """Count what a tensor's sizes depend on.

    Parameters
    ----------
    a : array-like or torch tensor
        Any shape and any dtype of the format.
    zero, mask, row_dims
        As in ``codec.encode``: statistics hold for the same choice only.
    block : tuple
        Block shapes whose occupancy to count; this release has no layout that asks for any, so it must be empty.

    Returns
    -------
    TensorStats

    Raises
    ------
    ArgumentError
        For an array or option that ``encode`` would refuse.

    Examples
    --------
    >>> tensor_stats(np.eye(4, dtype=np.float32)).nnz
    4
    """
    if block:
        raise ArgumentError(f"block={block!r}: this release has no block layout; leave it empty")
    return stats_of(source_of(a, zero=zero, mask=mask, row_dims=row_dims))
