"""Measuring a machine: bandwidths, every layout's products, decoding and encoding, and the dense libraries."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from math import inf, prod
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from codec import kernels
from codec.costs.frames import contenders
from codec.costs.machine.libraries import Libraries
from codec.costs.machine.model import ANCHORS, BATCHES, FAR, NEAR, Row, between
from codec.costs.machine.profile import MachineProfile, cache_path, this_cpu
from codec.costs.machine.timing import Call, Group, by_turns, complete, seconds_of, take_turns, warm_and_timed
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS, make_layout
from codec.packed import PackedTensor
from codec.products import matmul
from codec.tensor import decode, encode

_DTYPES = ("F32", "BF16", "F16", "F64")
# Shares that are stored: also on both sides of 10 in 16, from where on kernels expand bitmaps (kDenseFrom of
# native/product/multiply.cpp). Matrices of one of them are multiplied with every batch.
_DENSITIES, _PATTERN = (0.02, 0.1, 0.3, 0.6, 0.65, 1.0), 2
# Matrices that tell rows and columns apart. They are small, so that there is time for many rounds.
_TALL, _SQUARE, _WIDE = (1024, 256), (256, NEAR), (64, FAR)
_TURNS = 2  # matrices of each kind, which are multiplied by turns (timing.py)
_ANCHORED = [BATCHES.index(batch) for batch in ANCHORS]
_LINES = 4096, 256  # columns of matrices of one row without entries: they differ by what columns take
_SIZES = (1 << 19, 4 << 20, 16 << 20, 48 << 20, 128 << 20)  # bytes of buffers: within caches, and far beyond
# Shares of the seconds that are left once all is made; the rest is for layouts.
_LIBRARIES, _CHECKS, _LEAST = 0.4, 0.05, 0.5
_SLICES = 20  # in which layouts and libraries take turns
_WHOLE, _BANDWIDTH = 0.15, 0.5  # weights beside those of products
_CHECKED = 12
_KEPT = _TURNS * (len(_DENSITIES) + 2)

Progress = Callable[[float], object]
Costs = npt.NDArray[np.float64]
Each = tuple[float, ...]  # by batch


def profile_machine(seconds: float = 10, *, cache: bool = True, progress: Progress | None = None) -> MachineProfile:
    """Measure this machine once, in about so many seconds.

    Parameters
    ----------
    seconds : float
        From 1 on, in all. Making matrices and starting the dense libraries take some 3 of them, and a round of all that
        is measured 2 more, so that fewer take longer than they say. At least half of them are used for measuring, by
        processor time: on a busy machine it takes longer, too.
    cache : bool
        Whether the profile is kept for `break_even`, `plan` and the command line (under XDG_CACHE_HOME, by instruction
        set). It is made again by calling this again, which is all it takes when kernels change.
    progress : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    MachineProfile

    Raises
    ------
    ArgumentError
        For less than a second.
    OSError
        Where the cache cannot be written.
    """
    if not isinstance(seconds, int | float) or not 1 <= seconds <= 3600:
        raise ArgumentError(f"seconds={seconds!r}; expected a number from 1 to 3600")
    told = progress or (lambda share: None)
    told(0.0)
    start = perf_counter()
    with Libraries() as libraries:  # its process makes what it needs while this one does
        made = list(_made())
        bandwidth = _Bandwidth()
        threads = kernels.thread_count(None)
        speedup, gain = _speedups(threads)
        libraries.wait()
        groups = [bandwidth.group, *(group for one in made for group in (one.products, one.whole))]
        left = max(_LEAST * seconds, seconds - (perf_counter() - start))
        told(1 - left / seconds)
        for turn in range(_SLICES):
            take_turns(groups, (1 - _LIBRARIES - _CHECKS) * left / _SLICES)
            libraries.turn(_LIBRARIES * left / _SLICES)
            told(1 - left / seconds * (1 - (turn + 1) / (_SLICES + 1)))
        complete(groups)
        dense = libraries.rows()
    found = MachineProfile(
        this_cpu(), kernels.info()["kernel"], threads, bandwidth.curve(), bandwidth.copy(), speedup, gain, _DENSITIES,
        {
            "products": tuple(_product_rows(made)),
            "dense": dense,
            "decode": tuple(one.decode_row() for one in made),
            "encode": tuple(one.encode_row() for one in made),
        },
    )  # fmt: skip
    found = replace(found, spread=_spread(found, _CHECKS * left))
    for kept in (_columns, _values, _matrix):
        kept.cache_clear()
    if cache:
        os.makedirs(os.path.dirname(cache_path()), exist_ok=True)
        found.save(cache_path())
    told(1.0)
    return found


def executed() -> list[tuple[str, dict[str, Any]]]:
    """The layouts that are measured: all that "auto" chooses among, and those of the same bytes in another order."""
    orders = [(name, one.given) for name, kind in LAYOUTS.items() for one in kind.variants() if one.params.get("order")]
    return [*contenders(), *(one for one in orders if one not in contenders())]


def _made() -> Iterator["_Made"]:
    """Every layout with every dtype; those that are always coded, which nothing takes for speed, with one dtype."""
    for dtype in _DTYPES:
        for name, params in executed():
            if dtype == _DTYPES[0] or not make_layout(name, params).always_coded:
                with suppress(ArgumentError):  # a layout that does not hold this dtype
                    yield _Made(name, params, dtype)


def _product_rows(made: Sequence["_Made"]) -> Iterator[Row]:
    """The rows of all.

    What columns take of x is the same for all layouts with one dtype. Where a matrix of one row takes more for them,
    that is due to the row.
    """
    least: dict[str, Costs] = {}
    for one in made:
        least[one.dtype] = np.minimum(least.get(one.dtype, inf), one.col)
    for one in made:
        yield one.product_row(least[one.dtype])


class _Made:
    """One layout with one dtype: square matrices of every density, tall and wide ones, lines, and the least."""

    def __init__(self, name: str, params: dict[str, Any], dtype: str) -> None:
        self.name, self.params, self.dtype = name, params, dtype
        zeros = [np.zeros((1, n), BY_NAME[dtype].dtype) for n in (1, *_LINES)]
        shapes = [(_TALL, _DENSITIES[_PATTERN]), (_WIDE, _DENSITIES[_PATTERN]), *((_SQUARE, d) for d in _DENSITIES)]
        turns = [[_matrix(*one, dtype, turn) for turn in range(_TURNS)] for one in shapes]
        self._packed = [*([self._encode(a)] for a in zeros), *([self._encode(a) for a in some] for some in turns)]
        self._one = len(self._packed) - len(_DENSITIES) + _PATTERN
        self._cells: list[tuple[int, int]] = []
        calls: list[tuple[int | None, Call]] = []

        for i, some in enumerate(self._packed):
            batches = BATCHES if i == self._one else ANCHORS
            pairs = [(_product(some[0], batch), _product(some[-1], batch)) for batch in batches]
            calls += by_turns(pairs, len(self._cells))
            self._cells += [(i, batch) for batch in batches]
        self.products = Group(calls)
        every = [zeros[0], *(some[0] for some in turns[-len(_DENSITIES) :])]
        decoding = warm_and_timed([self._decoding(a) for a in every])
        self.whole = Group([*decoding, *enumerate(map(self._encoding, every), len(every))], _WHOLE)

    def _encode(self, a: np.ndarray, threads: int | None = None) -> PackedTensor:
        return encode(a, layout=self.name, objective="memory", threads=threads, **self.params)

    def _encoding(self, a: np.ndarray) -> Call:
        """Encode without an entropy stage."""
        return lambda: self._encode(a, 1)

    def _decoding(self, a: np.ndarray) -> Call:
        packed, out = self._encode(a), np.empty(a.shape, a.dtype)
        return lambda: decode(packed, out=out, threads=1)

    def times(self) -> Costs:
        """Seconds of products, by matrix and by BATCHES; not a number where there is none."""
        times = np.full((len(self._packed), len(BATCHES)), np.nan)
        for (i, batch), seconds in zip(self._cells, self.products.seconds, strict=True):
            times[i, BATCHES.index(batch)] = seconds
        return times

    @property
    def col(self) -> Costs:
        """Seconds of a column, by ANCHORS."""
        _, long, short, *_ = self.times()[:, _ANCHORED]
        return _cost((long - short) / (_LINES[0] - _LINES[1]))

    def product_row(self, col: Costs) -> Row:
        """Products with every batch: where times of two matrices differ, the rest is what they have in common."""
        times = self.times()
        fixed, _, _, tall, wide, *square = times[:, _ANCHORED]
        one = square[_PATTERN]
        more, rows = _more(_TALL, tall, fixed, col, one)
        # Sums are written strip by strip: a line over the batch, each time as exact as it is short.
        line = np.polyfit(ANCHORS, more / rows, 1, w=1 / tall)
        row = _cost(np.asarray(np.polyval(line, ANCHORS), np.float64))
        more, rows = _more(_WIDE, wide, fixed, col, one)
        far = _cost(more - rows * row) / (_DENSITIES[_PATTERN] * prod(_WIDE))
        lines = fixed + _SQUARE[0] * row + _SQUARE[1] * col
        pattern = _cost(times[self._one] - between(lines)) / prod(_SQUARE)
        element = [between(_cost(time - lines) / prod(_SQUARE), pattern) for time in square]
        return self._row(between(fixed), between(row), between(col), element, between(far))

    def decode_row(self) -> Row:
        """Decoding into an array that is there."""
        return self._whole_row(self.whole.seconds[: len(_DENSITIES) + 1])

    def encode_row(self) -> Row:
        """Encoding without an entropy stage."""
        return self._whole_row(self.whole.seconds[len(_DENSITIES) + 1 :])

    def _whole_row(self, times: Costs) -> Row:
        fixed, *square = map(float, times)
        element = [(max(0.0, time - fixed) / prod(_SQUARE),) for time in square]
        return self._row((fixed,), (0.0,), (0.0,), element, (0.0,))

    def _row(self, fixed: Each, row: Each, col: Each, element: Sequence[Each], far: Each) -> Row:
        return Row(self.name, self.params, self.dtype, fixed, row, col, tuple(element), far)


def _product(w: PackedTensor, batch: int, threads: int = 1) -> Call:
    x = _columns(w.shape[1], batch, "f8" if w.dtype.itemsize == 8 else "f4")
    return lambda: matmul(w, x, threads=threads)


@lru_cache(maxsize=128)
def _columns(cols: int, batch: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((cols, batch)).astype(dtype)


@lru_cache(maxsize=_KEPT)  # those of one dtype, which all layouts pack
def _matrix(shape: tuple[int, int], density: float, dtype: str, turn: int = 0) -> np.ndarray:
    return _values(shape, density, turn).astype(BY_NAME[dtype].dtype)


@lru_cache(maxsize=_KEPT)  # of which those of every dtype are made
def _values(shape: tuple[int, int], density: float, turn: int) -> np.ndarray:
    random = np.random.default_rng(turn)
    items = random.standard_normal(shape, np.float32)
    items[random.random(shape, np.float32) >= density] = 0
    return items


def _more(shape: tuple[int, int], time: Costs, fixed: Costs, col: Costs, one: Costs) -> tuple[Costs, int]:
    """What a matrix takes more than as many elements of the square one and its own columns, and how many more rows."""
    times = prod(shape) / prod(_SQUARE)
    more = time - times * one - (1 - times) * fixed - (shape[1] - times * _SQUARE[1]) * col
    return more, round(shape[0] - times * _SQUARE[0])


def _cost(seconds: Costs) -> Costs:
    """A difference of times is at least nothing: less comes of other work on the machine."""
    return np.maximum(0.0, seconds)


class _Bandwidth:
    """Reading buffers of some sizes again and again, and writing to memory."""

    def __init__(self) -> None:
        data = np.ones(_SIZES[-1], np.uint8)
        half = len(data) // 2
        calls: list[Call] = [*(data[:size].max for size in _SIZES), lambda: np.copyto(data[:half], data[half:])]
        self._copied = half
        self.group = Group(warm_and_timed(calls), _BANDWIDTH)

    def curve(self) -> tuple[tuple[float, float], ...]:
        """Bytes of a buffer, and bytes in a second."""
        return tuple((float(size), size / float(time)) for size, time in zip(_SIZES, self.group.seconds, strict=False))

    def copy(self) -> float:
        """Bytes in a second."""
        return self._copied / float(self.group.seconds[-1])


def _speedups(threads: int) -> tuple[float, float]:
    """How many times as fast all threads are where they compute, and where they read memory."""
    if threads == 1:
        return 1.0, 1.0
    compute = encode(_values((1024, 1024), 0.3, 0), layout="bitmap", objective="memory")
    memory = encode(np.ones((4096, 4096), np.float32), layout="dense", objective="memory")

    def gain(w: PackedTensor, batch: int) -> float:
        one, all_ = (seconds_of(_product(w, batch, n), 0.05, perf_counter) for n in (1, threads))
        return max(1.0, one / all_)

    return gain(compute, 32), gain(memory, 1)


def _cases() -> Iterator[tuple[str, dict[str, Any], str, tuple[int, int], float, int]]:
    random = np.random.default_rng(3)
    known = executed()
    for _ in range(_CHECKED):
        name, params = known[int(random.integers(len(known)))]
        shape = (int(random.integers(256, 2048)), int(random.integers(256, 2048)))
        dtype = _DTYPES[int(random.integers(3))]
        yield name, params, dtype, shape, float(random.uniform(0.02, 0.7)), int(2 ** random.integers(0, 7))


def _spread(found: MachineProfile, budget: float) -> tuple[float, float]:
    """Shares of the predicted time that nine of ten times of matrices of other shapes lie between."""
    ratios = []
    for name, params, dtype, shape, density, batch in _cases():
        one, w = (
            encode(_matrix(shape, density, dtype, turn), layout=name, objective="memory", **params) for turn in (0, 1)
        )
        group = Group(by_turns([(_product(one, batch), _product(w, batch))]))
        take_turns([group], budget / _CHECKED)
        complete([group])
        predicted = found.predict(
            "matmul", layout=name, shape=shape, dtype=w.dtype, sparsity=1 - density, batch=batch, **params
        )
        ratios.append(float(group.seconds[0]) / predicted.seconds)
    low, high = np.quantile(ratios, (0.05, 0.95))
    return float(min(1.0, low)), float(max(1.0, high))
