"""Weight sharing: few values that stand for all (Han, Mao, Dally, ICLR 2016, section 3), by k-means in one dimension.

The default start is the best partition of a few thousand buckets, by dynamic programming, after which Lloyd's rounds
over all weights hardly move: within 0.2 % of the least squared error there is. The published starts are there on
request. A weight takes the nearest entry, of two as near the one with the lower code. Lossless where a tensor has no
more values than entries.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from codec import kernels
from codec.arraylike import as_array
from codec.dtypes import ElementType
from codec.elements import Elements
from codec.errors import ArgumentError
from codec.kernels import octets
from codec.layouts import Layout
from codec.values.coding import ValueCoding, check_values

STARTS = ("linear", "density", "random")
# Lloyd's rounds: the default start needs a handful, a published one may walk for long.
ROUNDS, PUBLISHED_ROUNDS = 100, 300
# More points than this are first counted into bins: a codebook has 256 entries at most.
_MOST_POINTS, BINS = 1 << 18, 1 << 16
_CHUNK = 1 << 18


def kmeans(values: np.ndarray, k: int, *, weights: np.ndarray | None = None, start: str | None = None) -> np.ndarray:
    """At most ``k`` centers of finite numbers, ascending and distinct: k-means in one dimension.

    Parameters
    ----------
    values : ndarray
        Numbers in any order, at least one.
    k : int
        1 to 256.
    weights : ndarray, optional
        How often each number counts; 1 by default.
    start : {"linear", "density", "random"}, optional
        Where Lloyd's rounds begin: at equal distances between least and largest, at equal shares of the numbers, at
        numbers drawn without repetition (by a fixed seed). By default at the best partition of a few thousand buckets.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> kmeans(np.array([0.0, 0.2, 5.0, 5.2]), 2)
    array([0.1, 5.1])
    """
    points = np.asarray(values).reshape(-1)
    if weights is None and len(points) > _MOST_POINTS:
        points, weights = _binned(points)
    ascending = bool((points[1:] >= points[:-1]).all())
    if weights is None and not ascending:
        points = np.sort(points)
    points = points.astype(np.float64)
    if weights is not None:
        order = slice(None) if ascending else np.argsort(points, kind="stable")
        points, weights = points[order], np.ascontiguousarray(np.asarray(weights, np.float64)[order])
    # Sums of squares lose nothing to an offset, and never overflow.
    scale = max(abs(float(points[0])), abs(float(points[-1]))) or 1.0
    points /= scale
    middle = float(points[len(points) // 2])
    points -= middle
    centers = np.zeros(k)
    if start is not None:
        centers[:] = _start(points, weights, k, start)
    kernels.kmeans(points, weights, start is not None, PUBLISHED_ROUNDS if start is not None else ROUNDS, centers)
    return np.unique((centers + middle) * scale)


def _start(points: np.ndarray, weights: np.ndarray | None, k: int, start: str) -> npt.NDArray[Any]:
    """Section 3.2 of the paper: Forgy's, density-based and linear initialisation."""
    if start == "linear":
        return np.linspace(points[0], points[-1], k)
    if start == "density":
        shares = (np.arange(k) + 0.5) / k
        if weights is None:
            return points[(shares * len(points)).astype(np.int64)]
        return np.asarray(points[np.searchsorted(np.cumsum(weights), shares * weights.sum())])
    if start == "random":
        rng = np.random.default_rng(0)
        chances = None if weights is None else weights / weights.sum()
        most = len(points) if weights is None else np.count_nonzero(weights)
        drawn = points[rng.choice(len(points), min(k, most), replace=False, p=chances)]
        return np.sort(np.resize(drawn, k))
    raise ArgumentError(f"start={start!r}; expected one of {', '.join(STARTS)}, or None")


