"""Where a model is written: one file, shards beside an index, or a folder into which the other files come along."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from codec.errors import ArgumentError
from codec.model.atomic import resolve_target, write_atomic
from codec.model.disk import is_hub_link, open_path
from codec.model.foreign import WEIGHT_SUFFIXES
from codec.model.huggingface import (
    CONFIG,
    check_not_compressed,
    config_bytes,
    packed_config,
    packed_name,
    plain_config,
    plain_name,
    read_config,
)
from codec.model.reader import ModelFile
from codec.model.shards import INDEX_SUFFIX, SUFFIX, is_index_name, shard_name, stale_shards

_PIECE = 1 << 24  # bytes of a file that is copied, in memory at a time


@dataclass(frozen=True)
class Output:
    """The files to write: each with the names of its tensors and the metadata of its source, and the index if sharded.

    ``folder`` is made if it is not there; None if the files go where there must be one. With ``along`` the other files
    of ``source_folder`` come along into it, but for ``sources``, which hold the model there; ``rewritten`` has the
    content of those that change.
    """

    files: dict[str, tuple[str, ...]]
    metadata: dict[str, dict[str, str]]
    index: str | None
    folder: str | None
    along: bool
    source_folder: str
    sources: tuple[str, ...] = ()
    rewritten: dict[str, bytes] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """The model's files, the index last."""
        return [*self.files, *([self.index] if self.index else [])]

    def check(self) -> None:
        """Refuse before any work what could not be replaced after it; ArgumentError."""
        for path in self.paths:
            if os.path.lexists(path):
                resolve_target(path)

    def stale(self) -> list[str]:
        """Shards of the same name and another number, which are there from an earlier model."""
        if self.index is None or not os.path.isdir(os.path.dirname(self.index) or "."):
            return []
        return stale_shards(self.index, {os.path.basename(path) for path in self.files})


def output_of(model: ModelFile, src: str, dst: str, packs: bool | None = None) -> Output:
    """What ``dst`` means for a model that was opened as ``src``.

    ``packs`` says whether weights are packed there, or unpacked; None: they are what they were. From it follow, in a
    folder of transformers, the names of weights and what config.json says of them (see codec.model.huggingface).

    A name that ends in .safetensors.index.json is a sharded model with as many shards as the source. A folder, one that
    is there or for a source that is a folder any name that does not end in .safetensors, takes the source's files under
    their own names. Everything else is one file; shards that become one leave out the metadata that they do not agree
    on, as no reader could tell what a value of one shard means for the whole. CheckpointReport names what that was.

    Raises ArgumentError where that makes no sense, or where two models would lie in one folder afterwards.
    """
    sharded, own = model.origin.index is not None, model.origin.path
    source_folder, index, made = os.path.dirname(own) or ".", None, None
    rewritten: dict[str, bytes] = {}
    if dst.endswith(".json"):
        if not sharded or not dst.endswith(INDEX_SUFFIX):
            raise ArgumentError(f"{dst!r}: an index is for a sharded source only, and ends in {INDEX_SUFFIX}")
        folder, index, count = os.path.dirname(dst), dst, len(model.files)
        names = [shard_name(dst, number, count) for number in range(1, count + 1)]
    elif os.path.isdir(dst) or dst.endswith(os.sep) or (os.path.isdir(src) and not dst.endswith(SUFFIX)):
        folder = made = dst
        if os.path.realpath(folder) == os.path.realpath(source_folder):
            raise ArgumentError(f"{dst!r} is the source's own folder: give another one")
        config = _config(source_folder) if os.path.isdir(src) and packs is not None else None
        named = (packed_name if packs else plain_name) if config is not None else str
        index = os.path.join(folder, named(os.path.basename(own))) if sharded else None
        names = [named(os.path.basename(file.raw.path)) for file in model.files]
        if config is not None:
            rewritten = _rewritten(config, model, os.path.basename(index or names[0]), bool(packs))
    else:
        return Output({dst: tuple(model.keys())}, {dst: model.metadata()}, None, None, False, source_folder)
    paths = [os.path.join(folder, name) for name in names]
    output = Output(
        files={path: tuple(file.names) for path, file in zip(paths, model.files, strict=True)},
        metadata={path: file.metadata for path, file in zip(paths, model.files, strict=True)},
        index=index,
        folder=made,
        along=made is not None and os.path.isdir(src),
        source_folder=source_folder,
        sources=(os.path.basename(own), *(os.path.basename(file.raw.path) for file in model.files)),
        rewritten=rewritten,
    )
    check_alone(output)
    return output


