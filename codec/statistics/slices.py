"""slices: the items of layout sell, with those that fill its slices up."""

from math import comb

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Plain, over_segments

# Rows and columns of a tile, and rows of a slice (spec section 5.9).
TILE_ROWS, TILE_COLS, SLICE = 64, 256, 8


class Slices(Plain):
    """``slices``, uint64: the items of each segment."""

    name = "slices"
    gives = ("slices",)

    def expected(self, attribute: str, grid: Grid, nnz: int) -> np.ndarray:
        """Of a tile's rows the first, the ninth and so on by their entries, rounded so that segments add up."""
        if not grid.size:
            return np.zeros(0, np.uint64)
        density = nnz / grid.size

        def of(h: int, w: int) -> float:
            return sum(
                n * m * _tile(rows, cols, density)
                for rows, n in ((TILE_ROWS, h // TILE_ROWS), (h % TILE_ROWS, 1))
                for cols, m in ((TILE_COLS, w // TILE_COLS), (w % TILE_COLS, 1))
            )

        ends = np.rint(np.cumsum(over_segments(grid, of)))
        found: np.ndarray = np.diff(ends, prepend=0).astype(np.uint64)
        return found


def _tile(rows: int, cols: int, density: float) -> float:
    """Expected items of a tile of independent entries.

    A row has more than t entries with probability q, so the k-th fullest of n rows has where at least k of them do;
    its expected entries are the sum over t.
    """
    if not rows or not cols:
        return 0.0
    entries = np.arange(cols + 1)
    ways = np.array([comb(cols, int(t)) for t in entries], np.float64)
    exact = ways * density**entries * (1 - density) ** (cols - entries)
    more = np.clip(1 - np.cumsum(exact), 0, 1)[:-1]  # that a row has more than t entries, for each t
    many = np.arange(rows + 1)
    ways = np.array([comb(rows, int(k)) for k in many], np.float64)
    # (t, k): that exactly k rows have more than t.
    exactly = ways * more[:, None] ** many * (1 - more[:, None]) ** (rows - many)
    at_least = np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]
    return float(SLICE * at_least[:, 1::SLICE].sum())
