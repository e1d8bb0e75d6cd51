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
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.costs.machine.model import ALIGNMENT, BATCHES, SIZES, Row, row_of
from codec.costs.machine.timing import ROUNDS, seconds_of
from codec.errors import CodecError

# Matrices of SIZES elements: libraries take other ways for small ones, and large ones fit in no cache. Where rows lie a
# power of two apart, as in many models, they compete for the same places of a cache, so both kinds are measured.
_SHAPES = (120, 270), (250, 520), (500, 1040), (1590, 1980)
_ALIGNED = (32, ALIGNMENT), (128, ALIGNMENT), (512, ALIGNMENT), (1536, 2 * ALIGNMENT)
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
# The dtypes of weights whose products each library's own dtype stands for: weights of 16 bits can also be kept as
# float32, where that is faster.
STANDS_FOR = {"float64": ("F64",), "float32": ("F32", "BF16", "F16", "I8"), "bfloat16": ("BF16",), "float16": ("F16",)}
Product = Callable[[tuple[int, int], int], Callable[[], object]]


def measured(seconds: float) -> tuple[Row, ...]:
    """The rows of all libraries; ``python -m`` this module in a child, so that its threads can be set."""
    command = [sys.executable, "-P", "-m", "codec.costs.machine.libraries", str(seconds)]
    done = subprocess.run(command, env={**os.environ, **_ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodecError(f"the dense libraries could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return tuple(map(row_of, json.loads(done.stdout)))


def _numpy(dtype: str) -> Product:
    def of(shape: tuple[int, int], batch: int) -> Callable[[], object]:
        w, x = np.full(shape, 0.5, dtype), np.full((shape[1], batch), 0.5, dtype)  # no library looks at the values
        return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

    return of


def _torch(torch: Any, dtype: str) -> Product:
    def of(shape: tuple[int, int], batch: int) -> Callable[[], object]:
        w, x = (torch.full(size, 0.5, dtype=getattr(torch, dtype)) for size in (shape, (shape[1], batch)))
        return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

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
    every = list(libraries())
    each = seconds / (len(every) * (1 + 2 * len(SIZES)) * len(BATCHES))
    for library, dtype, product in every:
        width = {"float64": 8, "float32": 4}.get(dtype, 2)
        fixed = _times(product, (1, 1), each)
        for aligned, shapes in ((False, _SHAPES), (True, _ALIGNED)):
            element = [(np.maximum(0.0, _times(product, one, each) - fixed) / prod(one)).tolist() for one in shapes]
            params, costs = {"dtype": dtype, "width": width, "aligned": aligned}, tuple(map(tuple, element))
            for name in STANDS_FOR[dtype]:
                yield Row(library, params, name, tuple(fixed.tolist()), (0.0,), (0.0,), costs, (0.0,))


def _times(product: Product, shape: tuple[int, int], budget: float) -> npt.NDArray[np.float64]:
    times = [[seconds_of(product(shape, batch), budget / ROUNDS) for batch in BATCHES] for _ in range(ROUNDS)]
    return np.asarray(np.min(times, axis=0))


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in _rows(float(sys.argv[1]))]))
