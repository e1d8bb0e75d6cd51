"""What a statistic is: what it asks of the kernels, how its words are read, and what independent zeros come to."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.matrix import Grid

# A native statistic: its name and two arguments (native/stats/).
Request = tuple[str, int, int]
# Makes words for one cut of a matrix of those for another.
Carry = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Need:
    """A statistic that somebody looks at: its name, and its argument where it has one.

    >>> sorted({Need("gaps"), Need("blocks", (4, 4)), Need("gaps")}, key=repr)
    [Need(name='blocks', argument=(4, 4)), Need(name='gaps', argument=None)]
    """

    name: str
    argument: Hashable = None


@dataclass(frozen=True)
class Words:
    """What the kernels counted: the words of each request, for a matrix of elements in segments."""

    grid: Grid
    element: ElementType
    of: Mapping[Request, np.ndarray]

    def by_segment(self, words: np.ndarray, least: int) -> np.ndarray:
        """Words of which each segment has as many, and at least so many: a row for each segment."""
        segments = self.grid.segments
        return words.reshape(segments, len(words) // segments if segments else least)


class Statistic(ABC):
    """One statistic. Instances have no state.

    Attributes
    ----------
    name : str
        What a Need calls it.
    gives : tuple of str
        The attributes of Counts that it fills in.
    """

    name: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]

    @abstractmethod
    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """What the kernels have to count for a need with this argument."""

    @abstractmethod
    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> Any:
        """An attribute from what was counted, for all arguments that were asked for."""

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """How words for ``known``, another cut of the matrix, become those for ``grid``; None if they do not tell."""
        return None

    def expected(self, attribute: str, grid: Grid, nnz: int) -> Any:
        """The same for ``nnz`` entries of which each place is as likely; None where that does not tell.

        What adds up in expectation is rounded so that it still adds up.
        """
        return None


class Plain(Statistic):
    """A statistic without argument whose one attribute is its words as they are."""

    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """The native statistic of the same name."""
        return ((self.name, 0, 0),)

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> Any:
        """The words."""
        return words.of[self.name, 0, 0]


def same(words: np.ndarray) -> np.ndarray:
    """Words that are the same for both cuts."""
    return words


def whole_rows(*grids: Grid) -> bool:
    """Whether the segments of all these cuts are whole rows."""
    return all(grid.across == 1 for grid in grids)


def united(known: Grid, grid: Grid) -> int:
    """How many segments of ``known`` make up one of ``grid``; 0 where some of them lie in two."""
    if not whole_rows(known, grid):
        return 0
    if grid.segments == 1:
        return known.segments
    return 0 if grid.segment_rows % known.segment_rows else grid.segment_rows // known.segment_rows


def added_up(many: int, columns: int = 1) -> Carry:
    """Adds up the words of ``many`` segments each, of which every segment has so many."""

    def carry(words: np.ndarray) -> np.ndarray:
        rows = words.reshape(-1, columns)
        sums: np.ndarray = np.add.reduceat(rows, np.arange(0, len(rows), many), axis=0)
        return sums.reshape(-1)

    return carry


def over_segments(grid: Grid, value: Callable[[int, int], Any]) -> np.ndarray:
    """value(rows, cols) for each segment, from its distinct extents: a row of numbers, or a number, for each."""
    rows, cols = extents(grid.rows, grid.segment_rows), extents(grid.cols, grid.segment_cols)
    known = np.array([[value(h, w) for w, _ in cols] for h, _ in rows])
    down, across = (np.repeat(np.arange(len(one)), [n for _, n in one]) for one in (rows, cols))
    found: np.ndarray = known[down[:, None], across[None, :]]
    return found.reshape(grid.segments, *known.shape[2:])


def extents(total: int, step: int) -> list[tuple[int, int]]:
    """(extent, how many) of the pieces that a length is cut into: whole ones, and a rest."""
    whole, rest = divmod(total, step)
    return [(extent, n) for extent, n in ((step, whole), (rest, int(rest > 0))) if n]
