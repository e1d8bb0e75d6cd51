"""The dense libraries' products, measured in a process of their own with one thread: numpy, and torch if it is there.

python -m codec.costs.machine.libraries    for each line with a number, measures for so many seconds; then rows as JSON
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from itertools import groupby
from math import inf, prod, sqrt
from tempfile import TemporaryFile
from typing import Any, Self

import numpy as np

from codec.costs.machine.model import ALIGNMENT, ANCHORS, BATCHES, Row, anchor_above, between, row_of, sizes
from codec.costs.machine.timing import Call, Group, by_turns, complete, seconds_of, take_turns
from codec.errors import CodecError

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
# The dtypes of weights whose products each library's own dtype stands for: weights of 16 bits can also be kept as
# float32, where that is faster.
STANDS_FOR = {"float64": ("F64",), "float32": ("F32", "BF16", "F16", "I8"), "bfloat16": ("BF16",), "float16": ("F16",)}
# A library that takes so many times as long as another for a matrix of the size of this number is not measured with
# larger ones (torch's float16 without instructions for it).
_TOLD, _HOPELESS = 1, 5
_LOOK = 1e-3  # seconds for that
_PATTERN = len(sizes(1)) - 2  # the size that is multiplied with every batch
# A matrix of some shape, then a number of columns, then the call.
Product = Callable[[tuple[int, int]], Callable[[int], Call]]


class Libraries:
    """The process that measures them; in a ``with`` statement, which ends it."""

    def __enter__(self) -> Self:
        self._errors = TemporaryFile()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "codec.costs.machine.libraries"], env={**os.environ, **_ONE_THREAD},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def wait(self) -> None:
        """Until it is ready, or has measured: meanwhile it uses a processor."""
        assert self._child.stdout is not None
        if not self._child.stdout.readline():
            self._fail()

    def turn(self, seconds: float) -> None:
        """Have it measure for so long."""
        assert self._child.stdin is not None
        try:
            print(seconds, file=self._child.stdin, flush=True)
        except BrokenPipeError:
            self._fail()
        self.wait()

    def rows(self) -> tuple[Row, ...]:
        """All that was measured; it ends with that."""
        found, _ = self._child.communicate()
        if self._child.returncode:
            self._fail()
        return tuple(map(row_of, json.loads(found)))

    def _fail(self) -> None:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise CodecError(f"the dense libraries could not be measured: {said[-1:]}")


def _numpy(dtype: str) -> Product:
    def of(shape: tuple[int, int]) -> Callable[[int], Call]:
        w = np.full(shape, 0.5, dtype)  # no library looks at the values

        def by_columns(batch: int) -> Call:
            x = np.full((shape[1], batch), 0.5, dtype)
            return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

        return by_columns

    return of


def _torch(torch: Any, dtype: str) -> Product:
    def of(shape: tuple[int, int]) -> Callable[[int], Call]:
        w = torch.full(shape, 0.5, dtype=getattr(torch, dtype))

        def by_columns(batch: int) -> Call:
            x = torch.full((shape[1], batch), 0.5, dtype=w.dtype)
            return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

        return by_columns

    return of


def libraries() -> Iterator[tuple[str, str, Product]]:
    """Name, dtype, and what makes a product of a matrix of some shape with some columns, with one thread."""
    yield "numpy", "float32", _numpy("float32")
    yield "numpy", "float64", _numpy("float64")
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)
        for dtype in ("float32", "bfloat16", "float16"):
            yield "torch", dtype, _torch(torch, dtype)


class _Library:
    """One library with one dtype: products with matrices of every size, in rows a power of two apart and in others.

    Parameters
    ----------
    library, dtype, product
        As `libraries` gives them.
    least : mapping of (dtype of weights, batch) to seconds
        What the fastest of the others takes with a small matrix.
    """

    def __init__(self, library: str, dtype: str, product: Product, least: Mapping[tuple[str, int], float]) -> None:
        self._library, self._dtype = library, dtype
        one, other = cache(product), cache(product)  # two matrices of each shape, multiplied by turns (timing.py)
        self.told = {batch: _once_made(one(_shape(sizes(batch)[_TOLD], False))(batch)) for batch in ANCHORS}
        stands_for = STANDS_FOR[dtype][-1]
        slow = {b for b, seconds in self.told.items() if seconds > _HOPELESS * least.get((stands_for, b), inf)}
        # By batch, step and alignment; the step of fixed costs is None.
        cells: list[tuple[int, int | None, bool]] = [(batch, None, False) for batch in ANCHORS]
        for aligned in (False, True):
            for step in range(len(sizes(1))):
                cells += [(b, step, aligned) for b in ANCHORS if step <= _TOLD or b not in slow]
            cells += [(b, _PATTERN, aligned) for b in BATCHES if b not in ANCHORS and anchor_above(b) not in slow]
        cells.sort(key=_shape_of)
        self._cells, self._slow = cells, slow
        calls: list[tuple[int | None, Call]] = []
        first = 0
        for shape, some in groupby(cells, key=_shape_of):
            pairs = [(one(shape)(batch), other(shape)(batch)) for batch, *_ in some]
            calls += by_turns(pairs, first)
            first += len(pairs)
        self.group = Group(calls)

    def rows(self) -> Iterator[Row]:
        """What it costs, for each dtype of weights that it stands for."""
        times = dict(zip(self._cells, map(float, self.group.seconds), strict=True))
        fixed = {batch: times[batch, None, False] for batch in ANCHORS}

        def cost(batch: int, step: int, aligned: bool) -> float:
            step = min(step, _TOLD) if batch in self._slow else step
            size = prod(_shape(sizes(batch)[step], aligned))
            return max(0.0, times[batch, step, aligned] - fixed[anchor_above(batch)]) / size

        for aligned in (False, True):
            pattern = [0.0 if anchor_above(b) in self._slow else cost(b, _PATTERN, aligned) for b in BATCHES]
            element = tuple(
                between([cost(batch, step, aligned) for batch in ANCHORS], pattern) for step in range(len(sizes(1)))
            )
            width = {"float64": 8, "float32": 4}.get(self._dtype, 2)
            params = {"dtype": self._dtype, "width": width, "aligned": aligned}
            for name in STANDS_FOR[self._dtype]:
                yield Row(self._library, params, name, between(list(fixed.values())), (0.0,), (0.0,), element, (0.0,))


def _once_made(call: Call) -> float:
    """Seconds of a call; libraries make code at the first."""
    call()
    return seconds_of(call, _LOOK)


def _shape_of(cell: tuple[int, int | None, bool]) -> tuple[int, int]:
    batch, step, aligned = cell
    return (1, 1) if step is None else _shape(sizes(batch)[step], aligned)


def _shape(size: int, aligned: bool) -> tuple[int, int]:
    """A matrix of about so many elements, about half as wide again as high.

    Where rows lie a power of two apart, as in many models, they compete for the same places of a cache, so both kinds
    are measured.
    """
    cols = 10 * round(sqrt(1.5 * size) / 10 + 0.5)
    if aligned:
        cols = ALIGNMENT if size <= ALIGNMENT**2 else 2 * ALIGNMENT
    return round(size / cols), cols


def _main() -> None:
    every: list[_Library] = []
    least: dict[tuple[str, int], float] = {}
    for library, dtype, product in libraries():
        every.append(_Library(library, dtype, product, least))
        for name in STANDS_FOR[dtype]:
            for batch, seconds in every[-1].told.items():
                least[name, batch] = min(seconds, least.get((name, batch), inf))
    groups = [one.group for one in every]
    print("ready", flush=True)
    for line in sys.stdin:
        take_turns(groups, float(line))
        print("done", flush=True)
    complete(groups)
    print(json.dumps([asdict(row) for one in every for row in one.rows()]))


if __name__ == "__main__":
    _main()
