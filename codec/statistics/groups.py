"""groups: how many groups of m elements along a row hold so many stored entries; the last of a row may be short."""

from collections.abc import Iterator, Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from codec.dtypes import ElementType
from codec.matrix import Grid
from codec.statistics.base import Carry, Request, Statistic, Words, extents, same, whole_rows

# Sizes that tensor_stats always counts, and that are counted faster than others.
GROUPS = (4, 8, 16)
MOST_GROUP = 64
_ONES = np.bitwise_count(np.arange(256, dtype=np.uint8))


class Groups(Statistic):
    """``groups``, a mapping of m to uint64 (m + 1,); a need's argument is m, 1 to 64."""

    name = "groups"
    gives = ("groups",)

    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """Bytes along rows tell of groups of 4 and 8."""
        return (("row_bytes", 0, 0) if argument in (4, 8) else ("sixteens", 0, 0) if argument == 16 else _of(argument),)

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> Mapping[int, np.ndarray]:
        """By size, ascending."""
        return {m: self._read(m, words) for m in sorted(map(int, arguments))}

    def _read(self, m: int, words: Words) -> np.ndarray:
        if m == 16:
            return words.of["sixteens", 0, 0]
        if m not in (4, 8):
            return words.of[_of(m)]
        row_bytes = words.of["row_bytes", 0, 0].astype(np.float64)
        if m == 8:
            return np.bincount(_ONES, row_bytes, 9).astype(np.uint64)
        out = np.bincount(_ONES[:16], row_bytes.reshape(16, 16).sum(axis=0), 5)
        out += np.bincount(_ONES[:16], row_bytes.reshape(16, 16).sum(axis=1), 5)
        # The last byte of a row may be one group of four only.
        out[0] -= sum(h * n for h, w, n in words.grid.shapes() if 1 <= w % 8 <= 4)
        return out.astype(np.uint64)

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """The same, of whole rows."""
        return same if whole_rows(known, grid) else None

    def expected(self, attribute: str, grid: Grid, nnz: int) -> Mapping[int, np.ndarray]:
        """Of any size."""
        return _ExpectedGroups(grid, nnz / max(1, grid.size))


def _of(m: int) -> Request:
    return "groups", int(m), 0


class _ExpectedGroups(Mapping[int, np.ndarray]):
    def __init__(self, grid: Grid, density: float) -> None:
        self.grid, self.density = grid, density

    def __iter__(self) -> Iterator[int]:
        return iter(GROUPS)

    def __len__(self) -> int:
        return len(GROUPS)

    def __contains__(self, m: object) -> bool:
        return isinstance(m, int)

    def __getitem__(self, m: int) -> np.ndarray:
        out = np.zeros(m + 1)
        for h, w, n in self.grid.shapes():
            for length, across in extents(w, m):
                j = np.arange(length + 1)
                ways = np.array([float(comb(length, k)) for k in range(length + 1)])
                out[: length + 1] += n * h * across * ways * self.density**j * (1 - self.density) ** (length - j)
        least = np.rint(np.append(out[::-1].cumsum()[::-1], 0))  # groups with at least so many
        return np.asarray(least[:-1] - least[1:]).astype(np.uint64)
