"""The index: what a model file knows of its tensors beyond the safetensors header, and all CRCs (spec section 8.3)."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from codec.errors import ChecksumError, FormatError, VersionError
from codec.kernels import crc32c
from codec.safetensors_io import MAX_NBYTES, Header, nbytes_of, shape_fault

KEY = "codec"  # in __metadata__
VERSION = 0
CRC_STEP = 1 << 20  # bytes of a tensor stored as itself under one CRC
# How every index begins. A flipped bit in KEY must not turn an indexed file into a plain one, which nothing checks.
START = base64.b64encode(b"\x83\xa7version\x00\xa7tensors").decode()

# What to do about an index that is gone or no longer fits.
LOST = ": damaged, or changed by another tool (then `codec convert --reindex` makes the index again)"

_INDEX_KEYS = ["version", "tensors", "header_crc"]
_RECORD_KEYS = ["dtype", "shape", "layout", "nbytes", "nnz", "crcs"]


@dataclass(frozen=True)
class Record:
    """One tensor's entry: its own dtype and shape, and how it is stored; ``layout`` is None if as itself."""

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


def encode_index(records: Mapping[str, Record], metadata: Mapping[str, str]) -> str:
    """The value of KEY; ``metadata`` is without it."""
    tensors = {
        name: dict(zip(_RECORD_KEYS, (r.dtype, r.shape, r.layout, r.nbytes, r.nnz, r.crcs), strict=True))
        for name, r in records.items()
    }
    stored = ((name, *record.stored) for name, record in records.items())
    packed = _pack({"version": VERSION, "tensors": tensors, "header_crc": _header_crc(stored, metadata)})
    return base64.b64encode(packed + crc32c(packed).to_bytes(4, "little")).decode()


def decode_index(text: str, header: Header) -> dict[str, Record]:
    """The records, in the order of the file's data; everything in them agrees with the header."""
    tensors, header_crc = _parse(text)
    records = {name: _record(name, value) for name, value in tensors.items()}
    if records.keys() != header.entries.keys():
        name = min(records.keys() ^ header.entries.keys())
        where = "index but not in the header" if name in records else "header but not in the index"
        raise FormatError(f"the tensor is in the {where}{LOST}", tensor=name)
    for name, entry in header.entries.items():
        if records[name].stored != (entry.dtype, entry.shape):
            raise FormatError(
                f"header has {entry.dtype} {list(entry.shape)}, the index another dtype or shape{LOST}", tensor=name
            )
    metadata = {key: value for key, value in header.metadata.items() if key != KEY}
    if _header_crc(((e.name, e.dtype, e.shape) for e in header.entries.values()), metadata) != header_crc:
        raise ChecksumError(f"names, dtypes, shapes or metadata are not those that the index was made for{LOST}")
    return {name: records[name] for name in header.entries}


def _parse(text: str) -> tuple[dict[str, object], int]:
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
    try:
        index = msgpack.unpackb(packed)
        canonical = _pack(index) == packed
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"index is not msgpack: {error}") from error
    if not canonical:
        raise FormatError("index is not canonical msgpack")
    if isinstance(index, dict) and type(index.get("version")) is int and index["version"] != VERSION:
        raise VersionError(f"index of version {index['version']}; this release reads version {VERSION}")
    if not isinstance(index, dict) or list(index) != _INDEX_KEYS or type(index["version"]) is not int:
        raise FormatError(f"index is not a map of {', '.join(_INDEX_KEYS)}")
    tensors, header_crc = index["tensors"], index["header_crc"]
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors) or not _is_crc(header_crc):
        raise FormatError("index: tensors is not a map by name, or header_crc not a CRC-32C")
    return tensors, header_crc


def _record(name: str, value: Any) -> Record:
    if not isinstance(value, dict) or list(value) != _RECORD_KEYS:
        raise FormatError(f"index entry is not a map of {', '.join(_RECORD_KEYS)}", tensor=name)
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    if fault := _record_fault(**fields):
        raise FormatError(f"index: {fault}", tensor=name)
    return Record(**fields)


def _record_fault(dtype: Any, shape: Any, layout: Any, nbytes: Any, nnz: Any, crcs: Any) -> str | None:
    if not isinstance(dtype, str) or not isinstance(shape, tuple):
        return "dtype is not a string or shape not an array"
    if fault := shape_fault(dtype, shape):
        return fault
    if type(nbytes) is not int or not 0 <= nbytes <= MAX_NBYTES:
        return f"nbytes {nbytes!r} is not an integer from 0 to 2**63 - 1"
    if not isinstance(crcs, tuple) or not all(_is_crc(crc) for crc in crcs):
        return "crcs is not an array of CRC-32Cs"
    if layout is None:
        if nnz is not None or nbytes != nbytes_of(dtype, shape):
            return "a tensor stored as itself has no nnz, and the bytes of its dtype and shape"
        parts = -(-nbytes // CRC_STEP)
    else:
        if not isinstance(layout, str) or type(nnz) is not int or nnz < 0:
            return "layout is not a string or nil, or nnz not a natural number"
        parts = 1
    return None if len(crcs) == parts else f"{len(crcs)} CRCs; {parts} are needed"


def _is_crc(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _header_crc(stored: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]) -> int:
    return crc32c(
        _pack([sorted([name, dtype, list(shape)] for name, dtype, shape in stored), dict(sorted(metadata.items()))])
    )


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed
