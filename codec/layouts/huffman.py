"""huffman: the gaps between stored entries and their values, both in canonical Huffman codes (spec section 5.4).

Deep Compression's third stage (Han, Mao, Dally, ICLR 2016, section 4) on a lossless relative index: a gap item counts
the zeros before an entry; 255 stands for 255 zeros and no entry, so no filler values are spent.
"""

from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import code_lengths
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, histogram_of_bytes, items, octets

ESCAPE = 255


class Huffman(Layout):
    """Streams: ``gaps``, ``values``, always Huffman-coded. Parameter: ``max_length`` of a code word (8 to 15 bits)."""

    name = "huffman"
    code = 3
    entropy_coded = True
    defaults: ClassVar[Params] = {"max_length": 12}
    variants = ({}, {"max_length": 9})

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """A length that 256 symbols fit into."""
        length = params["max_length"]
        if isinstance(length, bool) or not isinstance(length, int) or not 8 <= length <= 15:
            raise ArgumentError(f"max_length={length!r}; expected an int from 8 to 15")
        return params

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Gap bytes, values."""
        return (StreamKind("gaps", 1, "unsigned"), StreamKind("values", element.width, element.kind))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """One byte for each gap item, escapes included; width for each stored entry."""
        gaps = int(counts.gaps.sum()) if counts.gaps is not None else None
        return (gaps, counts.nnz * width)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Gap items as counted."""
        if stream == "gaps":
            return histogram_of_bytes(counts.gaps)
        return super().histogram(stream, grid, element, counts, params)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """d b, and the code words of the gap items: a gap of g has probability d s**g, an escape s**255."""
        if sparsity >= 1:
            return 0.0
        within = (1 - sparsity) * sparsity ** np.arange(ESCAPE + 1.0)
        within[ESCAPE] = sparsity**ESCAPE
        counts = np.rint(within * 2.0**40).astype(np.int64)
        items = 1 / (1 - within[ESCAPE])  # for each entry
        lengths = code_lengths(counts, params["max_length"])
        return float((1 - sparsity) * (value_bits + items * (within @ lengths)))

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Gaps over the flattened segment; zeros after the last entry are not coded."""
        gaps = np.diff(np.flatnonzero(stored), prepend=-1) - 1
        coded = b"".join(bytes([ESCAPE]) * int(gap // ESCAPE) + bytes([int(gap % ESCAPE)]) for gap in gaps)
        return np.frombuffer(coded, np.uint8), octets(segment[stored])

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
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
