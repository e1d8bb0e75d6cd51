"""The container: a safetensors file, whose header is proved before any of it is used (spec section 8.1).

This module knows names, dtypes, shapes and positions; index.py and reader.py know what the bytes mean.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ml_dtypes
import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError
from codec.model.disk import Raw
from codec.model.foreign import LOOK, what_it_is

MAX_HEADER = 100_000_000  # bytes of JSON; safetensors' own limit
MAX_NAME = 1024  # bytes of UTF-8
MAX_RANK = 32
MAX_NBYTES = 2**63 - 1
MAX_NESTING = 127  # of objects and arrays, the header included; the JSON reader of safetensors stops there
ALIGNMENT = 64  # of the data's start, in what we write

# Dtypes that safetensors has and the format's own tensors have not (codec.dtypes): such tensors are carried from file
# to file as they are. The bits of an element, and NumPy's dtype; NumPy packs no items of 4 or 6 bits.
CARRIED: dict[str, tuple[int, np.dtype | None]] = {
    "F4": (4, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F8_E8M0": (8, np.dtype(ml_dtypes.float8_e8m0fnu)),
    "F8_E4M3FNUZ": (8, np.dtype(ml_dtypes.float8_e4m3fnuz)),
    "F8_E5M2FNUZ": (8, np.dtype(ml_dtypes.float8_e5m2fnuz)),
    "C64": (64, np.dtype("<c8")),
}
BITS = {name: 8 * row.width for name, row in BY_NAME.items()} | {name: bits for name, (bits, _) in CARRIED.items()}


class Entry(NamedTuple):
    """One tensor of the header; ``start`` is its offset from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The header: tensors in the order of the file's data, and ``__metadata__``."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def array_dtype(dtype: str) -> np.dtype:
    """NumPy's dtype for a safetensors name; ArgumentError where there is none."""
    found = BY_NAME[dtype].dtype if dtype in BY_NAME else CARRIED[dtype][1]
    if found is None:
        raise ArgumentError(
            f"NumPy has no arrays of dtype {dtype}; the tensor can only be copied from file to file, or read with "
            "safetensors.torch where torch has the dtype"
        )
    return found


# What may stand in a header: one rule for reader (FormatError) and writer (ArgumentError). Each returns the fault.


def name_fault(name: object) -> str | None:
    """What is wrong with a tensor's name, or None."""
    if not isinstance(name, str) or not name or name == "__metadata__":
        return f"{name!r} is not a tensor name: expected a non-empty string other than '__metadata__'"
    if len(name) > MAX_NAME or not _is_text(name) or len(name.encode()) > MAX_NAME:
        return f"name of a tensor is not valid UTF-8 of at most {MAX_NAME} bytes: {name[:40]!r}"
    return None


def shape_fault(dtype: object, shape: Sequence[object]) -> str | None:
    """What is wrong with a tensor's dtype and shape, or None."""
    if dtype not in BITS:
        return f"unknown dtype {dtype!r}; expected one of {', '.join(BITS)}"
    if len(shape) > MAX_RANK:
        return f"{len(shape)} dimensions; at most {MAX_RANK} are allowed"
    bits = BITS[str(dtype)]
    for side in shape:
        if type(side) is not int or not 0 <= side <= MAX_NBYTES:
            return f"shape {list(shape)} is not made of integers from 0 to 2**63 - 1"
        bits *= side or 1  # a side of 0 hides the others from the size, but not from whoever allocates the array
    if bits > 8 * MAX_NBYTES or (bits % 8 and 0 not in shape):
        return f"shape {list(shape)} of {dtype} is not a whole number of bytes below 2**63"
    return None


def metadata_fault(metadata: object) -> str | None:
    """What is wrong with a file's metadata, or None."""
    if not isinstance(metadata, Mapping):
        return "metadata is not a map of strings to strings"
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or not _is_text(key) or not _is_text(value):
            return f"metadata {key!r}: {value!r} is not a string (valid UTF-8) for a string"
    return None


