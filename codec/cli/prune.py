"""The verb that prunes a model's weights: prune."""

import os
from pathlib import Path
from typing import Any

import click

from codec.cli.output import emit, force_option, json_option, quiet_option, threads_option
from codec.cli.table import table
from codec.cli.write import check_patterns, choice, chosen, default_target, places, run_work, say, target_of
from codec.encoding.request import OBJECTIVES
from codec.errors import ArgumentError
from codec.model import safe_open
from codec.prune import CAP, CRITERIA, check_structure, fixes_sparsity
from codec.prune.checkpoint import Pruning, Selection, Tensors, left_alone, select
from codec.units import counted, percent, size


@click.command()
@places
@click.option("--sparsity", type=click.FloatRange(0, 1), help="The share of the structures to remove; n:m fixes it.")
@click.option(
    "--structure",
    default="element",
    show_default=True,
    metavar="NAME",
    help="What is removed as a whole: element, row, column, filter, kernel, channel, a block as 4x4, or n:m as 2:4.",
)
@choice(
    "--criterion",
    CRITERIA,
    "What is removed first: the smallest mean |w|, the smallest mean square, or a random choice.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --criterion random.")
@click.option("--global", "together", is_flag=True, help="Use one threshold for all tensors, instead of one for each.")
@click.option(
    "--cap",
    type=click.FloatRange(0, 1),
    help=f"With --global: the largest share that one tensor may lose.  [default: {CAP}, or half-way from --sparsity to "
    "1 if that is more]",
)
@click.option("--allow-empty", is_flag=True, help="Let tensors lose all their structures, instead of keeping one.")
@click.option("--fold", is_flag=True, help="First multiply weights by the pruning masks beside them.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Prune exactly the tensors whose names fit.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Do not prune tensors whose names fit.")
@click.option("--dense", is_flag=True, help="Write plain safetensors, instead of packing what is pruned.")
@choice("--objective", OBJECTIVES, "What to choose layouts for.")
@threads_option
@force_option
@quiet_option
@json_option
def prune(
    src: Path,
    dst: str | None,
    sparsity: float | None,
    structure: str,
    criterion: str,
    seed: int,
    together: bool,
    cap: float | None,
    allow_empty: bool,
    fold: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dense: bool,
    objective: str,
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Set the weights of SRC that matter least to zero.

    SRC, DST and PATTERN are as for codec encode; without DST the name has ".pruned" in it.

    Floating-point tensors of two or more dimensions are pruned, except those whose names say that they are embeddings,
    norms or biases; with --include, exactly the tensors that fit. The others are copied with every bit; codec encode
    can pack them too.
    """
    _check(sparsity, structure, allow_empty, together, cap)
    how: dict[str, Any] = {"structure": structure, "criterion": criterion, "seed": seed}
    with safe_open(src) as model:
        tensors = Tensors(model, fold)
        check_patterns(tensors.sources, include, exclude, quiet)
        selected = _selected(tensors, structure, include, exclude)
        work = Pruning(tensors, selected.names, sparsity, how, allow_empty, dense, objective)
        output = target_of(model, src, dst or default_target(src, "pruned"), force, work)
        if tensors.pairs and not fold:
            found = counted(len(tensors.pairs), "tensor")
            say(f"{found} in two halves, weights and mask, left as they are; --fold multiplies them first", quiet)
        if together:
            work.find_threshold(cap)
        report = run_work(model, output, work, "Pruning", threads, quiet)
        count, before = len(model), sum(model.info(name).dense_nbytes for name in model)
    rows = [work.done[name] for name in selected.names]
    _correct_signs(rows, output.paths[-1])
    facts = {
        "source": str(src),
        "output": report.index or report.files[0],
        "sparsity": sparsity,
        **how,
        "allow_empty": allow_empty,
        "global": together,
        "cap": cap,
        "tensors": count,
        "folded": len(tensors.pairs) if fold else 0,
        "dense_nbytes": before,
        "file_bytes": sum(os.path.getsize(path) for path in output.files),
        "pruned": rows,
        "negative_zeros": sum(row["negative_zeros"] for row in rows),
        "left_alone": dict(selected.left),
    }
    emit(facts, lambda: _text(facts), as_json)


def _check(sparsity: float | None, structure: str, allow_empty: bool, together: bool, cap: float | None) -> None:
    """Status 2 for what no model could be pruned by."""
    try:
        check_structure(structure)
    except ArgumentError as error:
        raise click.UsageError(f"--{error}") from None
    if fixes_sparsity(structure) != (sparsity is None):
        raise click.UsageError(
            f"--structure {structure} {'fixes the sparsity' if sparsity is not None else 'needs --sparsity'}"
        )
    if sparsity is not None and sparsity != sparsity:
        raise click.UsageError("--sparsity nan; expected a share from 0 to 1")
    if sparsity == 1 and not allow_empty:
        raise click.UsageError("--sparsity 1 leaves nothing; --allow-empty says that it may")
    if cap is not None and (not together or sparsity is None):
        raise click.UsageError("--cap is for --global, where one threshold decides for all tensors")
    if cap is not None and sparsity is not None and not cap >= sparsity:
        raise click.UsageError(f"--cap {cap} keeps every tensor below --sparsity {sparsity}; expected at least that")


def _selected(tensors: Tensors, structure: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> Selection:
    try:
        return select(tensors, structure, lambda name: chosen(name, include, exclude), named=bool(include))
    except ArgumentError as error:
        way = (
            "--fold multiplies halves" if tensors.pairs else "codec inspect lists them, --include names what is pruned"
        )
        raise ArgumentError(f"{error}; {way}") from None


def _correct_signs(rows: list[dict[str, Any]], path: str) -> None:
    """A kept -0.0 becomes +0.0 in tensors that were packed, and in no others."""
    with safe_open(path) as model:
        for row in rows:
            row["negative_zeros"] *= model.info(row["name"]).stored_as == "frame"


def _text(facts: dict[str, Any]) -> str:
    def cells(weights: int, removed: int, zeros: int) -> list[str]:
        return [f"{weights:,}", percent(removed / max(1, weights)), percent(zeros / max(1, weights))]

    rows = []
    for row in facts["pruned"]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        rows.append([row["name"], row["dtype"], shape, *cells(row["weights"], row["removed"], row["zeros"])])
    sums = [sum(row[key] for row in facts["pruned"]) for key in ("weights", "removed", "zeros")]
    total = [counted(len(rows), "tensor"), "", "", *cells(*sums)]
    lines = [table(["name", "dtype", "shape", "weights", "removed", "zeros"], rows, left=3, total=total)]
    if facts["folded"]:
        lines.append(f"{counted(facts['folded'], 'pair')} of weights and mask became one tensor each")
    if facts["negative_zeros"]:
        lines.append(f"{counted(facts['negative_zeros'], 'negative zero')} of the pruned tensors became +0.0")
    if facts["left_alone"]:
        lines.append(f"Left alone (--include prunes them too): {left_alone(facts['left_alone'])}")
    others = counted(facts["tensors"] - facts["folded"] - len(rows), "other tensor")
    sizes = f"{size(facts['file_bytes'])}, dense {size(facts['dense_nbytes'])}"
    return "\n".join([*lines, f"{facts['output']}: {sizes}, with {others}"])
