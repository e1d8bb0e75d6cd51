"""The part of breakeven that compares times and energy instead of bytes."""

from typing import Any

from codec.cli.table import shape_text, table
from codec.costs.breakeven import break_even
from codec.costs.frames import contenders
from codec.costs.metrics import machine_for
from codec.costs.options import named
from codec.dtypes import ElementType
from codec.units import duration, percent, ratio

_NOTES = {
    "energy": "Energy of one product by the published table of a 45 nm process: every byte of the weights is read from "
    "DRAM once, a zero weight is multiplied with by the dense way only.",
    "decode": "Times of one thread, as predicted from this machine's profile; dense is a copy of the tensor.",
}
_PRODUCT = (
    "Times of one thread, as predicted from this machine's profile; dense is the fastest dense library's product."
)


def compare(
    shape: tuple[int, ...], element: ElementType, metric: str, batch: int, sparsities: tuple[float, ...]
) -> dict[str, Any]:
    """What each layout costs by a metric, and from which sparsity on it pays."""
    machine = machine_for(metric, None)
    sides = [one for one in (contenders() if machine is None else machine.executed()) if one[0] != "dense"]
    rows, dense = [], 0.0
    for name, params in sides:
        found = break_even(name, shape, element.dtype, metric=metric, batch=batch, machine=machine, **params)
        curve = found.curve(sparsities)
        dense = float(curve[0, 2])
        rows.append(
            {
                "layout": name,
                "params": params,
                "pays_from": found.sparsity,
                "crossings": list(found.crossings),
                "costs": {str(s): float(cost) for s, cost in zip(sparsities, curve[:, 1], strict=True)},
            }
        )
    return {
        "shape": list(shape),
        "dtype": element.name,
        "metric": metric,
        "batch": batch,
        "unit": "joules" if metric == "energy" else "seconds",
        "dense": dense,
        "counted": _NOTES.get(metric, _PRODUCT),
        "layouts": rows,
    }


def compared_text(facts: dict[str, Any], sparsities: tuple[float, ...]) -> str:
    """The comparison as a table."""
    text = _joules if facts["unit"] == "joules" else duration
    dense = facts["dense"]
    rows = [
        [
            named(row["layout"], row["params"]),
            "never" if row["pays_from"] is None else percent(row["pays_from"]),
            *(ratio(dense, row["costs"][str(s)]) for s in sparsities),
        ]
        for row in facts["layouts"]
    ]
    header = ["times cheaper at zeros of", "pays from", *(f"{100 * s:.0f} %" for s in sparsities)]
    title = f"{facts['metric']} {shape_text(facts['shape'])} of {facts['dtype']}, batch {facts['batch']}"
    return "\n".join([f"{title}: dense takes {text(dense)}", "", table(header, rows), "", facts["counted"]])


def _joules(joules: float) -> str:
    return f"{1e3 * joules:.3g} mJ"
