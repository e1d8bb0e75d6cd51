"""Two threads of packed layers beside torch's own work, with and without torch's threads (codec/torch/threads.py).

Milliseconds of a stack of feed-forward blocks of MiniLM's size at 80 % zeros, medians over rounds in which all take
turns: dense, and packed, on one thread; and on two, where "pool" has threads of its own beside those of torch, which
spin after each of torch's loops, and "torch's" has its products on them.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from measure import Cell, Table, emit, interleaved

from codec import kernels
from codec.torch import compress_model, threads

TOKENS = (16, 512)
BLOCKS, WIDTH, INNER = 6, 384, 1536


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--seconds", type=float, default=20, metavar="S", help="for each number of tokens")
    options = parser.parse_args()
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
            seconds=options.seconds,
            most=1000,
        )
        times = {name: 200 * float(np.median(seconds)) for name, seconds in found.items()}
        rows.append([tokens, *times.values(), float(np.median(found["dense 2"] / found["torch's"]))])
    columns = ["tokens", "dense 1", "packed 1", "dense 2", "packed 2, pool", "packed 2, torch's", "times as fast"]
    emit(options, [Table("milliseconds; times as fast as dense, both on two threads", columns, rows)])


if __name__ == "__main__":
    main()
