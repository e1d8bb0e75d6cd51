"""Sections 1 to 4 of format.md, plainly: words, limits, element types, and the head of a frame.

The first half of the reader; reader.py goes on from the parts that ``read_head`` gives.
"""

import math
import struct
from collections.abc import Iterable
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
# Section 2: name -> (bits, kind, pattern of -0.0 or None), in the order of their numbers.
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
PREFIX = {"magic": (0, 4), "version": (4, 1), "data_start": (5, 3), "head_crc": (8, 4)}
HEADER_AT = 12
MAGIC = bytes.fromhex("89434443")
# Section 5: layout -> (streams, parameters and what they may be; None: section 5.8 says it), in order of their numbers.
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
CODINGS = ("none", "huffman", "zstd")
# Sections 4.2, 6.3 and 7.2: the items of each array, in order.
HEADER: tuple[str, ...] = ("dtype", "shape", "row_dims", "segment", "layout", "params")
HEADER += ("values", "nnz", "negative_zeros", "streams")
CODE = ("low", "zeros", "first", "lengths")
CODEBOOK = ("bits", "group_rows")

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


def unpack(data: bytes) -> tuple[Any, int]:
    """The canonical msgpack that bytes start with, as far as it can be judged without its meaning, and its length."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    try:
        unpacker.feed(data)
        value = unpacker.unpack()
        used = unpacker.tell()
        same = msgpack.packb(value) == data[:used]
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        refuse(f"no msgpack: {error}")
    need(same, "msgpack is not minimal")
    return value, used


def items(value: Any, keys: tuple[str, ...], where: str) -> list[Any]:
    need(type(value) is list and len(value) == len(keys), f"{where}: expected an array of {keys}")
    return list(value)


def numbered(value: Any, names: Iterable[str], where: str) -> str:
    """What stands for a number."""
    listed = list(names)
    return listed[integer(value, where, len(listed) - 1)]


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


def read_code(value: list[Any], bits: int, kind: str, longest: int) -> Code:
    """Section 6.3, for items of so many bits and of that kind; no code word may be longer than ``longest``."""
    low, zeros, first, raw = items(value, CODE, "code")
    integer(low, "low"), integer(zeros, "zeros"), integer(first, "first", LIMITS["first"])
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


def read_values(values: Any, rows: int, size: int) -> dict[str, Any]:
    """Section 7.2."""
    if values == []:
        return {"coding": "raw"}
    bits, group_rows = items(values, CODEBOOK, "values")
    need(integer(bits, "bits", 8) >= 1, "values: labels of 0 bits")
    integer(group_rows, "group_rows", max(rows, 1) - 1 if size else 0)
    return {"coding": "codebook", "bits": bits, "group_rows": group_rows}


def read_block(block: Any, h: int, w: int) -> list[Any]:
    """Section 5.8."""
    need(type(block) is list and len(block) == 2, "params: block is no array of two")
    r = integer(block[0], "block", h or LIMITS["segment"])
    need(integer(block[1], "block", w or LIMITS["segment"]) >= 1, "params: a block of no columns")
    return [r or "all", block[1]]


def read_params(layout: str, found: Any, segment: tuple[int, int], cols: int) -> dict[str, Any]:
    """The parameters of section 5."""
    h, w = segment
    _, allowed = LAYOUTS[layout]
    params: dict[str, Any] = {}
    for value, (key, choices) in zip(items(found, tuple(allowed), "params"), allowed.items(), strict=True):
        if choices is None:
            params[key] = read_block(value, h, w)
        elif type(choices[0]) is str:
            params[key] = numbered(value, choices, key)
        else:
            params[key] = integer(value, key)
            need(value in choices, f"params: {key} is {value}")
    if layout == "csr":
        need(w <= 1 << params["index"], "params: index is too narrow for the segment")
    if layout == "relative_index":
        need(params["filler"] == "escape" or params["of"] == "nonzeros", "params: fillers between zeros")
    if layout == "n_m":
        need(params["n"] <= params["m"], "params: n is above m")
    if layout == "block_offset":
        wide = cols if params["block"][0] == "all" and w else w
        need(-(-wide // params["block"][1]) <= 1 << params["index"], "params: index is too narrow for the blocks")
    return params


def read_segment(segment: Any, rows: int, cols: int) -> tuple[int, int]:
    """Section 3: the rows and columns of a segment."""
    pieces = type(segment) is list and len(segment) == 1
    number = integer(segment[0] if pieces else segment, "segment")
    if rows * cols == 0:
        need(segment == 0, "segment: an empty tensor has none")
        return 0, 0
    if pieces:
        need(1 <= number < cols, "segment: no piece of a row")
    else:
        need(number < rows, "segment: as high as the matrix, which is 0, or higher")
    h, w = (1, number) if pieces else (number or rows, cols)
    need(h * w <= LIMITS["segment"], "segment: too large")
    return h, w


def item_bits(name: str, bits: int, label_bits: int, params: dict[str, Any]) -> int:
    """The table of section 5: the bits of a stream's items."""
    others = {"pointers": 32, "lengths": 16, "words": 64, "columns": params.get("index", 8), "labels": label_bits}
    return bits if name in ("values", "codebook") else others.get(name, 8)


