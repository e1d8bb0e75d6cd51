"""The verbs that count what sizes depend on, and compare sizes before anything is encoded: stats, breakeven."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.breakeven import BOUND, COARSE, break_even, entropy_bound, envelope, frame_bytes, weighed
from codec.choose import Wish, predict, target
from codec.cli.output import emit, json_option, source, target_file
from codec.cli.table import counted, percent, ratio, size, table
from codec.dtypes import BY_NAME, ElementType, element_type
from codec.errors import ArgumentError, CodecError
from codec.geometry import check_row_dims
from codec.kernels import thread_count
from codec.layouts import LAYOUTS
from codec.modelfile import safe_open
from codec.modelreader import ModelFile
from codec.stats import TensorStats, stats_of_spans, tensor_stats

SPARSITIES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_SHORT = {"FP64": "F64", "FP32": "F32", "FP16": "F16", "FP8": "F8_E4M3"}


def _stats(model: ModelFile, name: str) -> TensorStats:
    if model.info(name).stored_as == "frame":
        return stats_of_spans(model.get_packed(name).spans, thread_count(None))
    return tensor_stats(model.get_tensor(name))


def _countable(model: ModelFile, name: str) -> bool:
    return model.info(name).dtype in BY_NAME


@click.command()
@click.argument("src", type=source)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def stats(src: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Count what the sizes of SRC's tensors, or of those named, depend on; reads all their data."""
    with safe_open(src) as model:
        rows = [
            {
                "name": name,
                "dtype": model.info(name).dtype,
                "shape": list(model.info(name).shape),
                **_facts(_stats(model, name)),
            }
            for name in names or model.keys()
            if _countable(model, name)
        ]
    facts = {"source": str(src), "tensors": rows}
    emit(facts, lambda: _stats_text(rows), as_json)


