"""What torch adds to a product: SparseLinear beside the bare kernel and torch's own dense layer, for small layers.

Microseconds on one thread, the least of many rounds in which all take turns: whatever else runs on the machine only
adds to them. The kernel is the native call with memory for its result, and what rounds bfloat16; "over kernel" is what
the layer takes beyond it, of which 10 microseconds are promised without gradients.
"""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from measure import Cell, Table, emit, interleaved, one_thread

import codec
from codec.prune import magnitude
from codec.torch import SparseLinear, from_numpy, to_numpy
from codec.torch.operators import linear

SHAPES = ((384, 384), (1536, 384))
BATCHES = (1, 3, 32)
CALLS = 10  # in each round
MOST = 10.0


def repeated(run: Callable[[], object]) -> Callable[[], object]:
    """CALLS calls, so that the clock does not count."""
    return lambda: [run() for _ in range(CALLS)]


def measured(dtype: torch.dtype, shape: tuple[int, int], batch: int) -> list[float]:
    """Microseconds of the kernel, codec.linear, the operator, the layers, over the kernel, and with gradients."""
    dense = torch.nn.Linear(shape[1], shape[0]).to(dtype)
    dense.weight.data = from_numpy(magnitude(to_numpy(dense.weight), 0.8))
    layer, x = SparseLinear.from_dense(dense), torch.randn(batch, shape[1]).to(dtype)
    packed, bias, array = layer.packed, to_numpy(dense.bias), to_numpy(x)
    wide = array.astype(np.float32)
    codec.linear(wide, packed)  # after which the short way is known
    kernel = packed.spans.products[wide.dtype, False]

    def bare() -> torch.Tensor:
        own, term, y = x.float(), layer.bias.float(), torch.empty(batch, shape[0])
        kernel.at(own.data_ptr(), batch, y.data_ptr(), term.data_ptr(), 1, 1)
        return y.to(dtype)

    with torch.no_grad():
        found = interleaved(
            {
                "kernel": repeated(bare),
                "linear": repeated(lambda: codec.linear(array, packed, bias)),
                "operator": repeated(lambda: linear(x, layer.weight, layer.bias, shape[0], False)),
                "layer": repeated(lambda: layer(x)),
                "dense": repeated(lambda: dense(x)),
            },
            seconds=2,
            most=5000,
        )
    graded = interleaved({"layer": repeated(lambda: layer(x))}, seconds=0.5, most=2000)
    own = {name: 1e6 / CALLS * float(times.min()) for name, times in found.items()}
    return [*own.values(), own["layer"] - own["kernel"], 1e6 / CALLS * float(graded["layer"].min())]


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
        if found[-2] > MOST:
            faults.append(f"{name}, batch {batch}: {found[-2]:.1f} us over the kernel, {MOST:.0f} promised")
    columns = ["layer", "batch", "kernel", "codec.linear", "operator", "SparseLinear", "torch dense", "over kernel"]
    columns += ["with gradients"]
    emit(options, [Table("microseconds of a call, 80 % zeros", columns, rows, left=2)], faults)


if __name__ == "__main__":
    main()
