"""TFLite's SparsityParameters: a sparse tensor as a tree of levels, each dense or compressed, in some order of its
dimensions and of blocks inside them.

Source: schema.fbs of LiteRT, SparsityParameters; its FormatConverter.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from codec.errors import FormatError
from codec.formats.positions import check_ascending


class Level(NamedTuple):
    """One dimension of the tree: dense of a size, or where each parent's indices begin, and the indices."""

    size: int
    segments: np.ndarray | None = None
    indices: np.ndarray | None = None


class Sparsity(NamedTuple):
    """The levels in the order of the tree, the dimension that each stands for, and the one that each block divides."""

    order: tuple[int, ...]
    block_map: tuple[int, ...]
    levels: tuple[Level, ...]


def positions_of(sparsity: Sparsity, shape: tuple[int, ...], values: int) -> np.ndarray:
    """The position (int64, row-major) of each of so many values, in the order in which they are stored.

    Raises FormatError for levels that do not describe a tensor of that shape with that many values. Nothing is made
    before the numbers of all levels agree with the arrays that the file holds.
    """
    sizes, block = _sizes(sparsity, shape)
    nodes = 1
    for (at, size), level in zip(sizes, sparsity.levels, strict=True):
        nodes = _children(level, at, size, nodes)
    if nodes != values:
        raise FormatError(f"{values} values for a tree of {nodes} elements")
    along: list[np.ndarray] = []
    parents = 1
    for (_, size), level in zip(sizes, sparsity.levels, strict=True):
        if level.segments is None or level.indices is None:
            along = [np.repeat(one, size) for one in along] + [np.tile(np.arange(size), parents)]
            parents *= size
        else:
            along = [np.repeat(one, np.diff(level.segments)) for one in along] + [level.indices.astype(np.int64)]
            parents = len(level.indices)
    coordinates = [np.zeros(parents, np.int64) for _ in shape]
    for number, index in zip(sparsity.order, along, strict=True):
        if number < len(shape):
            coordinates[number] += index * block[number]
        else:
            coordinates[sparsity.block_map[number - len(shape)]] += index
    found = np.zeros(parents, np.int64)
    for size, one in zip(shape, coordinates, strict=True):
        found = found * size + one
    return found


def _sizes(sparsity: Sparsity, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], list[int]]:
    """(place in the tree, size) of each level, and how many elements a block has along each dimension."""
    order, block_map, levels = sparsity
    n, k = len(shape), len(block_map)
    if len(order) != n + k or len(levels) != n + k or sorted(order[:n]) != [*range(n)]:
        raise FormatError(
            f"levels {list(order)} for {n} dimensions and {k} blocks; expected each once, dimensions first"
        )
    if sorted(order[n:]) != [*range(n, n + k)] or len(set(block_map)) != k or not set(block_map) <= {*range(n)}:
        raise FormatError(f"blocks {list(order[n:])} of dimensions {list(block_map)}; expected each dimension once")
    block = [1] * n
    for number, level in zip(order[n:], levels[n:], strict=True):
        if level.segments is not None or level.size < 1:
            raise FormatError(f"a block dimension that is not dense, or of size {level.size}")
        block[block_map[number - n]] = level.size
    for size, width in zip(shape, block, strict=True):
        if size % width:
            raise FormatError(f"blocks of {width} do not divide a dimension of {size}")
    sizes = [shape[number] // block[number] if number < n else block[block_map[number - n]] for number in order]
    return list(enumerate(sizes)), block


def _children(level: Level, at: int, size: int, parents: int) -> int:
    """How many nodes a level has; its arrays proved."""
    if level.segments is None or level.indices is None:
        if level.size != size:
            raise FormatError(f"level {at} has size {level.size}; the shape says {size}")
        return parents * size
    segments, indices = level.segments.astype(np.int64), level.indices.astype(np.int64)
    if (
        len(segments) != parents + 1
        or segments[0] != 0
        or (np.diff(segments) < 0).any()
        or segments[-1] != len(indices)
    ):
        raise FormatError(
            f"level {at}: {len(segments)} segments for {parents} parents; expected one more, ascending from 0 to the "
            f"{len(indices)} indices"
        )
    parent = np.repeat(np.arange(parents), np.diff(segments))
    if len(indices) and (indices.min() < 0 or indices.max() >= size):
        wrong = int(indices.min()) if indices.min() < 0 else int(indices.max())
        raise FormatError(f"level {at}: index {wrong} lies outside a dimension of {size}")
    check_ascending(parent * size + indices, parents * size)
    return len(indices)


def rows_of_blocks(
    shape: tuple[int, int], positions: np.ndarray, values: np.ndarray, width: int
) -> tuple[Sparsity, np.ndarray]:
    """A matrix by rows in blocks of 1 x ``width``, and the values with the zeros in these blocks; 1 makes it CSR.

    >>> rows_of_blocks((2, 4), np.array([5]), np.array([9]), 2)[1]
    array([0, 9])
    """
    rows, cols = shape
    across = cols // width
    blocks, place = np.unique(positions // width, return_inverse=True)
    stored = np.zeros((len(blocks), width), values.dtype)
    stored[place, positions % width] = values
    segments = np.searchsorted(blocks, np.arange(rows + 1) * across)
    levels = (Level(rows), Level(0, segments, blocks % max(1, across)), *((Level(width),) if width > 1 else ()))
    return Sparsity((0, 1, 2)[: len(levels)], (1,)[: width > 1], levels), stored.reshape(-1)


def sparsity_nbytes(sparsity: Sparsity, values: np.ndarray) -> int:
    """Bytes of the values and of the arrays of the levels."""
    arrays = [array for level in sparsity.levels for array in level[1:] if array is not None]
    return int(values.nbytes + sum(prod(array.shape) * narrowest(array).itemsize for array in arrays))


def narrowest(array: np.ndarray) -> np.dtype:
    """The narrowest of the types that an array of a level can have."""
    largest = int(array.max(initial=0))
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.int32)
