"""What a tensor's sizes depend on, counted in one pass: enough to predict every layout's bytes without encoding."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from codec import _native, kernels
from codec.dtypes import ElementType, element_type
from codec.entropy import histogram_size, key_bits
from codec.errors import ArgumentError
from codec.geometry import Grid
from codec.layouts import Counts
from codec.layouts.counts import BLOCKS, CODES, GROUPS, RUNS
from codec.source import Source, source_of
from codec.spans import Spans

# struct Tally of native/kernels.hpp: its arrays in order, with their lengths.
_ASKED, _MOST_GROUP = 8, 64
_NATIVE_BLOCKS = ((4, 1), (8, 1), (2, 2), (4, 4), (8, 8), (16, 16))
_TALLY = {
    "gaps": RUNS, "zero_gaps": RUNS, "keys": 1 << 16, "mask_bytes": 256, "lane_bytes": 256, "row_bytes": 256,
    "sixteens": 17, "blocks": len(_NATIVE_BLOCKS), "clipped": len(BLOCKS), "asked_blocks": _ASKED,
    "asked_clipped": _ASKED, "asked_groups": _ASKED * (_MOST_GROUP + 1),
    "stored": 1, "dropped_negatives": 1, "nans": 1, "or_of_keys": 1,
}  # fmt: skip
_ONES = np.array([value.bit_count() for value in range(256)])
# A panel: what is decoded at a time (kPanel in native/kernels.hpp).
PANEL = 16384


@dataclass(frozen=True)
class TensorStats:
    """Counts over one tensor under one zero rule and matrix view; what ``encoded_nbytes(stats=...)`` needs.

    Attributes
    ----------
    shape, dtype, row_dims, zero
        What was counted, and how.
    negative_zeros, nans : int
        Elements that are -0.0 and count as zeros; stored entries that are NaN.
    counts : Counts
        The counts: ``counts.gap_lengths``, ``counts.blocks``, ``counts.groups`` and others.
    panel_counts : ndarray of uint64
        Stored entries of each panel (whole rows of up to 16384 elements in all, or pieces of a longer row).
    block, group : tuple
        The block shapes and group sizes that were counted beside the ones that always are.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    row_dims: int
    zero: str
    negative_zeros: int
    nans: int
    counts: Counts
    panel_counts: np.ndarray = field(repr=False)
    block: tuple[tuple[Any, int], ...]
    group: tuple[int, ...]
    grid: Grid = field(repr=False)

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.counts.nnz

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return self.grid.size

    @property
    def sparsity(self) -> float:
        """Share of elements that are not stored; 0.0 for an empty tensor."""
        return 1 - self.nnz / self.size if self.size else 0.0

    @property
    def row_counts(self) -> np.ndarray:
        """Stored entries of each matrix row (uint64)."""
        assert self.counts.rows is not None
        return np.asarray(self.counts.rows.reshape(self.grid.rows, self.grid.across).sum(axis=1))

    @property
    def col_counts(self) -> np.ndarray:
        """Stored entries of each matrix column (uint64)."""
        assert self.counts.cols is not None
        return self.counts.cols

    @property
    def row_density(self) -> np.ndarray:
        """Share of each matrix row that is stored."""
        return self.row_counts / max(1, self.grid.cols)

    @property
    def col_density(self) -> np.ndarray:
        """Share of each matrix column that is stored."""
        return self.col_counts / max(1, self.grid.rows)

    @property
    def panel_density(self) -> np.ndarray:
        """Share of each panel that is stored."""
        sizes = [n for place in self.grid.places() for n in _panels(place.rows, place.cols)]
        return self.panel_counts / np.array(sizes, np.float64) if sizes else np.zeros(0)

    @property
    def dead_rows(self) -> int:
        """Matrix rows without a stored entry."""
        return int((self.row_counts == 0).sum())

    @property
    def dead_cols(self) -> int:
        """Matrix columns without a stored entry."""
        return int((self.col_counts == 0).sum())

    @property
    def dead_channels(self) -> int:
        """Indices of the dimension after the rows (the input channels of a convolution) without a stored entry."""
        channels = self.shape[self.row_dims] if self.row_dims < len(self.shape) else 1
        if not prod(self.shape):
            return 0
        return int((self.col_counts.reshape(channels, -1).sum(axis=1) == 0).sum())

    @property
    def runs(self) -> np.ndarray:
        """Runs of zeros before stored entries by length, within segments (the last for 65535 and more)."""
        assert self.counts.gap_lengths is not None
        out = self.counts.gap_lengths.copy()
        out[0] = 0
        return out

    @property
    def constant_low_bits(self) -> int:
        """Low bits that are zero in every stored value: 16 for bfloat16 kept as float32."""
        every = self.counts.or_of_keys
        element = element_type(self.dtype)
        return (every & -every).bit_length() - 1 if every else key_bits(element.width, element.kind)

    @property
    def value_entropy(self) -> float:
        """Bits per stored value that its top 16 bits hold (of a float without its sign), by Shannon's formula."""
        assert self.counts.keys is not None
        counts = self.counts.keys[self.counts.keys > 0].astype(np.float64)
        return float(np.log2(counts.sum()) - counts @ np.log2(counts) / counts.sum()) if len(counts) else 0.0


