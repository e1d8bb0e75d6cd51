"""Sections 1 to 4 of format.md, plainly: words, limits, element types, and the head of a frame.

The first half of the reader; reader.py goes on from the parts that ``read_head`` gives.
"""

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import ml_dtypes
import msgpack
import numpy as np

# Section 1, the table of limits.
LIMITS = {"integer": 2**63 - 1, "rank": 32, "header": 2**20, "segment": 2**22, "symbols": 256, "length": 15}
LIMITS |= {"field": 56, "window": 2**23, "json": 10**8, "name": 1024}
# Section 2: name -> (bits, kind, pattern of -0.0 or None).
ELEMENT_TYPES: dict[str, tuple[int, str, int | None]] = {
    "F64": (64, "float", 1 << 63),
    "F32": (32, "float", 1 << 31),
    "F16": (16, "float", 0x8000),
    "BF16": (16, "float", 0x8000),
    "F8_E4M3": (8, "unsigned", 0x80),
    "F8_E5M2": (8, "unsigned", 0x80),
    "I8": (8, "unsigned", None),
    "U8": (8, "unsigned", None),
    "I16": (16, "signed", None),
    "U16": (16, "unsigned", None),
    "I32": (32, "signed", None),
    "U32": (32, "unsigned", None),
    "I64": (64, "signed", None),
    "U64": (64, "unsigned", None),
    "BOOL": (8, "unsigned", None),
}
# Section 4.1: field -> (offset, bytes).
PREFIX = {"magic": (0, 8), "version": (8, 4), "header_length": (12, 4), "frame_length": (16, 8), "head_crc": (24, 4)}
MAGIC = bytes.fromhex("89434443460D0A1A")
# Section 5: layout -> (streams, parameters and what they may be).
LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, tuple[Any, ...]]]] = {
    "dense": (("values",), {}),
    "csr": (("rows", "columns", "values"), {"index": (8, 16, 32), "of": ("nonzeros", "zeros")}),
    "bitmap": (("mask", "values"), {"order": ("rows", "lanes")}),
    "relative_index": (
        ("gaps", "values"),
        {"bits": tuple(range(1, 17)), "filler": ("escape", "value"), "of": ("nonzeros", "zeros")},
    ),
    "run_length": (("words",), {"bits": tuple(range(1, 17))}),
    "huffman": (("gaps", "values"), {"max_length": tuple(range(8, 16))}),
    "n_m": (("patterns", "values"), {"m": tuple(range(1, 65)), "n": tuple(range(1, 65))}),
    "block_offset": (("rows", "columns", "values"), {"block": ("shape",), "index": (8, 16, 32)}),
}
CODINGS = ("none", "zstd", "huffman")
# Sections 4.2 and 6.3: the keys of each map, in order.
HEADER: tuple[str, ...] = ("dtype", "shape", "row_dims", "segment", "layout", "params")
HEADER += ("values", "zero", "nnz", "negative_zeros", "streams")
CODEBOOK = ("coding", "bits", "rows")
STREAM = ("name", "length", "coding", "code")
CODE = ("low", "zeros", "first", "lengths")

DTYPES = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BOOL": np.dtype(np.bool_),
}
DTYPES |= {
    name: np.dtype(f"<{name[0].lower()}{bits // 8}") for name, (bits, *_) in ELEMENT_TYPES.items() if name not in DTYPES
}


class SpecError(ValueError):
    """Bytes that format.md says to refuse; ``reason`` is "version", "checksum" or "format"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def refuse(message: str, reason: str = "format") -> NoReturn:
    raise SpecError(reason, message)


def need(condition: bool, message: str, reason: str = "format") -> None:
    if not condition:
        refuse(message, reason)


# Section 1 -----------------------------------------------------------------------------------------------------------


def _crc_row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_row(byte) for byte in range(256)]


def crc32c(data: bytes, more: bytes = b"") -> int:
    """CRC-32C of data, then more."""
    crc = 0xFFFFFFFF
    for piece in (data, more):
        for byte in piece:
            crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def unpack(data: bytes) -> Any:
    """Canonical msgpack, as far as it can be judged without knowing the keys."""
    try:
        value = msgpack.unpackb(data)
        same = msgpack.packb(value) == data
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        refuse(f"no msgpack: {error}")
    need(same, "msgpack is not minimal")
    return value


def fields(value: Any, keys: tuple[str, ...], where: str) -> list[Any]:
    need(type(value) is dict and tuple(value) == keys, f"{where}: expected a map with the keys {keys}")
    return list(value.values())


def integer(value: Any, where: str, limit: int = LIMITS["integer"]) -> int:
    need(type(value) is int and 0 <= value <= limit, f"{where}: expected an integer of 0 to {limit}, found {value!r}")
    return int(value)


def integers(value: Any, where: str) -> list[int]:
    need(type(value) is list, f"{where}: expected an array")
    return [integer(one, where) for one in value]


# Sections 3 and 4 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """Section 6.3. ``words`` maps (length, code word) to symbol."""

    low: int
    zeros: int
    first: int
    words: dict[tuple[int, int], int]


@dataclass(frozen=True)
class Stream:
    name: str
    length: int
    coding: str
    kind: str
    bits: int
    code: Code | None
    shared: bool = False


@dataclass(frozen=True)
class Part:
    """One segment's share of a stream; ``check`` comes before any use of the bytes (step 8)."""

    stream: Stream
    data: bytes
    crc: int

    def check(self) -> bytes:
        need(crc32c(self.data) == self.crc, f"part of stream {self.stream.name}", "checksum")
        return self.data


