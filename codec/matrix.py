"""What describes a tensor apart from its bytes: shape, matrix view, zero rule, segments (spec 2, 3 and 7.1)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from codec.dtypes import ElementType, element_type
from codec.errors import ArgumentError

MAX_NDIM = 32
MAX_NBYTES = (1 << 63) - 1  # of a dense tensor, zero sizes counted as 1 (spec section 4.2)
# A reader decodes a segment into memory of its own: what one may hold bounds what a file can ask for.
MAX_SEGMENT = 1 << 22
# Elements that a writer puts into a segment. A layer of 600 K elements then keeps several threads busy; tables and
# parts cost less than 0.005 bits per weight. Once there are enough of them for 32 threads, larger ones are walked
# faster (4096 x 4096 at 80 % zeros: products with one column by 5 %). The largest tensors take segments so large that a
# matrix of few entries does not become a table of empty ones.
SEGMENT, LARGE_SEGMENT, ENOUGH_SEGMENTS, MOST_SEGMENTS = 1 << 17, 1 << 19, 1 << 5, 1 << 12


def segment_aim(size: int) -> int:
    """About how many elements a writer puts into a segment of a matrix of so many (spec section 3).

    >>> segment_aim(1 << 22), segment_aim(1 << 23), segment_aim(1 << 30), segment_aim(1 << 32)
    (131072, 262144, 524288, 1048576)
    """
    large = min(LARGE_SEGMENT, -(-size // ENOUGH_SEGMENTS))
    return min(MAX_SEGMENT, max(SEGMENT, large, -(-size // MOST_SEGMENTS)))


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


def check_row_dims(shape: tuple[int, ...], row_dims: Any) -> int:
    """``row_dims`` as given or by default; ArgumentError where the shape has no such dimensions."""
    if row_dims is None:
        return default_row_dims(shape)
    if not is_int(row_dims) or not 0 <= row_dims <= len(shape):
        raise ArgumentError(f"row_dims={row_dims!r} for shape {shape}; expected an int from 0 to {len(shape)}")
    return int(row_dims)


def check_shape(shape: Any, element: ElementType) -> tuple[int, ...]:
    """``shape`` as a tuple of ints; ArgumentError where no tensor of that element type can have it."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(is_int(n) and n >= 0 for n in sizes):
        raise ArgumentError(f"shape {shape!r}; expected non-negative ints")
    if len(sizes) > MAX_NDIM:
        raise ArgumentError(f"{len(sizes)} dimensions; expected at most {MAX_NDIM}: reshape the array")
    if prod(int(n) or 1 for n in sizes) * element.width > MAX_NBYTES:
        raise ArgumentError(f"shape {shape!r} of {element.dtype} has 2**63 bytes or more; expected less")
    return tuple(int(n) for n in sizes)


def dimensions(n: int) -> str:
    """So many dimensions, in words.

    >>> dimensions(1), dimensions(3)
    ('1 dimension', '3 dimensions')
    """
    return f"{n} dimension{'' if n == 1 else 's'}"


def check_zero(zero: Any) -> str:
    """``zero`` if it names a zero rule; ArgumentError otherwise."""
    if zero not in ("value", "bits") or not isinstance(zero, str):
        raise ArgumentError(f'zero={zero!r}; expected "value" (-0.0 is a zero too) or "bits" (only +0.0 is)')
    return zero