def _binned(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and counts of bins: of equal width, but for the outermost points, which stand for themselves."""
    sample = np.sort(points[:: len(points) >> 14])
    low, high = sample[16], sample[-17]
    step = (np.float64(high) / 2 - np.float64(low) / 2) / (BINS - 1) * 2
    if not step > 0:  # most of them are one number
        return np.unique(points, return_counts=True)
    counts, sums, outer = np.zeros(BINS), np.zeros(BINS), []
    for at in range(0, len(points), _CHUNK):
        some = points[at : at + _CHUNK]
        inside = (some >= low) & (some <= high)
        outer.append(some[~inside])
        offsets = some[inside].astype(np.float64) / step - low / step
        bins = offsets.astype(np.int64)
        counts += np.bincount(bins, minlength=BINS)[:BINS]
        sums += np.bincount(bins, weights=offsets, minlength=BINS)[:BINS]
    used = counts > 0
    means = (sums[used] / counts[used] + low / step) * step
    every = np.concatenate(outer).astype(np.float64)
    return np.concatenate((means, every)), np.concatenate((counts[used], np.ones(len(every))))


def updated(centers: np.ndarray, labels: np.ndarray, gradients: np.ndarray, rate: float = 1.0) -> np.ndarray:
    """Centers after a step of training: each less its weights' gradients, added up (section 3.3, equation 3).

    >>> updated(np.array([1.0, 2.0]), np.array([0, 1, 1]), np.array([0.5, 0.25, 0.25]))
    array([0.5, 1.5])
    """
    sums = np.bincount(
        np.asarray(labels).reshape(-1), weights=np.asarray(gradients).reshape(-1), minlength=len(centers)
    )
    return np.asarray(np.asarray(centers) - rate * sums)


# -- items as ordered numbers ----------------------------------------------------------------------------------------


def _order(element: ElementType) -> int:
    """enum class Order in native code."""
    return 2 if element.is_float else int(element.name.startswith("I"))


def _keys(bits: np.ndarray, element: ElementType) -> np.ndarray:
    """Bits as unsigned numbers in the order of the values (-0.0 directly below +0.0)."""
    one = bits.dtype.type
    top = one(1 << (8 * element.width - 1))
    if element.is_float:
        return np.asarray(bits ^ np.where(bits & top, one((1 << 8 * element.width) - 1), top))
    return bits ^ top if _order(element) == 1 else bits


def _unkeyed(keys: np.ndarray, element: ElementType) -> np.ndarray:
    one = keys.dtype.type
    top = one(1 << (8 * element.width - 1))
    if element.is_float:
        return np.asarray(keys ^ np.where(keys & top, top, one((1 << 8 * element.width) - 1)))
    return keys ^ top if _order(element) == 1 else keys


def _numbers(bits: np.ndarray, element: ElementType) -> np.ndarray:
    if element.name == "BOOL":
        return bits.astype(np.float64)
    return bits.view(element.dtype).astype(np.float64)


def _bits_of(numbers: np.ndarray, element: ElementType) -> np.ndarray:
    """The nearest values of the dtype, as bits; sorted and without repetition."""
    if element.is_float:
        with np.errstate(over="ignore"):
            found = numbers.astype(element.dtype)
    elif element.name == "BOOL":
        found = numbers > 0.5
    else:
        info = np.iinfo(element.dtype)
        found = np.array([min(max(round(float(n)), int(info.min)), int(info.max)) for n in numbers], element.dtype)
    return _unkeyed(np.unique(_keys(found.view(element.unsigned), element)), element)


def _bounds(bits: np.ndarray, up: np.ndarray, element: ElementType) -> np.ndarray:
    """Keys at which the intervals of ascending entries begin, but the first's: where an entry is nearer than the one
    before, or as near and ``up`` says so.
    """
    keys = _keys(bits, element).astype(np.uint64)
    below, above = keys[:-1], keys[1:]
    if not element.is_float:  # keys are as far apart as values
        apart = above - below
        return np.asarray(below + apart // np.uint64(2) + (apart % np.uint64(2) | ~up))
    numbers = _numbers(bits, element)
    middle = numbers[:-1] / 2 + numbers[1:] / 2
    nearest = middle.astype(element.dtype)
    there = nearest.astype(np.float64)
    found = _keys(nearest.view(element.unsigned), element).astype(np.uint64)
    found += (there < middle) | ((there == middle) & ~up)
    # Both zeros are on the same side of a middle of zero, unless they are the entries themselves.
    negative, positive = (np.uint64(_keys(np.array([b], element.unsigned), element)[0]) for b in (element.sign_bit, 0))
    found[middle == 0] = np.where(up[middle == 0], negative, positive + np.uint64(1))
    return np.where(numbers[:-1] == numbers[1:], above, found)


@dataclass(frozen=True)
class Group:
    """One codebook: its entries' bits by code (unused ones, behind the others, zero), and which codes are in use."""

    entries: np.ndarray
    codes: np.ndarray  # those in use, in the order of their values
    exact: bool = False  # every value that occurs is an entry

    def assign(self, items: np.ndarray, element: ElementType, out: np.ndarray) -> None:
        """The code of each item (bits) into ``out`` (uint8)."""
        bounds = _bounds(self.entries[self.codes], self.codes[:-1] > self.codes[1:], element)
        kernels.assign_codes(octets(items), element.width, _order(element), bounds, self.codes.astype(np.uint8), out)


def _group(entries: np.ndarray, coding: ValueCoding, element: ElementType, *, zero_first: bool, exact: bool) -> Group:
    """A group of the entries given as bits, in their order; +0.0 at code 0, in use or not, if ``zero_first``."""
    has_zero = bool((entries == 0).any())
    if zero_first:
        entries = np.concatenate((np.zeros(1, element.unsigned), entries[entries != 0]))
    every = np.zeros(coding.entries, element.unsigned)
    every[: len(entries)] = entries
    used = np.arange(len(entries))[int(zero_first and not has_zero) :]
    if not len(used):
        used = np.arange(1)
    order = np.argsort(_keys(every[used], element), kind="stable")
    return Group(every, used[order], exact)


class Quantiser:
    """A tensor to be coded by codebook: the codebooks, and its elements as codes.

    A layout that pads does so with code 0, which then stands for +0.0: ``zero_first`` in what follows.
    """

    def __init__(
        self, tensor: Elements, coding: ValueCoding, *, start: str | None = None, given: np.ndarray | None = None
    ) -> None:
        self.tensor, self.coding, self._start, self._given = tensor, coding, start, given
        self.element = tensor.spec.element
        self._made: dict[bool, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._bits = tensor.bits
        self._refuse_specials(self._bits[self.stored])

    @classmethod
    def of(
        cls, tensor: Elements, layout: Layout | None, values: Any, value_bits: Any, codebook: Any, codebook_rows: Any,
        codebook_start: Any,
    ) -> "Quantiser":  # fmt: skip
        """From the arguments of ``encode``, checked; ``layout`` is None for "auto"."""
        given = None if codebook is None or values != "codebook" else given_codebook(codebook, tensor.spec.element)
        entries = None if given is None else given.shape[1]
        if given is not None and layout is not None and not (given == 0).any(axis=1).all():
            entries = given.shape[1] + int(layout.zero_items)
        coding = check_values(values, value_bits, codebook, codebook_rows, codebook_start, tensor.spec.grid, entries)
        return cls(tensor, coding, start=codebook_start, given=given)

    @cached_property
    def stored(self) -> np.ndarray:
        """Which elements are stored (bool, flat)."""
        return self.tensor.stored()

    @property
    def negative_zeros(self) -> int:
        """Elements that are -0.0 and not stored."""
        negative = self.tensor.spec.negative
        return int(np.count_nonzero((self._bits == self._bits.dtype.type(negative)) & ~self.stored)) if negative else 0

    def _refuse_specials(self, values: np.ndarray) -> None:
        if not self.element.is_float:
            return
        bad = ~np.isfinite(values.view(self.element.dtype))
        if bad.any():
            at = int(np.flatnonzero(self.stored)[int(bad.argmax())])
            raise ArgumentError(
                f'values="codebook": {int(bad.sum())} weights are NaN or infinite, the first at flat index {at}: '
                'no entry is near them; set them to numbers, or take values="raw"'
            )

    def made(self, layout: str, *, zero_first: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(codebook bytes, codes of all elements (uint8), stored (uint8)); checked for what the layout pads with."""
        if self._given is not None:
            groups = self.coding.groups(self.tensor.spec.grid)
            _check_given(self._given, self.coding, groups, zero_first=zero_first, layout=layout)
        if zero_first not in self._made:
            self._made[zero_first] = self._make(zero_first)
        return self._made[zero_first]

    def _make(self, zero_first: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grid, element = self.tensor.spec.grid, self.element
        groups, rows = self.coding.groups(grid), self.coding.rows or grid.rows
        codes, stored = np.zeros(grid.size, np.uint8), self.stored
        # A zero among a caller's entries makes zeros of weights, in every layout; what a mask keeps stays stored.
        zeroes = self._given is not None and self.tensor.keep is None
        stored = stored.copy() if zeroes else stored
        entries = np.zeros((groups, self.coding.entries), element.unsigned)
        for number in range(groups):
            part = slice(number * rows * grid.cols, min((number + 1) * rows, grid.rows) * grid.cols)
            group = self._codebook(self._bits[part][self.stored[part]], number, zero_first)
            entries[number] = group.entries
            group.assign(self._bits[part], element, codes[part])
            if zero_first:
                codes[part][self._bits[part] == 0] = 0  # zeros that are kept
            if zeroes:
                stored[part] &= group.entries[codes[part]] != 0
        return octets(entries), codes, np.ascontiguousarray(stored).view(np.uint8)

    def _codebook(self, values: np.ndarray, number: int, zero_first: bool) -> Group:
        element, coding = self.element, self.coding
        if self._given is not None:
            row = self._given[number if len(self._given) > 1 else 0]
            # A zero comes first in every layout, so that of entries as near as it the same one is taken in all.
            return _group(row, coding, element, zero_first=zero_first or bool((row == 0).any()), exact=False)
        room = coding.entries - zero_first
        many = len(values) > _MOST_POINTS and element.width > 2
        if many and len(np.unique(values[:: len(values) >> 12])) > 2 * coding.entries:
            numbers = _numbers(values[values != 0] if zero_first else values, element)
            found = _bits_of(kmeans(numbers, room, start=self._start), element)
            return self._grouped(found, zero_first)
        keys, counts = _counted(_keys(values, element))
        distinct = _unkeyed(keys, element)
        free = distinct[distinct != 0] if zero_first else distinct
        if len(free) <= room:
            return _group(distinct, coding, element, zero_first=zero_first, exact=True)
        numbers = _numbers(distinct, element)
        if zero_first:
            numbers, counts = numbers[distinct != 0], None if counts is None else counts[distinct != 0]
        centers = kmeans(numbers, room, weights=counts, start=self._start)
        return self._grouped(_bits_of(centers, element), zero_first)

    def _grouped(self, found: np.ndarray, zero_first: bool) -> Group:
        """A group of centers. Where code 0 is for padding, one that is zero is dropped; if it is alone, the least value
        above zero takes its place: what is stored must not read as padding.
        """
        kept = found[found != 0] if zero_first else found
        kept = kept if len(kept) else np.ones(1, self.element.unsigned)
        return _group(kept, self.coding, self.element, zero_first=zero_first, exact=False)


def _counted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Distinct keys and how often each occurs; all keys and None where most of them differ."""
    if keys.dtype.itemsize <= 2:
        counts = np.bincount(keys, minlength=1 << 8 * keys.dtype.itemsize)
        used = np.flatnonzero(counts)
        return used.astype(keys.dtype), counts[used].astype(np.float64)
    ordered = np.sort(keys)
    if not len(ordered):
        return ordered, None
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if len(first) > max(256, len(ordered) // 4):
        return ordered, None
    return ordered[first], np.diff(np.append(first, len(ordered))).astype(np.float64)


def given_codebook(codebook: Any, element: ElementType) -> np.ndarray:
    """A caller's codebook as bits, (groups, entries); ArgumentError, naming it, for one that cannot be used."""
    array = as_array(codebook)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ArgumentError(
            f"codebook of shape {array.shape}; expected (entries,) or (groups, entries), at least one entry"
        )
    if array.shape[-1] > 256:
        raise ArgumentError(
            f"codebook of {array.shape[-1]} entries; expected at most 256, as codes have at most 8 bits"
        )
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ArgumentError("codebook holds NaN or an infinity; expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.ascontiguousarray(array.astype(element.dtype)).reshape(-1, array.shape[-1])
    if element.is_float:
        wrong = ~np.isfinite(found.astype(np.float64))
    else:
        wrong = found.astype(np.float64) != numbers.reshape(found.shape)
    if wrong.any():
        raise ArgumentError(
            f"codebook holds {numbers.reshape(-1)[int(wrong.argmax())]:g}, which {element.dtype} cannot hold"
        )
    bits = found.view(element.unsigned)
    ordered = np.sort(bits, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ArgumentError(f"codebook holds an entry twice (as {element.dtype}); expected distinct entries")
    return bits


def _check_given(bits: np.ndarray, coding: ValueCoding, groups: int, *, zero_first: bool, layout: str) -> None:
    """ArgumentError where a caller's codebook has another number of groups, or more entries than codes."""
    if len(bits) not in (1, groups) and groups:
        raise ArgumentError(
            f"codebook of {len(bits)} groups; the matrix has {groups} (codebook_rows={coding.rows or None})"
        )
    entries = bits.shape[1]
    if entries > coding.entries:
        raise ArgumentError(f"codebook of {entries} entries; value_bits={coding.bits} has {coding.entries} codes")
    if zero_first and entries == coding.entries and not (bits == 0).any(axis=1).all():
        raise ArgumentError(
            f"codebook of {entries} entries without 0: layout {layout} pads with code 0, which must be 0; "
            "leave an entry out, or raise value_bits"
        )
