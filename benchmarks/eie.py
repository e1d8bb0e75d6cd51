"""The nine layers of EIE, one vector at a time: dense and sparse libraries, and codec in four ways.

Sizes, and the shares of weights and of activations that are not zero, are those of EIE (Han et al., ISCA 2016, table
III). Real float32 weights in an order that has no structure, pruned by magnitude; one thread, weights from memory:
every contender has copies that do not fit in the caches, used in turn. Contenders take turns, medians. "codec" is what
objective="speed" takes; "sparse x" multiplies the same x with the transpose, packed in layout csr, whose rows that meet
a zero are not read; "x at 10 %" is the same for an x of which only a tenth is not zero; "4 bits" shares the values by
k-means. "x dense" and "x CSR" say how many times as fast "codec" is as the fastest library of that kind, the columns
behind them how many times as fast as "codec" our other ways are.
"""

import csv
from functools import partial
from pathlib import Path
from typing import NamedTuple

import multipliers
import numpy as np
from datasets import cold_packed, values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast
from speedup import Contender, check, of_codec, of_peer

import codec

PUBLISHED = Path(__file__).parents[1] / "tests" / "data" / "eie_layers.csv"
OURS = ("codec", "sparse x", "x at 10 %", "4 bits")
FEW = 0.1


class Layer(NamedTuple):
    """A layer of the paper; shares of what is not zero."""

    name: str
    cols: int
    rows: int
    weights: float
    activations: float

    def x(self, share: float) -> np.ndarray:
        """Activations as they stand behind a ReLU, so many of them not zero."""
        rng = np.random.default_rng(1)
        x = rng.random(self.cols, np.float32) + np.float32(0.1)
        x[rng.permutation(self.cols)[round(share * self.cols) :]] = 0
        return x


def published() -> list[Layer]:
    """The nine layers."""
    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    return [
        Layer(row["layer"], int(row["inputs"]), int(row["outputs"]), float(row["weight_pct"]) / 100,
              float(row["act_pct"]) / 100)
        for row in csv.DictReader(lines)
    ]  # fmt: skip


def contenders(layer: Layer, dense: np.ndarray) -> dict[str, Contender]:
    """Everybody, with every copy used twice: the first product of ours proves what the second relies on."""
    x, few = layer.x(layer.activations), layer.x(min(FEW, layer.activations))
    exact = np.concatenate([part.astype(np.float64) @ x for part in np.array_split(dense, 16)])
    turned = codec.encode(np.ascontiguousarray(dense.T), layout="csr", objective="speed")
    shared = codec.encode(dense, objective="speed", batch=1, values="codebook", value_bits=4)
    runs = {
        "codec": of_codec(codec.encode(dense, objective="speed", batch=1), x),
        "sparse x": Contender("sparse x", list(cold_packed(turned)), lambda one, operand: one.T @ operand, x),
        "x at 10 %": Contender("x at 10 %", list(cold_packed(turned)), lambda one, operand: one.T @ operand, few),
        "4 bits": of_codec(shared, x),
    }
    for peer in multipliers.present():
        if peer.precision == "F32" and "BSR" not in peer.name:
            runs[peer.name] = of_peer(peer, dense, x)
    for name, run in runs.items():
        for _ in 2 * run.made:
            found = run()
        others = {"4 bits": shared @ x, "x at 10 %": turned.T @ few}
        check(name, found, others.get(name, exact), "F32")
    return runs


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each layer")
    parser.add_argument("--only", nargs="*", metavar="LAYER", help="these layers, such as Alex-7")
    options = parser.parse_args()
    layers = [layer for layer in published() if not options.only or layer.name in options.only]
    every = values_of(options.weights, max(layer.rows * layer.cols for layer in layers))
    rows: list[list[Cell]] = []
    names: list[str] = []
    for layer in layers:
        note(layer.name)
        values = every[: layer.rows * layer.cols].reshape(layer.rows, layer.cols)
        runs = contenders(layer, codec.prune.magnitude(values, 1 - layer.weights))
        times = interleaved({name: partial(run) for name, run in runs.items()}, seconds=options.seconds)
        dense, sparse = (
            min(
                (name for name in runs if name not in OURS and ("CSR" in name) == skips), key=lambda n: median(times[n])
            )
            for skips in (False, True)
        )
        size = f"{layer.cols} x {layer.rows}"
        row: list[Cell] = [layer.name, size, f"{layer.weights:.0%}", f"{layer.activations:.1%}"]
        row += [times_as_fast(times["codec"], times[name]) for name in (dense, sparse)]
        row += [times_as_fast(times[name], times["codec"]) for name in OURS[1:]]
        rows.append(row + [1e6 * median(times[name]) for name in runs])
        names = list(runs)
    columns = ["layer", "size", "weights", "activations", "x dense", "x CSR", *OURS[1:]]
    columns += [f"{name} us" for name in names]
    emit(options, [Table("The layers of EIE, one vector, one thread, weights from memory", columns, rows, left=4)])


if __name__ == "__main__":
    main()
