"""The matrix that a tensor is coded as, and its cut into segments (spec section 3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from codec.errors import ArgumentError

MAX_NDIM = 32
# A reader decodes a segment into memory of its own: what one may hold bounds what a file can ask for.
MAX_SEGMENT = 1 << 22


def default_row_dims(shape: tuple[int, ...]) -> int:
    """How many leading dimensions make up the rows: one, or the first two of a stack of one matrix.

    >>> default_row_dims((768, 3, 3)), default_row_dims((1, 1800, 600)), default_row_dims((5,))
    (1, 2, 0)
    """
    if len(shape) <= 1:
        return 0
    return 2 if len(shape) == 3 and shape[0] == 1 else 1


def matrix_shape(shape: tuple[int, ...], row_dims: int) -> tuple[int, int]:
    """Rows and columns of the matrix view: the first ``row_dims`` dimensions against the others."""
    return prod(shape[:row_dims]), prod(shape[row_dims:])


def check_row_dims(shape: tuple[int, ...], row_dims: int | None) -> int:
    """``row_dims`` as given or by default; ArgumentError where the shape has no such dimensions."""
    if row_dims is None:
        return default_row_dims(shape)
    if isinstance(row_dims, bool) or not isinstance(row_dims, int) or not 0 <= row_dims <= len(shape):
        raise ArgumentError(f"row_dims={row_dims!r} for shape {shape}; expected an int from 0 to {len(shape)}")
    return row_dims


@dataclass(frozen=True)
class Place:
    """One segment: its number, first row and column in the matrix, and its extent."""

    number: int
    row: int
    col: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Grid:
    """A matrix cut into segments of ``segment_rows`` x ``segment_cols``, numbered in row-major order.

    Every segment is a contiguous range of the row-major elements: it holds whole rows, or a piece of one.
    """

    rows: int
    cols: int
    segment_rows: int
    segment_cols: int

    @classmethod
    def default(cls, rows: int, cols: int, width: int) -> "Grid":
        """The grid that a writer takes: about 512 K elements to a segment, 256 K of eight bytes.

        >>> Grid.default(4096, 4096, 4).segment_rows
        128
        """
        if rows * cols == 0:
            return cls(rows, cols, 0, 0)
        limit = 1 << 19 if width < 8 else 1 << 18
        if cols > limit:
            return cls(rows, cols, 1, limit)
        height = limit // cols
        return cls(rows, cols, min(rows, height - height % 64 if height >= 64 else height), cols)

    @property
    def size(self) -> int:
        """Elements of the matrix."""
        return self.rows * self.cols

    @property
    def across(self) -> int:
        """Segments side by side: more than one only where they are pieces of a row."""
        return -(-self.cols // self.segment_cols) if self.size else 0

    @property
    def segments(self) -> int:
        """Number of segments."""
        return -(-self.rows // self.segment_rows) * self.across if self.size else 0

    def place(self, number: int) -> Place:
        """Where segment ``number`` lies."""
        row, col = number // self.across * self.segment_rows, number % self.across * self.segment_cols
        return Place(number, row, col, min(self.segment_rows, self.rows - row), min(self.segment_cols, self.cols - col))

    def places(self) -> Iterator[Place]:
        """Every segment in order."""
        return map(self.place, range(self.segments))

    def shapes(self) -> list[tuple[int, int, int]]:
        """(rows, cols, how many) for each distinct extent among the segments, of which there are at most four."""
        if not self.size:
            return []
        rows = _extents(self.rows, self.segment_rows)
        cols = _extents(self.cols, self.segment_cols)
        return [(h, w, n * m) for h, n in rows for w, m in cols]

    @cached_property
    def elements(self) -> np.ndarray:
        """Elements of each segment (int64)."""
        if not self.size:
            return np.zeros(0, np.int64)
        rows = np.minimum(self.segment_rows, self.rows - np.arange(0, self.rows, self.segment_rows))
        cols = np.minimum(self.segment_cols, self.cols - np.arange(0, self.cols, self.segment_cols))
        return np.outer(rows, cols).reshape(-1)

    def start(self, number: int) -> int:
        """Row-major index of the first element of segment ``number``; the matrix's size for the one after the last."""
        return self.size if number >= self.segments else self.place(number).row * self.cols + self.place(number).col

    def segment_of(self, element: int) -> int:
        """Number of the segment that holds the element of that row-major index."""
        row, col = divmod(element, self.cols)
        return row // self.segment_rows * self.across + col // self.segment_cols


def _extents(total: int, step: int) -> list[tuple[int, int]]:
    whole, rest = divmod(total, step)
    return [(extent, n) for extent, n in ((step, whole), (rest, int(rest > 0))) if n]
