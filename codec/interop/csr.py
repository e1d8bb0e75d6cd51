"""CSR arrays: the one form that sparse matrices of other libraries take on their way in and out.

Nothing that another library says of its arrays is believed. Its flags (sorted, coalesced, canonical) and the ranges of
its indices are proved here, before a kernel walks the arrays; entries out of order are sorted, and duplicates are added
up, as scipy and torch understand them.
"""

from typing import Any, NamedTuple

import numpy as np

from codec import kernels
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.frame import Spans


class Csr(NamedTuple):
    """A matrix by rows: row r has entries ``starts[r]`` to ``starts[r + 1]``, each a column index and a value.

    ``starts`` (rows + 1) and ``indices`` (entries) are int64, and indices ascend within a row without duplicates.
    Values are contiguous and little-endian, of a dtype of the format. The arrays may be those of the other library.
    """

    shape: tuple[int, int]
    starts: np.ndarray
    indices: np.ndarray
    values: np.ndarray


def entries(spans: Spans) -> Csr:
    """The stored entries of a tensor of two dimensions, by the rows of its own shape."""
    head = spans.head
    starts = np.zeros(head.grid.rows + 1, np.int64)
    indices, values = np.empty(head.nnz, np.int64), np.empty(head.nnz, head.element.dtype)
    count = 0
    for view, first, last in spans.views(0, head.grid.segments, 1):
        result, count = view.entries(first, last, starts, indices, kernels.octets(values), count)
        spans.raise_for(result)
    indices, values = indices[:count], values[:count]
    rows, cols = head.shape
    if (rows, cols) != (head.grid.rows, head.grid.cols):
        # The matrix view has other rows than the tensor (row_dims is 0 or 2); the row-major order is the same.
        flat = np.repeat(np.arange(head.grid.rows) * head.grid.cols, np.diff(starts)) + indices
        starts = np.searchsorted(flat, np.arange(rows + 1) * cols)
        indices = flat - np.repeat(np.arange(rows) * cols, np.diff(starts))
    return Csr((rows, cols), starts, indices, values)


def compressed(shape: Any, starts: Any, indices: Any, values: Any, *, by_columns: bool = False) -> Csr:
    """Proved CSR arrays of a matrix that is compressed by rows (CSR, BSR) or by columns (CSC, BSC).

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the matrix.
    starts : array of int, (lines + 1,)
        Where each row (or column) of entries begins.
    indices : array of int, (entries,)
        The column (or row) of each entry, in any order.
    values : array, (entries,) or (entries, height, width)
        One value for each entry, or one block. Blocks tile the matrix, and are counted by starts and indices.
    by_columns : bool
        Whether columns are the lines.

    Raises
    ------
    ArgumentError
        For arrays that do not describe a matrix of that shape.
    """
    values = _elements(values)
    down, across = _blocks(shape, values)
    line, item = ("column", "row") if by_columns else ("row", "column")
    lines, bound = (across, down) if by_columns else (down, across)
    starts, indices = _integers(f"{line} pointers", starts), _integers(f"{item} indices", indices)
    if (
        starts.shape != (lines + 1,)
        or starts[0] != 0
        or starts[-1] != len(indices)
        or (starts[1:] < starts[:-1]).any()
        or len(values) != len(indices)
    ):
        raise ArgumentError(
            f"{len(starts)} {line} pointers, {len(indices)} {item} indices and {len(values)} values; expected "
            f"{lines + 1} {line} pointers that ascend from 0 to the number of entries"
        )
    _check_inside(indices, bound, item)
    if not by_columns:
        ascending = indices[1:] > indices[:-1]
        inner = starts[1:-1]
        ascending[inner[(inner > 0) & (inner < len(indices))].astype(np.int64) - 1] = True
        if ascending.all():
            return _expanded(shape, _int64(starts), _int64(indices), values)
    of_entry = np.repeat(np.arange(lines), np.diff(_int64(starts)))
    rows, cols = (indices, of_entry) if by_columns else (of_entry, indices)
    return _sorted(shape, rows, cols, values)


def coordinates(shape: Any, rows: Any, cols: Any, values: Any) -> Csr:
    """Proved CSR arrays of a matrix given by the row, the column and the value of each entry (COO), in any order."""
    values = _elements(values)
    rows, cols = _integers("row indices", rows), _integers("column indices", cols)
    if not len(rows) == len(cols) == len(values) or values.ndim != 1:
        raise ArgumentError(f"{len(rows)} row indices, {len(cols)} column indices and values of shape {values.shape}")
    _check_inside(rows, int(shape[0]), "row")
    _check_inside(cols, int(shape[1]), "column")
    return _sorted(shape, rows, cols, values)


