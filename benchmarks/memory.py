"""Products need next to no memory of their own: at most 16 MB beyond the packed weights, x and the result.

A 4096 x 11008 bfloat16 layer of real weights at 80 % zeros, every layout with every parameter that changes its bytes,
under every entropy stage, both directions, batch 1, 32 and 512, x in float32 and bfloat16. Every figure is from a
process of its own (Linux): the most memory it ever held, as the system counts it (native memory and threads included),
less what it held when weights and x were in place, less the result. Nothing is warmed up.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from datasets import CASES, case_name, cast, entropies, values_of
from measure import Cell, Table, arguments, emit, note, release_memory

import codec
from codec.dtypes import BY_NAME

ROWS, COLS = 4096, 11008
SPARSITY = 0.8
BATCHES = (1, 32, 512)
DIRECTIONS = ("p @ x", "x @ p")
X_DTYPES = ("F32", "BF16")
MOST = 16_000_000


def held(field: str) -> int:
    """Bytes of this process that are in memory now ("VmRSS") or were at most ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"this system does not say {field}")


def beyond(path: str, direction: str, batch: int, dtype: str) -> int:
    """Bytes that one product took beyond weights, x and result; to be called in a process of its own."""
    p = codec.loads(np.fromfile(path, np.uint8))
    inner = p.shape[1] if direction == "p @ x" else p.shape[0]
    x = np.random.default_rng(0).standard_normal(inner * batch, np.float32).astype(BY_NAME[dtype].dtype)
    x = x if batch == 1 else x.reshape(inner, batch) if direction == "p @ x" else x.reshape(batch, inner)
    release_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = held("VmRSS")
    result = p @ x if direction == "p @ x" else x @ p
    return held("VmHWM") - before - result.nbytes


def in_child(path: Path, direction: str, batch: int, dtype: str) -> int:
    """`beyond` in a new process."""
    command = [sys.executable, __file__, "--child", json.dumps([str(path), direction, batch, dtype])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the process that measures failed: {done.stderr.strip()}")
    return int(done.stdout)


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    layer = cast(codec.prune.magnitude(values_of(options.weights, ROWS * COLS).reshape(ROWS, COLS), SPARSITY), "BF16")
    rows: list[list[Cell]] = []
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for layout, params in CASES:
            for entropy in entropies(layout, ("none", "huffman", "zstd")):
                name = case_name((layout, params))
                note(f"{name}, {entropy}")
                path = Path(folder) / "frame"
                path.write_bytes(codec.dumps(codec.encode(layer, layout=layout, entropy=entropy, **params)))
                for dtype in X_DTYPES:
                    taken = [in_child(path, d, batch, dtype) for d in DIRECTIONS for batch in BATCHES]
                    rows.append([name, entropy, dtype, path.stat().st_size / 1e6, *(n / 1e6 for n in taken)])
                    if max(taken) > MOST:
                        faults.append(
                            f"{name}, {entropy}, x in {dtype}: {max(taken) / 1e6:.1f} MB, {MOST / 1e6:.0f} promised"
                        )
    columns = ["layout", "entropy", "x", "MB packed", *(f"{d}, {batch}" for d in DIRECTIONS for batch in BATCHES)]
    title = f"MB beyond weights, x and result, {ROWS} x {COLS} bfloat16 at {SPARSITY:.0%} zeros, by direction and batch"
    emit(options, [Table(title, columns, rows, left=3)], faults)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(beyond(*json.loads(sys.argv[2])))
    else:
        main()