@dataclass(frozen=True)
class Head:
    info: dict[str, Any]
    rows: int
    cols: int
    streams: list[Stream]

    @property
    def segments(self) -> int:
        h, w = self.info["segment"]
        return -(-self.rows // h) * -(-self.cols // w) if h else 0

    def corner(self, number: int) -> tuple[int, int, int, int]:
        """First row, first column, height and width of a segment."""
        h, w = self.info["segment"]
        across = -(-self.cols // w)
        row, column = number // across * h, number % across * w
        return row, column, min(h, self.rows - row), min(w, self.cols - column)


def read_code(value: Any, bits: int, kind: str, longest: int) -> Code:
    low, zeros, first = (integer(one, "code") for one in fields(value, CODE, "code")[:3])
    raw = value["lengths"]
    need(type(raw) is bytes and 1 <= len(raw) <= LIMITS["symbols"] // 2, "code: lengths are no bin of 1 to 128 bytes")
    lengths = [nibble for byte in raw for nibble in (byte & 15, byte >> 4)]
    if lengths[-1] == 0:
        lengths.pop()
    sign = int(kind == "float")
    top = bits - sign - low - zeros
    need(low + sign <= LIMITS["field"], "code: raw fields are too wide")
    need(top > 0 and first + len(lengths) <= 1 << top, "code: symbols outside the range of keys")
    if raw == b"\0":
        return Code(low, zeros, first, {(0, 0): 0})
    need(lengths[0] > 0 and lengths[-1] > 0, "code: the first or last symbol has no length")
    need(max(lengths) <= longest, f"code: a code word of more than {longest} bits")
    words, word, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        word <<= length - before
        need(word >> length == 0, "code: over-full")
        words[length, word] = symbol
        word, before = word + 1, length
    need(word == 1 << before, "code: incomplete")
    return Code(low, zeros, first, words)


def read_values(values: Any, rows: int, size: int) -> int:
    """Section 4.5: bits of a code, 0 where values are elements."""
    if values == {"coding": "raw"}:
        return 0
    coding, bits, shared = fields(values, CODEBOOK, "values")
    need(coding == "codebook", "values: unknown coding")
    need(integer(bits, "bits", 8) >= 1, "values: codes of 0 bits")
    integer(shared, "rows", max(rows, 1) - 1 if size else 0)
    return int(bits)


def read_block(params: dict[str, Any], h: int, w: int, cols: int) -> bool:
    """Section 5.8: whether blocks are whole columns."""
    block = params["block"]
    need(type(block) is list and len(block) == 2, "params: block is no shape")
    whole = block[0] == "all"
    need(whole or integer(block[0], "block", h or LIMITS["segment"]) >= 1, "params: a block of no rows")
    need(integer(block[1], "block", w or LIMITS["segment"]) >= 1, "params: a block of no columns")
    need(
        -(-(cols if whole and w else w) // block[1]) <= 1 << params["index"],
        "params: index is too narrow for the blocks",
    )
    return bool(whole)


def read_header(raw: bytes) -> Head:
    """Step 4 of section 4.4."""
    info = unpack(raw)
    header = fields(info, HEADER, "header")
    dtype, shape, row_dims, segment, layout, params, values, zero, nnz, negative, streams = header
    need(type(dtype) is str and dtype in ELEMENT_TYPES, f"unknown dtype {dtype!r}")
    bits, kind, negative_zero = ELEMENT_TYPES[dtype]
    shape = integers(shape, "shape")
    need(len(shape) <= LIMITS["rank"], "shape: too many dimensions")
    need(math.prod(n or 1 for n in shape) * bits // 8 <= LIMITS["integer"], "shape: too many elements")
    row_dims = integer(row_dims, "row_dims", len(shape))
    rows, cols = math.prod(shape[:row_dims]), math.prod(shape[row_dims:])
    segment = integers(segment, "segment")
    need(len(segment) == 2, "segment: expected two integers")
    h, w = segment
    if rows * cols == 0:
        need(segment == [0, 0], "segment: an empty tensor has none")
    else:
        need((w == cols and 1 <= h <= rows) or (h == 1 and 1 <= w < cols), "segment: neither rows nor a piece of one")
        need(h * w <= LIMITS["segment"], "segment: too large")
    need(type(layout) is str and layout in LAYOUTS, f"unknown layout {layout!r}")
    names, allowed = LAYOUTS[layout]
    for found, (key, choices) in zip(fields(params, tuple(allowed), "params"), allowed.items(), strict=True):
        if choices != ("shape",):
            need(type(found) is type(choices[0]) and found in choices, f"params: {key} is {found!r}")
    if layout == "csr":
        need(w <= 1 << params["index"], "params: index is too narrow for the segment")
    if layout == "relative_index":
        need(params["filler"] == "escape" or params["of"] == "nonzeros", "params: fillers between zeros")
    if layout == "n_m":
        need(params["n"] <= params["m"], "params: n is above m")
    if layout == "block_offset" and read_block(params, h, w, cols):
        names = names[1:]
    code_bits = read_values(values, rows, rows * cols)
    if code_bits:
        names = (*("codes" if name == "values" else name for name in names), "codebook")
    need(zero in ("value", "bits"), f"unknown zero rule {zero!r}")
    rest = rows * cols - integer(nnz, "nnz", rows * cols)
    integer(negative, "negative_zeros", 0 if zero == "bits" or negative_zero is None else rest)
    need(type(streams) is list and len(streams) == len(names), f"streams: expected {names}")
    longest = params.get("max_length", LIMITS["length"])
    item_bits = {"values": bits, "rows": 32, "columns": params.get("index"), "mask": 8, "gaps": 8, "words": 64}
    item_bits["patterns"] = 8
    item_bits |= {"codes": code_bits, "codebook": bits}
    listed = []
    for stream, name in zip(streams, names, strict=True):
        coding = stream.get("coding") if type(stream) is dict else None
        need(type(coding) is str and coding in CODINGS, f"stream {name}: unknown coding {coding!r}")
        shared = name == "codebook" or (name == "columns" and "rows" not in names)
        always = "none" if shared else "huffman" if layout == "huffman" else coding
        need(coding == always, f"stream {name}: must have coding {always}")
        found = fields(stream, STREAM if coding == "huffman" else STREAM[:3], f"stream {name}")
        need(found[0] == name, f"expected stream {name}, found {found[0]!r}")
        about = (kind if name in ("values", "codebook") else "unsigned", item_bits[name])
        code = read_code(found[3], about[1], about[0], longest) if coding == "huffman" else None
        listed.append(Stream(name, integer(found[1], "length"), str(coding), *about, code, shared))
    return Head(info, rows, cols, listed)


def read_head(data: bytes) -> tuple[Head, list[list[Part]]]:
    """Steps 1 to 7 of section 4.4: the head, and for each stream its parts."""
    need(len(data) >= 28 and data[:8] == MAGIC, "no frame")
    version, length, total, head_crc = struct.unpack_from("<IIQI", data, 8)
    need(version == 0, f"version {version}", "version")
    need(total % 64 == 0 and total == len(data), f"frame_length {total}, but {len(data)} bytes")
    need(length <= LIMITS["header"] and 28 + length <= total - 64, f"header_length {length}")
    head = read_header(data[28 : 28 + length])
    count = len(head.streams) * head.segments
    table = up(28 + length, 8)
    start = up(table + 12 * count, 64)
    need(start <= total - 64, "the segment table does not fit")
    need(crc32c(data[:24], data[28:start]) == head_crc, "head", "checksum")
    need(not any(data[28 + length : table]) and not any(data[table + 12 * count : start]), "padding in the head")
    offsets = struct.unpack_from(f"<{count}Q", data, table)
    crcs = struct.unpack_from(f"<{count}I", data, table + 8 * count)
    parts, end = [], start
    for number, stream in enumerate(head.streams):
        mine = slice(number * head.segments, (number + 1) * head.segments)
        begin = up(end, 64)
        ends = begin + stream.length
        need(ends <= total - 64, f"stream {stream.name}: beyond the frame")
        need(not any(data[end:begin]), "padding between streams")
        edges = [*offsets[mine], ends]
        need(edges[0] == begin and edges == sorted(edges), f"stream {stream.name}: parts do not tile it")
        need(not stream.shared or edges[1:] == [ends] * head.segments, f"stream {stream.name}: a second part")
        pieces = [data[a:b] for a, b in pairwise(edges)]
        parts.append([Part(stream, piece, crc) for piece, crc in zip(pieces, crcs[mine], strict=True)])
        end = ends
    need(up(end, 64) + 64 == total and not any(data[end:]), "tail")
    return head, parts
