"""A plain writer of format.md: it assembles frames field by field and shares no code with the reader.

A Draft is a frame before it is bytes, so that one field can be made wrong while all others, checksums included, stay
right. Elements are given as bits: unsigned integers as wide as the element type. writer_coding.py and writer_layouts.py
make the parts, writer_model.py the model files.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from writer_coding import (
    BITS,
    coded_part,
    count_bits,
    crc32c,
    key_of,
    kind_of,
    make_code,
    make_counts,
    negative_zero,
    packed,
    rans_part,
    zstd_part,
)
from writer_context import context_part
from writer_layouts import STREAMS, positions_of, words_of

MAGIC = b"\x89CDC"
# The numbers of sections 2, 5 and 6.1.
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
DTYPES += ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
LAYOUTS = (
    "dense",
    "csr",
    "bitmap",
    "huffman",
    "relative_index",
    "run_length",
    "n_m",
    "block_offset",
    "sell",
    "context",
)
CODINGS = ("none", "huffman", "zstd", "rans")
# What section 4.2 lists, in order.
HEADER = ("dtype", "shape", "row_dims", "segment", "layout", "params", "values", "nnz", "negative_zeros", "streams")
WORDS = ("nonzeros", "zeros"), ("rows", "lanes"), ("escape", "value")
# A change of the frame's bytes; the second argument says where its pieces begin.
Edit = Callable[[bytearray, dict[str, int]], None]
# Bits of a label, rows that share a codebook, and the codebooks (7.2).
Book = tuple[int, int, list[list[int]]]


def number_of(value: Any, names: tuple[str, ...]) -> Any:
    """The number of a name; anything else stays, so that it can be wrong."""
    return names.index(value) if value in names else value


def header_of(about: dict[str, Any]) -> list[Any]:
    """Section 4.2: the array for what a frame says by names."""
    params = []
    for value in about["params"].values():
        words = next((words for words in WORDS if value in words), ())
        params.append([0, *value[1:]] if type(value) is list and value[:1] == ["all"] else number_of(value, words))
    segment = about["segment"]
    if type(segment) is tuple:
        rows, cols = (int(np.prod(side, dtype=object)) for side in sides(about["shape"], about["row_dims"]))
        h, w = segment
        segment = [w] if w != cols and rows * cols else 0 if h == rows or not rows * cols else h
    streams = [number_of(one["coding"], CODINGS) for one in about["streams"]]
    for number, one in enumerate(about["streams"]):
        streams[number] = [streams[number], *one["code"].values()] if "code" in one else streams[number]
    items = about | {"dtype": number_of(about["dtype"], DTYPES), "layout": number_of(about["layout"], LAYOUTS)}
    items |= {"segment": segment, "params": params, "values": list(about["values"].values())[1:], "streams": streams}
    items["negative_zeros"] = None if about["zero"] == "bits" else about["negative_zeros"]
    return [items[name] for name in HEADER]


def sides(shape: Any, row_dims: int) -> tuple[Any, Any]:
    return shape[:row_dims], shape[row_dims:]


@dataclass
class Draft:
    """What a frame says, by names, and its parts (one list per stream), to be changed at will and then built.

    A stream named in ``shared`` has one part; each other one has a part for every segment. A name or a ``segment`` (a
    tuple) becomes what section 4.2 asks for; any other value is written as it is.
    """

    header: dict[str, Any]
    parts: list[list[bytes]]
    shared: frozenset[str] = frozenset()

    def records(self) -> list[list[bytes]]:
        """The parts in the order of the segment table."""
        names = [stream["name"] for stream in self.header["streams"]]
        names += [""] * (len(self.parts) - len(names))
        shared = [parts[0] for name, parts in zip(names, self.parts, strict=False) if name in self.shared]
        own = [parts for name, parts in zip(names, self.parts, strict=False) if name not in self.shared]
        return [shared] * bool(shared) + [list(parts) for parts in zip(*own, strict=True)]

    def packed(self) -> bytes:
        """The header."""
        return bytes(msgpack.packb(header_of(self.header)))

    def build(
        self,
        *,
        magic: bytes = MAGIC,
        version: int = 0,
        raw_header: bytes | None = None,
        far: int | None = None,
        before: Edit | None = None,
        after: Edit | None = None,
        tail: int | None = None,
    ) -> bytes:
        """The frame; ``before`` and ``after`` may change bytes before and after the head's CRC is taken.

        They are told where these begin: header, table, table_end, start (of the data), part0, part1, ... record0,
        record1, ... (of the table), end (of the last part and its padding), length (of the frame). With ``far`` the
        data begins at a multiple of that, and ``tail`` is another number of zeros at the end.
        """
        header = self.packed() if raw_header is None else raw_header
        records = self.records()
        table = 12 + len(header)
        table_end = table + sum(8 * len(parts) for parts in records)
        aligned = self.header["layout"] != "context"
        step, tail = (8, 64 if tail is None else tail) if aligned else (1, tail or 0)
        size = sum(-(-len(part) // step) * step for parts in records for part in parts)
        starts = [-(-table_end // to) * to for to in (step, 64)]
        lengths = [-(-(start + size) // 64) for start in starts]
        free = aligned and (size >= 1 << 16 or lengths[0] == lengths[1])
        start = starts[free] if far is None else -(-table_end // far) * far
        marks = {"header": 12, "table": table, "table_end": table_end, "start": start}
        body, rows, count = bytearray(), bytearray(), 0
        for number, parts in enumerate(records):
            marks[f"record{number}"] = table + len(rows)
            for part in parts:
                marks[f"part{count}"] = start + len(body)
                count += 1
                rows += struct.pack("<II", len(part), crc32c(part))
                body += part + bytes(-len(part) % step)
        marks["end"] = start + len(body)
        body += bytes((-(start + len(body)) % 64 if aligned else 0) + tail)
        marks["length"] = start + len(body)
        frame = bytearray(magic + bytes([version]) + start.to_bytes(3, "little") + bytes(4) + header) + rows
        frame += bytes(start - len(frame)) + body
        if before:
            before(frame, marks)
        start = int.from_bytes(frame[5:8], "little")  # the CRC is right also where ``before`` changed this
        struct.pack_into("<I", frame, 8, crc32c(bytes(frame[:8] + frame[12:start])))
        if after:
            after(frame, marks)
        return bytes(frame)


def default_row_dims(shape: tuple[int, ...]) -> int:
    """Section 3."""
    return 0 if len(shape) < 2 else 2 if len(shape) == 3 and shape[0] == 1 else 1


def default_segment(rows: int, cols: int) -> tuple[int, int]:
    """Section 3, for layouts that ask for nothing else."""
    size, most = rows * cols, 1 << 22
    if size == 0:
        return 0, 0
    target = min(most, max(1 << 17, min(1 << 19, -(-size // 32)), -(-size // 4096)))
    if cols >= 2 * target or cols > most:
        pieces = (2 * cols + target) // (2 * target)
        w = -(-cols // pieces)
        return 1, min(-(-w // 64) * 64, most)
    h = -(-rows // max(1, (2 * size + target) // (2 * target)))
    step = 64 if h >= 64 else 16 if h >= 16 else 1
    h = (2 * h + step) // (2 * step) * step
    return min(h, rows, most // cols), cols


def segments_of(matrix: np.ndarray, segment: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of each segment, in order."""
    (rows, cols), (h, w) = matrix.shape, segment
    tops = range(0, rows, h) if h else range(0)
    return [(slice(top, min(top + h, rows)), slice(at, min(at + w, cols))) for top in tops for at in range(0, cols, w)]


