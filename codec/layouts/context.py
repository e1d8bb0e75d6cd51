"""context: mask and values in one interleaved rANS stream, under a model of their row and column (spec section 5.10).

The smallest form on disk. Rows and columns have classes, and an element's class is the sum of the two: how likely it
is stored, and by which table its value is coded, follows from that. Rows, columns and blocks without stored elements
are left out, and elements of a group may be coded by those before them, which finds n:m groups, images and kernels. Raw
bits of values that are 0 in a whole panel are left out.
"""

from dataclasses import dataclass

import numpy as np

from codec import kernels
from codec.dtypes import ElementType
from codec.entropy import context_plain as plain
from codec.layouts.base import Layout, Needs, Sizes, StreamKind, unsigned
from codec.matrix import MAX_SEGMENT, Grid, TensorSpec
from codec.statistics import Counts, Need

# Elements of a segment: a model of its own for each costs little then, and what it says is exact.
_SEGMENT = 1 << 19


@dataclass(frozen=True)
class Context(Layout):
    """Stream: ``coded``. No parameters: the model of each segment is chosen by what it comes to, and is in its part."""

    name = "context"
    number = 9
    self_coded = True
    aligned = False

    def grid(self, spec: TensorSpec) -> Grid:
        """Segments of about 512 K elements, alike in height."""
        grid = spec.grid
        if not grid.size or grid.segment_cols < grid.cols:
            return grid
        pieces = max(1, (2 * grid.size + _SEGMENT) // (2 * _SEGMENT), -(-grid.size // MAX_SEGMENT))
        height = -(-grid.rows // pieces)
        step = 64 if height >= 512 else 8 if height >= 64 else 1
        height = min(-(-height // step) * step, MAX_SEGMENT // grid.cols)
        return Grid(grid.rows, grid.cols, min(grid.rows, height), grid.cols)

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """One for everything."""
        return (unsigned("coded", 1, codings=("none",)),)

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """Within 1 % where the segments' models were chosen; else independent zeros and incompressible values."""
        if counts.coded is not None:
            return (counts.coded.astype(np.int64),)
        if counts.parts is None:
            return (None,)
        stored = counts.parts.astype(np.float64)
        share = np.clip(stored / np.maximum(1, grid.elements), 1e-300, 1 - 1e-16)
        mask = -grid.elements * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
        return (np.where(stored > 0, 48 + np.ceil(mask / 8) + stored * width, 3).astype(np.int64),)

    @property
    def size_needs(self) -> Needs:
        """What the models come to."""
        return frozenset({Need("coded")})

    def part_limit(self, grid: Grid, width: int) -> int:
        """The head, states, a word of each row and column, two of an element, and its raw bits."""
        return 2 * (grid.segment_rows + grid.segment_cols) + 13 * grid.segment_rows * grid.segment_cols + 20480

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """H(s) + d b: the entropy of the mask, and values that no table makes smaller."""
        if not 0 < sparsity < 1:
            return (1 - sparsity) * value_bits
        mask = -sparsity * np.log2(sparsity) - (1 - sparsity) * np.log2(1 - sparsity)
        return float(mask + (1 - sparsity) * value_bits)

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Codes by the model that the kernels choose, which is read from the part that they write."""
        rows, cols = segment.shape
        native = kernels.Streams(rows, cols, rows, cols, segment.itemsize, 255, 0, self.number, self.native(), 1)
        native.encode(kernels.octets(np.ascontiguousarray(segment)), kernels.octets(stored.copy()), 1)
        model = plain.read_model(bytes(native.part(0, 0)), rows, cols, segment.itemsize)
        return (np.frombuffer(plain.encode(segment, stored, model), np.uint8),)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Panel by panel: bits of the mask, then symbols, then raw bits."""
        return plain.decode(streams[0].tobytes(), rows, cols, np.dtype(dtype))