def _sorted(shape: Any, rows: np.ndarray, cols: np.ndarray, values: np.ndarray) -> Csr:
    """Entries, or blocks, in row-major order, those of one place added up."""
    down, across = _blocks(shape, values)
    later = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (cols[1:] > cols[:-1]))
    if not later.all():
        order = _row_major(rows, cols, down, across)
        rows, cols, values = rows[order], cols[order], values[order]
        first = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]) | (cols[1:] != cols[:-1])])
        if len(first) < len(rows):
            with np.errstate(over="ignore", invalid="ignore"):  # sums are what the dtype makes of them
                values = np.add.reduceat(values, first, axis=0, dtype=values.dtype)
            rows, cols = rows[first], cols[first]
    starts = np.concatenate(([0], np.cumsum(np.bincount(_int64(rows), minlength=down))))
    return _expanded(shape, starts, _int64(cols), values)


def _row_major(rows: np.ndarray, cols: np.ndarray, down: int, across: int) -> np.ndarray:
    """The stable order by row and then by column.

    One pass for each 16 bits of an index, the lowest first: NumPy sorts keys of 16 bits by radix, which made this 7
    times as fast as np.lexsort for entries in random order (3.4 million, AMD EPYC).
    """
    order: np.ndarray = np.arange(len(rows))
    for keys, bound in ((cols, across), (rows, down)):
        for shift in range(0, max(bound - 1, 1).bit_length(), 16):
            digits = (_int64(keys) >> shift).astype(np.uint16)
            order = order[np.argsort(digits[order], kind="stable")]
    return order


def _expanded(shape: Any, starts: np.ndarray, indices: np.ndarray, values: np.ndarray) -> Csr:
    """The arrays as they are, or those of the single elements of blocks."""
    rows, cols = (int(n) for n in shape)
    if values.ndim == 1:
        return Csr((rows, cols), starts, indices, values)
    _, height, width = values.shape
    counts = np.diff(starts)
    # Row by row of a row of blocks: before a block's row r come r rows of all its neighbours, and those on its left.
    line = np.repeat(np.arange(len(counts)), counts)
    left = np.arange(len(indices)) - starts[line]
    place = (starts[line] * height + left)[:, None] + np.arange(height) * counts[line][:, None]
    found, columns = np.empty((len(indices) * height, width), values.dtype), np.empty(len(indices) * height, np.int64)
    found[place], columns[place] = values, (indices * width)[:, None]
    each = np.repeat(counts * width, height)
    return Csr(
        (rows, cols),
        np.concatenate(([0], np.cumsum(each))),
        (columns[:, None] + np.arange(width)).reshape(-1),
        found.reshape(-1),
    )


def _blocks(shape: Any, values: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the matrix, counted in blocks where the values are blocks."""
    rows, cols = (int(n) for n in shape)
    height, width = values.shape[1:] or (1, 1)
    if not height or not width or rows % height or cols % width:
        raise ArgumentError(f"blocks of {height} x {width} do not tile a matrix of {rows} x {cols}")
    return rows // height, cols // width


def _elements(values: Any) -> np.ndarray:
    """Values or blocks, contiguous, in the dtype that the format has for them."""
    array = np.asarray(values)
    element = element_type(array.dtype)
    if array.ndim not in (1, 3):
        raise ArgumentError(f"values of shape {array.shape}; expected one value, or one block of them, for each entry")
    return np.ascontiguousarray(array, element.dtype)


def _integers(what: str, found: Any) -> np.ndarray:
    array = np.asarray(found)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(f"{what} are {array.dtype} of shape {array.shape}; expected integers of one dimension")
    return array


def _int64(proved: np.ndarray) -> np.ndarray:
    """Integers that fit as int64, side by side: without a copy where they are that."""
    return np.ascontiguousarray(proved, np.int64)


def _check_inside(indices: np.ndarray, bound: int, what: str) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= bound):
        wrong = int(indices.min()) if indices.min() < 0 else int(indices.max())
        raise ArgumentError(f"{what} index {wrong} lies outside 0 to {bound - 1}")
