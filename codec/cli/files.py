"""The verbs that write files or check them: encode, decode, verify, convert."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, get_args

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
from codec.cli.table import AS_ITSELF, counted, ratio, size, table
from codec.compare import first_difference, lost_signs
from codec.dtypes import element_type
from codec.entropy import Entropy
from codec.errors import FormatError
from codec.kernels import octets, threadpool_limits
from codec.layouts import LAYOUTS
from codec.modelfile import reindex, safe_open, save_file
from codec.modelreader import ModelFile, TensorInfo
from codec.safetensors_io import BITS, header_bytes, write_atomic

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
Verb = TypeVar("Verb", bound=Callable[..., Any])


def _choice(name: str, values: Sequence[str], what: str) -> Callable[[Verb], Verb]:
    """An option that takes one of `values`; the first, if it is not given."""
    return click.option(name, type=click.Choice(values), default=values[0], show_default=True, help=what)


@click.command()
@click.argument("src", type=source_file)
@click.option("-o", "--output", "dst", type=target_file, help="Default: SRC with .codec.safetensors at its end.")
@_choice("--objective", OBJECTIVES, "What to choose layouts for.")
@_choice("--layout", ["auto", *LAYOUTS], "One layout for all tensors.")
@_choice("--entropy", get_args(Entropy), "How streams are coded.")
@_choice("--zero", ["value", "bits"], "Whether -0.0 is a zero too (and becomes +0.0), or +0.0 only.")
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
    target = dst or _default_target(src)
    shards = _shards(src, target)
    refuse_overwrite([target, *shards], force)
    wanted = {k: v for k, v in {"layout": layout, "entropy": entropy}.items() if v != "auto"}
    plan: dict[str, Any] = dict.fromkeys(exclude, "dense")
    for pattern in include:
        plan.setdefault(pattern, wanted)
    plan.setdefault("*", "dense" if include else wanted)

    def write(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata, objective=objective, plan=plan, zero=zero)

    with safe_open(src) as model:
        _write_all(model, target, shards, write, "Encoding", threads, quiet)
        before = sum(model.info(name).nbytes for name in model)
    facts = {
        "source": str(src),
        "output": str(target),
        "zero": zero,
        **_written(target, list(shards) or [target], before),
    }
    emit(facts, lambda: _encode_text(facts), as_json)


def _written(target: Path, files: list[Path], before: int) -> dict[str, Any]:
    """What the files hold, by layout and in all."""
    with safe_open(target) as model:
        infos = [model.info(name) for name in model]
    after = sum(info.nbytes for info in infos)
    groups: dict[str, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(info.layout if info.stored_as == "frame" else AS_ITSELF, []).append(info)
    return {
        "tensors": len(infos),
        "packed": sum(info.stored_as == "frame" for info in infos),
        "bytes_before": before,
        "bytes_after": after,
        "ratio": before / after if after else 1.0,
        "file_bytes": sum(path.stat().st_size for path in files),
        "layouts": {
            kind: {
                "tensors": len(group),
                "bytes_before": sum(info.dense_nbytes for info in group),
                "bytes_after": sum(info.nbytes for info in group),
            }
            for kind, group in sorted(groups.items())
        },
    }


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
    shards = _shards(src, dst)
    refuse_overwrite([dst, *shards], force)
    with safe_open(src) as model:
        _write_all(model, dst, shards, _write_dense, "Decoding", threads, quiet)
        before = sum(model.info(name).nbytes for name in model)
        after = sum(model.info(name).dense_nbytes for name in model)
        count = len(model)
    facts = {"source": str(src), "output": str(dst), "tensors": count, "bytes_before": before, "bytes_after": after}
    emit(facts, lambda: f"{dst}: {counted(count, 'dense tensor')}, {size(before)} became {size(after)}", as_json)


def _write_dense(path: Path, tensors: "_Tensors", metadata: dict[str, str]) -> None:
    """One tensor is in memory at a time. Large elements come first, so that all are aligned."""
    infos = sorted((tensors.model.info(name) for name in tensors), key=lambda info: -BITS[info.dtype])

    def parts() -> Iterator[bytes | memoryview]:
        yield header_bytes([(info.name, info.dtype, info.shape) for info in infos], metadata)
        for info in infos:
            yield octets(tensors[info.name]).data

    write_atomic(os.fspath(path), parts())


class _Tensors(Mapping[str, Any]):
    """Tensors of an open model, each read when it is asked for, which moves the bar on."""

    def __init__(self, model: ModelFile, names: list[str], progress: Progress) -> None:
        self.model, self._names, self._progress = model, names, progress

    def __getitem__(self, name: str) -> Any:
        tensor = self.model.get_tensor(name)
        self._progress.advance(self.model.info(name).dense_nbytes)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _write_all(
    model: ModelFile,
    target: Path,
    shards: dict[Path, list[str]],
    write: Callable[[Path, _Tensors, dict[str, str]], None],
    label: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Write the model as one file, or shard by shard and then the index."""
    total = sum(model.info(name).dense_nbytes for name in model)
    with Progress(total, label, quiet) as progress, threadpool_limits(threads) if threads else nullcontext():
        for path, names in (shards or {target: model.keys()}).items():
            write(path, _Tensors(model, names, progress), model.metadata())
    if shards:
        weight_map = {name: path.name for path, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomic(os.fspath(target), [json.dumps(index, indent=2).encode() + b"\n"])


def _default_target(src: Path) -> Path:
    suffix = next((s for s in (INDEX_SUFFIX, SUFFIX) if src.name.endswith(s)), "")
    return src.with_name(f"{src.name.removesuffix(suffix)}.codec{suffix or SUFFIX}")


def _shards(src: Path, target: Path) -> dict[Path, list[str]]:
    """The files to write beside an index, and the tensors of each; empty where one file is to be written."""
    if not target.name.endswith(".index.json"):
        return {}
    if not src.name.endswith(".index.json") or not target.name.endswith(INDEX_SUFFIX):
        raise click.UsageError(f"{str(target)!r}: an index is for a sharded SRC only, and ends in {INDEX_SUFFIX}")
    with safe_open(src) as model:  # proves the index
        weight_map = json.loads(src.read_bytes())["weight_map"]
        names: dict[str, list[str]] = {}
        for name in model:
            names.setdefault(weight_map[name], []).append(name)
    stem = target.name.removesuffix(INDEX_SUFFIX)
    return {
        target.with_name(f"{stem}-{number:05d}-of-{len(names):05d}{SUFFIX}"): group
        for number, group in enumerate(names.values(), 1)
    }


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


@click.command()
@click.argument("src", type=source_file)
@click.argument("dst", type=target_file)
@click.option("--reindex", "again", is_flag=True, help="Make the index again, where another tool dropped it.")
@force_option
@quiet_option
@json_option
def convert(src: Path, dst: Path, again: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Write SRC in another form: --reindex.

    Frames are complete without the index and are decoded to prove them; tensors stored as themselves are taken as they
    are.
    """
    if not again:
        raise click.UsageError("say what to convert to: this release has --reindex only; other forms come later")
    if src.name.endswith(".index.json"):
        raise click.UsageError(f"{str(src)!r} is the index of a sharded model: convert its shards one by one")
    refuse_overwrite([dst], force)
    reindex(src, dst)
    with safe_open(dst) as model:
        count, frames = len(model), sum(model.info(name).stored_as == "frame" for name in model)
    facts = {"source": str(src), "output": str(dst), "tensors": count, "packed": frames}
    emit(facts, lambda: f"{dst}: {counted(count, 'tensor')}, {frames:,} packed, with a new index", as_json)
