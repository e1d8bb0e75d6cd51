"""The ways in which one tensor can be stored, each with its bytes and, on a machine that was measured, its time."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from codec.dtypes import ElementType
from codec.encoding.choose import candidates, plan_of
from codec.encoding.fastest import fastest, structured
from codec.encoding.predict import needs_of, predict
from codec.encoding.request import EncodeRequest, FramePlan
from codec.encoding.sizes import CountedSource
from codec.errors import ArgumentError
from codec.layouts import make_layout
from codec.matrix import TensorSpec
from codec.model import TensorInfo, worth_packing
from codec.statistics import TensorStats


@dataclass(frozen=True)
class Option:
    """One way to store a tensor.

    Attributes
    ----------
    layout, params, entropy
        What ``encode`` is asked for.
    nbytes : int
    seconds : float or None
        Of a product, where a machine was given.
    stored_as : {"frame", "dense"}
        "dense" is the tensor as itself, and "frame" a packed one, also in layout dense.
    """

    layout: str
    params: Mapping[str, Any] = field(default_factory=dict)
    entropy: str = "none"
    nbytes: int = 0
    seconds: float | None = None
    stored_as: str = "frame"

    @classmethod
    def itself(cls, info: TensorInfo) -> Self:
        """The tensor as itself."""
        return cls("dense", {}, "auto", info.dense_nbytes, None, "dense")

    @property
    def packed(self) -> bool:
        """Whether the tensor becomes a frame."""
        return self.stored_as == "frame"

    @property
    def label(self) -> str:
        """The layout with its parameters, as in tables."""
        return named(self.layout, self.params)


def named(layout: str, params: Mapping[str, Any]) -> str:
    """A layout with the parameters that are not its defaults, as in tables and legends.

    >>> named("block_offset", {"block": (4, 4), "index": None})
    'block_offset block=4x4'
    """
    given = make_layout(layout, params).given
    return layout + "".join(f" {key}={_plain(value)}" for key, value in given.items())


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


class Clock(Protocol):
    """What tells the time of a product on a machine: `codec.costs.machine.MachineProfile` does."""

    def multiplies(self, element: ElementType) -> bool:
        """Whether it knows times of products with weights of this dtype."""

    def executed(self) -> list[tuple[str, dict[str, Any]]]:
        """The layouts whose products were measured, with their parameters."""

    def product_seconds(
        self, layout: str, params: Mapping[str, Any], spec: TensorSpec, nnz: int, nbytes: int, batch: int
    ) -> float:
        """Seconds of a product with a tensor that stores so many entries in so many bytes."""

    def dense_seconds(self, spec: TensorSpec, batch: int) -> float:
        """Seconds of the fastest dense library's product."""


class Objective(Protocol):
    """What a plan is for: the options that a tensor has, and what each costs."""

    def options(self, info: TensorInfo, stats: TensorStats) -> list[Option]:
        """Every way to pack a tensor that is worth a thought, the cheapest first."""

    def timed(self, option: Option, info: TensorInfo, stats: TensorStats) -> Option:
        """An option with its time, where that counts."""

    def cost(self, option: Option) -> float:
        """What an option costs."""

    def pays(self, info: TensorInfo, option: Option, dense: Option) -> bool:
        """Whether packing is worth it."""


@dataclass(frozen=True)
class Bytes:
    """The fewest bytes, in the file or in memory."""

    objective: str

    def options(self, info: TensorInfo, stats: TensorStats) -> list[Option]:
        """As ``encode`` compares them; then, for the margin, those that it leaves out as too large for the disk."""
        found = _sized(EncodeRequest.of("auto", {}, self.objective), stats)
        if self.objective == "disk" and len(found) == 1:
            known = {option.label for option in found}
            others = _sized(EncodeRequest.of("auto", {}, "memory"), stats)
            found += [option for option in others if option.label not in known]
        return found

    def timed(self, option: Option, info: TensorInfo, stats: TensorStats) -> Option:
        """Without one."""
        return option

    def cost(self, option: Option) -> float:
        """Bytes."""
        return option.nbytes

    def pays(self, info: TensorInfo, option: Option, dense: Option) -> bool:
        """By the rule of save_file: small vectors that other tools read stay dense."""
        return worth_packing(info.shape, info.dense_nbytes, option.nbytes)


