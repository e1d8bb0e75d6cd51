"""From which sparsity on a layout costs less than another: in bytes, time or energy.

A metric is a cost function: what a layout costs over the sparsity. Bytes are the expected bytes of a whole frame, or
the closed forms of the literature in bits per element; the others are in ``metrics.py``.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from codec.costs.crossings import COARSE, FINE, Cost, crossings, without_touches
from codec.costs.formulas import FORMULAS, make_formula
from codec.costs.frames import INDEPENDENT, frame_bytes
from codec.costs.metrics import METRICS, Asked, machine_for
from codec.dtypes import ElementType, element_type
from codec.errors import ArgumentError
from codec.layouts import make_layout
from codec.matrix import TensorSpec, check_row_dims, check_shape, is_int

# Points this much to either side of the crossings of closed forms are added to those at which frames are compared.
_ASIDE = 0.004
_TIMED = 1e-3  # how far a crossing of times or energies may be off


@dataclass(frozen=True)
class BreakEven:
    """Where the costs of two layouts cross.

    Attributes
    ----------
    sparsity : float or None
        The lowest sparsity from which on the layout costs less: 0.0 if it does so without any zeros, None if it never
        does.
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
    _cost: Cost
    _against: Cost

    @classmethod
    def of(cls, one: Cost, two: Cost, found: Sequence[float]) -> "BreakEven":
        """From two costs and the sparsities at which they cross."""
        kept = without_touches(found)
        first = 0.0 if one(0.0) < two(0.0) else kept[0] if kept else None
        return cls(first, kept, one, two)

    def curve(self, sparsities: Sequence[float] | None = None) -> np.ndarray:
        """Both costs over the sparsity.

        Parameters
        ----------
        sparsities : sequence of float, optional
            Where to evaluate, each from 0 to 1; by default 0, 0.01, ..., 1.

        Returns
        -------
        ndarray of float64, (points, 3)
            Sparsity, cost, and cost of the other layout: bytes, bits per element without headers, seconds, or joules.

        Examples
        --------
        >>> break_even("bitmap", (4096, 4096), "float16", headers=False).curve([0.5])
        array([[ 0.5,  9. , 16. ]])
        """
        points = np.linspace(0, 1, 101) if sparsities is None else np.asarray(sparsities, np.float64)
        return np.array([(s, self._cost(float(s)), self._against(float(s))) for s in points])

    def pays(self, sparsity: float) -> bool:
        """Whether the layout costs less than the other at this sparsity."""
        return self._cost(sparsity) < self._against(sparsity)


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
    structure: str = INDEPENDENT,
    **params: Any,
) -> BreakEven:
    """From which sparsity on a layout costs less than another, for independent zeros.

    Layouts have no entropy stage, as only the values of a real tensor tell what that saves.

    Parameters
    ----------
    layout : str
        A layout's name, with its parameters as keywords (``params``); with ``headers=False`` also a formula's name:
        coo, zero_table, bitmap_rows, bitmap_two_level, block_bitmap, relative_index_rows, run_length_packed, rice_gaps,
        tiled_csl, tca_bme, sparta, entropy_bound.
    shape, dtype
        The shape and the dtype of the tensor.
    against : str or (str, dict)
        The layout to compare with; its parameters in the dict. With metrics other than bytes, "dense" is the way
        without codec: the fastest dense library's product, a copy of the tensor, or all its multiply-adds.
    headers : bool
        True: the expected bytes of the whole frame. False: the closed forms of the literature, in bits per element;
        they count pointers to rows, but no headers, segments or row restarts.
    metric : {"bytes", "matvec", "matmul", "decode", "energy"}
        What is compared: bytes, seconds of an operation with one thread, or joules of a product by the published table
        of a 45 nm process.
    batch : int
        Columns of the product; with "matmul" and "energy".
    machine : MachineProfile, optional
        For metrics of time: by default what `profile_machine` has cached.
    value_bits : float, optional
        With ``headers=False``: the bits of a value, by default those of the dtype; 4 for a codebook of 16 entries.
    row_dims : int, optional
        How many leading dimensions are the rows of the matrix, as in ``encode``.
    tolerance : float, optional
        With ``headers=True``: how far a crossing may be off; by default the share of half an element.
    structure : str
        What is zero or not as a whole, as in ``codec.prune``: "element" (independent zeros), "4x4", "filter", "2:4".

    Returns
    -------
    BreakEven
        ``sparsity``, the first crossing, and ``crossings``, all of them.

    Raises
    ------
    ArgumentError
        For a layout, parameter, shape, dtype, structure or metric that does not exist, and for a time without a machine
        profile.

    Examples
    --------
    >>> break_even("bitmap", (4096, 4096), "float16", headers=False).sparsity
    0.0625
    >>> [round(s, 4) for s in break_even("csr", (4096, 4096), "float32", against="bitmap").crossings]
    [0.938]
    >>> round(break_even("sparta", (4096, 4096), "float16", headers=False).sparsity, 4)
    0.4086
    """
    if metric != "bytes" and metric not in METRICS:
        raise ArgumentError(f"metric={metric!r}; expected one of bytes, {', '.join(METRICS)}")
    if metric == "bytes" and (batch != 1 or machine is not None):
        raise ArgumentError('batch= and machine= belong to metrics of time and energy; metric="bytes" has neither')
    if metric != "bytes" and (not headers or structure != INDEPENDENT):
        raise ArgumentError('headers=False and structure= belong to metric="bytes"')
    if not is_int(batch) or batch < 1 or (metric == "matvec" and batch != 1):
        raise ArgumentError(f'batch={batch!r}; expected an int from 1 on, and 1 for metric="matvec"')
    if value_bits is not None and headers:
        raise ArgumentError("value_bits= needs headers=False: a frame stores values as wide as their dtype")
    if structure != INDEPENDENT and not headers:
        raise ArgumentError("structure= needs headers=True: closed forms are those of independent zeros")
    other, other_params = against if isinstance(against, tuple | list) and len(against) == 2 else (against, {})
    if not isinstance(other_params, Mapping):
        raise ArgumentError(f"against={against!r}; expected a layout's name, or (name, parameters)")
    for name in (layout, other):
        if headers and name in FORMULAS:
            raise ArgumentError(f'"{name}" needs headers=False: codec writes no such frames')
    element = element_type(dtype)
    sizes = check_shape(shape, element)
    dims = check_row_dims(sizes, row_dims)
    one, two = (
        _Contender(name, dict(given), sizes, dims, element) for name, given in ((layout, params), (other, other_params))
    )
    if metric != "bytes":
        machine = machine_for(metric, machine)
        spec = TensorSpec.of(element.dtype, sizes, row_dims=dims)
        mine, theirs = (METRICS[metric](Asked(side.name, side.params, spec, batch, machine)) for side in (one, two))
        found = crossings(mine, theirs, COARSE, _TIMED if tolerance is None else tolerance)
        return BreakEven.of(mine, theirs, [high for _, high in found])
    if headers:
        near = 0.5 / max(1, prod(sizes)) if tolerance is None else tolerance
        sides = one.frame(structure), two.frame(structure)
        points = one.points(two) if structure == INDEPENDENT else COARSE
        return BreakEven.of(*sides, [high for _, high in crossings(*sides, points, near)])
    width = 8.0 * element.width if value_bits is None else float(value_bits)
    found = crossings(one.closed_form(width, less=width), two.closed_form(width, less=width), FINE, 0.0)
    return BreakEven.of(one.closed_form(width), two.closed_form(width), [low for low, _ in found])


