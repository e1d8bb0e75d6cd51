"""The verb that chooses layouts for the tensors of a model before anything is encoded: plan."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from codec.cli.output import (
    Progress,
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source,
    target_file,
)
from codec.cli.table import safe, shape_text, table, terminal_width
from codec.cli.write import choice, layout_params
from codec.costs.machine import cached
from codec.costs.plan import Choice, Plan
from codec.costs.planner import plan as make_plan
from codec.encoding.request import OBJECTIVES
from codec.model import safe_open
from codec.units import counted, duration, percent, ratio, size

STAYS_DENSE = "stays dense"


@click.command()
@click.argument("src", type=source)
@click.option(
    "-o", "--output", type=target_file, help="Write the plan as JSON, to be edited and given to codec encode."
)
@choice("--objective", OBJECTIVES, "What to choose layouts for.")
@click.option(
    "--rule",
    "given",
    multiple=True,
    metavar="PATTERN=LAYOUT",
    help="A layout that tensors of such names take whatever it costs, as 'fc*=csr' or '*.proj=relative_index,bits=4'.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="With --objective speed: columns of x.  [default: 1, if times are known]"
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="BYTES",
    help="With --objective speed: the fastest plan of at most BYTES.",
)
@click.option("--explain", is_flag=True, help="Print why each tensor takes its layout.")
@force_option
@quiet_option
@json_option
def plan(
    src: Path,
    output: Path | None,
    objective: str,
    given: tuple[str, ...],
    batch: int | None,
    limit: int | None,
    explain: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Choose a layout for each tensor of SRC.

    SRC is a model as for codec inspect. Its tensors are counted, nothing is encoded, and the table tells what it saves.
    A tensor that would not get smaller, or a product with it not faster, stays dense. --output writes the choices for
    codec encode --plan.

    Times for --objective speed are those of this machine's profile, which codec config --measure makes once; without
    it, the layouts are those that codec encode takes.
    """
    if output is not None:
        refuse_overwrite([output], force)
    machine = cached() if objective == "speed" else None
    options: dict[str, Any] = {"rules": [_rule(text) for text in given], "batch": batch, "limit": limit}
    found = planned(src, objective=objective, machine=machine, quiet=quiet, **options)
    if output is not None:
        found.save(output)
    emit(plan_facts(src, found), lambda: plan_text(found, explain), as_json)


def planned(src: Path, *, quiet: bool, **options: Any) -> Plan:
    """The plan of a model, with a progress bar while its tensors are counted."""
    with safe_open(src) as model:
        total = sum(model.info(name).dense_nbytes for name in model)
        with Progress(total, "Counting", quiet) as bar:
            return make_plan(model, progress=lambda name, _: bar.advance(model.info(name).dense_nbytes), **options)


def _rule(text: str) -> tuple[str, dict[str, Any]]:
    pattern, sign, rest = text.rpartition("=") if "," not in text else text.partition("=")
    name, *params = rest.split(",")
    if not (sign and pattern and name):
        raise click.UsageError(f"--rule {text!r}; expected PATTERN=LAYOUT, as 'fc*=csr' or 'fc*=relative_index,bits=4'")
    return pattern, {"layout": name, **layout_params(name, params)}


def plan_facts(src: Path, found: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "source": str(src),
        "objective": found.objective,
        "dense_nbytes": found.dense_nbytes,
        "nbytes": found.nbytes,
        "seconds": found.seconds,
        "collapsed": list(found.collapsed),
        "tensors": [_facts(one) for one in found.choices],
    }


def _facts(one: Choice) -> dict[str, Any]:
    return {
        "name": one.name,
        "shape": list(one.shape),
        "dtype": one.dtype,
        "sparsity": one.sparsity,
        "dense_nbytes": one.dense_nbytes,
        "layout": one.label,
        "packed": one.packed,
        "nbytes": 0 if one.tied_to else one.nbytes,
        "seconds": one.seconds,
        "dense_seconds": one.dense_seconds,
        "tied_to": one.tied_to,
        "pays_from": one.pays_from,
        "bytes": dict(one.options),
        "why": one.why,
    }


def plan_text(found: Plan, explain: bool = False) -> str:
    """A plan as a table, and the reasons below it."""
    timed = found.seconds is not None
    narrow = terminal_width() is not None
    groups = blocks(found.choices) if narrow else [[one] for one in found.choices]
    lines = [_line(group, timed, narrow) for group in groups]
    dense, least = found.dense_nbytes, found.nbytes
    total = [counted(len(found), "tensor"), "", "", "", "", "", size(dense), size(least), ratio(dense, least)]
    header = ["name", "dtype", "shape", "layout", "zeros", "pays from", "dense", "packed", "ratio"]
    if timed:
        header += ["product", "speed-up"]
        total += _times(found.seconds, sum(one.dense_seconds or 0.0 for one in found.choices))
    text = table(header, lines, left=4, total=total, optional=("pays from", "dtype", "dense", "shape"))
    if explain:
        text += "\n\n" + "\n".join(safe(f"{one.name}: {one.why}") for one in found.choices)
    if found.collapsed:
        text += "\n\n" + safe(f"Layer collapse: {', '.join(found.collapsed)} hold nothing but zeros.")
    return text


def blocks(choices: Sequence[Choice]) -> list[list[Choice]]:
    """Tensors whose names differ in their numbers only, and that are alike and stored alike, together."""
    groups: dict[Any, list[Choice]] = {}
    for one in choices:
        key = one.block, one.dtype, one.shape, one.label, one.stored_as, one.tied_to is None
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def block_name(group: Sequence[Choice]) -> str:
    """The name of a group of blocks, with how many there are."""
    return group[0].name if len(group) == 1 else f"{group[0].block} x {len(group)}"


def _line(group: Sequence[Choice], timed: bool, narrow: bool) -> list[str]:
    """A row of the table: one tensor, or a group of blocks with the range of their zeros and their sums.

    On a terminal layouts come without their parameters, which --explain and --json tell.
    """
    one = group[0]
    layout = one.layout if narrow else one.label
    zeros = [each.sparsity for each in group if each.sparsity is not None]
    dense = sum(each.dense_nbytes for each in group)
    least = 0 if one.tied_to else sum(each.nbytes for each in group)
    spread = "-" if not zeros else percent(min(zeros))
    if zeros and percent(max(zeros)) != spread:
        spread = f"{spread.removesuffix(' %')}-{percent(max(zeros))}"
    line = [
        block_name(group),
        one.dtype,
        shape_text(one.shape),
        f"tied to {one.tied_to}" if one.tied_to else layout if one.packed else STAYS_DENSE,
        spread,
        "-" if one.pays_from is None else percent(one.pays_from),
        size(dense),
        size(least),
        ratio(dense, least) if one.packed and not one.tied_to else "-",
    ]
    return line + (
        _times(_sum(each.seconds for each in group), _sum(each.dense_seconds for each in group)) if timed else []
    )


def _sum(times: Iterable[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return sum(known) if known else None


def _times(seconds: float | None, dense: float | None) -> list[str]:
    if seconds is None or dense is None:
        return ["-", "-"]
    return [duration(seconds), ratio(dense, seconds)]
