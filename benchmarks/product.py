"""Straight from the packed bytes: p @ x and x @ p against NumPy's dense float32 product.

4096 x 4096 real weights at 50, 80, 90 and 95 % zeros, in float32 and bfloat16, with a vector and with batches of 8 and
32 in float32. One thread for codec and for NumPy's BLAS. Weights come from DRAM: every contender has copies of 200 MB
together, used in turn; their checksums were compared at a first use that is not counted. NumPy multiplies the same
float32 weights in the same rounds (of bfloat16 it would have to make float32 first); "x NumPy" above 1 is faster.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from datasets import Cold, case_name, cast, cold_dense, cold_packed, values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast

import codec

SIDE = 4096
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
DTYPES = ("F32", "BF16")
BATCHES = (1, 8, 32)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bitmap", {}),
    ("bitmap", {"order": "lanes"}),
    ("csr", {}),
    ("huffman", {}),
    ("dense", {}),
]
DIRECTIONS = ("p @ x", "x @ p")
TOLERANCE = 1e-4  # of the largest result: sums of 4096 float32 products, in any order
Operand = Cold[Any]  # arrays or packed tensors
Cells = dict[tuple[str, int, str], list[tuple[float, float]]]


def contenders_for(dense: np.ndarray) -> dict[str, Operand]:
    """NumPy's operand, and every layout in every dtype."""
    found: dict[str, Operand] = {"NumPy F32": cold_dense(dense)}
    for dtype in DTYPES:
        for layout, params in CASES:
            packed = codec.encode(cast(dense, dtype), layout=layout, objective="memory", **params)
            found[f"{case_name((layout, params))} {dtype}"] = cold_packed(packed)
    return found


def product(direction: str, weights: Operand, x: np.ndarray) -> np.ndarray:
    """One product with the copy whose turn it is."""
    result: np.ndarray = weights.take() @ x if direction == "p @ x" else x @ weights.take()
    return result


def prove(weights: Mapping[str, Operand], dense: np.ndarray) -> None:
    """Use every copy once, and compare every contender's result with that in double precision."""
    x = np.random.default_rng(1).standard_normal(SIDE)
    for direction in DIRECTIONS:
        for name, cold in weights.items():
            operand = dense if name.endswith("F32") else cast(dense, name.split()[-1]).astype(np.float32)
            exact = operand.astype(np.float64) @ x if direction == "p @ x" else x @ operand.astype(np.float64)
            for copy in cold:
                found = copy @ x.astype(np.float32) if direction == "p @ x" else x.astype(np.float32) @ copy
                if not np.allclose(found, exact, rtol=0, atol=TOLERANCE * np.abs(exact).max()):
                    raise SystemExit(f"{direction}, {name}: the result is wrong")


def measure(dense: np.ndarray, cells: Cells) -> None:
    """Add a column: milliseconds and how many times as fast as NumPy, by direction, batch and contender."""
    weights = contenders_for(dense)
    prove(weights, dense)
    for direction in DIRECTIONS:
        for batch in BATCHES:
            shape = (SIDE,) if batch == 1 else (SIDE, batch) if direction == "p @ x" else (batch, SIDE)
            x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
            runs: dict[str, Callable[[], object]] = {n: partial(product, direction, w, x) for n, w in weights.items()}
            times = interleaved(runs, seconds=3)
            for name, t in times.items():
                cell = (1e3 * median(t), times_as_fast(t, times["NumPy F32"]))
                cells.setdefault((direction, batch, name), []).append(cell)


def main() -> None:
    one_thread()
    options = arguments(__doc__ or "").parse_args()
    values = values_of(options.weights, SIDE * SIDE).reshape(SIDE, SIDE)
    cells: Cells = {}
    for sparsity in SPARSITIES:
        note(f"multiplying at {sparsity:.0%}")
        measure(codec.prune.magnitude(values, sparsity), cells)
    columns = ["product", "batch", "weights"]
    columns += [f"{s:.0%} ms" for s in SPARSITIES] + [f"{s:.0%} x NumPy" for s in SPARSITIES]
    rows: list[list[Cell]] = [
        [direction, str(batch), name, *(ms for ms, _ in found), *(ratio for _, ratio in found)]
        for (direction, batch, name), found in cells.items()
    ]
    emit(
        options, [Table(f"Products with {SIDE} x {SIDE} weights by share of zeros, one thread", columns, rows, left=3)]
    )


if __name__ == "__main__":
    main()
