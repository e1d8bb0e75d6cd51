"""Model files: many tensors in one safetensors file, packed or as themselves (spec section 8).

    save_file -> encode each tensor -> frame, or the tensor itself if smaller -> index -> header -> one atomic write
    safe_open -> header and index proved -> info() | one tensor | some rows of one | the packed bytes

Every tool that reads safetensors reads these files; a packed tensor looks to it like one U8 tensor. A plain safetensors
file opens too, but has no checksums: damage to its data cannot be found.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from codec import tensor as codec_tensor
from codec.choose import check_objective
from codec.dtypes import element_type
from codec.errors import ArgumentError, CodecError, FormatError
from codec.frame import MAGIC
from codec.modelindex import KEY, START, Record, crcs_of, encode_index
from codec.modelreader import ModelFile, OpenFile, is_frame, naming, proved_frame
from codec.safetensors_io import (
    BITS,
    MAX_HEADER,
    RawFile,
    check_target,
    header_bytes,
    metadata_fault,
    name_fault,
    open_beside,
    open_path,
    shape_fault,
    strict_json,
    write_atomic,
)
from codec.source import as_array, check_zero
from codec.tensor import PackedTensor

__all__ = ["load_file", "reindex", "safe_open", "save_file"]

_SMALLEST_FRAME = 256  # bytes: head, segment table and trailing zeros of a frame never take less
_INDEX_SUFFIX = ".safetensors.index.json"
_FRAMEWORKS = {"np": "np", "numpy": "np", "pt": "pt", "torch": "pt"}

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Stored:
    """One tensor to be written: its record, and its bytes when they are asked for."""

    name: str
    record: Record
    data: Callable[[], memoryview]


def save_file(
    tensors: Mapping[str, Any],
    filename: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    objective: str = "disk",
    plan: Mapping[str, Any] | None = None,
    zero: str = "value",
    progress: Callable[[int, int, str], object] | None = None,
) -> None:
    """Write tensors to a model file: each packed where that is smaller, and as itself where it is not.

    Parameters
    ----------
    tensors : mapping of str to array-like or PackedTensor
        NumPy arrays, torch tensors, anything NumPy can read. PackedTensors are stored unchanged.
    filename : path
        Replaced in one step: at every moment it is the old file or the new one.
    metadata : mapping of str to str, optional
        Kept for other tools; "format" is added ("pt") if absent, "codec" is ours.
    objective : {"disk", "memory", "speed"}
        What the layouts are chosen for.
    plan : mapping, optional
        Layouts by tensor name or shell pattern (the name first, then the first pattern that fits): a layout's name, or
        a dict of arguments for ``encode``. A tensor with a planned layout is packed even where that is larger; "dense"
        keeps it as itself.
    zero : {"value", "bits"}
        Whether -0.0 is a zero, and so becomes +0.0, in packed tensors. Tensors stored as themselves keep every bit.
    progress : callable, optional
        Called with (bytes done, bytes in all, name) after each tensor; bytes are those of the dense tensors.

    Notes
    -----
    The header comes first and has every length, so the packed bytes of all tensors are in memory until the file is
    written, and the arrays of those stored as themselves. A mapping that makes arrays on access is asked for one at a
    time (once more for its size with ``progress``).

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> w = np.zeros((64, 256), np.float32); w[::7, ::5] = 1
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> save_file({"w": w, "bias": np.ones(64, np.float32)}, path)
    >>> with safe_open(path) as model:
    ...     print(model.keys(), model.info("w").stored_as, model.get_slice("w")[7, :6])
    ['w', 'bias'] frame [1. 0. 0. 0. 0. 1.]
    """
    path = os.fsdecode(filename)
    if not isinstance(tensors, Mapping):
        raise ArgumentError(f"tensors is a {type(tensors).__name__}; expected a mapping of names to arrays")
    if plan is not None and not isinstance(plan, Mapping):
        raise ArgumentError(f"plan is a {type(plan).__name__}; expected a mapping of names or patterns to layouts")
    check_objective(objective)
    check_zero(zero)
    entries = _checked_metadata({} if metadata is None else metadata)
    for name in tensors:
        if fault := name_fault(name):
            raise ArgumentError(fault)
    check_target(path)
    total = sum(_dense_nbytes(tensors[name]) for name in tensors) if progress else 0
    stored, done = [], 0
    for name in tensors:
        value = tensors[name]
        with naming(name):
            stored.append(_store(name, value, objective, zero, _planned(plan, name)))
        if progress:
            done += _dense_nbytes(value)
            progress(done, total, name)
    write_model(path, stored, entries)


def write_model(path: str, stored: list[Stored], metadata: Mapping[str, str]) -> None:
    """Write a model file: frames in the order given, then tensors as themselves by falling element size."""
    ordered = sorted(
        stored, key=lambda s: (s.record.layout is None, -BITS[s.record.dtype] if s.record.layout is None else 0)
    )
    records = {item.name: item.record for item in ordered}
    index = encode_index(records, metadata)
    header = header_bytes(((name, *record.stored) for name, record in records.items()), {**metadata, KEY: index})
    write_atomic(path, (part for parts in ([header], (item.data() for item in ordered)) for part in parts))


def reindex(src: Path, dst: Path) -> None:
    """Write a file again with a new index, after another tool dropped the old one or changed names or metadata.

    Frames are complete without the index and are decoded here to prove them. Tensors stored as themselves are taken as
    they are, unless the old index is intact: then all is compared with it, so that damage gets no fresh checksum.

    Examples
    --------
    >>> reindex("resaved.safetensors", "model.safetensors")  # doctest: +SKIP
    """
    raw = open_path(os.fsdecode(src))
    try:
        header = raw.read_header()
        metadata = {key: value for key, value in header.metadata.items() if key != KEY and not value.startswith(START)}
        old = _intact_index(raw)
        stored = []
        for entry in header.entries.values():

            def data(start: int = entry.start, nbytes: int = entry.nbytes) -> memoryview:
                return raw.read(start, nbytes)

            with naming(entry.name):
                if old is not None:
                    record = old.records[entry.name]
                    old.stored(entry.name)
                elif is_frame(raw, entry):
                    record = _record_of(proved_frame(data()))
                else:
                    record = Record(entry.dtype, entry.shape, None, entry.nbytes, None, crcs_of(data(), None))
            stored.append(Stored(entry.name, record, data))
        write_model(os.fsdecode(dst), stored, _checked_metadata(metadata))
    finally:
        raw.close()


def safe_open(filename: Path, framework: str = "np", *, mmap: bool = False) -> ModelFile:
    """Open a model file, a sharded model or a plain safetensors file, and read nothing of its tensors yet.

    Parameters
    ----------
    filename : path
        A .safetensors file; the ``*.safetensors.index.json`` of a sharded model; or a folder that holds exactly one
        such index, or else exactly one .safetensors file. Shards are regular files in the index's folder; links are not
        followed, but for those of the Hugging Face cache.
    framework : {"np", "pt"}
        What get_tensor and get_slice give: NumPy arrays or torch tensors.
    mmap : bool
        Map the file instead of reading it: arrays and packed tensors then view it, read-only, without a copy. Only for
        files that nobody changes: if another process truncates a mapped file, the operating system ends this one
        (SIGBUS), and no checksum covers what is changed after it was checked. Frames that another tool moved off
        64-byte boundaries are read after all.

    Returns
    -------
    ModelFile
        With keys(), metadata(), info(name), get_tensor(name), get_packed(name), get_slice(name), verify() and close();
        also a context manager.

    Raises
    ------
    FormatError
        The file is not what section 8 of the format says; ChecksumError if its header or index is damaged.

    Examples
    --------
    >>> with safe_open("model.safetensors") as model:  # doctest: +SKIP
    ...     rows = model.get_slice("lm_head.weight")[1000:1064]
    """
    if framework not in _FRAMEWORKS:
        raise ArgumentError(f"framework {framework!r}; expected one of {', '.join(map(repr, _FRAMEWORKS))}")
    if _FRAMEWORKS[framework] == "pt":
        import torch  # noqa: F401  # absent: say so now, not at the first tensor
    path = os.fsdecode(filename)
    if os.path.isdir(path):
        path = os.path.join(path, _only_model(path))
    if path.endswith(".index.json"):
        files = _open_shards(path, mmap)
    else:
        files = [_opened(open_path(path, use_mmap=mmap))]
    return ModelFile(files, _FRAMEWORKS[framework])


def load_file(filename: Path, *, packed: bool = False, objective: str | None = None) -> dict[str, Any]:
    """All tensors of a model, whatever safe_open opens.

    Parameters
    ----------
    filename : path
        As for safe_open.
    packed : bool
        Give PackedTensors instead of arrays; tensors stored as themselves come in layout "dense".
    objective : {"disk", "memory", "speed"}, optional
        With ``packed=True``: the layout is chosen anew for this, such as "speed" for a file that was made for "disk".

    Examples
    --------
    >>> weights = load_file("model.safetensors", packed=True, objective="speed")  # doctest: +SKIP
    """
    if objective is not None and not packed:
        raise ArgumentError("objective chooses layouts, which arrays do not have: give packed=True with it")
    with safe_open(filename) as model:
        return {name: model.get_packed(name, objective) if packed else model.get_tensor(name) for name in model}


# Writing.


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if fault := metadata_fault(metadata):
        raise ArgumentError(fault)
    if KEY in metadata or any(value.startswith(START) for value in metadata.values()):
        raise ArgumentError(
            f"metadata must not have {KEY!r}, the index that is written with the file, nor another file's index"
        )
    return {"format": "pt", **metadata}


def _planned(plan: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    keys = [] if plan is None else [key for key in plan if key == name or fnmatchcase(name, key)]
    if plan is None or not keys:
        return {}
    entry = plan[name if name in keys else keys[0]]
    if not isinstance(entry, str | Mapping):
        raise ArgumentError(f"plan gives {entry!r}; expected a layout's name or a dict of encode's arguments")
    return {"layout": entry} if isinstance(entry, str) else dict(entry)


def _store(name: str, value: Any, objective: str, zero: str, planned: dict[str, Any]) -> Stored:
    if isinstance(value, PackedTensor):
        return _framed(name, value)
    array = _as_array(value)
    # Bytes that would pass for a frame if the index were lost are packed, whatever that costs.
    disguised = array.dtype == np.uint8 and array.ndim == 1 and array[: len(MAGIC)].tobytes() == MAGIC
    ordered = planned.get("layout", "auto") not in ("auto", "dense")
    small = array.nbytes <= _SMALLEST_FRAME and not ordered
    if disguised or not (small or planned == {"layout": "dense"}):
        packed = codec_tensor.encode(array, **{"objective": objective, "zero": zero, **planned})
        if disguised or ordered or packed.nbytes < array.nbytes:
            return _framed(name, packed)
    data = array.reshape(-1).view(np.uint8).data
    row = element_type(array.dtype)
    return Stored(name, Record(row.name, array.shape, None, array.nbytes, None, crcs_of(data, None)), lambda: data)


def _framed(name: str, packed: PackedTensor) -> Stored:
    return Stored(name, _record_of(packed), lambda: packed._bytes.data)


def _record_of(packed: PackedTensor) -> Record:
    crcs = crcs_of(packed._bytes.data, packed.layout)
    return Record(element_type(packed.dtype).name, tuple(packed.shape), packed.layout, packed.nbytes, packed.nnz, crcs)


def _as_array(value: Any) -> np.ndarray:
    """A contiguous little-endian array of a dtype that the format has."""
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError("is a masked array, and masks are not stored: fill it first, or encode it with mask=")
    array = as_array(value)
    row = element_type(array.dtype)
    if fault := shape_fault(row.name, array.shape):
        raise ArgumentError(fault)
    return np.asarray(array, dtype=row.dtype, order="C")


def _dense_nbytes(value: Any) -> int:
    if isinstance(value, PackedTensor):
        return int(value.dense_nbytes)
    return int(value.nbytes if hasattr(value, "nbytes") else np.asarray(value).nbytes)


def _opened(raw: RawFile) -> OpenFile:
    try:
        return OpenFile(raw)
    except BaseException:
        raw.close()
        raise


def _intact_index(raw: RawFile) -> OpenFile | None:
    try:
        file = OpenFile(raw)
    except CodecError:
        return None
    return file if file.indexed else None


# Shards.


def _only_model(folder: str) -> str:
    """The one model in a folder."""
    names = sorted(os.listdir(folder))
    for suffix in (_INDEX_SUFFIX, ".safetensors"):
        found = [name for name in names if name.endswith(suffix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ArgumentError(f"{folder!r} holds {len(found)} files *{suffix}: name one of {', '.join(found[:8])}")
    raise ArgumentError(f"{folder!r} holds no *.safetensors and no *{_INDEX_SUFFIX}")


def _open_shards(path: str, mmap: bool) -> list[OpenFile]:
    folder = os.path.dirname(path) or "."
    weight_map = _read_weight_map(path)
    files: dict[str, OpenFile] = {}
    try:
        for shard in weight_map.values():
            if shard not in files:
                files[shard] = _opened(open_beside(folder, shard, use_mmap=mmap))
        for shard, file in files.items():
            for name in file.records:
                if weight_map.get(name) != shard:
                    raise FormatError(
                        f"is in shard {shard!r}, {path!r} maps it to {weight_map.get(name)!r}", tensor=name
                    )
        for name, shard in weight_map.items():
            if name not in files[shard].records:
                raise FormatError(f"is not in shard {shard!r}, to which {path!r} maps it", tensor=name)
    except BaseException:
        for file in files.values():
            file.raw.close()
        raise
    return list(files.values())


def _read_weight_map(path: str) -> dict[str, str]:
    raw = open_path(path)
    try:
        if raw.size > MAX_HEADER:
            raise FormatError(f"{path!r} has {raw.size} bytes; an index of shards has at most {MAX_HEADER}")
        index = strict_json(bytes(raw.read(0, raw.size)))
    finally:
        raw.close()
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise FormatError(f"{path!r} has no weight_map of tensor names to file names")
    for name in weight_map:
        if fault := name_fault(name):
            raise FormatError(fault)
    return weight_map
