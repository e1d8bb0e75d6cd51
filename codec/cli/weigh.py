"""The verbs that count what sizes depend on, and compare sizes before anything is encoded: stats, breakeven."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.cli.output import Progress, emit, json_option, quiet_option, source, target_file
from codec.cli.plot import draw
from codec.cli.table import counted, percent, ratio, shape_text, size, table
from codec.cli.ties import Prints
from codec.costs.breakeven import (
    BOUND,
    COARSE,
    break_even,
    chosen_params,
    contenders,
    entropy_bound,
    envelope,
    frame_bytes,
)
from codec.dtypes import BY_NAME, ElementType, element_type
from codec.encoding.choose import smallest
from codec.encoding.predict import needs_of, predict
from codec.encoding.request import EncodeRequest
from codec.encoding.sizes import CountedSource
from codec.encoding.sources import FrameSource
from codec.encoding.stats import stats_of, tensor_stats
from codec.errors import ArgumentError
from codec.kernels import thread_count
from codec.matrix import MAX_NBYTES, check_row_dims, check_shape
from codec.model import ModelFile, safe_open, worth_packing
from codec.statistics import TensorStats

SPARSITIES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
STAYS_DENSE = "stays dense"
_SMALLEST_FRAME = 256  # bytes: no frame takes less
_SHORT = {"FP64": "F64", "FP32": "F32", "FP16": "F16", "FP8": "F8_E4M3"}
# How exactly a crossing is printed: percentages have two decimals.
_NEAR = 2e-5
_COUNTED = {
    "disk": "Counted is what codec encode writes: frames with their headers, and streams after the entropy stage, "
    "within 1 % (less where zstandard finds repetitions). A tensor stays dense where packing would save too little.",
    "memory": "Counted are packed tensors in memory: frames with their headers, without an entropy stage, exactly.",
    "shape": "Counted are frames with their headers. No entropy stage is counted, as what it saves depends on the "
    "values; only layouts huffman and context are always entropy-coded, and their values count as incompressible.",
}
_PAYS_FROM = (
    "Pays from: the sparsity from which on that layout takes fewer bytes than dense where zeros are independent, "
    "without an entropy stage."
)


def _countable(model: ModelFile, name: str) -> bool:
    return model.info(name).dtype in BY_NAME


def _stats(model: ModelFile, name: str, printed: Prints | None = None) -> TensorStats:
    """What is counted of a tensor; with ``printed`` its fingerprint comes with it, so that it is read once."""
    info = model.info(name)
    if 0 in info.shape:  # one without elements has the same counts in any shape
        return tensor_stats(np.zeros((0, 0), BY_NAME[info.dtype].dtype))
    if info.stored_as == "frame":
        packed = model.get_packed(name)
        if printed:
            printed.add(name, packed.to_dense, packed.zero)
        return stats_of(FrameSource(packed.spans, thread_count(None)))
    array = model.get_tensor(name)
    if printed:
        printed.add(name, lambda: array, "value")
    return tensor_stats(array)


def _counting(model: ModelFile, names: list[str], quiet: bool) -> Iterator[str]:
    """The names one by one, with a progress bar."""
    with Progress(sum(model.info(name).dense_nbytes for name in names), "Counting", quiet) as progress:
        for name in names:
            yield name
            progress.advance(model.info(name).dense_nbytes)


@click.command()
@click.argument("src", type=source)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@quiet_option
@json_option
def stats(src: Path, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Count what the sizes of tensors depend on.

    SRC is a model file, packed or plain, the .safetensors.index.json of a sharded model, or a folder that holds one of
    them. All its tensors are counted, or those with the given NAMEs. All their data is read.

    The table shows the share of zeros, the negative zeros and NaN among them, rows and columns without a non-zero, the
    share of 4x4 blocks that hold a non-zero, the most non-zeros in any group of 4 along a row, the entropy of the
    values in bits, and how many low bits are zero in all values. With --json there is more.
    """
    with safe_open(src) as model:
        for name in names:
            if not _countable(model, name):
                raise ArgumentError(f"tensor {name!r} has dtype {model.info(name).dtype}, which codec does not count")
        wanted = [name for name in names or model.keys() if _countable(model, name)]
        rows = [
            {
                "name": name,
                "dtype": model.info(name).dtype,
                "shape": list(model.info(name).shape),
                **_facts(_stats(model, name)),
            }
            for name in _counting(model, wanted, quiet)
        ]
        left_out = [] if names else [name for name in model if name not in set(wanted)]
    facts = {"source": str(src), "tensors": rows, "left_out": left_out}
    emit(facts, lambda: _stats_text(rows, len(left_out)), as_json)


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


