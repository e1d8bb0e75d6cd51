"""csr: column indices behind row pointers (spec section 5.2; compressed sparse row, as in scipy.sparse).

``of="nonzeros"`` lists the columns of the stored entries; ``of="zeros"`` those of the others: the zero table, which
costs ``index`` bits for a zero and nothing for a stored entry, and so pays while zeros are few.
"""

from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, choice, histogram_of, items, octets


class Csr(Layout):
    """Streams: ``rows`` (u32 pointers, one more than the segment has rows), ``columns``, ``values``.

    Parameters: ``of`` ("nonzeros" or "zeros"); ``index``, bits of a column (8, 16, 32; by default the fewest).
    """

    name = "csr"
    code = 1
    defaults: ClassVar[Params] = {"index": 0, "of": "nonzeros"}
    variants = ({}, {"of": "zeros"}, {"index": 32})
    candidates = ({}, {"of": "zeros"})

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """Index bits that hold every column of a segment."""
        choice(params, "of", ("nonzeros", "zeros"))
        fewest = 8 if grid.segment_cols <= 1 << 8 else 16 if grid.segment_cols <= 1 << 16 else 32
        index = choice(params, "index", (0, 8, 16, 32)) or fewest
        if index < fewest:
            raise ArgumentError(f"index={index} bits for {grid.segment_cols} columns; expected at least {fewest}")
        return {**params, "index": index}

    def native(self, params: Params) -> tuple[int, ...]:
        """Bytes of a column, and which positions are listed."""
        return (params["index"] // 8, int(params["of"] == "zeros"))

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Pointers, columns, values."""
        return (
            StreamKind("rows", 4, "unsigned"),
            StreamKind("columns", params["index"] // 8, "unsigned"),
            StreamKind("values", element.width, element.kind),
        )

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """4 (h + 1) per segment of h rows; index / 8 for each listed position; width for each stored entry."""
        pointers = sum((h + 1) * n for h, _, n in grid.shapes())
        listed = counts.nnz if params["of"] == "nonzeros" else grid.size - counts.nnz
        return (4 * pointers, listed * params["index"] // 8, counts.nnz * width)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Columns from the entries of each column, pointers from those of each row."""
        zeros = params["of"] == "zeros"
        if stream == "columns" and counts.cols is not None:
            listed = np.uint64(grid.rows) - counts.cols if zeros else counts.cols
            return histogram_of(np.arange(grid.cols) % max(1, grid.segment_cols), listed, params["index"] // 8)
        if stream == "rows" and counts.rows is not None:
            pointers, at = [np.zeros(0, np.int64)], 0
            for place in grid.places():
                rows = counts.rows[at : at + place.rows].astype(np.int64)
                pointers.append(np.concatenate(([0], np.cumsum(place.cols - rows if zeros else rows))))
                at += place.rows
            every = np.concatenate(pointers)
            return histogram_of(every, np.ones(len(every), np.uint64), 4)
        return super().histogram(stream, grid, element, counts, params)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """d b, and an index for each position listed."""
        listed = 1 - sparsity if params["of"] == "nonzeros" else sparsity
        return (1 - sparsity) * value_bits + listed * int(params["index"])

    def pointer_bits(self, rows: int, cols: int, params: Params) -> float:
        """32 bits for each row, and for one more."""
        return 32 * (rows + 1) / (rows * cols)

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Pointers, columns and values of one segment."""
        listed = stored if params["of"] == "nonzeros" else ~stored
        pointers = np.concatenate(([0], np.cumsum(listed.sum(axis=1))))
        columns = np.nonzero(listed)[1].astype(f"<u{params['index'] // 8}")
        return octets(pointers.astype("<u4")), octets(columns), octets(segment[stored])

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Row by row: pointers ascend from 0 to the last column, columns ascend within a row and lie inside it."""
        pointers = items(streams[0], "<u4", rows + 1, "rows").astype(np.int64)
        columns = items(streams[1], f"<u{params['index'] // 8}", None, "columns")
        if pointers[0] != 0 or np.any(np.diff(pointers) < 0) or pointers[-1] != len(columns):
            raise FormatError(f"pointers do not ascend from 0 to {len(columns)}", stream="rows")
        listed = np.zeros((rows, cols), bool)
        for row in range(rows):
            inside = columns[pointers[row] : pointers[row + 1]].astype(np.int64)
            if np.any(np.diff(inside) <= 0) or np.any(inside >= cols):
                raise FormatError(f"row {row}: columns do not ascend below {cols}", stream="columns")
            listed[row, inside] = True
        stored = listed if params["of"] == "nonzeros" else ~listed
        out = np.zeros((rows, cols), dtype)
        out[stored] = items(streams[2], dtype, int(stored.sum()), "values")
        return out
