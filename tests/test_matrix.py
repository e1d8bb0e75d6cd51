"""What is said of a tensor before its bytes: matrix view, segments of any shape, and what no frame can have."""

from itertools import pairwise

import numpy as np
import pytest
import writer
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS

from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.matrix import (
    MAX_NBYTES,
    MAX_SEGMENT,
    SEGMENT,
    Grid,
    TensorSpec,
    default_row_dims,
    matrix_shape,
    segment_aim,
)

SIDES = st.one_of(
    st.integers(0, 300), st.integers(0, 1 << 20), st.integers(1, 1 << 31), st.sampled_from([1 << 17, 1 << 22])
)


@given(SIDES, SIDES)
@settings(max_examples=400, deadline=None)
def test_segments_are_those_of_the_format(rows: int, cols: int) -> None:
    grid = Grid.default(rows, cols)
    assert (grid.segment_rows, grid.segment_cols) == writer.default_segment(rows, cols)


@given(SIDES, SIDES)
@settings(max_examples=400, deadline=None)
def test_segments_of_any_matrix(rows: int, cols: int) -> None:
    grid = Grid.default(rows, cols)
    h, w = grid.segment_rows, grid.segment_cols
    if not rows or not cols:
        assert (h, w, grid.size, grid.segments, grid.across, grid.shapes()) == (0, 0, 0, 0, 0, [])
        return
    assert 1 <= h <= rows
    assert 1 <= w <= cols
    assert h * w <= MAX_SEGMENT
    # Whole rows, or pieces of one.
    assert w == cols or (h == 1 and w % 64 == 0)
    if h < rows and h * 2 * cols <= MAX_SEGMENT:
        assert h < 16 or h % 16 == 0
        assert h < 64 or h % 64 == 0
    # As many elements as are aimed at, give or take a half, where neither a row nor the limit decides.
    aim = segment_aim(grid.size)
    if grid.size >= 2 * aim and h > 1 and h * w + w <= MAX_SEGMENT:
        assert aim / 2 <= h * w <= 2 * aim
    assert grid.size < 2 * SEGMENT or grid.segments > 1
    assert sum(n * high * wide for high, wide, n in grid.shapes()) == grid.size
    assert sum(n for _, _, n in grid.shapes()) == grid.segments == -(-rows // h) * -(-cols // w)
    assert len(grid.shapes()) <= 4


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any segments that a frame may have, of a matrix of up to 60 x 60 or of a larger one with the default's."""
    if draw(st.booleans()):
        return Grid.default(draw(st.integers(1, 2000)), draw(st.integers(1, 2000)))
    rows, cols = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    if draw(st.booleans()):
        return Grid(rows, cols, draw(st.integers(1, rows)), cols)
    return Grid(rows, cols, 1, draw(st.integers(1, cols)))


@given(grids())
@settings(max_examples=150, deadline=None)
def test_segments_are_ranges_of_the_elements(grid: Grid) -> None:
    places = list(grid.places())
    assert [place.number for place in places] == [*range(grid.segments)]
    numbers = np.arange(grid.size).reshape(grid.rows, grid.cols)
    held = [numbers[p.row : p.row + p.rows, p.col : p.col + p.cols].reshape(-1) for p in places]
    assert np.array_equal(np.concatenate(held), np.arange(grid.size))
    assert [int(piece[0]) for piece in held] == [grid.start(n) for n in range(grid.segments)]
    assert grid.start(grid.segments) == grid.size
    for place, piece in zip(places, held, strict=True):
        assert grid.segment_of(int(piece[0])) == grid.segment_of(int(piece[-1])) == place.number
    assert grid.heights.tolist() == [place.rows for place in places]
    assert grid.widths.tolist() == [place.cols for place in places]
    assert grid.elements.tolist() == [piece.size for piece in held]


@given(SIDES, SIDES, st.integers(1, 200))
@settings(max_examples=300, deadline=None)
def test_taller_segments(rows: int, cols: int, step: int) -> None:
    """Of a multiple of ``step`` rows, or of all rows; as they were where a segment cannot be so high."""
    grid = Grid.default(rows, cols)
    tall = grid.tall(step)
    assert (tall.rows, tall.cols, tall.segment_cols) == (rows, cols, grid.segment_cols)
    assert tall.segment_rows * tall.segment_cols <= MAX_SEGMENT
    if tall != grid:
        assert tall.segment_rows == rows or tall.segment_rows % step == 0
        assert grid.segment_rows < tall.segment_rows < grid.segment_rows + step
    elif grid.size and grid.segment_cols == cols and (grid.segment_rows + step) * cols <= MAX_SEGMENT:
        assert tall.segment_rows == rows or tall.segment_rows % step == 0


def test_segments_grow_little_by_little() -> None:
    """A row more never makes a segment of less than half the elements: sizes do not jump."""
    for cols in (1, 30, 768, 4096, 50_000):
        sizes = [Grid.default(rows, cols) for rows in range(1, 3 * SEGMENT // cols + 40, max(1, SEGMENT // cols // 40))]
        elements = [grid.segment_rows * cols for grid in sizes]
        assert all(after > before / 2 for before, after in pairwise(elements))


def test_the_matrix_view() -> None:
    for shape, dims, matrix in (
        ((), 0, (1, 1)), ((5,), 0, (1, 5)), ((4, 5), 1, (4, 5)), ((8, 3, 3, 3), 1, (8, 27)), ((1, 6, 7), 2, (6, 7)),
        ((2, 6, 7), 1, (2, 42)), ((1, 1, 1, 4), 1, (1, 4)), ((0, 3), 1, (0, 3)), ((3, 0), 1, (3, 0)),
    ):  # fmt: skip
        assert default_row_dims(shape) == dims
        assert matrix_shape(shape, dims) == matrix
        spec = TensorSpec.of("int8", shape)
        assert (spec.shape, spec.row_dims, (spec.grid.rows, spec.grid.cols)) == (shape, dims, matrix)


def test_what_a_tensor_may_be_said_to_be() -> None:
    spec = TensorSpec.of(np.dtype(">f4"), [np.int64(6), np.uint8(5), 4], row_dims=np.int16(2), zero="bits")
    assert spec == TensorSpec.of("float32", (6, 5, 4), row_dims=2, zero="bits")
    assert all(type(n) is int for n in (*spec.shape, spec.row_dims, spec.grid.rows, spec.grid.cols))
    assert TensorSpec.of("int8", 7).shape == TensorSpec.of("int8", np.int32(7)).shape == (7,)
    assert spec.cut(spec.grid) is spec
    assert spec.cut(Grid(30, 4, 3, 4)).grid.segment_rows == 3
    assert TensorSpec.of("int8", (MAX_NBYTES,)).grid.size == MAX_NBYTES
    for element in ELEMENTS:
        value, bits = (TensorSpec.of(element.dtype, (2,), zero=zero) for zero in ("value", "bits"))
        every = (1 << 8 * element.width) - 1
        assert bits.nonzero_bits == every
        assert value.nonzero_bits == (every ^ element.sign_bit if element.is_float else every)
        assert (bits.negative, value.negative) == (0, element.sign_bit)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"dtype": "complex64"}, "cannot code dtype complex64"),
        ({"dtype": "float99"}, "float99"),
        ({"shape": (-1, 2)}, r"shape \(-1, 2\); expected non-negative ints"),
        ({"shape": (2.0, 2)}, "expected non-negative ints"),
        ({"shape": (True, 2)}, "expected non-negative ints"),
        ({"shape": "44"}, "expected non-negative ints"),
        ({"shape": None}, "expected non-negative ints"),
        ({"shape": ((2, 2),)}, "expected non-negative ints"),
        ({"shape": (1,) * 33}, "33 dimensions; expected at most 32"),
        ({"shape": (1 << 62,)}, r"has 2\*\*63 bytes or more"),
        ({"shape": (1 << 61, 1)}, r"has 2\*\*63 bytes or more"),
        ({"shape": (0, 1 << 61)}, r"has 2\*\*63 bytes or more"),
        ({"row_dims": 3}, r"row_dims=3 for shape \(4, 6\); expected an int from 0 to 2"),
        ({"row_dims": -1}, "row_dims=-1"),
        ({"row_dims": True}, "row_dims=True"),
        ({"row_dims": 1.0}, "row_dims=1.0"),
        ({"row_dims": "1"}, "row_dims='1'"),
        ({"zero": "exact"}, "zero='exact'; expected \"value\""),
        ({"zero": None}, "zero=None"),
        ({"zero": np.array("value")}, "zero=array"),
    ],
    ids=str,
)
def test_what_no_frame_can_have(said: dict, message: str) -> None:
    arguments = {"dtype": "float32", "shape": (4, 6), **said}
    with pytest.raises(ArgumentError, match=message):
        TensorSpec.of(**arguments)


def test_every_dtype_is_known_by_its_names() -> None:
    for element in ELEMENTS:
        for name in (element.dtype, str(element.dtype), element.dtype.type):
            assert TensorSpec.of(name, (3,)).element is element is element_type(name)
