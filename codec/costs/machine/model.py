"""The model of a machine's times: what one kernel row costs for each call, row, element and non-zero.

A product with a matrix of ``size`` elements, of which the share d is stored, and a batch of b columns takes

    fixed + rows * row(b) + cols * col(b) + size * (element(d, b) + d * b * far)

seconds from the cache, where ``element`` is interpolated between measured densities and batches: its slope over d is
the cost of a non-zero, its value at d = 0 that of an element, the panels' costs in both; ``far`` is what a non-zero
costs more for each column where x does not fit into the nearer cache. From memory it takes at least the time to read
its bytes. Nothing here knows a kernel: measuring again is all it takes when kernels change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

# How sharply the greater of two times hides the lesser: 1 would add them up, infinity take the maximum.
_OVERLAP = 6.0
# Bytes of x: as many as in the measured square matrix with the largest batch, and as in the wide one.
NEAR, FAR = 256 << 10, 2 << 20
LANES = 8  # columns of x that fill a register


@dataclass(frozen=True)
class Row:
    """What one layout with one dtype costs, in seconds.

    Attributes
    ----------
    layout, params, dtype
        What was measured; a dense library's row has its name as ``layout``.
    fixed : float
        Of a call.
    row : tuple of float
        Of a matrix row, by batch.
    element : tuple of tuple of float
        Of a matrix element, by density and batch.
    far : float
        Of a non-zero and column, where x takes ``FAR`` bytes or more; none where it takes ``NEAR`` or less.
    """

    layout: str
    params: Mapping[str, Any]
    dtype: str
    fixed: float
    row: tuple[float, ...]
    element: tuple[tuple[float, ...], ...]
    far: float = 0.0

    def seconds(
        self, rows: int, cols: int, density: float, batch: int, densities: Sequence[float], batches: Sequence[int]
    ) -> float:
        """Of one call, from the cache."""
        element = max(0.0, along(density, densities, [by(batch, batches, one) for one in self.element]))
        share = min(1.0, max(0.0, log(max(1, 4 * cols * batch) / NEAR) / log(FAR / NEAR)))
        element += share * density * batch * self.far
        return self.fixed + rows * max(0.0, by(batch, batches, self.row)) + rows * cols * element


def by(batch: int, batches: Sequence[int], values: Sequence[float]) -> float:
    """A cost by batch: between measured ones linearly, and beyond the largest in proportion.

    Batches that fill whole registers of ``LANES`` columns, and those that leave a part of one, are measured apart: the
    rest is often the dearest part of a product.

    >>> by(3, [1, 2, 4], [1.0, 2.0, 4.0]), by(24, [8, 9, 16], [3.0, 9.0, 4.0]), by(18, [8, 9, 16], [3.0, 9.0, 4.0])
    (3.0, 6.0, 18.0)
    """
    alike = list(range(len(batches)))
    if batch > LANES and any(b > LANES for b in batches):
        same = [i for i, b in enumerate(batches) if b >= LANES and (b % LANES == 0) == (batch % LANES == 0)]
        alike = same or alike
    points = [batches[i] for i in alike]
    last = points[-1]
    return along(min(batch, last), points, [values[i] for i in alike]) * max(1.0, batch / last)


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


def together(compute: float, memory: float) -> float:
    """Seconds of work that overlaps with reading its bytes."""
    most = max(compute, memory)
    if most <= 0:
        return 0.0
    return float(most * ((compute / most) ** _OVERLAP + (memory / most) ** _OVERLAP) ** (1 / _OVERLAP))
