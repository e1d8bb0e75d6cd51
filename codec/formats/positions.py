"""Sparse tensors of other tools as positions and values, proved before they are packed, and back.

A position is an element's index in row-major order. What is larger than its own bytes justify is refused: a few bytes
may claim a tensor of any shape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from operator import index
from typing import Any

import numpy as np

from codec.errors import ArgumentError, FormatError
from codec.interop import Csr
from codec.interop.csr import compressed, coordinates, entries
from codec.matrix import TensorSpec
from codec.packed import PackedTensor

# Tables of a packed tensor grow with its rows and segments, and packing looks at a bit for each element. Up to these
# that takes 128 MB and a few seconds; beyond them a tensor must have as many entries as rows, and one for so many
# elements.
MOST_EMPTY_ROWS = 1 << 24
MOST_ELEMENTS, ELEMENTS_OF_ENTRY = 1 << 36, 1 << 16
_PIECE = 1 << 20  # bytes of a mask that are unpacked at a time


def checked_shape(shape: Any, count: int, dtype: Any) -> TensorSpec:
    """What a tensor of that shape is; FormatError if no tensor is, or if so many entries do not justify its size."""
    try:
        sizes = tuple(index(n) for n in np.asarray(shape).reshape(-1))
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"a shape of {str(shape)[:80]}; expected whole numbers") from None
    try:
        spec = TensorSpec.of(dtype, sizes)
    except ArgumentError as error:
        raise FormatError(str(error)) from None
    if spec.grid.rows > max(MOST_EMPTY_ROWS, count) or prod(sizes) > max(MOST_ELEMENTS, ELEMENTS_OF_ENTRY * count):
        raise FormatError(f"{count} entries do not justify the size of a tensor of shape {sizes}")
    return spec


def from_positions(shape: Any, positions: np.ndarray, values: np.ndarray) -> PackedTensor:
    """A packed tensor of entries at positions that ascend, each once.

    Parameters
    ----------
    shape : sequence of int
    positions : array of int, (entries,)
    values : array, (entries,)
        Every value is stored, also a zero.

    Raises
    ------
    FormatError
        For positions that are no integers, out of range, not in order, or double, and for another number of values.
    """
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or values.shape != positions.shape:
        raise FormatError(
            f"indices are {positions.dtype} of shape {positions.shape}, values of shape {values.shape}; expected one "
            "integer for each value"
        )
    spec = checked_shape(shape, len(positions), values.dtype)
    check_ascending(positions, spec.grid.size)
    return _packed(spec, positions.astype(np.int64), values)


def _packed(spec: TensorSpec, positions: np.ndarray, values: np.ndarray) -> PackedTensor:
    """From proved positions, which are overwritten: they take more memory than all else."""
    rows, cols = spec.grid.rows, spec.grid.cols
    starts = np.searchsorted(positions, np.arange(rows + 1) * cols)
    indices = np.remainder(positions, max(1, cols), out=positions)
    values = np.ascontiguousarray(values, spec.element.dtype)
    return PackedTensor.of_csr(Csr((rows, cols), starts, indices, values), spec.shape)


def check_ascending(positions: np.ndarray, size: int) -> None:
    """FormatError if positions do not ascend, or lie outside a tensor of that many elements."""
    if not positions.size:
        return
    if positions.min() < 0 or positions.max() >= size:
        wrong = int(positions.min()) if positions.min() < 0 else int(positions.max())
        raise FormatError(f"index {wrong} lies outside the tensor's {size} elements")
    later = positions[1:] > positions[:-1]
    if not later.all():
        at = int(np.argmin(later))
        word = "occurs twice" if positions[at] == positions[at + 1] else f"is followed by {int(positions[at + 1])}"
        raise FormatError(f"index {int(positions[at])} {word}; expected indices that ascend")


def from_csr(
    shape: Any, starts: Any, indices: Any, values: Any, *, by_columns: bool = False, ordered: bool = True
) -> PackedTensor:
    """A packed matrix of compressed rows (or columns).

    Parameters
    ----------
    shape, starts, indices, values, by_columns
        As for `codec.interop.csr.compressed`.
    ordered : bool
        Whether the format demands that indices ascend in each row, each once; otherwise they are sorted, and the values
        of one place added up.

    Raises
    ------
    FormatError
        For arrays that do not describe a matrix of that shape.
    """
    count, values = np.size(indices), np.atleast_1d(values)
    spec = _matrix(shape, values.size, values.dtype)
    with _format_errors():
        found = compressed(spec.shape, starts, indices, values, by_columns=by_columns)
    if ordered:
        lines, places = np.asarray(starts), np.asarray(indices)
        later = places[1:] > places[:-1]
        inner = lines[1:-1].astype(np.int64)
        later[inner[(inner > 0) & (inner < count)] - 1] = True
        if not later.all():
            at = int(np.argmin(later))
            raise FormatError(
                f"index {int(places[at])} is followed by {int(places[at + 1])} in one row or column; "
                "expected indices that ascend"
            )
    return PackedTensor.of_csr(found)


def from_coordinates(shape: Any, rows: Any, cols: Any, values: Any) -> PackedTensor:
    """A packed matrix of entries by row and column, in any order; values of one place are added up.

    Raises FormatError for arrays that do not describe a matrix of that shape.
    """
    values = np.asarray(values)
    spec = _matrix(shape, values.size, values.dtype)
    with _format_errors():
        return PackedTensor.of_csr(coordinates(spec.shape, rows, cols, values))


def _matrix(shape: Any, count: int, dtype: Any) -> TensorSpec:
    spec = checked_shape(shape, count, dtype)
    if len(spec.shape) != 2:
        raise FormatError(f"a shape of {len(spec.shape)} numbers; expected the rows and the columns of a matrix")
    return spec


@contextmanager
def _format_errors() -> Iterator[None]:
    """What is wrong with arrays of a file is the file's fault."""
    try:
        yield
    except ArgumentError as error:
        raise FormatError(str(error)) from None


