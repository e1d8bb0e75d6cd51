"""Sections 2 to 4 of format.md, plainly: element types, and the head of a frame. Section 1 is in head_words.py.

The first half of the reader; reader.py goes on from the parts that ``read_head`` gives.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from head_code import CODE, COUNTS, Code, Counts, read_code, read_counts
from head_words import LIMITS, crc32c, integer, integers, items, need, numbered, unpack, up

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
CODINGS = ("none", "huffman", "zstd", "rans")
# What stands beside the number of a coding: the names of its items.
BESIDE = {"huffman": CODE, "rans": COUNTS}
# Sections 4.2 and 7.2: the items of each array, in order.
HEADER: tuple[str, ...] = ("dtype", "shape", "row_dims", "segment", "layout", "params")
HEADER += ("values", "nnz", "negative_zeros", "streams")
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


# Sections 3 and 4 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    name: str
    coding: str
    kind: str
    bits: int
    code: Code | Counts | None
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
        code: Code | Counts | None = None
        if coding == "huffman":
            code = read_code(code_items, width, of, longest)
        elif coding == "rans":
            code = read_counts(code_items, width, of)
        need(code is not None or not code_items, f"stream {name}: a code of coding {coding}")
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
        about |= {"code": dict(zip(BESIDE[about["coding"]], stream[1:], strict=True))} if type(stream) is list else {}
    return Head(info, rows, cols, listed)


def read_table(data: bytes, head: Head, table: int, start: int) -> tuple[list[list[Part]], int]:
    """Step 6 of section 4.4: the parts of each record, and where the last one ends with its padding."""
    # Section 4.3: the layouts that are aligned.
    aligned = head.info["layout"] != "context"
    step, end = (8, len(data) - 64) if aligned else (1, len(data))
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
            need(up(at + length, step) <= end, f"stream {stream.name}: a part beyond the frame")
            need(head.segments > 0 or length == 0, f"stream {stream.name}: bytes in an empty tensor")
            records[-1].append(Part(stream, data[at : at + length], data[at + length : up(at + length, step)], crc))
            at = up(at + length, step)
            table += 8
    near, far = up(table_end, step), up(table_end, 64)
    free = at - start >= 1 << 16 or up(near + at - start, 64) == up(far + at - start, 64)
    need(start == (far if aligned and free else near), "data_start is not what the head asks for")
    need(not any(data[table_end:start]), "padding behind the segment table")
    need((up(at, 64) if aligned else at) == end, "the frame does not end behind its parts")
    return records, at


def read_head(data: bytes) -> tuple[Head, list[Part], list[list[Part]]]:
    """Steps 1 to 7 of section 4.4: the head, the parts that all segments share, and for each segment its own."""
    need(len(data) >= HEADER_AT and data[:4] == MAGIC, "no frame")
    need(data[4] == 0, f"version {data[4]}", "version")
    start = int.from_bytes(data[5:8], "little")
    need(HEADER_AT < start <= len(data), f"data_start {start}")
    need(crc32c(data[:8], data[12:start]) == int.from_bytes(data[8:12], "little"), "head", "checksum")
    found, used = unpack(data[HEADER_AT : min(start, HEADER_AT + LIMITS["header"])])
    head = read_header(found)
    records, end = read_table(data, head, HEADER_AT + used, start)
    need(not any(data[end:]), "bytes behind the last part")
    shared = records.pop(0) if any(stream.shared for stream in head.streams) else []
    return head, shared, records
