"""The model of a machine's times: what one kernel row costs for each call, row, column, element and non-zero.

A product with a matrix of ``size`` elements, of which the share d is stored, and a batch of b columns takes

    fixed(b) + rows * row(b) + cols * col(b) + size * (element(d, b) + d * spread(cols) * far(b))

seconds from the cache, where ``element`` is interpolated between measured densities: its slope over d is the cost of a
non-zero, its value at d = 0 that of an element, the panels' costs in both. ``far`` is what a non-zero costs more where
x is wider, and so further away; ``spread`` says how much of that. From memory it takes longer by what reading its bytes
takes longer than from a cache. Nothing here knows a kernel: measuring again is all it takes when kernels change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite, log
from typing import Any

import numpy as np
import numpy.typing as npt

Costs = Sequence[float] | npt.NDArray[np.float64]

# Products take columns of x in strips of so many, and of what is left in strips of fewer, by quarters of a register
# (native/product/strips.inc): batches at which the time of any follows. The last is twice the widest strip.
STRIP, QUARTER = 32, 4
BATCHES = (1, 2, *range(QUARTER, STRIP + 1, QUARTER), 2 * STRIP)
# Those that are measured with every matrix; the others with one, which tells how they lie between these.
ANCHORS = (1, 2, QUARTER, 2 * QUARTER, STRIP // 2, STRIP, 2 * STRIP)
# Columns of the square matrix and of the wide one that are measured.
NEAR, FAR = 512, 4096
_MOST_SPREAD = 1.5
# Elements of the matrices with which dense libraries are measured, and the columns whose multiples are measured apart.
SIZES, ALIGNMENT = (1 << 15, 1 << 17, 1 << 19, 1 << 20, 3 << 20), 1024
# Multiply-adds up to which OpenBLAS takes kernels for small matrices, up to three times as fast: both sides of it are
# measured with every batch.
_SMALL, _SIDES = 1_000_000, (0.99, 1.01)


@dataclass(frozen=True)
class Row:
    """What one layout with one dtype costs, in seconds.

    Attributes
    ----------
    layout, params, dtype
        What was measured; a dense library's row has its name as ``layout``.
    fixed : tuple of float
        Of a call, by batch.
    row, col : tuple of float
        Of a row and of a column of the matrix, by batch.
    element : tuple of tuple of float
        Of a matrix element, by density and batch; of a dense library by ``sizes`` and batch.
    far : tuple of float
        Of a non-zero, by batch: how much more it costs in a matrix of ``FAR`` columns than in one of ``NEAR``.
    """

    layout: str
    params: Mapping[str, Any]
    dtype: str
    fixed: tuple[float, ...]
    row: tuple[float, ...]
    col: tuple[float, ...]
    element: tuple[tuple[float, ...], ...]
    far: tuple[float, ...]

    def library_seconds(self, rows: int, cols: int, batch: int) -> float:
        """Of one call of a dense library, from the cache: times lie on lines between those of measured sizes."""
        costs = []
        for column, measured in enumerate(BATCHES):
            at = max(1.0, rows * cols * min(1.0, batch / measured))  # as many multiply-adds as that batch takes
            points = sizes(measured)
            times = [size * of_size[column] for size, of_size in zip(points, self.element, strict=True)]
            costs.append(along(at, (0, *points), (0.0, *times)) / at)
        return by(batch, self.fixed) + rows * cols * max(0.0, by(batch, costs))

    def seconds(self, rows: int, cols: int, density: float, batch: int, densities: Sequence[float]) -> float:
        """Of one call, from the cache."""
        element = along(density, densities, [by(batch, one) for one in self.element])
        element = max(0.0, element + spread(cols) * density * max(0.0, by(batch, self.far)))
        lines = rows * max(0.0, by(batch, self.row)) + cols * max(0.0, by(batch, self.col))
        return by(batch, self.fixed) + lines + rows * cols * element


@cache
def sizes(batch: int) -> tuple[int, ...]:
    """The elements of the matrices that are multiplied with so many columns by dense libraries.

    >>> sizes(2)
    (32768, 131072, 495000, 505000, 524288, 1048576, 3145728)
    """
    return tuple(sorted((*SIZES, *(int(side * _SMALL / batch) for side in _SIDES))))


def by(batch: int, values: Sequence[float]) -> float:
    """A cost by batch, from those of ``BATCHES``; one value alone is that of every batch.

    Every strip beyond the first costs what the second one did.

    >>> cost = [1.0 * b for b in BATCHES]
    >>> by(2, cost), by(3, cost), by(64, cost), by(128, cost), by(75, cost)
    (2.0, 4.0, 64.0, 128.0, 76.0)
    """
    if len(values) == 1:
        return values[0]
    if batch <= 2:
        return values[batch - 1]
    strips, rest = divmod(batch - 1, STRIP)  # the last strip holds 1 to STRIP columns
    return values[1 + rest // QUARTER + 1] + strips * (values[-1] - values[-2])


def anchor_above(batch: int) -> int:
    """The least of ANCHORS that is no less than a batch of BATCHES."""
    return next(anchor for anchor in ANCHORS if anchor >= batch)


def between(costs: Costs, pattern: Costs | None = None) -> tuple[float, ...]:
    """Costs for all BATCHES from those for ANCHORS.

    The others are to the next anchor above as in ``pattern``, costs for all BATCHES of another matrix; without one,
    they lie on a line between their neighbours.

    >>> line = between([1.0 * b for b in ANCHORS])
    >>> line == tuple(map(float, BATCHES)), between([10.0] * len(ANCHORS), line)[BATCHES.index(24)]
    (True, 7.5)
    """
    found = np.interp(BATCHES, ANCHORS, costs)
    if pattern is not None:
        for i, batch in enumerate(BATCHES):
            above = BATCHES.index(anchor_above(batch))
            if pattern[above] > 0:
                found[i] = found[above] * pattern[i] / pattern[above]
    return tuple(map(float, found))


def spread(cols: int) -> float:
    """How much of what ``far`` says a matrix of so many columns costs: nothing up to ``NEAR``, all at ``FAR``.

    >>> spread(64), spread(512), spread(4096)
    (0.0, 0.0, 1.0)
    """
    return min(_MOST_SPREAD, max(0.0, log(max(1, cols) / NEAR) / log(FAR / NEAR)))


def along(at: float, points: Sequence[float], values: Sequence[float]) -> float:
    """A value between measured points, linearly; beyond them along the last two.

    >>> along(3, [1, 2, 4], [1.0, 2.0, 4.0]), along(8, [1, 2, 4], [1.0, 2.0, 4.0])
    (3.0, 8.0)
    """
    if len(points) == 1:
        return values[0]
    right = min(max(1, int(np.searchsorted(points, at))), len(points) - 1)
    low, high = points[right - 1], points[right]
    share = (at - low) / (high - low)
    return values[right - 1] + share * (values[right] - values[right - 1])


def rate(nbytes: float, curve: Sequence[tuple[float, float]]) -> float:
    """Bytes in a second when so many are read again and again: between measured sizes, by their logarithm."""
    sizes = [log(size) for size, _ in curve]
    at = min(max(log(max(1.0, nbytes)), sizes[0]), sizes[-1])
    return along(at, sizes, [speed for _, speed in curve])


def row_of(found: Any) -> Row:
    """A row from JSON; ValueError, TypeError or KeyError for what is none."""
    costs = {key: tuples(found[key]) for key in ("fixed", "row", "col", "element", "far")}
    return Row(str(found["layout"]), dict(found["params"]), str(found["dtype"]), **costs)


def tuples(found: Any) -> Any:
    """Nested lists of finite numbers as tuples."""
    if isinstance(found, list):
        return tuple(map(tuples, found))
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise ValueError(f"{found!r} where a number was expected")
    return found
