"""From which sparsity on a layout pays: its size against another's, over the share of independent zeros."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log, log1p, log2
from typing import Any

import numpy as np

from codec.choose import encoded_nbytes
from codec.dtypes import ElementType, element_type
from codec.errors import ArgumentError
from codec.geometry import Grid, check_row_dims, matrix_shape
from codec.layouts import LAYOUTS, layout_named

# What no coder of independent zeros can beat: H2(s) bits for where, b for each value. Closed form only.
BOUND = "entropy_bound"
# Where closed forms are compared: close together where zeros are few, and where entries are. What changes places twice
# between two of these is missed.
GRID = np.unique(
    np.concatenate(
        [[0.0], np.geomspace(1e-10, 0.01, 33), np.linspace(0.01, 0.99, 99), 1 - np.geomspace(0.01, 1e-7, 21), [1.0]]
    )
)
# Where frames are, beside the crossings of their closed forms and a little to either side of those.
COARSE = np.concatenate(
    [[0.0, 1e-4, 1e-3, 0.01], np.linspace(0.05, 0.95, 10), [0.98, 0.99, 0.999, 0.9999, 0.99999, 1.0]]
)
ASIDE = 0.004
_TOUCH = 1e-7

Size = Callable[[float], float]


@dataclass(frozen=True)
class BreakEven:
    """Where a layout and another change places.

    Attributes
    ----------
    sparsity : float or None
        The first share of zeros from which the layout is the smaller: 0.0 if it always was, None if it never is.
    crossings : tuple of float
        All shares at which the order changes, ascending: a relative index may stop paying again where zeros are many.
    """

    sparsity: float | None
    crossings: tuple[float, ...]
    _size: Size
    _against: Size

    def curve(self, sparsities: Sequence[float] | None = None) -> np.ndarray:
        """(sparsity, size, size of the other) by rows: bytes with headers, bits per element without."""
        points = np.linspace(0, 1, 101) if sparsities is None else np.asarray(sparsities, np.float64)
        return np.array([(s, self._size(float(s)), self._against(float(s))) for s in points])

    def pays(self, sparsity: float) -> bool:
        """Whether the layout is the smaller at this share of zeros."""
        return self._size(sparsity) < self._against(sparsity)


def break_even(
    layout: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    against: Any = "dense",
    headers: bool = True,
    metric: str = "bytes",
    batch: int = 1,
    machine: Any = None,
    value_bits: float | None = None,
    row_dims: int | None = None,
    tolerance: float | None = None,
    **params: Any,
) -> BreakEven:
    """From which share of independent zeros on a layout is smaller than another.

    Parameters
    ----------
    layout : str
        A layout's name (parameters of its own follow by keyword), or "entropy_bound" with ``headers=False``.
    shape, dtype
        Of the tensor.
    against : str or (str, dict)
        The layout to compare with, and its parameters.
    headers : bool
        True: bytes of the whole frame, expected, by the code that sizes frames exactly. False: the closed forms of the
        literature in bits per element, without headers, segments and restarts; pointers to rows are counted.
    metric : {"bytes"}
        What is compared.
    batch, machine
        Of other metrics than bytes, which come with measured machine profiles.
    value_bits : float, optional
        With ``headers=False``: bits of a value, by default those of the dtype; 4 for a codebook of 16.
    row_dims : int, optional
        As in ``encode``.
    tolerance : float, optional
        With ``headers=True``: how far a crossing may be off; by default half an element.

    Raises
    ------
    ArgumentError
        For a name or parameter that is none, and for metrics other than bytes.

    Examples
    --------
    >>> break_even("bitmap", (4096, 4096), "float16", headers=False).sparsity
    0.0625
    >>> [round(s, 4) for s in break_even("csr", (4096, 4096), "float32", against="bitmap").crossings]
    [0.938]
    """
    if metric != "bytes":
        known = ("matvec", "matmul", "decode", "energy")
        later = "; it comes with measured machine profiles" if metric in known else ""
        raise ArgumentError(f'metric={metric!r}; expected "bytes"{later}')
    if batch != 1 or machine is not None:
        raise ArgumentError('batch= and machine= belong to metrics of time and energy; metric="bytes" has neither')
    if value_bits is not None and headers:
        raise ArgumentError("value_bits= needs headers=False: a frame stores values as wide as their dtype")
    other, other_params = against if isinstance(against, tuple | list) and len(against) == 2 else (against, {})
    if not isinstance(other_params, Mapping):
        raise ArgumentError(f"against={against!r}; expected a layout's name, or (name, parameters)")
    if headers and BOUND in (layout, other):
        raise ArgumentError(f'"{BOUND}" needs headers=False: nothing writes it')
    element, dims = element_type(dtype), check_row_dims(tuple(shape), row_dims)
    pair = ((layout, params), (other, dict(other_params)))
    width = 8.0 * element.width if value_bits is None else float(value_bits)
    rows, cols = matrix_shape(tuple(shape), dims)
    if not headers:
        one, two = (_ideal(name, rows, cols, element, width, given) for name, given in pair)
        left, right = (_ideal(name, rows, cols, element, width, given, less=width) for name, given in pair)
        return _found(one, two, [low for low, _ in _changes(left, right, GRID, 0.0)])
    one, two = (frame_bytes(name, shape, element, dims, given) for name, given in pair)
    near = 0.5 / max(1, rows * cols) if tolerance is None else tolerance
    return _found(one, two, [high for _, high in _frame_changes(pair, one, two, rows, cols, element, near)])


def _found(one: Size, two: Size, changes: list[float]) -> BreakEven:
    kept: list[float] = []
    for at in changes:
        if kept and at - kept[-1] < _TOUCH:  # the two touch, and neither gets ahead
            kept.pop()
        else:
            kept.append(float(f"{at:.12g}"))
    crossings = tuple(kept)
    return BreakEven(0.0 if one(0.0) < two(0.0) else crossings[0] if crossings else None, crossings, one, two)


def _changes(one: Size, two: Size, points: np.ndarray, tolerance: float) -> list[tuple[float, float]]:
    """Every change of order between neighbouring points, narrowed down by halving: the shares before and after it."""

    def smaller(s: float) -> bool:
        return one(s) < two(s)

    states = [smaller(float(s)) for s in points]
    changes = []
    for at in np.flatnonzero(np.diff(states)):
        low, high, state = float(points[at]), float(points[at + 1]), states[at]
        while high - low > tolerance and low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if smaller(middle) == state else (low, middle)
        changes.append((low, high))
    return changes


def _frame_changes(
    pair: Any, one: Size, two: Size, rows: int, cols: int, element: ElementType, tolerance: float
) -> list[tuple[float, float]]:
    """The same for frames, which take longer to size: around where their closed forms change places, and elsewhere."""
    left, right = (_ideal(name, rows, cols, element, 8.0 * element.width, given) for name, given in pair)
    slow = any(layout_named(name).entropy_coded for name, _ in pair)
    near = [
        low + aside for low, _ in _changes(left, right, COARSE if slow else GRID, 1e-6) for aside in (-ASIDE, 0, ASIDE)
    ]
    return _changes(one, two, np.unique(np.clip(np.concatenate([COARSE, near]), 0, 1)), tolerance)


def entropy_bound(sparsity: float, value_bits: float) -> float:
    """Bits per element: the entropy of where independent zeros are, and the values."""
    return _entropy(sparsity) + (1 - sparsity) * value_bits


def _entropy(s: float) -> float:
    return -(s * log2(s) if s > 0 else 0) - ((1 - s) * log1p(-s) / log(2) if s < 1 else 0)


def _ideal(
    name: str, rows: int, cols: int, element: ElementType, bits: float, given: dict[str, Any], less: float = 0.0
) -> Size:
    """Bits per element, less so many: where little can be listed, differences would be lost beside whole values."""
    if name == BOUND:
        if given:
            raise ArgumentError(f'parameter {next(iter(given))!r}: "{BOUND}" has none')
        return lambda s: _entropy(s) - s * bits + (bits - less)
    layout = layout_named(name)
    grid = Grid.default(rows, cols, element.width)
    try:
        params = layout.params(given, grid)
    except ArgumentError:
        # An index too narrow for this matrix, as in tiles of it: the closed form knows no tiles.
        layout.params(given, Grid(1, 1, 1, 1))
        params = {**layout.params({}, grid), **given}
    pointers = layout.pointer_bits(rows, cols, params) if rows * cols else 0.0
    return lambda s: layout.ideal_bits(s, bits, params) + pointers - less


def frame_bytes(name: str, shape: Any, element: ElementType, row_dims: int | None, params: Mapping[str, Any]) -> Size:
    """The expected size of a frame as a function of the share of zeros."""
    layout_named(name)
    shape, given = tuple(shape), tuple(params.items())
    return lambda sparsity: _bytes_of(name, shape, element, row_dims, given, sparsity)


@lru_cache(maxsize=1 << 14)
def _bytes_of(
    name: str,
    shape: tuple[int, ...],
    element: ElementType,
    row_dims: int | None,
    given: tuple[tuple[str, Any], ...],
    sparsity: float,
) -> int:
    return encoded_nbytes(name, shape, element.dtype, sparsity=sparsity, row_dims=row_dims, **dict(given))


def weighed() -> list[tuple[str, dict[str, Any]]]:
    """Every layout with every parameter set among which "auto" looks for the smallest; dense goes first.

    A layout whose sets depend on the tensor counts with its defaults.
    """
    return [(layout.name, dict(params)) for layout in LAYOUTS.values() for params in layout.candidates or ({},)]


def envelope(sizes: Sequence[Size], points: np.ndarray, tolerance: float = 1e-5) -> list[tuple[float, int]]:
    """(share of zeros, which is the smallest from there on) for the lower envelope of sizes; ties go to the first."""

    def smallest(s: float) -> int:
        return min(range(len(sizes)), key=lambda i: sizes[i](s))

    found = [(float(points[0]), smallest(float(points[0])))]
    for left, right in itertools.pairwise(points):
        start, end = float(left), float(right)
        after = smallest(end)
        while found[-1][1] != after:  # what comes between two points may be more than one change
            last, next_, high = found[-1][1], after, end
            while True:  # until none gets ahead of the last one before the next does
                low = start
                while high - low > tolerance:
                    middle = (low + high) / 2
                    ahead = (sizes[next_](middle), next_) < (sizes[last](middle), last)
                    low, high = (low, middle) if ahead else (middle, high)
                if (first := smallest(high)) in (next_, last):
                    break
                next_ = first
            found.append((high, next_))
            start = high
    return found
