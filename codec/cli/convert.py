"""The verb that turns packed tensors into other layouts, or makes a file's index again: convert."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from codec.cli.foreign import is_foreign, translate
from codec.cli.output import (
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source_file,
    threads_option,
)
from codec.cli.table import table
from codec.cli.write import (
    check_folder,
    check_patterns,
    chosen,
    layout_params,
    param_option,
    places,
    target_of,
    write_all,
)
from codec.encoding.request import OBJECTIVES
from codec.entropy import CHOICES
from codec.errors import ArgumentError
from codec.formats import FORMATS
from codec.layouts import LAYOUTS
from codec.model import ModelFile, TensorInfo, naming, reindex, safe_open, save_file
from codec.model.output import Output
from codec.model.reindexing import reindex_output
from codec.units import counted, ratio, size


@click.command()
@places
@click.option("--objective", type=click.Choice(OBJECTIVES), help="What to choose layouts for.  [default: disk]")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), help="One layout for all packed tensors.")
@param_option
@click.option("--entropy", type=click.Choice(CHOICES), help="How streams are coded.  [default: auto]")
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Convert only tensors whose names fit; may be repeated."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Do not convert tensors whose names fit; with --to they are dense.",
)
@click.option(
    "--from", "read_as", type=click.Choice(list(FORMATS)), help="The format of SRC.  [default: told by its content]"
)
@click.option("--to", "write_as", type=click.Choice(list(FORMATS)), help="The format of DST.  [default: codec]")
@click.option("--like", type=source_file, help="With --to onnx or tflite: the file whose network DST keeps.")
@click.option("--reindex", "again", is_flag=True, help="Make the index again, after another tool has dropped it.")
@threads_option
@force_option
@quiet_option
@json_option
def convert(
    src: Path,
    dst: str | None,
    objective: str | None,
    layout: str | None,
    given: tuple[str, ...],
    entropy: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    read_as: str | None,
    write_as: str | None,
    like: Path | None,
    again: bool,
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a model in other layouts or formats.

    Other layouts: --objective or --layout says which. Each packed tensor is converted segment by segment, and keeps its
    zero rule and its values. The other tensors and the metadata are copied.

    Other tools: SRC may be a file or a folder of another tool, and --to names the format of DST; codec formats lists
    the formats. A tensor is stored sparse if it has two dimensions or more and becomes smaller, or if --include names
    it; --exclude keeps it dense. Weights are multiplied by the pruning masks beside them. Pickles are read with
    weights_only=True.

    A lost index: --reindex makes it again. All frames are decoded on the way, so that damage is found.

    SRC, DST and PATTERN are as for codec encode, but DST must be given. To get plain safetensors, use codec decode; to
    pack a plain file, codec encode.
    """
    if dst is None:
        raise click.UsageError("Missing argument 'DST'.")
    params = layout_params(layout or "auto", given, entropy)
    wanted = {k: v for k, v in {"objective": objective, "layout": layout, "entropy": entropy}.items() if v is not None}
    if again and (wanted or include or exclude or read_as or write_as or like):
        raise click.UsageError("--reindex stands alone: it does not change layouts or formats")
    if again:
        _reindex(src, dst, force, as_json)
        return
    if is_foreign(src, read_as, write_as):
        arguments = {**wanted, **params}
        translate(src, dst, read_as, write_as, like, arguments, include, exclude, threads, force, quiet, as_json)
        return
    if like is not None:
        raise click.UsageError("--like needs --to onnx or --to tflite")
    with safe_open(src) as model:
        if not wanted:
            raise click.UsageError(
                "expected one of --objective, --layout, --entropy, --to and --reindex; codec decode makes it dense"
            )
        check_patterns(model.keys(), include, exclude, quiet)
        before = {name: model.info(name) for name in model}
        frames = {name for name, info in before.items() if info.stored_as == "frame"}
        if not frames:
            raise ArgumentError(f"{str(src)!r} holds no packed tensors: codec encode packs them")
        converted = {name for name in frames if chosen(name, include, exclude)}
        if not converted:
            raise click.UsageError("no packed tensor has such a name: codec inspect lists them")
        output = target_of(model, src, dst, force)

        def read(name: str) -> Any:
            return _converted(model, name, {**wanted, **params}) if name in converted else model.get_stored(name)

        def write(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
            save_file(tensors, path, metadata, plan={"*": "dense"})  # of what is not packed

        report = write_all(model, output, read, write, "Converting", threads, quiet)
    facts = {
        "source": str(src),
        "output": report.index or report.files[0],
        "converted": len(converted),
        **_written(output, before),
    }
    emit(facts, lambda: _text(facts), as_json)


def _written(output: Output, before: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What became of the packed tensors, by layouts, and of all."""
    frames = {name for name, info in before.items() if info.stored_as == "frame"}
    with safe_open(output.paths[-1]) as model:
        pairs = {name: (before[name], model.info(name)) for name in model if name in frames}
        others = [(before[name].nbytes, model.info(name).nbytes) for name in model if name not in frames]
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
        "bytes_before": sum(was for was, _ in others) + sum(row["bytes_before"] for row in rows),
        "bytes_after": sum(now for _, now in others) + sum(row["bytes_after"] for row in rows),
        "file_bytes": sum(os.path.getsize(path) for path in output.files),
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


def _reindex(src: Path, dst: str, force: bool, as_json: bool) -> None:
    """Without opening the source as a model: that may be what is not possible."""
    try:
        output = reindex_output(str(src), dst)
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    check_folder(output)
    refuse_overwrite([Path(path) for path in output.paths], force)
    target = reindex(src, dst)[-1]
    with safe_open(target) as model:
        count, frames = len(model), sum(model.info(name).stored_as == "frame" for name in model)
    facts = {"source": str(src), "output": target, "tensors": count, "packed": frames}
    emit(facts, lambda: f"{target}: {counted(count, 'tensor')}, {frames:,} packed, with a new index", as_json)
