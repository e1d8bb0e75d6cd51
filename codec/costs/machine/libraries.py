"""The dense libraries' products, measured in a process of their own with one thread: numpy, and torch if it is there.

python -m codec.costs.machine.libraries SECONDS BATCH...    prints rows as JSON
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from codec.costs.machine.model import Row
from codec.costs.machine.timing import seconds_of, split
from codec.errors import CodecError

_TALL, _SQUARE = (2048, 256), (512, 1024)
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
# The dtypes of weights whose products each library's own dtype stands for: weights of 16 bits can also be kept as
# float32, where that is faster.
_STANDS_FOR = {"float64": ("F64",), "float32": ("F32", "BF16", "F16", "I8"), "bfloat16": ("BF16",), "float16": ("F16",)}
Product = Callable[[tuple[int, int], int], Callable[[], object]]


def measured(seconds: float, batches: Sequence[int]) -> tuple[Row, ...]:
    """The rows of all libraries; ``python -m`` this module in a child, so that its threads can be set."""
    command = [sys.executable, "-P", "-m", "codec.costs.machine.libraries", str(seconds), *map(str, batches)]
    done = subprocess.run(command, env={**os.environ, **_ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodecError(f"the dense libraries could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return tuple(
        Row(**{**row, "row": tuple(row["row"]), "element": tuple(map(tuple, row["element"]))})
        for row in json.loads(done.stdout)
    )


def _numpy(dtype: str) -> Product:
    def of(shape: tuple[int, int], batch: int) -> Callable[[], object]:
        random = np.random.default_rng(0)
        w, x = (random.standard_normal(size).astype(dtype) for size in (shape, (shape[1], batch)))
        return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

    return of


def _torch(torch: Any, dtype: str) -> Product:
    def of(shape: tuple[int, int], batch: int) -> Callable[[], object]:
        w, x = (torch.rand(size, dtype=torch.float32).to(getattr(torch, dtype)) for size in (shape, (shape[1], batch)))
        return (lambda: w @ x[:, 0]) if batch == 1 else (lambda: w @ x)

    return of


def _libraries() -> Iterator[tuple[str, str, Product]]:
    yield "numpy", "float32", _numpy("float32")
    yield "numpy", "float64", _numpy("float64")
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)
        for dtype in ("float32", "bfloat16", "float16"):
            yield "torch", dtype, _torch(torch, dtype)


def _rows(seconds: float, batches: Sequence[int]) -> Iterator[Row]:
    libraries = list(_libraries())
    each = seconds / (len(libraries) * (2 * len(batches) + 1))
    for library, dtype, product in libraries:
        width = {"float64": 8, "float32": 4}.get(dtype, 2)
        fixed = seconds_of(product((1, 1), 1), each)
        tall, square = ([seconds_of(product(shape, b), each) - fixed for b in batches] for shape in (_TALL, _SQUARE))
        row, rest = split(tall, square, _TALL[0], _SQUARE[0])
        element = (tuple(one / (_SQUARE[0] * _SQUARE[1]) for one in rest),)
        for name in _STANDS_FOR[dtype]:
            yield Row(library, {"dtype": dtype, "width": width}, name, fixed, row, element)


if __name__ == "__main__":
    seconds, *batches = sys.argv[1:]
    print(json.dumps([asdict(row) for row in _rows(float(seconds), [int(b) for b in batches])]))
