"""columns: stored entries of each column of the matrix."""

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Carry, Plain, Request, same


class Columns(Plain):
    """``cols``, uint64 (cols,); (0,) for an empty matrix."""

    name = "columns"
    gives = ("cols",)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same in any segments."""
        return same

    def expected(self, attribute: str, grid: Grid, nnz: int) -> np.ndarray:
        """Columns alike, but for as many that hold nothing as there will be."""
        if not grid.size:
            return np.zeros(0, np.uint64)
        live = round(grid.cols * (1 - (1 - nnz / grid.size) ** grid.rows))
        out = np.zeros(grid.cols, np.uint64)
        if live:
            each, rest = divmod(nnz, live)
            out[-live:] = each
            out[-live:][:rest] += np.uint64(1)
        return out
