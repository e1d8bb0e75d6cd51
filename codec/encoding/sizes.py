"""Sizes before anything is encoded: the same choice and the same formulas as in ``encode``."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from codec.encoding.choose import plan_of, smallest
from codec.encoding.predict import needs_of, predict
from codec.encoding.request import EncodeRequest
from codec.entropy import NONE
from codec.errors import ArgumentError
from codec.layouts import Layout, make_layout
from codec.layouts.base import Needs
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, TensorStats
from codec.values import ValueCoding, check_values


class CountedSource:
    """A tensor of which only counts are known: its statistics, or what independent zeros come to."""

    def __init__(self, spec: TensorSpec, nnz: int, stats: TensorStats | None = None) -> None:
        self.spec, self.nnz, self._stats = spec, nnz, stats
        self.negative_zeros = stats.negative_zeros if stats is not None else 0
        self._whole: tuple[Grid, int] | None = None

    @classmethod
    def independent(cls, spec: TensorSpec, sparsity: float, part: Grid) -> Self:
        """Independent zeros in a part of a tensor's matrix that is cut as all of it is."""
        source = cls(spec.cut(part), part.size - round(sparsity * part.size))
        source._whole = spec.grid, spec.grid.size - round(sparsity * spec.grid.size)
        return source

    def count(self, needs: Mapping[Grid, Needs]) -> None:
        """Nothing: there is nothing to count."""

    def counts(self, needs: Needs, grid: Grid) -> Counts:
        """Those of the statistics, or expected ones."""
        if self._stats is not None:
            return self._stats.counts_on(grid)
        if self._whole and needs and all(need.name == "groups" for need in needs):
            return Counts.independent(*self._whole)  # the fullest group of the whole matrix is what n_m looks for
        return Counts.independent(grid, self.nnz)

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """As asked."""
        return asked.on(self.spec.grid)

    def fill(self, streams: Any, plan: Any, threads: int) -> int:
        """Counts have no elements to write."""
        raise AssertionError("counts cannot be encoded")

    def release(self) -> bool:
        """Counts have no elements to give up."""
        return False


def encoded_nbytes(
    layout: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    sparsity: float | None = None,
    stats: TensorStats | None = None,
    entropy: str | None = None,
    values: str = "raw",
    value_bits: int | None = None,
    codebook_rows: int | None = None,
    zero: str = "value",
    row_dims: int | None = None,
    **layout_params: Any,
) -> int:
    """Bytes that ``len(dumps(encode(...)))`` will be, without encoding.

    Parameters
    ----------
    layout : str
        A layout's name; parameters of its own follow by keyword, by default as in ``encode``.
    shape, dtype
        Of the tensor.
    sparsity : float, optional
        Share of zeros, 0 to 1, spread independently; ``round(sparsity * size)`` of them.
    stats : TensorStats, optional
        ``tensor_stats(a)`` of the very tensor; exactly one of the two must be given.
    values, value_bits, codebook_rows
        The value coding, as in ``encode``. Codes count as incompressible.
    entropy : str, optional
        A choice of ``encode``; by default "auto" with ``stats``, "none" with ``sparsity``.
    zero, row_dims
        As in ``encode``; by default those of ``stats``.

    Returns
    -------
    int
        Exact with ``entropy="none"`` and ``stats`` (block_offset: an upper bound where ``mask`` keeps zeros); within
        1 % for streams coded by "huffman" and "rans", and within a frame's rounding where that is more (small tensors);
        with "zstd" and "auto" an upper estimate. Coded patterns of n_m and coded offsets of block_offset are estimated
        from how many entries groups and columns hold.

    Raises
    ------
    ArgumentError
        If neither or both of sparsity and stats are given, they are of another tensor, or a name or parameter is wrong.

    Examples
    --------
    >>> encoded_nbytes("bitmap", (4096, 4096), "bfloat16", sparsity=0.9)
    5453440
    """
    if (sparsity is None) == (stats is None):
        raise ArgumentError("expected one of sparsity= and stats=")
    if stats is not None:
        source = _of_stats(stats, shape, dtype, row_dims)
        spec, stage = source.spec, "auto"
    else:
        if not isinstance(sparsity, int | float | np.floating) or not 0 <= sparsity <= 1:
            raise ArgumentError(f"sparsity={sparsity!r}; expected a number from 0 to 1")
        spec = TensorSpec.of(dtype, shape, row_dims=row_dims, zero=zero)
        stage = "auto" if layout != "auto" and make_layout(layout, layout_params).always_coded else NONE
    coding = check_values(values, value_bits, None, codebook_rows, None, spec.grid, None)
    request = EncodeRequest.of(layout, layout_params, "disk", entropy or stage, coding)
    if stats is None:
        return _independent_nbytes(request, spec, float(sparsity or 0))
    plan = smallest(request, source, most=1)[0] if request.layout is None else plan_of(request, request.layout, source)
    return predict(plan, source.counts(needs_of(plan), plan.spec.grid), source.negative_zeros)


def _independent_nbytes(request: EncodeRequest, spec: TensorSpec, sparsity: float) -> int:
    layout = request.layout
    if layout is None:
        raise ArgumentError('layout="auto" needs stats=tensor_stats(a)')
    whole = spec.cut(layout.grid(spec))

    def nbytes(part: Grid) -> int:
        source = CountedSource.independent(whole, sparsity, part)
        plan = plan_of(request, layout, source)
        return predict(plan, source.counts(needs_of(plan), plan.spec.grid), 0)

    return round(_of_many(whole.grid, nbytes))


# How many segments along a side of a matrix stand for more than four times as many, if they are not wider than this.
_FEW, _FEW_COLS = 256, 1 << 22


def _of_many(grid: Grid, size: Callable[[Grid], int]) -> float:
    """``size(grid)`` for independent zeros, in the time and memory of a small matrix however large the grid is.

    All segments of the same extent are expected to take the same bytes, so a frame's size is affine in the number of
    segments along either side: two smaller matrices that are cut alike tell it. One without elements has no segments.
    """
    if not grid.size:
        return size(Grid(0, 0, 0, 0))
    wide = max(2, min(_FEW, _FEW_COLS // grid.segment_cols))
    high = max(2, _FEW // min(wide, grid.across))
    for side, step, more in (("rows", grid.segment_rows, high), ("cols", grid.segment_cols, wide)):
        total: int = getattr(grid, side)
        whole, few = total // step, more // 2
        if whole > 4 * more:
            small, large = (_of_many(replace(grid, **{side: total - (whole - n) * step}), size) for n in (few, more))
            return small + (large - small) * (whole - few) / (more - few)
    return size(grid)


def _of_stats(stats: TensorStats, shape: Any, dtype: Any, row_dims: Any) -> CountedSource:
    spec = stats.spec
    asked = TensorSpec.of(dtype, shape, row_dims=spec.row_dims if row_dims is None else row_dims, zero=spec.zero)
    if asked != spec:
        raise ArgumentError(
            f"stats of {spec.element.dtype} {spec.shape}, row_dims {spec.row_dims}; asked for {asked.element.dtype} "
            f"{asked.shape}, row_dims {asked.row_dims}"
        )
    return CountedSource(spec, stats.nnz, stats)
