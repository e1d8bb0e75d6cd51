"""The verb that says from which share of zeros on a layout pays, for a shape or for a file's tensors: breakeven."""

import re
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import click

from codec.cli.metrics import compare, compared_text
from codec.cli.output import emit, json_option, quiet_option, source, target_file
from codec.cli.plan import plan_facts, plan_text, planned
from codec.cli.table import table
from codec.costs.breakeven import break_even
from codec.costs.crossings import COARSE, envelope
from codec.costs.formulas import entropy_bound
from codec.costs.frames import INDEPENDENT, chosen_params, contenders, frame_bytes, made_for
from codec.costs.metrics import METRICS
from codec.costs.options import named
from codec.dtypes import BY_NAME, ElementType, element_type
from codec.matrix import MAX_NBYTES, check_row_dims, check_shape
from codec.units import percent

SPARSITIES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_BOUND = "entropy_bound"
_SHORT = {"FP64": "F64", "FP32": "F32", "FP16": "F16", "FP8": "F8_E4M3"}
# How exactly a crossing is printed: percentages have two decimals.
_NEAR = 2e-5
_COUNTED = {
    "disk": "The sizes are those of what codec encode writes: frames with heads, streams after the entropy stage, "
    "within 1 % (less where zstandard finds repetitions). A tensor stays dense where packing would save too little.",
    "memory": "The sizes are those of packed tensors in memory: frames with heads, without an entropy stage, exactly.",
    "shape": "The sizes are those of frames with heads. No entropy stage is counted, as what it saves depends on the "
    "values; only layouts huffman and context are always entropy-coded, and their values count as incompressible.",
}
_TIMES = "For times: --metric matvec, matmul or decode, after codec config --measure; for energy --metric energy."
_PAYS_FROM = (
    "Pays from: the sparsity from which on that layout takes fewer bytes than dense where zeros are independent, "
    "without an entropy stage."
)


