"""Shared weights: products straight from codes of 4 and 8 bits, beside raw weights and dense libraries.

4096 x 4096 real float32 weights pruned by magnitude, one thread, at batch 1 and 8. The values are shared by k-means;
the layouts are those for speed. Weights come from memory: every contender has copies that do not fit in the caches,
used in turn. Contenders take turns, medians. "x raw" compares with our own raw weights, "x int8" with the fastest
library that multiplies dense 8-bit weights with float32, both in the same run.
"""

from functools import partial

import multipliers
import numpy as np
from datasets import values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast
from speedup import Contender, of_codec, of_peer

import codec

SPARSITIES = (0.5, 0.8, 0.9)
BATCHES = (1, 8)
BITS = (4, 8)


def contenders(dense: np.ndarray, x: np.ndarray, batch: int) -> dict[str, Contender]:
    """Raw, each width of codes, and the libraries; every copy is used once."""
    runs = {"raw": of_codec(codec.encode(dense, objective="speed", batch=batch), x)}
    for bits in BITS:
        packed = codec.encode(dense, objective="speed", batch=batch, values="codebook", value_bits=bits)
        exact = packed.to_dense().astype(np.float64) @ x
        runs[f"{bits} bits"] = of_codec(packed, x)
        for _ in runs[f"{bits} bits"].made:
            found = runs[f"{bits} bits"]()
            if not np.allclose(found, exact, rtol=0, atol=1e-4 * np.abs(exact).max()):
                raise SystemExit(f"{bits} bits: the result is wrong")
    chosen = [peer for peer in multipliers.present() if peer.precision in ("F32", "I8") and not peer.sparse]
    return runs | {peer.name: of_peer(peer, dense, x) for peer in chosen}


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--side", type=int, default=4096, metavar="N", help="rows and columns")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each point")
    options = parser.parse_args()
    values = values_of(options.weights, options.side**2).reshape(options.side, options.side)
    peers = [peer for peer in multipliers.present() if peer.precision in ("F32", "I8") and not peer.sparse]
    rows: list[list[Cell]] = []
    for batch in BATCHES:
        x = np.random.default_rng(1).standard_normal((options.side, *([batch] if batch > 1 else []))).astype(np.float32)
        for sparsity in SPARSITIES:
            note(f"batch {batch}, {sparsity:.0%} zeros")
            runs = contenders(codec.prune.magnitude(values, sparsity), x, batch)
            times = interleaved({name: partial(run) for name, run in runs.items()}, seconds=options.seconds)
            row: list[Cell] = [str(batch), f"{sparsity:.0%}"]
            row += [times_as_fast(times[f"{bits} bits"], times["raw"]) for bits in BITS]
            narrow = [times[peer.name] for peer in peers if peer.precision == "I8"]
            row.append(times_as_fast(times["4 bits"], min(narrow, key=median)) if narrow else None)
            rows.append(row + [1e3 * median(times[name]) for name in runs])
    columns = ["batch", "zeros", *(f"{bits} bits x raw" for bits in BITS), "4 bits x int8", "raw ms"]
    columns += [*(f"{bits} bits ms" for bits in BITS), *(f"{peer.name} ms" for peer in peers)]
    title = f"{options.side} x {options.side}, one thread, weights from memory"
    emit(options, [Table(title, columns, rows, left=2)])


if __name__ == "__main__":
    main()
