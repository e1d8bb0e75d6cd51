"""The index: what a model file knows of its tensors beyond the safetensors header, and all CRCs (spec section 8.3)."""

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from codec.dtypes import BY_NAME
from codec.errors import ChecksumError, FormatError, VersionError
from codec.kernels import crc32c
from codec.layouts import LAYOUTS
from codec.model.container import Entry, Header, name_fault, shape_fault

KEY = "codec"  # in __metadata__
VERSION = 0
CRC_STEP = 1 << 20  # bytes of a tensor stored as itself under one CRC
# How an index of every version begins, and how one of version 0 goes on: 12 characters for 9 bytes each.
_BEGINNING = b"\x85\xa7version"
_ANY_VERSION, _VERSION_0 = (base64.b64encode(raw).decode() for raw in (_BEGINNING, b"\x00\xa7tensors"))

# What to do about an index that is gone or no longer fits.
LOST = ": damaged, or changed by another tool (then `codec convert --reindex` makes the index again)"

_KEYS = ["version", "tensors", "aliases", "own", "header_crc"]


@dataclass(frozen=True, slots=True)
class Record:
    """One stored tensor: its own dtype and shape, and how it is stored; ``layout`` is None if as itself."""

    dtype: str
    shape: tuple[int, ...]
    layout: str | None
    nbytes: int
    nnz: int | None
    crcs: tuple[int, ...]

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape in the safetensors header."""
        return (self.dtype, self.shape) if self.layout is None else ("U8", (self.nbytes,))


@dataclass(frozen=True)
class Index:
    """All that an index says.

    ``records`` are in the order of the file's data. ``aliases`` maps further names of stored tensors to the names under
    which they are stored. ``own`` is the entry KEY that the source's metadata had for itself, if it had one.
    """

    records: dict[str, Record]
    aliases: dict[str, str]
    own: str | None


def is_index(text: str) -> bool:
    """Whether a metadata entry KEY is an index, of any version and also one that was damaged, and not a user's text.

    Two places tell, and one is enough (spec section 8.2): damage in the other must not turn an indexed file into a
    plain one, which has no checksums to find damage with.
    """
    return text[:12] == _ANY_VERSION or text[12:24] == _VERSION_0


def crcs_of(data: memoryview, layout: str | None) -> tuple[int, ...]:
    """The CRCs of a tensor's bytes: one for a frame, one per MiB for a tensor stored as itself."""
    step = CRC_STEP if layout is None else max(1, len(data))
    return tuple(crc32c(data[at : at + step]) for at in range(0, len(data), step))


def check_crcs(data: memoryview, record: Record, first: int = 0) -> None:
    """Compare with the CRCs from number ``first`` on."""
    for number, crc in enumerate(crcs_of(data, record.layout), first):
        if crc != record.crcs[number]:
            raise ChecksumError(
                f"bytes are damaged: their CRC-32C is {crc:08x}, the index says {record.crcs[number]:08x}",
                offset=number * CRC_STEP,
            )


def encode_index(index: Index, metadata: Mapping[str, str]) -> str:
    """The value of KEY; ``metadata`` is without it."""
    names = sorted(index.records)
    stored = [(name, *index.records[name].stored) for name in names]
    packed = _pack(
        {
            "version": VERSION,
            "tensors": [_entry(index.records[name]) for name in names],
            "aliases": dict(sorted(index.aliases.items())),
            "own": index.own,
            "header_crc": _header_crc(stored, metadata),
        }
    )
    return base64.b64encode(packed + crc32c(packed).to_bytes(4, "little")).decode()


def decode_index(text: str, header: Header) -> Index:
    """What an index says; everything in it agrees with the header."""
    fields = _parse(text)
    tensors, aliases, own, header_crc = (fields[key] for key in _KEYS[1:])
    if not isinstance(tensors, list) or not isinstance(aliases, dict) or not _is_crc(header_crc):
        raise FormatError("index: tensors is not an array, aliases not a map, or header_crc not a CRC-32C")
    if own is not None and (not isinstance(own, str) or is_index(own)):
        raise FormatError("index: own is neither a string nor nil, or another index")
    if len(tensors) != len(header.entries):
        raise FormatError(f"index of {len(tensors)} tensors, the header has {len(header.entries)}{LOST}")
    names = sorted(header.entries)
    metadata = {key: value for key, value in header.metadata.items() if key != KEY}
    stored = ((name, header.entries[name].dtype, header.entries[name].shape) for name in names)
    records = {name: _record(header.entries[name], value) for name, value in zip(names, tensors, strict=True)}
    for name, target in aliases.items():
        if fault := name_fault(name):
            raise FormatError(f"index: {fault}")
        if not isinstance(target, str) or name in records or target not in records:
            raise FormatError(f"index: alias for {target!r}; that must be stored, and the alias not", tensor=name)
    if list(aliases) != sorted(aliases):
        raise FormatError("index: aliases are not sorted")
    if _header_crc(stored, metadata) != header_crc:
        raise ChecksumError(f"names, dtypes, shapes or metadata are not those that the index was made for{LOST}")
    return Index({name: records[name] for name in header.entries}, aliases, own)


