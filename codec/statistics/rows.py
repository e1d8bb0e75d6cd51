"""rows: stored entries of each row of each segment, segment by segment."""

from codec.matrix import Grid
from codec.statistics.base import Carry, Plain, Request, same, whole_rows


class Rows(Plain):
    """``rows``, uint64 (rows * across,): where rows are cut, a row has a number for each piece."""

    name = "rows"
    gives = ("rows",)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same, of whole rows."""
        return same if whole_rows(known, grid) else None
