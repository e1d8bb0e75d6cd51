"""What sizes depend on: counted over a tensor (codec.stats), or expected where zeros are independent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import comb, log, log1p
from typing import Any

import numpy as np

from codec.geometry import Grid

# Lengths of gaps that are counted each by itself; the last is for that one less and everything above.
RUNS = 65536
# Codes of gaps have 1 to this many bits.
CODES = 16
# Shapes of blocks (rows, columns), and sizes of groups along a row, that statistics always hold.
BLOCKS = ((1, 4), (1, 8), (1, 16), (4, 1), (8, 1), (2, 2), (4, 4), (8, 8), (16, 16))
GROUPS = (4, 8, 16)


@dataclass(frozen=True)
class Counts:
    """Stored entries, and, where more is known of a tensor, how they are spread; None is not known.

    Attributes
    ----------
    nnz : int
        Stored entries.
    rows : ndarray of uint64 or None
        Stored entries of each row of each segment, segment by segment.
    cols : ndarray of uint64 or None
        Stored entries of each matrix column.
    parts : ndarray of uint64 or None, (segments,)
        Stored entries of each segment.
    gap_lengths, zero_gap_lengths : ndarray of uint64 or None, (65536,)
        Zeros before each entry over the flattened segment, and entries before each of the others; the last bin is for
        65535 and more.
    long_gaps, long_zero_gaps : ndarray of int64 or None
        Those of 65535 and more, one by one.
    escapes, fillers, zero_escapes : ndarray of uint64 or None, (segments, 16)
        In column k - 1: how often 2**k - 1 and 2**k fit into gaps before entries, and 2**k - 1 into those before zeros.
    blocks : mapping of (r, c) to int, or None
        Blocks of r x c with a stored entry, counted from the top left of each segment and clipped at its edges.
    block_elements : mapping of (r, c) to int, or None
        Elements of these blocks.
    groups : mapping of m to ndarray of uint64 (m + 1,), or None
        How many groups of m along a row of a segment, the last one short, hold so many stored entries.
    mask_bytes, lane_bytes : ndarray of uint64 or None, (256,)
        Bytes of bitmap's mask by value, for order "rows" and "lanes".
    keys : ndarray of uint64 or None
        Stored values by the top bits of their keys (spec section 6.2).
    or_of_keys : int
        Bitwise OR of these keys: low bits that are zero in it are zero in every value.
    """

    nnz: int
    rows: np.ndarray | None = field(default=None, repr=False)
    cols: np.ndarray | None = field(default=None, repr=False)
    parts: np.ndarray | None = field(default=None, repr=False)
    gap_lengths: np.ndarray | None = field(default=None, repr=False)
    zero_gap_lengths: np.ndarray | None = field(default=None, repr=False)
    long_gaps: np.ndarray | None = field(default=None, repr=False)
    long_zero_gaps: np.ndarray | None = field(default=None, repr=False)
    escapes: np.ndarray | None = field(default=None, repr=False)
    fillers: np.ndarray | None = field(default=None, repr=False)
    zero_escapes: np.ndarray | None = field(default=None, repr=False)
    blocks: Mapping[tuple[Any, int], int] | None = field(default=None, repr=False)
    block_elements: Mapping[tuple[Any, int], int] | None = field(default=None, repr=False)
    groups: Mapping[int, np.ndarray] | None = field(default=None, repr=False)
    mask_bytes: np.ndarray | None = field(default=None, repr=False)
    lane_bytes: np.ndarray | None = field(default=None, repr=False)
    keys: np.ndarray | None = field(default=None, repr=False)
    or_of_keys: int = 0

    @property
    def gaps(self) -> np.ndarray | None:
        """Items of layout huffman's gaps by value, (256,): zeros before an entry, 255 for each 255 of them."""
        if self.gap_lengths is None or self.long_gaps is None:
            return None
        used = np.flatnonzero(self.gap_lengths[:-1])
        times = self.gap_lengths[used].astype(np.float64)
        out = np.bincount(used % 255, times, 256) + np.bincount(self.long_gaps % 255, minlength=256)
        out[255] = times @ (used // 255) + (self.long_gaps // 255).sum()
        return out.astype(np.uint64)

    @staticmethod
    def expected(grid: Grid, sparsity: float) -> "Counts":
        """Expected counts of a matrix of which ``round(sparsity * size)`` elements are zeros, each place as likely."""
        return Counts.independent(grid, grid.size - round(float(sparsity) * grid.size))

    @staticmethod
    def independent(grid: Grid, nnz: int) -> "Counts":
        """The same of a matrix of which ``nnz`` elements are stored."""
        return _Expected(grid, nnz)


class _Expected(Counts):
    """Counts that are worked out when they are asked for: a search for a break-even asks for few of them, often.

    What adds up in expectation is rounded so that it still adds up: gaps by how many are at least so long.
    """

    def __init__(self, grid: Grid, nnz: int) -> None:
        super().__init__(nnz)
        # The fields' defaults stand in the instance, before the properties below.
        for name in set(self.__dict__) - {"nnz", "rows", "keys", "or_of_keys"}:
            del self.__dict__[name]
        self.__dict__["grid"] = grid
        self.__dict__["density"] = nnz / grid.size if grid.size else 0.0

    grid: Grid
    density: float

    @cached_property
    def cols(self) -> np.ndarray:
        """Columns alike, but for as many that hold nothing as there will be."""
        live = round(self.grid.cols * (1 - (1 - self.density) ** self.grid.rows))
        out = np.zeros(self.grid.cols, np.uint64)
        if live:
            out[-live:] = np.diff(np.arange(live + 1, dtype=np.float64) * self.nnz // live)
        return out

    def _by_segment(self, value: Any) -> np.ndarray:
        """value(h, w) for each segment, from its distinct extents."""
        known = {(h, w): value(h, w) for h, w, _ in self.grid.shapes()}
        extents = (
            [(place.rows, place.cols) for place in self.grid.places()]
            if len(known) > 1
            else list(known) * self.grid.segments
        )
        return np.array([known[extent] for extent in extents]).astype(np.uint64)

    @cached_property
    def parts(self) -> np.ndarray:
        """Entries in proportion to elements."""
        ends = np.cumsum(self.grid.elements).astype(np.float64)
        return np.diff(np.rint(ends * self.density), prepend=0).astype(np.uint64)

    def _at_least(self, density: float, lengths: np.ndarray) -> np.ndarray:
        """Gaps of at least these lengths: an item at each place that has so many places before it, all empty."""
        out = np.zeros(len(lengths))
        if density > 0:
            reach = (1.0 - density) ** lengths
            for h, w, n in self.grid.shapes():
                out += n * density * np.maximum(h * w - lengths, 0) * reach
        return out

    def _lengths(self, density: float) -> np.ndarray:
        most = _reach(density, self.grid.segment_rows * self.grid.segment_cols)
        whole = np.rint(self._at_least(density, np.arange(min(most, RUNS) + 1.0)))
        out = np.zeros(RUNS + 1, np.uint64)
        out[: len(whole) - 1] = whole[:-1] - whole[1:]
        out[RUNS - 1] = whole[RUNS - 1] if len(whole) > RUNS - 1 else 0
        return out[:RUNS]

    def _long(self, density: float) -> np.ndarray:
        most = _reach(density, self.grid.segment_rows * self.grid.segment_cols)
        if most < RUNS - 1:
            return np.zeros(0, np.int64)
        above = np.rint(self._at_least(density, np.arange(RUNS - 1.0, most + 1)))
        return np.repeat(np.arange(RUNS - 1, RUNS - 2 + len(above)), (above[:-1] - above[1:]).astype(np.int64))

    @cached_property
    def gap_lengths(self) -> np.ndarray:
        """As counted."""
        return self._lengths(self.density)

    @cached_property
    def zero_gap_lengths(self) -> np.ndarray:
        """As counted."""
        return self._lengths(1 - self.density)

    @cached_property
    def long_gaps(self) -> np.ndarray:
        """As counted."""
        return self._long(self.density)

    @cached_property
    def long_zero_gaps(self) -> np.ndarray:
        """As counted."""
        return self._long(1 - self.density)

    def _fit(self, density: float, less: int) -> np.ndarray:
        """How often 2**k - less fits into the gaps of a segment: once for each of its multiples that a gap reaches.

        Of n elements, the sum over j of d (n - j step) q**j with q = (1 - d)**step, in closed form.
        """
        steps = (1 << np.arange(1, CODES + 1)) - less

        def of(h: int, w: int) -> np.ndarray:
            n = h * w
            most = ((n - 1) // steps).astype(np.float64)
            if density <= 0 or density >= 1:
                return np.zeros(CODES)
            rest = -np.expm1(steps * log1p(-density))  # 1 - q
            last = np.exp(most * steps * log1p(-density))  # q**most
            q = 1 - rest
            sums = q * (1 - last) / rest
            weighted = q * (1 - last * (1 + most * rest)) / rest**2
            few = most * rest < 1e-3  # then the difference above is lost in rounding, and every q**j is 1
            sums, weighted = np.where(few, most, sums), np.where(few, most * (most + 1) / 2, weighted)
            found: np.ndarray = np.rint(np.maximum(0, density * (n * sums - steps * weighted)))
            return found

        return self._by_segment(of).reshape(-1, CODES)

    @cached_property
    def escapes(self) -> np.ndarray:
        """As counted."""
        return self._fit(self.density, 1)

    @cached_property
    def fillers(self) -> np.ndarray:
        """As counted."""
        return self._fit(self.density, 0)

    @cached_property
    def zero_escapes(self) -> np.ndarray:
        """As counted."""
        return self._fit(1 - self.density, 1)

    @cached_property
    def blocks(self) -> Mapping[tuple[Any, int], int]:
        """Of any shape."""
        return _ExpectedBlocks(self.grid, self.density)

    @cached_property
    def block_elements(self) -> Mapping[tuple[Any, int], int]:
        """Of any shape."""
        return _ExpectedElements(self.grid, self.density)

    @cached_property
    def groups(self) -> Mapping[int, np.ndarray]:
        """Of any size."""
        return _ExpectedGroups(self.grid, self.density)

    def _bytes(self, n: int) -> np.ndarray:
        """n bytes of eight elements by value."""
        ones = np.array([value.bit_count() for value in range(256)])
        return np.rint(n * self.density**ones * (1.0 - self.density) ** (8 - ones)).astype(np.uint64)

    @cached_property
    def mask_bytes(self) -> np.ndarray:
        """As counted, but for the last byte of each segment."""
        return self._bytes(-(-self.grid.size // 8))

    @cached_property
    def lane_bytes(self) -> np.ndarray:
        """As counted, but for groups of fewer than 64 rows."""
        return self._bytes(sum(n * 8 * -(-h // 64) * w for h, w, n in self.grid.shapes()))


def _reach(density: float, n: int) -> int:
    """A length that no gap among n elements is likely to have: less than one in a million matrices."""
    if density <= 0 or n == 0:
        return 0
    return n if density < 1e-9 else min(n, 1 if density >= 1 else int(log(1e-6 / n) / log(1 - density)) + 1)


class _ExpectedBlocks(Mapping[tuple[Any, int], int]):
    def __init__(self, grid: Grid, density: float) -> None:
        self.grid, self.density = grid, density

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return iter(BLOCKS)

    def __len__(self) -> int:
        return len(BLOCKS)

    def __contains__(self, shape: object) -> bool:
        return isinstance(shape, tuple) and len(shape) == 2

    def __getitem__(self, shape: tuple[Any, int]) -> int:
        return round(sum(live for _, live in self._live(shape)))

    def _live(self, shape: tuple[Any, int]) -> Iterator[tuple[int, float]]:
        """Elements of a block, and how many such blocks hold an entry, for each clipped extent."""
        r, c = shape
        shapes = [(self.grid.rows, self.grid.cols, 1)] if r == "all" and self.grid.size else self.grid.shapes()
        for h, w, n in shapes:
            for rows, down in _cut(h, h if r == "all" else r):
                for cols, across in _cut(w, c):
                    yield rows * cols, n * down * across * (1 - (1 - self.density) ** (rows * cols))


class _ExpectedElements(_ExpectedBlocks):
    def __getitem__(self, shape: tuple[Any, int]) -> int:
        return round(sum(size * live for size, live in self._live(shape)))


class _ExpectedGroups(Mapping[int, np.ndarray]):
    def __init__(self, grid: Grid, density: float) -> None:
        self.grid, self.density = grid, density

    def __iter__(self) -> Iterator[int]:
        return iter(GROUPS)

    def __len__(self) -> int:
        return len(GROUPS)

    def __contains__(self, m: object) -> bool:
        return isinstance(m, int)

    def __getitem__(self, m: int) -> np.ndarray:
        out = np.zeros(m + 1)
        for h, w, n in self.grid.shapes():
            for length, across in _cut(w, m):
                chances = [
                    comb(length, j) * self.density**j * (1 - self.density) ** (length - j) for j in range(length + 1)
                ]
                out[: length + 1] += n * h * across * np.array(chances)
        least = np.rint(np.append(out[::-1].cumsum()[::-1], 0))  # groups with at least so many
        return np.asarray(least[:-1] - least[1:]).astype(np.uint64)


def _cut(total: int, step: int) -> list[tuple[int, int]]:
    whole, rest = divmod(total, step)
    return [(extent, n) for extent, n in ((step, whole), (rest, int(rest > 0))) if n]
