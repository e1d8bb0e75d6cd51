"""The dense libraries' products, measured in a process of their own with one thread: numpy, and torch if it is there.

python -m codec.costs.machine.libraries SECONDS    prints rows as JSON
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from math import inf, prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.costs.machine.model import ALIGNMENT, BATCHES, Row, row_of, sizes
from codec.costs.machine.timing import ROUNDS, seconds_of
from codec.errors import CodecError

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
# The dtypes of weights whose products each library's own dtype stands for: weights of 16 bits can also be kept as
# float32, where that is faster.
STANDS_FOR = {"float64": ("F64",), "float32": ("F32", "BF16", "F16", "I8"), "bfloat16": ("BF16",), "float16": ("F16",)}
Costs = npt.NDArray[np.float64]
# A library that takes so many times as long as another for matrices of the size of this number is not measured with
# larger ones (torch's float16 without instructions for it).
_TOLD, _HOPELESS = 1, 5
# A matrix of some shape, then a number of columns, then the call.
Product = Callable[[tuple[int, int]], Callable[[int], Callable[[], object]]]


def measured(seconds: float) -> tuple[Row, ...]:
    """The rows of all libraries; ``python -m`` this module in a child, so that its threads can be set."""
    command = [sys.executable, "-P", "-m", "codec.costs.machine.libraries", str(seconds)]
    done = subprocess.run(command, env={**os.environ, **_ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodecError(f"the dense libraries could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return tuple(map(row_of, json.loads(done.stdout)))


def _numpy(dtype: str) -> Product:
    def of(shape: tuple[int, int]) -> Callable[[int], Callable[[], object]]:
        w = np.full(shape, 0.5, dtype)  # no library looks at the values

        def by_columns(batch: int) -> Callable[[], object]:
            x = np.full((shape[1], batch), 0.5, dtype)
            return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

        return by_columns

    return of


def _torch(torch: Any, dtype: str) -> Product:
    def of(shape: tuple[int, int]) -> Callable[[int], Callable[[], object]]:
        w = torch.full(shape, 0.5, dtype=getattr(torch, dtype))

        def by_columns(batch: int) -> Callable[[], object]:
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


def _rows(seconds: float) -> Iterator[Row]:
    every, steps = list(libraries()), len(sizes(1))
    told: dict[tuple[str, bool], Costs] = {}  # what the first library for a dtype takes for an element
    each = seconds / (len(every) * (1 + 2 * steps) * len(BATCHES))
    for library, dtype, product in every:
        width = {"float64": 8, "float32": 4}.get(dtype, 2)
        made = cache(product)
        fixed = _times(made, [(1, 1) for _ in BATCHES], each)
        for aligned in (False, True):
            element: list[Costs] = []
            for step in range(steps):
                if step > _TOLD and np.all(
                    element[_TOLD] > _HOPELESS * told.get((STANDS_FOR[dtype][-1], aligned), inf)
                ):
                    element.append(element[-1])
                    continue
                shapes = [_shape(sizes(batch)[step], aligned) for batch in BATCHES]
                times = np.maximum(0.0, _times(made, shapes, each) - fixed)
                element.append(times / [prod(shape) for shape in shapes])
            params = {"dtype": dtype, "width": width, "aligned": aligned}
            costs = tuple(tuple(map(float, one)) for one in element)
            for name in STANDS_FOR[dtype]:
                told.setdefault((name, aligned), element[_TOLD])
                yield Row(library, params, name, tuple(map(float, fixed)), (0.0,), (0.0,), costs, (0.0,))


def _shape(size: int, aligned: bool) -> tuple[int, int]:
    """A matrix of about so many elements, about twice as wide as high.

    Where rows lie a power of two apart, as in many models, they compete for the same places of a cache, so both kinds
    are measured.
    """
    cols = 10 * round(sqrt(2 * size) / 10 + 0.5)
    if aligned:
        cols = ALIGNMENT if size <= ALIGNMENT**2 else 2 * ALIGNMENT
    return round(size / cols), cols


def _times(product: Product, shapes: list[tuple[int, int]], budget: float) -> Costs:
    """By batch, each with its shape. Libraries make code at the first call, which the second round finds made."""
    every = [product(shape)(batch) for shape, batch in zip(shapes, BATCHES, strict=True)]
    return np.asarray(np.min([[seconds_of(call, budget / ROUNDS) for call in every] for _ in range(ROUNDS)], axis=0))


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in _rows(float(sys.argv[1]))]))
