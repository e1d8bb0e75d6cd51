"""Measuring a machine: bandwidths, every layout's products, decoding and encoding, and the dense libraries."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from codec import kernels
from codec.costs.frames import contenders
from codec.costs.machine.libraries import measured as measured_libraries
from codec.costs.machine.model import FAR, LANES, Row, by
from codec.costs.machine.profile import MachineProfile, cache_path
from codec.costs.machine.timing import seconds_of, split
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS
from codec.packed import PackedTensor
from codec.products import multiply
from codec.tensor import decode, encode

_DTYPES = ("F32", "BF16", "F16", "F64")
_DENSITIES = (0.02, 0.1, 0.3, 0.7)
_TALL, _SQUARE = (1024, 256), (256, 1024)
_WIDE = (64, FAR // 4 // 64)  # with the largest batch
_SIZES = (1 << 19, 4 << 20, 16 << 20, 128 << 20)  # bytes of buffers: within caches, and far beyond
_LONGEST = 64  # columns of the largest batch that is measured
# Shares of the seconds.
_LIBRARIES, _BANDWIDTH, _WHOLE, _CHECKS = 0.15, 0.05, 0.15, 0.1
_CHECKED = 12

Progress = Callable[[float], object]


def profile_machine(seconds: float = 10, *, cache: bool = True, progress: Progress | None = None) -> MachineProfile:
    """Measure this machine once, in about so many seconds.

    Parameters
    ----------
    seconds : float
        From 1 on; making matrices comes on top of it.
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
    batches = _batches()
    dense = measured_libraries(_LIBRARIES * seconds, batches)
    told(_LIBRARIES)
    bandwidth, copy = _bandwidth(_BANDWIDTH * seconds)
    told(_LIBRARIES + _BANDWIDTH)
    rest = seconds * (1 - _LIBRARIES - _BANDWIDTH - _WHOLE - _CHECKS)
    column = _columns(0.02 * seconds, batches)
    products, decoded, encoded = [], [], []
    cells = [(name, params, dtype) for dtype in _DTYPES for name, params in executed()]
    for number, (name, params, dtype) in enumerate(cells):
        with suppress(ArgumentError):  # a layout that does not hold this dtype
            made = _Made(name, params, dtype)
            products.append(made.products(rest / len(cells), batches, column))
            decoded.append(made.whole(_WHOLE / 2 * seconds / len(cells), made.decoded))
            encoded.append(made.whole(_WHOLE / 2 * seconds / len(cells), made.encoded))
        told(0.2 + 0.7 * (number + 1) / len(cells))
    threads = kernels.thread_count(None)
    speedup, gain = _speedups(threads)
    found = MachineProfile(
        _cpu(), kernels.info()["kernel"], threads, bandwidth, copy, speedup, gain, batches, _DENSITIES, column,
        {"products": tuple(products), "dense": dense, "decode": tuple(decoded), "encode": tuple(encoded)},
    )  # fmt: skip
    found = replace(found, spread=_spread(found, _CHECKS * seconds))
    if cache:
        os.makedirs(os.path.dirname(cache_path()), exist_ok=True)
        found.save(cache_path())
    told(1.0)
    return found


def executed() -> list[tuple[str, dict[str, Any]]]:
    """The layouts that are measured: all that "auto" chooses among, and those of the same bytes in another order."""
    orders = [(name, one.given) for name, kind in LAYOUTS.items() for one in kind.variants() if one.params.get("order")]
    return [*contenders(), *(one for one in orders if one not in contenders())]