@click.command()
@click.argument("src", type=source, required=False)
@click.option("--shape", metavar="ROWSxCOLS", help="Compare the layouts for a tensor of this shape, as 4096x4096.")
@click.option("--dtype", default="bf16", show_default=True, help="The dtype of that tensor.")
@click.option(
    "--structure",
    metavar="NAME",
    help="With --shape: zeros that come in 4x4 blocks, filter, 2:4, as in codec prune, beside independent ones.",
)
@click.option(
    "--metric",
    type=click.Choice(["bytes", *METRICS]),
    default="bytes",
    show_default=True,
    help="With --shape: what is compared. Times need a profile of this machine: codec config --measure.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="With --metric matmul and energy: columns of the product.  [default: 1]"
)
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
    structure: str | None,
    metric: str,
    batch: int | None,
    plot: Path | None,
    objective: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show which layout pays, and from which sparsity on.

    With SRC, a model as for codec inspect, its tensors are counted as they are: the table shows the layout that codec
    encode would choose for each, and the bytes that it would write. With --shape, each element of a tensor is a zero
    with the same chance: the table shows what each layout takes at some sparsities, and the lines below it from which
    sparsity on it takes fewer bytes than dense. --metric compares times or energy in the place of bytes.
    """
    if (src is None) == (shape is None):
        raise click.UsageError("expected one of SRC and --shape")
    if batch is not None and metric == "bytes":
        raise click.UsageError("--batch is for --metric matmul and energy: bytes are the same for any product")
    if shape is not None:
        if objective is not None:
            raise click.UsageError("--objective needs SRC: without values no entropy stage can be counted")
        if metric != "bytes":
            if plot is not None or structure is not None:
                raise click.UsageError("--plot and --structure are for --metric bytes")
            found = compare(_shape(shape), _element(dtype), metric, batch or 1, SPARSITIES)
            emit(found, lambda: compared_text(found, SPARSITIES), as_json)
            return
        facts, curves = _of_shape(_shape(shape), _element(dtype), structure or INDEPENDENT)
        if plot is not None:
            from codec.cli.plot import draw  # charts are for this option alone

            draw(plot, facts, curves, _index_bits(facts, curves))
        emit(facts, lambda: _shape_text(facts), as_json)
        return
    if metric != "bytes":
        raise click.UsageError("--metric needs --shape: codec plan --objective speed has the times of a file's tensors")
    if plot is not None or structure is not None:
        raise click.UsageError(f"--{'plot' if plot else 'structure'} needs --shape: a file's tensors have their zeros")
    assert src is not None
    chosen = planned(src, objective=objective or "disk", quiet=quiet)
    facts = plan_facts(src, chosen) | {"counted": _COUNTED[chosen.objective]}
    emit(facts, lambda: f"{plan_text(chosen)}\n\n{facts['counted']}\n{_PAYS_FROM}", as_json)


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


def _of_shape(shape: tuple[int, ...], element: ElementType, structure: str) -> tuple[dict[str, Any], dict[str, Any]]:
    check_shape(shape, element)
    dims = check_row_dims(shape, None)
    sides = [*contenders(), *made_for(structure)]
    curves = {named(name, given): frame_bytes(name, shape, element, dims, given, structure) for name, given in sides}
    elements = max(1, prod(shape))
    rows = []
    for (name, given), curve in zip(sides, curves.values(), strict=True):
        row = {"layout": name, "params": given, "bytes": {str(s): curve(s) for s in SPARSITIES}}
        rows.append(row | _crossings(name, given, shape, element, structure))
        if structure != INDEPENDENT:
            rows[-1]["independent"] = _crossings(name, given, shape, element, INDEPENDENT)
    best = envelope(list(curves.values()), COARSE)
    bound = {str(s): entropy_bound(s, 8 * element.width) * elements / 8 for s in SPARSITIES}
    facts = {
        "shape": list(shape),
        "dtype": element.name,
        "structure": structure,
        "counted": _COUNTED["shape"],
        "dense_nbytes": prod(shape) * element.width,
        "layouts": rows,
        "smallest": [{"from": s, "layout": list(curves)[i]} for s, i in best],
        _BOUND: bound,
    }
    return facts, curves


def _crossings(
    name: str, given: dict[str, Any], shape: tuple[int, ...], element: ElementType, structure: str
) -> dict[str, Any]:
    """Where a layout starts and stops to take fewer bytes than dense."""
    if name == "dense":
        return {"pays_from": None, "crossings": []}
    found = break_even(name, shape, element.dtype, tolerance=_NEAR, structure=structure, **given)
    return {"pays_from": found.sparsity, "crossings": list(found.crossings)}


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
    independent = facts["structure"] == INDEPENDENT
    if independent:
        rows.append(["entropy bound", *cells(facts[_BOUND])])
    lines = [table(["size / dense at zeros of", *(f"{100 * s:.0f} %" for s in SPARSITIES)], rows), ""]
    for row in facts["layouts"][1:]:
        words = f"{named(row['layout'], row['params'])}: {_pays(row)}"
        lines.append(words if independent else f"{words}; with independent zeros {_pays(row['independent'])}")
    best = ", ".join(f"{step['layout']} from {percent(step['from'])}" for step in facts["smallest"])
    zeros = "" if independent else f"Zeros come in structures of {facts['structure']}. "
    return "\n".join([*lines, f"Smallest: {best}", "", zeros + facts["counted"], _TIMES])


def _pays(found: dict[str, Any]) -> str:
    """From which sparsity on a layout is smaller than dense, in words."""
    if found["pays_from"] is None:
        return "never smaller than dense"
    at = found["crossings"]
    until = "".join(
        f", {'not' if i % 2 == 0 else 'again'} from {percent(s)}"
        for i, s in enumerate(at[1:] if found["pays_from"] else at)
    )
    return f"smaller than dense from {percent(found['pays_from'])} zeros on{until}"
