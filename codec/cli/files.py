"""The verbs between a model and its file: encode, decode, verify."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import numpy.typing as npt

from codec.choose import OBJECTIVES
from codec.cli.output import (
    DataFault,
    Progress,
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source,
    source_file,
    target_file,
    threads_option,
)
from codec.cli.table import counted, ratio, size, table
from codec.cli.write import (
    INDEX_SUFFIX,
    SUFFIX,
    choice,
    layout_params,
    param_option,
    shards_of,
    write_all,
    write_dense,
    written,
)
from codec.compare import first_difference, lost_signs
from codec.dtypes import element_type
from codec.entropy import Entropy
from codec.errors import FormatError
from codec.kernels import threadpool_limits
from codec.layouts import LAYOUTS
from codec.modelfile import safe_open, save_file
from codec.modelreader import ModelFile


@click.command()
@click.argument("src", type=source_file)
@click.option("-o", "--output", "dst", type=target_file, help="Default: SRC with .codec.safetensors at its end.")
@choice("--objective", OBJECTIVES, "What to choose layouts for.")
@choice("--layout", ["auto", *LAYOUTS], "One layout for all tensors.")
@param_option
@choice("--entropy", get_args(Entropy), "How streams are coded.")
@choice("--zero", ["value", "bits"], "Whether -0.0 is a zero too (and becomes +0.0), or +0.0 only.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Pack only tensors of such names; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Keep tensors of such names as they are.")
@threads_option
@force_option
@quiet_option
@json_option
def encode(
    src: Path,
    dst: Path | None,
    objective: str,
    layout: str,
    given: tuple[str, ...],
    entropy: str,
    zero: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    threads: int | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Pack the tensors of SRC.

    SRC is a .safetensors file or the .safetensors.index.json of a sharded model. Each tensor is packed where that
    makes it smaller; with --layout all are. Patterns are those of a shell; --exclude goes before --include, and a
    tensor's full name before patterns.
    """
    params = layout_params(layout, given)
    target = dst or _default_target(src)
    shards = shards_of(src, target)
    refuse_overwrite([target, *shards], force)
    wanted = {k: v for k, v in {"layout": layout, "entropy": entropy, **params}.items() if v != "auto"}
    plan: dict[str, Any] = dict.fromkeys(exclude, "dense")
    for pattern in include:
        plan.setdefault(pattern, wanted)
    plan.setdefault("*", "dense" if include else wanted)

    def write(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata, objective=objective, plan=plan, zero=zero)

    with safe_open(src) as model:
        write_all(model, target, shards, model.get_tensor, write, "Encoding", threads, quiet)
        before = sum(model.info(name).nbytes for name in model)
    facts = {
        "source": str(src),
        "output": str(target),
        "zero": zero,
        **written(target, list(shards) or [target], before),
    }
    emit(facts, lambda: _encode_text(facts), as_json)


def _encode_text(facts: dict[str, Any]) -> str:
    def row(name: str, group: dict[str, Any]) -> list[str]:
        before, after = group["bytes_before"], group["bytes_after"]
        return [name, f"{group['tensors']:,}", size(before), size(after), ratio(before, after)]

    rows = [row(name, group) for name, group in facts["layouts"].items()]
    shown = table(["layout", "tensors", "before", "after", "ratio"], rows, total=row("all", facts))
    frames, on_disk = counted(facts["packed"], "packed tensor"), size(facts["file_bytes"])
    return f"{shown}\n{facts['output']}: {frames}, {on_disk} on disk"


