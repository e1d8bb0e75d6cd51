"""dense: every element, in row-major order (spec section 5.1). Nothing gets larger than this plus a header."""

from dataclasses import dataclass

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.layouts.base import Layout, Sizes, StreamKind, items, octets, values_of, with_zeros
from codec.matrix import Grid
from codec.statistics import Counts


@dataclass(frozen=True)
class Dense(Layout):
    """Streams: ``values``, all elements."""

    name = "dense"
    number = 0

    @property
    def zero_items(self) -> bool:
        """Zeros are stored like everything else."""
        return True

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """One stream."""
        return (values_of(element),)

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A segment's h * w elements of ``width`` bytes."""
        return (grid.elements * width,)

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """The entries, and a zero for each other element."""
        return with_zeros(counts.keys, grid.size - counts.nnz, element)

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """b."""
        return float(value_bits)

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """The elements; those not stored as zero."""
        return (octets(np.where(stored, segment, 0).astype(segment.dtype)),)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """The elements."""
        return items(streams[0], dtype, rows * cols, "values").reshape(rows, cols)
