"""Bytes of whole frames over the sparsity, for zeros that are independent or come in structures.

Independent zeros are sized from their expected counts. Structured ones are sampled: a few segments of masks, one nested
in the next as the sparsity grows, are counted as a tensor's are, and stand for all segments.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from codec.costs.crossings import Cost
from codec.dtypes import ElementType
from codec.elements import elements_of
from codec.encoding.choose import plan_of
from codec.encoding.predict import needs_of, predict
from codec.encoding.request import EncodeRequest
from codec.encoding.sizes import CountedSource, encoded_nbytes
from codec.encoding.sources import ArraySource
from codec.entropy import NONE
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS, make_layout
from codec.matrix import Grid, TensorSpec
from codec.prune.structures import Structures, check_structure, fixes_sparsity, structures_of

INDEPENDENT = "element"
# Segments that are sampled of a matrix, and twice as many: the difference is what a segment takes. Of large segments
# there are fewer, so that about so many elements are sampled.
_SAMPLED, _ELEMENTS = 4, 1 << 19

Given = tuple[tuple[str, Any], ...]


def frame_bytes(
    name: str,
    shape: Any,
    element: ElementType,
    row_dims: int | None,
    params: Mapping[str, Any],
    structure: str = INDEPENDENT,
) -> Cost:
    """The expected bytes of a layout's frame as a function of the sparsity, without an entropy stage.

    Parameters
    ----------
    name, params
        The layout.
    shape, element, row_dims
        The tensor.
    structure : str
        What is zero or not as a whole, by the names of ``codec.prune``; each such structure with the same chance. For
        n:m, groups of m are first pruned to n one after the other, and then weights by themselves.
    """
    make_layout(name, params)
    shape = tuple(shape)
    given = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in params.items())
    if structure == INDEPENDENT:
        return lambda sparsity: _independent(name, shape, element, row_dims, given, sparsity)
    structures_of(structure, shape)
    return lambda sparsity: _structured(name, shape, element, row_dims, given, structure, sparsity)


@lru_cache(maxsize=1 << 14)
def _independent(
    name: str, shape: tuple[int, ...], element: ElementType, row_dims: int | None, given: Given, sparsity: float
) -> int:
    return encoded_nbytes(name, shape, element.dtype, sparsity=sparsity, row_dims=row_dims, **dict(given))


@lru_cache(maxsize=1 << 14)
def _structured(
    name: str,
    shape: tuple[int, ...],
    element: ElementType,
    row_dims: int | None,
    given: Given,
    structure: str,
    sparsity: float,
) -> int:
    layout = make_layout(name, dict(given))
    spec = TensorSpec.of(element.dtype, shape, row_dims=row_dims)
    whole = spec.cut(layout.grid(spec)).grid
    request = EncodeRequest.of(name, dict(given), "disk", "auto" if layout.always_coded else NONE)

    def nbytes(rows: int) -> int:
        source = _sample(element, rows, spec.grid.cols, shape, structure, sparsity)
        plan = plan_of(request, layout, source)
        return predict(plan, source.counts(needs_of(plan), plan.spec.grid), 0)

    down = -(-whole.rows // whole.segment_rows) if whole.size else 0
    sampled = max(1, min(_SAMPLED, _ELEMENTS // max(1, whole.segment_rows * whole.cols)))
    if down <= 2 * sampled:
        return nbytes(whole.rows)
    few, many = (n * whole.segment_rows for n in (sampled, 2 * sampled))
    small, large = nbytes(few), nbytes(many)
    return round(small + (large - small) * (whole.rows - few) / (many - few))


@lru_cache(maxsize=24)
def _sample(
    element: ElementType, rows: int, cols: int, shape: tuple[int, ...], structure: str, sparsity: float
) -> ArraySource:
    """The first rows of a matrix whose zeros come in structures, cut into the same segments as the whole."""
    found = replace(structures_of(structure, shape), rows=rows, cols=cols)
    kept = _kept_of_groups(found, sparsity) if fixes_sparsity(structure) else found.spread(_kept(found, sparsity))
    items = np.random.default_rng(1).integers(1, 256, (rows, cols, element.width), np.uint8)  # incompressible
    a = (items.view(element.unsigned)[..., 0] * kept).view(element.dtype)
    tensor = elements_of(a, zero="value", mask=None, row_dims=None)
    whole = TensorSpec.of(element.dtype, shape).grid
    part = Grid(rows, cols, min(rows, whole.segment_rows), whole.segment_cols)
    return ArraySource(replace(tensor, spec=tensor.spec.cut(part)), 1)


def _kept(found: Structures, sparsity: float) -> np.ndarray:
    return _ranks(found.down, found.across) >= round(sparsity * found.down * found.across)


def _kept_of_groups(found: Structures, sparsity: float) -> np.ndarray:
    """Weights of groups of m: as many groups as the sparsity asks for keep n, and past n / m they keep fewer."""
    n, m = found.keep or 1, found.width
    pruned = min(1.0, sparsity * m / (m - n)) if n < m else 1.0
    groups = _kept(found, 1 - pruned)  # True where a group is pruned
    order = _order_in_groups(found.rows, found.across, m)
    kept = (order < np.where(groups.reshape(-1, 1), n, m)).reshape(found.rows, -1)[:, : found.cols]
    more = int(kept.sum()) - round((1 - sparsity) * kept.size)
    if pruned == 1 and more > 0:
        ranks = np.where(kept, _ranks(found.rows, found.cols), kept.size)
        kept = kept & (ranks >= np.partition(ranks.reshape(-1), more)[more])
    return np.asarray(kept)


@lru_cache(maxsize=8)
def _order_in_groups(rows: int, across: int, m: int) -> np.ndarray:
    return np.argsort(np.random.default_rng(2).random((rows * across, m), np.float32), axis=1)


@lru_cache(maxsize=8)
def _ranks(down: int, across: int) -> np.ndarray:
    """One random order of the structures: the first so many of it are the zeros, at every sparsity."""
    return np.random.default_rng(0).permutation(down * across).astype(np.int64).reshape(down, across)


def contenders() -> list[tuple[str, dict[str, Any]]]:
    """Every layout with every set of parameters among which "auto" looks for the smallest; dense comes first.

    A layout whose sets of parameters depend on the tensor takes part with its defaults.
    """
    return [(layout.name, one.given) for layout in LAYOUTS.values() for one in layout.candidates() or (layout(),)]


def made_for(structure: str) -> list[tuple[str, dict[str, Any]]]:
    """The layouts for zeros of one structure that ``contenders`` lacks: its blocks, or n of every m.

    >>> made_for("4x4"), made_for("1:8"), made_for("filter")
    ([('block_offset', {'block': (4, 4)})], [('n_m', {'m': 8})], [])
    """
    figures = check_structure(structure)
    if figures is None:
        return []
    made: tuple[str, dict[str, Any]] = ("block_offset", {"block": figures})
    if fixes_sparsity(structure):
        made = "n_m", {"m": figures[1]}
    try:
        known = make_layout(*made) == make_layout(made[0], {})
    except ArgumentError:  # figures beyond those of the layout
        return []
    return [] if known else [made]


def chosen_params(
    name: str, shape: tuple[int, ...], element: ElementType, row_dims: int, params: Mapping[str, Any], sparsity: float
) -> dict[str, Any]:
    """The parameters that a layout takes for independent zeros, those given and those that it chooses itself.

    >>> from codec.dtypes import element_type
    >>> chosen_params("relative_index", (4096, 4096), element_type("float16"), 1, {}, 0.9)["bits"]
    4
    """
    layout = make_layout(name, params)
    spec = TensorSpec.of(element.dtype, shape, row_dims=row_dims)
    grid = layout.grid(spec)
    one = replace(grid, rows=min(grid.rows, grid.segment_rows), cols=min(grid.cols, grid.segment_cols))
    source = CountedSource.independent(spec.cut(grid), sparsity, one)
    return plan_of(EncodeRequest(layout), layout, source).layout.params
