"""Structured zeros: products of n_m and block_offset beside dense libraries, blocks of others, and zeros anywhere.

4096 x 4096 real weights, one thread, in float32 and bfloat16, at batch 1, 8 and 32: n of every m weights of a row, and
blocks at 80 and 90 % zeros, pruned by magnitude. Weights come from memory: every contender has copies that do not fit
in the caches, used in turn. Contenders take turns, medians. "x dense" compares with the fastest dense library of the
same precision, "x BSR" with the fastest library of blocks of 4 x 4, "x anywhere" with our own weights for speed that
have as many zeros anywhere; all in the same run.
"""

from functools import partial
from typing import Any

import multipliers
import numpy as np
from datasets import cast, values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast
from speedup import BATCHES, DTYPES, Contender, check, of_codec, of_peer

import codec
from codec import prune

# What is pruned, the share of zeros, and the layout that keeps it.
CASES: list[tuple[str, float, dict[str, Any]]] = [
    ("2:4", 0.5, {"layout": "n_m", "n": 2, "m": 4}),
    ("4:8", 0.5, {"layout": "n_m", "n": 4, "m": 8}),
    ("1:4", 0.75, {"layout": "n_m", "n": 1, "m": 4}),
    *(
        (f"{r}x{c}", sparsity, {"layout": "block_offset", "block": (r, c)})
        for r, c in ((1, 4), (4, 1), (4, 4), (8, 4), (16, 1), (16, 4), (32, 32))
        for sparsity in (0.8, 0.9)
    ),
]


def pruned(values: np.ndarray, structure: str, sparsity: float) -> np.ndarray:
    """The weights with the zeros of a structure."""
    if ":" in structure:
        return prune.apply_mask(values, prune.mask(values, structure=structure))
    return prune.apply_mask(values, prune.mask(values, sparsity, structure=structure, criterion="l2"))


def measure(
    dense: np.ndarray, anywhere: np.ndarray, dtype: str, batch: int, layout: dict[str, Any], seconds: float
) -> dict[str, np.ndarray]:
    """Seconds of every contender in every round."""
    shape = (dense.shape[1],) if batch == 1 else (dense.shape[1], batch)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    own = cast(dense, dtype)
    plain = own.astype(np.float32)
    runs: dict[str, Contender] = {
        "codec": of_codec(codec.encode(own, objective="memory", **layout), x),
        "anywhere": of_codec(codec.encode(cast(anywhere, dtype), objective="speed", batch=batch), x),
    }
    check("codec", runs["codec"](), plain.astype(np.float64) @ x, "F32")
    for peer in multipliers.present():
        if (not peer.sparse and peer.precision in ("F32", dtype)) or (peer.sparse and "BSR" in peer.name):
            runs[peer.name] = of_peer(peer, plain, x)
    for run in runs.values():
        for _ in run.made:
            run()
    return interleaved({name: partial(run) for name, run in runs.items()}, seconds=seconds)


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--side", type=int, default=4096, metavar="N", help="rows and columns")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each point")
    parser.add_argument("--only", nargs="*", metavar="STRUCTURE", help="these structures, such as 2:4 and 4x4")
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES[:3], metavar="B", help="columns of x")
    options = parser.parse_args()
    values = values_of(options.weights, options.side**2).reshape(options.side, options.side)
    rows: list[list[Cell]] = []
    for structure, sparsity, layout in CASES:
        if options.only and structure not in options.only:
            continue
        dense, anywhere = pruned(values, structure, sparsity), prune.magnitude(values, sparsity)
        for dtype in DTYPES:
            for batch in options.batches:
                note(f"{structure}, {sparsity:.0%} zeros, {dtype}, batch {batch}")
                times = measure(dense, anywhere, dtype, batch, layout, options.seconds)
                faster: list[Cell] = []
                for sparse in (False, True):
                    peers = [p.name for p in multipliers.present() if p.sparse == sparse and p.name in times]
                    best = min(peers, key=lambda name: median(times[name])) if peers else None
                    faster.append(times_as_fast(times["codec"], times[best]) if best else None)
                faster.append(times_as_fast(times["codec"], times["anywhere"]))
                row: list[Cell] = [structure, f"{sparsity:.0%}", dtype, str(batch), *faster]
                rows.append(row + [1e3 * median(times[name]) for name in ("codec", "anywhere")])
    columns = ["zeros", "share", "weights", "batch", "x dense", "x BSR", "x anywhere", "codec ms", "anywhere ms"]
    emit(options, [Table(f"{options.side} x {options.side}, one thread, weights from memory", columns, rows, left=4)])


if __name__ == "__main__":
    main()
