"""The statistics of one tensor: everything that sizes depend on, and what can be read off it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import numpy as np

from codec.entropy import Items
from codec.errors import ArgumentError
from codec.matrix import Grid, TensorSpec, is_int
from codec.statistics.base import Need
from codec.statistics.blocks import BLOCKS, Shape
from codec.statistics.counts import STATISTICS, Counts
from codec.statistics.groups import GROUPS, MOST_GROUP
from codec.statistics.panels import panel_sizes

_T = TypeVar("_T")


@dataclass(frozen=True)
class TensorStats:
    """Counts over one tensor under one zero rule and matrix view; what ``encoded_nbytes(stats=...)`` needs.

    Attributes
    ----------
    spec : TensorSpec
        What was counted: ``shape``, ``dtype``, ``row_dims`` and ``zero`` are its own.
    counts : Counts
        The counts in the segments of most layouts: ``counts.gap_lengths``, ``counts.blocks`` and others.
    block, group : tuple
        The block shapes and group sizes that were counted beside the ones that always are.
    """

    spec: TensorSpec
    counted: Mapping[Grid, Counts] = field(repr=False)
    negative_zeros: int
    block: tuple[Shape, ...] = ()
    group: tuple[int, ...] = ()

    @property
    def counts(self) -> Counts:
        """The counts in the segments that layouts take by default."""
        return self.counted[self.grid]

    def counts_on(self, grid: Grid) -> Counts:
        """The counts in the segments that another layout takes; ArgumentError where they were not counted."""
        if grid not in self.counted:
            raise ArgumentError(
                f"segments of {grid.segment_rows} x {grid.segment_cols} were not counted: give tensor_stats the block="
            )
        return self.counted[grid]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the tensor."""
        return self.spec.element.dtype

    @property
    def row_dims(self) -> int:
        """How many leading dimensions are the rows of the matrix view."""
        return self.spec.row_dims

    @property
    def zero(self) -> str:
        """The zero rule."""
        return self.spec.zero

    @property
    def grid(self) -> Grid:
        """The segments that layouts take by default."""
        return self.spec.grid

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.counts.nnz

    @property
    def nans(self) -> int:
        """Stored entries that are NaN."""
        return _there(self.counts.nans)

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return self.grid.size

    @property
    def sparsity(self) -> float:
        """Share of elements that are not stored; 0.0 for an empty tensor."""
        return 1 - self.nnz / self.size if self.size else 0.0

    @property
    def panel_counts(self) -> np.ndarray:
        """Stored entries of each panel (uint64): whole rows of up to 16384 elements, or pieces of a longer row."""
        return _there(self.counts.panels)

    @property
    def row_counts(self) -> np.ndarray:
        """Stored entries of each matrix row (uint64); none of an empty tensor, however many rows it is said to have."""
        rows = _there(self.counts.rows)
        return np.asarray(rows.reshape(-1, max(1, self.grid.across)).sum(axis=1))

    @property
    def col_counts(self) -> np.ndarray:
        """Stored entries of each matrix column (uint64); none of an empty tensor."""
        return _there(self.counts.cols)

    @property
    def row_density(self) -> np.ndarray:
        """Share of each matrix row that is stored."""
        return self.row_counts / max(1, self.grid.cols)

    @property
    def col_density(self) -> np.ndarray:
        """Share of each matrix column that is stored."""
        return self.col_counts / max(1, self.grid.rows)

    @property
    def panel_density(self) -> np.ndarray:
        """Share of each panel that is stored."""
        return np.asarray(self.panel_counts / panel_sizes(self.grid))

    @property
    def dead_rows(self) -> int:
        """Matrix rows without a stored entry; 0 for an empty tensor."""
        return int((self.row_counts == 0).sum())

    @property
    def dead_cols(self) -> int:
        """Matrix columns without a stored entry; 0 for an empty tensor."""
        return int((self.col_counts == 0).sum())

    @property
    def dead_channels(self) -> int:
        """Indices of the dimension after the rows (the input channels of a convolution) without a stored entry."""
        channels = self.shape[self.row_dims] if self.row_dims < len(self.shape) else 1
        if not prod(self.shape):
            return 0
        return int((self.col_counts.reshape(channels, -1).sum(axis=1) == 0).sum())

    @property
    def runs(self) -> np.ndarray:
        """Runs of zeros before stored entries by length, within segments (item 65535 for that length and more)."""
        out = _there(self.counts.gap_lengths).copy()
        out[:1] = 0
        return out

    @property
    def constant_low_bits(self) -> int:
        """Low bits that are zero in every stored value: 16 for bfloat16 kept as float32."""
        keys, element = _there(self.counts.keys).or_of_keys, self.spec.element
        return (keys & -keys).bit_length() - 1 if keys else Items(element.width, element.kind).key_bits

    @property
    def value_entropy(self) -> float:
        """Bits per stored value by Shannon's formula.

        Of floats the top 16 bits without the sign count, of wide integers as many bits as take 65536 values in their
        range.
        """
        counts = _there(self.counts.keys).counts
        used = counts[counts > 0].astype(np.float64)
        return float(np.log2(used.sum()) - used @ np.log2(used) / used.sum()) if len(used) else 0.0


def _there(value: _T | None) -> _T:
    """A count that tensor_stats always asks for."""
    assert value is not None
    return value


def stats_needs(blocks: tuple[Shape, ...] = (), groups: tuple[int, ...] = ()) -> frozenset[Need]:
    """All statistics, with these block shapes and group sizes beside the ones that are always counted."""
    plain = (Need(name) for name in STATISTICS if name not in ("blocks", "groups"))
    shapes = (Need("blocks", shape) for shape in (*BLOCKS, *blocks))
    return frozenset((*plain, *shapes, *(Need("groups", m) for m in (*GROUPS, *groups))))


def _int(value: Any, least: int = 1) -> bool:
    return is_int(value) and value >= least


def check_asked(block: Any, group: Any) -> tuple[tuple[Shape, ...], tuple[int, ...]]:
    """The block shapes and group sizes asked for that are not always counted; ArgumentError where they are none."""
    shapes = (block,) if isinstance(block, tuple) and len(block) == 2 and not isinstance(block[0], tuple) else block
    sizes = (group,) if _int(group) else group
    fine = isinstance(shapes, tuple | list) and all(
        isinstance(s, tuple) and len(s) == 2 and (s[0] == "all" or _int(s[0])) and _int(s[1]) for s in shapes
    )
    if not fine:
        raise ArgumentError(
            f'block={block!r}; expected a shape (rows, columns) or ("all", columns), or a tuple of them'
        )
    if not isinstance(sizes, tuple | list) or not all(_int(m) and m <= MOST_GROUP for m in sizes):
        raise ArgumentError(f"group={group!r}; expected an int from 1 to {MOST_GROUP}, or a tuple of them")
    asked = dict.fromkeys((s[0] if s[0] == "all" else min(int(s[0]), 1 << 31), min(int(s[1]), 1 << 31)) for s in shapes)
    extra = tuple(s for s in asked if s not in BLOCKS)
    return extra, tuple(m for m in dict.fromkeys(map(int, sizes)) if m not in GROUPS)
