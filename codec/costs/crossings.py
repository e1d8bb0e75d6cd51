"""Where functions of the sparsity cross: pairs of them, and the lower envelope of many.

Crossings are bracketed on a list of sparsities and then narrowed down by halving; two crossings between the same two
neighbours of the list are missed.
"""

import itertools
from collections.abc import Callable, Sequence
from math import isclose

import numpy as np

Cost = Callable[[float], float]  # sparsity -> bytes, bits, seconds or joules

# Sparsities at which closed forms are compared, close together near 0 and near 1.
FINE = np.unique(
    np.concatenate(
        [[0.0], np.geomspace(1e-10, 0.01, 33), np.linspace(0.01, 0.99, 99), 1 - np.geomspace(0.01, 1e-7, 21), [1.0]]
    )
)
# Sparsities at which costs that take longer to work out are compared.
COARSE = np.concatenate(
    [[0.0, 1e-4, 1e-3, 0.01], np.linspace(0.05, 0.95, 10), [0.98, 0.99, 0.999, 0.9999, 0.99999, 1.0]]
)
# Two crossings closer than this are a touch: neither function gets ahead of the other between them.
_TOUCH = 1e-7
# Costs that differ by less than this share are the same, worked out in another order.
_ROUNDING = 1e-12


def crossings(one: Cost, two: Cost, points: np.ndarray, tolerance: float) -> list[tuple[float, float]]:
    """Brackets (below, above) of each crossing between neighbouring points, narrowed down to ``tolerance``."""

    def smaller(s: float) -> bool:
        a, b = one(s), two(s)
        return a < b and not isclose(a, b, rel_tol=_ROUNDING)

    states = [smaller(float(s)) for s in points]
    found = []
    for at in np.flatnonzero(np.diff(states)):
        low, high, state = float(points[at]), float(points[at + 1]), states[at]
        while high - low > tolerance and low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if smaller(middle) == state else (low, middle)
        found.append((low, high))
    return found


def without_touches(found: Sequence[float]) -> tuple[float, ...]:
    """Crossings, rounded to 12 digits, without pairs that are a touch."""
    kept: list[float] = []
    for at in found:
        if kept and at - kept[-1] < _TOUCH:
            kept.pop()
        else:
            kept.append(float(f"{at:.12g}"))
    return tuple(kept)


def envelope(costs: Sequence[Cost], points: np.ndarray, tolerance: float = 1e-5) -> list[tuple[float, int]]:
    """The lower envelope of several functions.

    Parameters
    ----------
    costs : sequence of functions
        Costs over the sparsity.
    points : ndarray
        Sparsities to compare at, ascending.
    tolerance : float
        How far a change may be off.

    Returns
    -------
    list of (float, int)
        A sparsity, and the number of the smallest cost from there on; of equal costs the first.

    Examples
    --------
    >>> [(round(s, 2), number) for s, number in envelope([lambda s: 1.0, lambda s: 1.5 - s], np.linspace(0, 1, 5))]
    [(0.0, 0), (0.5, 1)]
    """

    def smallest(s: float) -> int:
        return min(range(len(costs)), key=lambda i: costs[i](s))

    found = [(float(points[0]), smallest(float(points[0])))]
    for left, right in itertools.pairwise(points):
        start, end = float(left), float(right)
        after = smallest(end)
        while found[-1][1] != after:  # there may be more than one change between two points
            last, next_, high = found[-1][1], after, end
            while True:  # until no third cost is the smallest where `next_` takes over from `last`
                low = start
                while high - low > tolerance:
                    middle = (low + high) / 2
                    ahead = (costs[next_](middle), next_) < (costs[last](middle), last)
                    low, high = (low, middle) if ahead else (middle, high)
                if (first := smallest(high)) in (next_, last):
                    break
                next_ = first
            found.append((high, next_))
            start = high
    return found
