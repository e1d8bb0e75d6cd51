"""From which sparsity on a layout takes fewer bytes than another, where each element is a zero with the same chance.

Sizes are functions of the sparsity: either the expected bytes of a whole frame, by the code that sizes frames exactly,
or the closed forms of the literature, in bits per element. Crossings of two such functions are bracketed on a list of
sparsities and then narrowed down by halving.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log, log1p, log2
from typing import Any

import numpy as np

from codec.dtypes import ElementType, element_type
from codec.encoding.choose import plan_of
from codec.encoding.request import EncodeRequest
from codec.encoding.sizes import CountedSource, encoded_nbytes
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS, make_layout
from codec.matrix import TensorSpec, check_row_dims, check_shape

# No code of independent zeros takes fewer bits: H2(s) for the positions, and the values. A closed form only.
BOUND = "entropy_bound"
# Sparsities at which closed forms are compared, close together near 0 and near 1. Two crossings between the same two
# neighbours are missed.
FINE = np.unique(
    np.concatenate(
        [[0.0], np.geomspace(1e-10, 0.01, 33), np.linspace(0.01, 0.99, 99), 1 - np.geomspace(0.01, 1e-7, 21), [1.0]]
    )
)
# Sparsities at which frames are compared, because a frame takes longer to size; the crossings of their closed forms are
# added, and points this much to either side of them.
COARSE = np.concatenate(
    [[0.0, 1e-4, 1e-3, 0.01], np.linspace(0.05, 0.95, 10), [0.98, 0.99, 0.999, 0.9999, 0.99999, 1.0]]
)
_ASIDE = 0.004
# Two crossings closer than this are a touch: neither layout gets ahead of the other between them.
_TOUCH = 1e-7

Size = Callable[[float], float]


@dataclass(frozen=True)
class BreakEven:
    """Where the sizes of two layouts cross.

    Attributes
    ----------
    sparsity : float or None
        The lowest sparsity from which on the layout takes fewer bytes: 0.0 if it does so without any zeros, None if it
        never does.
    crossings : tuple of float
        All sparsities at which the order of the two changes, ascending. There may be more than one: a relative index
        takes more than a bitmap again where nearly all elements are zeros.

    Examples
    --------
    >>> found = break_even("bitmap", (4096, 4096), "float16", headers=False)
    >>> found.sparsity, found.crossings, found.pays(0.5)
    (0.0625, (0.0625,), True)
    """

    sparsity: float | None
    crossings: tuple[float, ...]
    _size: Size
    _against: Size

    def curve(self, sparsities: Sequence[float] | None = None) -> np.ndarray:
        """Both sizes over the sparsity.

        Parameters
        ----------
        sparsities : sequence of float, optional
            Where to evaluate, each from 0 to 1; by default 0, 0.01, ..., 1.

        Returns
        -------
        ndarray of float64, (points, 3)
            Sparsity, size, and size of the other layout: bytes with headers, bits per element without.

        Examples
        --------
        >>> break_even("bitmap", (4096, 4096), "float16", headers=False).curve([0.5])
        array([[ 0.5,  9. , 16. ]])
        """
        points = np.linspace(0, 1, 101) if sparsities is None else np.asarray(sparsities, np.float64)
        return np.array([(s, self._size(float(s)), self._against(float(s))) for s in points])

    def pays(self, sparsity: float) -> bool:
        """Whether the layout takes fewer bytes than the other at this sparsity."""
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
    """From which sparsity on a layout takes fewer bytes than another, for independent zeros.

    Neither size has an entropy stage, as only the values of a real tensor tell what that saves.

    Parameters
    ----------
    layout : str
        A layout's name, with its parameters as keywords (``params``); or "entropy_bound" with ``headers=False``.
    shape, dtype
        The shape and the dtype of the tensor.
    against : str or (str, dict)
        The layout to compare with; its parameters in the dict.
    headers : bool
        True: the expected bytes of the whole frame. False: the closed forms of the literature, in bits per element;
        they count pointers to rows, but no headers, segments or row restarts.
    metric : {"bytes"}
        What is compared.
    batch, machine
        For metrics other than bytes, which come with measured machine profiles.
    value_bits : float, optional
        With ``headers=False``: the bits of a value, by default those of the dtype; 4 for a codebook of 16 entries.
    row_dims : int, optional
        How many leading dimensions are the rows of the matrix, as in ``encode``.
    tolerance : float, optional
        With ``headers=True``: how far a crossing may be off; by default the share of half an element.

    Returns
    -------
    BreakEven
        ``sparsity``, the first crossing, and ``crossings``, all of them.

    Raises
    ------
    ArgumentError
        For a layout, parameter, shape or dtype that does not exist, and for metrics other than bytes.

    Examples
    --------
    >>> break_even("bitmap", (4096, 4096), "float16", headers=False).sparsity
    0.0625
    >>> [round(s, 4) for s in break_even("csr", (4096, 4096), "float32", against="bitmap").crossings]
    [0.9381]
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
        raise ArgumentError(f'"{BOUND}" needs headers=False: no frame reaches it')
    element = element_type(dtype)
    sizes = check_shape(shape, element)
    dims = check_row_dims(sizes, row_dims)
    one, two = (
        _Contender(name, dict(given), sizes, dims, element) for name, given in ((layout, params), (other, other_params))
    )
    if headers:
        elements = max(1, int(np.prod(sizes, dtype=object)))
        near = 0.5 / elements if tolerance is None else tolerance
        return _found(one.frame(), two.frame(), [high for _, high in _frame_crossings(one, two, near)])
    width = 8.0 * element.width if value_bits is None else float(value_bits)
    crossings = _crossings(one.closed_form(width, less=width), two.closed_form(width, less=width), FINE, 0.0)
    return _found(one.closed_form(width), two.closed_form(width), [low for low, _ in crossings])