def _panels(rows: int, cols: int) -> list[int]:
    """Elements of each panel of a segment."""
    if cols > PANEL:
        return [min(PANEL, cols - left) for left in range(0, cols, PANEL)] * rows
    tall = PANEL // cols
    return [min(tall, rows - top) * cols for top in range(0, rows, tall)]


def _infinity(element: ElementType) -> tuple[int, int]:
    """The bits that tell a NaN, and the largest number in them that is none; equal where there are no NaN."""
    if not element.is_float:
        return 0, 0
    bits = {"F64": 0x7FF << 52, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80, "F8_E4M3": 0x7E, "F8_E5M2": 0x7C}
    return element.sign_bit - 1, bits[element.name]


def _counter(grid: Grid, element: ElementType, blocks: tuple[tuple[Any, int], ...], groups: tuple[int, ...]) -> Any:
    magnitude, infinity = _infinity(element)
    return _native.Counter(
        grid.rows, grid.cols, grid.segment_rows, grid.segment_cols, kernels.kind_code(element.kind),
        magnitude, infinity, _here(blocks, grid), groups,         lambda n: np.zeros(n, np.uint64),
    )  # fmt: skip


def _here(blocks: tuple[tuple[Any, int], ...], grid: Grid) -> tuple[tuple[int, int], ...]:
    """The shapes that are counted segment by segment, no larger than one."""
    height, width = max(1, grid.segment_rows), max(1, grid.segment_cols)
    return tuple((min(r, height), min(c, width)) for r, c in blocks if r != "all")


def _counts(
    counter: Any, grid: Grid, element: ElementType, blocks: tuple[tuple[Any, int], ...], groups: tuple[int, ...]
) -> tuple[Counts, int, int]:
    """What was counted, the negative zeros that were dropped, and the NaN."""
    tally, at = {}, 0
    for name, length in _TALLY.items():
        tally[name] = counter.tally[at : at + length]
        at += length
    assert at == len(counter.tally)
    segments = counter.segments.reshape(-1, 1 + 3 * CODES)
    grouped = {
        8: np.bincount(_ONES, weights=tally["row_bytes"].astype(np.float64), minlength=9).astype(np.uint64),
        16: tally["sixteens"],
        4: _fours(tally["row_bytes"], grid),
    }
    for i, m in enumerate(groups):
        start = i * (_MOST_GROUP + 1)
        grouped[m] = tally["asked_groups"][start : start + m + 1]
    occupied = {(1, m): int(grouped[m][1:].sum()) for m in GROUPS}
    occupied |= {shape: int(n) for shape, n in zip(_NATIVE_BLOCKS, tally["blocks"], strict=True)}
    here = [shape for shape in blocks if shape[0] != "all"]
    clipped = np.concatenate((tally["clipped"], tally["asked_clipped"]))
    occupied |= {shape: int(n) for shape, n in zip(here, tally["asked_blocks"], strict=False)}
    for r, c in blocks:
        if r == "all":
            occupied[r, c] = (
                int(np.add.reduceat(counter.cols, np.arange(0, grid.cols, c)).astype(bool).sum()) if grid.size else 0
            )
    counts = Counts(
        nnz=int(tally["stored"][0]),
        rows=counter.rows,
        cols=counter.cols,
        parts=segments[:, 0],
        gap_lengths=tally["gaps"],
        zero_gap_lengths=tally["zero_gaps"],
        long_gaps=_long(counter.long_gaps),
        long_zero_gaps=_long(counter.long_zero_gaps),
        escapes=segments[:, 1 : 1 + CODES],
        fillers=segments[:, 1 + CODES : 1 + 2 * CODES],
        zero_escapes=segments[:, 1 + 2 * CODES :],
        blocks={shape: occupied[shape] for shape in (*BLOCKS, *blocks)},
        block_elements={
            shape: occupied[shape] * r * c - int(lacks)
            for shape, (r, c), lacks in zip((*BLOCKS, *here), (*BLOCKS, *_here(blocks, grid)), clipped, strict=False)
        },
        groups=dict(sorted(grouped.items())),
        mask_bytes=tally["mask_bytes"],
        lane_bytes=tally["lane_bytes"],
        keys=tally["keys"][: histogram_size(element.width)],
        or_of_keys=int(tally["or_of_keys"][0]),
    )
    return counts, int(tally["dropped_negatives"][0]), int(tally["nans"][0])


def _long(lengths: np.ndarray) -> np.ndarray:
    return lengths[lengths > 0].astype(np.int64)