def _facts(found: TensorStats) -> dict[str, Any]:
    counts = found.counts
    assert counts.blocks is not None
    assert counts.groups is not None
    runs = np.flatnonzero(found.runs)
    grid = found.grid
    of_blocks = {(r, c): sum(n * -(-h // r) * -(-w // c) for h, w, n in grid.shapes()) for r, c in counts.blocks}
    return {
        "size": found.size,
        "nnz": found.nnz,
        "sparsity": found.sparsity,
        "negative_zeros": found.negative_zeros,
        "nans": found.nans,
        "value_entropy": found.value_entropy,
        "constant_low_bits": found.constant_low_bits,
        "rows": _spread(found.row_density) | {"dead": found.dead_rows},
        "columns": _spread(found.col_density) | {"dead": found.dead_cols},
        "panels": _spread(found.panel_density),
        "dead_channels": found.dead_channels,
        "runs": {str(length): int(found.runs[length]) for length in runs},
        "live_blocks": {f"{r}x{c}": [counts.blocks[r, c], n] for (r, c), n in of_blocks.items()},
        "groups": {str(m): table.tolist() for m, table in counts.groups.items()},
    }


def _spread(density: np.ndarray) -> dict[str, Any]:
    """The least, middle and largest density."""
    if not len(density):
        return {"count": 0, "least": None, "median": None, "most": None}
    least, most = float(density.min()), float(density.max())
    return {"count": len(density), "least": least, "median": float(np.median(density)), "most": most}


def _stats_text(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            row["dtype"],
            "x".join(map(str, row["shape"])) or "scalar",
            percent(row["sparsity"]),
            f"{row['negative_zeros']:,}",
            f"{row['nans']:,}",
            f"{row['rows']['dead']:,}",
            f"{row['columns']['dead']:,}",
            percent(row["live_blocks"]["4x4"][0] / max(1, row["live_blocks"]["4x4"][1])),
            str(next((j for j in range(4, -1, -1) if row["groups"]["4"][j]), 0)),
            f"{row['value_entropy']:.2f}",
            str(row["constant_low_bits"]),
        ]
        for row in rows
    ]
    header = [
        "name",
        "dtype",
        "shape",
        "zeros",
        "-0.0",
        "NaN",
        "dead rows",
        "dead cols",
        "live 4x4",
        "most of 4",
        "entropy",
        "low bits",
    ]
    return table(header, lines, left=3)


def _named(name: str, params: dict[str, Any]) -> str:
    return name + "".join(f" {key}={value}" for key, value in params.items())


def _element(name: str) -> ElementType:
    upper = name.upper()
    return BY_NAME.get(_SHORT.get(upper, upper)) or element_type(name)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--shape {text!r}; expected sizes with x between, as 4096x4096")
    return tuple(map(int, parts))


@click.command()
@click.argument("src", type=source, required=False)
@click.option("--shape", metavar="ROWSxCOLS", help="A tensor of independent zeros instead of SRC, as 4096x4096.")
@click.option("--dtype", default="bf16", show_default=True, help="Of that tensor.")
@click.option("--plot", type=target_file, help="Draw the sizes over the share of zeros (.svg, .png or .pdf).")
@json_option
def breakeven(src: Path | None, shape: str | None, dtype: str, plot: Path | None, as_json: bool) -> None:
    """From which sparsity on each layout is smaller than dense.

    With --shape for independent zeros; with SRC for each of its tensors as it is: which layout pays, and by how much.
    """
    if (src is None) == (shape is None):
        raise click.UsageError("expected one of SRC and --shape")
    if shape is not None:
        facts, curves = _of_shape(_shape(shape), _element(dtype))
        if plot is not None:
            _draw(plot, f"{shape} {facts['dtype']}", curves)
        emit(facts, lambda: _shape_text(facts), as_json)
        return
    if plot is not None:
        raise click.UsageError("--plot needs --shape")
    assert src is not None
    with safe_open(src) as model:
        rows = [_of_tensor(name, _stats(model, name)) for name in model if _countable(model, name)]
    facts = {"source": str(src), "tensors": rows}
    emit(facts, lambda: _file_text(rows), as_json)


def _of_shape(shape: tuple[int, ...], element: ElementType) -> tuple[dict[str, Any], dict[str, Any]]:
    dims = check_row_dims(shape, None)
    curves = {_named(name, given): frame_bytes(name, shape, element, dims, given) for name, given in weighed()}
    names = list(curves)
    elements = max(1, int(np.prod(shape)))
    rows = []
    for (name, given), label in zip(weighed(), names, strict=True):
        found = (
            break_even(name, shape, element.dtype, row_dims=dims, tolerance=2e-5, **given) if name != "dense" else None
        )
        rows.append(
            {
                "layout": name,
                "params": given,
                "pays_from": found.sparsity if found else None,
                "crossings": list(found.crossings) if found else [],
                "bytes": {str(s): curves[label](s) for s in SPARSITIES},
            }
        )
    best = envelope(list(curves.values()), COARSE)
    bound = {str(s): entropy_bound(s, 8 * element.width) * elements / 8 for s in SPARSITIES}
    facts = {
        "shape": list(shape),
        "dtype": element.name,
        "dense_nbytes": elements * element.width,
        "layouts": rows,
        "smallest": [{"from": s, "layout": names[i]} for s, i in best],
        BOUND: bound,
    }
    return facts, curves


def _shape_text(facts: dict[str, Any]) -> str:
    dense = facts["dense_nbytes"]

    def cells(sizes: dict[str, Any]) -> list[str]:
        return [f"{sizes[str(s)] / dense:.3f}" for s in SPARSITIES]

    rows = [[_named(row["layout"], row["params"]), *cells(row["bytes"])] for row in facts["layouts"]]
    rows.append(["entropy bound", *cells(facts[BOUND])])
    lines = [table(["size / dense at zeros of", *(f"{100 * s:.0f} %" for s in SPARSITIES)], rows), ""]
    for row in facts["layouts"][1:]:
        at = row["crossings"]
        name = _named(row["layout"], row["params"])
        if row["pays_from"] is None:
            lines.append(f"{name}: never smaller than dense")
        else:
            until = "".join(
                f", {'not' if i % 2 == 0 else 'again'} from {percent(s)}"
                for i, s in enumerate(at[1:] if row["pays_from"] else at)
            )
            lines.append(f"{name}: smaller than dense from {percent(row['pays_from'])} zeros on{until}")
    best = ", ".join(f"{step['layout']} from {percent(step['from'])}" for step in facts["smallest"])
    return "\n".join([*lines, f"Smallest: {best}"])


def _of_tensor(name: str, found: TensorStats) -> dict[str, Any]:
    sizes = {}
    plain = [layout for layout in LAYOUTS.values() if not layout.entropy_coded]  # what pays in memory, where nothing is
    choices = [(one.name, given) for one in plain for given in one.choices(found.counts, found.grid)]
    for layout, given in choices:
        wish = Wish(layout, given, "memory")
        to = target(
            wish, layout, given, dtype=found.dtype, shape=found.shape, row_dims=found.row_dims, grid=found.grid,
            zero=found.zero, counts=found.counts,
        )  # fmt: skip
        sizes[_named(layout, dict(to.params))] = predict(to, found.counts, found.negative_zeros), layout, given
    label = min(sizes, key=lambda key: sizes[key][0])
    nbytes, layout, given = sizes[label]
    pays = None
    if layout != "dense":
        pays = break_even(layout, found.shape, found.dtype, row_dims=found.row_dims, **given).sparsity
    return {
        "name": name,
        "shape": list(found.shape),
        "dtype": element_type(found.dtype).name,
        "sparsity": found.sparsity,
        "dense_nbytes": found.size * found.dtype.itemsize,
        "layout": label,
        "nbytes": nbytes,
        "pays_from": pays,
        "bytes": {key: value[0] for key, value in sizes.items()},
    }


def _file_text(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            row["dtype"],
            "x".join(map(str, row["shape"])) or "scalar",
            row["layout"],
            percent(row["sparsity"]),
            "-" if row["pays_from"] is None else percent(row["pays_from"]),
            size(row["dense_nbytes"]),
            size(row["nbytes"]),
            ratio(row["dense_nbytes"], row["nbytes"]),
        ]
        for row in rows
    ]
    dense = sum(row["dense_nbytes"] for row in rows)
    least = sum(min(row["nbytes"], row["dense_nbytes"]) for row in rows)
    total = [counted(len(rows), "tensor"), "", "", "", "", "", size(dense), size(least), ratio(dense, least)]
    header = ["name", "dtype", "shape", "smallest layout", "zeros", "pays from", "dense", "packed", "ratio"]
    return table(header, lines, left=4, total=total)


def _draw(path: Path, title: str, curves: dict[str, Any]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CodecError("--plot needs matplotlib: pip install 'codec[plot]'") from None
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ArgumentError(f"--plot {str(path)!r}; expected a name that ends in .svg, .png or .pdf")
    points = np.linspace(0, 1, 51)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(100 * points, [curve(float(s)) / 1e6 for s in points], label=name)
    axes.set(title=title, xlabel="zeros, %", ylabel="MB", xlim=(0, 100))
    axes.set_ylim(0, 1.5 * next(iter(curves.values()))(0.0) / 1e6)
    axes.legend(fontsize="small")
    figure.savefig(path)
