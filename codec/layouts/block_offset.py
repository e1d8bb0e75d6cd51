"""block_offset: the r x c blocks that hold an entry, by their offsets (spec section 5.8; block sparse rows, BSR).

Blocks are counted from the top left of each segment and clipped at its edges. ``block=(1, cols)`` keeps whole rows.
``block=("all", c)`` keeps whole columns of the matrix (or kernels, channels: c columns at a time): one list of them for
all segments, and what is left when the others are taken out.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import NONE, Items, KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.layouts.base import (
    KEYS,
    Layout,
    Needs,
    Sizes,
    StreamKind,
    items,
    octets,
    total,
    unsigned,
    values_of,
    with_zeros,
)
from codec.layouts.gaps import expected
from codec.matrix import MAX_SEGMENT, Grid, TensorSpec, is_int
from codec.statistics import BLOCKS, Counts, Need

# Segments of block rows up to this high are not cut through a block of any shape that is tried by default.
_TALL = 16

Block = tuple[Any, int]


@dataclass(frozen=True)
class BlockOffset(Layout):
    """Streams: ``pointers`` (u32, one more than a segment has rows of blocks), ``columns``, ``values``.

    Whole columns have no ``pointers``, and all segments share ``columns``. Parameters: ``block``, (r, c) or
    ("all", c), by default the one of the smallest size; ``index``, bits of an offset (8, 16, 32; by default the
    fewest).
    """

    name = "block_offset"
    number = 7

    block: Block | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        self._check_one_of("index", (None, 8, 16, 32))
        if self.block is not None:
            object.__setattr__(self, "block", _checked(self.block))

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Squares, rows, columns, whole rows and whole columns."""
        blocks: list[Block] = [(4, 4), (8, 1), (1, 1 << 22), ("all", 1)]
        return (cls(), cls(block=(1, 8), index=32), *(cls(block=block) for block in blocks))

    def grid(self, spec: TensorSpec) -> Grid:
        """Segments that no block crosses the lower edge of, where they can be so high."""
        r = 1 if self.block is None or self._whole else int(self.block[0])
        return spec.grid.tall(_TALL if _TALL % r == 0 else r)

    def fit(self, spec: TensorSpec) -> Self:
        """A block no larger than a segment, and index bits that hold every offset."""
        if self.block is None:
            return self
        grid = spec.grid
        block = _clipped(self.block, grid)
        wide = grid.cols if self._whole and grid.size else grid.segment_cols
        across = -(-wide // block[1])
        fewest = 8 if across <= 1 << 8 else 16 if across <= 1 << 16 else 32
        if (self.index or 32) < fewest or across > 1 << 32:
            raise ArgumentError(f"index={self.index} bits for {across} blocks side by side; expected at least {fewest}")
        return replace(self, block=block, index=self.index or fewest)

    def choose(self, spec: TensorSpec, counts: Counts) -> Self:
        """The shape of the smallest streams: of those that are always tried, whole rows, and whole columns."""
        if self.block is not None:
            return self
        known = expected(counts, spec.grid)
        best, least = None, 0
        for candidate in _shapes(self, spec):
            sizes = candidate.stream_bytes(spec.grid, spec.element.width, known)
            size = total(sizes)
            if all(one is not None for one in sizes) and (best is None or size < least):
                best, least = candidate, size
        return (
            replace(self, block=_rows(spec)).fit(spec)
            if best is None
            else replace(self, block=best.block, index=best.index)
        )

    @property
    def choose_needs(self) -> Needs:
        """All blocks that are tried, where the shape is left out."""
        if self.block is not None:
            return frozenset()
        return frozenset({*(Need("blocks", shape) for shape in BLOCKS), Need("rows"), Need("columns")})

    def to_header(self) -> list[Any]:
        """As for every layout; blocks of all rows have 0 rows."""
        block, index = super().to_header()
        return [[0, block[1]] if self._whole else list(block), index]

    @classmethod
    def _param(cls, name: str, value: Any) -> Any:
        if name == "block" and isinstance(value, list) and value and type(value[0]) is int and value[0] == 0:
            return ("all", *value[1:])
        return super()._param(name, value)

    @property
    def _whole(self) -> bool:
        """Whether whole columns are kept."""
        return self.block is not None and self.block[0] == "all"

    @property
    def _shape(self) -> Block:
        return (1, 1) if self.block is None else self.block

    @property
    def _index_bytes(self) -> int:
        return (self.index or 32) // 8

    def native(self) -> tuple[int, ...]:
        """Bytes of an offset, rows of a block (0: all), columns of a block."""
        r, c = self._shape
        return (self._index_bytes, 0 if self._whole else r, c)

    @property
    def zero_items(self) -> bool:
        """Blocks hold zeros."""
        return True

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Pointers, offsets, values; whole columns have no pointers, and the same offsets in all segments."""
        if self._whole:
            return (StreamKind("columns", Items(self._index_bytes), True, (NONE,)), values_of(element))
        return (unsigned("pointers", 4), unsigned("columns", self._index_bytes), values_of(element))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """4 (ceil(h / r) + 1) in a segment of h rows; index / 8 for each block, width for each of its elements."""
        blocks, elements = self._live(grid, counts)
        columns = None if blocks is None else blocks * self._index_bytes
        values = None if elements is None else elements * width
        return (columns, values) if self._whole else (4 * (-(-grid.heights // self._shape[0]) + 1), columns, values)

    @property
    def size_needs(self) -> Needs:
        """The blocks, or the columns that hold an entry."""
        return frozenset({Need("columns")} if self._whole else {Need("blocks", self._shape), Need("rows")})

    def share(self, grid: Grid, counts: Counts) -> dict[str, np.ndarray]:
        """The whole columns that hold an entry."""
        if not self._whole:
            return {}
        live: Any = [] if counts.cols is None else np.flatnonzero(self._live_columns(counts.cols)[:: self._shape[1]])
        return {"columns": np.asarray(live).astype(f"<u{self._index_bytes}")}

    @property
    def share_needs(self) -> Needs:
        """Which whole columns are kept stands in one stream for all segments."""
        return frozenset({Need("columns")} if self._whole else ())

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """The entries, and a zero for each other element of their blocks; offsets as often as entries make likely, and
        pointers as if each row of blocks held one for each entry, as far as there are.
        """
        blocks, elements = self._live(grid, counts)
        if blocks is None or elements is None:
            return None
        many = int(blocks.sum())
        if stream == "pointers":
            return None if counts.rows is None else self._pointers(grid, counts.rows, many)
        if stream == "columns":
            if counts.cols is None or not many or self._whole:
                return None
            likely = self._likely(grid, counts.cols)
            times = np.rint(likely * (many / max(1e-300, likely.sum()))).astype(np.uint64)
            return KeyCounts.of(np.arange(len(likely)), times, self._index_bytes)
        return with_zeros(counts.keys, int(elements.sum()) - counts.nnz, element)

    @property
    def key_needs(self) -> Needs:
        """Those of the size, the entries of each row and column, and the values."""
        return KEYS | self.size_needs | {Need("rows"), Need("columns")}

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """(1 - s^(rc)) (b + i / (rc)); of endless columns none is without an entry."""
        if self.block is None:
            return min(replace(self, block=block).ideal_bits(sparsity, value_bits) for block in BLOCKS)
        if self._whole:
            return float(value_bits) if sparsity < 1 else 0.0
        size = int(self.block[0]) * self.block[1]
        return float(1 - sparsity**size) * (value_bits + 8 * self._index_bytes / size)

    def pointer_bits(self, rows: int, cols: int) -> float:
        """32 bits for each row of blocks, and for one more."""
        if self.block is None or self._whole:
            return 0.0
        return 32 * (rows / int(self.block[0]) + 1) / (rows * cols)

    def _live_columns(self, cols: np.ndarray) -> np.ndarray:
        """For each column of the matrix, whether its block holds an entry (int64)."""
        if not len(cols):
            return np.zeros(0, np.int64)
        c = self._shape[1]
        if c == 1:
            return (cols > 0).astype(np.int64)
        live = np.add.reduceat(cols, np.arange(0, len(cols), c)) > 0
        return np.repeat(live, c)[: len(cols)].astype(np.int64)

    def _live(self, grid: Grid, counts: Counts) -> tuple[Sizes, Sizes]:
        """Blocks that hold an entry, and their elements, segment by segment; None where ``counts`` does not tell.

        The blocks of whole columns are counted once for all segments.
        """
        if not grid.size and not self._whole:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if self._whole:
            if counts.cols is None:
                return None, None
            live = self._live_columns(counts.cols)
            wide = np.add.reduceat(live, np.arange(0, grid.cols, grid.segment_cols)) if grid.size else live
            widths = wide[np.arange(grid.segments) % max(1, grid.across)]
            return live[:: self._shape[1]].sum(keepdims=True), grid.heights * widths
        if counts.block_parts is not None:
            shape: Block | None = self._shape
            if shape not in counts.block_parts:  # of shapes that are the same once they are clipped, any does
                own = _clipped(self._shape, grid)
                shape = next((one for one in counts.block_parts if _clipped(one, grid) == own), None)
            if shape is not None:
                found = counts.block_parts[shape].view(np.int64)
                return found[:, 0], found[:, 1]
        if self._shape == (1, grid.segment_cols) and counts.rows is not None:
            starts = np.concatenate(([0], np.cumsum(grid.heights)[:-1]))
            blocks = np.add.reduceat((counts.rows > 0).astype(np.int64), starts)
            return blocks, blocks * grid.widths
        return None, None

    def _pointers(self, grid: Grid, entries: np.ndarray, blocks: int) -> KeyCounts:
        """Pointers to so many blocks."""
        (r, c), at, held = self._shape, 0, [np.zeros(0)]
        for place in grid.places():
            rows = np.add.reduceat(entries[at : at + place.rows].astype(np.float64), np.arange(0, place.rows, r))
            held.append(np.minimum(rows, -(-place.cols // c)))
            at += place.rows
        scale = blocks / max(1.0, sum(float(rows.sum()) for rows in held))
        pointers = np.concatenate([np.append(0, np.rint(np.cumsum(rows) * scale)) for rows in held[1:]] or held)
        return KeyCounts.of(pointers.astype(np.int64), np.ones(len(pointers), np.uint64), 4)

    def _likely(self, grid: Grid, cols: np.ndarray) -> np.ndarray:
        """Of each offset, the share of blocks there that hold an entry, were those of a column independent."""
        (r, c), step = self._shape, grid.segment_cols
        density = np.zeros(step)
        for left in range(0, grid.cols, step):
            piece = cols[left : left + step]
            density[: len(piece)] += piece / (grid.rows * grid.across)
        empty = np.log1p(-np.minimum(density, 1 - 1e-9))
        return np.asarray(-np.expm1(r * np.add.reduceat(empty, np.arange(0, step, c))))

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Blocks row by row, each row by row."""
        elements = np.where(stored, segment, 0).astype(segment.dtype)
        (r, c), offset = self._shape, np.dtype(f"<u{self._index_bytes}")
        if r == "all":
            live = np.repeat(_any(stored, len(stored), c)[0], c)[: elements.shape[1]]
            return octets(np.flatnonzero(live[::c]).astype(offset)), octets(elements[:, live])
        live = _any(stored, r, c)
        down, across = np.nonzero(live)
        values = [
            elements[i * r : (i + 1) * r, j * c : (j + 1) * c].reshape(-1) for i, j in zip(down, across, strict=True)
        ]
        pointers = np.concatenate(([0], np.cumsum(live.sum(axis=1))))
        every = np.concatenate([np.zeros(0, segment.dtype), *values])
        return octets(pointers.astype("<u4")), octets(across.astype(offset)), octets(every)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Puts each block where its offset says: they ascend, and lie inside."""
        (r, c), out = self._shape, np.zeros((rows, cols), dtype)
        across = -(-cols // c)
        columns = items(streams[-2], f"<u{self._index_bytes}", None, "columns").astype(np.int64)
        if r == "all":
            _ascending(columns, across)
            live = np.repeat(np.isin(np.arange(across), columns), c)[:cols]
            out[:, live] = items(streams[-1], dtype, rows * int(live.sum()), "values").reshape(rows, -1)
            return out
        pointers = items(streams[0], "<u4", -(-rows // r) + 1, "pointers").astype(np.int64)
        if pointers[0] != 0 or np.any(np.diff(pointers) < 0) or pointers[-1] != len(columns):
            raise FormatError(f"pointers do not ascend from 0 to {len(columns)}", stream="pointers")
        values, used = items(streams[2], dtype, None, "values"), 0
        for i in range(len(pointers) - 1):
            inside = columns[pointers[i] : pointers[i + 1]]
            _ascending(inside, across)
            for j in inside:
                block = out[i * r : (i + 1) * r, j * c : (j + 1) * c]
                own = values[used : used + block.size]
                if len(own) < block.size:
                    raise FormatError(f"row of blocks {i}: block {j} is cut off", stream="values")
                block[...] = own.reshape(block.shape)
                used += block.size
        items(streams[2], dtype, used, "values")
        return out


@lru_cache(maxsize=256)  # layers of a model share their shapes
def _shapes(layout: BlockOffset, spec: TensorSpec) -> tuple[BlockOffset, ...]:
    """The shapes always tried, whole rows, and whole columns, but for those that the index given cannot hold."""
    found = []
    for block in (*BLOCKS, _rows(spec), ("all", 1)):
        try:
            found.append(replace(layout, block=block).fit(spec))
        except ArgumentError:
            continue
    return tuple(found)


def _rows(spec: TensorSpec) -> Block:
    """The block of whole rows."""
    return 1, max(1, spec.grid.segment_cols)


def _checked(block: Any) -> Block:
    """A block's sides as ints; ArgumentError where it is none."""
    fine = isinstance(block, tuple | list) and len(block) == 2 and (_is_all(block[0]) or _side(block[0]))
    if not fine or not _side(block[1]):
        raise ArgumentError(f'block={block!r}; expected (rows, columns), or ("all", columns) for whole columns')
    return block[0] if _is_all(block[0]) else int(block[0]), int(block[1])


def _clipped(block: Block, grid: Grid) -> Block:
    """A block no larger than a segment."""
    rows = block[0] if _is_all(block[0]) else min(block[0], grid.segment_rows or MAX_SEGMENT)
    return rows, min(block[1], grid.segment_cols or MAX_SEGMENT)


def _is_all(side: object) -> bool:
    return isinstance(side, str) and side == "all"


def _side(value: Any) -> bool:
    return is_int(value) and value >= 1


def _any(stored: np.ndarray, r: int, c: int) -> np.ndarray:
    """For each block, whether it holds a stored element."""
    whole = np.pad(stored, ((0, -stored.shape[0] % r), (0, -stored.shape[1] % c)))
    return np.asarray(whole.reshape(whole.shape[0] // r, r, -1, c).any(axis=(1, 3)))


def _ascending(columns: np.ndarray, across: int) -> None:
    if np.any(np.diff(columns) <= 0) or np.any(columns >= across):
        raise FormatError(f"blocks do not ascend below {across}", stream="columns")
