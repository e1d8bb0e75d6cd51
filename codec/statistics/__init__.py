"""Statistics: what the sizes of layouts depend on, counted on demand and in one pass. One file, one row in STATISTICS.

A layout says what it needs; `count_all` merges the needs of all layouts in question into one pass over the tensor.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from codec import kernels
from codec.dtypes import ElementType
from codec.errors import ArgumentError
from codec.matrix import Grid
from codec.statistics.base import Need, Request, Statistic, Words, same
from codec.statistics.blocks import BLOCKS
from codec.statistics.counts import STATISTICS, Counts, Expected, Tallied
from codec.statistics.gaps import CODES, RUNS
from codec.statistics.groups import GROUPS, MOST_GROUP
from codec.statistics.panels import PANEL, panel_sizes
from codec.statistics.tensor import TensorStats, check_asked, stats_needs

__all__ = [
    "BLOCKS",
    "CODES",
    "GROUPS",
    "MOST_GROUP",
    "PANEL",
    "RUNS",
    "STATISTICS",
    "Counts",
    "Expected",
    "Need",
    "Run",
    "Statistic",
    "Tallied",
    "TensorStats",
    "check_asked",
    "count",
    "count_all",
    "panel_sizes",
    "stats_needs",
]

# Runs native requests, (name, a, b, words) each, over a tensor in the segments of a grid: the native result, and how
# many elements were -0.0 and are not stored.
Run = Callable[[list[Any], Grid], tuple[tuple[int, int, int, int, int], int]]


def count(run: Run, needs: Iterable[Need], element: ElementType, grid: Grid, known: Iterable[Tallied] = ()) -> Tallied:
    """Count what is needed of a tensor, in one pass; the entries of each segment are always counted.

    Parameters
    ----------
    run : callable
        Runs the requests over the tensor: it has the elements.
    needs : iterable of Need
    element : ElementType
        Of the tensor.
    grid : Grid
        The segments that the counts are for.
    known : iterable of Tallied
        What was counted of the same tensor before, in any segments: what follows from it is not counted again.

    Raises
    ------
    ArgumentError
        For a need that no statistic answers.

    Examples
    --------
    >>> from codec.dtypes import element_type
    >>> data, grid = np.eye(4, dtype=np.uint8).reshape(-1), Grid.default(4, 4)
    >>> def run(requests, grid):
    ...     return kernels.count(data, None, 4, 4, 4, 4, 1, 255, 0, requests, 1)
    >>> found = count(run, [Need("blocks", (2, 2))], element_type("uint8"), grid)
    >>> found.nnz, found.blocks[2, 2], found.rows
    (4, 2, None)
    """
    asked, before = frozenset(needs) | _ALWAYS, tuple(known)
    words: dict[Request, np.ndarray] = {}
    missing: list[Request] = []
    for request, statistic in _requests(asked, element, grid).items():
        carried = _carried(request, statistic, before, grid)
        if carried is None:
            cut = grid.rows, grid.cols, grid.segment_rows, grid.segment_cols
            carried = np.zeros(kernels.statistic_words(*request, *cut), np.uint64)
            missing.append(request)
        words[request] = carried
    if missing:
        result, negative_zeros = run([(*request, words[request]) for request in missing], grid)
        kernels.raise_for(result, [])
    else:
        negative_zeros = before[0].negative_zeros
    return Tallied(Words(grid, element, words), asked, int(words["parts", 0, 0].sum()), negative_zeros)


def count_all(
    run: Run, needs: Mapping[Grid, Iterable[Need]], element: ElementType, known: Iterable[Tallied] = ()
) -> dict[Grid, Tallied]:
    """As `count`, for several cuts of one matrix: those that the first one tells all of take no pass of their own."""
    wanted = {grid: frozenset(one) | _ALWAYS for grid, one in needs.items()}
    first = next(iter(wanted))
    for grid, asked in wanted.items():
        requests = _requests(asked, element, grid)
        if all(statistic.carry(request, first, grid) for request, statistic in requests.items()):
            wanted[first] |= asked
    found: dict[Grid, Tallied] = {}
    for grid, asked in wanted.items():
        found[grid] = count(run, asked, element, grid, (*known, *found.values()))
    return found


_ALWAYS = frozenset({Need("parts")})


@lru_cache(maxsize=256)  # layers of a model share their shapes
def _requests(needs: frozenset[Need], element: ElementType, grid: Grid) -> Mapping[Request, Statistic]:
    """What the kernels have to count, each with a statistic that looks at it."""
    found: dict[Request, Statistic] = {}
    for need in needs:
        if need.name not in STATISTICS:
            raise ArgumentError(f"no statistic {need.name!r}; expected one of {', '.join(STATISTICS)}")
        statistic = STATISTICS[need.name]
        found |= dict.fromkeys(statistic.requests(need.argument, element, grid), statistic)
    return found


def _carried(request: Request, statistic: Statistic, known: tuple[Tallied, ...], grid: Grid) -> np.ndarray | None:
    """The words of a request, where they follow from what is known."""
    for counts in known:
        words = counts.words.of.get(request)
        carry = same if counts.grid == grid else statistic.carry(request, counts.grid, grid)
        if words is not None and carry is not None:
            return carry(words)
    return None