def _batches() -> tuple[int, ...]:
    """Where the kernels for a batch change, by the rows that there are; and the largest, its half, and some that leave
    a part of a register.
    """
    found = {1, LANES - 1, _LONGEST, *(n - rest for n in (_LONGEST // 2, _LONGEST) for rest in (0, 3, LANES + 1))}
    for row in kernels.product_kernels():
        low, high = row["batch"]
        found |= {low, high or low}
    return tuple(sorted(b for b in found if b <= _LONGEST))


class _Made:
    """One layout with one dtype, at every density."""

    def __init__(self, name: str, params: dict[str, Any], dtype: str) -> None:
        self.name, self.params, self.dtype = name, params, dtype
        self.arrays = [_matrix(_SQUARE, density, dtype) for density in _DENSITIES]
        self.square = [self._packed(a) for a in self.arrays]
        self.tall = self._packed(_matrix(_TALL, _DENSITIES[2], dtype))
        self.wide = self._packed(_matrix(_WIDE, _DENSITIES[2], dtype))
        self.least = self._packed(np.zeros((1, 1), BY_NAME[dtype].dtype))

    def _packed(self, a: np.ndarray) -> PackedTensor:
        return encode(a, layout=self.name, objective="memory", **self.params)

    def products(self, budget: float, batches: Sequence[int], column: Sequence[float]) -> Row:
        """Products with every batch."""
        each = budget / (len(batches) * (len(self.square) + 1) + 2)
        fixed = seconds_of(_product(self.least, 1), each)

        def without_fixed(w: PackedTensor, chosen: Sequence[int]) -> list[float]:
            times = [seconds_of(_product(w, b), each) for b in chosen]
            known = [fixed + w.shape[1] * by(b, batches, column) for b in chosen]
            return [max(0.0, time - one) for time, one in zip(times, known, strict=True)]

        times = [without_fixed(w, batches) for w in self.square]
        row, _ = split(without_fixed(self.tall, batches), times[2], _TALL[0], _SQUARE[0])
        made = self._row(fixed, row, times)
        (wide,) = without_fixed(self.wide, batches[-1:])
        near = made.element[2][-1] * prod(_WIDE) + _WIDE[0] * row[-1]
        return replace(made, far=max(0.0, (wide - near) / (self.wide.nnz * batches[-1])))

    def whole(self, budget: float, call: Callable[[int], Callable[[], object]]) -> Row:
        """Decoding or encoding."""
        each = budget / (len(self.square) + 1)
        fixed = seconds_of(call(-1), each)
        times = [[max(0.0, seconds_of(call(i), each) - fixed)] for i in range(len(self.square))]
        return self._row(fixed, (0.0,), times)

    def _row(self, fixed: float, row: tuple[float, ...], times: list[list[float]]) -> Row:
        size = _SQUARE[0] * _SQUARE[1]
        element = [
            tuple(max(0.0, t - _SQUARE[0] * r) / size for t, r in zip(by_batch, row, strict=True)) for by_batch in times
        ]
        return Row(self.name, self.params, self.dtype, fixed, row, tuple(element))

    def decoded(self, number: int) -> Callable[[], object]:
        """Decode into an array that is there."""
        packed = self.least if number < 0 else self.square[number]
        out = np.empty(packed.shape, packed.dtype)
        return lambda: decode(packed, out=out, threads=1)

    def encoded(self, number: int) -> Callable[[], object]:
        """Encode without an entropy stage."""
        a = np.zeros((1, 1), BY_NAME[self.dtype].dtype) if number < 0 else self.arrays[number]
        return lambda: encode(a, layout=self.name, objective="memory", threads=1, **self.params)


def _product(w: PackedTensor, batch: int, threads: int = 1) -> Callable[[], object]:
    wide = w.dtype.itemsize == 8
    x = np.random.default_rng(1).standard_normal((w.shape[1], batch)).astype("f8" if wide else "f4")
    return lambda: multiply(w, x, threads=threads)


@lru_cache(maxsize=8)
def _matrix(shape: tuple[int, int], density: float, dtype: str) -> np.ndarray:
    random = np.random.default_rng(0)
    element = BY_NAME[dtype]
    items = random.standard_normal(shape, np.float32) if element.is_float else random.integers(1, 100, shape)
    return np.where(random.random(shape, np.float32) < density, items, 0).astype(element.dtype)


def _columns(budget: float, batches: Sequence[int]) -> tuple[float, ...]:
    """Seconds for a column of x: of a matrix without entries, wide against narrow."""
    wide, narrow = (encode(np.zeros((16, n), np.float32), layout="csr", objective="memory") for n in (8192, 512))
    each = budget / (2 * len(batches))
    far, near = ([seconds_of(_product(w, b), each) for b in batches] for w in (wide, narrow))
    return tuple(max(0.0, a - b) / (8192 - 512) for a, b in zip(far, near, strict=True))


def _bandwidth(budget: float) -> tuple[tuple[tuple[float, float], ...], float]:
    each = budget / (len(_SIZES) + 1)
    data = np.ones(_SIZES[-1], np.uint8)
    curve = tuple((float(size), size / seconds_of(partial(kernels.crc32c, data[:size]), each)) for size in _SIZES)
    half = len(data) // 2
    return curve, half / seconds_of(lambda: np.copyto(data[:half], data[half:]), each)


def _speedups(threads: int) -> tuple[float, float]:
    """How many times as fast all threads are where they compute, and where they read memory."""
    if threads == 1:
        return 1.0, 1.0
    compute = encode(_matrix((1024, 1024), 0.3, "F32"), layout="bitmap", objective="memory")
    memory = encode(_matrix((8192, 4096), 0.7, "F32"), layout="bitmap", objective="memory")

    def gain(w: PackedTensor, batch: int) -> float:
        one, all_ = (seconds_of(_product(w, batch, n), 0.1, perf_counter) for n in (1, threads))
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
        time = seconds_of(_product(w, batch), budget / _CHECKED)
        predicted = found.predict(
            "matmul", layout=name, shape=shape, dtype=w.dtype, sparsity=1 - density, batch=batch, **params
        )
        ratios.append(time / predicted.seconds)
    low, high = np.quantile(ratios, (0.05, 0.95))
    return float(min(1.0, low)), float(max(1.0, high))


def _cpu() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
