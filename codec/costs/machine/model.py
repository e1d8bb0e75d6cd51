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

# Products take columns of x in strips of so many, and of what is left in strips of fewer, by quarters of a register
# (native/product/strips.inc): batches at which the time of any follows. The last is twice the widest strip.
STRIP, QUARTER = 32, 4
BATCHES = (1, 2, *range(QUARTER, STRIP + 1, QUARTER), 2 * STRIP)
# Columns of the square matrix and of the wide one that are measured.
NEAR, FAR = 1024, 4096
_MOST_SPREAD = 2.0
# Elements of the matrices with which dense libraries are measured, and the columns whose multiples are measured apart.
SIZES, ALIGNMENT = (1 << 15, 1 << 17, 1 << 19, 1 << 20, 1 << 21, 3 << 20), 1024
# Multiply-adds up to which OpenBLAS takes kernels for small matrices, up to three times as fast: both sides of it are
# measured with every batch.
_SMALL, _SIDES = 1_000_000, (0.9, 1.1)


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
        """Of one call of a dense library, from the cache: between measured sizes by their logarithm."""
        costs = []
        for column, measured in enumerate(BATCHES):
            points = [log(size) for size in sizes(measured)]
            at = log(max(1.0, rows * cols * min(1.0, batch / measured)))  # as many multiply-adds as that batch takes
            at = min(max(at, points[0]), points[-1])
            costs.append(along(at, points, [of_size[column] for of_size in self.element]))
        return by(batch, self.fixed) + rows * cols * max(0.0, by(batch, costs))

    def seconds(self, rows: int, cols: int, density: float, batch: int, densities: Sequence[float]) -> float:
        """Of one call, from the cache."""
        element = max(0.0, along(density, densities, [by(batch, one) for one in self.element]))
        element += spread(cols) * density * max(0.0, by(batch, self.far))
        lines = rows * max(0.0, by(batch, self.row)) + cols * max(0.0, by(batch, self.col))
        return by(batch, self.fixed) + lines + rows * cols * element


@cache
def sizes(batch: int) -> tuple[int, ...]:
    """The elements of the matrices that are multiplied with so many columns by dense libraries.

    >>> sizes(2)
    (32768, 131072, 450000, 524288, 550000, 1048576, 2097152, 3145728)
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


def spread(cols: int) -> float:
    """How much of what ``far`` says a matrix of so many columns costs: nothing up to ``NEAR``, all at ``FAR``.

    >>> spread(64), spread(1024), spread(2048), spread(4096)
    (0.0, 0.0, 0.5, 1.0)
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
