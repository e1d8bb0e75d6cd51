"""The verb that turns packed tensors into other layouts, or makes a file's index again: convert."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import click

from codec.choose import OBJECTIVES
from codec.cli.output import (
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source_file,
    target_file,
    threads_option,
)
from codec.cli.table import counted, ratio, size, table
from codec.cli.write import chosen, layout_params, param_option, shards_of, write_all
from codec.entropy import Entropy
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS
from codec.modelfile import reindex, safe_open, save_file
from codec.modelreader import ModelFile, TensorInfo, naming


@click.command()
@click.argument("src", type=source_file)
@click.argument("dst", type=target_file)
@click.option("--objective", type=click.Choice(OBJECTIVES), help="What to choose layouts for.  [default: disk]")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), help="One layout for all packed tensors.")
@param_option
@click.option("--entropy", type=click.Choice(get_args(Entropy)), help="How streams are coded.  [default: auto]")
@click.option("--include", multiple=True, metavar="PATTERN", help="Convert only tensors of such names.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave tensors of such names as they are.")
@click.option("--reindex", "again", is_flag=True, help="Make the index again, where another tool dropped it.")
@threads_option
@force_option
@quiet_option
@json_option
def convert(
    src: Path,
    dst: Path,
    objective: str | None,
    layout: str | None,
    given: tuple[str, ...],
    entropy: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    again: bool,
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the packed tensors of SRC in other layouts: --objective or --layout; or --reindex it.

    Each goes from layout to layout segment by segment, with the zero rule and the values that it has; the others and
    the metadata are taken as they are. SRC is one file or the .safetensors.index.json of a sharded model, which becomes
    one file, or is kept in shards where DST ends so too. Patterns are as for encode.

    With --reindex frames, which are complete without the index, are decoded to prove them. What makes plain safetensors
    is codec decode, and what packs a plain file codec encode.
    """
    params = layout_params(layout or "auto", given)
    wanted = {k: v for k, v in {"objective": objective, "layout": layout, "entropy": entropy}.items() if v is not None}
    if again and (wanted or include or exclude):
        raise click.UsageError("--reindex stands alone: it leaves the layouts as they are")
    if again:
        _reindex(src, dst, force, as_json)
        return
    if not wanted:
        raise click.UsageError(
            "say what to convert to: --objective, --layout, --entropy or --reindex (decode for dense)"
        )
    shards = shards_of(src, dst)
    refuse_overwrite([dst, *shards], force)

    def write(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata, plan={"*": "dense"})  # of what is not packed

    with safe_open(src) as model:
        before = {name: model.info(name) for name in model}
        frames = {name for name, info in before.items() if info.stored_as == "frame"}
        if not frames:
            raise ArgumentError(f"{str(src)!r} holds no packed tensors: codec encode packs them")
        converted = {name for name in frames if chosen(name, include, exclude)}
        if not converted:
            raise ArgumentError(f"no packed tensor of {str(src)!r} has such a name: codec inspect lists them")

        def read(name: str) -> Any:
            if name in converted:
                return _converted(model, name, {**wanted, **params})
            return model.get_packed(name) if name in frames else model.get_tensor(name)

        write_all(model, dst, shards, read, write, "Converting", threads, quiet)
    facts = {
        "source": str(src),
        "output": str(dst),
        "converted": len(converted),
        **_written(dst, before, shards or [dst]),
    }
    emit(facts, lambda: _text(facts), as_json)


def _written(dst: Path, before: Mapping[str, TensorInfo], files: Iterable[Path]) -> dict[str, Any]:
    """What became of the packed tensors, by layouts, and of all."""
    frames = {name for name, info in before.items() if info.stored_as == "frame"}
    with safe_open(dst) as model:
        pairs = {name: (before[name], model.info(name)) for name in model if name in frames}
        others = sum(model.info(name).nbytes for name in model if name not in frames)
    routes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for old, new in pairs.values():
        routes.setdefault((old.layout, new.layout), []).append((old.nbytes, new.nbytes))
    rows: list[dict[str, Any]] = [
        {
            "from": old,
            "to": new,
            "tensors": len(sizes),
            "bytes_before": sum(was for was, _ in sizes),
            "bytes_after": sum(now for _, now in sizes),
        }
        for (old, new), sizes in sorted(routes.items())
    ]
    return {
        "tensors": len(before),
        "packed": len(frames),
        "bytes_before": others + sum(row["bytes_before"] for row in rows),
        "bytes_after": others + sum(row["bytes_after"] for row in rows),
        "file_bytes": sum(path.stat().st_size for path in files),
        "layouts": rows,
    }


def _converted(model: ModelFile, name: str, wanted: dict[str, Any]) -> Any:
    packed = model.get_packed(name)
    with naming(name):
        try:
            return packed.to_layout(**wanted)
        except ArgumentError as error:
            raise ArgumentError(f"{error}; --exclude {name!r} leaves it as it is") from None


def _text(facts: dict[str, Any]) -> str:
    def row(source: str, target: str, group: dict[str, Any]) -> list[str]:
        before, after = group["bytes_before"], group["bytes_after"]
        return [source, target, f"{group['tensors']:,}", size(before), size(after), ratio(before, after)]

    rows = [row(group["from"], group["to"], group) for group in facts["layouts"]]
    shown = table(["from", "to", "tensors", "before", "after", "ratio"], rows, left=2, total=row("all", "", facts))
    frames, on_disk = counted(facts["packed"], "packed tensor"), size(facts["file_bytes"])
    return f"{shown}\n{facts['output']}: {frames}, {on_disk} on disk"


def _reindex(src: Path, dst: Path, force: bool, as_json: bool) -> None:
    if src.name.endswith(".index.json"):
        raise click.UsageError(f"{str(src)!r} is the index of a sharded model: reindex its shards one by one")
    refuse_overwrite([dst], force)
    reindex(src, dst)
    with safe_open(dst) as model:
        count, frames = len(model), sum(model.info(name).stored_as == "frame" for name in model)
    facts = {"source": str(src), "output": str(dst), "tensors": count, "packed": frames}
    emit(facts, lambda: f"{dst}: {counted(count, 'tensor')}, {frames:,} packed, with a new index", as_json)
