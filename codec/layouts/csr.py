"""csr: column indices behind row pointers (spec section 5.2; compressed sparse row, as in scipy.sparse).

``of="nonzeros"`` lists the columns of the stored entries; ``of="zeros"`` those of the others: the zero table, which
costs ``index`` bits for a zero and nothing for a stored entry, and so pays while zeros are few.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.layouts.base import KEYS, PARTS, Layout, Needs, Sizes, StreamKind, items, octets, unsigned, values_of
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, Need


@dataclass(frozen=True)
class Csr(Layout):
    """Streams: ``pointers`` (u32, one more than the segment has rows), ``columns``, ``values``.

    Parameters: ``of`` ("nonzeros" or "zeros"); ``index``, bits of a column (8, 16, 32; by default the fewest).
    """

    name = "csr"
    number = 1
    words: ClassVar = {"of": ("nonzeros", "zeros")}

    of: str = "nonzeros"
    index: int | None = None

    def __post_init__(self) -> None:
        self._check_one_of("of", self.words["of"])
        self._check_one_of("index", (None, 8, 16, 32))

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Both lists, and an index wider than needed."""
        return (cls(), cls(of="zeros"), cls(index=32))

    @classmethod
    def candidates(cls) -> tuple[Self, ...]:
        """Both lists."""
        return (cls(), cls(of="zeros"))

    def fit(self, spec: TensorSpec) -> Self:
        """Index bits that hold every column of a segment."""
        cols = spec.grid.segment_cols
        fewest = 8 if cols <= 1 << 8 else 16 if cols <= 1 << 16 else 32
        index = self.index or fewest
        if index < fewest:
            raise ArgumentError(f"index={index} bits for {cols} columns; expected at least {fewest}")
        return replace(self, index=index)

    @property
    def _index_bits(self) -> int:
        return self.index or 32

    def native(self) -> tuple[int, ...]:
        """Bytes of a column, and which positions are listed."""
        return (self._index_bits // 8, int(self.of == "zeros"))

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Pointers, columns, values."""
        return (unsigned("pointers", 4), unsigned("columns", self._index_bits // 8), values_of(element))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """4 (h + 1) in a segment of h rows; index / 8 for each listed position; width for each stored entry."""
        pointers = 4 * (grid.heights + 1)
        if counts.parts is None:
            return (pointers, None, None)
        stored = counts.parts.astype(np.int64)
        listed = stored if self.of == "nonzeros" else grid.elements - stored
        return (pointers, listed * (self._index_bits // 8), stored * width)

    @property
    def size_needs(self) -> Needs:
        """The entries of each segment."""
        return PARTS

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Columns from the entries of each column, pointers from those of each row."""
        zeros = self.of == "zeros"
        if stream == "columns":
            if counts.cols is None:
                return None
            listed = np.uint64(grid.rows) - counts.cols if zeros else counts.cols
            return KeyCounts.of(np.arange(len(listed)) % max(1, grid.segment_cols), listed, self._index_bits // 8)
        if stream == "pointers":
            if counts.rows is None:
                return None
            pointers, at = [np.zeros(0, np.int64)], 0
            for place in grid.places():
                rows = counts.rows[at : at + place.rows].astype(np.int64)
                pointers.append(np.concatenate(([0], np.cumsum(place.cols - rows if zeros else rows))))
                at += place.rows
            every = np.concatenate(pointers)
            return KeyCounts.of(every, np.ones(len(every), np.uint64), 4)
        return super().key_counts(stream, grid, element, counts)

    @property
    def key_needs(self) -> Needs:
        """Entries of each row and column."""
        return KEYS | {Need("rows"), Need("columns")}

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """d b, and an index for each position listed."""
        listed = 1 - sparsity if self.of == "nonzeros" else sparsity
        return (1 - sparsity) * value_bits + listed * self._index_bits

    def pointer_bits(self, rows: int, cols: int) -> float:
        """32 bits for each row, and for one more."""
        return 32 * (rows + 1) / (rows * cols)

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Pointers, columns and values of one segment."""
        listed = stored if self.of == "nonzeros" else ~stored
        pointers = np.concatenate(([0], np.cumsum(listed.sum(axis=1))))
        columns = np.nonzero(listed)[1].astype(f"<u{self._index_bits // 8}")
        return octets(pointers.astype("<u4")), octets(columns), octets(segment[stored])

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Row by row: pointers ascend from 0 to the last column, columns ascend within a row and lie inside it."""
        pointers = items(streams[0], "<u4", rows + 1, "pointers").astype(np.int64)
        columns = items(streams[1], f"<u{self._index_bits // 8}", None, "columns")
        if pointers[0] != 0 or np.any(np.diff(pointers) < 0) or pointers[-1] != len(columns):
            raise FormatError(f"pointers do not ascend from 0 to {len(columns)}", stream="pointers")
        listed = np.zeros((rows, cols), bool)
        for row in range(rows):
            inside = columns[pointers[row] : pointers[row + 1]].astype(np.int64)
            if np.any(np.diff(inside) <= 0) or np.any(inside >= cols):
                raise FormatError(f"row {row}: columns do not ascend below {cols}", stream="columns")
            listed[row, inside] = True
        stored = listed if self.of == "nonzeros" else ~listed
        out = np.zeros((rows, cols), dtype)
        out[stored] = items(streams[2], dtype, int(stored.sum()), "values")
        return out