def live_columns(there: np.ndarray, params: dict[str, Any]) -> tuple[list[int], np.ndarray]:
    """Whole columns of section 5.8: the blocks listed, and for each column whether it is in one of them."""
    c = params["block"][1]
    listed = [at for at in range(-(-there.shape[1] // c)) if there[:, at * c : (at + 1) * c].any()]
    return listed, np.isin(np.arange(there.shape[1]) // c, listed)


def labels_of(items: list[int], rows: np.ndarray, book: Book) -> list[int]:
    """Section 7.2: for each element in such a row of the matrix, the first entry that it is."""
    _, group_rows, books = book
    groups = [row // group_rows if group_rows else 0 for row in rows.tolist()]
    return [books[group].index(item) for group, item in zip(groups, items, strict=True)]


def coded_stream(
    name: str, items: list[list[int]], width: int, kind: str, coding: str, code: dict[str, Any], longest: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Section 6: a stream's map in the header, and its parts."""
    stream: dict[str, Any] = {"name": name, "coding": coding}
    if coding not in ("huffman", "rans"):
        plain = [packed(one, width) for one in items]
        return stream, [zstd_part(one) for one in plain] if coding == "zstd" else plain
    keys = [key_of(item, width, kind) for one in items for item in one]
    if coding == "huffman":
        stream["code"] = code if "lengths" in code else make_code(keys, longest, **code)
        return stream, [coded_part(one, width, kind, stream["code"]) for one in items]
    code = code if "counts" in code else make_counts(keys, **code)
    stream["code"] = code | {"counts": count_bits(code["counts"])}
    return stream, [rans_part(one, width, kind, code) for one in items]


def encode(
    bits: np.ndarray,
    dtype: str,
    layout: str,
    *,
    params: dict[str, Any] | None = None,
    segment: tuple[int, int] | None = None,
    row_dims: int | None = None,
    zero: str = "value",
    keep: np.ndarray | None = None,
    codings: dict[str, str] | None = None,
    book: Book | None = None,
    codes: dict[str, dict[str, Any]] | None = None,
) -> Draft:
    """A right frame for a tensor given as bits; ``codes`` are arguments of make_code or make_counts, or whole codes.

    ``segment`` is the whole matrix by default. With ``book`` every stored element is one of its entries.
    """
    params, codings, codes = dict(params or {}), codings or {}, codes or {}
    bits, stored = bits.copy(), np.asarray(bits != 0)
    if zero == "value" and negative_zero(dtype):
        stored = stored & (bits != negative_zero(dtype))
    if keep is not None:
        stored = stored | keep
    negative = ~stored & (bits != 0)
    bits[negative] = 0
    row_dims = default_row_dims(bits.shape) if row_dims is None else row_dims
    rows = int(np.prod(bits.shape[:row_dims], dtype=np.int64))
    cols = int(np.prod(bits.shape[row_dims:], dtype=np.int64))
    h, w = segment or ((rows, cols) if rows * cols else (0, 0))
    whole = layout == "block_offset" and params["block"][0] == "all"
    matrix, there = bits.reshape(rows, cols), stored.reshape(rows, cols)
    if layout == "block_offset":
        r, c = params["block"]
        params["block"] = [r if whole else min(r, h or 2**22), min(c, w or 2**22)]
    names = ["values"] if whole else [*STREAMS[layout]]
    columns, live = live_columns(there, params) if whole else ([], np.zeros(0, bool))
    items: dict[str, list[list[int]]] = {name: [] for name in names}
    for place in segments_of(matrix, (h, w)):
        piece, (top, left) = matrix[place], place
        found: dict[str, list[int]] = {}
        if whole:
            order = np.flatnonzero(np.tile(live[left], len(piece)))
        else:
            found, order = positions_of(layout, params, there[place])
        # Position -1, that of a filler, takes the zero behind the elements.
        values = np.append(piece.ravel(), piece.dtype.type(0))[order].tolist()
        if book:
            values = labels_of(values, top.start + np.maximum(order, 0) // piece.shape[1], book)
        if layout == "run_length":
            found = {"words": words_of(params["bits"], found["steps"], values, 8 if book else BITS[dtype])}
        elif layout == "context":
            about = (8, "unsigned") if book else (BITS[dtype], kind_of(dtype))
            found = {"coded": list(context_part(there[place], values, *about, codes.get("coded", {})))}
        else:
            found["values"] = values
        for name in names:
            items[name].append(found[name])
    streams, parts, shared = [], [], set()
    if whole:
        streams.append({"name": "columns", "coding": "none"})
        parts.append([packed(columns, params["index"]) if rows * cols else b""])
        shared.add("columns")
    widths = {"pointers": 32, "lengths": 16, "columns": params.get("index", 8), "values": BITS[dtype], "words": 64}
    for name, segments in items.items():
        width, kind = widths.get(name, 8), kind_of(dtype) if name == "values" else "unsigned"
        if book and name == "values":
            name, width, kind = "labels", book[0], "unsigned"
        coding = {"huffman": "huffman", "context": "none"}.get(layout, codings.get(name, "none"))
        longest = params.get("max_length", 12)
        stream, made = coded_stream(name, segments, width, kind, coding, codes.get(name, {}), longest)
        streams.append(stream)
        parts.append(made)
    if book:
        entries = [entry for group in book[2] for entry in [*group, *[0] * ((1 << book[0]) - len(group))]]
        streams.append({"name": "codebook", "coding": "none"})
        parts.append([packed(entries, BITS[dtype])])
        shared.add("codebook")
    values = {"coding": "codebook", "bits": book[0], "group_rows": book[1]} if book else {"coding": "raw"}
    header = {"dtype": dtype, "shape": list(bits.shape), "row_dims": row_dims, "segment": (h, w), "layout": layout}
    header |= {"params": dict(sorted(params.items())), "values": values, "zero": zero}
    header |= {"nnz": int(stored.sum()), "negative_zeros": int(negative.sum()), "streams": streams}
    return Draft(header, parts, frozenset(shared))