def salvage(text: str, header: Header) -> tuple[dict[str, str], str | None]:
    """Aliases and ``own`` of an index that does not fit the header any more, as far as they still make sense."""
    try:
        fields = _parse(text)
    except FormatError:
        return {}, None
    aliases, own = fields["aliases"], fields["own"]
    found = aliases.items() if isinstance(aliases, dict) else ()
    kept = {
        name: target
        for name, target in found
        if not name_fault(name) and name not in header.entries and isinstance(target, str) and target in header.entries
    }
    return kept, own if isinstance(own, str) and not is_index(own) else None


def _parse(text: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"index is not base64: {error}") from error
    if base64.b64encode(raw).decode() != text:  # loose bits in the last character
        raise FormatError("index is not canonical base64")
    if len(raw) < 4:
        raise FormatError(f"index of {len(raw)} bytes; at least 4 are needed")
    packed, crc = raw[:-4], int.from_bytes(raw[-4:], "little")
    if crc32c(packed) != crc:
        raise ChecksumError(f"index is damaged: its CRC-32C is {crc32c(packed):08x}, recorded is {crc:08x}")
    _check_version(packed)
    try:
        index = msgpack.unpackb(packed)
        canonical = _pack(index) == packed
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"index is not msgpack: {error}") from error
    if not canonical:
        raise FormatError("index is not canonical msgpack")
    if not isinstance(index, dict) or list(index) != _KEYS:
        raise FormatError(f"index is not a map of {', '.join(_KEYS)}")
    return index


def _check_version(packed: bytes) -> None:
    """Before anything else of the index, which another version may have otherwise (spec section 8.3, R8.3c and d)."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(packed[len(_BEGINNING) : len(_BEGINNING) + 9])  # the longest integer
    try:
        version = unpacker.unpack()
    except (ValueError, msgpack.exceptions.UnpackException):
        version = None
    if type(version) is not int or version < 0 or not packed.startswith(_BEGINNING + _pack(version)):
        raise FormatError("index does not begin as a map with a version")
    if version != VERSION:
        raise VersionError(f"index of version {version}; this release reads version {VERSION}")


def _entry(record: Record) -> list[Any]:
    """What the index keeps of a record; the rest stands in the header."""
    if record.layout is None:
        return [record.crcs]
    return [record.dtype, record.shape, record.layout, record.nnz, record.crcs[0]]


def _record(entry: Entry, value: Any) -> Record:
    if type(value) is list and len(value) == 1 and _are_crcs(value[0], -(-entry.nbytes // CRC_STEP)):
        return Record(entry.dtype, entry.shape, None, entry.nbytes, None, tuple(value[0]))
    if fault := _fault(entry, value):
        raise FormatError(f"index: {fault}{LOST}", tensor=entry.name)
    dtype, shape, layout, nnz, crc = value
    return Record(dtype, tuple(shape), layout, entry.nbytes, nnz, (crc,))


def _fault(entry: Entry, value: Any) -> str | None:
    if not isinstance(value, list) or len(value) not in (1, 5):
        return "entry is neither [crcs] nor [dtype, shape, layout, nnz, crc]"
    if len(value) == 1:
        return f"crcs are not {-(-entry.nbytes // CRC_STEP)} CRC-32Cs, one for each MiB"
    dtype, shape, layout, nnz, crc = value
    if entry.dtype != "U8" or len(entry.shape) != 1:
        return f"a frame, which the header calls {entry.dtype} {list(entry.shape)} and not a list of bytes"
    if not isinstance(dtype, str) or dtype not in BY_NAME or not isinstance(shape, list):
        return f"dtype {dtype!r} is none that a frame can have, or shape {shape!r} not an array"
    if fault := shape_fault(dtype, shape):
        return fault
    if not isinstance(layout, str) or layout not in LAYOUTS:
        return f"layout {layout!r} is none of {', '.join(LAYOUTS)}"
    if type(nnz) is not int or not 0 <= nnz <= math.prod(shape):
        return f"nnz {nnz!r} is not a number of elements of shape {shape}"
    return None if _are_crcs([crc], 1) else "crc is not a CRC-32C"


def _are_crcs(values: object, count: int) -> bool:
    return type(values) is list and len(values) == count and all(map(_is_crc, values))


def _is_crc(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _header_crc(stored: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]) -> int:
    """CRC-32C over tensors (name, dtype, shape), sorted by name, and metadata."""
    return crc32c(_pack([list(stored), dict(sorted(metadata.items()))]))


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed
