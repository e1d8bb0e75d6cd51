"""The page of a report: its frame in page.html, the facts as JSON, and plotly, all in one file without a network."""

import html
import json
import os
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from codec.costs.machine import MachineProfile, cached
from codec.model import safe_open
from codec.model.atomic import write_atomic
from codec.report.charts import bits_chart, library, speed_chart
from codec.report.facts import facts_of

Path = str | os.PathLike[str]


def report(
    source: Path,
    output: Path,
    *,
    machine: MachineProfile | None = None,
    progress: Callable[[str, Any], object] | None = None,
) -> dict[str, Any]:
    """Write the report of a model: one HTML page that works without a network, on a phone, and on paper.

    Parameters
    ----------
    source : path
        A model, as for ``safe_open``.
    output : path
        The page.
    machine : MachineProfile, optional
        For times; by default what `profile_machine` has cached, and without that the page has none.
    progress : callable, optional
        As for ``plan``.

    Returns
    -------
    dict
        What the page shows, as plain data.

    Raises
    ------
    CodecError
        Without plotly (``pip install 'codec[report]'``), and as ``safe_open``.
    """
    script = library()
    path = os.fsdecode(source)
    with safe_open(path) as model:
        facts = facts_of(model, os.path.basename(os.path.normpath(path)), machine or cached(), progress)
    charts = [[bits_chart(curve), *speed_chart(curve)] for curve in facts["curves"]]
    frame = files("codec.report").joinpath("page.html").read_text(encoding="utf-8")
    title = html.escape(facts["name"])
    parts = {"title": title, "facts": _script_safe(facts), "charts": _script_safe(charts), "plotly": script}
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], frame)  # once: a name may look like a part
    write_atomic(os.fsdecode(output), iter([page.encode(errors="replace")]))  # a file's name may be no text
    return facts


def _script_safe(data: Any) -> str:
    """JSON inside a script element: nothing in a tensor's name can end it or begin a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
