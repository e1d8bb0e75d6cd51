"""What a layout is: its parameters, the streams that it writes, their exact size, and a plain reference."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np

from codec.dtypes import ElementType, element_type
from codec.entropy import CODINGS, LONGEST, NONE, Items, KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.matrix import Grid, TensorSpec, is_int
from codec.statistics import Counts, Need

Needs = frozenset[Need]
Sizes = np.ndarray | None
NOTHING: Needs = frozenset()
PARTS: Needs = frozenset({Need("parts")})
KEYS: Needs = frozenset({Need("keys")})


@dataclass(frozen=True)
class StreamKind:
    """One stream of a layout: its name, its items, and what may become of it.

    Attributes
    ----------
    name : str
    items : Items
        Width and kind of its items.
    shared : bool
        All segments share one part.
    codings : tuple of str
        What its "coding" may be in a frame, "none" included where it may stay as it is.
    """

    name: str
    items: Items
    shared: bool = False
    codings: tuple[str, ...] = (NONE, *CODINGS)


# Streams are described for every layout that is tried, tensor after tensor.
@lru_cache(maxsize=256)
def unsigned(name: str, width: int, **more: Any) -> StreamKind:
    """A stream of unsigned integers of ``width`` bytes."""
    return StreamKind(name, Items(width), **more)


@lru_cache(maxsize=256)
def values_of(element: ElementType, longest: int = LONGEST, **more: Any) -> StreamKind:
    """The stream ``values``, whose items are elements."""
    return StreamKind("values", Items(element.width, element.kind, longest=longest), **more)


@dataclass(frozen=True)
class Layout(ABC):
    """One layout with its parameters, which are the fields of the instance; None leaves a choice open.

    An instance is checked as far as that needs no tensor. ``fit`` then settles what follows from a tensor's shape, and
    ``choose`` what its counts decide; only a ``complete`` layout can be written.
    """

    name: ClassVar[str]
    number: ClassVar[int]  # enum class Layout in native code
    # Fields that only stand for others, and are not kept in a frame.
    shorthands: ClassVar[tuple[str, ...]] = ()
    # Of parameters that are words, which there are: a frame keeps a word's number.
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # Whether it codes by itself what others leave to the entropy stage.
    self_coded: ClassVar[bool] = False
    # Whether kernels read its parts where they lie: a frame then aligns them, and has zeros behind the last one (spec
    # section 4.3). Parts that are decoded first lie side by side, and end the frame.
    aligned: ClassVar[bool] = True

    # -- which there are -------------------------------------------------------------------------------------------

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Instances that write other bytes than each other: tests and benchmarks go through all of them."""
        return (cls(),)

    @classmethod
    def candidates(cls) -> tuple[Self, ...]:
        """Those of them that may be the smallest for independent zeros."""
        return (cls(),)

    @classmethod
    def choices(cls, spec: TensorSpec, counts: Counts) -> tuple[Self, ...]:
        """The instances among which layout="auto" looks for the smallest, for a tensor of these counts."""
        return cls.candidates()

    @classmethod
    def choices_needs(cls) -> Needs:
        """The statistics that ``choices`` looks at."""
        return NOTHING

    # -- its parameters --------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name, sorted."""
        return {name: getattr(self, name) for name in self._names()}

    @classmethod
    def _names(cls) -> list[str]:
        return sorted(field.name for field in fields(cls) if field.name not in cls.shorthands)

    def to_header(self) -> list[Any]:
        """The parameters as a frame keeps them: sorted by name, and numbers for words."""
        return [self.words[name].index(value) if name in self.words else value for name, value in self.params.items()]

    @classmethod
    def from_header(cls, value: Any) -> Self:
        """From what ``to_header`` gives; FormatError or ArgumentError for anything else."""
        names = cls._names()
        if not isinstance(value, list) or len(value) != len(names):
            raise FormatError(f"parameters {value!r:.200}, expected {len(names)}: {', '.join(names) or 'none'}")
        return cls(**{name: cls._param(name, one) for name, one in zip(names, value, strict=True)})

    @classmethod
    def _param(cls, name: str, value: Any) -> Any:
        """One parameter from what a frame keeps of it."""
        if name not in cls.words:
            return value
        words = cls.words[name]
        if type(value) is not int or not 0 <= value < len(words):
            raise FormatError(f"{name} is {value!r:.50}, expected one of 0 to {len(words) - 1}")
        return words[value]

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that differ from the defaults, by name: what a caller writes."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}

    @property
    def complete(self) -> bool:
        """Whether no choice is left open."""
        open_fields = [field.name for field in fields(self) if getattr(self, field.name) is None]
        return set(open_fields) == set(self.shorthands)

    def grid(self, spec: TensorSpec) -> Grid:
        """The segments that this layout wants; by default those that every layout takes."""
        return spec.grid

    def fit(self, spec: TensorSpec) -> Self:
        """With the parameters that follow from shape and dtype; ArgumentError for those that do not fit them."""
        return self

    def choose(self, spec: TensorSpec, counts: Counts) -> Self:
        """With every choice made, by exact size where ``counts`` tells it, else by what independent zeros come to."""
        return self

    @property
    def choose_needs(self) -> Needs:
        """The statistics that ``choose`` looks at; none where no choice is open."""
        return NOTHING

    def refusal(self, found: int) -> str:
        """Why an entry cannot be stored, and the way out; ``found`` is what the native writer counted, if it counts."""
        return f"layout {self.name} cannot store this entry"

    def native(self) -> tuple[int, ...]:
        """The parameters as the layout's native file numbers them."""
        return ()

    def _check_int(self, field: str, low: int, high: int, none: bool = False) -> None:
        """That a field is an integer in a range, of Python or NumPy, or None where a choice may be left open."""
        value = getattr(self, field)
        if value is None and none:
            return
        if not is_int(value) or not low <= value <= high:
            raise ArgumentError(f"{field}={value!r}; expected an int from {low} to {high}")
        object.__setattr__(self, field, int(value))

    def _check_one_of(self, field: str, allowed: tuple[Any, ...]) -> None:
        """That a field is one of a few values."""
        value = getattr(self, field)
        for one in allowed:
            if value is one or (value == one and (isinstance(value, str) or (is_int(value) and is_int(one)))):
                object.__setattr__(self, field, one)
                return
        raise ArgumentError(f"{field}={value!r}; expected one of {', '.join(map(repr, allowed))}")

    @property
    def always_coded(self) -> bool:
        """Whether what it stores is always entropy-coded, whatever the entropy stage."""
        return self.self_coded or any(NONE not in kind.codings for kind in self.streams(element_type("float32")))

    # -- what it writes --------------------------------------------------------------------------------------------

    @property
    def zero_items(self) -> bool:
        """Whether an item of zero bits among the values has a meaning of its own: padding, and fillers."""
        return False

    @abstractmethod
    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """The streams in their order in the frame."""

    @abstractmethod
    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """Exact bytes of each stream's parts before the entropy stage, for values of ``width`` bytes.

        One number for each segment (int64), or one in all for a shared stream; None where ``counts`` does not hold what
        decides it.
        """

    @property
    def size_needs(self) -> Needs:
        """The statistics that ``stream_bytes`` looks at."""
        return NOTHING

    def part_limit(self, grid: Grid, width: int) -> int:
        """The most bytes that a part of a segment can have before the entropy stage, for values of ``width`` bytes."""
        return 8 * grid.segment_rows * grid.segment_cols + 4 * (grid.segment_rows + 1) + 16

    def share(self, grid: Grid, counts: Counts) -> dict[str, np.ndarray]:
        """What the shared streams hold, by name, from a tensor's counts; asked for before any segment is encoded."""
        return {}

    @property
    def share_needs(self) -> Needs:
        """The statistics that ``share`` looks at."""
        return NOTHING

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """The keys of a stream's items, which its coding is predicted from; None where ``counts`` does not tell."""
        return counts.keys if stream == "values" else None

    @property
    def key_needs(self) -> Needs:
        """The statistics that ``key_counts`` looks at."""
        return KEYS

    @abstractmethod
    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """Expected bits per element of an endless row of independent zeros: no headers, segments or restarts."""

    def pointer_bits(self, rows: int, cols: int) -> float:
        """Bits per element of a matrix's pointers to rows, which ``ideal_bits`` does not count."""
        return 0.0

    # -- the plain reference ---------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """One segment's streams from its elements (2-d, unsigned) and which are stored (bool).

        The plain reference that tests hold native code to; frames are written by native/layouts/.
        """

    @abstractmethod
    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """One segment's elements (2-d, unsigned ``dtype``) from its streams (uint8), by the spec.

        Raises FormatError, naming the stream, for anything that the spec says to refuse.
        """


def items(stream: np.ndarray, dtype: str | np.dtype, count: int | None, name: str) -> np.ndarray:
    """A stream's bytes as items, exactly ``count`` of them where that is given; FormatError otherwise."""
    found = np.dtype(dtype)
    if stream.nbytes % found.itemsize or (count is not None and stream.nbytes != count * found.itemsize):
        expected = f"{count * found.itemsize}" if count is not None else f"a multiple of {found.itemsize}"
        raise FormatError(f"{stream.nbytes} bytes, expected {expected}", stream=name)
    return stream.view(found)


def total(sizes: tuple[Sizes, ...]) -> int:
    """Bytes of all parts whose sizes are known."""
    return sum(int(one.sum()) for one in sizes if one is not None)


def octets(items: np.ndarray) -> np.ndarray:
    """Items as the bytes of a stream."""
    return np.ascontiguousarray(items).reshape(-1).view(np.uint8)


def with_zeros(known: KeyCounts | None, times: int, element: ElementType) -> KeyCounts | None:
    """Keys of values, and of so many items of zero bits among them."""
    zero = 1 << 8 * element.width - 1 if element.kind == "signed" else 0
    return None if known is None else known.adding(zero, times)


def keys_of_bytes(counts: np.ndarray | None) -> KeyCounts | None:
    """One-byte items counted by value."""
    if counts is None:
        return None
    used = np.flatnonzero(counts)
    return KeyCounts(np.asarray(counts, np.uint64), 0, 0, int(np.bitwise_or.reduce(used)) if len(used) else 0)
