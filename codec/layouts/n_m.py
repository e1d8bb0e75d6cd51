"""n_m: at most n stored entries in every m consecutive elements of a row (spec section 5.7).

A group of m elements is a pattern, the set of its entries, and n values: its entries, then zeros that stand for none
(pads). A pattern takes as few bits as there are patterns of at most n entries need: four for 2:4, as published. Where
that is m bits, it is the group's mask itself.
"""

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import comb
from typing import Any, Self

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.layouts.base import (
    KEYS,
    Layout,
    Needs,
    Sizes,
    StreamKind,
    items,
    keys_of_bytes,
    octets,
    unsigned,
    values_of,
    with_zeros,
)
from codec.layouts.gaps import byte_histogram, pack_bits, unpack_bits
from codec.matrix import Grid, TensorSpec
from codec.statistics import GROUPS, Counts, Need

MOST = 64  # elements of a group
# Elements of a group up to which the expected bytes of patterns are worked out, pattern by pattern.
_LISTED = 16


@cache
def patterns(n: int, m: int) -> int:
    """Sets of at most n of m elements.

    >>> patterns(2, 4)
    11
    """
    return sum(comb(m, k) for k in range(min(n, m) + 1))


def pattern_bits(n: int, m: int) -> int:
    """Bits of a pattern: the fewest that tell all of them apart."""
    return (patterns(n, m) - 1).bit_length()


def rank(mask: int, n: int) -> int:
    """The number of masks below ``mask`` with at most n bits, of which it is one: its entries from the highest down."""
    code = 0
    while mask:
        top = mask.bit_length() - 1
        code += patterns(n, top)
        mask, n = mask ^ 1 << top, n - 1
    return code


def unrank(code: int, n: int, m: int) -> int:
    """The mask of that rank, for ranks below ``patterns(n, m)``."""
    mask = 0
    for top in range(m - 1, -1, -1):
        if n and code >= patterns(n, top):
            code, mask, n = code - patterns(n, top), mask | 1 << top, n - 1
    return mask


def _slots(w: Any, n: int, m: int) -> Any:
    """Values of a row of w elements."""
    return w // m * n + np.minimum(n, w % m)


def _lengths(w: int, m: int) -> np.ndarray:
    """Elements of each group of a row."""
    return np.minimum(m, w - np.arange(0, w, m))