@dataclass(frozen=True)
class _Contender:
    """A layout with its parameters for one tensor, and its two sizes over the sparsity."""

    name: str
    params: dict[str, Any]
    shape: tuple[int, ...]
    row_dims: int
    element: ElementType

    def frame(self) -> Size:
        """Expected bytes of a frame."""
        return frame_bytes(self.name, self.shape, self.element, self.row_dims, self.params)

    def closed_form(self, bits: float, less: float = 0.0) -> Size:
        """Closed-form bits per element for values of ``bits`` bits, minus the constant ``less``.

        Subtracting the value width first avoids cancellation where two layouts differ only slightly.
        """
        if self.name == BOUND:
            if self.params:
                raise ArgumentError(f'parameter {next(iter(self.params))!r}: "{BOUND}" has none')
            return lambda s: _entropy(s) - s * bits + (bits - less)
        layout = make_layout(self.name, self.params)
        spec = TensorSpec.of(self.element.dtype, self.shape, row_dims=self.row_dims)
        with suppress(ArgumentError):  # an index that is too narrow for a whole row: one of tiles, as in the literature
            layout = layout.fit(spec)
        pointers = layout.pointer_bits(spec.grid.rows, spec.grid.cols) if spec.grid.size else 0.0
        return lambda s: layout.ideal_bits(s, bits) + pointers - less


def _found(one: Size, two: Size, crossings: list[float]) -> BreakEven:
    kept: list[float] = []
    for at in crossings:
        if kept and at - kept[-1] < _TOUCH:
            kept.pop()
        else:
            kept.append(float(f"{at:.12g}"))
    first = 0.0 if one(0.0) < two(0.0) else kept[0] if kept else None
    return BreakEven(first, tuple(kept), one, two)


def _crossings(one: Size, two: Size, points: np.ndarray, tolerance: float) -> list[tuple[float, float]]:
    """Brackets (below, above) of each crossing between neighbouring points, narrowed down to ``tolerance``."""

    def smaller(s: float) -> bool:
        return one(s) < two(s)

    states = [smaller(float(s)) for s in points]
    found = []
    for at in np.flatnonzero(np.diff(states)):
        low, high, state = float(points[at]), float(points[at + 1]), states[at]
        while high - low > tolerance and low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if smaller(middle) == state else (low, middle)
        found.append((low, high))
    return found


