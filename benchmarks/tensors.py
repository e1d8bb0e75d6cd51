"""The smallest tensor: bits per weight against everything that a user could take instead, each cell from one run.

Tensors of real networks, pruned by magnitude in every dtype, blocks of 8 x 4, 2 of every 4 and a network's own zeros
among them. Every contender gives back every bit; its time is the median over rounds in which all take turns, with one
thread. The mark is what a simple model takes at its entropy (mark.py). With --plot it draws the bits per weight over
the sparsity, a curve for each contender; with --sizes it leaves out the times, which alone depend on the machine.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import cast, load, minilm
from mark import mark
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, release_memory
from peers import Contender, contenders

from codec.prune import magnitude

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
DTYPES = ("F32", "F16", "BF16", "F8_E4M3", "I8")
# A part of a network's name, and of a tensor's in it. MiniLM's embeddings are cut to a few rows for the slow ones.
PICKED = (
    ("minilm", "embeddings.word_embeddings.weight", 4096),
    ("minilm", "layer.3.attention.self.query.weight", None),
    ("minilm", "layer.3.intermediate.dense.weight", None),
    ("efficientnet", "_conv_head.weight", None),
    ("efficientnet", "_blocks.8._project_conv.weight", None),
    ("resemblyzer", "lstm.weight_hh_l0", None),
    ("lenet300", "fc1.weight", None),
)
# A network that was pruned by those who published it: its largest tensors are taken as they are.
OWN_ZEROS = ("face_detection", 2)
LOST = 0.3  # % by which a peer must be smaller to count
PATTERNS = {"8 x 4 blocks": {"blocks": (8, 4)}, "2 of 4": {"n_m": (2, 4)}}


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Those that are picked, as matrices of float32."""
    networks = {"minilm": minilm()[1]}
    networks |= {path.stem: load(path) for path in sorted(folder.glob("*.safetensors"))}
    for network, part, rows in PICKED:
        held = next((held for name, held in networks.items() if network in name), {})
        for name, a in held.items():
            if part in name:
                yield f"{network} {name.rsplit('.', 2)[-2]}", a.reshape(len(a), -1)[:rows].astype(np.float32)
                break


def cells(
    folder: Path, dtypes: tuple[str, ...], sparsities: tuple[float, ...]
) -> Iterator[tuple[str, str, float | None, np.ndarray]]:
    """Name, dtype, sparsity (None for a pattern) and what is kept."""
    for name, a in tensors(folder):
        for dtype in dtypes:
            # Pruned after the cast where that leaves enough different magnitudes, before it for 8 bits.
            early = dtype in ("I8", "F8_E4M3")
            for sparsity in sparsities:
                kept = cast(magnitude(a, sparsity), dtype) if early else magnitude(cast(a, dtype), sparsity)
                yield name, dtype, sparsity, without_negative_zeros(kept)
    for path in sorted(folder.glob(f"{OWN_ZEROS[0]}*.safetensors")):
        for name, a in sorted(load(path).items(), key=lambda held: -held[1].size)[: OWN_ZEROS[1]]:
            whole = a.reshape(len(a), -1).astype(np.float32)
            for dtype in dtypes:
                yield f"{path.stem} {name.split('/')[-2]}", dtype, None, without_negative_zeros(cast(whole, dtype))
    for name, a in tensors(folder):
        if "intermediate" in name or "conv_head" in name or name.endswith("dense"):
            for pattern, how in PATTERNS.items():
                for dtype in dtypes:
                    yield f"{name} {pattern}", dtype, None, without_negative_zeros(cast(patterned(a, **how), dtype))


def without_negative_zeros(a: np.ndarray) -> np.ndarray:
    """What underflows below zero in a cast is -0.0, which this library gives back as +0.0 unless told to keep it."""
    return np.where(a == 0, a.dtype.type(0), a)


