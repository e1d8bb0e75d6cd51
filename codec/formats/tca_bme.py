"""SpInfer's TCA-BME: six raw files for each matrix, beside each other under its name.

Bitmaps of tiles of 8 x 8 (bit 8 r + c is row r, column c), four of them column by column in a tile of 16 x 16, these
side by side in strips of 16 x 64, four strips in a tile of 64 x 64, whose values are filled up to a multiple of 8.
Source: Fan et al., EuroSys 2025; its function InitSparseMatrixA_bitmap, and for the files Our_GenSparseMatrixBinFile.
"""

import os
from typing import Any

import numpy as np

from codec.errors import ArgumentError, FormatError
from codec.formats.archives import FilePerTensor
from codec.formats.positions import from_positions, mask_of, set_bits, to_positions
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

TILE = 64  # rows and columns of a global tile
_BITS, _STRIP = TILE * TILE, TILE * 16  # elements of a global tile, and of a strip
_FILL = 8  # the values of a global tile are filled up to a multiple of this
_LARGEST = 64  # the largest number of values in a tile is rounded up to a multiple of this
VALUES = ".NZWeights.bin"
# The other files, and the dtype of the numbers in them. SpInfer does not write the last one and leaves the shape to
# whoever calls it.
BESIDE: dict[str, np.dtype] = {
    ".gtile.bin": np.dtype("<i4"),
    ".mtile.bin": np.dtype("<i4"),
    ".ltile.bin": np.dtype("<u8"),
    ".intile.bin": np.dtype("<i4"),
    ".OutputSizes.bin": np.dtype("<i4"),
    ".Shape.bin": np.dtype("<i4"),
}


def _bits_of_elements() -> np.ndarray:
    """The place of each element of a global tile among its bits, (64, 64)."""
    places = np.arange(_BITS).reshape(4, 4, 2, 2, 8, 8)  # strip, across, half, down, row, column
    return np.ascontiguousarray(places.transpose(0, 3, 4, 1, 2, 5)).reshape(TILE, TILE)


_BIT_OF = _bits_of_elements()
_ELEMENT_OF = np.argsort(_BIT_OF, axis=None)


