"""dense: every element, in row-major order (spec section 5.1). Nothing gets larger than this plus a header."""

import numpy as np

from codec.dtypes import ElementType
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, items, octets


class Dense(Layout):
    """Streams: ``values``, all elements."""

    name = "dense"
    code = 0

    def padded(self, params: Params) -> bool:
        """Zeros are stored like everything else."""
        return True

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """One stream."""
        return (StreamKind("values", element.width, element.kind),)

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """rows * cols * width."""
        return (grid.size * width,)

    def values_of_parts(self, grid: Grid, counts: Counts, params: Params) -> np.ndarray | None:
        """All elements."""
        return np.array([place.rows * place.cols for place in grid.places()], np.uint64)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """The entries, and a zero for each other element."""
        if counts.keys is None:
            return None
        keys = counts.keys.copy()
        keys[len(keys) // 2 if element.kind == "signed" else 0] += np.uint64(grid.size - counts.nnz)
        return keys, counts.or_of_keys | (1 << 8 * element.width - 1 if element.kind == "signed" else 0)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """b."""
        return float(value_bits)

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """The elements; those not stored as zero."""
        return (octets(np.where(stored, segment, 0).astype(segment.dtype)),)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """The elements."""
        return items(streams[0], dtype, rows * cols, "values").reshape(rows, cols)
