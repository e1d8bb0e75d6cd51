"""keys: the stored values by their keys (spec section 6)."""

from collections.abc import Sequence
from typing import Any

from codec import kernels
from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.matrix import Grid
from codec.statistics.base import Carry, Request, Statistic, Words, same

# What follows the bins in the native statistic: items, the least and the largest key, the OR of all, shift and first.
_BINS = 1 << 16


class Keys(Statistic):
    """``keys``, KeyCounts from the least bin that is used to the last."""

    name = "keys"
    gives = ("keys",)

    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """As items of the element's kind."""
        return (("keys", kernels.kind_code(element.kind), 0),)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same in any segments."""
        return same

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> KeyCounts:
        """Without the bins that no value falls into at either end."""
        found = words.of[self.requests(None, words.element, words.grid)[0]]
        items, least, most, or_of_keys, shift, first = map(int, found[_BINS:])
        if not items:
            return KeyCounts(found[:1], 0, 0, 0)
        begin, end = (least >> shift) - first, (most >> shift) - first + 1
        return KeyCounts(found[begin:end], shift, first + begin, or_of_keys)
