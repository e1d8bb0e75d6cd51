"""Sharded models: which file a path means, the index of shards, and the files of a model side by side (section 8.4)."""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from codec.errors import ArgumentError, CodecError, FormatError
from codec.model.atomic import write_atomic
from codec.model.container import MAX_HEADER, name_fault, strict_json
from codec.model.disk import Raw, open_beside, open_path
from codec.model.file import OpenFile
from codec.model.foreign import LOOK, what_it_is

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
JOURNAL_BEGIN, JOURNAL_END = ".codec-", ".journal"
# The index of a variant is named model.safetensors.index.fp16.json.
_INDEX_NAME = re.compile(r".+\.safetensors\.index(\.[\w-]+)?\.json")


def journal_name(index: str) -> str:
    """The name of the file that says which shards of an index to be are finished."""
    return f"{JOURNAL_BEGIN}{index}{JOURNAL_END}"


@dataclass(frozen=True)
class ShardIndex:
    """The index of a sharded model: its folder, the file of every tensor, and whatever else stands in it."""

    path: str
    weight_map: dict[str, str]
    rest: dict[str, Any]

    @property
    def folder(self) -> str:
        """Where the shards are."""
        return os.path.dirname(self.path) or "."


def is_index_name(name: str) -> bool:
    """Whether a file of this name is the index of a sharded model."""
    return _INDEX_NAME.fullmatch(os.path.basename(name)) is not None


def find_model(path: str) -> str:
    """The file that a path means: itself, or the one model in a folder.

    Raises ArgumentError where a folder holds no model, or several.
    """
    if not os.path.isdir(path):
        return path
    listed = sorted(os.listdir(path))
    names = [name for name in listed if not name.startswith(".")]
    for name in listed:
        index = name.removeprefix(JOURNAL_BEGIN).removesuffix(JOURNAL_END)
        if journal_name(index) == name and index not in names:
            raise ArgumentError(f"{path!r} holds {index!r} unfinished: the command that began it goes on with it")
    for found in ([n for n in names if is_index_name(n)], [n for n in names if n.endswith(SUFFIX)]):
        if len(found) == 1:
            return os.path.join(path, found[0])
        if found:
            raise ArgumentError(f"{path!r} holds {len(found)} models: name one of {', '.join(map(repr, found[:8]))}")
    raise ArgumentError(f"{path!r} holds no *{SUFFIX} and no *{INDEX_SUFFIX}{_other_weights(path, names)}")


def _other_weights(folder: str, names: list[str]) -> str:
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not name.endswith((".json", ".txt", ".md", ".py")):
            with open(path, "rb") as file:
                words = what_it_is(file.read(LOOK), path)
            if words:
                return f"; {name!r} in it is {words}"
    return ""


def read_shard_index(path: str) -> ShardIndex:
    """The index of a sharded model, proved as far as it goes without its shards."""
    raw = open_path(path)
    try:
        if raw.size > MAX_HEADER:
            raise FormatError(f"{path!r} has {raw.size} bytes; an index of shards has at most {MAX_HEADER}")
        text = bytes(raw.read(0, raw.size))
    finally:
        raw.close()
    try:
        index = strict_json(text)
    except FormatError as error:
        words = None if text.startswith(b"{") else what_it_is(text[:LOOK], path)
        raise FormatError(f"{path!r}: {f'no index of shards, but {words}' if words else error.message}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not isinstance(index, dict)
        or not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise FormatError(f"{path!r} has no weight_map of tensor names to file names")
    for name in weight_map:
        if fault := name_fault(name):
            raise FormatError(f"{path!r}: {fault}")
    return ShardIndex(path, weight_map, {key: value for key, value in index.items() if key != "weight_map"})


def opened(raw: Raw) -> OpenFile:
    """One file of a model; closed again if it is none."""
    try:
        return OpenFile(raw)
    except BaseException:
        raw.close()
        raise


def open_shards(index: ShardIndex, use_mmap: bool, broken: dict[str, Exception] | None = None) -> list[OpenFile]:
    """All shards, which together hold exactly the tensors of the index, each where it says.

    With ``broken`` a shard that cannot be opened is put there with its error, and the others are opened.
    """
    files: dict[str, OpenFile] = {}
    lost: set[str] = set()
    try:
        for shard in dict.fromkeys(index.weight_map.values()):
            try:
                files[shard] = opened(open_beside(index.folder, shard, use_mmap=use_mmap))
            except (CodecError, OSError) as error:
                if broken is None:
                    raise
                broken[shard] = error
                lost.add(shard)
        for shard, file in files.items():
            for name in file.names:
                # Names of tensors that are stored once under another need not be in the map: no other tool finds them.
                if index.weight_map.get(name, shard if name in file.aliases else None) != shard:
                    raise FormatError(
                        f"is in shard {shard!r}, {index.path!r} maps it to {index.weight_map.get(name)!r}", tensor=name
                    )
        for name, shard in index.weight_map.items():
            if shard not in lost and name not in files[shard].records and name not in files[shard].aliases:
                raise FormatError(f"is not in shard {shard!r}, to which {index.path!r} maps it", tensor=name)
    except BaseException:
        for file in files.values():
            file.raw.close()
        raise
    return list(files.values())


def write_shard_index(path: str, weight_map: dict[str, str], rest: dict[str, Any], total_size: int) -> None:
    """Write the index of a sharded model: what the source's index had for metadata, and the bytes of all tensors."""
    metadata = rest.get("metadata")
    kept = dict(metadata) if isinstance(metadata, dict) else {}
    index = {**rest, "metadata": {**kept, "total_size": total_size}, "weight_map": weight_map}
    write_atomic(path, [json.dumps(index, indent=2, ensure_ascii=False).encode() + b"\n"])


def shard_name(index_path: str, number: int, count: int) -> str:
    """The name of a shard beside an index: model.safetensors.index.json has model-00001-of-00002.safetensors."""
    return f"{_stem(index_path)}-{number:05d}-of-{count:05d}{SUFFIX}"


def stale_shards(index_path: str, current: set[str]) -> list[str]:
    """Shards of the same name and another number, left by a model that had the index's place before; paths."""
    folder = os.path.dirname(index_path) or "."
    pattern = re.compile(re.escape(_stem(index_path)) + r"-\d{5}-of-\d{5}\.safetensors")
    with os.scandir(folder) as found:
        names = [entry.name for entry in found if pattern.fullmatch(entry.name) and not entry.is_dir()]
    return [os.path.join(folder, name) for name in sorted(names) if name not in current]


def _stem(index_path: str) -> str:
    return os.path.basename(index_path).partition(".safetensors.index.")[0]