def from_mask(shape: Any, mask: np.ndarray, width: int, values: np.ndarray) -> PackedTensor:
    """A packed tensor of a bit for each element, from the lowest of each byte on.

    Parameters
    ----------
    shape : sequence of int
    mask : array of uint8, any shape
        Lines of bits, each from a byte of its own on.
    width : int
        Bits of a line; what is left of its last byte must be 0.
    values : array, (set bits,)

    Raises
    ------
    FormatError
        For a mask of another size than the shape has elements, bits that are set behind a line, and another number of
        values.
    """
    spec, positions = positions_of_mask(shape, mask, width, values)
    return _packed(spec, positions, values.reshape(-1))


def positions_of_mask(shape: Any, mask: np.ndarray, width: int, values: np.ndarray) -> tuple[TensorSpec, np.ndarray]:
    """The tensor that mask and values of `from_mask` are of, and the positions (int64) of the bits.

    They are counted first: positions take 64 times the memory of their bits, which the values have to justify.
    """
    spec = checked_shape(shape, 8 * mask.size, values.dtype)
    across = -(-width // 8)
    lines = spec.grid.size // width if width else 0
    if mask.dtype != np.uint8 or mask.size != lines * across or lines * width != spec.grid.size:
        raise FormatError(
            f"a mask of shape {mask.shape} and dtype {mask.dtype} for a tensor of shape {spec.shape}; expected "
            f"{lines * across} bytes of uint8"
        )
    if (count := int(np.bitwise_count(mask).sum(dtype=np.int64))) != values.size:
        raise FormatError(f"{values.size} values for {count} set bits")
    return spec, set_bits(mask.reshape(lines, across), width)


def to_positions(packed: PackedTensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions (int64, ascending) and values of the stored entries, without a dense copy."""
    csr = to_csr(packed)
    positions = np.repeat(np.arange(csr.shape[0]) * csr.shape[1], np.diff(csr.starts))
    positions += csr.indices
    return positions, csr.values


def stored_negative_zeros(packed: PackedTensor) -> int:
    """How many stored entries are -0.0, as under zero="bits"."""
    element = packed.spans.head.element
    if not element.sign_bit:
        return 0
    return int(np.count_nonzero(to_csr(packed).values.view(element.unsigned) == element.sign_bit))


def to_csr(packed: PackedTensor) -> Csr:
    """The stored entries by the rows of a matrix; of another tensor by the rows of its matrix view."""
    grid = packed.spans.head.grid
    return entries((packed if packed.ndim == 2 else packed.reshape(grid.rows, grid.cols)).spans)


def to_mask(packed: PackedTensor, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A bit for each element in lines of ``width`` bits, each from a byte of its own on, and the values."""
    positions, values = to_positions(packed)
    return mask_of(positions, packed.size // width if width else 0, width), values


def set_bits(mask: np.ndarray, width: int) -> np.ndarray:
    """Positions (int64) of the bits that are set in lines of ``width`` bits, unpacked piece by piece.

    Raises FormatError if a bit behind the end of a line is set.
    """
    lines, across = mask.shape
    if width % 8 and (mask[:, -1] >> (width % 8)).any():
        raise FormatError(f"a bit behind the {width} of a line is set")
    found = np.empty(int(np.bitwise_count(mask).sum(dtype=np.int64)), np.int64)
    done, step = 0, max(1, _PIECE // max(1, across))
    for top in range(0, lines, step):
        bits = np.flatnonzero(np.unpackbits(mask[top : top + step], axis=1, count=width, bitorder="little"))
        np.add(bits, top * width, out=found[done : done + len(bits)])
        done += len(bits)
    return found


def mask_of(positions: np.ndarray, lines: int, width: int) -> np.ndarray:
    """Lines of ``width`` bits, each from a byte of its own on, with those set at positions that ascend."""
    across = -(-width // 8)
    mask = np.zeros((lines, across), np.uint8)
    step = max(1, _PIECE // max(1, across))
    for top in range(0, lines, step):
        bottom = min(top + step, lines)
        first, last = np.searchsorted(positions, (top * width, bottom * width))
        bits = np.zeros((bottom - top) * width, np.uint8)
        bits[positions[first:last] - top * width] = 1
        mask[top:bottom] = np.packbits(bits.reshape(-1, width), axis=1, bitorder="little")
    return mask
