"""The figure of ``codec breakeven --plot``: bits per element over the sparsity, a curve for each layout.

The upper panel shows whole sizes and where they cross the dense one. Good layouts lie close together there, so the
middle panel shows what each takes above the entropy bound, and the strip below says which one is the smallest.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from codec.cli.table import shape_text
from codec.costs.crossings import Cost
from codec.costs.formulas import entropy_bound
from codec.errors import ArgumentError, CodecError
from codec.report.charts import COLOURS
from codec.units import percent

SUFFIXES = (".svg", ".png", ".pdf")
POINTS = 201  # of a curve
# Dashes tell the curves apart too, for readers who do not see the colours.
_DASHES: tuple[Any, ...] = ((0, (6, 1.5)), "-", (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1.5)))
_DENSE, _BOUND = "#000000", "#777777"
_LIGHT = 0.55  # a colour of more luminance takes black text
_HEIGHT = 1.25  # of the upper panel, in dense frames: what lies higher does not pay
_OVERHEAD = 1.15  # of the middle panel, in bits, or more for small tensors: a bitmap is at most 1 bit above the bound
_LABEL = (0.014, 0.07)  # width and height of a label, as shares of the middle panel's: none covers another
_NAMED = 0.14  # a part of the strip that is narrower has no room for a name


def draw(
    path: Path, facts: dict[str, Any], curves: dict[str, Cost], index_bits: dict[str, Callable[[float], int | None]]
) -> None:
    """Write the figure.

    Parameters
    ----------
    path : Path
        Ends in .svg, .png or .pdf.
    facts : dict
        What ``codec breakeven --shape`` prints as JSON.
    curves : dict of str to function
        Bytes over the sparsity by layout, dense first, in the order of ``facts["layouts"]``.
    index_bits : dict of str to function
        For some of the layouts: the bits of an index that are chosen at a sparsity.

    Raises
    ------
    ArgumentError
        For a path with another ending, and for a tensor without elements.
    CodecError
        Without matplotlib.
    """
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"--plot {str(path)!r}; expected a name that ends in .svg, .png or .pdf")
    elements = int(np.prod(facts["shape"], dtype=object))
    if not elements:
        raise ArgumentError(f"--plot of shape {shape_text(facts['shape'])}; expected a tensor with elements")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CodecError("--plot needs matplotlib: pip install 'codec[plot]'") from None
    dense = 8 * facts["dense_nbytes"] / elements
    points = np.linspace(0, 1, POINTS)
    bound = np.array([entropy_bound(float(s), dense) for s in points])
    bits = {name: np.array([8 * curve(float(s)) / elements for s in points]) for name, curve in curves.items()}
    frame = next(iter(bits.values()))  # dense, with its header
    overhead = max(_OVERHEAD, 1.3 * float(np.max(np.min(list(bits.values()), axis=0) - bound)))

    figure = Figure(figsize=(11, 8), layout="constrained", dpi=120)
    upper, middle, strip = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [16, 12, 1]})
    styles = {name: style(number) for number, name in enumerate(curves)}
    for name, row in zip(curves, facts["layouts"], strict=True):
        label = name + _constant(index_bits.get(name))
        upper.plot(100 * points, bits[name], label=label, **styles[name])
        middle.plot(100 * points, bits[name] - bound, **styles[name])
        at = [100 * s for s in row["crossings"]]
        upper.plot(at, np.interp(at, 100 * points, frame), "o", color=styles[name]["color"], markersize=6, zorder=5)
    upper.plot(100 * points, bound, label="entropy bound", color=_BOUND, linewidth=1.2, zorder=1)
    upper.fill_between(100 * points, bound, color=_BOUND, alpha=0.15, linewidth=0, zorder=0)
    middle.axhline(0, color=_BOUND, linewidth=1.2)
    upper.set(ylabel="bits per element", ylim=(0, _HEIGHT * float(frame.max())), xlim=(0, 100))
    upper.set_title(
        f"Expected size of tensors {shape_text(facts['shape'])} of {facts['dtype']} with independent zeros\n"
        "headers included, no entropy stage; dots: where a layout starts or stops to pay",
        fontsize=11,
    )
    middle.set(ylabel="bits above the entropy bound", ylim=(-0.03 * overhead, overhead))
    middle.set_title("Numbers: bits of an index, where the layout chooses others than before", fontsize=9)
    taken: list[tuple[float, float]] = []
    for name, chosen in index_bits.items():
        _label(middle, points, (bits[name] - bound) / overhead, chosen, styles[name]["color"], taken)
    for axes in (upper, middle):
        axes.grid(alpha=0.25)
    _strip(strip, facts["smallest"], styles)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path)


def style(number: int) -> dict[str, Any]:
    """Colour, dashes and width of a curve by its number; dense is number 0."""
    if number == 0:
        return {"color": _DENSE, "linestyle": "-", "linewidth": 2, "zorder": 3}
    colour = COLOURS[(number - 1) % len(COLOURS)]
    return {"color": colour, "linestyle": _DASHES[(number - 1) % len(_DASHES)], "linewidth": 1.8, "zorder": 2}


def _constant(chosen: Callable[[float], int | None] | None) -> str:
    """For the legend: the bits of an index, if they do not depend on the sparsity."""
    few, many = (None, None) if chosen is None else (chosen(0.1), chosen(0.99))
    return f", {few}-bit index" if few == many and few is not None else ""


def _label(
    axes: Any,
    points: np.ndarray,
    heights: np.ndarray,
    chosen: Callable[[float], int | None],
    colour: str,
    taken: list[tuple[float, float]],
) -> None:
    """Write the bits of an index beside a curve, where other bits are chosen than before and no label is near.

    ``heights`` and the places ``taken`` are shares of the panel.
    """
    last = chosen(0.1) if _constant(chosen) else None
    for s, height in zip(points[1:-1], heights[1:-1], strict=True):
        bits, at = chosen(float(s)), (float(s), float(height))
        free = all(abs(at[0] - x) > _LABEL[0] or abs(at[1] - y) > _LABEL[1] for x, y in taken)
        if bits == last or at[1] > 1 - _LABEL[1] or not free:
            continue
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        text = axes.annotate(
            str(bits), (100 * s, height * axes.get_ylim()[1]), (0, 8), textcoords="offset points", color=colour,
            fontsize=8, ha="center", va="center", bbox=box,
        )  # fmt: skip
        text.set_in_layout(False)
        axes.plot([100 * s], [height * axes.get_ylim()[1]], "|", color=colour, markersize=7)
        taken.append(at)
        last = bits


def _strip(axes: Any, smallest: list[dict[str, Any]], styles: dict[str, dict[str, Any]]) -> None:
    """Which layout is the smallest, from where on."""
    ends = [step["from"] for step in smallest[1:]] + [1.0]
    for step, end in zip(smallest, ends, strict=True):
        start, colour = step["from"], styles[step["layout"]]["color"]
        axes.axvspan(100 * start, 100 * end, color=colour, linewidth=0)
        if end - start > _NAMED:
            text, light = f"{step['layout']} from {percent(start)}", _luminance(colour) > _LIGHT
            axes.text(
                50 * (start + end), 0.5, text, color="black" if light else "white", fontsize=8, ha="center", va="center"
            )
    axes.set(yticks=[], ylim=(0, 1), xlabel="zeros, %")
    axes.set_ylabel("smallest", rotation=0, ha="right", va="center", fontsize=8)


def _luminance(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue
