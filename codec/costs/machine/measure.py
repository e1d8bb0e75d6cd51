"""Measuring a machine: bandwidths, every layout's products, decoding and encoding, and the dense libraries."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import cycle
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from codec import kernels
from codec.costs.frames import contenders
from codec.costs.machine.libraries import measured as measured_libraries
from codec.costs.machine.model import BATCHES, FAR, NEAR, Row
from codec.costs.machine.profile import MachineProfile, cache_path, this_cpu
from codec.costs.machine.timing import ROUNDS, seconds_of
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS, make_layout
from codec.packed import PackedTensor
from codec.products import matmul
from codec.tensor import decode, encode

_DTYPES = ("F32", "BF16", "F16", "F64")
_DENSITIES = (0.02, 0.1, 0.3, 0.7)
# Matrices of as many elements: what their times differ by is due to rows and columns.
_TALL, _SQUARE, _WIDE = (1024, 256), (256, NEAR), (64, FAR)
# Square ones take turns: a processor learns the branches of one that comes again and again, as in no network.
_TURNS = 4
_LINES = 8192, 512  # columns of matrices of one row without entries: they differ by what columns take
_SIZES = (1 << 19, 4 << 20, 16 << 20, 48 << 20, 128 << 20)  # bytes of buffers: within caches, and far beyond
# Shares of the seconds.
_LIBRARIES, _BANDWIDTH, _PRODUCTS, _WHOLE, _CHECKS = 0.15, 0.03, 0.25, 0.06, 0.03
_CHECKED = 12

Progress = Callable[[float], object]
Costs = npt.NDArray[np.float64]


def profile_machine(seconds: float = 10, *, cache: bool = True, progress: Progress | None = None) -> MachineProfile:
    """Measure this machine once, in about so many seconds.

    Parameters
    ----------
    seconds : float
        From 1 on, in all. Making matrices, starting the dense libraries and the slowest of what is measured take some
        5 seconds of them, so that fewer take longer than they say.
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
    dense = measured_libraries(_LIBRARIES * seconds)
    told(_LIBRARIES)
    bandwidth, copy = _bandwidth(_BANDWIDTH * seconds)
    told(_LIBRARIES + _BANDWIDTH)
    products, decoded, encoded = [], [], []
    # Layouts that are always coded, which nothing takes for speed, are measured with one dtype.
    cells = [
        (name, params, dtype)
        for dtype in _DTYPES
        for name, params in executed()
        if dtype == _DTYPES[0] or not make_layout(name, params).always_coded
    ]
    for number, (name, params, dtype) in enumerate(cells):
        with suppress(ArgumentError):  # a layout that does not hold this dtype
            made = _Made(name, params, dtype)
            products.append(made.products(_PRODUCTS * seconds / len(cells)))
            decoded.append(made.whole(_WHOLE / 2 * seconds / len(cells), made.decoded))
            encoded.append(made.whole(_WHOLE / 2 * seconds / len(cells), made.encoded))
        told(0.2 + 0.7 * (number + 1) / len(cells))
    threads = kernels.thread_count(None)
    speedup, gain = _speedups(threads)
    found = MachineProfile(
        this_cpu(), kernels.info()["kernel"], threads, bandwidth, copy, speedup, gain, _DENSITIES,
        {"products": tuple(products), "dense": dense, "decode": tuple(decoded), "encode": tuple(encoded)},
    )  # fmt: skip
    found = replace(found, spread=_spread(found, _CHECKS * seconds))
    for kept in (_columns, _values):
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


class _Made:
    """One layout with one dtype: square matrices of every density, tall and wide ones, lines, and the least."""

    def __init__(self, name: str, params: dict[str, Any], dtype: str) -> None:
        self.name, self.params, self.dtype = name, params, dtype
        self.arrays = [_matrix(_SQUARE, density, dtype) for density in _DENSITIES]
        self.square = [
            [self._packed(_matrix(_SQUARE, density, dtype, turn)) for turn in range(_TURNS)] for density in _DENSITIES
        ]
        self.tall, self.wide = ([self._packed(_matrix(shape, _DENSITIES[2], dtype))] for shape in (_TALL, _WIDE))
        self.lines = [[self._packed(np.zeros((1, n), BY_NAME[dtype].dtype))] for n in _LINES]
        self.least = [self._packed(np.zeros((1, 1), BY_NAME[dtype].dtype))]

    def _packed(self, a: np.ndarray) -> PackedTensor:
        return encode(a, layout=self.name, objective="memory", **self.params)

    def products(self, budget: float) -> Row:
        """Products with every batch: where times of two matrices differ, the rest is what they have in common."""
        every = [self.least, *self.lines, self.square[2][:1], self.tall, self.wide, *self.square]
        each = budget / (ROUNDS * len(BATCHES) * len(every))

        def times(turns: Sequence[PackedTensor]) -> Costs:
            for w in turns:  # so that each comes from a cache
                _product([w], 1)()
            return np.array([seconds_of(_product(turns, batch), each) for batch in BATCHES])

        fixed, long, short, one, tall, wide, *square = np.min(
            [[times(turns) for turns in every] for _ in range(ROUNDS)], axis=0
        )
        col = _cost((long - short) / (_LINES[0] - _LINES[1]))
        row = _cost((tall - one) / (_TALL[0] - _SQUARE[0]) + col)
        far = _cost(wide - one + (_SQUARE[0] - _WIDE[0]) * row - (_WIDE[1] - _SQUARE[1]) * col) / self.wide[0].nnz
        lines = fixed + _SQUARE[0] * row + _SQUARE[1] * col
        element = [_cost(time - lines) / prod(_SQUARE) for time in square]
        return self._row(fixed, row, col, element, far)

    def whole(self, budget: float, call: Callable[[int], Callable[[], object]]) -> Row:
        """Decoding or encoding."""
        each = budget / (len(self.square) + 1)
        fixed = seconds_of(call(-1), each)
        none = np.zeros(1)
        times = [seconds_of(call(i), each) for i in range(len(self.square))]
        element = [_cost(np.array([t - fixed])) / prod(_SQUARE) for t in times]
        return self._row(np.array([fixed]), none, none, element, none)

    def _row(self, fixed: Costs, row: Costs, col: Costs, element: Sequence[Costs], far: Costs) -> Row:
        def plain(costs: Costs) -> tuple[float, ...]:
            return tuple(map(float, costs))

        each = tuple(map(plain, element))
        return Row(self.name, self.params, self.dtype, plain(fixed), plain(row), plain(col), each, plain(far))

    def decoded(self, number: int) -> Callable[[], object]:
        """Decode into an array that is there."""
        packed = self.least[0] if number < 0 else self.square[number][0]
        out = np.empty(packed.shape, packed.dtype)
        return lambda: decode(packed, out=out, threads=1)

    def encoded(self, number: int) -> Callable[[], object]:
        """Encode without an entropy stage."""
        a = np.zeros((1, 1), BY_NAME[self.dtype].dtype) if number < 0 else self.arrays[number]
        return lambda: encode(a, layout=self.name, objective="memory", threads=1, **self.params)


def _product(turns: Sequence[PackedTensor], batch: int, threads: int = 1) -> Callable[[], object]:
    """Products with one matrix after the other."""
    next_one = cycle(turns).__next__
    x = _columns(turns[0].shape[1], batch, "f8" if turns[0].dtype.itemsize == 8 else "f4")
    return lambda: matmul(next_one(), x, threads=threads)


@lru_cache(maxsize=128)
def _columns(cols: int, batch: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((cols, batch)).astype(dtype)


def _matrix(shape: tuple[int, int], density: float, dtype: str, turn: int = 0) -> np.ndarray:
    return _values(shape, density, turn).astype(BY_NAME[dtype].dtype)


@lru_cache(maxsize=48)  # those of one dtype, of which every other dtype's are made
def _values(shape: tuple[int, int], density: float, turn: int) -> np.ndarray:
    random = np.random.default_rng(turn)
    items = random.standard_normal(shape, np.float32)
    items[random.random(shape, np.float32) >= density] = 0
    return items


def _cost(seconds: Costs) -> Costs:
    """A difference of times is at least nothing: less comes of other work on the machine."""
    return np.maximum(0.0, seconds)


def _bandwidth(budget: float) -> tuple[tuple[tuple[float, float], ...], float]:
    each = budget / (len(_SIZES) + 1)
    data = np.ones(_SIZES[-1], np.uint8)
    curve = tuple((float(size), size / seconds_of(data[:size].max, each)) for size in _SIZES)
    half = len(data) // 2
    return curve, half / seconds_of(lambda: np.copyto(data[:half], data[half:]), each)


def _speedups(threads: int) -> tuple[float, float]:
    """How many times as fast all threads are where they compute, and where they read memory."""
    if threads == 1:
        return 1.0, 1.0
    compute = encode(_matrix((1024, 1024), 0.3, "F32"), layout="bitmap", objective="memory")
    memory = encode(np.tile(_matrix((1024, 1024), 0.7, "F32"), (8, 4)), layout="bitmap", objective="memory")

    def gain(w: PackedTensor, batch: int) -> float:
        one, all_ = (seconds_of(_product([w], batch, n), 0.1, perf_counter) for n in (1, threads))
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
        w = encode(_matrix(shape, density, dtype), layout=name, objective="memory", **params)
        time = seconds_of(_product([w], batch), budget / _CHECKED)
        predicted = found.predict(
            "matmul", layout=name, shape=shape, dtype=w.dtype, sparsity=1 - density, batch=batch, **params
        )
        ratios.append(time / predicted.seconds)
    low, high = np.quantile(ratios, (0.05, 0.95))
    return float(min(1.0, low)), float(max(1.0, high))