@click.command()
@click.argument("src", type=source)
@click.option("-o", "--output", "dst", type=target_file, required=True)
@threads_option
@force_option
@quiet_option
@json_option
def decode(src: Path, dst: Path, threads: int | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Turn SRC back into plain safetensors.

    Tensors are dense in it, and the metadata is kept. A sharded model becomes one file, or is kept in shards where the
    output ends in .safetensors.index.json.
    """
    shards = shards_of(src, dst)
    refuse_overwrite([dst, *shards], force)
    with safe_open(src) as model:
        write_all(model, dst, shards, model.get_tensor, write_dense, "Decoding", threads, quiet)
        before = sum(model.info(name).nbytes for name in model)
        after = sum(model.info(name).dense_nbytes for name in model)
        count = len(model)
    facts = {"source": str(src), "output": str(dst), "tensors": count, "bytes_before": before, "bytes_after": after}
    emit(facts, lambda: f"{dst}: {counted(count, 'dense tensor')}, {size(before)} became {size(after)}", as_json)


def _default_target(src: Path) -> Path:
    suffix = next((s for s in (INDEX_SUFFIX, SUFFIX) if src.name.endswith(s)), "")
    return src.with_name(f"{src.name.removesuffix(suffix)}.codec{suffix or SUFFIX}")


@click.command()
@click.argument("src", type=source)
@click.option("--against", type=source, help="The original, to compare with bit for bit under the recorded zero rule.")
@threads_option
@quiet_option
@json_option
def verify(src: Path, against: Path | None, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Check all checksums of SRC and decode it.

    The exit status is 1 if anything is damaged, or differs from the original.
    """
    with safe_open(src) as model, threadpool_limits(threads) if threads else nullcontext():
        checks = model.verify(raise_on_error=False).tensors
        faults = {check.name: str(check.error) for check in checks if check.error}
        facts: dict[str, Any] = {
            "source": str(src),
            "tensors": len(checks),
            "checked": sum(check.checked for check in checks),
            "against": str(against) if against else None,
        }
        if against:
            with safe_open(against) as original:
                facts["negative_zeros"] = _compare(model, original, faults, quiet)
    facts |= {"faults": [{"tensor": name, "fault": fault} for name, fault in faults.items()], "ok": not faults}
    emit(facts, lambda: _verify_text(facts), as_json)
    if faults:
        raise DataFault


def _compare(model: ModelFile, original: ModelFile, faults: dict[str, str], quiet: bool) -> int:
    """Add what differs to `faults`; returns how many -0.0 of the original became +0.0."""
    for name in model.keys() + original.keys():
        if name not in original:
            faults.setdefault(name, f"tensor {name!r}: is not in the original")
        elif name not in model:
            faults.setdefault(name, f"tensor {name!r}: is in the original only")
    signs = 0
    both = [name for name in model if name in original]
    with Progress(sum(original.info(name).dense_nbytes for name in both), "Comparing", quiet) as progress:
        for name in both:
            if name not in faults:
                try:
                    fault, lost = _difference(model, original, name)
                except FormatError as error:  # of the original
                    fault, lost = str(error), 0
                signs += lost
                if fault:
                    faults[name] = fault
            progress.advance(original.info(name).dense_nbytes)
    return signs


def _difference(model: ModelFile, original: ModelFile, name: str) -> tuple[str | None, int]:
    info, expected_info = model.info(name), original.info(name)
    found_as, expected_as = (info.dtype, info.shape), (expected_info.dtype, expected_info.shape)
    if found_as != expected_as:
        return f"tensor {name!r}: is {_described(*found_as)}, the original {_described(*expected_as)}", 0
    zero = "bits"  # of tensors stored as themselves
    if info.stored_as == "frame":
        packed = model.get_packed(name)
        zero, found = packed.zero, packed.to_dense()
    else:
        found = model.get_tensor(name)
    expected = original.get_tensor(name)
    at = first_difference(found, expected, zero)
    if at is None:
        return None, lost_signs(found, expected)
    place = [int(i) for i in np.unravel_index(at, info.shape)] if info.shape else []
    values = " where the original has ".join(_shown(a.reshape(-1)[at : at + 1]) for a in (found, expected))
    return f"tensor {name!r}: first differs at {place}: {values} (zero={zero!r})", 0


def _shown(one: npt.NDArray[Any]) -> str:
    """A value with its bits, as two NaNs look the same."""
    return f"{one[0]} (0x{int(one.view(element_type(one.dtype).unsigned)[0]):x})"


def _described(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"


def _verify_text(facts: dict[str, Any]) -> str:
    lines = [fault["fault"] for fault in facts["faults"]]
    state = "good" if facts["ok"] else f"{counted(len(facts['faults']), 'tensor')} at fault"
    lines.append(f"{facts['source']}: {counted(facts['tensors'], 'tensor')}, {state}")
    if not facts["checked"] and facts["tensors"]:
        lines.append("This is a plain safetensors file without checksums: damage to its data cannot be found.")
    if facts["against"]:
        same = "Bit for bit the same" if facts["ok"] else "Compared"
        signs = counted(facts["negative_zeros"], "negative zero")
        lines.append(f"{same} under the recorded zero rule; {signs} became +0.0")
    return "\n".join(lines)
