"""What a coding is: how the parts of a stream become fewer bytes, and how the choice among codings is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgpack
import numpy as np

from codec import kernels
from codec.errors import FormatError

# The "coding" of a stream whose parts are its items, one after the other.
NONE = "none"
KINDS = ("unsigned", "signed", "float")
# Bits of the longest code word, unless a layout asks for more: tables of that size stay in fast memory.
LONGEST = 12
# Histograms have at most this many bins: more than a code needs, few enough to count in the L2 cache.
BINS_BITS = 16


@dataclass(frozen=True)
class Items:
    """The items of a stream (spec section 6.2).

    Attributes
    ----------
    width : int
        Bytes of an item.
    kind : {"unsigned", "signed", "float"}
        How the bits of an item are read as a number.
    bits : int
        Bits of an item, where items are codebook codes of less than a byte; 0 for whole bytes.
    longest : int
        Bits of the longest code word that a coding may use for them.
    """

    width: int
    kind: str = "unsigned"
    bits: int = 0
    longest: int = LONGEST

    @property
    def key_bits(self) -> int:
        """Bits of a key: an item without its sign if it is a float."""
        return self.bits or 8 * self.width - (self.kind == "float")


@dataclass(frozen=True, eq=False)
class KeyCounts:
    """How often keys occur (spec section 6.2): ``counts[i]`` of them have ``(key >> shift) - first == i``.

    ``or_of_keys`` is the bitwise OR of all keys: low bits that are zero in it are zero in every key.
    """

    counts: np.ndarray
    shift: int
    first: int
    or_of_keys: int

    @classmethod
    def bins(cls, items: Items, least: int, most: int) -> tuple[int, int, int]:
        """(shift, first, bins) for keys from ``least`` to ``most``: as fine as 2**16 bins allow.

        Items of one or two bytes are counted whole, and floats by their top bits, whatever range they take.
        """
        full = min(BINS_BITS, 8 * items.width)
        if items.width <= 2 or items.kind == "float" or most < least:
            return max(0, items.key_bits - full) if items.width > 2 else 0, 0, 1 << full
        shift = max(0, (most - least).bit_length() - full)
        while (most >> shift) - (least >> shift) >> full:
            shift += 1
        return shift, least >> shift, (most >> shift) - (least >> shift) + 1

    @classmethod
    def of(cls, values: np.ndarray, times: np.ndarray, width: int) -> "KeyCounts":
        """Unsigned items of ``width`` bytes that occur so many times."""
        used = np.asarray(values)[np.asarray(times) > 0].astype(np.uint64)
        least, most = (int(used.min()), int(used.max())) if len(used) else (1, 0)
        shift, first, bins = cls.bins(Items(width), least, most)
        counts = np.zeros(bins, np.uint64)
        at = (np.asarray(values).astype(np.uint64) >> np.uint64(shift)) - np.uint64(first)
        np.add.at(counts, at[np.asarray(times) > 0], np.asarray(times)[np.asarray(times) > 0].astype(np.uint64))
        return cls(counts, shift, first, int(np.bitwise_or.reduce(used)) if len(used) else 0)

    def adding(self, key: int, times: int) -> "KeyCounts":
        """The same and so many more of one key; where the bins do not reach it, coarser ones."""
        if not times:
            return self
        counts, shift, first = self.counts, self.shift, self.first
        while True:
            low, high = min(first, key >> shift), max(first + len(counts) - 1, key >> shift)
            if high - low < 1 << BINS_BITS:
                break
            odd = first % 2
            pairs = np.concatenate([np.zeros(odd, np.uint64), counts, np.zeros((len(counts) + odd) % 2, np.uint64)])
            counts, shift, first = pairs.reshape(-1, 2).sum(axis=1, dtype=np.uint64), shift + 1, first >> 1
        out = np.zeros(high - low + 1, np.uint64)
        out[first - low : first - low + len(counts)] = counts
        out[(key >> shift) - low] += np.uint64(times)
        return KeyCounts(out, shift, low, self.or_of_keys | key)


class RawStream(Protocol):
    """A stream on its way into a frame, before the entropy stage."""

    @property
    def items(self) -> Items:
        """Its items."""

    @property
    def parts(self) -> int:
        """How many parts it has."""

    @property
    def nbytes(self) -> int:
        """Bytes of all its parts without a coding."""

    def key_counts(self) -> KeyCounts:
        """The keys of all its items."""

    def part(self, number: int) -> memoryview:
        """The bytes of one part as they are without a coding; valid until the stream is coded."""

    def code(self, coder: Any) -> None:
        """Code every part natively."""

    def replace(self, parts: Sequence[bytes]) -> None:
        """Put other bytes in the place of every part."""

    @property
    def threads(self) -> int:
        """Threads that coding may use."""


@dataclass(frozen=True)
class Attempt:
    """What a coding makes of a stream, once ``apply`` is called: so many bytes, right within its parts' rounding."""

    nbytes: int
    state: Any
    apply: Callable[[], None]


# Bytes of a stream without a coding in the header: the number 0.
_UNCODED = len(msgpack.packb(0))


class Coding(ABC):
    """One coding of the entropy stage. What is needed beside the parts to decode them is its state, in the header."""

    name: ClassVar[str]
    number: ClassVar[int]  # in a frame, where 0 is "none"

    @abstractmethod
    def attempt(self, stream: RawStream, least: int | None) -> Attempt | None:
        """What this makes of a stream; None where it would surely not be smaller than ``least`` bytes (None: whatever
        comes out).
        """

    @abstractmethod
    def predict(self, items: Items, counts: KeyCounts | None, nbytes: int, parts: int) -> tuple[int, Any] | None:
        """Bytes and state for a stream of ``nbytes`` in so many parts, from its key counts; None where nothing can be
        said, and the stream counts as incompressible.
        """

    def to_header(self, state: Any) -> list[Any]:
        """What follows the coding's number in the header; empty for a coding without state."""
        return []

    def said(self, state: Any) -> Any:
        """A stream of this coding in the header: the coding's number, in an array with its state if it has one."""
        state = self.to_header(state)
        return [self.number, *state] if state else self.number

    def header_bytes(self, state: Any) -> int:
        """Bytes that a stream of this coding takes more in the header than a stream without a coding."""
        return len(msgpack.packb(self.said(state))) - _UNCODED

    def from_header(self, values: list[Any], items: Items) -> Any:
        """The state from what ``to_header`` gives; FormatError for anything else."""
        if values:
            raise FormatError(f"coding {self.name} has no state in the header; found {values!r:.200}")
        return None

    def coder(self, state: Any) -> "kernels.Coder | None":
        """What decodes parts inside the kernels; None for a coding whose parts ``expand`` decodes ahead of them."""
        return None

    def expand(
        self, parts: Sequence[np.ndarray], limit: int, threads: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of coded parts, each at most ``limit`` of them, in one buffer with the kernels' slack at its end.

        Returns the buffer (uint8), and where each part begins in it (uint64) and its length (uint32). Raises
        FormatError with ``offset`` set to the number of the part that is at fault.
        """
        raise AssertionError(f"{self.name} parts are decoded by the kernels")
