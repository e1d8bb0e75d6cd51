"""gaps: the zeros before each stored entry over the flattened segment. zero_gaps: the entries before each zero."""

from collections.abc import Sequence
from math import log, log1p
from typing import Any, ClassVar

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Plain, Words, over_segments

# Lengths of gaps that are counted each by itself; the last is for that one less and everything above.
RUNS = 65536
# Codes of gaps have 1 to this many bits.
CODES = 16
# What an item of layout huffman's gaps stands for where no entry follows.
ESCAPE = 255


class _Gaps(Plain):
    """Words: gaps by length; for each segment a length that none exceeds, its tables of codes, and its longest gaps."""

    tables: ClassVar[tuple[str, ...]]
    lengths: ClassVar[str]
    longest: ClassVar[str]

    def read(self, attribute: str, arguments: Sequence[Any], words: Words) -> Any:
        """Lengths, longest gaps, items, or how often codes fit."""
        found = words.of[self.name, 0, 0]
        segments = words.by_segment(found[RUNS:], 1 + CODES * len(self.tables))
        lengths = found[: min(RUNS, 1 + int(segments[:, 0].max(initial=0)))]
        if attribute == self.lengths:
            return lengths
        if attribute in self.tables:
            start = 1 + CODES * self.tables.index(attribute)
            return segments[:, start : start + CODES]
        longest = segments[:, 1 + CODES * len(self.tables) :]
        longest = longest[longest > 0].astype(np.int64)
        return longest if attribute == self.longest else gap_items(lengths, longest)

    def density(self, grid: Grid, nnz: int) -> float:
        """Of what the gaps lie between."""
        return nnz / max(1, grid.size)

    def expected(self, attribute: str, grid: Grid, nnz: int) -> Any:
        """Gaps by how many are at least so long, and codes from that in closed form."""
        density = self.density(grid, nnz)
        if attribute == self.lengths:
            return _lengths(grid, density)
        if attribute == self.longest:
            return _longest(grid, density)
        if attribute in self.tables:
            return _fit(grid, density, 0 if attribute == "fillers" else 1)
        return gap_items(_lengths(grid, density), _longest(grid, density))


class Gaps(_Gaps):
    """Zeros before entries.

    ``gap_lengths``, uint64, as many as the longest gap needs and at most 65536, the last of which is for 65535 and
    more; ``long_gaps``, int64, those one by one;
    ``escapes`` and ``fillers``, uint64 (segments, 16): in column k - 1 how often 2**k - 1, and 2**k, fit into gaps;
    ``gaps``, uint64 (256,): as items of a byte, a gap's rest below 255, and 255 for each 255 in it.
    """

    name = "gaps"
    gives = ("gap_lengths", "long_gaps", "escapes", "fillers", "gaps")
    tables = ("escapes", "fillers")
    lengths, longest = "gap_lengths", "long_gaps"


class ZeroGaps(_Gaps):
    """Entries before zeros: ``zero_gap_lengths``, ``long_zero_gaps`` and ``zero_escapes``, as those of gaps."""

    name = "zero_gaps"
    gives = ("zero_gap_lengths", "long_zero_gaps", "zero_escapes")
    tables = ("zero_escapes",)
    lengths, longest = "zero_gap_lengths", "long_zero_gaps"

    def density(self, grid: Grid, nnz: int) -> float:
        """Of zeros."""
        return 1 - nnz / max(1, grid.size)


def gap_items(lengths: np.ndarray, longest: np.ndarray) -> np.ndarray:
    """Gaps as items of a byte by value, (256,)."""
    used = np.flatnonzero(lengths[: RUNS - 1])
    times = lengths[used].astype(np.float64)
    out = np.bincount(used % ESCAPE, times, 256) + np.bincount(longest % ESCAPE, minlength=256)
    out[ESCAPE] = times @ (used // ESCAPE) + (longest // ESCAPE).sum()
    return out.astype(np.uint64)


def _reach(density: float, n: int) -> int:
    """A length that no gap among n elements is likely to have: less than one in a million matrices."""
    if density <= 0 or n == 0:
        return 0
    return n if density < 1e-9 else min(n, 1 if density >= 1 else int(log(1e-6 / n) / log(1 - density)) + 1)


def _at_least(grid: Grid, density: float, lengths: np.ndarray) -> np.ndarray:
    """Gaps of at least these lengths: an item at each place that has so many places before it, all empty."""
    out = np.zeros(len(lengths))
    if density > 0:
        reach = (1.0 - density) ** lengths
        for h, w, n in grid.shapes():
            out += n * density * np.maximum(h * w - lengths, 0) * reach
    return out


def _lengths(grid: Grid, density: float) -> np.ndarray:
    most = _reach(density, grid.segment_rows * grid.segment_cols)
    whole = np.rint(_at_least(grid, density, np.arange(min(most + 1, RUNS) + 1.0)))
    out: np.ndarray = (whole[:-1] - whole[1:]).astype(np.uint64)
    if len(out) == RUNS:
        out[-1] = whole[-2]
    return out


def _longest(grid: Grid, density: float) -> np.ndarray:
    most = _reach(density, grid.segment_rows * grid.segment_cols)
    if most < RUNS - 1:
        return np.zeros(0, np.int64)
    above = np.rint(_at_least(grid, density, np.arange(RUNS - 1.0, most + 1)))
    return np.repeat(np.arange(RUNS - 1, RUNS - 2 + len(above)), (above[:-1] - above[1:]).astype(np.int64))


def _fit(grid: Grid, density: float, less: int) -> np.ndarray:
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

    return over_segments(grid, of).astype(np.uint64) if grid.size else np.zeros((0, CODES), np.uint64)