def _stats_text(rows: list[dict[str, Any]], left_out: int) -> str:
    lines = [
        [
            row["name"],
            row["dtype"],
            shape_text(row["shape"]),
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
        "empty rows",
        "empty cols",
        "4x4 blocks",
        "most of 4",
        "entropy",
        "low bits",
    ]
    note = f"\nLeft out: {counted(left_out, 'tensor')} of dtypes that codec does not count." if left_out else ""
    return table(header, lines, left=3) + note


@click.command()
@click.argument("src", type=source, required=False)
@click.option("--shape", metavar="ROWSxCOLS", help="Compare the layouts for a tensor of this shape, as 4096x4096.")
@click.option("--dtype", default="bf16", show_default=True, help="The dtype of that tensor.")
@click.option("--plot", type=target_file, help="Draw the sizes over the sparsity into a .svg, .png or .pdf file.")
@click.option(
    "--objective",
    type=click.Choice(["disk", "memory"]),
    help="Predict what codec encode writes to disk, or packed tensors in memory.  [default: disk]",
)
@quiet_option
@json_option
def breakeven(
    src: Path | None,
    shape: str | None,
    dtype: str,
    plot: Path | None,
    objective: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show which layout pays, and from which sparsity on.

    With SRC, a model as for codec inspect, its tensors are counted as they are: the table shows the layout that codec
    encode would choose for each, and the bytes that it would write. With --shape, each element of a tensor is a zero
    with the same chance: the table shows what each layout takes at some sparsities, and the lines below it from which
    sparsity on it takes fewer bytes than dense.
    """
    if (src is None) == (shape is None):
        raise click.UsageError("expected one of SRC and --shape")
    if shape is not None:
        if objective is not None:
            raise click.UsageError("--objective needs SRC: without values no entropy stage can be counted")
        facts, curves = _of_shape(_shape(shape), _element(dtype))
        if plot is not None:
            draw(plot, facts, curves, _index_bits(facts, curves))
        emit(facts, lambda: _shape_text(facts), as_json)
        return
    if plot is not None:
        raise click.UsageError("--plot needs --shape")
    assert src is not None
    objective = objective or "disk"
    with safe_open(src) as model:
        prints = Prints(model)
        by_name: dict[str, dict[str, Any]] = {}
        for name in _counting(model, model.keys(), quiet):
            tied = model.info(name).alias_of
            by_name[name] = {**by_name[tied], "name": name} if tied else _of_tensor(model, name, objective, prints)
        rows = list(by_name.values())
        for name, first in prints.ties(name for name, row in by_name.items() if row["packed"]).items():
            by_name[name] |= {"tied_to": first, "nbytes": 0}
    facts = {
        "source": str(src),
        "objective": objective,
        "counted": _COUNTED[objective],
        "dense_nbytes": sum(row["dense_nbytes"] for row in rows),
        "nbytes": sum(min(row["nbytes"], row["dense_nbytes"]) for row in rows),
        "tensors": rows,
    }
    emit(facts, lambda: _file_text(facts), as_json)


def named(layout: str, params: dict[str, Any]) -> str:
    """A layout with its parameters, as in tables and legends."""
    return layout + "".join(f" {key}={_plain(value)}" for key, value in params.items())


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _element(name: str) -> ElementType:
    upper = name.upper()
    return BY_NAME.get(_SHORT.get(upper, upper)) or element_type(name)


def _shape(text: str) -> tuple[int, ...]:
    parts = re.split("[xX,]", text)
    if not all(re.fullmatch("[0-9]+", part) for part in parts):
        raise click.UsageError(f"--shape {text[:99]!r}; expected sizes with x between them, as 4096x4096")
    if any(len(part.lstrip("0")) > len(str(MAX_NBYTES)) for part in parts):  # more digits than int() may take
        raise click.UsageError(f"--shape {text[:99]!r} is too large: it has 2**63 bytes or more; expected less")
    return tuple(map(int, parts))


def _of_shape(shape: tuple[int, ...], element: ElementType) -> tuple[dict[str, Any], dict[str, Any]]:
    check_shape(shape, element)
    dims = check_row_dims(shape, None)
    curves = {named(name, given): frame_bytes(name, shape, element, dims, given) for name, given in contenders()}
    names = list(curves)
    elements = max(1, prod(shape))
    rows = []
    for (name, given), label in zip(contenders(), names, strict=True):
        found = break_even(name, shape, element.dtype, tolerance=_NEAR, **given) if name != "dense" else None
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
        "counted": _COUNTED["shape"],
        "dense_nbytes": prod(shape) * element.width,
        "layouts": rows,
        "smallest": [{"from": s, "layout": names[i]} for s, i in best],
        BOUND: bound,
    }
    return facts, curves


def _index_bits(facts: dict[str, Any], curves: dict[str, Any]) -> dict[str, Callable[[float], int | None]]:
    """Of the layouts that choose the bits of an index themselves: these bits, at a sparsity."""
    shape, element = tuple(facts["shape"]), BY_NAME[facts["dtype"]]

    def bits(name: str, given: dict[str, Any], sparsity: float) -> int | None:
        chosen = chosen_params(name, shape, element, check_row_dims(shape, None), given, sparsity)
        return chosen.get("bits") or chosen.get("index")

    named = zip(facts["layouts"], curves, strict=True)
    every = {label: partial(bits, row["layout"], row["params"]) for row, label in named}
    return {label: of for label, of in every.items() if of(0.5) is not None}


def _shape_text(facts: dict[str, Any]) -> str:
    dense = facts["dense_nbytes"] or 1

    def cells(sizes: dict[str, Any]) -> list[str]:
        return [f"{sizes[str(s)] / dense:.3f}" for s in SPARSITIES]

    rows = [[named(row["layout"], row["params"]), *cells(row["bytes"])] for row in facts["layouts"]]
    rows.append(["entropy bound", *cells(facts[BOUND])])
    lines = [table(["size / dense at zeros of", *(f"{100 * s:.0f} %" for s in SPARSITIES)], rows), ""]
    for row in facts["layouts"][1:]:
        at = row["crossings"]
        name = named(row["layout"], row["params"])
        if row["pays_from"] is None:
            lines.append(f"{name}: never smaller than dense")
        else:
            until = "".join(
                f", {'not' if i % 2 == 0 else 'again'} from {percent(s)}"
                for i, s in enumerate(at[1:] if row["pays_from"] else at)
            )
            lines.append(f"{name}: smaller than dense from {percent(row['pays_from'])} zeros on{until}")
    best = ", ".join(f"{step['layout']} from {percent(step['from'])}" for step in facts["smallest"])
    return "\n".join([*lines, f"Smallest: {best}", "", facts["counted"]])


def _of_tensor(model: ModelFile, name: str, objective: str, prints: Prints) -> dict[str, Any]:
    """What one tensor would take: the smallest layout by prediction, unless encode would leave it dense."""
    info = model.info(name)
    row: dict[str, Any] = {
        "name": name,
        "shape": list(info.shape),
        "dtype": info.dtype,
        "sparsity": None,
        "dense_nbytes": info.dense_nbytes,
        "layout": "dense",
        "packed": False,
        "nbytes": info.dense_nbytes,
        "tied_to": None,
        "pays_from": None,
        "bytes": {},
    }
    if not _countable(model, name):
        return row
    found = _stats(model, name, prints)
    row["sparsity"] = found.sparsity

    def stays_dense(nbytes: int) -> bool:
        return objective == "disk" and not worth_packing(info.shape, info.dense_nbytes, nbytes)

    if stays_dense(_SMALLEST_FRAME):
        return row
    source = CountedSource(found.spec, found.nnz, found)
    plans = smallest(EncodeRequest.of("auto", {}, objective), source, most=1 << 30)
    sizes = {
        named(plan.layout.name, plan.layout.params): predict(
            plan, source.counts(needs_of(plan), plan.spec.grid), found.negative_zeros
        )
        for plan in plans
    }
    row["bytes"] = sizes
    best, (label, nbytes) = plans[0].layout, next(iter(sizes.items()))
    if stays_dense(nbytes):
        return row
    row |= {"layout": label, "packed": True, "nbytes": nbytes}
    if best.name != "dense":
        params = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in best.params.items())
        row["pays_from"] = _pays_from(best.name, info.shape, info.dtype, found.row_dims, params)
    return row


@lru_cache(maxsize=1 << 12)
def _pays_from(
    layout: str, shape: tuple[int, ...], dtype: str, row_dims: int, params: tuple[tuple[str, Any], ...]
) -> float | None:
    """Remembered, as models repeat layers of the same shape."""
    return break_even(layout, shape, BY_NAME[dtype].dtype, row_dims=row_dims, tolerance=_NEAR, **dict(params)).sparsity


def _file_text(facts: dict[str, Any]) -> str:
    lines = [
        [
            row["name"],
            row["dtype"],
            shape_text(row["shape"]),
            f"tied to {row['tied_to']}" if row["tied_to"] else row["layout"] if row["packed"] else STAYS_DENSE,
            "-" if row["sparsity"] is None else percent(row["sparsity"]),
            "-" if row["pays_from"] is None else percent(row["pays_from"]),
            size(row["dense_nbytes"]),
            size(row["nbytes"]),
            ratio(row["dense_nbytes"], row["nbytes"]),
        ]
        for row in facts["tensors"]
    ]
    dense, least = facts["dense_nbytes"], facts["nbytes"]
    total = [counted(len(lines), "tensor"), "", "", "", "", "", size(dense), size(least), ratio(dense, least)]
    header = ["name", "dtype", "shape", "layout", "zeros", "pays from", "dense", "packed", "ratio"]
    return "\n".join([table(header, lines, left=4, total=total), "", facts["counted"], _PAYS_FROM])
