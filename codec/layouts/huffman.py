"""huffman: the gaps between stored entries and their values, both in canonical Huffman codes (spec section 5.4).

Deep Compression's third stage (Han, Mao, Dally, ICLR 2016, section 4) on a lossless relative index: a gap item counts
the zeros before an entry; 255 stands for 255 zeros and no entry, so no filler values are spent.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from codec import kernels
from codec.dtypes import ElementType
from codec.entropy import Items, KeyCounts
from codec.errors import FormatError
from codec.layouts.base import KEYS, Layout, Needs, Sizes, StreamKind, items, keys_of_bytes, octets, values_of
from codec.matrix import Grid
from codec.statistics import Counts, Need

ESCAPE = 255
_CODED = ("huffman",)


@dataclass(frozen=True)
class Huffman(Layout):
    """Streams: ``gaps``, ``values``, always Huffman-coded. Parameter: ``max_length`` of a code word (8 to 15 bits)."""

    name = "huffman"
    number = 3

    max_length: int = 12

    def __post_init__(self) -> None:
        self._check_int("max_length", 8, 15)

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """The default, and short code words."""
        return (cls(), cls(max_length=9))

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Gap bytes, values."""
        gaps = StreamKind("gaps", Items(1, longest=self.max_length), codings=_CODED)
        return (gaps, values_of(element, self.max_length, codings=_CODED))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """Not known of the gaps, which are never stored as they are; width for each stored entry."""
        return (None, None if counts.parts is None else counts.parts.astype(np.int64) * width)

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Gap items as counted."""
        if stream == "gaps":
            return keys_of_bytes(counts.gaps)
        return super().key_counts(stream, grid, element, counts)

    @property
    def key_needs(self) -> Needs:
        """The gaps."""
        return KEYS | {Need("gaps")}

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """d b, and the code words of the gap items: a gap of g has probability d s**g, an escape s**255."""
        if sparsity >= 1:
            return 0.0
        within = (1 - sparsity) * sparsity ** np.arange(ESCAPE + 1.0)
        within[ESCAPE] = sparsity**ESCAPE
        counts = np.rint(within * 2.0**40).astype(np.uint64)
        items = 1 / (1 - within[ESCAPE])  # for each entry
        lengths = np.frombuffer(kernels.code_lengths(counts, self.max_length), np.uint8)
        return float((1 - sparsity) * (value_bits + items * (within @ lengths)))

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gaps over the flattened segment; zeros after the last entry are not coded."""
        gaps = np.diff(np.flatnonzero(stored), prepend=-1) - 1
        coded = b"".join(bytes([ESCAPE]) * int(gap // ESCAPE) + bytes([int(gap % ESCAPE)]) for gap in gaps)
        return np.frombuffer(coded, np.uint8), octets(segment[stored])

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Adds up the gaps; each but an escape puts the next value after its zeros."""
        gaps = streams[0].astype(np.int64)
        if len(gaps) and gaps[-1] == ESCAPE:
            raise FormatError("the last gap is an escape, which places no entry", stream="gaps")
        entry = gaps < ESCAPE
        positions = (np.cumsum(np.where(entry, gaps + 1, gaps)) - 1)[entry]
        if len(positions) and positions[-1] >= rows * cols:
            raise FormatError(f"an entry at {positions[-1]}, past the segment's {rows * cols} elements", stream="gaps")
        out = np.zeros(rows * cols, dtype)
        out[positions] = items(streams[1], dtype, len(positions), "values")
        return out.reshape(rows, cols)
