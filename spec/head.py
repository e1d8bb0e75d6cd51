"""Sections 1 to 4 of format.md, plainly: words, limits, element types, and the head of a frame.

The first half of the reader; reader.py goes on from the parts that ``read_head`` gives.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import ml_dtypes
import msgpack
import numpy as np

# Section 1, the table of limits.
LIMITS = {
    "integer": 2**63 - 1,
    "first": 2**64 - 1,
    "dimensions": 32,
    "header": 2**20,
    "segment": 2**22,
    "symbols": 256,
    "code word": 12,
}
LIMITS |= {"raw field": 56, "window": 2**23, "JSON header": 10**8, "nesting": 127, "name": 1024, "checksum": 2**32 - 1}
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
PREFIX = {"magic": (0, 8), "version": (8, 4), "header_length": (12, 4), "frame_length": (16, 8)}
PREFIX |= {"data_start": (24, 8), "head_crc": (32, 4)}
HEADER_AT = 36
MAGIC = bytes.fromhex("89434443460D0A1A")
# Section 5: layout -> (streams, parameters and what they may be; None: section 5.8 says it).
LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, tuple[Any, ...] | None]]] = {
    "dense": (("values",), {}),
    "csr": (("pointers", "columns", "values"), {"index": (8, 16, 32), "of": ("nonzeros", "zeros")}),
    "bitmap": (("mask", "values"), {"order": ("rows", "lanes")}),
    "huffman": (("gaps", "values"), {"max_length": tuple(range(8, 16))}),
    "relative_index": (
        ("steps", "values"),
        {"bits": tuple(range(1, 17)), "filler": ("escape", "value"), "of": ("nonzeros", "zeros")},
    ),
    "run_length": (("words",), {"bits": tuple(range(1, 17))}),
    "n_m": (("patterns", "values"), {"m": tuple(range(1, 65)), "n": tuple(range(1, 65))}),
    "block_offset": (("pointers", "columns", "values"), {"block": None, "index": (8, 16, 32)}),
    "sell": (("places", "lengths", "columns", "values"), {}),
    "context": (("coded",), {}),
}
CODINGS = ("none", "zstd", "huffman")
# Sections 4.2, 6.3 and 7.2: the keys of each map, in order.
HEADER: tuple[str, ...] = ("dtype", "shape", "row_dims", "segment", "layout", "params")
HEADER += ("values", "zero", "nnz", "negative_zeros", "streams")
STREAM = ("name", "length", "coding", "code")
CODE = ("low", "zeros", "first", "lengths")
CODEBOOK = ("coding", "bits", "group_rows")

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
    """The smallest multiple of ``multiple`` that is not below ``number``."""
    return -(-number // multiple) * multiple


def unpack(data: bytes) -> Any:
    """Canonical msgpack, as far as it can be judged without knowing the keys."""
    try:
        value = msgpack.unpackb(data)
        same = msgpack.packb(value) == data
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        refuse(f"no msgpack: {error}")
    need(same, "msgpack is not minimal")
    return value


def fields(value: Any, keys: tuple[str, ...], where: str) -> list[Any]:
    need(type(value) is dict and tuple(value) == keys, f"{where}: expected a map with the keys {keys}")
    return list(value.values())


def integer(value: Any, where: str, limit: int = LIMITS["integer"]) -> int:
    need(type(value) is int and 0 <= value <= limit, f"{where}: expected an integer of 0 to {limit}, found {value!r}")
    return int(value)


def integers(value: Any, where: str, limit: int = LIMITS["integer"]) -> list[int]:
    need(type(value) is list, f"{where}: expected an array")
    return [integer(one, where, limit) for one in value]


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
    shared: bool


@dataclass(frozen=True)
class Part:
    """A part of a stream, and the padding behind it; ``check`` comes before any use of the bytes (step 8)."""

    stream: Stream
    data: bytes
    padding: bytes
    crc: int

    def check(self) -> None:
        need(crc32c(self.data) == self.crc, f"part of stream {self.stream.name}", "checksum")
        need(not any(self.padding), f"padding behind a part of stream {self.stream.name}")


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
    """Section 6.3, for items of so many bits and of that kind; no code word may be longer than ``longest``."""
    low, zeros, first, _ = fields(value, CODE, "code")
    integer(low, "low"), integer(zeros, "zeros"), integer(first, "first", LIMITS["first"])
    raw = value["lengths"]
    need(type(raw) is bytes and 1 <= len(raw) <= LIMITS["symbols"] // 2, "code: lengths are no bin of 1 to 128 bytes")
    lengths = [nibble for byte in raw for nibble in (byte & 15, byte >> 4)]
    if lengths[-1] == 0:
        lengths.pop()
    sign = int(kind == "float")
    top = bits - sign - low - zeros
    need(low + sign <= LIMITS["raw field"], "code: raw fields are too wide")
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
    """Section 7.2: bits of a label, 0 where values are elements."""
    if values == {"coding": "raw"}:
        return 0
    coding, bits, group_rows = fields(values, CODEBOOK, "values")
    need(coding == "codebook", "values: unknown coding")
    need(integer(bits, "bits", 8) >= 1, "values: labels of 0 bits")
    integer(group_rows, "group_rows", max(rows, 1) - 1 if size else 0)
    return int(bits)


def read_block(params: dict[str, Any], h: int, w: int, cols: int) -> bool:
    """Section 5.8: whether blocks are whole columns."""
    block = params["block"]
    need(type(block) is list and len(block) == 2, "params: block is no array of two")
    whole = block[0] == "all"
    need(whole or integer(block[0], "block", h or LIMITS["segment"]) >= 1, "params: a block of no rows")
    need(integer(block[1], "block", w or LIMITS["segment"]) >= 1, "params: a block of no columns")
    blocks = -(-(cols if whole and w else w) // block[1])
    need(blocks <= 1 << params["index"], "params: index is too narrow for the blocks")
    return bool(whole)


def read_params(layout: str, params: Any, segment: list[int], cols: int) -> bool:
    """The parameters of section 5; whether the first stream, ``pointers``, is absent and ``columns`` is shared."""
    h, w = segment
    _, allowed = LAYOUTS[layout]
    for found, (key, choices) in zip(fields(params, tuple(allowed), "params"), allowed.items(), strict=True):
        if choices is not None:
            need(type(found) is type(choices[0]) and found in choices, f"params: {key} is {found!r}")
    if layout == "csr":
        need(w <= 1 << params["index"], "params: index is too narrow for the segment")
    if layout == "relative_index":
        need(params["filler"] == "escape" or params["of"] == "nonzeros", "params: fillers between zeros")
    if layout == "n_m":
        need(params["n"] <= params["m"], "params: n is above m")
    return layout == "block_offset" and read_block(params, h, w, cols)


def read_segment(segment: Any, rows: int, cols: int) -> list[int]:
    """Section 3."""
    segment = integers(segment, "segment")
    need(len(segment) == 2, "segment: expected two integers")
    h, w = segment
    if rows * cols == 0:
        need(segment == [0, 0], "segment: an empty tensor has none")
    else:
        need((w == cols and 1 <= h <= rows) or (h == 1 and 1 <= w < cols), "segment: neither rows nor a piece of one")
        need(h * w <= LIMITS["segment"], "segment: too large")
    return [h, w]


def read_header(raw: bytes) -> Head:
    """Step 5 of section 4.4."""
    info = unpack(raw)
    header = fields(info, HEADER, "header")
    dtype, shape, row_dims, segment, layout, params, values, zero, nnz, negative, streams = header
    need(type(dtype) is str and dtype in ELEMENT_TYPES, f"unknown dtype {dtype!r}")
    bits, kind, negative_zero = ELEMENT_TYPES[dtype]
    shape = integers(shape, "shape")
    need(len(shape) <= LIMITS["dimensions"], "shape: too many dimensions")
    need(math.prod(n or 1 for n in shape) * bits // 8 <= LIMITS["integer"], "shape: too many elements")
    row_dims = integer(row_dims, "row_dims", len(shape))
    rows, cols = math.prod(shape[:row_dims]), math.prod(shape[row_dims:])
    segment = read_segment(segment, rows, cols)
    need(type(layout) is str and layout in LAYOUTS, f"unknown layout {layout!r}")
    names, _ = LAYOUTS[layout]
    shared = {"codebook"}
    if read_params(layout, params, segment, cols):
        names, shared = names[1:], {"columns", "codebook"}
    label_bits = read_values(values, rows, rows * cols)
    if label_bits:
        names = (*("labels" if name == "values" else name for name in names), "codebook")
    need(zero in ("value", "bits"), f"unknown zero rule {zero!r}")
    rest = rows * cols - integer(nnz, "nnz", rows * cols)
    integer(negative, "negative_zeros", 0 if zero == "bits" or negative_zero is None else rest)
    need(type(streams) is list and len(streams) == len(names), f"streams: expected {names}")
    longest = params.get("max_length", LIMITS["code word"])
    item_bits = {"values": bits, "codebook": bits, "labels": label_bits, "columns": params.get("index", 8)}
    item_bits |= {
        "places": 8,
        "lengths": 16,
        "pointers": 32,
        "mask": 8,
        "gaps": 8,
        "steps": 8,
        "words": 64,
        "patterns": 8,
        "coded": 8,
    }
    listed = []
    for stream, name in zip(streams, names, strict=True):
        coding = stream.get("coding") if type(stream) is dict else None
        need(type(coding) is str and coding in CODINGS, f"stream {name}: unknown coding {coding!r}")
        always = "none" if name in (*shared, "coded") else "huffman" if layout == "huffman" else coding
        need(coding == always, f"stream {name}: must have coding {always}")
        found = fields(stream, STREAM if coding == "huffman" else STREAM[:3], f"stream {name}")
        need(found[0] == name, f"expected stream {name}, found {found[0]!r}")
        about = (kind if name in ("values", "codebook") else "unsigned", item_bits[name])
        code = read_code(found[3], about[1], about[0], longest) if coding == "huffman" else None
        listed.append(Stream(name, integer(found[1], "length"), str(coding), *about, code, name in shared))
    return Head(info, rows, cols, listed)


def read_table(data: bytes, head: Head, table: int, start: int) -> tuple[list[list[Part]], int]:
    """Step 6 of section 4.4: the parts of each record, and where the last one ends with its padding."""
    end = len(data) - 64
    shared = [stream for stream in head.streams if stream.shared]
    own = [stream for stream in head.streams if not stream.shared]
    size = (8 + 8 * len(shared) if shared else 0) + head.segments * (8 + 8 * len(own))
    need(up(table + size, 64) == start, "data_start is not what the header asks for")
    need(not any(data[table + size : start]), "padding behind the segment table")
    records: list[list[Part]] = []
    lengths = dict.fromkeys((stream.name for stream in head.streams), 0)
    at = start
    for streams in [shared] * bool(shared) + [own] * head.segments:
        (offset,) = struct.unpack_from("<Q", data, table)
        need(offset == at, f"offset {offset}, expected {at}")
        table += 8
        records.append([])
        for stream in streams:
            length, crc = struct.unpack_from("<II", data, table)
            need(up(at + length, 8) <= end, f"stream {stream.name}: a part beyond the frame")
            need(head.segments > 0 or length == 0, f"stream {stream.name}: bytes in an empty tensor")
            records[-1].append(Part(stream, data[at : at + length], data[at + length : up(at + length, 8)], crc))
            lengths[stream.name] += length
            at = up(at + length, 8)
            table += 8
    need(all(lengths[one.name] == one.length for one in head.streams), "lengths of parts do not add up")
    need(up(at, 64) == end, "frame_length is not where the parts end")
    return records, at


def read_head(data: bytes) -> tuple[Head, list[Part], list[list[Part]]]:
    """Steps 1 to 7 of section 4.4: the head, the parts that all segments share, and for each segment its own."""
    need(len(data) >= HEADER_AT and data[:8] == MAGIC, "no frame")
    version, length, total, start, head_crc = struct.unpack_from("<IIQQI", data, 8)
    need(version == 0, f"version {version}", "version")
    need(total % 64 == 0 and total == len(data), f"frame_length {total}, but {len(data)} bytes")
    need(start % 64 == 0 and start <= total - 64, f"data_start {start}")
    need(length <= LIMITS["header"] and HEADER_AT + length <= start, f"header_length {length}")
    need(crc32c(data[:32], data[HEADER_AT:start]) == head_crc, "head", "checksum")
    head = read_header(data[HEADER_AT : HEADER_AT + length])
    table = up(HEADER_AT + length, 8)
    need(not any(data[HEADER_AT + length : table]), "padding behind the header")
    records, end = read_table(data, head, table, start)
    need(not any(data[end:]), "bytes behind the last part")
    shared = records.pop(0) if any(stream.shared for stream in head.streams) else []
    return head, shared, records