class TcaBme(FilePerTensor):
    """Float16 matrices whose sides are multiples of 64."""

    name = "tca-bme"
    summary = "SpInfer's TCA-BME: values and bitmaps of tiles of 8 x 8 in six raw files, and a seventh for the shape"
    reads = writes = ("F16",)
    suffix = VALUES
    endings = (VALUES,)
    beside = tuple(BESIDE)
    element_bits = 1 + 5 * 32 / _BITS
    matrices = drops_zeros = True

    def claims_file(self, path: str) -> bool:
        """By the names of the files."""
        return all(os.path.isfile(path.removesuffix(VALUES) + ending) for ending in list(BESIDE)[:3])

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it consists of tiles."""
        super().check(name, packed)
        rows, cols = packed.shape
        if rows % TILE or cols % TILE or not packed.size or packed.size >= 1 << 31:
            raise ArgumentError(
                f"{self.name} has matrices whose sides are multiples of {TILE}, of fewer than 2**31 elements; this has "
                f"shape {packed.shape}"
            )

    def write_sparse(self, path: str, packed: PackedTensor) -> None:
        """The file of the values last: with it the others are there."""
        positions, values = to_positions(packed)
        kept = values != 0  # as SpInfer asks; a stored zero is none for it
        rows, cols = np.divmod(positions[kept], packed.shape[1])
        tiles = packed.size // _BITS
        bits = (rows // TILE * (packed.shape[1] // TILE) + cols // TILE) * _BITS + _BIT_OF[rows % TILE, cols % TILE]
        order = np.argsort(bits)
        bits = bits[order]
        counts = np.bincount(bits // _BITS, minlength=tiles)
        filled = _up(counts, _FILL)
        offsets = np.concatenate(([0], np.cumsum(filled)))
        stream = np.zeros(offsets[-1], np.float16)
        stream[np.arange(len(bits)) + np.repeat(np.cumsum(filled - counts) - (filled - counts), counts)] = values[kept][
            order
        ]
        numbers: dict[str, Any] = {
            ".gtile.bin": offsets,
            ".mtile.bin": _strips(bits, tiles),
            ".ltile.bin": mask_of(bits, tiles, _BITS).view("<u8"),
            ".intile.bin": _up(filled.max(), _LARGEST),
            ".OutputSizes.bin": (len(stream), tiles + 1, 4 * tiles, 64 * tiles),
            ".Shape.bin": packed.shape,
        }
        for ending, dtype in BESIDE.items():
            write_atomic(path.removesuffix(VALUES) + ending, [np.asarray(numbers[ending], dtype).tobytes()])
        write_atomic(path, [stream.astype("<f2").tobytes()])

    def read_file(self, path: str) -> PackedTensor:
        """FormatError for files that do not belong together."""
        stem = path.removesuffix(VALUES)
        absent = [ending for ending in BESIDE if not os.path.isfile(stem + ending)]
        if absent:
            way = ": two int32 numbers, rows and columns" if absent == [".Shape.bin"] else ""
            raise FormatError(f"{stem + absent[0]!r} is missing beside {path!r}{way}")
        offsets, strips, maps, largest, sizes, shape = (
            _numbers(stem + end, np.dtype(kind)) for end, kind in BESIDE.items()
        )
        values = _numbers(path, np.dtype("<f2"))
        if len(shape) != 2 or (shape <= 0).any() or (shape % TILE).any():
            raise FormatError(f"a shape of {shape[:4].tolist()}; expected two multiples of {TILE}")
        rows, cols = (int(n) for n in shape)
        tiles = rows * cols // _BITS
        if [len(values), len(offsets), len(strips), len(maps)] != sizes.tolist() or len(maps) != tiles * 64:
            raise FormatError(
                f"{len(values)} values, {len(offsets)} and {len(strips)} offsets and {len(maps)} bitmaps for {rows} x "
                f"{cols}; OutputSizes says {sizes[:4].tolist()}"
            )
        bits = set_bits(maps.view(np.uint8).reshape(tiles, -1), _BITS)
        counts = np.bincount(bits // _BITS, minlength=tiles)
        filled = _up(counts, _FILL)
        expected = np.concatenate(([0], np.cumsum(filled)))
        if not np.array_equal(offsets, expected) or not np.array_equal(strips, _strips(bits, tiles)):
            raise FormatError("offsets of tiles or strips are not those of the bitmaps")
        if len(values) != expected[-1] or largest.tolist() != [_up(filled.max(), _LARGEST)]:
            raise FormatError(
                f"{len(values)} values and {largest[:1].tolist()} in the largest tile are not the bitmaps'"
            )
        place = np.arange(len(bits)) + np.repeat(np.cumsum(filled - counts) - (filled - counts), counts)
        tile, bit = np.divmod(bits, _BITS)
        row, col = np.divmod(_ELEMENT_OF[bit], TILE)
        positions = (tile // (cols // TILE) * TILE + row) * cols + tile % (cols // TILE) * TILE + col
        order = np.argsort(positions)
        return from_positions((rows, cols), positions[order], values[place][order])


def _strips(bits: np.ndarray, tiles: int) -> np.ndarray:
    """Where the values of each strip begin in their tile."""
    counts = np.bincount(bits // _STRIP, minlength=4 * tiles).reshape(tiles, 4)
    return (counts.cumsum(axis=1) - counts).reshape(-1)


def _up(numbers: Any, step: int) -> Any:
    return -(-numbers // step) * step


def _numbers(path: str, dtype: np.dtype) -> np.ndarray:
    size = os.path.getsize(path)
    if size % dtype.itemsize:
        raise FormatError(f"{path!r} has {size} bytes; expected a multiple of {dtype.itemsize}")
    return np.fromfile(path, dtype)
