"""nans: stored values that are NaN."""

from collections.abc import Sequence
from typing import Any

from codec.dtypes import ElementType
from codec.matrix import Grid
from codec.statistics.base import Carry, Request, Statistic, Words, same

# The largest magnitude, as bits, that is not a NaN.
_INFINITY = {"F64": 0x7FF << 52, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80, "F8_E4M3": 0x7E, "F8_E5M2": 0x7C}


class Nans(Statistic):
    """``nans``, int."""

    name = "nans"
    gives = ("nans",)

    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """Nothing of integers."""
        return (("nans", element.sign_bit - 1, _INFINITY[element.name]),) if element.is_float else ()

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same in any segments."""
        return same

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> int:
        """The count."""
        return sum(int(words.of[request][0]) for request in self.requests(None, words.element, words.grid))
