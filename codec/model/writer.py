"""Writing model files: save_file and save (spec section 8).

    save_file -> each tensor packed, or as itself where that is not worth it -> index -> header -> one atomic write

Every tool that reads safetensors reads these files; a packed tensor looks to it like one U8 tensor.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from codec.errors import ArgumentError
from codec.frame.head import alignment
from codec.interop.folding import masked_pairs, unfolded_words
from codec.kernels import octets
from codec.layouts import layout_named
from codec.model.atomic import Spool, resolve_target, write_atomic
from codec.model.carried import Carried, carry
from codec.model.container import BITS, header_bytes, metadata_fault, name_fault
from codec.model.file import naming
from codec.model.huggingface import stores_names_once
from codec.model.index import KEY, Index, Record, encode_index, is_index
from codec.model.packing import Packer, Rules, Stored
from codec.packed import PackedTensor
from codec.tensor import decode

Path = str | os.PathLike[str]
Progress = Callable[[int, int, str], object]


def save_file(
    tensors: Mapping[str, Any],
    filename: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    objective: str = "disk",
    plan: Mapping[str, Any] | None = None,
    zero: str = "value",
    progress: Progress | None = None,
) -> None:
    """Write tensors to a model file: each packed where that is worth it, and as itself where it is not.

    Parameters
    ----------
    tensors : mapping of str to array-like or PackedTensor
        NumPy arrays, torch tensors, anything NumPy can read. PackedTensors are stored unchanged. Tensors that are one
        and the same (one object, or the same memory with the same shape and strides, as tied weights are), and packed
        ones of the same bytes, are stored once; a reader finds them under all their names.
    filename : path
        Replaced in one step: at every moment it is the old file or the new one. The new one has the old one's
        permissions, and its owner where the system permits it. A link stays, and the file it points to is replaced.
    metadata : mapping of str to str, optional
        Kept for other tools; "format" is added ("pt") if absent. An entry "codec" of your own is kept too.
    objective : {"disk", "memory", "speed"}
        What the layouts are chosen for.
    plan : mapping, optional
        Layouts by tensor name or shell pattern (the name first, then the first pattern that fits): a layout's name, or
        a dict of arguments for ``encode``. A tensor with a planned layout is packed even where that is larger; "dense"
        keeps it as itself. Without a planned layout a tensor of two dimensions or more is packed if that saves at least
        256 bytes and 1/64 of its bytes, a vector or scalar if it saves at least 64 KiB.
    zero : {"value", "bits"}
        Whether -0.0 is a zero, and so becomes +0.0, in arrays that are packed. Tensors stored as themselves keep every
        bit, and PackedTensors the rule that they have.
    progress : callable, optional
        Called with (bytes done, bytes in all, name) after each tensor; bytes are those of the dense tensors.

    Raises
    ------
    ArgumentError
        For a name, a dtype, an option or metadata that cannot be stored; it names the tensor. For a name or pattern in
        the plan that fits no tensor; it names those that are close. Dtypes that safetensors
        has and codec does not pack (E8M0, FNUZ, complex64, torch's F4) are stored as they are.
    OSError
        What the system says, with the path; the old file is untouched.

    Warns
    -----
    UserWarning
        If tensors are still split in ``*_orig`` and ``*_mask``, as torch.nn.utils.prune leaves them: they are stored as
        given, which takes several times the space of the pruned weights.

    Notes
    -----
    The header comes first and has every length, so all packed bytes wait until the last tensor is packed: of a dict in
    memory, of another mapping in an unnamed file beside the output. So a mapping that makes arrays on access needs the
    memory of one at a time (with ``progress`` it is asked once more for the size of each).

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> w = np.zeros((64, 256), np.float32); w[::7, ::5] = 1
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> save_file({"w": w, "bias": np.ones(64, np.float32)}, path)
    >>> with codec.safe_open(path) as model:
    ...     print(model.keys(), model.info("w").stored_as, model.get_slice("w")[7, :6])
    ['bias', 'w'] frame [1. 0. 0. 0. 0. 1.]
    """
    path = os.fsdecode(filename)
    rules, entries = _checked(tensors, metadata, objective, plan, zero)
    resolve_target(path)
    with nullcontext() if isinstance(tensors, dict) else Spool(path) as spool:
        packer = Packer(rules, spool, stores_names_once(path))
        _add_all(packer, tensors, progress)
        write_model(path, packer, entries)


def save(
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    objective: str = "disk",
    plan: Mapping[str, Any] | None = None,
    zero: str = "value",
) -> bytes:
    """The bytes of the model file that save_file would write.

    Parameters
    ----------
    tensors, metadata, objective, plan, zero
        As for save_file.

    Returns
    -------
    bytes
        For load, or for any reader of safetensors files.

    Raises
    ------
    ArgumentError
        As save_file.

    Examples
    --------
    >>> import numpy as np
    >>> data = save({"w": np.zeros((1000, 1000), np.float32)})
    >>> len(data) < 2000, codec.load(data)["w"].shape
    (True, (1000, 1000))
    """
    rules, entries = _checked(tensors, metadata, objective, plan, zero)
    packer = Packer(rules)
    _add_all(packer, tensors, None)
    return b"".join(file_parts(*packer.finish(), entries))


def write_model(path: str, packer: Packer, metadata: Mapping[str, str]) -> None:
    """Write a model file of what was packed."""
    write_atomic(path, file_parts(*packer.finish(), metadata))


def write_plain(
    path: str,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    read: Callable[[str], Any],
    metadata: Mapping[str, str],
) -> None:
    """Write a plain safetensors file of tensors (name, dtype, shape), one at a time in memory.

    ``read(name)`` gives an array, a PackedTensor or a Carried tensor. Large elements come first: then all are aligned.
    """
    ordered = sorted(tensors, key=lambda tensor: -BITS[tensor[1]])

    def parts() -> Iterator[memoryview | bytes]:
        yield header_bytes(ordered, metadata)
        for name, _, _ in ordered:
            value = read(name)
            with naming(name, value.file if isinstance(value, Carried) else None):
                if isinstance(value, Carried):
                    yield from value.pieces()
                else:
                    yield octets(np.ascontiguousarray(decode(value) if isinstance(value, PackedTensor) else value)).data

    write_atomic(path, parts())


def _checked(
    tensors: Any, metadata: Any, objective: str, plan: Mapping[str, Any] | None, zero: str
) -> tuple[Rules, dict[str, str]]:
    """The arguments that save_file and save have in common."""
    if not isinstance(tensors, Mapping):
        raise ArgumentError(f"tensors is a {type(tensors).__name__}; expected a mapping of names to arrays")
    entries = checked_metadata({} if metadata is None else metadata)
    for name in tensors:
        if fault := name_fault(name):
            raise ArgumentError(fault)
    if words := unfolded_words(masked_pairs(tensors)):
        warnings.warn(words, stacklevel=3)
    rules = Rules(objective, zero, plan)
    rules.check_names(list(tensors))
    return rules, entries


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata for a file to be written, with the entry "format" that other tools look for."""
    if fault := metadata_fault(metadata):
        raise ArgumentError(fault)
    for key, value in metadata.items():
        if is_index(value):
            raise ArgumentError(
                f"metadata {key!r} is the index of another file, which does not fit: take metadata from "
                "codec.safe_open(file).metadata(), which is without it"
            )
    return {"format": "pt", **metadata}


def _add_all(packer: Packer, tensors: Mapping[str, Any], progress: Progress | None) -> None:
    total = sum(_dense_nbytes(name, tensors[name]) for name in tensors) if progress else 0
    done = 0
    for name in tensors:
        value = tensors[name]
        packer.add(name, value)
        if progress:
            done += _dense_nbytes(name, value)
            progress(done, total, name)


def file_parts(
    stored: list[Stored], aliases: Mapping[str, str], metadata: Mapping[str, str], own: str | None = None
) -> Iterator[memoryview | bytes]:
    """A model file: header, then what needs to be aligned most comes first, and the rest in the order given."""
    own = metadata.get(KEY, own)
    entries = {key: value for key, value in metadata.items() if key != KEY}
    ordered = sorted(stored, key=lambda item: -_alignment(item.record))
    records = {item.name: item.record for item in ordered}
    entries[KEY] = encode_index(Index(records, dict(aliases), own), entries)
    yield header_bytes(((name, *record.stored) for name, record in records.items()), entries)
    for item in ordered:
        yield from item.parts()


def _alignment(record: Record) -> int:
    """Bits: a tensor as itself is aligned to its elements, a frame as its layout asks, or to no more than a bit."""
    if record.layout is None:
        return BITS[record.dtype]
    asked = alignment(layout_named(record.layout))
    return 8 * asked if asked > 1 else 1


def _dense_nbytes(name: str, value: Any) -> int:
    if isinstance(value, PackedTensor):
        return int(value.dense_nbytes)
    try:
        return int(value.nbytes)
    except Exception:  # it has no such attribute, or cannot be read, of which an ArgumentError tells below
        with naming(name):
            return carry(value).nbytes
