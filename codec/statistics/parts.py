"""parts: stored entries of each segment."""

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Carry, Plain, Request, added_up, united


class Parts(Plain):
    """``parts``, uint64 (segments,)."""

    name = "parts"
    gives = ("parts",)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """Added up, from smaller segments."""
        many = united(known, grid)
        return added_up(many) if many else None

    def expected(self, attribute: str, grid: Grid, nnz: int) -> np.ndarray:
        """Entries in proportion to elements."""
        ends = np.cumsum(grid.elements).astype(np.float64)
        return np.diff(np.rint(ends * (nnz / max(1, grid.size))), prepend=0).astype(np.uint64)