def _frame_crossings(one: _Contender, two: _Contender, tolerance: float) -> list[tuple[float, float]]:
    """The same for frames: looked for around the crossings of their closed forms, and coarsely elsewhere."""
    bits = 8.0 * one.element.width
    slow = any(make_layout(side.name, side.params).always_coded for side in (one, two))
    expected = _crossings(one.closed_form(bits), two.closed_form(bits), COARSE if slow else FINE, 1e-6)
    near = [low + aside for low, _ in expected for aside in (-_ASIDE, 0, _ASIDE)]
    points = np.unique(np.clip(np.concatenate([COARSE, near]), 0, 1))
    return _crossings(one.frame(), two.frame(), points, tolerance)


def entropy_bound(sparsity: float, value_bits: float) -> float:
    """Bits per element that no code can go below: the entropy of the positions of independent zeros, and the values.

    >>> entropy_bound(0.5, 16)
    9.0
    """
    return _entropy(sparsity) + (1 - sparsity) * value_bits


def _entropy(s: float) -> float:
    return -(s * log2(s) if s > 0 else 0) - ((1 - s) * log1p(-s) / log(2) if s < 1 else 0)


def frame_bytes(name: str, shape: Any, element: ElementType, row_dims: int | None, params: Mapping[str, Any]) -> Size:
    """The expected bytes of a layout's frame as a function of the sparsity, without an entropy stage."""
    make_layout(name, params)
    shape = tuple(shape)
    given = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in params.items())
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


def contenders() -> list[tuple[str, dict[str, Any]]]:
    """Every layout with every set of parameters among which "auto" looks for the smallest; dense comes first.

    A layout whose sets of parameters depend on the tensor takes part with its defaults.
    """
    return [(layout.name, one.given) for layout in LAYOUTS.values() for one in layout.candidates() or (layout(),)]


def envelope(sizes: Sequence[Size], points: np.ndarray, tolerance: float = 1e-5) -> list[tuple[float, int]]:
    """The lower envelope of several sizes.

    Parameters
    ----------
    sizes : sequence of functions
        Sizes over the sparsity.
    points : ndarray
        Sparsities to compare at, ascending.
    tolerance : float
        How far a change may be off.

    Returns
    -------
    list of (float, int)
        A sparsity, and the number of the smallest size from there on; of equal sizes the first.

    Examples
    --------
    >>> [(round(s, 2), number) for s, number in envelope([lambda s: 1.0, lambda s: 1.5 - s], np.linspace(0, 1, 5))]
    [(0.0, 0), (0.5, 1)]
    """

    def smallest(s: float) -> int:
        return min(range(len(sizes)), key=lambda i: sizes[i](s))

    found = [(float(points[0]), smallest(float(points[0])))]
    for left, right in itertools.pairwise(points):
        start, end = float(left), float(right)
        after = smallest(end)
        while found[-1][1] != after:  # there may be more than one change between two points
            last, next_, high = found[-1][1], after, end
            while True:  # until no third size is the smallest where `next_` takes over from `last`
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


def chosen_params(
    name: str, shape: tuple[int, ...], element: ElementType, row_dims: int, params: Mapping[str, Any], sparsity: float
) -> dict[str, Any]:
    """The parameters that a layout takes for independent zeros, those given and those that it chooses itself.

    >>> chosen_params("relative_index", (4096, 4096), element_type("float16"), 1, {}, 0.9)["bits"]
    4
    """
    layout = make_layout(name, params)
    spec = TensorSpec.of(element.dtype, shape, row_dims=row_dims)
    grid = layout.grid(spec)
    one = replace(grid, rows=min(grid.rows, grid.segment_rows), cols=min(grid.cols, grid.segment_cols))
    source = CountedSource.independent(spec.cut(grid), sparsity, one)
    return plan_of(EncodeRequest(layout), layout, source).layout.params
