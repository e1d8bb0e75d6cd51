"""Two threads beside one: of single products, and of packed layers beside torch's own work.

Single products in float32, in the layout for speed: weights from memory (copies that do not fit in the caches, in
turn) and in the caches, beside the speed at which the machine reads with as many threads.

Then milliseconds of a stack of feed-forward blocks of MiniLM's size at 80 % zeros, medians over rounds in which all
take turns: dense, and packed, on one thread; and on two, where "pool" has threads of its own beside those of torch,
which spin after each of torch's loops, and "torch's" has its products on them (codec/torch/threads.py).
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from datasets import cold_packed
from measure import Cell, Table, emit, interleaved, median, times_as_fast

import codec
from codec import kernels
from codec.torch import compress_model, threads

# Rows and columns, and whether the weights come from memory.
MATRICES = (((4096, 4096), True), ((1024, 1024), False), ((512, 768), False))
SPARSITIES = (0.5, 0.8, 0.9)
BATCHES = (1, 8, 32)
READ_BYTES = 256 << 20

TOKENS = (16, 512)
BLOCKS, WIDTH, INNER = 6, 384, 1536


def read_speeds() -> tuple[float, float]:
    """GB/s that one and two threads read from memory."""
    halves = np.array_split(np.ones(READ_BYTES // 8), 2)
    with ThreadPoolExecutor(2) as pool:
        times = interleaved(
            {"1": lambda: [half.max() for half in halves], "2": lambda: list(pool.map(np.max, halves))}, seconds=1
        )
    return READ_BYTES / 1e9 / float(times["1"].min()), READ_BYTES / 1e9 / float(times["2"].min())


def multiply_next(held: Iterator[codec.PackedTensor], x: np.ndarray, threads: int) -> np.ndarray:
    """The next of the weights times x."""
    return codec.matmul(next(held), x, threads=threads)


def products(seconds: float) -> Table:
    """Single products on one and on two threads of our own pool."""
    kernels.lend_threads(0)
    rng = np.random.default_rng(0)
    rows: list[list[Cell]] = []
    for shape, from_memory in MATRICES:
        for sparsity in SPARSITIES:
            dense = codec.prune.magnitude(rng.standard_normal(shape, np.float32), sparsity)
            for batch in BATCHES:
                x = rng.standard_normal((shape[1], batch), np.float32)
                packed = codec.encode(dense, objective="speed", batch=batch)
                copies = list(cold_packed(packed)) if from_memory else [packed]
                for one in copies:  # the first product with each proves its checksums
                    codec.matmul(one, x, threads=1)
                held = itertools.cycle(copies)
                runs = {str(n): partial(multiply_next, held, x, n) for n in (1, 2)}
                times = interleaved(runs, seconds=seconds, most=1000)
                row: list[Cell] = [f"{shape[0]} x {shape[1]}", "memory" if from_memory else "cache", f"{sparsity:.0%}"]
                row += [str(batch), packed.nbytes // 1024, *(1e6 * median(times[n]) for n in "12")]
                row.append(times_as_fast(times["2"], times["1"]))
                rows.append(row + [packed.nbytes / 1e9 / median(times[n]) for n in "12"])
    columns = ["matrix", "from", "zeros", "batch", "packed KB", "1 us", "2 us", "times as fast", "1 GB/s", "2 GB/s"]
    one, two = read_speeds()
    return Table(f"products; the machine reads {one:.0f} GB/s on one thread, {two:.0f} on two", columns, rows, left=4)


def blocks() -> torch.nn.Module:
    """Pruned feed-forward blocks."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(BLOCKS):
        layers += [torch.nn.Linear(WIDTH, INNER), torch.nn.GELU(), torch.nn.Linear(INNER, WIDTH)]
        layers.append(torch.nn.LayerNorm(WIDTH))
    model = torch.nn.Sequential(*layers)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= torch.rand(parameter.shape) < 0.2
    return model


def layers(seconds: float) -> Table:
    """A stack of layers, dense and packed, on one thread and on two."""
    if threads._region is None:
        raise SystemExit("torch does not compute with OpenMP here, so there are no threads to lend")
    dense, packed = blocks(), compress_model(blocks())

    def contender(model: torch.nn.Module, team: int, region: int, x: torch.Tensor) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(team)
            kernels.lend_threads(region)
            with torch.inference_mode():
                for _ in range(5):
                    model(x)

        return run

    rows: list[list[Cell]] = []
    for tokens in TOKENS:
        x, lent = torch.randn(tokens, WIDTH), threads._region
        found = interleaved(
            {
                "dense 1": contender(dense, 1, lent, x),
                "packed 1": contender(packed, 1, lent, x),
                "dense 2": contender(dense, 2, lent, x),
                "pool": contender(packed, 2, 0, x),
                "torch's": contender(packed, 2, lent, x),
            },
            seconds=seconds,
            most=1000,
        )
        times = {name: 200 * float(np.median(seconds)) for name, seconds in found.items()}
        rows.append([tokens, *times.values(), float(np.median(found["dense 2"] / found["torch's"]))])
    columns = ["tokens", "dense 1", "packed 1", "dense 2", "packed 2, pool", "packed 2, torch's", "times as fast"]
    return Table("milliseconds; times as fast as dense, both on two threads", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--seconds", type=float, default=20, metavar="S", help="for each number of tokens; a twentieth for each product"
    )
    options = parser.parse_args()
    emit(options, [products(options.seconds / 20), layers(options.seconds)])


if __name__ == "__main__":
    main()
