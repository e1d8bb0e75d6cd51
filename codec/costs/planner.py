"""Choosing for each tensor of a model how it is stored: the cheapest option for an objective, and why it was taken.

tensors -> counts, once each -> options with their costs (options.py) -> the cheapest, or dense -> a plan (plan.py)
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any

from codec.costs.breakeven import break_even
from codec.costs.options import Bytes, Clock, Objective, Option, Speed, demanded
from codec.costs.plan import Choice, Path, Plan, check_rules, refuse_idle, rule_for
from codec.costs.tensors import GivenTensors, Tensors, can_be_counted, stats_of_stored
from codec.costs.ties import Prints
from codec.encoding.request import check_objective
from codec.entropy import NONE
from codec.errors import ArgumentError
from codec.matrix import is_int
from codec.model import ModelFile, TensorInfo, naming, safe_open
from codec.model.packing import LEAST_BYTES, LEAST_OF_VECTORS, SMALLEST_FRAME
from codec.packed import PackedTensor
from codec.statistics import TensorStats
from codec.units import duration, percent, ratio, size

Progress = Callable[[str, TensorStats | None], object]
# How exactly a break-even is worked out: it is printed as a percentage with two decimals.
_NEAR, _NEAR_IN_TIME = 2e-5, 1e-3


def plan(
    tensors_or_path: Mapping[str, Any] | Path | Tensors,
    *,
    objective: str = "disk",
    machine: Clock | None = None,
    rules: Any = (),
    limit: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Choose layouts and parameters for the tensors of a model, and say why.

    A tensor that costs no less in any layout stays dense, so that nothing gets larger or slower. Tensors are read one
    at a time and counted once; nothing is encoded.

    Parameters
    ----------
    tensors_or_path : mapping, path, or open model
        Tensors by name as ``save_file`` takes them; a model file, its index.json or its folder; or what ``safe_open``
        gives.
    objective : {"disk", "memory", "speed"}
        The fewest bytes in the file, the fewest without an entropy stage, or the least time of a product.
    machine : MachineProfile, optional
        What ``profile_machine`` measured. Without it "speed" takes the layouts that ``encode`` takes.
    rules : mapping or sequence of (pattern, layout or dict), optional
        Layouts by name or shell pattern that are taken whatever they cost: the rule of a tensor's own name, or else the
        first that fits.
    limit : int, optional
        With objective "speed" and a machine: at most so many bytes in all, in the least time. Where the fastest layouts
        take more, those are exchanged that lose the least time for each byte saved.
    batch : int, optional
        With objective "speed": columns of the products whose time counts; by default 1 with a machine, and without one
        what ``encode`` takes where it is not told.
    progress : callable, optional
        Called with (name, statistics or None) as tensors are counted.

    Returns
    -------
    Plan
        For ``save_file(plan=)``, ``encode_checkpoint(plan=)`` and ``encode(a, **plan.arguments(name))``.

    Raises
    ------
    ArgumentError
        For an objective, a rule or a tensor that cannot be used, and for a limit that no choice of layouts meets.
    CodecError, OSError
        As ``safe_open``.

    Examples
    --------
    >>> w = np.zeros((256, 512), np.float32); w[::3, ::7] = 1.5
    >>> found = plan({"fc.weight": w, "fc.bias": np.ones(256, np.float32)}, objective="memory")
    >>> found["fc.weight"]["layout"], found["fc.bias"], found.choice("fc.bias").why
    ('relative_index', 'dense', 'stays dense: packing a vector must save 64 KiB')
    """
    check_objective(objective)
    if batch is not None and (objective != "speed" or not is_int(batch) or batch < 1):
        raise ArgumentError(f'batch={batch!r} and objective={objective!r}; expected an int from 1 on, with "speed"')
    if limit is not None and (objective != "speed" or machine is None):
        raise ArgumentError('limit= needs objective="speed" and machine=: without times every byte saved is free')
    checked = check_rules(rules)
    goal: Objective = Speed(machine, batch) if objective == "speed" else Bytes(objective)
    with _opened(tensors_or_path) as tensors:
        refuse_idle(checked, list(tensors))
        planner = _Planner(objective, goal, checked, machine, batch)
        prints = Prints(tensors)
        found: dict[str, _Open] = {}
        for name in tensors:
            info = tensors.info(name)
            shared = info.alias_of is not None and planner.rule(name) is planner.rule(info.alias_of)
            found[name] = replace(found[info.alias_of], info=info) if shared else planner.open(tensors, name, prints)
            if progress is not None:
                progress(name, found[name].stats)
        ties = prints.ties({name: one.best for name, one in found.items()})
    if limit is not None:
        _fit(found, ties, limit)
    choices = [replace(planner.choice(one), tied_to=ties.get(name)) for name, one in found.items()]
    return Plan(objective, choices)


