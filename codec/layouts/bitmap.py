"""bitmap: one bit per element, then the stored values (spec section 5.3).

``order="rows"`` keeps bits and values in row-major order. ``order="lanes"`` keeps a word per column of each group of 64
rows and the values in that order: a product then adds whole groups of rows at once, without a sum across lanes.
"""

from typing import Any, ClassVar

import numpy as np
from bitarray import bitarray

from codec.dtypes import ElementType
from codec.errors import FormatError
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, choice, histogram_of_bytes, items, octets


class Bitmap(Layout):
    """Streams: ``mask``, ``values``. Parameter: ``order`` ("rows" or "lanes")."""

    name = "bitmap"
    code = 2
    defaults: ClassVar[Params] = {"order": "rows"}
    variants = ({}, {"order": "lanes"})

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """A known order."""
        choice(params, "order", ("rows", "lanes"))
        return params

    def native(self, params: Params) -> tuple[int, ...]:
        """Whether lines are columns."""
        return (int(params["order"] == "lanes"),)

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Mask bytes, values."""
        return (StreamKind("mask", 1, "unsigned"), StreamKind("values", element.width, element.kind))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """A segment's h * w bits rounded up to a byte, or 8 * ceil(h / 64) * w bytes; width for each stored entry."""
        lanes = params["order"] == "lanes"
        mask = sum(n * (8 * -(-h // 64) * w if lanes else -(-h * w // 8)) for h, w, n in grid.shapes())
        return (mask, counts.nnz * width)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Mask bytes as counted for the order."""
        if stream == "mask":
            return histogram_of_bytes(counts.mask_bytes if params["order"] == "rows" else counts.lane_bytes)
        return super().histogram(stream, grid, element, counts, params)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """1 + d b."""
        return 1 + (1 - sparsity) * value_bits

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Bits from the least significant of each byte on; lanes turn each group of 64 rows on its side."""
        if params["order"] == "rows":
            return np.packbits(stored, bitorder="little"), octets(segment[stored])
        masks, values = [], []
        for top in range(0, len(segment), 64):
            group, turned = segment[top : top + 64].T, stored[top : top + 64].T
            bits = np.zeros((turned.shape[0], 64), bool)
            bits[:, : turned.shape[1]] = turned
            masks.append(np.packbits(bits, bitorder="little"))
            values.append(octets(group[turned]))
        return np.concatenate(masks), np.concatenate(values)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """The set bits in order take the values in order; a bit outside the matrix must be 0."""
        lanes = params["order"] == "lanes"
        mask = items(streams[0], "u1", 8 * -(-rows // 64) * cols if lanes else -(-rows * cols // 8), "mask")
        bits = bitarray(endian="little")
        bits.frombytes(mask.tobytes())
        values = items(streams[1], dtype, bits.count(), "values")
        flags = np.array(bits.tolist(), bool)
        if not lanes:
            if flags[rows * cols :].any():
                raise FormatError(f"a bit past element {rows * cols} is set", stream="mask")
            out = np.zeros(rows * cols, dtype)
            out[flags[: rows * cols]] = values
            return out.reshape(rows, cols)
        out, used = np.zeros((rows, cols), dtype), 0
        for group, top in enumerate(range(0, rows, 64)):
            words = flags[group * cols * 64 : (group + 1) * cols * 64].reshape(cols, 64)
            height = min(64, rows - top)
            if words[:, height:].any():
                raise FormatError(f"a bit past row {rows} is set", stream="mask")
            turned = np.zeros((cols, height), dtype)
            inside = words[:, :height]
            turned[inside] = values[used : used + int(inside.sum())]
            used += int(inside.sum())
            out[top : top + height] = turned.T
        return out
