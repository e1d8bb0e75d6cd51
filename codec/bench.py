"""How fast the matrices of a model file multiply on this machine, packed and dense, in one run.

Each matrix is measured by itself: NumPy, torch where it is installed, and codec multiply in turn, and each has as many
copies of the weights as do not fit in the caches together, so that weights come from memory as in a model. Times are
medians of whole calls from Python. BLAS asks for its number of threads only when it starts, so all of this runs in a
process of its own.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import CodecError
from codec.model import safe_open
from codec.packed import PackedTensor
from codec.tensor import dumps, loads

# Copies of a matrix take at least so many bytes together, which is more than caches hold, but they are so many at most.
COLD_BYTES, MOST_COPIES = 96 << 20, 48
LEAST_ROUNDS, MOST_ROUNDS = 5, 500
# A product is bound by memory where its bytes come at this share of the machine's reading speed, and by the call itself
# where it takes no longer than this many seconds.
NEAR, CALL_SECONDS = 0.6, 8e-6
_READ_BYTES = 256 << 20

Product = Callable[[int], Any]


def measurable(dtype: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix that is multiplied with float32 vectors."""
    element = BY_NAME.get(dtype)
    return len(shape) == 2 and 0 not in shape and element is not None and (element.is_float or element.width == 1)


def bench(
    path: str, names: Sequence[str], batches: Sequence[int], threads: int, seconds: float, as_stored: bool
) -> Iterator[dict[str, Any]]:
    """Facts about one matrix after the other, from a process of its own.

    Parameters
    ----------
    path : str
        A model file, packed or plain.
    names : sequence of str
        Matrices in it, see `measurable`.
    batches : sequence of int
        Columns that are multiplied at a time.
    threads : int
        Of codec and of the dense libraries.
    seconds : float
        For each matrix and batch, about.
    as_stored : bool
        Multiply from the layouts in the file, and not from those for "speed".

    Raises
    ------
    CodecError
        If the process that measures fails.
    """
    variables = ("CODEC_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(threads))}
    asked = json.dumps([path, list(names), list(batches), seconds, as_stored])
    command = [sys.executable, "-P", "-m", "codec.bench"]
    with (  # what it complains of goes to a file: a pipe that nobody reads meanwhile would stop it
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(asked)
        child.stdin.close()
        for line in child.stdout:
            yield json.loads(line)
        failed = child.wait()
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or [""])[-1]
        if failed:
            raise CodecError(f"the process that measures products failed: {last or failed}")


def read_speed() -> float:
    """Bytes a second that one thread reads from memory."""
    data = np.ones(_READ_BYTES // 8)
    times = []
    for _ in range(5):
        start = perf_counter()
        data.max()
        times.append(perf_counter() - start)
    return _READ_BYTES / min(times)


def measure(packed: PackedTensor, batch: int, seconds: float) -> dict[str, Any]:
    """Median seconds of each contender, and what bounds codec's product."""
    wide = np.float64 if packed.dtype == np.float64 else np.float32
    dense = packed.to_dense()
    # NumPy multiplies half precision without BLAS, hundreds of times slower: it gets single precision.
    plain = dense.astype(wide)
    x = np.random.default_rng(0).standard_normal((packed.shape[1], batch)).astype(wide)
    if batch == 1:
        x = x[:, 0]
    contenders: dict[str, Product] = {"codec": _codec(packed, x), "numpy": _numpy(plain, x)}
    if importlib.util.find_spec("torch"):
        contenders |= _torch(packed, plain, x)
    for product in contenders.values():
        for turn in range(2):
            product(turn)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    start, turn = perf_counter(), 0
    while turn < LEAST_ROUNDS or (turn < MOST_ROUNDS and perf_counter() - start < seconds):
        for name, product in contenders.items():
            begin = perf_counter()
            product(turn)
            found[name].append(perf_counter() - begin)
        turn += 1
    return {"batch": batch, "seconds": {name: statistics.median(times) for name, times in found.items()}}


def bound(seconds: float, nbytes: int, fastest_read: float) -> str:
    """What keeps a product from being faster: "memory", "calls" or "arithmetic"."""
    if nbytes / seconds >= NEAR * fastest_read:
        return "memory"
    return "calls" if seconds <= CALL_SECONDS else "arithmetic"


def _copies(nbytes: int) -> int:
    return max(1, min(MOST_COPIES, -(-COLD_BYTES // max(1, nbytes))))


def _codec(packed: PackedTensor, x: np.ndarray) -> Product:
    frame = dumps(packed)
    copies = [loads(frame, copy=True) for _ in range(_copies(len(frame)))]
    for one in copies:  # the first use of each compares its checksums
        one @ x
    return lambda turn: copies[turn % len(copies)] @ x


def _numpy(plain: np.ndarray, x: np.ndarray) -> Product:
    copies = [plain, *(plain.copy() for _ in range(_copies(plain.nbytes) - 1))]
    return lambda turn: copies[turn % len(copies)] @ x


def _torch(packed: PackedTensor, plain: np.ndarray, x: np.ndarray) -> dict[str, Product]:
    """torch in the type of the sums, and in the weights' own where it is half precision."""
    import torch

    def product(dense: Any, right: Any) -> Product:
        copies = [dense, *(dense.clone() for _ in range(_copies(dense.nbytes) - 1))]
        return lambda turn: copies[turn % len(copies)] @ right

    wide, vector = torch.from_numpy(plain), torch.from_numpy(x)
    found = {"torch": product(wide, vector)}
    if packed.dtype.name in ("bfloat16", "float16"):
        own = getattr(torch, packed.dtype.name)
        found[f"torch {packed.dtype.name}"] = product(wide.to(own), vector.to(own))
    return found


def _main() -> None:
    path, names, batches, seconds, as_stored = json.load(sys.stdin)
    fastest_read = read_speed()
    with safe_open(path) as model:
        for name in names:
            stored = model.get_packed(name)
            rows = []
            for batch in batches:
                packed = stored if as_stored else stored.to_layout("auto", objective="speed", batch=batch)
                found = measure(packed, batch, seconds)
                moved = packed.nbytes + 4 * batch * sum(packed.shape)
                found |= {
                    "layout": packed.layout,
                    "bytes": packed.nbytes,
                    "bytes_per_second": moved / found["seconds"]["codec"],
                    "bound_by": bound(found["seconds"]["codec"], moved, fastest_read),
                }
                rows.append(found)
            facts = {"name": name, "dtype": model.info(name).dtype, "shape": list(stored.shape)}
            facts |= {"sparsity": stored.sparsity, "dense_bytes": stored.dense_nbytes, "products": rows}
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    _main()
