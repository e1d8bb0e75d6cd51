"""relative_index: the zeros before each stored entry in a few bits, then the values (spec section 5.5).

``filler="value"`` is the published scheme (Deep Compression, EIE, SCNN, MACKO): a gap that overflows stores a zero.
``filler="escape"`` spends only a code there. ``of="zeros"`` lists the zeros instead, for tensors of few of them.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.layouts.base import (
    KEYS,
    Layout,
    Needs,
    Sizes,
    StreamKind,
    items,
    keys_of_bytes,
    octets,
    unsigned,
    values_of,
    with_zeros,
)
from codec.layouts.gaps import (
    MOST_BITS,
    byte_histogram,
    code_histogram,
    endless,
    expected,
    gaps_before,
    join,
    pack_bits,
    split,
    stored_zero,
    unpack_bits,
)
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, Need

_COUNT = 4  # bytes of the number of codes that a part of the gaps begins with


@dataclass(frozen=True)
class RelativeIndex(Layout):
    """Streams: ``steps``, ``values``.

    Parameters: ``bits`` of a code, 1 to 16 (by default those of the smallest size); ``filler`` ("escape" or "value");
    ``of`` ("nonzeros" or "zeros").
    """

    name = "relative_index"
    number = 4
    words: ClassVar = {"filler": ("escape", "value"), "of": ("nonzeros", "zeros")}

    bits: int | None = None
    filler: str = "escape"
    of: str = "nonzeros"

    def __post_init__(self) -> None:
        self._check_int("bits", 1, MOST_BITS, none=True)
        self._check_one_of("filler", self.words["filler"])
        self._check_one_of("of", self.words["of"])
        if self.of == "zeros" and self.filler == "value":
            raise ArgumentError(
                'filler="value" with of="zeros": there are no values between zeros; use filler="escape"'
            )

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Few and many bits of every kind."""
        return (
            *cls.candidates(),
            cls(bits=1),
            cls(bits=3, filler="value"),
            cls(bits=5, of="zeros"),
            cls(bits=13),
            cls(bits=16, filler="value"),
        )

    @classmethod
    def candidates(cls) -> tuple[Self, ...]:
        """Escapes, fillers, and zeros listed."""
        return (cls(), cls(filler="value"), cls(of="zeros"))

    def choose(self, spec: TensorSpec, counts: Counts) -> Self:
        """The bits of the smallest streams; of equal ones the fewest."""
        if self.bits is not None:
            return self
        known = expected(counts, spec.grid)
        idle = self._idle_codes(known)
        if known.parts is None or idle is None:
            return replace(self, bits=MOST_BITS)
        stored = known.parts.astype(np.int64)[:, None]
        listed = stored if self.of == "nonzeros" else spec.grid.elements[:, None] - stored
        sizes = -(-(listed + idle) * np.arange(1, MOST_BITS + 1) // 8)
        if self.filler == "value":
            sizes = sizes + idle * spec.element.width
        return replace(self, bits=1 + int(np.argmin(sizes.sum(axis=0))))

    @property
    def choose_needs(self) -> Needs:
        """Those of the size, where bits are left out."""
        return self.size_needs if self.bits is None else frozenset()

    @property
    def _bits(self) -> int:
        """Bits of a code once chosen; a size of any other is none of this layout's."""
        return MOST_BITS if self.bits is None else self.bits

    def _idle_codes(self, counts: Counts) -> np.ndarray | None:
        """Codes of each segment that place no entry, for codes of 1 to 16 bits (int64)."""
        listed = counts.escapes if self.of == "nonzeros" else counts.zero_escapes
        table = counts.fillers if self.filler == "value" else listed
        return None if table is None else table.astype(np.int64)

    def _idle(self, counts: Counts) -> np.ndarray | None:
        """Codes of each segment that place no entry (int64)."""
        table = self._idle_codes(counts)
        return None if table is None else table[:, self._bits - 1]

    def refusal(self, found: int) -> str:
        """Only kept zeros, under fillers."""
        return stored_zero(f"{self.bits} bits")

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """A code for each entry and each overflow; a value too for each with fillers."""
        density = 1 - sparsity
        tried = range(1, MOST_BITS + 1) if self.bits is None else (self.bits,)
        if self.filler == "value":
            return min((value_bits + bits) * endless(sparsity, 1 << bits) for bits in tried)
        others = density if self.of == "zeros" else sparsity
        return density * value_bits + min(bits * endless(others, (1 << bits) - 1) for bits in tried)

    @property
    def zero_items(self) -> bool:
        """Fillers that are values."""
        return self.filler == "value"

    def native(self) -> tuple[int, ...]:
        """Bits, whether fillers are values, whether zeros are listed."""
        return (self._bits, int(self.filler == "value"), int(self.of == "zeros"))

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Packed codes by the byte, values."""
        return (unsigned("steps", 1), values_of(element))

    @property
    def size_needs(self) -> Needs:
        """The gaps before what is listed, and the entries of each segment."""
        return frozenset({Need("gaps" if self.of == "nonzeros" else "zero_gaps"), Need("parts")})

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A segment's codes rounded up to a byte, and 4; width for each stored entry and each filler."""
        idle = self._idle(counts)
        if counts.parts is None:
            return (None, None)
        stored = counts.parts.astype(np.int64)
        if idle is None:
            return (None, None if self.filler == "value" else stored * width)
        listed = stored if self.of == "nonzeros" else grid.elements - stored
        values = stored + idle if self.filler == "value" else stored
        return (_COUNT + -(-(listed + idle) * self._bits // 8), values * width)

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Bytes of codes as the gaps fall; values, and a zero for each filler."""
        idle, value = self._idle(counts), self.filler == "value"
        if stream == "values":
            if not value:
                return counts.keys
            return None if idle is None else with_zeros(counts.keys, int(idle.sum()), element)
        lengths = counts.gap_lengths if self.of == "nonzeros" else counts.zero_gap_lengths
        sizes = self.stream_bytes(grid, element.width, counts)[0]
        if lengths is None or idle is None or sizes is None:
            return None
        size = int(sizes.sum())
        step = (1 << self._bits) - (not value)
        codes = code_histogram(lengths, step, self._bits, int(idle.sum()))
        out = byte_histogram(codes, self._bits, size - _COUNT * grid.segments)
        out[0] += np.uint64(_COUNT * grid.segments)
        return keys_of_bytes(out)

    @property
    def key_needs(self) -> Needs:
        """Those of the size, and the values."""
        return KEYS | self.size_needs

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gaps over the flattened segment; what follows the last listed element is not coded."""
        bits, value = self._bits, self.filler == "value"
        found = gaps_before(stored if self.of == "nonzeros" else ~stored)
        codes, entry = split(found, (1 << bits) - (not value), (1 << bits) - 1)
        values = segment[stored]
        if value:
            filled = np.zeros(len(codes), segment.dtype)
            filled[entry] = values
            if np.any(entry & (codes == (1 << bits) - 1) & (filled == 0)):
                raise ArgumentError(self.refusal(1))
            values = filled
        count = np.array([len(codes)], "<u4")
        return np.concatenate((octets(count), pack_bits(codes, bits))), octets(values)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Adds up the gaps; each but an escape or a filler puts the next value after its zeros."""
        bits, value = self._bits, self.filler == "value"
        if len(streams[0]) < _COUNT:
            raise FormatError(f"{len(streams[0])} bytes, expected {_COUNT} or more", stream="steps")
        count = int(streams[0][:_COUNT].view("<u4")[0])
        codes = unpack_bits(streams[0][_COUNT:], count, bits, "steps")
        entry = codes < (1 << bits) - 1
        if value:
            filled = items(streams[1], dtype, count, "values")
            entry |= filled != 0
        positions = join(codes, entry, (1 << bits) - (not value), rows * cols, "steps")
        listed = np.zeros(rows * cols, bool)
        listed[positions] = True
        stored = listed if self.of == "nonzeros" else ~listed
        out = np.zeros(rows * cols, dtype)
        out[stored] = filled[entry] if value else items(streams[1], dtype, int(stored.sum()), "values")
        return out.reshape(rows, cols)
