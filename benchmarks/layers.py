"""What torch adds to a product: SparseLinear beside the bare kernel and torch's own dense layer, for small layers.

Microseconds on one thread, the least of many rounds in which all take turns: whatever else runs on the machine only
adds to them. The kernel is the native call with memory for its result. The operator is torch.ops.codec.linear called by
itself, as compiled programs do, with torch's dispatcher; the layer takes a shorter way. What each takes beyond the
kernel is promised to be below 10 microseconds without gradients.
"""

import argparse
from collections.abc import Callable
from itertools import product

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
    """CALLS calls, so that the clock does not count; each result is dropped before the next is made."""

    def calls() -> None:
        for _ in range(CALLS):
            run()

    return calls


def measured(dtype: torch.dtype, shape: tuple[int, int], batch: int) -> list[float]:
    """Microseconds: kernel, codec.linear, operator, both layers, what two of them are over the kernel, gradients."""
    dense = torch.nn.Linear(shape[1], shape[0]).to(dtype)
    dense.weight.data = from_numpy(magnitude(to_numpy(dense.weight), 0.8))
    layer, x = SparseLinear.from_dense(dense), torch.randn(batch, shape[1]).to(dtype)
    packed, bias, array = layer.packed, to_numpy(dense.bias), to_numpy(x)
    weight, term = layer.weight, layer.bias
    codec.linear(array, packed)  # after which the short way is known
    kernel = packed.spans.products[array.dtype, False]

    def bare() -> torch.Tensor:
        y = torch.empty(batch, shape[0], dtype=dtype)
        kernel.at(x.data_ptr(), batch, y.data_ptr(), layer.bias.data_ptr(), False, 1, 1)
        return y

    with torch.no_grad():
        found = interleaved(
            {
                "kernel": repeated(bare),
                "linear": repeated(lambda: codec.linear(array, packed, bias)),
                "operator": repeated(lambda: linear(x, weight, term, shape[0], False)),
                "layer": repeated(lambda: layer(x)),
                "dense": repeated(lambda: dense(x)),
            },
            seconds=3,
            least=40,
            most=5000,
            warm=True,
        )
    graded = interleaved({"layer": repeated(lambda: layer(x))}, seconds=0.5, most=2000)
    own = {name: 1e6 / CALLS * float(times.min()) for name, times in found.items()}
    over = [own[name] - own["kernel"] for name in ("operator", "layer")]
    return [*own.values(), *over, 1e6 / CALLS * float(graded["layer"].min())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    one_thread()
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    faults = []
    for dtype, shape, batch in product((torch.float32, torch.bfloat16, torch.float16), SHAPES, BATCHES):
        found = measured(dtype, shape, batch)
        name = f"{shape[0]}x{shape[1]} {str(dtype).removeprefix('torch.')}"
        rows.append([name, batch, *found])
        for what, over in zip(("operator", "layer"), found[-3:-1], strict=True):
            if over > MOST:
                faults.append(f"{name}, batch {batch}: {what} {over:.1f} us over the kernel, {MOST:.0f} promised")
    columns = ["layer", "batch", "kernel", "codec.linear", "operator", "SparseLinear", "torch dense", "operator over"]
    columns += ["layer over", "with gradients"]
    emit(options, [Table("microseconds of a call, 80 % zeros", columns, rows, left=2)], faults)


if __name__ == "__main__":
    main()
