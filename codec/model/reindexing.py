"""Making the index of model files again, after another tool dropped it or changed what it was made for."""

import os
from collections.abc import Iterator

from codec.errors import ArgumentError, CodecError
from codec.model.atomic import write_atomic
from codec.model.carried import Carried
from codec.model.container import Entry, read_header
from codec.model.disk import RawFile, open_beside, open_path
from codec.model.file import OpenFile, naming, proved_frame, starts_as_frame
from codec.model.index import CRC_STEP, KEY, Record, check_crcs, is_index, salvage
from codec.model.output import Output, companions, copy_companions, index_aside
from codec.model.packing import Stored, record_of
from codec.model.shards import find_model, read_shard_index, write_shard_index
from codec.model.writer import Path, file_parts


def reindex(src: Path, dst: Path) -> list[str]:
    """Write a model again with new indexes, after another tool dropped the old ones or changed names or metadata.

    Frames are complete without the index and are decoded here to prove them. Tensors stored as themselves are taken as
    they are, unless the old index is intact: then all is compared with it, so that damage gets no fresh checksum. Names
    of tensors that are stored once under another name stand in the index alone: where it is gone, they are too.

    Parameters
    ----------
    src : path
        A file, the index of a sharded model, or a folder that holds one of these.
    dst : path
        A file for a file; for a sharded model another folder, which is made if it is not there, and gets the other
        files of a source that is a folder too.

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    FormatError, ArgumentError, OSError
        As safe_open and save_file.

    Examples
    --------
    >>> codec.model.reindex("resaved.safetensors", "model.safetensors")  # doctest: +SKIP
    """
    source, target = os.fsdecode(src), os.fsdecode(dst)
    found = find_model(source)
    output = reindex_output(source, target)
    if output.folder is not None:
        os.makedirs(output.folder, exist_ok=True)
    copy_companions(output, companions(output)[0])
    if output.index is None:
        path = next(iter(output.files))
        _reindex_file(open_path(found), path)
        return [path]
    index, total, weight_map = read_shard_index(found), 0, {}
    with index_aside(output, output.files):
        for path in output.files:
            name = os.path.basename(path)
            for entry in _reindex_file(open_beside(index.folder, name), path):
                weight_map[entry.name] = name
                total += entry.nbytes
        write_shard_index(output.index, weight_map, index.rest, total)
    return output.paths


def reindex_output(src: str, dst: str) -> Output:
    """The files that reindex writes."""
    found = find_model(src)
    folder, source_folder = dst if os.path.isdir(dst) else None, os.path.dirname(found) or "."
    if not found.endswith(".json"):
        path = dst if folder is None else os.path.join(folder, os.path.basename(found))
        return Output({path: ()}, {path: {}}, None, folder, os.path.isdir(src), source_folder)
    if dst.endswith((".json", ".safetensors")) or os.path.realpath(dst) == os.path.realpath(source_folder):
        raise ArgumentError(f"{dst!r}: the files of a sharded model are indexed again in another folder: name that")
    index = read_shard_index(found)
    paths = [os.path.join(dst, name) for name in dict.fromkeys(index.weight_map.values())]
    return Output(
        files=dict.fromkeys(paths, ()),
        metadata={path: {} for path in paths},
        index=os.path.join(dst, os.path.basename(found)),
        folder=dst,
        along=os.path.isdir(src),
        source_folder=source_folder,
    )


def _reindex_file(raw: RawFile, path: str) -> list[Entry]:
    try:
        header = read_header(raw)
        old = _intact(raw)
        text = header.metadata.get(KEY, "")
        aliases, own = salvage(text, header) if is_index(text) else ({}, header.metadata.get(KEY))
        kept = {k: v for k, v in header.metadata.items() if k != KEY and not is_index(v)}
        stored = [_indexed(raw, entry, old) for entry in header.entries.values()]
        write_atomic(path, file_parts(stored, aliases, {"format": "pt", **kept}, own))
        return list(header.entries.values())
    finally:
        raw.close()


def _indexed(raw: RawFile, entry: Entry, old: OpenFile | None) -> Stored:
    with naming(entry.name):
        if old is not None:
            record = old.records[entry.name]
            old.stored(entry.name)
        elif starts_as_frame(raw, entry) and len(entry.shape) == 1:
            record = record_of(proved_frame(raw.read(entry.start, entry.nbytes)))
        else:
            carried = Carried(
                entry.dtype, entry.shape, entry.nbytes, lambda at, size: raw.read(entry.start + at, size), None, raw
            )
            record = Record(entry.dtype, entry.shape, None, entry.nbytes, None, carried.checksums())

    def parts() -> Iterator[memoryview]:
        step = 1 << 24 if record.layout is None else max(1, entry.nbytes)
        for at in range(0, entry.nbytes, step):
            piece = raw.read(entry.start + at, min(step, entry.nbytes - at))
            with naming(entry.name):
                check_crcs(piece, record, at // CRC_STEP)
            yield piece

    return Stored(entry.name, record, parts)


def _intact(raw: RawFile) -> OpenFile | None:
    """The file with its old index, if that still fits."""
    try:
        file = OpenFile(raw)
    except CodecError:
        return None
    return file if file.indexed else None
