"""mask_bytes and lane_bytes: the bytes of a mask by value, in the two orders of layout bitmap."""

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Carry, Plain, Request, united

_ONES = np.bitwise_count(np.arange(256, dtype=np.uint8))


def _independent(n: int, grid: Grid, nnz: int) -> np.ndarray:
    """n bytes of eight elements by value."""
    density = nnz / max(1, grid.size)
    return np.rint(n * density**_ONES * (1.0 - density) ** (8 - _ONES)).astype(np.uint64)


class MaskBytes(Plain):
    """``mask_bytes``, uint64 (256,): eight elements in row-major order."""

    name = "mask_bytes"
    gives = ("mask_bytes",)

    def expected(self, attribute: str, grid: Grid, nnz: int) -> np.ndarray:
        """But for the last byte of each segment."""
        return _independent(-(-grid.size // 8), grid, nnz)


class LaneBytes(Plain):
    """``lane_bytes``, uint64 (256,): eight rows of a column; groups of 64 rows are filled up with zeros."""

    name = "lane_bytes"
    gives = ("lane_bytes",)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same but for what fills up groups, from segments of whole bytes."""
        if not united(known, grid) or known.segment_rows % 8:
            return None

        def filled(words: np.ndarray) -> np.ndarray:
            out = words.copy()
            out[0] = int(out[0]) + _lane_bytes(grid) - _lane_bytes(known)
            return out

        return filled

    def expected(self, attribute: str, grid: Grid, nnz: int) -> np.ndarray:
        """But for groups of fewer than 64 rows."""
        return _independent(_lane_bytes(grid), grid, nnz)


def _lane_bytes(grid: Grid) -> int:
    """How many there are."""
    return sum(n * 8 * -(-h // 64) * w for h, w, n in grid.shapes())
