"""A bit for each element, or n of every m: compressed-tensors, 2:4 of hipSPARSELt and PyTorch, SpInfer."""

from typing import Any, NamedTuple

import numpy as np

from codec.errors import ArgumentError, FormatError
from codec.interop.published.arrays import integers, of_ndim


class Bitmask(NamedTuple):
    """compressed-tensors' arrays: values, a bit for each element, where each row begins (not for 2:4), the shape."""

    compressed: np.ndarray
    bitmask: np.ndarray
    row_offsets: np.ndarray | None
    shape: np.ndarray


class TwoOfFour(NamedTuple):
    """2:4 rows: two values for every four elements, and their positions among these, ascending."""

    values: np.ndarray
    indices: np.ndarray


def sparse_bitmask(a: Any) -> Bitmask:
    """A matrix in compressed-tensors' format "sparse-bitmask": NaN is stored, -0.0 is not.

    Bits from the lowest of each byte on, a row from a byte of its own on; ``row_offsets`` has no entry for the end.

    >>> sparse_bitmask([[0, 5, 0, 7]])[1:3]
    (array([[10]], dtype=uint8), array([0]))
    """
    matrix = of_ndim(a, 2)
    stored = matrix != 0
    counts = stored.sum(axis=1, dtype=np.int64)
    bits = np.packbits(stored, axis=1, bitorder="little")
    return Bitmask(matrix[stored], bits, counts.cumsum() - counts, np.array(matrix.shape, np.int64))


def sparse_24_bitmask(a: Any) -> Bitmask:
    """A 2:4 matrix in compressed-tensors' format "sparse-24-bitmask": two bits in every four, two values for them.

    Where a group has fewer entries, its first zeros are stored too (there, which ones is left to a sort's ties).
    """
    matrix = of_ndim(a, 2)
    groups = _twos_of_fours(matrix)
    values, indices = _two(groups, np.argsort(groups == 0, axis=2, kind="stable")[:, :, :2])
    bits = np.zeros(groups.shape, bool)
    np.put_along_axis(bits, indices, True, axis=2)
    packed = np.packbits(bits.reshape(matrix.shape), axis=1, bitorder="little")
    return Bitmask(values.reshape(len(matrix), -1), packed, None, np.array(matrix.shape, np.int64)[:, None])


def from_bitmask(arrays: Bitmask) -> np.ndarray:
    """The matrix, from either of compressed-tensors' formats; ``row_offsets`` is not needed, and not read."""
    compressed, bitmask, shape = (np.asarray(arrays[number]) for number in (0, 1, 3))
    if np.size(shape) != 2:
        raise FormatError(f"a shape of {np.size(shape)} numbers; expected the rows and the columns of a matrix")
    rows, cols = (int(n) for n in np.ravel(shape))
    if bitmask.shape != (rows, -(-cols // 8)) or bitmask.dtype != np.uint8:
        raise FormatError(f"a bitmask of {bitmask.dtype} and shape {bitmask.shape} for a matrix of {rows} x {cols}")
    bits = np.unpackbits(bitmask, axis=1, bitorder="little").astype(bool)
    if bits[:, cols:].any() or np.count_nonzero(bits) != compressed.size:
        raise FormatError(f"{compressed.size} values for {np.count_nonzero(bits)} bits, {cols} of a row inside it")
    out = np.zeros((rows, cols), compressed.dtype)
    out[bits[:, :cols]] = compressed.reshape(-1)
    return out


def two_of_four(a: Any) -> TwoOfFour:
    """A 2:4 matrix as values and indices: what hipSPARSELt and PyTorch's semi-structured tensors hold.

    A group with fewer entries also stores zeros, those that PyTorch takes: 2 and 3 in an empty one, else the first of 2
    and 3 that is one. PyTorch's metadata has ``first | second << 2`` for each group, four or eight of them in a word
    from its lowest bits on; its CUTLASS backend then reorders the words.

    >>> two_of_four([[0, 6, 0, 8]])
    TwoOfFour(values=array([[6, 8]]), indices=array([[1, 3]], dtype=uint8))
    """
    matrix = of_ndim(a, 2)
    groups = _twos_of_fours(matrix)
    # Entries first, then 2, 3 and what is never taken.
    order = np.where(groups != 0, 0, np.array([3, 3, 1, 2]))
    values, indices = _two(groups, np.argsort(order, axis=2, kind="stable")[:, :, :2])
    return TwoOfFour(values.reshape(len(matrix), -1), indices.astype(np.uint8).reshape(len(matrix), -1))


def from_two_of_four(arrays: TwoOfFour) -> np.ndarray:
    """The matrix, twice as wide as the values."""
    values, indices = of_ndim(arrays[0], 2), integers("indices", arrays[1], 2)
    rows, half = values.shape
    pairs = indices.astype(np.int64).reshape(rows, -1, 2) if indices.size % 2 == 0 else indices
    if indices.shape != values.shape or half % 2 or np.any((pairs[..., 0] >= pairs[..., 1]) | (pairs > 3).any(axis=2)):
        raise FormatError(f"values {values.shape} and indices {indices.shape}; expected pairs that ascend, below 4")
    out = np.zeros((rows, half // 2, 4), values.dtype)
    np.put_along_axis(out, pairs, values.reshape(pairs.shape), axis=2)
    return out.reshape(rows, 2 * half)


def _twos_of_fours(matrix: np.ndarray) -> np.ndarray:
    """A matrix's groups of four, none with more than two entries."""
    if matrix.shape[1] % 4:
        raise ArgumentError(f"{matrix.shape[1]} columns; expected a multiple of 4")
    groups = matrix.reshape(len(matrix), -1, 4)
    over = np.argwhere(np.count_nonzero(groups, axis=2) > 2)
    if len(over):
        row, group = over[0]
        raise ArgumentError(
            f"row {row}, columns {4 * group} to {4 * group + 3}: more than two entries; prune to 2:4 before"
        )
    return groups


def _two(groups: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indices = np.sort(chosen, axis=2)
    return np.take_along_axis(groups, indices, axis=2), indices


def tca_tile(a: Any) -> tuple[np.ndarray, np.ndarray]:
    """A 16 x 16 tile as SpInfer's TCA-BME has it: bitmaps of its 8 x 8 quarters, column by column, and the values.

    SpInfer (Fan et al., EuroSys 2025): bit 8 r + c of a bitmap is row r, column c; values quarter by quarter.
    """
    tile = of_ndim(a, 2)
    if tile.shape != (16, 16):
        raise ArgumentError(f"a tile of shape {tile.shape}; expected 16 x 16")
    quarters = tile.reshape(2, 8, 2, 8).transpose(2, 0, 1, 3).reshape(4, 64)
    return np.packbits(quarters != 0, axis=1, bitorder="little").view("<u8").reshape(4), quarters[quarters != 0]


def from_tca_tile(bitmaps: Any, values: Any) -> np.ndarray:
    """The 16 x 16 tile of four bitmaps."""
    maps, found = of_ndim(bitmaps, 1).astype("<u8"), of_ndim(values, 1)
    bits = np.unpackbits(maps.view(np.uint8), bitorder="little").astype(bool)
    if len(maps) != 4 or np.count_nonzero(bits) != len(found):
        raise FormatError(f"{len(maps)} bitmaps with {np.count_nonzero(bits)} bits for {len(found)} values")
    quarters = np.zeros(256, found.dtype)
    quarters[bits] = found
    return quarters.reshape(2, 2, 8, 8).transpose(1, 2, 0, 3).reshape(16, 16)
