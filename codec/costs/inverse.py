"""The questions the other way round: which sparsity is needed for a size, a speed, or another granularity."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from codec.costs.crossings import Cost
from codec.costs.frames import INDEPENDENT, contenders, frame_bytes, made_for
from codec.costs.machine import MachineProfile, cached
from codec.costs.metrics import Asked
from codec.dtypes import BY_NAME, element_type
from codec.errors import ArgumentError
from codec.layouts import make_layout
from codec.matrix import TensorSpec, check_row_dims, check_shape
from codec.prune.structures import fixes_sparsity

_NEAR = 1e-4  # how far an answer may be off

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]


def sparsity_for_bytes(
    shapes: Shapes | Sequence[tuple[tuple[int, ...], Any]], nbytes: float, *, structure: str = INDEPENDENT
) -> float | None:
    """The sparsity of all tensors together at which they fit into so many bytes without an entropy stage.

    Parameters
    ----------
    shapes : mapping of name to (shape, dtype), or a sequence of these
        Of the tensors that are pruned, all to the same sparsity; each takes its smallest layout.
    nbytes : float
        What they may take.
    structure : str
        What is pruned as a whole, as in ``codec.prune``.

    Returns
    -------
    float or None
        0.0 if they fit as they are; None if they never fit.

    Examples
    --------
    >>> round(sparsity_for_bytes([((4096, 4096), "float16")], 16 << 20), 2)  # half of it
    0.56
    """
    if not isinstance(nbytes, int | float) or not nbytes >= 0:
        raise ArgumentError(f"nbytes={nbytes!r}; expected a number from 0 on")
    listed = list(shapes.values() if isinstance(shapes, Mapping) else shapes)
    counted: dict[tuple[tuple[int, ...], str], int] = {}
    for shape, dtype in listed:
        element = element_type(dtype)
        key = check_shape(shape, element), element.name
        counted[key] = counted.get(key, 0) + 1
    each = [(times, _smallest(shape, name, structure)) for (shape, name), times in counted.items()]
    return _first(lambda s: sum(times * cost(s) for times, cost in each), nbytes)


def sparsity_for_speedup(
    shape: tuple[int, ...], dtype: Any, faster: float, *, batch: int = 1, machine: MachineProfile | None = None
) -> tuple[float, str] | None:
    """The sparsity at which a product is so many times as fast as the dense library's, and the layout that reaches it.

    Returns None where no layout is so fast at any sparsity; ArgumentError without a machine profile.
    """
    if not isinstance(faster, int | float) or not faster > 0:
        raise ArgumentError(f"faster={faster!r}; expected a number above 0")
    spec = TensorSpec.of(dtype, shape)
    known = machine or cached()
    dense = Asked("dense", {}, spec, batch, known).product()(0.0)
    assert known is not None
    found = []
    for name, params in known.executed():
        at = _first(Asked(name, params, spec, batch, known).product(), dense / faster)
        if at is not None:
            found.append((at, name))
    return min(found, default=None)


def granularity(
    shape: tuple[int, ...], dtype: Any, sparsity: float, structures: Sequence[str]
) -> dict[str, tuple[int, float | None]]:
    """What coarser structures cost: bytes at the same sparsity, and the sparsity of the same bytes as single weights.

    Parameters
    ----------
    shape, dtype
        Of the tensor.
    sparsity : float
        Of single weights.
    structures : sequence of str
        As in ``codec.prune``; n:m says its sparsity itself.

    Returns
    -------
    dict of structure to (bytes, sparsity or None)
        Bytes of the smallest layout; None where no sparsity brings so few.

    Examples
    --------
    >>> found = granularity((1024, 1024), "float16", 0.8, ["4x4"])
    >>> found["4x4"][1] < 0.8  # blocks list fewer positions, and so may keep more weights
    True
    """
    element = element_type(dtype)
    shape = check_shape(shape, element)
    least = _smallest(shape, element.name, INDEPENDENT)(sparsity)
    found = {}
    for structure in structures:
        cost = _smallest(shape, element.name, structure)
        own = _own_sparsity(structure) if fixes_sparsity(structure) else sparsity
        found[structure] = int(cost(own)), _first(cost, least)
    return found


def _own_sparsity(structure: str) -> float:
    kept, of = map(int, structure.split(":"))
    return 1 - kept / of


def _smallest(shape: tuple[int, ...], dtype: str, structure: str) -> Cost:
    """Bytes of the smallest layout; layouts whose streams are always coded are left out."""
    element = BY_NAME[dtype]
    dims = check_row_dims(shape, None)
    sides = [one for one in [*contenders(), *made_for(structure)] if not make_layout(*one).always_coded]
    costs = [frame_bytes(name, shape, element, dims, params, structure) for name, params in sides]
    dense = prod(shape) * element.width
    return lambda s: min(dense, *(cost(s) for cost in costs))


def _first(cost: Cost, most: float) -> float | None:
    """The lowest sparsity at which a falling cost is at most so much."""
    if cost(0.0) <= most:
        return 0.0
    if cost(1.0) > most:
        return None
    low, high = 0.0, 1.0
    while high - low > _NEAR:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= most else (middle, high)
    return high