def read_streams(found: Any, info: dict[str, Any]) -> list[Stream]:
    """What section 4.2 says of the streams."""
    bits, kind, _ = ELEMENT_TYPES[info["dtype"]]
    layout, params, label_bits = info["layout"], info["params"], info["values"].get("bits", 0)
    names, shared = LAYOUTS[layout][0], ["codebook"]
    if layout == "block_offset" and params["block"][0] == "all":
        names, shared = names[1:], ["columns", "codebook"]
    if label_bits:
        names = (*("labels" if name == "values" else name for name in names), "codebook")
    listed = []
    for stream, name in zip(items(found, names, "streams"), names, strict=True):
        number, *code_items = stream if type(stream) is list and len(stream) > 1 else [stream]
        coding = numbered(number, CODINGS, f"stream {name}")
        always = "none" if name in (*shared, "coded") else "huffman" if layout == "huffman" else coding
        need(coding == always, f"stream {name}: must have coding {always}")
        of = kind if name in ("values", "codebook") else "unsigned"
        width = item_bits(name, bits, label_bits, params)
        longest = params.get("max_length", LIMITS["code word"])
        code = read_code(code_items, width, of, longest) if coding == "huffman" else None
        need(coding == "huffman" or not code_items, f"stream {name}: a code without huffman")
        listed.append(Stream(name, coding, of, width, code, name in shared))
    return listed


def read_header(found: Any) -> Head:
    """Step 5 of section 4.4. ``info`` has names where the header has numbers."""
    dtype, shape, row_dims, segment, layout, params, values, nnz, negative, streams = items(found, HEADER, "header")
    info: dict[str, Any] = {"dtype": numbered(dtype, ELEMENT_TYPES, "dtype")}
    bits, _, negative_zero = ELEMENT_TYPES[info["dtype"]]
    info["shape"] = shape = integers(shape, "shape")
    need(len(shape) <= LIMITS["dimensions"], "shape: too many dimensions")
    need(math.prod(n or 1 for n in shape) * bits // 8 <= LIMITS["integer"], "shape: too many elements")
    info["row_dims"] = row_dims = integer(row_dims, "row_dims", len(shape))
    rows, cols = math.prod(shape[:row_dims]), math.prod(shape[row_dims:])
    info["segment"] = read_segment(segment, rows, cols)
    info["layout"] = numbered(layout, LAYOUTS, "layout")
    info["params"] = read_params(info["layout"], params, info["segment"], cols)
    info["values"] = read_values(values, rows, rows * cols)
    info["zero"] = "bits" if negative is None else "value"
    info["nnz"] = integer(nnz, "nnz", rows * cols)
    zeros = rows * cols - info["nnz"]
    info["negative_zeros"] = 0 if negative is None else integer(negative, "negative_zeros", zeros)
    need(info["negative_zeros"] == 0 or negative_zero is not None, "negative_zeros: the type has no -0.0")
    listed = read_streams(streams, info)
    info["streams"] = [{"name": stream.name, "coding": stream.coding} for stream in listed]
    for about, stream in zip(info["streams"], streams, strict=True):
        about |= {"code": dict(zip(CODE, stream[1:], strict=True))} if type(stream) is list else {}
    return Head(info, rows, cols, listed)


def read_table(data: bytes, head: Head, table: int, start: int) -> tuple[list[list[Part]], int]:
    """Step 6 of section 4.4: the parts of each record, and where the last one ends with its padding."""
    end = len(data) - 64
    shared = [stream for stream in head.streams if stream.shared]
    own = [stream for stream in head.streams if not stream.shared]
    table_end = table + 8 * len(shared) + 8 * head.segments * len(own)
    need(table_end <= start, "the segment table ends behind data_start")
    records: list[list[Part]] = []
    at = start
    for streams in [shared] * bool(shared) + [own] * head.segments:
        records.append([])
        for stream in streams:
            length, crc = struct.unpack_from("<II", data, table)
            need(up(at + length, 8) <= end, f"stream {stream.name}: a part beyond the frame")
            need(head.segments > 0 or length == 0, f"stream {stream.name}: bytes in an empty tensor")
            records[-1].append(Part(stream, data[at : at + length], data[at + length : up(at + length, 8)], crc))
            at = up(at + length, 8)
            table += 8
    near, far = up(table_end, 8), up(table_end, 64)
    free = at - start >= 1 << 16 or up(near + at - start, 64) == up(far + at - start, 64)
    need(start == (far if free else near), "data_start is not what the head asks for")
    need(not any(data[table_end:start]), "padding behind the segment table")
    need(up(at, 64) == end, "the frame does not end behind its parts")
    return records, at


def read_head(data: bytes) -> tuple[Head, list[Part], list[list[Part]]]:
    """Steps 1 to 7 of section 4.4: the head, the parts that all segments share, and for each segment its own."""
    need(len(data) >= HEADER_AT and data[:4] == MAGIC, "no frame")
    need(data[4] == 0, f"version {data[4]}", "version")
    need(len(data) % 64 == 0, f"{len(data)} bytes are no multiple of 64")
    start = 8 * int.from_bytes(data[5:8], "little")
    need(HEADER_AT < start <= len(data) - 64, f"data_start {start}")
    need(crc32c(data[:8], data[12:start]) == int.from_bytes(data[8:12], "little"), "head", "checksum")
    found, used = unpack(data[HEADER_AT : min(start, HEADER_AT + LIMITS["header"])])
    head = read_header(found)
    records, end = read_table(data, head, HEADER_AT + used, start)
    need(not any(data[end:]), "bytes behind the last part")
    shared = records.pop(0) if any(stream.shared for stream in head.streams) else []
    return head, shared, records
