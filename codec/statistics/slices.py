"""slices: the items of layout sell, with those that fill its slices up."""

from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt

from codec.matrix import Grid
from codec.statistics.base import Plain, over_segments

# Rows and columns of a tile, and rows of a slice (spec section 5.9).
TILE_ROWS, TILE_COLS, SLICE = 64, 256, 8
_CERTAIN = 1e-10  # a chance that is closer than this to 0 or 1 is taken for that


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


@lru_cache(maxsize=1 << 12)
def _tile(rows: int, cols: int, density: float) -> float:
    """Expected items of a tile of independent entries.

    A row has more than t entries with probability q, so the k-th fullest of n rows has where at least k of them do;
    its expected entries are the sum over t.
    """
    if not rows or not cols:
        return 0.0
    entries = np.arange(cols + 1)
    exact = _ways(cols) * density**entries * (1 - density) ** (cols - entries)
    more = np.clip(1 - np.cumsum(exact), 0, 1)[:-1]  # that a row has more than t entries, for each t
    slices = -(-rows // SLICE)
    sure = int((more > 1 - _CERTAIN).sum())  # all rows have more than these t; no row has more than those below
    more = more[(more > _CERTAIN) & (more <= 1 - _CERTAIN)]
    many = np.arange(rows + 1)
    # (t, k): that exactly k rows have more than t.
    exactly = _ways(rows) * more[:, None] ** many * (1 - more[:, None]) ** (rows - many)
    at_least = np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]
    return float(SLICE * (sure * slices + at_least[:, 1::SLICE].sum()))


@lru_cache(maxsize=64)
def _ways(n: int) -> npt.NDArray[np.float64]:
    """In how many ways 0, 1, ..., n of n can be taken."""
    return np.array([comb(n, k) for k in range(n + 1)], np.float64)
