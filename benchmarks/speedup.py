"""Speed-up over the fastest dense library, by the share of zeros: the layouts for speed beside every peer.

4096 x 4096 real weights pruned by magnitude, one thread, in float32 and bfloat16, at batch 1, 8, 32 and 128. Weights
come from memory: every contender has copies that do not fit in the caches, used in turn, and each copy is used once
before. Contenders take turns, medians. "x dense" compares with the fastest dense library of the same precision in the
same run, "x sparse" with the fastest of those that skip zeros. With --plot it draws the picture of the README.

With --warm it measures the layers of small networks instead, whose weights stay in the caches: one copy each, in
float32, and each contender runs twice in its turn, of which the second run counts. "x best" compares with the fastest
of NumPy, torch, and compressed sparse rows of SciPy and of torch (MKL), "x CSR" with the latter, or with SciPy's where
there is no torch. The other options but --seconds do not apply.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import multipliers
import numpy as np
from datasets import Cold, cast, cold_packed, values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast

import codec

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
BATCHES = (1, 8, 32, 128)
DTYPES = ("F32", "BF16")
COLD_BYTES = 160 << 20
TOLERANCE = {"F32": 1e-4, "BF16": 2e-2, "I8": 2e-2}

WARM_SHAPES = ((384, 384), (1536, 384), (1000, 1000), (1024, 1024), (4096, 1024))
WARM_SPARSITIES = (0.7, 0.8, 0.9, 0.95)
WARM_BATCHES = (1, 2, 3, 8, 16, 33, 128, 1024)
WARM_PEERS: tuple[type[multipliers.Peer], ...] = (
    multipliers.Numpy, multipliers.Torch, multipliers.ScipyCsr, multipliers.TorchCsr,
)  # fmt: skip


def copies(nbytes: int) -> int:
    """How many of a contender's weights do not fit in any cache together."""
    return max(1, min(64, COLD_BYTES // nbytes))


class Contender:
    """A peer, or codec, with its copies."""

    def __init__(
        self, name: str, precision: str, made: list[Any], multiply: Callable[[Any, Any], Any], operand: Any
    ) -> None:
        self.name, self.precision, self.made, self.multiply = name, precision, made, multiply
        self.x, self.turn = operand, 0

    def __call__(self) -> Any:
        self.turn += 1
        return self.multiply(self.made[self.turn % len(self.made)], self.x)


def of_peer(peer: type[multipliers.Peer], dense: np.ndarray, x: np.ndarray) -> Contender:
    """A peer's copies."""
    first = peer(dense)
    made = [first, *(peer(dense) for _ in range(copies(first.nbytes) - 1))]
    return Contender(peer.name, peer.precision, made, lambda one, operand: one.multiply(operand), first.operand(x))


def of_codec(packed: codec.PackedTensor, x: np.ndarray) -> Contender:
    """Our copies, in the layout that is chosen for the batch."""
    cold: Cold[Any] = cold_packed(packed)
    return Contender("codec", "F32", list(cold), lambda one, operand: one @ operand, x)


def check(name: str, found: Any, exact: np.ndarray, precision: str) -> None:
    """The result is right."""
    array = np.asarray(found if isinstance(found, np.ndarray) else found.float().numpy())
    if not np.allclose(array, exact, rtol=0, atol=TOLERANCE[precision] * np.abs(exact).max()):
        raise SystemExit(f"{name}: the result is wrong")


def measure(dense: np.ndarray, dtype: str, batch: int, seconds: float) -> dict[str, float]:
    """Milliseconds of every contender."""
    own = cast(dense, dtype)
    plain = own.astype(np.float32)
    shape = (dense.shape[1],) if batch == 1 else (dense.shape[1], batch)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    if dtype != "I8":  # weights of 8 bits are multiplied with float32
        x = cast(x, dtype).astype(np.float32)  # numbers of the weights' precision, for every contender
    exact = plain.astype(np.float64) @ x
    chosen = [peer for peer in multipliers.present() if peer.precision in ("F32", dtype)]
    runs = [of_codec(codec.encode(own, objective="speed", batch=batch), x)]
    runs += [of_peer(peer, plain, x) for peer in chosen]
    for run in runs:
        for _ in run.made:
            check(run.name, run(), exact, run.precision)
    times = interleaved({run.name: partial(run) for run in runs}, seconds=seconds)
    return {name: 1e3 * median(t) for name, t in times.items()}


def fastest(times: dict[str, float], dtype: str, *, sparse: bool) -> float:
    """The fastest dense peer of a precision, or the fastest sparse one of any."""
    chosen = [p for p in multipliers.present() if p.sparse == sparse and (sparse or p.precision in ("F32", dtype))]
    return min(times[peer.name] for peer in chosen)


def warm(values: np.ndarray, seconds: float) -> list[Table]:
    """Microseconds of layers whose weights are in the caches; how fast against the best, in all and for each batch."""
    rows: list[list[Cell]] = []
    gains: dict[int, list[tuple[float, float]]] = {}
    for shape in WARM_SHAPES:
        for sparsity in WARM_SPARSITIES:
            note(f"{shape[0]} x {shape[1]}, {sparsity:.0%} zeros")
            dense = codec.prune.magnitude(values[: shape[0] * shape[1]].reshape(shape), sparsity)
            peers = [peer(dense) for peer in WARM_PEERS if peer in multipliers.present()]
            for batch in WARM_BATCHES:
                x = np.random.default_rng(1).standard_normal((shape[1], batch)).astype(np.float32)
                x = x[:, 0].copy() if batch == 1 else x
                packed = codec.encode(dense, objective="speed", batch=batch)
                check("codec", packed @ x, dense.astype(np.float64) @ x, "F32")
                runs = {"codec": partial(operator.matmul, packed, x)}
                runs |= {one.name: partial(one.multiply, one.operand(x)) for one in peers}
                times = interleaved(runs, seconds=seconds, most=2000, warm=True)
                best = times[min((one.name for one in peers), key=lambda name: median(times[name]))]
                csr = times.get(multipliers.TorchCsr.name, times[multipliers.ScipyCsr.name])
                gain = times_as_fast(times["codec"], best), times_as_fast(times["codec"], csr)
                gains.setdefault(batch, []).append(gain)
                row: list[Cell] = [f"{shape[0]} x {shape[1]}", f"{sparsity:.0%}", str(batch), packed.layout, *gain]
                rows.append(row + [1e6 * median(times[name]) for name in runs])
    columns = ["matrix", "zeros", "batch", "layout", "x best", "x CSR", "codec us"]
    columns += [f"{one.name} us" for one in peers]
    every = [gain for found in gains.values() for gain in found]
    summary: list[list[Cell]] = [
        [name, *(f(column) for column in zip(*found, strict=True) for f in (min, _geometric_mean))]
        for name, found in [*((str(batch), found) for batch, found in gains.items()), ("all", every)]
    ]
    return [
        Table("One thread, float32, weights in the caches", columns, rows, left=4),
        Table("By batch", ["batch", "least x best", "mean x best", "least x CSR", "mean x CSR"], summary),
    ]


def _geometric_mean(ratios: Sequence[float]) -> float:
    return float(np.exp(np.log(ratios).mean()))


def draw(path: Path, found: dict[tuple[str, int], list[float]]) -> None:
    """Speed-up over sparsity, a curve for each batch and a panel for each precision."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "codec"
    dtypes, batches = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    figure, (panels,) = plt.subplots(
        1, len(dtypes), figsize=(4.5 * len(dtypes), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for panel, dtype in zip(panels, dtypes, strict=True):
        for batch in batches:
            panel.plot([100 * s for s in SPARSITIES], found[dtype, batch], marker="o", label=f"batch {batch}")
        panel.axhline(1, color="gray", linewidth=1)
        panel.set(yscale="log", xlabel="% zeros", title=f"{dtype}, 4096 x 4096, one thread")
        panel.set_yticks([1, 2, 4, 8, 16, 32], [f"{n}x" for n in (1, 2, 4, 8, 16, 32)])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("speed-up over the fastest dense library")
    panels[0].legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--side", type=int, default=4096, metavar="N", help="rows and columns")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each point")
    parser.add_argument("--dtypes", nargs="*", default=DTYPES, metavar="DTYPE", help="of the weights; also I8")
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES, metavar="B", help="columns of x")
    parser.add_argument("--warm", action="store_true", help="measure layers whose weights stay in the caches")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speed-ups as an SVG")
    options = parser.parse_args()
    if absent := multipliers.missing():
        note(f"not installed: {', '.join(absent)}")
    if options.warm:
        largest = max(rows * cols for rows, cols in WARM_SHAPES)
        emit(options, warm(values_of(options.weights, largest), options.seconds))
        return
    values = values_of(options.weights, options.side**2).reshape(options.side, options.side)
    names = [peer.name for peer in multipliers.present()]
    rows: list[list[Cell]] = []
    found: dict[tuple[str, int], list[float]] = {}
    for dtype in options.dtypes:
        for batch in options.batches:
            for sparsity in SPARSITIES:
                note(f"{dtype}, batch {batch}, {sparsity:.0%} zeros")
                dense = codec.prune.magnitude(values, sparsity)
                times = measure(dense, dtype, batch, options.seconds)
                gain = fastest(times, dtype, sparse=False) / times["codec"]
                found.setdefault((dtype, batch), []).append(gain)
                over_sparse = fastest(times, dtype, sparse=True) / times["codec"]
                layout = codec.encode(cast(dense, dtype), objective="speed", batch=batch).layout
                rows.append([dtype, str(batch), f"{sparsity:.0%}", layout, gain, over_sparse, times["codec"]])
                rows[-1] += [times.get(name) for name in names]
    columns = ["weights", "batch", "zeros", "layout", "x dense", "x sparse", "codec ms", *(f"{n} ms" for n in names)]
    emit(options, [Table(f"{options.side} x {options.side}, one thread, weights from memory", columns, rows, left=4)])
    if options.plot:
        draw(options.plot, found)


if __name__ == "__main__":
    main()
