"""The verbs between a model and its file: encode, decode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from codec.cli.output import emit, force_option, json_option, quiet_option, source_file, threads_option
from codec.cli.table import table
from codec.cli.write import (
    check_patterns,
    choice,
    chosen,
    default_target,
    layout_params,
    param_option,
    places,
    run_work,
    say,
    target_of,
    written,
)
from codec.costs import Plan
from codec.dtypes import BY_NAME
from codec.encoding.request import OBJECTIVES
from codec.entropy import CHOICES
from codec.interop.folding import masked_pairs, unfolded_words
from codec.layouts import LAYOUTS
from codec.model import ModelFile, safe_open
from codec.model.checkpoint import Decode, Encode, stays
from codec.model.packing import Rules
from codec.units import counted, ratio, size


@click.command()
@places
@choice("--objective", OBJECTIVES, "What to choose layouts for.")
@choice(
    "--layout",
    ["auto", *LAYOUTS],
    "One layout for all tensors of two dimensions or more, and for those that --include names.",
)
@param_option
@choice("--entropy", CHOICES, "How streams are coded.")
@click.option(
    "--zero",
    type=click.Choice(["value", "bits"]),
    help="value: -0.0 is a zero too, and becomes +0.0; bits: only +0.0 is a zero.  [default: value; for packed tensors "
    "what they record]",
)
@click.option(
    "--plan",
    "planned",
    type=source_file,
    help="Take the layout of each tensor from a file that codec plan has written.",
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Pack only tensors whose names fit; may be repeated.")
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Do not pack tensors whose names fit; may be repeated."
)
@click.option("--fold", is_flag=True, help="Multiply weights by the pruning masks beside them.")
@threads_option
@force_option
@quiet_option
@json_option
def encode(
    src: Path,
    dst: str | None,
    objective: str,
    layout: str,
    given: tuple[str, ...],
    entropy: str,
    zero: str | None,
    planned: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    fold: bool,
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Pack the tensors of SRC.

    SRC is a .safetensors file, the .safetensors.index.json of a sharded model, or a folder that holds one of these. If
    SRC is a folder, DST is a folder too, and the other files of SRC (config.json, tokenizer) are copied into it;
    otherwise DST is a file. Without DST it is named as SRC, with ".codec" in the name. If a run is interrupted, the
    same command goes on with the shards that are missing.

    A tensor of two dimensions or more is packed if that saves at least 256 bytes and 1/64 of its size, a vector if it
    saves at least 64 KiB. With --layout all tensors of two dimensions or more are packed, with --plan those that the
    plan packs. PATTERN is a shell pattern. --exclude is stronger than --include, and a full name than a pattern.
    """
    params = layout_params(layout, given, entropy)
    choices = Plan.load(planned) if planned is not None else None
    if choices is not None and (layout != "auto" or entropy != "auto"):
        raise click.UsageError("--plan says the layout of each tensor: leave out --layout and --entropy")
    wanted = {k: v for k, v in {"layout": layout, "entropy": entropy, **params}.items() if v != "auto"}
    with safe_open(src) as model:
        pairs = masked_pairs(model.keys(), beside=fold)
        names = [*model.keys(), *([pair.name for pair in pairs] if fold else [])]
        check_patterns(names, include, exclude, quiet)
        plan, notes = _plan(model, names, wanted, include, exclude)
        if choices is not None:
            Rules(plan=choices).check_names(names)
            plan = {**choices, **plan}
        if pairs and not fold:
            notes.append(str(unfolded_words(pairs)))
        work = Encode(objective, plan, zero, fold)
        output = target_of(model, src, dst or default_target(src, "codec"), force, work)
        for note in notes:
            say(note[:1].upper() + note[1:], quiet)
        report = run_work(model, output, work, "Encoding", threads, quiet)
        before = {name: model.info(name).nbytes for name in model}
        signs = _lost_signs(model, output.paths[-1], work)
    if fold:
        before |= {pair.name: before.pop(pair.orig) + before.pop(pair.mask) for pair in pairs}
    facts = {
        "source": str(src),
        "output": report.index or report.files[0],
        "zero": zero,
        **written(output, before),
        "negative_zeros": signs,
        "folded": len(pairs) if fold else 0,
        "resumed": list(report.resumed),
        "left_behind": list(report.left_behind),
        "metadata_left_out": {key: list(shards) for key, shards in report.metadata_left_out.items()},
        "notes": notes,
    }
    emit(facts, lambda: _encode_text(facts), as_json)


def _plan(
    model: ModelFile, names: Sequence[str], wanted: dict[str, Any], include: Sequence[str], exclude: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """What save_file's plan has to be, by full name where it is not the same for all; and what to say of it."""
    plan: dict[str, Any] = {}
    vectors = carried = 0
    for name in names:
        taken = chosen(name, include, exclude)
        known = name in model
        if known and model.info(name).dtype not in BY_NAME:
            carried += taken
            taken = False
        elif taken and not include and wanted.get("layout") and known and len(model.info(name).shape) < 2:
            vectors += 1
            taken = False
        if not taken:
            plan[name] = "dense"
    notes = []
    if vectors:
        notes.append(f"{counted(vectors, 'tensor')} of fewer than two dimensions kept; --include packs them too")
    if carried:
        notes.append(f"{counted(carried, 'tensor')} of dtypes that cannot be packed copied as they are")
    return {**plan, "*": wanted}, notes


def _lost_signs(source: ModelFile, path: str, work: Encode) -> int:
    """How many -0.0 became +0.0, under every name of a tensor; those of frames that were copied had been it before."""
    rules = Rules(work.objective, work.zero, work.plan)
    signs = 0
    with safe_open(path, mmap=True) as model:
        for name in model:
            info = model.info(name)
            copied = name in source and source.info(name).stored_as == "frame" and stays(rules, name)
            if info.stored_as == "frame" and not copied:
                signs += model.get_packed(name).negative_zeros
    return signs


def _encode_text(facts: dict[str, Any]) -> str:
    def row(name: str, group: dict[str, Any]) -> list[str]:
        before, after = group["bytes_before"], group["bytes_after"]
        return [name, f"{group['tensors']:,}", size(before), size(after), ratio(before, after)]

    rows = [row(name, group) for name, group in facts["layouts"].items()]
    shown = table(["layout", "tensors", "before", "after", "ratio"], rows, total=row("all", facts))
    frames, on_disk = counted(facts["packed"], "packed tensor"), size(facts["file_bytes"])
    lines = [shown]
    if facts["negative_zeros"]:
        lines.append(f"{counted(facts['negative_zeros'], 'negative zero')} of the packed tensors became +0.0")
    return "\n".join([*lines, f"{facts['output']}: {frames}, {on_disk} on disk"])


@click.command()
@places
@threads_option
@force_option
@quiet_option
@json_option
def decode(src: Path, dst: str | None, threads: int | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Turn SRC back into plain safetensors.

    All tensors of DST are dense; a tensor that has several names is written under each of them. The metadata is kept.
    SRC and DST are as for codec encode; without DST the name has ".dense" in it.
    """
    with safe_open(src) as model:
        output = target_of(model, src, dst or default_target(src, "dense"), force, Decode())
        report = run_work(model, output, Decode(), "Decoding", threads, quiet)
        before = sum(model.info(name).nbytes for name in model)
        after = sum(model.info(name).dense_nbytes for name in model)
        count = len(model)
    target = report.index or report.files[0]
    facts = {"source": str(src), "output": target, "tensors": count, "bytes_before": before, "bytes_after": after}
    emit(facts, lambda: f"{target}: {counted(count, 'dense tensor')}, {size(before)} became {size(after)}", as_json)