def _opened(source: Any) -> Any:
    """The tensors of a path, opened here; or those that were given, which are not closed."""
    if isinstance(source, str | os.PathLike):
        return safe_open(source)
    return nullcontext(source if isinstance(source, ModelFile) else GivenTensors(_mapping(source)))


def _mapping(source: Any) -> Mapping[str, Any]:
    if not isinstance(source, Mapping):
        raise ArgumentError(f"{type(source).__name__}; expected tensors by name, a path, or an open model")
    return source


@dataclass(frozen=True)
class _Open:
    """A tensor whose options are known, the cheapest first, and the one that is taken for now."""

    info: TensorInfo
    stats: TensorStats | None
    dense: Option
    options: tuple[Option, ...]
    best: Option
    why: str | None = None  # where there was no choice


@dataclass(frozen=True)
class _Planner:
    """What holds for all tensors of a plan."""

    objective: str
    goal: Objective
    rules: list[tuple[str, dict[str, Any]]]
    machine: Clock | None
    batch: int | None
    known: dict[Any, float | None] = field(default_factory=dict)

    def open(self, tensors: Tensors, name: str, prints: Prints) -> _Open:
        """Count a tensor, and choose for it alone."""
        info = tensors.info(name)
        rule = self.rule(name)
        dense = Option.itself(info)
        if not can_be_counted(info):
            return _Open(info, None, dense, (), dense, f"stays dense: codec does not pack {info.dtype}")
        with naming(name):
            stored = tensors.get_stored(name)
            stats = stats_of_stored(info, stored)
            prints.add(name, stored.to_dense if isinstance(stored, PackedTensor) else stored.array, stats.zero)
            if rule is not None:
                forced = dense if rule[1] == {"layout": "dense"} else demanded(rule[1], stats, self.objective)
                dense, forced = (self.goal.timed(one, info, stats) for one in (dense, forced))
                return _Open(info, stats, dense, (), forced, f"{forced.label} by the rule for {rule[0]!r}")
            # The smallest frame there could be: where that does not pay, nothing need be looked at.
            if self.objective != "speed" and not self.goal.pays(info, Option("dense", nbytes=SMALLEST_FRAME), dense):
                return _Open(info, stats, dense, (), dense, _too_small(info))
            dense, options = self.goal.timed(dense, info, stats), self.goal.options(info, stats)
        best = options[0] if options and self.goal.pays(info, options[0], dense) else dense
        return _Open(info, stats, dense, tuple(options), best)

    def rule(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The rule that a tensor goes by."""
        return rule_for(name, self.rules)

    def choice(self, one: _Open) -> Choice:
        """What the plan says of a tensor, in words too."""
        info, best, stats = one.info, one.best, one.stats
        compared = best if best.packed else one.options[0] if one.options else None
        pays_from = None if compared is None or stats is None else self._pays_from(compared, stats)
        unpacked = info.stored_as == "frame" and not best.packed
        return Choice(
            name=info.name,
            dtype=info.dtype,
            shape=tuple(info.shape),
            layout=best.layout,
            params=dict(best.params),
            entropy="none" if unpacked else best.entropy,
            stored_as=best.stored_as,
            why=one.why or self._why(one, compared, pays_from),
            sparsity=None if stats is None else stats.sparsity,
            dense_nbytes=info.dense_nbytes,
            nbytes=best.nbytes,
            seconds=best.seconds,
            dense_seconds=one.dense.seconds,
            pays_from=pays_from,
            options={option.label: option.nbytes for option in one.options},
        )

    def _why(self, one: _Open, compared: Option | None, pays_from: float | None) -> str:
        if compared is None or one.stats is None:
            if len(one.info.shape) < 2 or one.stats is None:
                return "stays dense: a product needs two dimensions"
            if self.machine is not None and one.dense.seconds is None:
                return f"stays dense: times of products with {one.info.dtype} weights are not known"
            return f"stays dense: with {percent(one.stats.sparsity)} zeros the dense product is the faster one"
        if compared.layout == "dense" and not one.best.packed:
            return "stays dense: no layout takes less"
        zeros = percent(one.stats.sparsity)
        pays = f"pays from {percent(pays_from)} zeros" if pays_from is not None else "pays by coding its values only"
        collapse = "layer collapse, all is pruned away: " if one.stats.sparsity == 1 and len(one.info.shape) > 1 else ""
        cost, dense = self.goal.cost(compared), self.goal.cost(one.dense)
        here = f"{self._text(compared, cost)} against {self._text(compared, dense)} dense"
        if not one.best.packed:
            return f"{collapse}stays dense: {compared.label}, the best, takes {here}; it {pays}, here are {zeros}"
        others = [option for option in one.options if option.label != compared.label]
        margin = f", {self._margin(compared, min(others, key=self.goal.cost))}" if others else ""
        return f"{collapse}{compared.label} takes {here} ({ratio(dense, cost)}){margin}; {pays}, here are {zeros}"

    def _margin(self, taken: Option, other: Option) -> str:
        """How far the next best is."""
        least, cost = self.goal.cost(taken), self.goal.cost(other)
        stage = " without an entropy stage" if other.entropy == NONE != taken.entropy else ""
        if least > cost and taken.seconds is not None:
            return f"for fewer bytes than {other.label}"
        share = 1 - least / cost if cost else 0.0
        return f"{percent(abs(share))} {'less' if share >= 0 else 'more'} than {other.label}{stage}"

    def _text(self, option: Option, cost: float) -> str:
        return size(cost) if option.seconds is None else duration(cost)

    def _pays_from(self, option: Option, stats: TensorStats) -> float | None:
        """Remembered, as models repeat layers of the same shape."""
        if option.layout == "dense" or not stats.size:
            return None
        timed: Any = self.machine if option.seconds is not None else None
        key = option.label, stats.shape, stats.spec.element.name, stats.row_dims, timed is None
        if key not in self.known:
            batch = 1 if timed is None else self.batch or 1
            metric = "bytes" if timed is None else "matvec" if batch == 1 else "matmul"
            tolerance = _NEAR if timed is None else _NEAR_IN_TIME
            self.known[key] = break_even(
                option.layout, stats.shape, stats.dtype, row_dims=stats.row_dims, tolerance=tolerance, metric=metric,
                machine=timed, batch=batch, **option.params,
            ).sparsity  # fmt: skip
        return self.known[key]


def _too_small(info: TensorInfo) -> str:
    if len(info.shape) < 2:
        return f"stays dense: packing a vector must save {LEAST_OF_VECTORS >> 10} KiB"
    return f"stays dense: packing must save {LEAST_BYTES} bytes, and a packed tensor takes {SMALLEST_FRAME} at least"


def _fit(found: dict[str, _Open], ties: Mapping[str, str], limit: int) -> None:
    """Exchange options until all take ``limit`` bytes, those first that lose the least time for a byte saved."""
    total = sum(one.best.nbytes for name, one in found.items() if name not in ties)
    times = Counter(ties.values())  # products that a tensor takes part in, beyond its own
    steps: list[tuple[float, str, int, Option]] = []  # a heap with the best exchange of each tensor

    def add(name: str) -> None:
        one = found[name]
        options = one.options if times[name] else (*one.options, one.dense)  # copies are stored once only where packed
        every = [
            ((1 + times[name]) * ((option.seconds or 0.0) - (one.best.seconds or 0.0)) / saved, name, saved, option)
            for option in options
            if (saved := one.best.nbytes - option.nbytes) > 0
        ]
        if every:
            heappush(steps, min(every, key=lambda step: step[:3]))

    for name, one in found.items():
        if name not in ties and one.why is None:
            add(name)
    while total > limit:
        if not steps:
            raise ArgumentError(f"limit={limit} bytes; the smallest choice of layouts that execute takes {total}")
        _, name, saved, option = heappop(steps)
        found[name] = replace(found[name], best=option)
        total -= saved
        add(name)
    for name, first in ties.items():
        found[name] = replace(found[name], best=found[first].best)
