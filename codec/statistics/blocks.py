"""blocks: blocks of r x c with a stored entry, counted from the top left of each segment and clipped at its edges."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from codec.dtypes import ElementType
from codec.matrix import Grid
from codec.statistics.base import Carry, Request, Statistic, Words, added_up, extents, over_segments, same, united

# Shapes (rows, columns) that tensor_stats always counts, in the order of the native statistic "common_blocks".
BLOCKS = ((1, 4), (1, 8), (1, 16), (4, 1), (8, 1), (2, 2), (4, 4), (8, 8), (16, 16))

Shape = tuple[Any, int]


class Blocks(Statistic):
    """A need's argument is a shape (r, c); ("all", c) for c whole columns of the matrix.

    ``blocks``, a mapping of shapes to how many hold an entry; ``block_elements``, to the elements of these blocks;
    ``block_parts``, to uint64 (segments, 2): both for each segment. Of whole columns only ``blocks`` tells.
    """

    name = "blocks"
    gives = ("blocks", "block_elements", "block_parts")

    def requests(self, argument: Any, element: ElementType, grid: Grid) -> tuple[Request, ...]:
        """The common shapes together, others each for itself; whole columns from the entries of columns."""
        if argument[0] == "all":
            return (("columns", 0, 0),)
        return (_COMMON if argument in BLOCKS else _of("blocks", argument, grid), _of("clipped", argument, grid))

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> Mapping[Shape, Any]:
        """The common shapes first."""
        shapes = sorted(arguments, key=lambda shape: BLOCKS.index(shape) if shape in BLOCKS else len(BLOCKS))
        if attribute == "block_parts":
            return {shape: _parts(shape, words) for shape in shapes if shape[0] != "all"}
        if attribute == "block_elements":
            return {shape: int(_parts(shape, words)[:, 1].sum()) for shape in shapes if shape[0] != "all"}
        return {shape: _whole(shape[1], words) if shape[0] == "all" else _live(shape, words) for shape in shapes}

    def carry(self, request: Request, known: Grid, grid: Grid) -> Carry | None:
        """Added up, from smaller segments that no block crosses the lower edge of."""
        if request[0] == "columns":
            return same
        rows, many = (_TALLEST if request == _COMMON else request[1]), united(known, grid)
        if not many or known.segment_rows % rows:
            return None
        return added_up(many, len(BLOCKS) if request == _COMMON else 1)

    def expected(self, attribute: str, grid: Grid, nnz: int) -> Mapping[Shape, Any]:
        """Of any shape."""
        return {"blocks": _ExpectedBlocks, "block_elements": _ExpectedElements, "block_parts": _ExpectedParts}[
            attribute
        ](grid, nnz / max(1, grid.size))


_COMMON: Request = ("common_blocks", 0, 0)
_TALLEST = max(r for r, _ in BLOCKS)


def _clipped(shape: Shape, grid: Grid) -> tuple[int, int]:
    """A shape no larger than a segment."""
    return min(int(shape[0]), max(1, grid.segment_rows)), min(int(shape[1]), max(1, grid.segment_cols))


def _of(name: str, shape: Shape, grid: Grid) -> Request:
    r, c = shape if shape in BLOCKS else _clipped(shape, grid)
    return name, int(r), int(c)


def _by_segment(shape: Shape, words: Words) -> np.ndarray:
    """Blocks of each segment that hold an entry."""
    if shape in BLOCKS:
        common: np.ndarray = words.of[_COMMON].reshape(-1, len(BLOCKS))[:, BLOCKS.index(shape)]
        return common
    return words.of[_of("blocks", shape, words.grid)]


def _live(shape: Shape, words: Words) -> int:
    return int(_by_segment(shape, words).sum())


def _parts(shape: Shape, words: Words) -> np.ndarray:
    """Blocks of each segment that hold an entry, and their elements."""
    live, (_, r, c) = _by_segment(shape, words), _of("clipped", shape, words.grid)
    parts = np.empty((len(live), 2), np.uint64)
    parts[:, 0] = live
    parts[:, 1] = live * np.uint64(r * c) - words.of["clipped", r, c]
    return parts


def _whole(c: int, words: Words) -> int:
    """Groups of c columns of the matrix that hold an entry."""
    cols = words.of["columns", 0, 0]
    return int(np.add.reduceat(cols, np.arange(0, len(cols), c)).astype(bool).sum()) if len(cols) else 0


class _ExpectedBlocks(Mapping[Shape, Any]):
    def __init__(self, grid: Grid, density: float) -> None:
        self.grid, self.density = grid, density

    def __iter__(self) -> Iterator[Shape]:
        return iter(BLOCKS)

    def __len__(self) -> int:
        return len(BLOCKS)

    def __contains__(self, shape: object) -> bool:
        return isinstance(shape, tuple) and len(shape) == 2

    def __getitem__(self, shape: Shape) -> Any:
        return round(sum(live for _, live in self._found(shape)))

    def _found(self, shape: Shape) -> Iterator[tuple[int, float]]:
        """Elements of a block, and how many such blocks of all segments hold an entry, for each clipped extent."""
        r, c = shape
        shapes = [(self.grid.rows, self.grid.cols, 1)] if r == "all" and self.grid.size else self.grid.shapes()
        for h, w, n in shapes:
            for size, live in self._of(h, w, h if r == "all" else r, c):
                yield size, n * live

    def _of(self, h: int, w: int, r: int, c: int) -> Iterator[tuple[int, float]]:
        """The same of one segment."""
        for rows, down in extents(h, r):
            for cols, across in extents(w, c):
                yield rows * cols, down * across * (1 - (1 - self.density) ** (rows * cols))


class _ExpectedElements(_ExpectedBlocks):
    def __getitem__(self, shape: Shape) -> int:
        return round(sum(size * live for size, live in self._found(shape)))


class _ExpectedParts(_ExpectedBlocks):
    def __contains__(self, shape: object) -> bool:
        return super().__contains__(shape) and isinstance(shape, tuple) and shape[0] != "all"

    def __getitem__(self, shape: Shape) -> np.ndarray:
        def of(h: int, w: int) -> list[float]:
            found = list(self._of(h, w, int(shape[0]), int(shape[1])))
            return [sum(live for _, live in found), sum(size * live for size, live in found)]

        if not self.grid.size:
            return np.zeros((0, 2), np.uint64)
        # Rounded so that the segments add up.
        ends = np.rint(np.cumsum(over_segments(self.grid, of), axis=0))
        parts: np.ndarray = np.diff(ends, axis=0, prepend=0).astype(np.uint64)
        return parts