@dataclass(frozen=True)
class _Contender:
    """A layout or formula with its parameters for one tensor, and its sizes over the sparsity."""

    name: str
    params: dict[str, Any]
    shape: tuple[int, ...]
    row_dims: int
    element: ElementType

    def frame(self, structure: str = INDEPENDENT) -> Cost:
        """Expected bytes of a frame."""
        return frame_bytes(self.name, self.shape, self.element, self.row_dims, self.params, structure)

    def closed_form(self, bits: float, less: float = 0.0) -> Cost:
        """Closed-form bits per element for values of ``bits`` bits, minus the constant ``less``."""
        spec = TensorSpec.of(self.element.dtype, self.shape, row_dims=self.row_dims)
        rows, cols = (spec.grid.rows, spec.grid.cols) if spec.grid.size else (1, 1)
        if self.name in FORMULAS:
            formula = make_formula(self.name, self.params)
            return lambda s: formula.ideal_bits(s, bits, rows, cols, less)
        layout = make_layout(self.name, self.params)
        with suppress(ArgumentError):  # an index that is too narrow for a whole row: one of tiles, as in the literature
            layout = layout.fit(spec)
        pointers = layout.pointer_bits(rows, cols) if spec.grid.size else 0.0
        return lambda s: layout.ideal_bits(s, bits) + pointers - less

    def points(self, other: "_Contender") -> np.ndarray:
        """Where to compare the frames of two: around the crossings of their closed forms, and coarsely elsewhere."""
        bits = 8.0 * self.element.width
        slow = any(make_layout(side.name, side.params).always_coded for side in (self, other))
        expected = crossings(self.closed_form(bits), other.closed_form(bits), COARSE if slow else FINE, 1e-6)
        near = [low + aside for low, _ in expected for aside in (-_ASIDE, 0, _ASIDE)]
        return np.unique(np.clip(np.concatenate([COARSE, near]), 0, 1))
