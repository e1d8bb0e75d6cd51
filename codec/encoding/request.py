"""What a caller asked of ``encode``, checked; and the plan of one frame that answers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from codec.entropy import NONE, check_entropy, codings_of
from codec.errors import ArgumentError
from codec.frame import Description
from codec.layouts import Layout, StreamKind, make_layout
from codec.matrix import is_int
from codec.values import RAW, ValueCoding

OBJECTIVES = ("disk", "memory", "speed")


def check_objective(objective: Any) -> str:
    """``objective`` if it is one; ArgumentError otherwise."""
    if objective not in OBJECTIVES or not isinstance(objective, str):
        raise ArgumentError(f"objective={objective!r}; expected one of {', '.join(OBJECTIVES)}")
    return objective


def check_batch(batch: Any) -> None:
    """ArgumentError for a batch that is neither None nor a number of columns."""
    if batch is not None and (not is_int(batch) or batch < 1):
        raise ArgumentError(f"batch={batch!r}; expected an int from 1 on, the columns that are multiplied at a time")


@dataclass(frozen=True)
class EncodeRequest:
    """What a caller asked for; ``layout`` is None for "auto", ``batch`` for one that was not told."""

    layout: Layout | None
    objective: str = "disk"
    entropy: str = "auto"
    values: ValueCoding = RAW
    batch: int | None = None

    @classmethod
    def of(
        cls,
        layout: Any,
        params: Mapping[str, Any],
        objective: Any = "disk",
        entropy: Any = "auto",
        values: ValueCoding = RAW,
        batch: Any = None,
    ) -> Self:
        """From the arguments of ``encode``; ArgumentError for any that cannot be used."""
        check_objective(objective)
        check_batch(batch)
        check_entropy(entropy)
        if not (isinstance(layout, str) and layout == "auto"):
            return cls(make_layout(layout, params), objective, entropy, values)
        if params:
            raise ArgumentError(
                f'parameter {next(iter(params))!r} with layout="auto"; name the layout that it belongs to'
            )
        return cls(None, objective, entropy, values, batch)

    @property
    def codings(self) -> tuple[str, ...]:
        """What streams may be coded as: "auto" is every coding for "disk" and none for the other objectives."""
        return codings_of(self.entropy if self.entropy != "auto" or self.objective == "disk" else NONE)


@dataclass(frozen=True)
class FramePlan(Description):
    """A frame to be made: which codings its streams try, and what the shared ones hold but for a codebook."""

    codings: tuple[str, ...] = (NONE,)
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)

    def allowed(self, kind: StreamKind) -> tuple[str, ...]:
        """The codings that a stream tries."""
        return tuple(name for name in kind.codings if name in self.codings) or kind.codings


def check_codings(layout: Layout, kinds: tuple[StreamKind, ...], codings: tuple[str, ...], entropy: str) -> None:
    """ArgumentError where a layout has a coding of its own and another one was asked for."""
    if layout.self_coded and entropy != "auto":
        raise ArgumentError(
            f"entropy={entropy!r} does not apply to layout {layout.name}, which codes all that it stores itself"
        )
    for kind in kinds:
        if entropy != "auto" and not set(kind.codings) & set(codings):
            raise ArgumentError(
                f"entropy={entropy!r} does not apply to layout {layout.name}, whose streams are always "
                f"coded as {' or '.join(kind.codings)}"
            )
