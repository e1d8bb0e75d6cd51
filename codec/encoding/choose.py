"""Which layout a tensor takes: the one that was asked for, completed, or the best for an objective."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from codec.encoding.fastest import fastest, structured
from codec.encoding.predict import needs_of, predict
from codec.encoding.request import EncodeRequest, FramePlan, check_codings
from codec.encoding.sources import Source
from codec.entropy import NONE
from codec.layouts import LAYOUTS, Layout
from codec.layouts.base import Needs
from codec.layouts.context import Context
from codec.layouts.csr import Csr
from codec.layouts.dense import Dense
from codec.matrix import Grid, TensorSpec
from codec.values import ValueCoding

# From so many elements on, and up to that share of stored ones, context has been the smallest of all that was tried:
# the other layouts are not even counted then, which would take longer than encoding. Of fewer it is encoded beside
# those that are predicted to be smaller: its own prediction knows less of it than theirs do.
_MODELLED_FROM, _MODELLED_TO = 1 << 16, 0.97
# A matrix of so many positions and so few stored elements takes csr: counting it for the other layouts, which look at
# every position, would take minutes and save little.
_LARGE, _NEARLY_EMPTY = 1 << 32, 1 / 4096


def plans_for(request: EncodeRequest, source: Source) -> list[FramePlan]:
    """The frames to make for a request, of which the smallest answers it: one, or a few where sizes are estimates."""
    if request.layout is not None:
        return [plan_of(request, request.layout, source)]
    if request.objective == "speed":
        bits = request.values.bits
        found = None if bits else structured(source, request.batch)
        return [plan_of(request, found or fastest(source.nnz, source.spec, request.batch, bits), source)]
    return smallest(request, source, most=1 if request.codings == (NONE,) else 2)


def plan_of(request: EncodeRequest, layout: Layout, source: Source) -> FramePlan:
    """A layout completed for a tensor: by its shape, then by its counts where a choice is left open."""
    spec, fitted = _fitted(layout, source.spec)
    if fitted.choose_needs:
        fitted = fitted.choose(spec, source.counts(fitted.choose_needs, spec.grid))
    values = source.values(fitted, request.values, named=request.layout is not None)
    plan = _plan(spec, fitted, values, request.codings, request.entropy)
    if not fitted.share_needs:
        return plan
    return replace(plan, shared=fitted.share(spec.grid, source.counts(fitted.share_needs, spec.grid)))


@lru_cache(maxsize=256)
def _fitted(layout: Layout, spec: TensorSpec) -> tuple[TensorSpec, Layout]:
    """A layout completed by the shape of a tensor, and the tensor in its segments."""
    own = spec.cut(layout.grid(spec))
    return own, layout.fit(own)


@lru_cache(maxsize=256)
def _plan(spec: TensorSpec, layout: Layout, values: ValueCoding, codings: tuple[str, ...], entropy: str) -> FramePlan:
    """A plan whose shared streams hold nothing yet, checked."""
    plan = FramePlan(spec, layout, values, codings)
    check_codings(layout, plan.kinds, codings, entropy)
    return plan


def smallest(request: EncodeRequest, source: Source, *, most: int) -> list[FramePlan]:
    """The ``most`` smallest layouts by prediction, smallest first; of equal ones the first of the registry.

    Where several are asked for, context is one of them.
    """
    plans = candidates(request, source)
    if len(plans) == 1:
        return plans
    sizes = [predict(plan, source.counts(needs_of(plan), plan.spec.grid), source.negative_zeros) for plan in plans]
    order = sorted(range(len(plans)), key=sizes.__getitem__)
    tried = Context if most > 1 else ()
    return [plans[i] for place, i in enumerate(order) if place < most or isinstance(plans[i].layout, tried)]


def candidates(request: EncodeRequest, source: Source) -> list[FramePlan]:
    """The layouts that are compared by size, counted; one alone where it is known to be the smallest."""
    size = source.spec.grid.size
    if size >= _LARGE and source.nnz < size * _NEARLY_EMPTY and not request.values.bits:
        return [plan_of(request, Csr(), source)]
    layouts = _storable(request)
    if Context in layouts and size >= _MODELLED_FROM and source.nnz <= size * _MODELLED_TO:
        return [plan_of(request, Context(), source)]
    by_grid = _needs(request, source.spec)
    source.count(by_grid)
    counts = source.counts(by_grid[source.spec.grid], source.spec.grid)
    if counts.nnz == source.spec.grid.size > 0 and not request.values.bits:
        # Nothing but values: every other layout has these too, and its positions beside them, but for context, which
        # codes them better. Codes are other values in layouts that pad.
        layouts = tuple(layout for layout in layouts if layout in (Dense, Context))
    return [plan_of(request, one, source) for layout in layouts for one in layout.choices(source.spec, counts)]


@lru_cache(maxsize=256)  # layers of a model share their shapes
def _needs(request: EncodeRequest, spec: TensorSpec) -> Mapping[Grid, Needs]:
    """What is counted to choose among all layouts, for each cut of the matrix; the first is the tensor's own."""
    found: dict[Grid, Needs] = {spec.grid: frozenset()}
    for layout in _storable(request):
        found[spec.grid] |= layout.choices_needs()
        for one in layout.candidates():
            grid = one.grid(spec)
            plan = FramePlan(spec.cut(grid), one, request.values, request.codings)
            found[grid] = found.get(grid, frozenset()) | one.choose_needs | one.share_needs | needs_of(plan)
    return found


@lru_cache(maxsize=64)
def _storable(request: EncodeRequest) -> tuple[type[Layout], ...]:
    """The layouts whose streams take the codings that were asked for, without one that is always theirs."""
    every = LAYOUTS.values()
    coded = len(request.codings) > 1 and request.entropy == "auto"
    return tuple(layout for layout in every if coded or not layout().always_coded)