def patterned(a: np.ndarray, blocks: tuple[int, int] | None = None, n_m: tuple[int, int] | None = None) -> np.ndarray:
    """The largest fifth of blocks, or n of every m along a row."""
    rows, cols = a.shape
    if blocks:
        r, c = blocks
        a = a[: rows // r * r, : cols // c * c]
        norms = np.square(a).reshape(len(a) // r, r, -1, c).sum(axis=(1, 3))
        keep = norms >= np.quantile(norms, 0.8)
        return np.where(np.repeat(np.repeat(keep, r, axis=0), c, axis=1), a, np.float32(0))
    assert n_m
    n, m = n_m
    grouped = np.abs(a[:, : cols // m * m]).reshape(rows, -1, m)
    keep = np.argsort(np.argsort(-grouped, axis=2), axis=2) < n
    return np.where(keep.reshape(rows, -1), a[:, : cols // m * m], np.float32(0))


def measured(a: np.ndarray, every: list[Contender], seconds: float | None) -> dict[str, tuple[int, float, float]]:
    """Bytes, and seconds to pack and to unpack (0 for ``seconds=None``), of every contender; SystemExit where a bit is
    lost.
    """
    packed = {}
    for one in every:
        packed[one] = one.pack(a)
        back = one.unpack(packed[one], np.empty_like(a))
        if back.tobytes() != a.tobytes():
            raise SystemExit(f"{one.name} lost a bit")
    if seconds is None:
        return {one.name: (one.nbytes(packed[one]), 0.0, 0.0) for one in every}
    out = np.empty_like(a)
    unpacked = interleaved({one.name: lambda one=one: one.unpack(packed[one], out) for one in every}, seconds=seconds)
    fast = [one for one in every if "-19" not in one.name and one.name != "npz"]
    packing = interleaved({one.name: lambda one=one: one.pack(a) for one in fast}, seconds=seconds, least=3)
    return {
        one.name: (
            one.nbytes(packed[one]),
            median(packing[one.name]) if one in fast else 0.0,
            median(unpacked[one.name]),
        )
        for one in every
    }


def summary(gains: dict[str, list[tuple[float, float]]]) -> Table:
    """Gains over the smallest peer, and how far above the mark, by tensor and dtype."""
    every = [one for found in gains.values() for one in found]
    rows: list[list[Cell]] = []
    for name, found in {**gains, "all": every}.items():
        gain, above = (np.array(one) for one in zip(*found, strict=True))
        lost, smaller = int((gain < -LOST).sum()), int((gain > 0).sum())
        rows.append([name, len(gain), f"{gain.mean():+.2f} %", f"{gain.min():+.2f} %", smaller, lost])
        rows[-1].append(f"{above.mean():+.2f} %")
    columns = ["tensor", "cells", "mean gain", "least", "smaller", f"lost by {LOST} %", "above the mark"]
    return Table("Gain over the smallest peer", columns, rows)


# Bits per weight of every contender, for each tensor of a dtype and sparsity.
Points = dict[tuple[str, float], list[dict[str, float]]]


def draw(path: Path, points: Points) -> None:
    """Bits per weight, as shares of those of the smallest contender, over the sparsity: the mean over the tensors."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "codec"
    dtypes = list(dict.fromkeys(dtype for dtype, _ in points))
    figure, panels = plt.subplots(
        2, len(dtypes), figsize=(3.4 * len(dtypes), 6), sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    for (upper, lower), dtype in zip(panels.T, dtypes, strict=True):
        sparsities = sorted(sparsity for one, sparsity in points if one == dtype)
        for name in points[dtype, sparsities[0]][0]:
            bits = [np.mean([one[name] for one in points[dtype, s]]) for s in sparsities]
            over = [np.mean([one[name] / min(one.values()) for one in points[dtype, s]]) - 1 for s in sparsities]
            how = {"color": "black", "linewidth": 2} if name == "codec" else {"linewidth": 1}
            upper.plot([100 * s for s in sparsities], bits, marker=".", label=name, **how)
            lower.plot([100 * s for s in sparsities], [100 * one for one in over], marker=".", **how)
        upper.set(title=dtype)
        lower.set(xlabel="% zeros", ylim=(0, 20))
        upper.grid(alpha=0.3)
        lower.grid(alpha=0.3)
    panels[0, 0].set_ylabel("bits per weight")
    panels[1, 0].set_ylabel("% above the smallest")
    curves, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(curves, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=0.2, help="of timing, for each cell and direction")
    parser.add_argument("--sizes", action="store_true", help="sizes alone, without times")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only these")
    parser.add_argument("--sparsity", action="append", type=float, help="only these")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the bits per weight as an SVG")
    options = parser.parse_args()
    one_thread()
    sizes: list[list[Cell]] = []
    speeds: list[list[Cell]] = []
    gains: dict[str, list[tuple[float, float]]] = {}
    names: list[str] = []
    points: Points = {}
    for tensor, dtype, sparsity, a in cells(
        options.weights, tuple(options.dtype or DTYPES), tuple(options.sparsity or SPARSITIES)
    ):
        name = tensor if sparsity is None else f"{tensor} {sparsity:.1%}"
        every = contenders()
        names = [one.name for one in every]
        found = measured(a, every, None if options.sizes else options.seconds)
        least, ours = min(found[one][0] for one in names[1:]), 8 * found["codec"][0] / a.size
        gain, near = 100 * (1 - found["codec"][0] / least), mark(a)
        above = 100 * (ours / near - 1) if near else 0.0
        gains.setdefault(f"{tensor} {dtype}", []).append((gain, above))
        note(f"{name} {dtype}: {gain:+.2f} % against the smallest peer")
        bits = (8 * found[one][0] / a.size for one in names)
        sizes.append([name, dtype, *bits, f"{gain:+.2f} %", near, f"{above:+.2f} %"])
        if sparsity is not None:
            points.setdefault((dtype, sparsity), []).append({one: 8 * found[one][0] / a.size for one in names})
        megabytes = a.nbytes / 1e6
        speeds.append(
            [
                name,
                dtype,
                *(megabytes / found[one][way] if found[one][way] else None for way in (1, 2) for one in names),
            ]
        )
        release_memory()
    speed_names = [f"{way} {one}" for way in ("pack", "unpack") for one in names]
    tables = [
        summary(gains),
        Table("Bits per weight", ["tensor", "dtype", *names, "gain", "mark", "above it"], sizes, left=2),
    ]
    if not options.sizes:
        columns = ["tensor", "dtype", *speed_names]
        tables.append(Table("Speed, MB/s of dense elements, one thread", columns, speeds, left=2))
    emit(options, tables)
    if options.plot:
        draw(options.plot, points)


if __name__ == "__main__":
    main()
