"""Back to dense, checksums included: decode(out=) against memcpy of the dense tensor; and CRC-32C and encoding alone.

4096 x 4096 real weights at 50, 80 and 90 % zeros in float32 and bfloat16, every layout, without entropy coding (layout
huffman has its own); and pruned by structure, to n of every m and to a tenth of the blocks, in the layout made for it
and as bitmap. One thread. Operands come from DRAM: copies are
used in turn, 200 MB of them. memcpy is np.copyto of the dense tensor into the same output, in the same rounds; "x
memcpy" above 1 is faster than copying what is replaced. CRC-32C by size: over one buffer again and again, and through
256 MB. Encoding: MB of dense input a second.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from datasets import CASES, case_name, cast, cold_dense, cold_packed, entropies, values_of
from measure import Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast

import codec
from codec import kernels

SIDE = 4096
SPARSITIES = (0.5, 0.8, 0.9)
STRUCTURES: dict[str, dict[str, Any]] = {
    **{f"{n}:{m}": {"layout": "n_m", "n": n, "m": m} for n, m in ((1, 4), (2, 4), (4, 8))},
    **{f"{r}x{c}": {"layout": "block_offset", "block": (r, c)} for r, c in ((1, 8), (8, 1), (4, 4), (16, 16))},
}
BLOCK_SPARSITY = 0.9
# float32: zeros, layout, times as fast as memcpy at least.
PROMISED = {
    **{(f"{s:.0%}", "bitmap"): 1.0 for s in SPARSITIES},
    ("1:4", "n_m n=1 m=4"): 1.0,
    ("2:4", "n_m n=2 m=4"): 1.0,
    ("4x4", "block_offset block=(4, 4)"): 1.0,
    **{("90%", layout): 0.7 for layout in ("csr", "relative_index", "run_length")},
}
DTYPES = ("F32", "BF16")
ENCODE_SPARSITY = 0.8
CRC_SIZES = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)
CRC_DRAM = 1 << 28


def decoding(
    dense: np.ndarray, dtype: str, zeros: str, cases: list[tuple[str, dict[str, Any]]]
) -> list[list[str | float]]:
    """Some layouts of one tensor, and memcpy."""
    out, cold = np.zeros_like(dense), cold_dense(dense)
    contenders: dict[str, Callable[[], object]] = {"memcpy": lambda: np.copyto(out, cold.take())}
    sizes = {"memcpy": dense.nbytes}
    for layout, params in cases:
        name = case_name((layout, params))
        packed = codec.encode(dense, layout=layout, objective="memory", **params)
        copies, sizes[name] = cold_packed(packed), packed.nbytes
        contenders[name] = lambda copies=copies: codec.decode(copies.take(), out=out)  # type: ignore[misc]
    times = interleaved(contenders, seconds=4)
    return [
        [
            dtype,
            zeros,
            name,
            sizes[name] / 1e6,
            1e3 * median(t),
            dense.nbytes / median(t) / 1e9,
            times_as_fast(t, times["memcpy"]),
        ]
        for name, t in times.items()
    ]


def checksums() -> list[list[int | float | None]]:
    """CRC-32C in GB/s by the size of one call."""
    memory = np.random.default_rng(0).integers(0, 1 << 63, CRC_DRAM // 8, np.int64).view(np.uint8)
    rows: list[list[int | float | None]] = []
    for size in CRC_SIZES:
        calls = max(1, (1 << 24) // size)
        starts = range(0, CRC_DRAM, size)
        warm = partial(_crc, [memory[:size]] * calls)
        through = partial(_crc, [memory[start : start + size] for start in starts])
        times = interleaved({"cache": warm, "DRAM": through}, seconds=1)
        rows.append([size, calls * size / median(times["cache"]) / 1e9, CRC_DRAM / median(times["DRAM"]) / 1e9])
    return rows


def _crc(buffers: list[np.ndarray]) -> None:
    for buffer in buffers:
        kernels.crc32c(buffer)


def encoding(dense: np.ndarray, dtype: str) -> list[list[str | float]]:
    """Every layout of one tensor under every entropy stage, and what "disk" does."""
    cold = cold_dense(dense)
    contenders: dict[str, Callable[[], object]] = {}
    for layout, params in CASES:
        for entropy in entropies(layout, ("none", "huffman", "zstd")):
            run = partial(codec.encode, layout=layout, entropy=entropy, **params)
            contenders[f"{case_name((layout, params))}, {entropy}"] = lambda run=run: run(cold.take())  # type: ignore[misc]
    contenders['auto, objective="disk"'] = lambda: codec.encode(cold.take(), objective="disk")
    contenders['auto, objective="memory"'] = lambda: codec.encode(cold.take(), objective="memory")
    times = interleaved(contenders, seconds=2, least=3)
    return [[dtype, name, dense.nbytes / median(t) / 1e6, dense.size / median(t) / 1e6] for name, t in times.items()]


def main() -> None:
    one_thread()
    options = arguments(__doc__ or "").parse_args()
    values = values_of(options.weights, SIDE * SIDE).reshape(SIDE, SIDE)
    decoded, encoded = [], []
    for dtype in DTYPES:
        for sparsity in SPARSITIES:
            note(f"decoding {dtype} at {sparsity:.0%}")
            decoded += decoding(cast(codec.prune.magnitude(values, sparsity), dtype), dtype, f"{sparsity:.0%}", CASES)
        for structure, params in STRUCTURES.items():
            note(f"decoding {dtype} pruned to {structure}")
            mask = codec.prune.mask(values, None if ":" in structure else BLOCK_SPARSITY, structure=structure)
            case = (params["layout"], {k: v for k, v in params.items() if k != "layout"})
            pruned = cast(codec.prune.apply_mask(values, mask), dtype)
            decoded += decoding(pruned, dtype, structure, [case, ("bitmap", {})])
    note("checksums")
    crc = checksums()
    for dtype in DTYPES:
        note(f"encoding {dtype}")
        encoded += encoding(cast(codec.prune.magnitude(values, ENCODE_SPARSITY), dtype), dtype)
    tables = [
        Table(
            f"decode(out=) of {SIDE} x {SIDE}, one thread, checksums included",
            ["dtype", "zeros", "layout", "MB read", "ms", "GB/s of dense", "x memcpy"],
            decoded,
            left=3,
        ),
        Table("CRC-32C, GB/s by bytes a call", ["bytes", "from cache", "from DRAM"], crc),
        Table(
            f"encode of {SIDE} x {SIDE} at {ENCODE_SPARSITY:.0%} zeros, one thread",
            ["dtype", "layout, entropy", "MB/s of dense", "million weights/s"],
            encoded,
            left=2,
        ),
    ]
    slow = []
    for dtype, zeros, layout, *_, fast in decoded:
        least = PROMISED.get((str(zeros), str(layout)), 0.0) if dtype == "F32" else 0.0
        if float(fast) < least:
            slow.append(f"decode of {dtype} {layout} at {zeros}: {fast:.2f} times as fast as memcpy, {least} promised")
    emit(options, tables, slow)


if __name__ == "__main__":
    main()
