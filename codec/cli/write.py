"""What the verbs that write models share: which tensors they take, one file or shards, and what was written."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import click

from codec.cli.output import Progress
from codec.cli.table import AS_ITSELF
from codec.kernels import octets, threadpool_limits
from codec.modelfile import safe_open
from codec.modelreader import ModelFile, TensorInfo
from codec.safetensors_io import BITS, header_bytes, write_atomic

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
Verb = TypeVar("Verb", bound=Callable[..., Any])
Read = Callable[[str], Any]  # a tensor's name -> what is to be written of it


def choice(name: str, values: Sequence[str], what: str) -> Callable[[Verb], Verb]:
    """An option that takes one of `values`; the first, if it is not given."""
    return click.option(name, type=click.Choice(values), default=values[0], show_default=True, help=what)


param_option = click.option(
    "--param",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of that layout, as bits=4; may be repeated.",
)


def layout_params(layout: str, given: Sequence[str]) -> dict[str, Any]:
    """A layout's parameters from the command line: whole numbers, sizes as 4x4 or allx1, and words."""
    if given and layout == "auto":
        raise click.UsageError(f"--param {given[0]} is a layout's: name that with --layout")
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign and value) or name in found:
            raise click.UsageError(f"--param {text!r}; expected NAME=VALUE, each name once")
        parts: list[str | int] = [int(p) if re.fullmatch(r"[0-9]{1,9}", p) else p for p in value.split("x")]
        size = all(isinstance(part, int) for part in parts[1:]) and (parts[0] == "all" or isinstance(parts[0], int))
        found[name] = value if not size else tuple(parts) if len(parts) > 1 else parts[0]
    return found


def chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a verb takes a tensor: --exclude goes before --include, and a full name before patterns."""
    if name in exclude or name in include:
        return name not in exclude
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatchcase(name, pattern) for pattern in include)


def shards_of(src: Path, target: Path) -> dict[Path, list[str]]:
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


def write_dense(path: Path, tensors: "Tensors", metadata: dict[str, str]) -> None:
    """One tensor is in memory at a time. Large elements come first, so that all are aligned."""
    infos = sorted((tensors.model.info(name) for name in tensors), key=lambda info: -BITS[info.dtype])

    def parts() -> Iterator[bytes | memoryview]:
        yield header_bytes([(info.name, info.dtype, info.shape) for info in infos], metadata)
        for info in infos:
            yield octets(tensors[info.name]).data

    write_atomic(os.fspath(path), parts())


class Tensors(Mapping[str, Any]):
    """Tensors of an open model, each made by ``read`` when it is asked for, which moves the bar on."""

    def __init__(self, model: ModelFile, names: list[str], read: Read, progress: Progress) -> None:
        self.model, self._names, self._read, self._progress = model, names, read, progress

    def __getitem__(self, name: str) -> Any:
        tensor = self._read(name)
        self._progress.advance(self.model.info(name).dense_nbytes)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_all(
    model: ModelFile,
    target: Path,
    shards: dict[Path, list[str]],
    read: Read,
    write: Callable[[Path, Tensors, dict[str, str]], None],
    label: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Write what ``read`` makes of each tensor as one file, or shard by shard and then the index."""
    total = sum(model.info(name).dense_nbytes for name in model)
    with Progress(total, label, quiet) as progress, threadpool_limits(threads) if threads else nullcontext():
        for path, names in (shards or {target: model.keys()}).items():
            write(path, Tensors(model, names, read, progress), model.metadata())
    if shards:
        weight_map = {name: path.name for path, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomic(os.fspath(target), [json.dumps(index, indent=2).encode() + b"\n"])


def written(target: Path, files: list[Path], before: int) -> dict[str, Any]:
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
