"""n_m: at most n stored entries in every m consecutive elements of a row (spec section 5.7).

A group of m elements is a pattern, the set of its entries, and n values: its entries, then zeros that stand for none
(pads). A pattern takes as few bits as there are patterns of at most n entries need: four for 2:4, as published. Where
that is m bits, it is the group's mask itself.
"""

from functools import cache, lru_cache
from math import comb
from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.base import (
    GROUPS,
    Counts,
    Histogram,
    Layout,
    Params,
    StreamKind,
    histogram_of_bytes,
    items,
    octets,
    with_zeros,
)
from codec.layouts.gaps import byte_histogram, pack, unpack

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


class GroupsOfM(Layout):
    """Streams: ``patterns``, ``values``.

    Parameters: ``m``, elements of a group, 1 to 64 (by default 4); ``n``, the most entries of one (by default the
    fewest that drop nothing).
    """

    name = "n_m"
    code = 6
    defaults: ClassVar[Params] = {"m": 4, "n": None}
    variants = ({}, {"m": 8}, {"m": 16})
    # Independent zeros leave no group small for long.
    candidates = ()

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """1 <= n <= m <= 64."""
        n, m = params["n"], params["m"]
        if type(m) is not int or not 1 <= m <= MOST:
            raise ArgumentError(f"m={m!r}; expected an int from 1 to {MOST}")
        if n is not None and (type(n) is not int or not 1 <= n <= m):
            raise ArgumentError(
                f"n={n!r}; expected an int from 1 to m={m}, or None for the smallest that drops nothing"
            )
        return params

    def decided(self, params: Params) -> bool:
        """With an n."""
        return params["n"] is not None

    def known(self, given: Params) -> bool:
        """With an n."""
        return given.get("n") is not None

    def asks(self, given: Params) -> tuple[tuple[tuple[Any, int], ...], tuple[int, ...]]:
        """Groups of m, to find the n; an m that ``check`` refuses asks for none."""
        m = given.get("m")
        return (), (m,) if type(m) is int and 1 <= m <= MOST and not self.known(given) else ()

    def decide(self, params: Params, grid: Grid, element: ElementType, counts: Counts) -> dict[str, Any]:
        """The most entries of any group as n, and at least 1."""
        if params["n"] is not None:
            return dict(params)
        groups = counts.groups if counts.groups is not None else Counts.independent(grid, counts.nnz).groups
        assert groups is not None
        if params["m"] not in groups:
            raise ArgumentError(
                f"n left out needs statistics of groups of {params['m']}: tensor_stats(a, group={params['m']})"
            )
        return {**params, "n": max(1, int(np.flatnonzero(groups[params["m"]])[-1:].sum()))}

    def refusal(self, params: Params, found: int) -> str:
        """A group with more than n."""
        return (
            f"a group of {params['m']} elements stores {found}, and n={params['n']}; "
            f"leave n out to store them all, or prune to {params['n']}:{params['m']} before"
        )

    def choices(self, counts: Counts, grid: Grid) -> tuple[Params, ...]:
        """Groups whose patterns save more bits than they have pads."""
        if counts.groups is None or not counts.nnz:
            return ()
        found = []
        for m in GROUPS:
            n = int(np.flatnonzero(counts.groups[m])[-1])
            every = sum(h * count * -(-w // m) for h, w, count in grid.shapes())
            pads = sum(h * count * int(_slots(w, n, m)) for h, w, count in grid.shapes()) - counts.nnz
            if pads < every * (m - pattern_bits(n, m)):
                found.append({"m": m, "n": n})
        return tuple(found)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """n values and a pattern for every m elements; somewhere in an endless row all m are stored."""
        m = params.get("m") or 4
        n = params.get("n") or (m if sparsity < 1 else 1)
        return float((n * value_bits + pattern_bits(n, m)) / m)

    def zero_items(self, params: Params) -> bool:
        """Pads."""
        return True

    def values_of_parts(self, grid: Grid, counts: Counts, params: Params) -> np.ndarray:
        """n for each group, whatever it holds."""
        if not grid.size:
            return np.zeros(0, np.int64)
        rows = np.minimum(grid.segment_rows, grid.rows - np.arange(0, grid.rows, grid.segment_rows))
        cols = np.minimum(grid.segment_cols, grid.cols - np.arange(0, grid.cols, grid.segment_cols))
        return np.outer(rows, _slots(cols, params["n"], params["m"])).reshape(-1)

    def native(self, params: Params) -> tuple[int, ...]:
        """n, m, bits of a pattern."""
        return (params["n"], params["m"], pattern_bits(params["n"], params["m"]))

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Packed patterns by the byte, values."""
        return (StreamKind("patterns", 1, "unsigned"), StreamKind("values", element.width, element.kind))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """A segment's patterns rounded up to a byte; width for each value."""
        n, m = params["n"], params["m"]
        coded = sum(-(-h * -(-w // m) * pattern_bits(n, m) // 8) * count for h, w, count in grid.shapes())
        return (coded, width * int(self.values_of_parts(grid, counts, params).sum()))

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Bytes of bitmap's mask where the patterns are that, else patterns of as many entries as equally likely.

        Values, and a zero for each pad.
        """
        n, m = params["n"], params["m"]
        known = super().histogram(stream, grid, element, counts, params)
        if stream == "values":
            pads = int(self.values_of_parts(grid, counts, params).sum()) - counts.nnz
            return None if known is None else with_zeros(known, pads, element)
        if pattern_bits(n, m) == m and all(w % m == 0 for _, w, _ in grid.shapes()):
            return histogram_of_bytes(counts.mask_bytes)
        size = self.stream_bytes(grid, element.width, counts, params)[0]
        if m > _LISTED or counts.groups is None or m not in counts.groups or size is None:
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
        return byte_histogram(codes, pattern_bits(n, m), size), 255

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Group by group: the pattern, the entries, then pads."""
        n, m = params["n"], params["m"]
        (h, w), lengths = segment.shape, _lengths(segment.shape[1], m)
        across = ((0, 0), (0, len(lengths) * m - w))
        flags = np.pad(stored, across).reshape(h, len(lengths), m)
        if np.any(flags.sum(axis=2) > n):
            raise ArgumentError(self.refusal(params, int(flags.sum(axis=2).max())))
        bits = pattern_bits(n, m)
        masks = (flags @ (1 << np.arange(m, dtype=np.uint64))).reshape(-1)
        codes = masks if bits == m else np.array([rank(int(mask), n) for mask in masks], np.uint64)
        first = np.argsort(~flags, axis=2, kind="stable")[:, :, :n]  # entries, then others
        values = np.where(flags, np.pad(segment, across).reshape(flags.shape), segment.dtype.type(0))
        values = np.take_along_axis(values, first, axis=2)[:, np.arange(n) < lengths[:, None]]
        return pack(codes.view(np.int64), bits), octets(values)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Each group's entries where its pattern has them; pads must be zeros."""
        n, m = params["n"], params["m"]
        lengths, bits = _lengths(cols, m), pattern_bits(n, m)
        masks = unpack(streams[0], rows * len(lengths), bits, "patterns").view(np.uint64)
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
