"""What torch adds to a product: SparseLinear beside codec.linear and torch's own dense layer, for small layers.

Microseconds on one thread, the least of many rounds in which all take turns: whatever else runs on the machine only
adds to them. "over bare" is what the layer takes beyond codec.linear; 10 microseconds are promised without gradients.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
from measure import Cell, Table, emit, interleaved, one_thread

import codec
from codec.prune import magnitude
from codec.torch import SparseLinear, from_numpy, to_numpy

SHAPES = ((384, 384), (1536, 384))
BATCHES = (1, 3, 32)
CALLS = 10  # in each round
MOST = 10.0


def repeated(run: Callable[[], object]) -> Callable[[], object]:
    """CALLS calls, so that the clock does not count."""
    return lambda: [run() for _ in range(CALLS)]


def measured(dtype: torch.dtype, shape: tuple[int, int], batch: int) -> list[float]:
    """Microseconds of codec.linear, the packed and the dense layer, the difference, and the layer with gradients on."""
    dense = torch.nn.Linear(shape[1], shape[0]).to(dtype)
    dense.weight.data = from_numpy(magnitude(to_numpy(dense.weight), 0.8))
    layer, x = SparseLinear.from_dense(dense), torch.randn(batch, shape[1]).to(dtype)
    packed, bias, array = layer.packed, to_numpy(dense.bias), to_numpy(x)
    with torch.no_grad():
        found = interleaved(
            {
                "bare": repeated(lambda: codec.linear(array, packed, bias)),
                "layer": repeated(lambda: layer(x)),
                "dense": repeated(lambda: dense(x)),
            },
            seconds=2,
            most=5000,
        )
    graded = interleaved({"layer": repeated(lambda: layer(x))}, seconds=0.5, most=2000)
    bare, own, torchs, slow = (
        1e6 / CALLS * float(times.min()) for times in (found["bare"], found["layer"], found["dense"], graded["layer"])
    )
    return [bare, own, torchs, own - bare, slow]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    one_thread()
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    faults = []
    for dtype, shape, batch in product((torch.float32, torch.bfloat16), SHAPES, BATCHES):
        found = measured(dtype, shape, batch)
        name = f"{shape[0]}x{shape[1]} {str(dtype).removeprefix('torch.')}"
        rows.append([name, batch, *found])
        if found[3] > MOST:
            faults.append(f"{name}, batch {batch}: {found[3]:.1f} us over the bare product, {MOST:.0f} promised")
    columns = ["layer", "batch", "codec.linear", "SparseLinear", "torch dense", "over bare", "with gradients"]
    emit(options, [Table("microseconds of a call, 80 % zeros", columns, rows, left=2)], faults)


if __name__ == "__main__":
    main()
