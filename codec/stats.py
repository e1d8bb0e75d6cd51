"""What a tensor's sizes depend on, counted in one pass: enough to predict every layout's bytes without encoding."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codec import _native, kernels
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
    negative_zeros : int
        Elements that are -0.0 and count as zeros.
    counts : Counts
        The counts; ``nnz`` and ``row_counts``, ``col_counts`` give the ones most asked for.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    row_dims: int
    zero: str
    negative_zeros: int
    counts: Counts
    grid: Grid = field(repr=False)

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.counts.nnz

    @property
    def row_counts(self) -> np.ndarray:
        """Stored entries of each matrix row (uint64)."""
        assert self.counts.rows is not None
        sums: np.ndarray = self.counts.rows.reshape(self.grid.rows, self.grid.across).sum(axis=1)
        return sums

    @property
    def col_counts(self) -> np.ndarray:
        """Stored entries of each matrix column (uint64)."""
        assert self.counts.cols is not None
        return self.counts.cols

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return self.grid.size

    @property
    def sparsity(self) -> float:
        """Share of elements that are not stored; 0.0 for an empty tensor."""
        return 1 - self.nnz / self.size if self.size else 0.0


_BY_SEGMENT = ("escapes", "fillers", "zero_escapes")


def _tables(grid: Grid, width: int) -> dict[str, np.ndarray]:
    sizes = {"rows": grid.rows * grid.across, "cols": grid.cols, "gaps": 256, "mask_bytes": 256, "lane_bytes": 256}
    sizes |= {"gap_lengths": 65536, "zero_gap_lengths": 65536, "parts": grid.segments, "keys": histogram_size(width)}
    sizes |= dict.fromkeys(_BY_SEGMENT, 16 * grid.segments)
    return {name: np.zeros(n, np.uint64) for name, n in sizes.items()} | {"lengths": np.zeros(2 * 65536, np.uint32)}


def _counts(nnz: int, tables: dict[str, np.ndarray], every: int) -> Counts:
    del tables["lengths"]  # room for one segment, not a result
    tables |= {name: tables[name].reshape(-1, 16) for name in _BY_SEGMENT}
    return Counts(nnz, **tables, or_of_keys=every)


def stats_of(source: Source) -> TensorStats:
    """Count a checked source."""
    element, grid = source.element, source.grid
    tables = _tables(grid, element.width)
    native = _native.Streams(
        grid.rows,
        grid.cols,
        grid.segment_rows,
        grid.segment_cols,
        element.width,
        source.nonzero_bits,
        source.negative,
        0,
        (),
        1,
    )
    nnz, negative, every = native.measure(source.dense, source.keep, kernels.kind_code(element.kind), tables)
    return TensorStats(
        source.shape, element.dtype, source.row_dims, source.zero, negative, _counts(nnz, tables, every), grid
    )


def stats_of_spans(spans: Spans, threads: int) -> TensorStats:
    """Count a packed tensor, segment by segment."""
    head = spans.head
    tables = _tables(head.grid, head.element.width)
    nnz = every = 0
    for view, first, last in spans.views(0, head.grid.segments, threads):
        result, stored, keys = view.measure(
            first, last, head.element.nonzero_bits(head.zero), kernels.kind_code(head.element.kind), tables
        )
        spans.raise_for(result)
        nnz, every = nnz + stored, every | keys
    return TensorStats(
        head.shape,
        head.element.dtype,
        head.row_dims,
        head.zero,
        head.negative_zeros,
        _counts(nnz, tables, every),
        head.grid,
    )


def tensor_stats(
    a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None, block: tuple[Any, ...] = ()
) -> TensorStats:
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