def _is_text(text: str) -> bool:
    try:  # JSON can spell lone surrogates, UTF-8 cannot
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: object) -> int:
    """How many objects and arrays lie within one another."""
    deepest, left = 0, [(value, 1)]
    while left:
        one, depth = left.pop()
        if isinstance(one, dict | list):
            deepest = max(deepest, depth)
            left += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]
    return deepest


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor stored as itself."""
    return math.prod(shape) * BITS[dtype] // 8


def read_header(raw: Raw) -> Header:
    """The header of a safetensors file, everything in it proved.

    Raises FormatError, which says what the file is where it is one of another kind.
    """
    if raw.size < 8:
        raise _refusal(raw, f"{raw.size} bytes are no safetensors file, which has 8 at least", 0)
    length = int.from_bytes(raw.read_private(0, 8), "little")
    if length > MAX_HEADER or length > raw.size - 8:
        words = f"its header would have {length} bytes, the file has {raw.size} (and {MAX_HEADER} are allowed)"
        raise _refusal(raw, f"not a safetensors file, or cut off: {words}", 0)
    text = bytes(raw.read_private(8, length))
    if not text.startswith(b"{"):
        raise _refusal(raw, f"not a safetensors file: its header starts with {text[:8]!r}, expected '{{'", 8)
    return _parse_header(strict_json(text), 8 + length, raw.size)


def _refusal(raw: Raw, otherwise: str, offset: int) -> FormatError:
    """The error for a file of another kind, where its first bytes tell which; else with these words."""
    words = what_it_is(bytes(raw.read_private(0, min(LOOK, raw.size))), raw.path) if raw.size else "an empty file"
    if words is None:
        return FormatError(otherwise, offset=offset)
    return FormatError(f"not a safetensors file, but {words}")


def strict_json(raw: bytes) -> object:
    """JSON in UTF-8 without duplicate keys. Integers outside 0 ... 2**63 - 1 come as floats, which no field takes."""
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_int=_natural, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # decoding errors of both kinds are ValueErrors
        raise FormatError(f"not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} occurs twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _natural(digits: str) -> int | float:
    return int(digits) if len(digits) <= 19 and digits.isdecimal() else float(digits)


def _parse_header(header: object, data_start: int, size: int) -> Header:
    assert isinstance(header, dict)  # it starts with a brace
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # safetensors reads null as no metadata
        metadata = {}
    if fault := metadata_fault(metadata):
        raise FormatError(fault)
    entries = sorted((_parse_entry(name, value, data_start) for name, value in header.items()), key=_place)
    position = data_start
    for entry in entries:
        if entry.start != position:
            raise FormatError(
                f"data starts at {entry.start}, expected {position}: tensors overlap or leave a hole", tensor=entry.name
            )
        position += entry.nbytes
    if position != size:
        raise FormatError(
            f"tensors end here, the file at {size}: it is truncated or has bytes that belong to no tensor",
            offset=position,
        )
    return Header({entry.name: entry for entry in entries}, metadata)


def _place(entry: Entry) -> tuple[int, int]:
    return entry.start, entry.nbytes


def _parse_entry(name: str, value: object, data_start: int) -> Entry:
    if fault := name_fault(name):
        raise FormatError(fault)
    # Other keys beside the three are read over, as safetensors does, if they are JSON that it takes.
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise FormatError("header entry is not a map with dtype, shape and data_offsets", tensor=name)
    if len(value) > 3 and (_depth(value) >= MAX_NESTING or not _is_text(json.dumps(value, ensure_ascii=False))):
        raise FormatError(f"header is nested deeper than {MAX_NESTING}, or holds text that is not UTF-8", tensor=name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise FormatError("dtype is not a string or shape not an array", tensor=name)
    if fault := shape_fault(dtype, shape):
        raise FormatError(fault, tensor=name)
    if not isinstance(offsets, list) or len(offsets) != 2 or type(offsets[0]) is not int or type(offsets[1]) is not int:
        raise FormatError(f"data_offsets {offsets!r} are not two integers", tensor=name)
    nbytes = nbytes_of(dtype, shape)
    if offsets[1] - offsets[0] != nbytes:
        raise FormatError(f"data_offsets {offsets} do not span the {nbytes} bytes of {dtype} {shape}", tensor=name)
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], nbytes)


def header_bytes(tensors: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]) -> bytes:
    """The header for tensors (name, dtype, shape) in the order of their data, padded so that data is aligned."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, dtype, shape in tensors:
        stop = position + nbytes_of(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    if len(raw) > MAX_HEADER:
        raise ArgumentError(f"header of {len(raw)} bytes; safetensors allows {MAX_HEADER}: split the model into shards")
    return len(raw).to_bytes(8, "little") + raw
