"""Bytes by layout: real networks under every kind of pruning, and what "memory" and "disk" choose for them.

Every prunable tensor of MiniLM and of the networks in the folder, as it is, pruned by magnitude to 50, 70, 90 and 95 %
zeros, to 2:4, and to 70 % of its 1x4 blocks, 4x4 blocks and rows (filters). Sizes are those of whole frames without an
entropy stage, as predicted from the statistics; what is chosen is encoded, and a prediction that is not exact is a
fault. A second table holds sizes expected from a share of independent zeros against real frames of such masks, with
the parameters that those frames have (which n of m suffices, one group in a million decides).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from datasets import CASES, Tensors, case_name, cast, is_prunable, networks, values_of
from measure import Cell, Table, arguments, emit, note

import codec
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS

SHARE = 0.7  # of the blocks and rows
PRUNINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda a: a,
    **{f"{s:.0%}": lambda a, s=s: codec.prune.magnitude(a, s) for s in (0.5, 0.7, 0.9, 0.95)},
    **{
        structure: lambda a, structure=structure: codec.prune.apply_mask(
            a, codec.prune.mask(a, None if structure == "2:4" else SHARE, structure=structure)
        )
        for structure in ("2:4", "1x4", "4x4", "row")
    },
}
# Layouts that are Huffman-coded have no size without an entropy stage.
PLAIN = [(name, params) for name, params in CASES if not LAYOUTS[name]().always_coded]

SIDE = 4096
SPARSITIES = (0.05, 0.5, 0.7, 0.9, 0.95, 0.99)
DTYPES = ("F32", "BF16", "I8")
OFF = 0.002  # of the real frame


def predicted(a: np.ndarray, name: str, params: dict[str, Any]) -> int | None:
    """Bytes of one frame, from statistics of its own; None for a tensor that the layout cannot hold so."""
    counted = {"block": params.get("block") or (), "group": params.get("m", ())}
    try:
        return codec.encoded_nbytes(
            name, a.shape, a.dtype, stats=codec.tensor_stats(a, **counted), entropy="none", **params
        )
    except ArgumentError:
        return None


def chosen(tensors: Tensors, objective: str) -> tuple[int, str]:
    """Bytes of all frames, and the layouts chosen, with the share of the tensors that each took."""
    total, votes = 0, Counter[str]()
    for a in tensors.values():
        p = codec.encode(a, objective=objective)
        total += p.nbytes
        votes[p.layout] += 1
    return total, ", ".join(f"{name} {n}" for name, n in votes.most_common())


def by_layout(network: Tensors, faults: list[str]) -> Iterator[list[Cell]]:
    """A row for each pruning: dense bytes, bytes of each layout, the choices."""
    for pruning, prune in PRUNINGS.items():
        tensors = {name: np.ascontiguousarray(prune(a)) for name, a in network.items() if is_prunable(a)}
        row: list[Cell] = [pruning, sum(a.nbytes for a in tensors.values()) / 1e6]
        for name, params in PLAIN:
            sizes = [predicted(a, name, params) for a in tensors.values()]
            row.append(None if None in sizes else sum(n for n in sizes if n is not None) / 1e6)
        for objective in ("memory", "disk"):
            total, layouts = chosen(tensors, objective)
            row += [total / 1e6, layouts]
        for name, a in tensors.items():
            p = codec.encode(a, objective="memory")
            told = predicted(a, p.layout, dict(p.params))
            if told != p.nbytes:
                faults.append(f"{name}, {pruning}: {p.layout} takes {p.nbytes:,} bytes, {told} predicted")
        yield row


def expected(values: np.ndarray, faults: list[str]) -> Iterator[list[Cell]]:
    """Rows of (dtype, zeros, layout, expected, real, off by) for masks of independent zeros or zero blocks."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        dense = cast(values.reshape(SIDE, SIDE), dtype)
        dense = np.where(dense == 0, np.ones(1, dense.dtype), dense)
        for sparsity in SPARSITIES:
            mask = np.ones(dense.size, bool)
            mask[rng.permutation(dense.size)[: round(sparsity * dense.size)]] = False
            a = dense * mask.reshape(dense.shape)
            for name, params in PLAIN:
                p = codec.encode(a, layout=name, objective="memory", **params)
                told = codec.encoded_nbytes(name, a.shape, a.dtype, sparsity=sparsity, **p.params)
                case = case_name((name, params))
                yield [dtype, f"{sparsity:.0%}", case, told, p.nbytes, 100 * (told / p.nbytes - 1)]
                if abs(told - p.nbytes) > OFF * p.nbytes:
                    faults.append(f"{dtype} {sparsity:.0%} {case}: {told:,} expected for {p.nbytes:,} bytes")
        note(f"expected sizes in {dtype}")


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    faults: list[str] = []
    tables = []
    columns = ["pruned", "dense", *map(case_name, PLAIN), "memory", "chosen", "disk", "chosen for disk"]
    for title, network in networks(options.weights):
        note(title)
        tables.append(Table(f"MB of {title}'s frames", columns, list(by_layout(network, faults))))
    rows = list(expected(values_of(options.weights, SIDE * SIDE), faults))
    columns = ["dtype", "zeros", "layout", "expected", "real", "% off"]
    tables.append(Table(f"Bytes expected of independent zeros, {SIDE} x {SIDE}", columns, rows, left=3))
    emit(options, tables, faults)


if __name__ == "__main__":
    main()