def _config(folder: str) -> dict[str, Any] | None:
    """The configuration of a model of transformers in a folder, if there is one."""
    path = os.path.join(folder, CONFIG)
    if not os.path.isfile(path):
        return None
    raw = open_path(path)
    try:
        return read_config(bytes(raw.read(0, raw.size))) if raw.size <= _PIECE else None
    finally:
        raw.close()


def _rewritten(config: dict[str, Any], model: ModelFile, weights: str, packs: bool) -> dict[str, bytes]:
    """config.json as it is for packed weights, or for plain ones."""
    if packs:
        check_not_compressed(config, model.keys())
        infos = map(model.info, model.keys())
        new = packed_config(config, weights, sum(prod(info.shape) for info in infos if info.alias_of is None))
    else:
        new = plain_config(config)
    if new == config:
        return {}
    return {CONFIG: config_bytes(new)}


def check_alone(output: Output) -> None:
    """Refuse a folder that has another model: nobody could tell which of the two it holds.

    That is an index; or, in the folder of a whole checkpoint, the same weights packed or plain, and any others beside a
    single file. Raises ArgumentError.
    """
    place = output.index or next(iter(output.files))
    folder = os.path.dirname(place) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    own = {os.path.basename(path) for path in (*output.paths, *output.stale())}
    twins = {twin for name in own for twin in (packed_name(name), plain_name(name))}
    for name in sorted(names):
        weights = output.along and name.endswith(SUFFIX) and (output.index is None or name in twins)
        weights = weights or is_index_name(name)
        if name[0] != "." and weights and name not in own:
            raise ArgumentError(f"{folder!r} holds another model, {name!r}: write to another folder, or remove that")


@contextmanager
def index_aside(output: Output, replaced: Iterable[str]) -> Iterator[None]:
    """Take the index of an older model away while files that it names are replaced.

    Otherwise an interruption would leave an index that finds new shards and old ones, and a mixture of two models would
    open without an error. It comes back if the work fails before the first file is replaced.
    """
    before = {path: version_of(path) for path in replaced}
    if output.index is None or not os.path.lexists(output.index) or not any(before.values()):
        yield
        return
    folder, name = os.path.split(output.index)
    aside = os.path.join(folder, f".codec-{name}.old")
    os.replace(output.index, aside)
    try:
        yield
    except BaseException:
        if all(version_of(path) == version for path, version in before.items()):
            os.replace(aside, output.index)
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside)


def version_of(path: str) -> tuple[int, int] | None:
    """What tells a file from the one that replaces it; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def companions(output: Output) -> tuple[list[str], list[str]]:
    """The source folder's other files, as paths below it: those that come along, and weights that stay behind.

    Hidden files stay behind too, and so do links, but for those of the Hugging Face cache.
    """
    if output.folder is None or not output.along:
        return [], []
    root, target = output.source_folder, os.path.realpath(output.folder)
    mine = {os.path.basename(path) for path in output.paths} | set(output.sources)
    along: list[str] = []
    behind: list[str] = []
    for path, is_file in _walk(root, target):
        name = os.path.basename(path)
        top = os.path.dirname(path) == ""
        if top and name in mine:
            continue
        weights = top and (name.endswith((*WEIGHT_SUFFIXES, ".index.json")) or is_index_name(name))
        (along if is_file and not weights else behind).append(path)
    return along, behind


def _walk(root: str, skipped: str) -> Iterator[tuple[str, bool]]:
    """Paths below a folder in order, and whether each is a file to read."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if n[0] != "." and os.path.realpath(os.path.join(folder, n)) != skipped)
        for name in sorted(names + [n for n in folders if os.path.islink(os.path.join(folder, n))]):
            path = os.path.join(folder, name)
            if name[0] != ".":
                linked = os.path.islink(path) and not is_hub_link(os.readlink(path))
                yield os.path.relpath(path, root), os.path.isfile(path) and not linked


def copy_companions(output: Output, names: list[str]) -> None:
    """Copy files of the source's folder, each whole or not at all; those that are rewritten as they become."""
    for name in names:
        target = os.path.join(output.folder or "", name)
        if name in output.rewritten:
            write_atomic(target, [output.rewritten[name]])
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        raw = open_path(os.path.join(output.source_folder, name))
        try:
            write_atomic(target, (raw.read(at, min(_PIECE, raw.size - at)) for at in range(0, raw.size, _PIECE)))
        finally:
            raw.close()
