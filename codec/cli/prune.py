"""The verb that prunes a model's weights: prune."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.choose import OBJECTIVES
from codec.cli.output import (
    Progress,
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source_file,
    target_file,
    threads_option,
)
from codec.cli.table import counted, percent, size, table
from codec.cli.write import Tensors, choice, chosen, shards_of, write_all, write_dense
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.modelfile import safe_open, save_file
from codec.modelreader import ModelFile
from codec.prune import CRITERIA, apply_mask, check_structure, fixes_sparsity, masks


@click.command()
@click.argument("src", type=source_file)
@click.argument("dst", type=target_file)
@click.option("--sparsity", type=click.FloatRange(0, 1), help="Share of the structures to remove; not for n:m.")
@click.option(
    "--structure",
    default="element",
    show_default=True,
    metavar="NAME",
    help="What goes as one: element, row, column, filter, kernel, channel, a block as 4x4, or n:m as 2:4.",
)
@choice("--criterion", CRITERIA, "What goes first: the least mean |w|, the least mean square, or any.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For random.")
@click.option("--global", "together", is_flag=True, help="One threshold for all tensors; otherwise each by itself.")
@click.option("--allow-empty", is_flag=True, help="A tensor may lose all its structures; otherwise each keeps one.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Prune tensors of such names, whatever they are.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Do not prune tensors of such names.")
@click.option("--dense", is_flag=True, help="Write plain safetensors; otherwise tensors are packed.")
@choice("--objective", OBJECTIVES, "What to choose layouts for.")
@threads_option
@force_option
@quiet_option
@json_option
def prune(
    src: Path,
    dst: Path,
    sparsity: float | None,
    structure: str,
    criterion: str,
    seed: int,
    together: bool,
    allow_empty: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dense: bool,
    objective: str,
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Remove the weights of SRC that matter least, and write the rest.

    Pruned are floating-point tensors of two or more dimensions, or those that --include names; the others are taken as
    they are. SRC is one file or the .safetensors.index.json of a sharded model, which becomes one file, or is kept in
    shards where DST ends so too. Patterns are as for encode.
    """
    _check(sparsity, structure, allow_empty)
    shards = shards_of(src, dst)
    refuse_overwrite([dst, *shards], force)
    how: dict[str, Any] = {"structure": structure, "criterion": criterion, "seed": seed, "allow_empty": allow_empty}
    rows: dict[str, dict[str, Any]] = {}

    def write(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
        if dense:
            write_dense(path, tensors, metadata)
        else:
            save_file(tensors, path, metadata, objective=objective)

    with safe_open(src) as model:
        names = _prunable(model, include, exclude)
        kept = {}
        if together:
            with Progress(sum(model.info(name).dense_nbytes for name in names), "Scoring", quiet) as progress:
                kept = _masks(Tensors(model, names, model.get_tensor, progress), sparsity, how)

        def read(name: str) -> Any:
            tensor = model.get_tensor(name)
            if name not in names:
                return tensor
            mask = kept.pop(name) if together else _masks({name: tensor}, sparsity, how)[name]
            pruned = apply_mask(tensor, mask)
            rows[name] = {
                "name": name,
                "dtype": model.info(name).dtype,
                "shape": list(pruned.shape),
                "weights": pruned.size,
                "removed": pruned.size - int(np.count_nonzero(mask)),
                "zeros": pruned.size - int(np.count_nonzero(pruned)),
            }
            return pruned

        write_all(model, dst, shards, read, write, "Pruning", threads, quiet)
        count, before = len(model), sum(model.info(name).dense_nbytes for name in model)
    facts = {
        "source": str(src),
        "output": str(dst),
        "sparsity": sparsity,
        **how,
        "global": together,
        "tensors": count,
        "dense_nbytes": before,
        "file_bytes": sum(path.stat().st_size for path in shards or [dst]),
        "pruned": [rows[name] for name in names],
    }
    emit(facts, lambda: _text(facts), as_json)


def _check(sparsity: float | None, structure: str, allow_empty: bool) -> None:
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


def _prunable(model: ModelFile, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    names = []
    for name in model:
        info = model.info(name)
        weights = info.dtype in BY_NAME and BY_NAME[info.dtype].is_float and len(info.shape) >= 2
        if chosen(name, include, exclude) and (include or weights):
            names.append(name)
    if not names:
        wanted = "of such a name" if include or exclude else "of floating-point numbers and two or more dimensions"
        raise ArgumentError(f"no tensor {wanted}: codec inspect lists them")
    return names


def _masks(tensors: Mapping[str, Any], sparsity: float | None, how: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(masks(tensors, sparsity, **how))
    except ArgumentError as error:
        raise ArgumentError(f"{error}; --include and --exclude choose what is pruned") from None


def _text(facts: dict[str, Any]) -> str:
    def cells(weights: int, removed: int, zeros: int) -> list[str]:
        return [f"{weights:,}", percent(removed / max(1, weights)), percent(zeros / max(1, weights))]

    rows = []
    for row in facts["pruned"]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        rows.append([row["name"], row["dtype"], shape, *cells(row["weights"], row["removed"], row["zeros"])])
    sums = [sum(row[key] for row in facts["pruned"]) for key in ("weights", "removed", "zeros")]
    total = [counted(len(rows), "tensor"), "", "", *cells(*sums)]
    shown = table(["name", "dtype", "shape", "weights", "removed", "zeros"], rows, left=3, total=total)
    others = counted(facts["tensors"] - len(rows), "other tensor")
    return f"{shown}\n{facts['output']}: with {others} {size(facts['file_bytes'])}, dense {size(facts['dense_nbytes'])}"
