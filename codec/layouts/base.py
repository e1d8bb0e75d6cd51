"""What a layout is: the names and kinds of its streams, its parameters, its exact size, and its plain reference."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.counts import BLOCKS as BLOCKS
from codec.layouts.counts import GROUPS as GROUPS
from codec.layouts.counts import Counts as Counts

Params = Mapping[str, Any]


@dataclass(frozen=True)
class StreamKind:
    """The items of one stream, as the entropy stage sees them: bytes each, and "unsigned", "signed" or "float"."""

    name: str
    width: int
    kind: str
    shared: bool = False  # one part, segment 0's, for all segments
    bits: int = 0  # of an item where items are codes of less than a byte, packed unless Huffman-coded; 0: whole bytes
    plain: bool = False  # never goes through the entropy stage


# Keys of a stream's items by their top bits, and the OR of all: what a Huffman code is chosen from (codec.entropy).
Histogram = tuple[np.ndarray, int]


class Layout(ABC):
    """One layout. Instances have no state: parameters travel as a mapping, canonical once ``params`` has seen them."""

    name: ClassVar[str]
    code: ClassVar[int]  # enum class Layout in native/kernels.hpp
    entropy_coded: ClassVar[bool] = False  # every stream is Huffman-coded by the layout's own rule
    defaults: ClassVar[Mapping[str, Any]] = {}
    # Parameters that give other bytes than the defaults: tests and benchmarks go through all of them.
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    # Those of them that may be smaller than the others: what layout="auto" weighs for "disk" and "memory".
    candidates: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def params(self, given: Params, grid: Grid) -> dict[str, Any]:
        """Canonical parameters, sorted by name: those given, checked, and the others by default.

        Raises ArgumentError for an unknown name or a value that the layout cannot take.
        """
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise ArgumentError(f"layout {self.name} has no parameter {unknown[0]!r}; it has: {known}")
        merged = {**self.defaults, **{k: v for k, v in given.items() if v is not None}}
        return dict(sorted(self.check(merged, grid).items()))

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """Checked parameters with every choice made; ArgumentError for one that cannot be."""
        return params

    def decided(self, params: Params) -> bool:
        """Whether ``params`` leaves nothing to ``decide``; only then can a frame record it."""
        return True

    def known(self, given: Params) -> bool:
        """Whether ``decide`` needs no counts to complete the parameters given."""
        return True

    def decide(self, params: Params, grid: Grid, element: ElementType, counts: Counts) -> dict[str, Any]:
        """Parameters with what depends on the tensor chosen too: by exact size if ``counts`` tells, else expected."""
        return dict(params)

    def asks(self, given: Params) -> tuple[tuple[tuple[Any, int], ...], tuple[int, ...]]:
        """Block shapes and group sizes that ``decide`` or the exact size need for the parameters given."""
        return (), ()

    def refusal(self, params: Params, found: int) -> str:
        """Why an entry cannot be stored, and the way out; ``found`` is what the native writer counted, if it counts."""
        return f"layout {self.name} cannot store this entry"

    def native(self, params: Params) -> tuple[int, ...]:
        """The parameters as the layout's native file numbers them."""
        return ()

    def padded(self, params: Params) -> bool:
        """Whether zeros are stored that stand for no entry (fillers, zeros in blocks): streams do not tell nnz."""
        return False

    def zero_items(self, params: Params) -> bool:
        """Whether an item of zero bits among the values has a meaning of its own: pads, and fillers."""
        return self.padded(params)

    def values_of_parts(self, grid: Grid, counts: Counts, params: Params) -> np.ndarray | None:
        """Items of stream "values" in each segment; None where ``counts`` does not tell (for layouts without pads)."""
        if self.padded(params):
            return None
        if counts.parts is not None or counts.rows is None:
            return counts.parts
        starts = np.cumsum([0, *(place.rows for place in grid.places())][:-1])
        return np.add.reduceat(counts.rows, starts) if grid.size else np.zeros(0, np.uint64)

    def share(self, grid: Grid, counts: Counts, params: Params) -> dict[str, np.ndarray]:
        """What the shared streams hold, by name, from a tensor's counts; asked for before any segment is encoded."""
        return {}

    @abstractmethod
    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """The streams in their order in the frame."""

    @abstractmethod
    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """Exact bytes of each stream before the entropy stage; None where ``counts`` does not hold what decides it."""

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Keys of a stream's items, for its Huffman code; None where ``counts`` does not tell."""
        return (counts.keys, counts.or_of_keys) if stream == "values" and counts.keys is not None else None

    def choices(self, counts: Counts, grid: Grid) -> tuple[Params, ...]:
        """The parameter sets among which layout="auto" looks for the smallest, for a tensor of these counts."""
        return self.candidates

    @abstractmethod
    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """Expected bits per element of an endless row of independent zeros: no headers, segments or restarts."""

    def pointer_bits(self, rows: int, cols: int, params: Params) -> float:
        """Bits per element of a matrix's pointers to rows, which ``ideal_bits`` does not count."""
        return 0.0

    @abstractmethod
    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Reference encoder: one segment's streams from its elements (2-d, unsigned) and which are stored (bool)."""

    @abstractmethod
    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Reference decoder, from the spec: one segment's elements (2-d, unsigned ``dtype``) from its streams (uint8).

        Raises FormatError, naming the stream, for anything that the spec says to refuse.
        """


def choice(params: Params, name: str, allowed: tuple[Any, ...]) -> Any:
    """A parameter that is one of a few values."""
    if params[name] not in allowed or type(params[name]) is not type(allowed[0]):
        raise ArgumentError(f"{name}={params[name]!r}; expected one of {', '.join(map(repr, allowed))}")
    return params[name]


def items(stream: np.ndarray, dtype: str | np.dtype, count: int | None, name: str) -> np.ndarray:
    """A stream's bytes as items, exactly ``count`` of them where that is given; FormatError otherwise."""
    found = np.dtype(dtype)
    if stream.nbytes % found.itemsize or (count is not None and stream.nbytes != count * found.itemsize):
        expected = f"{count * found.itemsize}" if count is not None else f"a multiple of {found.itemsize}"
        raise FormatError(f"{stream.nbytes} bytes, expected {expected}", stream=name)
    return stream.view(found)


def octets(items: np.ndarray) -> np.ndarray:
    """Items as the bytes of a stream."""
    return np.ascontiguousarray(items).reshape(-1).view(np.uint8)


def histogram_of(values: np.ndarray, counts: np.ndarray, width: int) -> Histogram:
    """Unsigned items of ``width`` bytes that occur ``counts`` times, by the top bits of their keys."""
    out = np.zeros(1 << min(16, 8 * width), np.uint64)
    np.add.at(out, values >> max(0, 8 * width - 16), counts)
    used = values[counts > 0]
    return out, int(np.bitwise_or.reduce(used)) if len(used) else 0


def with_zeros(known: Histogram, count: int, element: ElementType) -> Histogram:
    """Keys of values, and of so many items of zero bits among them."""
    keys, top = known[0].copy(), 1 << 8 * element.width - 1
    signed = element.kind == "signed"
    keys[len(keys) // 2 if signed else 0] += np.uint64(count)
    return keys, known[1] | (top if signed and count else 0)


def histogram_of_bytes(counts: np.ndarray | None) -> Histogram | None:
    """One-byte items by value."""
    return None if counts is None else histogram_of(np.arange(256), counts, 1)