@dataclass(frozen=True)
class Speed:
    """The least time of a product; without a measured machine, the layout that encode takes for "speed"."""

    clock: Clock | None
    batch: int | None = None

    def options(self, info: TensorInfo, stats: TensorStats) -> list[Option]:
        """The layouts that were measured; a vector is no operand of a product, nor is a wide integer."""
        if len(info.shape) < 2 or (self.clock is not None and not self.clock.multiplies(stats.spec.element)):
            return []
        if self.clock is None:
            source = CountedSource(stats.spec, stats.nnz, stats)
            layout = structured(source, self.batch) or fastest(stats.nnz, stats.spec, self.batch)
            return [_sized_as(layout.name, layout.given, stats)] if layout.name != "dense" else []
        found = []
        for name, params in self.clock.executed():
            with suppress(ArgumentError):  # a layout that cannot hold this tensor
                found.append(self.timed(_sized_as(name, params, stats), info, stats))
        return sorted(found, key=lambda option: (option.seconds or 0.0, option.nbytes))

    def timed(self, option: Option, info: TensorInfo, stats: TensorStats) -> Option:
        """With the seconds of a product: packed, or by the fastest dense library."""
        if self.clock is None or len(info.shape) < 2 or not self.clock.multiplies(stats.spec.element):
            return option
        columns = self.batch or 1
        seconds = (
            self.clock.product_seconds(option.layout, option.params, stats.spec, stats.nnz, option.nbytes, columns)
            if option.packed
            else self.clock.dense_seconds(stats.spec, columns)
        )
        return replace(option, seconds=seconds)

    def cost(self, option: Option) -> float:
        """Seconds, or bytes where nothing was measured."""
        return option.nbytes if option.seconds is None else option.seconds

    def pays(self, info: TensorInfo, option: Option, dense: Option) -> bool:
        """Whether it is faster than the dense library, or smaller where nothing was measured."""
        return self.cost(option) < self.cost(dense)


def _sized(request: EncodeRequest, stats: TensorStats) -> list[Option]:
    source = CountedSource(stats.spec, stats.nnz, stats)
    entropy = "auto" if request.objective == "disk" else "none"
    found = [_option(plan, entropy, source, stats) for plan in candidates(request, source)]
    return sorted(found, key=lambda option: option.nbytes)


def _sized_as(name: str, params: Mapping[str, Any], stats: TensorStats) -> Option:
    """One layout without an entropy stage."""
    request = EncodeRequest.of(name, dict(params), "memory", "none")
    source = CountedSource(stats.spec, stats.nnz, stats)
    assert request.layout is not None
    return _option(plan_of(request, request.layout, source), "none", source, stats)


def _option(plan: FramePlan, entropy: str, source: CountedSource, stats: TensorStats) -> Option:
    nbytes = predict(plan, source.counts(needs_of(plan), plan.spec.grid), stats.negative_zeros)
    return Option(plan.layout.name, plan.layout.params, entropy, nbytes)


def demanded(arguments: Mapping[str, Any], stats: TensorStats, objective: str) -> Option:
    """The option that a rule demands by arguments of ``encode``; ArgumentError for one that the tensor cannot take."""
    entropy = arguments.get("entropy", "auto" if objective == "disk" else "none")
    params = {key: value for key, value in arguments.items() if key not in ("layout", "entropy")}
    request = EncodeRequest.of(arguments["layout"], params, "memory", entropy)
    if request.layout is None:
        raise ArgumentError('layout "auto" is what a plan without a rule takes')
    source = CountedSource(stats.spec, stats.nnz, stats)
    return _option(plan_of(request, request.layout, source), entropy, source, stats)
