"""sell: sliced ELLPACK, SELL-C-sigma with slices of 8 rows (spec section 5.9), made for products.

Kreutzer et al., "A unified sparse matrix data format for efficient general sparse matrix-vector multiplication on
modern processors with wide SIMD units" (SIAM J. Sci. Comput. 36, 2014). Here rows are sorted by their entries within a
tile of 64 rows x 256 columns, so that a column takes one byte and a tile's x stays in registers.
"""

from dataclasses import dataclass

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import FormatError
from codec.layouts.base import KEYS, Layout, Needs, Sizes, StreamKind, items, octets, unsigned, values_of, with_zeros
from codec.matrix import MAX_SEGMENT, Grid, TensorSpec
from codec.statistics import Counts, Need
from codec.statistics.slices import SLICE, TILE_COLS, TILE_ROWS

# Rows of a segment: as many as keep x in cache from tile to tile, but two segments of any layer worth two threads, and
# no more elements than are decoded into little memory where streams are coded.
_TALL, _MOST = 512, 1 << 21


@dataclass(frozen=True)
class Sell(Layout):
    """Streams: ``places``, ``lengths``, ``columns``, ``values``. No parameters."""

    name = "sell"
    number = 8

    @classmethod
    def candidates(cls) -> tuple["Sell", ...]:
        """Never the smallest: it takes a byte for each position."""
        return ()

    def grid(self, spec: TensorSpec) -> Grid:
        """An even number of segments of whole tiles, up to 512 rows high, where the matrix has 128 rows."""
        grid = spec.grid
        if not grid.size or grid.segment_cols < grid.cols:
            return grid
        pieces = 2 * -(-grid.rows // (2 * _TALL)) if grid.rows >= 2 * TILE_ROWS else 1
        height = min(-(-grid.rows // pieces), max(TILE_ROWS, _MOST // grid.cols))
        step = TILE_ROWS if TILE_ROWS * grid.cols <= MAX_SEGMENT else SLICE
        height = min(-(-height // step) * step, MAX_SEGMENT // grid.cols // step * step)
        return Grid(grid.rows, grid.cols, min(grid.rows, height), grid.cols) if height else grid

    @property
    def zero_items(self) -> bool:
        """Slices are filled up with zeros."""
        return True

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Places of rows, lengths of slices, columns within a tile, values."""
        return (unsigned("places", 1), unsigned("lengths", 2), unsigned("columns", 1), values_of(element))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A byte for each row of each tile, two for each slice; one and the width for each item."""
        across = -(-grid.widths // TILE_COLS)
        slices = grid.heights // TILE_ROWS * (TILE_ROWS // SLICE) + -(-(grid.heights % TILE_ROWS) // SLICE)
        found = None if counts.slices is None else counts.slices.astype(np.int64)
        return (grid.heights * across, 2 * slices * across, found, None if found is None else found * width)

    @property
    def size_needs(self) -> Needs:
        """The items of each segment."""
        return frozenset({Need("slices")})

    def part_limit(self, grid: Grid, width: int) -> int:
        """Slices of whole rows."""
        return 8 * (grid.segment_rows + SLICE) * grid.segment_cols + 8

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Of the values, with the zeros that fill up slices."""
        if stream != "values" or counts.slices is None:
            return None
        return with_zeros(counts.keys, int(counts.slices.sum()) - counts.nnz, element)

    @property
    def key_needs(self) -> Needs:
        """Those of the size, and the values."""
        return KEYS | self.size_needs

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """d (b + 8), without what fills up slices."""
        return (1 - sparsity) * (value_bits + 8)

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Tile by tile, down each 256 columns in turn."""
        places, lengths = np.zeros(0, np.uint8), np.zeros(0, "<u2")
        columns, values = [np.zeros(0, np.uint8)], [np.zeros(0, segment.dtype)]
        for left in range(0, segment.shape[1], TILE_COLS):
            for top in range(0, len(segment), TILE_ROWS):
                tile = segment[top : top + TILE_ROWS, left : left + TILE_COLS]
                there = stored[top : top + TILE_ROWS, left : left + TILE_COLS]
                order = np.argsort(-there.sum(axis=1), kind="stable")
                places = np.append(places, np.argsort(order).astype(np.uint8))
                for first in range(0, len(order), SLICE):
                    rows = order[first : first + SLICE]
                    length = int(there[rows[0]].sum())
                    near, own = np.zeros((length, SLICE), np.uint8), np.zeros((length, SLICE), segment.dtype)
                    for lane, row in enumerate(rows):
                        at = np.flatnonzero(there[row])
                        near[: len(at), lane], own[: len(at), lane] = at, tile[row, at]
                        near[len(at) :, lane] = at[-1] if len(at) else 0
                    lengths = np.append(lengths, np.uint16(length))
                    columns.append(near.reshape(-1))
                    values.append(own.reshape(-1))
        return places, octets(lengths.astype("<u2")), np.concatenate(columns), octets(np.concatenate(values))

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Places are a permutation; columns of a row ascend, but for items of zero bits, which fill a slice up."""
        across = -(-cols // TILE_COLS)
        down = [min(TILE_ROWS, rows - top) for top in range(0, rows, TILE_ROWS)]
        places = items(streams[0], "u1", rows * across, "places")
        lengths = items(streams[1], "<u2", across * sum(-(-h // SLICE) for h in down), "lengths").astype(np.int64)
        out = np.zeros((rows, cols), dtype)
        tiles = [
            out[top : top + TILE_ROWS, left : left + TILE_COLS]
            for left in range(0, cols, TILE_COLS)
            for top in range(0, rows, TILE_ROWS)
        ]
        place, slices, item = 0, 0, 0
        near = items(streams[2], "u1", None, "columns")
        values = items(streams[3], dtype, None, "values")
        for tile in tiles:
            own = lengths[slices : slices + -(-len(tile) // SLICE)]
            if np.any(own > tile.shape[1]):
                raise FormatError(f"a slice of {own.max()} steps over {tile.shape[1]} columns", stream="lengths")
            count = SLICE * int(own.sum())
            if len(near) - item < count or len(values) - item < count:
                raise FormatError("fewer items than the lengths say", stream="columns")
            order = np.argsort(places[place : place + len(tile)])
            if np.any(places[place : place + len(tile)][order] != np.arange(len(tile))):
                raise FormatError("the places of a tile's rows are no permutation", stream="places")
            for first, length in enumerate(own):
                block = slice(item, item + SLICE * int(length))
                _place(tile, order[SLICE * first :][:SLICE], near[block], values[block])
                item += SLICE * int(length)
            place, slices = place + len(tile), slices + len(own)
        if len(near) != item or len(values) != item:
            raise FormatError("more items than the lengths say", stream="columns")
        return out


def _place(tile: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """The items of one slice into its rows."""
    for lane in range(SLICE):
        at, own = columns[lane::SLICE].astype(np.int64), values[lane::SLICE]
        if lane >= len(rows):
            if at.any() or own.any():
                raise FormatError("an item past the last row", stream="columns")
            continue
        if np.any(at >= tile.shape[1]):
            raise FormatError(f"column {at.max()} of a tile of {tile.shape[1]}", stream="columns")
        if np.any(np.diff(at, prepend=-1) + (own == 0) < 1):
            raise FormatError("the columns of a row do not ascend", stream="columns")
        tile[rows[lane], at[own != 0]] = own[own != 0]