def is_int(value: object) -> bool:
    """Whether this is an integer, of Python or NumPy, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


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
    def default(cls, rows: int, cols: int) -> "Grid":
        """The segments that a writer makes: as many as bring them near ``segment_aim`` elements, and alike in height.

        Heights from 16 on are multiples of 16, from 64 on of 64. A row of twice the aim or more is cut into pieces
        whose width is a multiple of 64.

        >>> Grid.default(4096, 4096).segment_rows, Grid.default(1536, 384).segment_rows
        (128, 320)
        """
        size = rows * cols
        if size == 0:
            return cls(rows, cols, 0, 0)
        aim = segment_aim(size)
        if cols >= 2 * aim or cols > MAX_SEGMENT:
            pieces = (2 * cols + aim) // (2 * aim)
            return cls(rows, cols, 1, min(MAX_SEGMENT, _up(-(-cols // pieces), 64)))
        height = -(-rows // max(1, (2 * size + aim) // (2 * aim)))
        step = 64 if height >= 64 else 16 if height >= 16 else 1
        height = (2 * height + step) // (2 * step) * step
        return cls(rows, cols, min(rows, height, MAX_SEGMENT // cols), cols)

    def tall(self, step: int) -> "Grid":
        """The same with segments whose height is a multiple of ``step`` where a segment can be that high.

        >>> Grid.default(1000, 3000).segment_rows, Grid.default(1000, 3000).tall(64).segment_rows
        (48, 64)
        """
        height = _up(self.segment_rows, step)
        if self.segment_cols < self.cols or height * self.segment_cols > MAX_SEGMENT:
            return self
        return Grid(self.rows, self.cols, min(self.rows, height), self.cols)

    @cached_property
    def size(self) -> int:
        """Elements of the matrix."""
        return self.rows * self.cols

    @cached_property
    def across(self) -> int:
        """Segments side by side: more than one only where they are pieces of a row."""
        return -(-self.cols // self.segment_cols) if self.size else 0

    @cached_property
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
    def heights(self) -> np.ndarray:
        """Rows of each segment (int64)."""
        tops = np.arange(0, self.rows, self.segment_rows) if self.size else np.zeros(0, np.int64)
        return np.repeat(np.minimum(self.segment_rows, self.rows - tops), self.across)

    @cached_property
    def widths(self) -> np.ndarray:
        """Columns of each segment (int64)."""
        lefts = np.arange(0, self.cols, self.segment_cols) if self.size else np.zeros(0, np.int64)
        return np.tile(np.minimum(self.segment_cols, self.cols - lefts), self.segments // max(1, self.across))

    @cached_property
    def elements(self) -> np.ndarray:
        """Elements of each segment (int64)."""
        return np.asarray(self.heights * self.widths)

    def start(self, number: int) -> int:
        """Row-major index of the first element of segment ``number``; the matrix's size for the one after the last."""
        return self.size if number >= self.segments else self.place(number).row * self.cols + self.place(number).col

    def segment_of(self, element: int) -> int:
        """Number of the segment that holds the element of that row-major index."""
        row, col = divmod(element, self.cols)
        return row // self.segment_rows * self.across + col // self.segment_cols


def _up(number: int, step: int) -> int:
    """The least multiple of ``step`` that is not below ``number``."""
    return -(-number // step) * step


def _extents(total: int, step: int) -> list[tuple[int, int]]:
    whole, rest = divmod(total, step)
    return [(extent, n) for extent, n in ((step, whole), (rest, int(rest > 0))) if n]


@dataclass(frozen=True)
class TensorSpec:
    """What a frame says of its tensor, whatever layout it takes.

    Attributes
    ----------
    element : ElementType
    shape : tuple of int
    row_dims : int
        How many leading dimensions are the rows of the matrix view.
    zero : {"value", "bits"}
        The zero rule (spec section 7.1).
    grid : Grid
        The matrix and its segments.
    """

    element: ElementType
    shape: tuple[int, ...]
    row_dims: int
    zero: str
    grid: Grid

    @classmethod
    def of(cls, dtype: Any, shape: Any, *, row_dims: Any = None, zero: Any = "value") -> "TensorSpec":
        """Checked, with the segments that a writer makes by default.

        Raises ArgumentError for a dtype, shape, row_dims or zero rule that no frame can have.

        >>> TensorSpec.of("float32", (64, 3, 3, 3)).grid.cols
        27
        """
        element = element_type(dtype)
        sizes = check_shape(shape, element)
        dims = check_row_dims(sizes, row_dims)
        return cls(element, sizes, dims, check_zero(zero), Grid.default(*matrix_shape(sizes, dims)))

    def cut(self, grid: Grid) -> "TensorSpec":
        """The same tensor in other segments."""
        return self if grid == self.grid else replace(self, grid=grid)

    @cached_property
    def nonzero_bits(self) -> int:
        """The bits of an element that make it non-zero under the zero rule."""
        return self.element.nonzero_bits(self.zero)

    @property
    def negative(self) -> int:
        """The pattern whose dropped occurrences are counted: -0.0 under zero="value", else none."""
        return self.element.sign_bit if self.zero == "value" else 0
