"""relative_index: the zeros before each stored entry in a few bits, then the values (spec section 5.5).

``filler="value"`` is the published scheme (Deep Compression, EIE, SCNN, MACKO): a gap that overflows stores a zero.
``filler="escape"`` spends only a code there. ``of="zeros"`` lists the zeros instead, for tensors of few of them.
"""

from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, choice, items, octets, with_zeros
from codec.layouts.gaps import (
    MOST_BITS,
    byte_histogram,
    check_bits,
    code_histogram,
    endless,
    expected,
    extra,
    gaps_before,
    join,
    pack,
    split,
    stored_zero,
    unpack,
)

_COUNT = 4  # bytes of the number of codes that a part of the gaps begins with


class RelativeIndex(Layout):
    """Streams: ``gaps``, ``values``.

    Parameters: ``bits`` of a code, 1 to 16 (by default those of the smallest size); ``filler`` ("escape" or "value");
    ``of`` ("nonzeros" or "zeros").
    """

    name = "relative_index"
    code = 4
    defaults: ClassVar[Params] = {"bits": None, "filler": "escape", "of": "nonzeros"}
    variants = (
        {},
        {"filler": "value"},
        {"of": "zeros"},
        {"bits": 1},
        {"bits": 3, "filler": "value"},
        {"bits": 5, "of": "zeros"},
        {"bits": 13},
        {"bits": 16, "filler": "value"},
    )
    candidates = ({}, {"filler": "value"}, {"of": "zeros"})

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """Bits in range, a known filler and of; fillers stand between stored entries, not between zeros."""
        if params["bits"] is not None:
            check_bits(params["bits"])
        choice(params, "filler", ("escape", "value"))
        choice(params, "of", ("nonzeros", "zeros"))
        if params["of"] == "zeros" and params["filler"] == "value":
            raise ArgumentError(
                'filler="value" with of="zeros": there are no values between zeros; use filler="escape"'
            )
        return params

    def decided(self, params: Params) -> bool:
        """With a number of bits."""
        return params["bits"] is not None

    def known(self, given: Params) -> bool:
        """Bits are given."""
        return given.get("bits") is not None

    def decide(self, params: Params, grid: Grid, element: ElementType, counts: Counts) -> dict[str, Any]:
        """The bits of the smallest streams; of equal ones the fewest."""
        if params["bits"] is not None:
            return dict(params)
        known = expected(counts, grid)
        sizes = []
        for bits in range(1, MOST_BITS + 1):
            found = self.stream_bytes(grid, element.width, known, {**params, "bits": bits})
            sizes.append(sum(size or 0 for size in found))
        return {**params, "bits": 1 + sizes.index(min(sizes))}

    def refusal(self, params: Params, found: int) -> str:
        """Only kept zeros, under fillers."""
        return stored_zero(f"{params['bits']} bits")

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """A code for each entry and each overflow; a value too for each with fillers."""
        if params.get("bits") is None:
            return min(self.ideal_bits(sparsity, value_bits, {**params, "bits": k}) for k in range(1, MOST_BITS + 1))
        bits, density = params["bits"], 1 - sparsity
        if params.get("filler", "escape") == "value":
            return (value_bits + int(bits)) * endless(sparsity, 1 << bits)
        others = density if params.get("of", "nonzeros") == "zeros" else sparsity
        return density * value_bits + int(bits) * endless(others, (1 << bits) - 1)

    def zero_items(self, params: Params) -> bool:
        """Fillers that are values."""
        return bool(params["filler"] == "value")

    def values_of_parts(self, grid: Grid, counts: Counts, params: Params) -> np.ndarray | None:
        """Entries, and the fillers among them."""
        if params["filler"] != "value" or counts.parts is None:
            return counts.parts
        return None if counts.fillers is None else counts.parts + counts.fillers[:, params["bits"] - 1]

    def native(self, params: Params) -> tuple[int, ...]:
        """Bits, whether fillers are values, whether zeros are listed."""
        return (params["bits"], int(params["filler"] == "value"), int(params["of"] == "zeros"))

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Packed codes by the byte, values."""
        return (StreamKind("gaps", 1, "unsigned"), StreamKind("values", element.width, element.kind))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """A segment's codes rounded up to a byte, and 4; width for each stored entry and each filler."""
        idle = extra(counts, params)
        if counts.parts is None or idle is None:
            return (None, None if params["filler"] == "value" else counts.nnz * width)
        listed = counts.parts.astype(np.int64)
        if params["of"] == "zeros":
            listed = grid.elements - listed
        coded = -(-(listed + idle) * params["bits"] // 8)
        fillers = int(idle.sum()) if params["filler"] == "value" else 0
        return (int(coded.sum()) + _COUNT * grid.segments, (counts.nnz + fillers) * width)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Bytes of codes as the gaps fall; values, and a zero for each filler."""
        idle, value = extra(counts, params), params["filler"] == "value"
        known = super().histogram(stream, grid, element, counts, params)
        if stream == "values":
            if not value or known is None or idle is None:
                return None if value else known
            return with_zeros(known, int(idle.sum()), element)
        lengths = counts.gap_lengths if params["of"] == "nonzeros" else counts.zero_gap_lengths
        size = self.stream_bytes(grid, element.width, counts, params)[0]
        if lengths is None or idle is None or size is None:
            return None
        step = (1 << params["bits"]) - (not value)
        codes = code_histogram(lengths, step, params["bits"], int(idle.sum()))
        out = byte_histogram(codes, params["bits"], size - _COUNT * grid.segments)
        out[0] += np.uint64(_COUNT * grid.segments)
        return out, 255

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Gaps over the flattened segment; what follows the last listed element is not coded."""
        bits, value = params["bits"], params["filler"] == "value"
        found = gaps_before(stored if params["of"] == "nonzeros" else ~stored)
        codes, entry = split(found, (1 << bits) - (not value), (1 << bits) - 1)
        values = segment[stored]
        if value:
            filled = np.zeros(len(codes), segment.dtype)
            filled[entry] = values
            if np.any(entry & (codes == (1 << bits) - 1) & (filled == 0)):
                raise ArgumentError(self.refusal(params, 1))
            values = filled
        count = np.array([len(codes)], "<u4")
        return np.concatenate((octets(count), pack(codes, bits))), octets(values)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Adds up the gaps; each but an escape or a filler puts the next value after its zeros."""
        bits, value = params["bits"], params["filler"] == "value"
        if len(streams[0]) < _COUNT:
            raise FormatError(f"{len(streams[0])} bytes, expected {_COUNT} or more", stream="gaps")
        count = int(streams[0][:_COUNT].view("<u4")[0])
        codes = unpack(streams[0][_COUNT:], count, bits, "gaps")
        entry = codes < (1 << bits) - 1
        if value:
            filled = items(streams[1], dtype, count, "values")
            entry |= filled != 0
        positions = join(codes, entry, (1 << bits) - (not value), rows * cols, "gaps")
        listed = np.zeros(rows * cols, bool)
        listed[positions] = True
        stored = listed if params["of"] == "nonzeros" else ~listed
        out = np.zeros(rows * cols, dtype)
        out[stored] = filled[entry] if value else items(streams[1], dtype, int(stored.sum()), "values")
        return out.reshape(rows, cols)