@dataclass(frozen=True)
class GroupsOfM(Layout):
    """Streams: ``patterns``, ``values``.

    Parameters: ``m``, elements of a group, 1 to 64 (by default 4); ``n``, the most entries of one (by default the
    fewest that drop nothing).
    """

    name = "n_m"
    number = 6

    m: int = 4
    n: int | None = None

    def __post_init__(self) -> None:
        self._check_int("m", 1, MOST)
        try:
            self._check_int("n", 1, self.m, none=True)
        except ArgumentError:
            raise ArgumentError(
                f"n={self.n!r}; expected an int from 1 to m={self.m}, or None for the smallest that drops nothing"
            ) from None

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """Groups that are looked up in tables, and larger ones."""
        return (cls(), cls(m=8), cls(m=16))

    @classmethod
    def candidates(cls) -> tuple[Self, ...]:
        """None: independent zeros leave no group small for long."""
        return ()

    @classmethod
    def choices(cls, spec: TensorSpec, counts: Counts) -> tuple[Self, ...]:
        """Groups whose patterns save more bits than they have pads."""
        if counts.groups is None or not counts.nnz:
            return ()
        found, shapes = [], spec.grid.shapes()
        for m in GROUPS:
            n = int(np.flatnonzero(counts.groups[m])[-1])
            groups = sum(h * count * -(-w // m) for h, w, count in shapes)
            pads = sum(h * count * int(_slots(w, n, m)) for h, w, count in shapes) - counts.nnz
            if pads < groups * (m - pattern_bits(n, m)):
                found.append(cls(m=m, n=n))
        return tuple(found)

    @classmethod
    def choices_needs(cls) -> Needs:
        """The groups that ``choices`` tries."""
        return frozenset(Need("groups", m) for m in GROUPS)

    def choose(self, spec: TensorSpec, counts: Counts) -> Self:
        """The most entries of any group as n, and at least 1."""
        if self.n is not None:
            return self
        groups = counts.groups if counts.groups is not None else Counts.independent(spec.grid, counts.nnz).groups
        if groups is None or self.m not in groups:
            raise ArgumentError(f"n left out needs statistics of groups of {self.m}: tensor_stats(a, group={self.m})")
        return replace(self, n=max(1, int(np.flatnonzero(groups[self.m])[-1:].sum())))

    @property
    def choose_needs(self) -> Needs:
        """Groups of m, where n is left out."""
        return frozenset({Need("groups", self.m)}) if self.n is None else frozenset()

    @property
    def _n(self) -> int:
        return self.m if self.n is None else self.n

    def refusal(self, found: int) -> str:
        """A group with more than n."""
        return (
            f"a group of {self.m} elements stores {found}, and n={self.n}; "
            f"leave n out to store them all, or prune to {self.n}:{self.m} before"
        )

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """n values and a pattern for every m elements; somewhere in an endless row all m are stored."""
        m, n = self.m, self.n or (self.m if sparsity < 1 else 1)
        return float((n * value_bits + pattern_bits(n, m)) / m)

    @property
    def zero_items(self) -> bool:
        """Pads."""
        return True

    def native(self) -> tuple[int, ...]:
        """n, m, bits of a pattern."""
        return (self._n, self.m, pattern_bits(self._n, self.m))

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Packed patterns by the byte, values."""
        return (unsigned("patterns", 1), values_of(element))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A segment's patterns rounded up to a byte; width for each value."""
        n, m = self._n, self.m
        groups = grid.heights * -(-grid.widths // m)
        return (-(-groups * pattern_bits(n, m) // 8), grid.heights * _slots(grid.widths, n, m) * width)

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """Bytes of bitmap's mask where the patterns are that, else patterns of as many entries as equally likely.

        Values, and a zero for each pad.
        """
        n, m = self._n, self.m
        if stream == "values":
            return with_zeros(counts.keys, int((grid.heights * _slots(grid.widths, n, m)).sum()) - counts.nnz, element)
        if pattern_bits(n, m) == m and all(w % m == 0 for _, w, _ in grid.shapes()):
            return keys_of_bytes(counts.mask_bytes)
        size = int((-(-grid.heights * -(-grid.widths // m) * pattern_bits(n, m) // 8)).sum())
        if m > _LISTED or counts.groups is None or m not in counts.groups:
            return None
        masks, whole = _masks(n, m), counts.groups[m].astype(np.float64)
        of, times = np.bitwise_count(masks), np.zeros(len(masks))
        density = counts.nnz / max(1, grid.size)
        for length, many in ((w % m, h * many) for h, w, many in grid.shapes() if w % m):
            # Short groups are counted among the others: as many hold k as the tensor's density lets expect.
            ways = np.array([comb(length, k) for k in range(m + 1)], np.float64)
            k = np.arange(m + 1)
            short = np.minimum(whole, many * ways * density**k * (1 - density) ** np.maximum(length - k, 0))
            whole -= short
            times += (short / np.maximum(ways, 1))[of] * (masks < 1 << length)
        times += (whole / np.array([comb(m, k) for k in range(m + 1)]))[of]
        codes = np.zeros(1 << pattern_bits(n, m))
        codes[masks if pattern_bits(n, m) == m else np.arange(len(masks))] = times
        return keys_of_bytes(byte_histogram(codes, pattern_bits(n, m), size))

    @property
    def key_needs(self) -> Needs:
        """Groups of m, or bitmap's mask bytes where patterns are masks."""
        return KEYS | {Need("groups", self.m), Need("mask_bytes")}

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Group by group: the pattern, the entries, then pads."""
        n, m = self._n, self.m
        (h, w), lengths = segment.shape, _lengths(segment.shape[1], m)
        across = ((0, 0), (0, len(lengths) * m - w))
        flags = np.pad(stored, across).reshape(h, len(lengths), m)
        if np.any(flags.sum(axis=2) > n):
            raise ArgumentError(self.refusal(int(flags.sum(axis=2).max())))
        bits = pattern_bits(n, m)
        masks = (flags @ (1 << np.arange(m, dtype=np.uint64))).reshape(-1)
        codes = masks if bits == m else np.array([rank(int(mask), n) for mask in masks], np.uint64)
        first = np.argsort(~flags, axis=2, kind="stable")[:, :, :n]  # entries, then others
        values = np.where(flags, np.pad(segment, across).reshape(flags.shape), segment.dtype.type(0))
        values = np.take_along_axis(values, first, axis=2)[:, np.arange(n) < lengths[:, None]]
        return pack_bits(codes.view(np.int64), bits), octets(values)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Each group's entries where its pattern has them; pads must be zeros."""
        n, m = self._n, self.m
        lengths, bits = _lengths(cols, m), pattern_bits(n, m)
        masks = unpack_bits(streams[0], rows * len(lengths), bits, "patterns").view(np.uint64)
        if bits < m:
            if len(masks) and int(masks.max()) >= patterns(n, m):
                raise FormatError(f"pattern {masks.max()}, there are {patterns(n, m)}", stream="patterns")
            masks = np.array([unrank(int(code), n, m) for code in masks], np.uint64)
        flags = (masks[:, None] >> np.arange(m, dtype=np.uint64) & np.uint64(1)).astype(bool)
        flags = flags.reshape(rows, len(lengths), m)
        counts = flags.sum(axis=2)
        if np.any(flags & (np.arange(m) >= lengths[:, None])):
            raise FormatError(f"an entry past column {cols}", stream="patterns")
        if np.any(counts > n):
            raise FormatError(f"a group with {counts.max()} entries, n is {n}", stream="patterns")
        slots = np.zeros((rows, len(lengths), n), dtype)
        inside = np.arange(n) < lengths[:, None]
        slots[:, inside] = items(streams[1], dtype, rows * int(inside.sum()), "values").reshape(rows, -1)
        filled = np.arange(n) < counts[:, :, None]
        if np.any(slots[~filled]):
            raise FormatError("a value behind a group's entries is not zero", stream="values")
        out = np.zeros(flags.shape, dtype)
        out[flags] = slots[filled]
        return out.reshape(rows, -1)[:, :cols]


@lru_cache(maxsize=4)
def _masks(n: int, m: int) -> np.ndarray:
    """Masks of at most n of m elements, ascending: those of ranks 0, 1, 2 and so on."""
    every = np.arange(1 << m)
    return every[np.bitwise_count(every) <= n]
