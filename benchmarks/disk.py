"""The smallest file: "disk" against zstd -19 and compressed npz, on MiniLM.

Every 2-d tensor is pruned by its own magnitudes to 50, 80, 90 and 95 % zeros, in float32 and bfloat16. Compared are all
bytes of three ways to keep the whole network without loss: codec.save_file(objective="disk"); the dense safetensors
file compressed by zstd -19; and scipy.sparse.save_npz, compressed, one file a tensor (bfloat16 by its bits as uint16).
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import scipy.sparse
import zstandard
from datasets import Tensors, cast, load, pruned
from measure import Cell, Table, arguments, emit, note
from safetensors.numpy import save

import codec
from codec.demo import real_weights
from codec.dtypes import element_type

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
DTYPES = ("F32", "BF16")
ZSTD_LEVEL = 19


def codec_bytes(tensors: Tensors) -> int:
    """Our file, read back: it is only worth counting if every bit is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        codec.save_file(tensors, path, objective="disk")
        back = codec.load_file(path)
        for name, a in tensors.items():
            if not np.array_equal(back[name].view(np.uint8), a.view(np.uint8)):
                raise SystemExit(f"{name} came back different")
        return path.stat().st_size


def zstd_bytes(tensors: Tensors) -> int:
    """The safetensors file, compressed whole."""
    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(save(tensors)))


def npz_bytes(tensors: Tensors) -> int:
    """Every tensor as a CSR matrix in an npz of its own, a vector as one row."""
    total = 0
    for a in tensors.values():
        matrix = a.reshape(len(a) if a.ndim > 1 else 1, -1)
        bits = matrix.view(element_type(a.dtype).unsigned) if a.dtype.kind == "V" or a.dtype.itemsize < 4 else matrix
        file = io.BytesIO()
        scipy.sparse.save_npz(file, scipy.sparse.csr_array(bits), compressed=True)
        total += file.getbuffer().nbytes
    return total


def timed(work: Callable[[Tensors], int], tensors: Tensors) -> tuple[int, float]:
    """Bytes, and seconds."""
    start = perf_counter()
    return work(tensors), perf_counter() - start


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    weights = real_weights(note)
    tensors = load(weights.path)
    rows: list[list[Cell]] = []
    faults = []
    for dtype in DTYPES:
        for sparsity in SPARSITIES:
            # Pruned after the cast: in bfloat16 many magnitudes are equal, and exactly the share asked for goes.
            cell = pruned({name: cast(a, dtype) for name, a in tensors.items()}, sparsity)
            dense = sum(a.nbytes for a in cell.values())
            (ours, t0), (npz, t1), (zstd, t2) = (timed(work, cell) for work in (codec_bytes, npz_bytes, zstd_bytes))
            note(f"{weights.title} {dtype} {sparsity:.0%}: {ours:,}, npz {npz:,}, zstd {zstd:,} in {t2:.0f} s")
            rows.append(
                [dtype, f"{sparsity:.0%}", dense, ours, zstd, npz, dense / ours, zstd / ours, npz / ours, t0, t2, t1]
            )
            for name, theirs in ((f"zstd -{ZSTD_LEVEL}", zstd), ("npz", npz)):
                if ours >= theirs:
                    faults.append(f"{dtype} at {sparsity:.0%}: {ours:,} bytes, {name} takes {theirs:,}")
    columns = [
        "dtype",
        "zeros",
        "dense",
        "codec",
        f"zstd -{ZSTD_LEVEL}",
        "npz",
        "dense/codec",
        "zstd/codec",
        "npz/codec",
    ]
    columns += ["codec s", "zstd s", "npz s"]
    title = f"Bytes of {weights.title}, every matrix pruned; seconds to write (codec: and read back)"
    emit(options, [Table(title, columns, rows, left=2)], faults)


if __name__ == "__main__":
    main()
