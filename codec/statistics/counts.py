"""Counts: what is known of how a matrix's entries are spread, counted or expected, by attribute."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from codec.entropy import KeyCounts
from codec.matrix import Grid
from codec.statistics.base import Need, Statistic, Words
from codec.statistics.blocks import Blocks
from codec.statistics.coded import Coded
from codec.statistics.columns import Columns
from codec.statistics.gaps import Gaps, ZeroGaps
from codec.statistics.groups import Groups
from codec.statistics.keys import Keys
from codec.statistics.mask_bytes import LaneBytes, MaskBytes
from codec.statistics.nans import Nans
from codec.statistics.panels import Panels
from codec.statistics.parts import Parts
from codec.statistics.rows import Rows
from codec.statistics.slices import Slices

# Every statistic, by the name that a Need calls it.
STATISTICS: Mapping[str, Statistic] = {
    statistic.name: statistic
    for statistic in (
        Parts(), Rows(), Columns(), Panels(), Gaps(), ZeroGaps(), Blocks(), Groups(), MaskBytes(), LaneBytes(), Keys(),
        Nans(), Slices(), Coded(),
    )
}  # fmt: skip
_GIVEN_BY = {attribute: statistic for statistic in STATISTICS.values() for attribute in statistic.gives}


class Counts:
    """Stored entries of a matrix in segments, and, where more is known, how they are spread.

    The attributes below are worked out when they are asked for, by the statistic that gives them (see there); each is
    None where that was not counted.

    Parameters
    ----------
    nnz : int
        Stored entries: all that is known of a Counts that is made directly.

    Attributes
    ----------
    parts, rows, cols, panels : ndarray of uint64 or None
        Stored entries of each segment, of each row of each segment, of each matrix column, of each panel.
    gap_lengths, zero_gap_lengths : ndarray of uint64 or None
        Zeros before each entry over the flattened segment, and entries before each zero, by how many, up to the
        longest; the last of 65536 is for 65535 and more.
    long_gaps, long_zero_gaps : ndarray of int64 or None
        Those of 65535 and more, one by one.
    escapes, fillers, zero_escapes : ndarray of uint64 or None, (segments, 16)
        How often codes of 1 to 16 bits fit into gaps.
    gaps : ndarray of uint64 or None, (256,)
        Gaps as items of a byte.
    blocks, block_elements : mapping of (r, c) to int, or None
        Blocks with a stored entry, and the elements of these blocks.
    block_parts : mapping of (r, c) to ndarray of uint64 (segments, 2), or None
        Both for each segment.
    groups : mapping of m to ndarray of uint64 (m + 1,), or None
        Groups of m along a row by their entries.
    mask_bytes, lane_bytes : ndarray of uint64 or None, (256,)
        Bytes of a mask by value.
    keys : KeyCounts or None
        Stored values by their keys.
    nans : int or None
        Stored values that are NaN.
    slices : ndarray of uint64 or None
        Items of layout sell in each segment.
    coded : ndarray of uint64 or None
        Bytes of layout context in each segment.

    Examples
    --------
    >>> Counts.independent(Grid.default(64, 64), 1024).blocks[4, 4], Counts(7).blocks
    (253, None)
    """

    nnz: int
    parts: np.ndarray | None
    rows: np.ndarray | None
    cols: np.ndarray | None
    panels: np.ndarray | None
    gap_lengths: np.ndarray | None
    zero_gap_lengths: np.ndarray | None
    long_gaps: np.ndarray | None
    long_zero_gaps: np.ndarray | None
    escapes: np.ndarray | None
    fillers: np.ndarray | None
    zero_escapes: np.ndarray | None
    gaps: np.ndarray | None
    blocks: Mapping[tuple[Any, int], int] | None
    block_elements: Mapping[tuple[Any, int], int] | None
    block_parts: Mapping[tuple[Any, int], np.ndarray] | None
    groups: Mapping[int, np.ndarray] | None
    mask_bytes: np.ndarray | None
    lane_bytes: np.ndarray | None
    keys: KeyCounts | None
    nans: int | None
    slices: np.ndarray | None
    coded: np.ndarray | None

    def __init__(self, nnz: int) -> None:
        self.nnz = nnz

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in _GIVEN_BY:
            raise AttributeError(f"no statistic gives {attribute!r}")
        value = self._found(_GIVEN_BY[attribute], attribute)
        self.__dict__[attribute] = value
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nnz={self.nnz})"

    def _found(self, statistic: Statistic, attribute: str) -> Any:
        return None

    @staticmethod
    def expected(grid: Grid, sparsity: float) -> "Counts":
        """Expected counts of a matrix of which ``round(sparsity * size)`` elements are zeros, each place as likely."""
        return Counts.independent(grid, grid.size - round(float(sparsity) * grid.size))

    @staticmethod
    def independent(grid: Grid, nnz: int) -> "Counts":
        """The same of a matrix of which ``nnz`` elements are stored."""
        return Expected(grid, nnz)


class Expected(Counts):
    """What ``nnz`` entries come to of which each place is as likely; a search for a break-even asks for few of it."""

    def __init__(self, grid: Grid, nnz: int) -> None:
        super().__init__(nnz)
        self.grid = grid

    def _found(self, statistic: Statistic, attribute: str) -> Any:
        return statistic.expected(attribute, self.grid, self.nnz)


class Tallied(Counts):
    """What was counted of a tensor.

    Attributes
    ----------
    grid : Grid
    needs : frozenset of Need
        What was asked for.
    negative_zeros : int
        Elements equal to -0.0 that do not count as stored.
    words : Words
        As the kernels counted them.
    """

    def __init__(self, words: Words, needs: frozenset[Need], nnz: int, negative_zeros: int) -> None:
        super().__init__(nnz)
        self.grid, self.needs, self.negative_zeros = words.grid, needs, negative_zeros
        self.words = words

    def _found(self, statistic: Statistic, attribute: str) -> Any:
        asked = [need.argument for need in self.needs if need.name == statistic.name]
        return statistic.read(attribute, asked, self.words) if asked else None
