"""bitmap: one bit per element, then the stored values (spec section 5.3).

``order="rows"`` keeps bits and values in row-major order. ``order="lanes"`` keeps a word per column of each group of 64
rows and the values in that order: a product then adds whole groups of rows at once, without a sum across lanes.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from bitarray import bitarray

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import FormatError
from codec.layouts.base import (
    KEYS,
    PARTS,
    Layout,
    Needs,
    Sizes,
    StreamKind,
    items,
    keys_of_bytes,
    octets,
    unsigned,
    values_of,
)
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, Need


@dataclass(frozen=True)
class Bitmap(Layout):
    """Streams: ``mask``, ``values``. Parameter: ``order`` ("rows" or "lanes")."""

    name = "bitmap"
    number = 2
    words: ClassVar = {"order": ("rows", "lanes")}

    order: str = "rows"

    def __post_init__(self) -> None:
        self._check_one_of("order", self.words["order"])

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Both orders."""
        return (cls(), cls(order="lanes"))

    def grid(self, spec: TensorSpec) -> Grid:
        """Segments of whole groups of 64 rows for "lanes": a mask word of fewer rows is no shorter."""
        return spec.grid.tall(64) if self.order == "lanes" else spec.grid

    def native(self) -> tuple[int, ...]:
        """Whether lines are columns."""
        return (int(self.order == "lanes"),)

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Mask bytes, values."""
        return (unsigned("mask", 1), values_of(element))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A segment's h * w bits rounded up to a byte, or 8 * ceil(h / 64) * w bytes; width for each stored entry."""
        rows = self.order == "rows"
        mask = -(-grid.elements // 8) if rows else 8 * -(-grid.heights // 64) * grid.widths
        return (mask, None if counts.parts is None else counts.parts.astype(np.int64) * width)

    @property
    def size_needs(self) -> Needs:
        """The entries of each segment."""
        return PARTS

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Mask bytes as counted for the order."""
        if stream == "mask":
            return keys_of_bytes(counts.mask_bytes if self.order == "rows" else counts.lane_bytes)
        return super().key_counts(stream, grid, element, counts)

    @property
    def key_needs(self) -> Needs:
        """Bytes of the mask."""
        return KEYS | {Need("mask_bytes" if self.order == "rows" else "lane_bytes")}

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """1 + d b."""
        return 1 + (1 - sparsity) * value_bits

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Bits from the least significant of each byte on; lanes transpose each group of 64 rows."""
        if self.order == "rows":
            return np.packbits(stored, bitorder="little"), octets(segment[stored])
        masks, values = [], []
        for top in range(0, len(segment), 64):
            group, transposed = segment[top : top + 64].T, stored[top : top + 64].T
            bits = np.zeros((transposed.shape[0], 64), bool)
            bits[:, : transposed.shape[1]] = transposed
            masks.append(np.packbits(bits, bitorder="little"))
            values.append(octets(group[transposed]))
        return np.concatenate(masks), np.concatenate(values)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """The set bits in order take the values in order; a bit outside the matrix must be 0."""
        lanes = self.order == "lanes"
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
            transposed = np.zeros((cols, height), dtype)
            inside = words[:, :height]
            transposed[inside] = values[used : used + int(inside.sum())]
            used += int(inside.sum())
            out[top : top + height] = transposed.T
        return out