def _fours(row_bytes: np.ndarray, grid: Grid) -> np.ndarray:
    """Groups of 4 from bytes along rows, of which the last of a row may be one group only."""
    every = row_bytes.astype(np.float64)
    out = np.bincount(_ONES[:16], weights=every.reshape(16, 16).sum(axis=0), minlength=5)
    out += np.bincount(_ONES[:16], weights=every.reshape(16, 16).sum(axis=1), minlength=5)
    out[0] -= sum(h * n for h, w, n in grid.shapes() if 1 <= w % 8 <= 4)
    return out.astype(np.uint64)


def stats_of(
    source: Source, threads: int = 1, blocks: tuple[tuple[Any, int], ...] = (), groups: tuple[int, ...] = ()
) -> TensorStats:
    """Count a checked source."""
    element, grid = source.element, source.grid
    counter = _counter(grid, element, blocks, groups)
    result = counter.count(source.dense, source.keep, element.width, source.nonzero_bits, source.negative, threads)
    kernels.raise_for(result, [])
    counts, negative, nans = _counts(counter, grid, element, blocks, groups)
    return TensorStats(
        source.shape,
        element.dtype,
        source.row_dims,
        source.zero,
        negative,
        nans,
        counts,
        counter.panels,
        blocks,
        groups,
        grid,
    )


def stats_of_spans(
    spans: Spans, threads: int, blocks: tuple[tuple[Any, int], ...] = (), groups: tuple[int, ...] = ()
) -> TensorStats:
    """Count a packed tensor, segment by segment."""
    head = spans.head
    counter = _counter(head.grid, head.element, blocks, groups)
    for view, first, last in spans.views(0, head.grid.segments, threads):
        spans.raise_for(view.measure(first, last, counter, threads))
    counts, _, nans = _counts(counter, head.grid, head.element, blocks, groups)
    return TensorStats(
        head.shape, head.element.dtype, head.row_dims, head.zero, head.negative_zeros, nans, counts, counter.panels,
        blocks, groups,         head.grid,
    )  # fmt: skip


def _int(value: Any, least: int = 1) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def check_asked(block: Any, group: Any) -> tuple[tuple[tuple[Any, int], ...], tuple[int, ...]]:
    """The block shapes and group sizes asked for that are not always counted; ArgumentError where they are none."""
    shapes = (block,) if isinstance(block, tuple) and len(block) == 2 and not isinstance(block[0], tuple) else block
    sizes = (group,) if _int(group) else group
    fine = isinstance(shapes, tuple | list) and all(
        isinstance(s, tuple) and len(s) == 2 and (s[0] == "all" or _int(s[0])) and _int(s[1]) for s in shapes
    )
    if not fine:
        raise ArgumentError(
            f'block={block!r}; expected a shape (rows, columns) or ("all", columns), or a tuple of them'
        )
    if not isinstance(sizes, tuple | list) or not all(_int(m) and m <= _MOST_GROUP for m in sizes):
        raise ArgumentError(f"group={group!r}; expected an int from 1 to {_MOST_GROUP}, or a tuple of them")
    asked = dict.fromkeys((s[0] if s[0] == "all" else min(int(s[0]), 1 << 31), min(int(s[1]), 1 << 31)) for s in shapes)
    extra = tuple(s for s in asked if s not in BLOCKS)
    more = tuple(m for m in dict.fromkeys(map(int, sizes)) if m not in GROUPS)
    if len(extra) > _ASKED or len(more) > _ASKED:
        raise ArgumentError(
            f"{max(len(extra), len(more))} block shapes or group sizes; expected at most {_ASKED} in one pass"
        )
    return extra, more


def tensor_stats(
    a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None, block: Any = (), group: Any = (),
    threads: int | None = None,
) -> TensorStats:  # fmt: skip
    """Count what a tensor's sizes depend on, in one pass.

    Parameters
    ----------
    a : array-like or torch tensor
        Any shape and any dtype of the format.
    zero, mask, row_dims
        As in ``codec.encode``: statistics hold for the same choice only.
    block : (r, c), ("all", c), or a tuple of them
        Block shapes to count beside (1, 4), (1, 8), (1, 16), (4, 1), (8, 1), (2, 2), (4, 4), (8, 8) and (16, 16).
    group : int, or a tuple of them
        Sizes of groups along a row to count beside 4, 8 and 16.
    threads : int, optional

    Returns
    -------
    TensorStats

    Raises
    ------
    ArgumentError
        For an array or option that ``encode`` would refuse.

    Examples
    --------
    >>> stats = tensor_stats(np.eye(4, dtype=np.float32), block=(2, 3))
    >>> stats.nnz, stats.counts.blocks[2, 2], stats.counts.blocks[2, 3]
    (4, 2, 3)
    """
    blocks, groups = check_asked(block, group)
    return stats_of(
        source_of(a, zero=zero, mask=mask, row_dims=row_dims), kernels.thread_count(threads), blocks, groups
    )
