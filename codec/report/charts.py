"""The curves of a report, by plotly: bits per weight over the sparsity, with crossings and the model's layers."""

import base64
import gzip
import html
import json
from typing import Any

import numpy as np

from codec.errors import CodecError
from codec.report.facts import BATCHES, SPARSITIES

# Colours and dashes both tell the curves apart, for readers who do not see the colours.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#AA4499", "#8C564B", "#E6AB02", "#332288", "#56B4E9", "#882255", "#66A61E"),
    *("#CC3311", "#117733"),
)
_DASHES = ("solid", "dash", "dot")
_STEEP = SPARSITIES[-2:]  # where curves of speed are so steep that they would press the others down


def library() -> str:
    """plotly's JavaScript, gzipped and in base64: a page unpacks it, and needs no network.

    Raises CodecError without plotly.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise CodecError("the report's charts need plotly: pip install 'codec[report]'") from None
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def bits_chart(curve: dict[str, Any]) -> dict[str, Any]:
    """Bits per weight of each layout for one shape, as plotly's JSON."""
    import plotly.graph_objects as go

    dense = 8 * curve["dense_nbytes"] / curve["elements"]
    figure = go.Figure()
    for number, (label, nbytes) in enumerate(curve["bytes"].items()):
        bits = [8 * n / curve["elements"] for n in nbytes]
        if min(bits) < dense:
            _line(figure, number, label, bits)
            _mark(figure, number, label, _crossing([dense - b for b in bits]), dense)
    figure.add_scatter(x=[0, 100], y=[dense, dense], name="dense", mode="lines", line={"color": "black", "width": 1})
    _layers(figure, curve["layers"], "bits", ", on disk")
    return _plain(figure, "bits per weight", [0, 1.3 * dense])


def speed_chart(curve: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times as fast as the dense library the fastest layout is, by batch; none without a machine."""
    import plotly.graph_objects as go

    if not curve["seconds"]:
        return []
    figure, most = go.Figure(), 1.0
    for number, (batch, seconds, dense) in enumerate(
        zip(BATCHES, curve["seconds"], curve["dense_seconds"], strict=True)
    ):
        faster = [dense / s for s in seconds]
        most = max(most, *faster[: -len(_STEEP)])
        _line(figure, number, f"batch {batch}", faster)
        _mark(figure, number, f"batch {batch}", _crossing([f - 1 for f in faster]), 1.0)
    figure.add_scatter(x=[0, 100], y=[1, 1], name="dense library", mode="lines", line={"color": "black", "width": 1})
    _layers(figure, [one for one in curve["layers"] if one["faster"] is not None], "faster", ", batch 1")
    return [_plain(figure, "times as fast as dense", [0, 1.1 * most])]


def _line(figure: Any, number: int, label: str, values: list[float]) -> None:
    style = {"color": COLOURS[number % len(COLOURS)], "dash": _DASHES[number % len(_DASHES)]}
    figure.add_scatter(x=[100 * s for s in SPARSITIES], y=values, name=label, mode="lines", line=style)


def _mark(figure: Any, number: int, label: str, at: float | None, height: float) -> None:
    """A dot where a curve starts to pay."""
    if at is not None:
        figure.add_scatter(
            x=[at], y=[height], mode="markers", marker={"size": 8, "color": COLOURS[number % len(COLOURS)]},
            showlegend=False, hovertext=f"{label} pays from {at:.1f} %", hoverinfo="text",
        )  # fmt: skip


def _layers(figure: Any, layers: list[dict[str, Any]], key: str, where: str = "") -> None:
    """The layers as points; their names are escaped, as plotly would take tags and links in them for its own."""
    figure.add_scatter(
        x=[100 * one["sparsity"] for one in layers], y=[one[key] for one in layers], name=f"layers of the model{where}",
        mode="markers", marker={"symbol": "diamond", "size": 10, "color": "#d62728"},
        hovertext=[html.escape(one["name"]) for one in layers], hoverinfo="text+x+y",
    )  # fmt: skip


def _plain(figure: Any, title: str, heights: list[float]) -> dict[str, Any]:
    figure.update_layout(
        xaxis={"title": "zeros, %", "range": [0, 100]}, yaxis={"title": title, "range": heights},
        margin={"l": 50, "r": 10, "t": 10}, autosize=True,  # page.html sets the legend and its room
    )  # fmt: skip
    found: dict[str, Any] = json.loads(figure.to_json())
    found["layout"].pop("template", None)  # colours and grids that are the defaults, and many bytes
    return found


def _crossing(gains: list[float]) -> float | None:
    """The share of zeros in per cent where gains first rise above 0, between two points."""
    above = np.flatnonzero(np.array(gains) > 0)
    if not len(above) or above[0] == 0:
        return None
    i = int(above[0])
    low, high = SPARSITIES[i - 1], SPARSITIES[i]
    return 100 * (low + (high - low) * gains[i - 1] / (gains[i - 1] - gains[i]))
