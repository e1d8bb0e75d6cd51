"""The verb that lists file formats, formats; and what convert does between our files and those of other tools."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from codec.cli.output import Progress, emit, json_option, quiet_option, refuse_overwrite
from codec.cli.table import table
from codec.cli.write import check_folder, check_patterns, chosen, few, say
from codec.errors import ArgumentError
from codec.formats import FORMATS, Conversion, format_of, open_file, support
from codec.formats.packed import Packed
from codec.kernels import threadpool_limits
from codec.model import safe_open
from codec.model.output import Output, companions
from codec.units import counted, ratio, size

OURS = "codec"


def is_foreign(src: Path, read_as: str | None, write_as: str | None) -> bool:
    """Whether another tool's format is named, or lies there. Plain safetensors files are not: encode packs those."""
    if read_as or write_as:
        return True
    found = format_of(str(src))
    return found is not None and found.name not in (OURS, "safetensors")


def translate(
    src: Path,
    dst: str,
    read_as: str | None,
    write_as: str | None,
    like: Path | None,
    arguments: Mapping[str, Any],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """From one format to another; ``arguments`` are layout arguments for our own."""
    target = FORMATS[write_as or OURS]
    if arguments and not isinstance(target, Packed):
        raise click.UsageError(f"--{next(iter(arguments))} is for our own files: {target.name} has one layout")
    target.require()
    with open_file(src, read_as) as opened:
        check_patterns(opened, include, exclude, quiet)
        taken = {name: chosen(name, include, exclude) for name in opened}
        if isinstance(target, Packed):
            layout = {key: value for key, value in arguments.items() if key != "objective"}
            kept = frozenset(name for name, one in taken.items() if not one)
            target = replace(target, objective=arguments.get("objective", "disk"), layout=layout, kept=kept)
        forms = {name: (True if include else None) if one else False for name, one in taken.items()}
        network = None if like is None else str(like)
        made = Conversion(opened, target, dst, forms.__getitem__, network, "--exclude keeps it dense")
        output = _output(made, src, force)
        notes = list(opened.notes)
        if lost := made.metadata_left_out:
            notes.append(f"metadata left out, for which {target.name} has no room: {few(lost)}")
        for note in notes:
            say(note[:1].upper() + note[1:], quiet)
        seen: set[str] = set()
        with (
            Progress(len(opened), "Converting", quiet) as bar,
            threadpool_limits(threads) if threads else nullcontext(),
        ):

            def tick(name: str) -> None:
                bar.advance(name not in seen)
                seen.add(name)

            made.run(output, tick)
        own = tuple(quote(stem, safe="") + "." for stem in opened.files)
        behind = [name for name in companions(output)[1] if not name.startswith(own)]
        if behind:
            say(f"Left behind, as weights in another form or links: {few(behind)}", quiet)
        if made.removed:
            say(f"Removed shards of an earlier model: {few(made.removed)}", quiet)
    sparse, signs = sorted(made.sparse), made.negative_zeros
    if isinstance(target, Packed):
        sparse, signs = _packed(made, output)
    facts = {
        "source": str(src),
        "from": opened.format,
        "output": output.index or output.folder or made.written(output)[0],
        "to": target.name,
        "tensors": len(made),
        "sparse": sparse,
        "negative_zeros": signs,
        "dense_nbytes": sum(made.sparse.values()) + sum(made.dense.values()),
        "file_bytes": sum(os.path.getsize(path) for path in made.written(output)),
        "notes": notes,
        "left_behind": behind,
    }
    emit(facts, lambda: _text(facts), as_json)


def _packed(made: Conversion, output: Output) -> tuple[list[str], int]:
    """The tensors that were packed, which is decided when they are written, and how many -0.0 became +0.0 in them."""
    with safe_open(output.paths[-1], mmap=True) as model:
        frames = sorted(name for name in model if model.info(name).stored_as == "frame")
        return frames, sum(model.get_packed(name).negative_zeros for name in frames if name not in made.sparse)


def _output(made: Conversion, src: Path, force: bool) -> Output:
    """The files to write; status 2 if that makes no sense, or something is there already."""
    try:
        output = made.output()
        output.check()
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    check_folder(output)
    if any(os.path.realpath(path) == os.path.realpath(src) for path in output.paths):
        raise click.UsageError(f"{made.dst!r} is the source itself: give another DST")
    along = [os.path.join(output.folder or "", name) for name in companions(output)[0]]
    possible = [one for path in output.files for one in made.target.paths(path)]
    refuse_overwrite([Path(path) for path in [*possible, *output.paths, *along]], force)
    return output


def _text(facts: dict[str, Any]) -> str:
    before, after = facts["dense_nbytes"], facts["file_bytes"]
    what = (
        f"{counted(facts['tensors'], 'tensor')} from {facts['from']} to {facts['to']}, {len(facts['sparse']):,} sparse"
    )
    sizes = f"{size(before)} dense, {size(after)} on disk (ratio {ratio(before, after)})"
    lines = [f"{counted(facts['negative_zeros'], 'negative zero')} became +0.0"] if facts["negative_zeros"] else []
    return "\n".join([f"{facts['output']}: {what}", *lines, sizes])


@click.command()
@quiet_option
@json_option
def formats(quiet: bool, as_json: bool) -> None:
    """List the file formats that convert reads and writes.

    The columns "in" and "out" have the dtypes of the sparse tensors that are read and written. A dense tensor keeps its
    dtype; codec convert refuses it if the format does not have that dtype.
    """
    rows = support()
    emit(rows, lambda: _formats_text(rows), as_json)


def _formats_text(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any], way: str) -> str:
        found = [name for name, ways in row["dtypes"].items() if way in ways]
        return "all" if len(found) == len(row["dtypes"]) else " ".join(found)

    lines = [[row["format"], row["extra"] or "", cells(row, "in"), cells(row, "out")] for row in rows]
    shown = table(["format", "extra", "in", "out"], lines, left=4)
    return "\n".join([shown, "", *(f"{row['format']}: {row['summary']}" for row in rows)])
