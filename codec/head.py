"""The proof of a frame's head (spec section 4): every span and every field, before anyone uses one.

Checksums of parts are compared where the parts are used (codec.kernels), so that reading a few rows costs a few rows.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import msgpack
import numpy as np

from codec.dtypes import BY_NAME, ElementType
from codec.entropy import CODINGS, LONGEST, HuffmanCode
from codec.errors import ChecksumError, CodecError, FormatError, VersionError
from codec.frame import ALIGNMENT, MAGIC, PREFIX, VERSION, Head, StreamHead, Subject, align, data_start, head_checksum
from codec.geometry import MAX_NDIM, MAX_SEGMENT, Grid, matrix_shape
from codec.layouts import LAYOUTS, Counts, Layout
from codec.valuecoding import ValueCoding

_MAX_HEADER = 1 << 20
MAX_STREAMS = 4
_KEYS = [
    "dtype",
    "shape",
    "row_dims",
    "segment",
    "layout",
    "params",
    "values",
    "zero",
    "nnz",
    "negative_zeros",
    "streams",
]

Read = Callable[[int, int], Any]  # (offset, length) -> that many bytes of the frame


def _refuse(message: str, offset: int, stream: str | None = None) -> FormatError:
    return FormatError(f"{message}: the bytes are damaged or not a frame of this format", stream=stream, offset=offset)


def read_head(read: Read, length: int) -> Head:
    """The proved head of a frame of ``length`` bytes, of which only the head is read.

    Raises VersionError for a newer frame, ChecksumError for a damaged head, FormatError for anything else.
    """
    header_length, checksum = _prefix(read, length)
    fields = _unpack(bytes(read(PREFIX.size, header_length)))
    element, shape, row_dims, grid, layout = _tensor_fields(fields)
    streams = fields["streams"]
    if not isinstance(streams, list) or not 1 <= len(streams) <= MAX_STREAMS:
        raise _refuse("the header lists no streams, or too many", PREFIX.size)
    start = data_start(header_length, len(streams), grid.segments)
    if start + ALIGNMENT > length:
        raise _refuse(f"a table of {grid.segments} segments ends at {start}, past the frame's {length}", PREFIX.size)
    head = np.frombuffer(read(0, start), np.uint8)
    found = head_checksum(head)
    if found != checksum:
        raise ChecksumError(
            f"the head's CRC-32C is {found:08x}, expected {checksum:08x}: fetch the bytes again", offset=24
        )
    table = align(PREFIX.size + header_length, 8)
    end = table + 12 * len(streams) * grid.segments
    if head[PREFIX.size + header_length : table].any() or head[end:].any():
        raise _refuse("padding in the head is not zero", PREFIX.size + header_length)
    params, values, described = _coding_fields(fields, element, grid, layout, streams)
    subject = Subject(element, shape, row_dims, grid, layout, params, values, fields["zero"])
    offsets, checksums = _spans(head[table:end], table, start, subject, described, length)
    return Head(
        **vars(subject),
        nnz=fields["nnz"],
        negative_zeros=fields["negative_zeros"],
        streams=described,
        offsets=offsets,
        checksums=checksums,
        frame_length=length,
        data_start=start,
    )


def _prefix(read: Read, length: int) -> tuple[int, int]:
    """Length of the header, and the head's checksum."""
    if length < PREFIX.size:
        raise _refuse(f"{length} bytes, expected at least {PREFIX.size} for a frame's prefix", 0)
    magic, version, header_length, frame_length, checksum = PREFIX.unpack(bytes(read(0, PREFIX.size)))
    if magic != MAGIC:
        raise _refuse(f"begins with {magic.hex()}, expected {MAGIC.hex()}", 0)
    if version != VERSION:
        raise VersionError(
            f"version {version}, expected {VERSION}: use a release that writes version {version}", offset=8
        )
    if frame_length != length:
        raise _refuse(f"a frame of {frame_length} bytes in {length} bytes: it is cut off or has more behind it", 16)
    if header_length > min(_MAX_HEADER, length - PREFIX.size):
        raise _refuse(f"a header of {header_length} bytes in a frame of {length}", 12)
    return header_length, checksum


def _spans(
    entries: np.ndarray, at: int, start: int, subject: Subject, streams: tuple[StreamHead, ...], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The segment table's offsets and checksums: the parts of each stream follow each other and fill it exactly."""
    segments = subject.grid.segments
    offsets = np.zeros((len(streams), segments + 1), "<u8")
    offsets[:, :-1] = entries[: 8 * len(streams) * segments].view("<u8").reshape(len(streams), -1)
    checksums = entries[8 * len(streams) * segments :].view("<u4").reshape(len(streams), -1).copy()
    end = start
    for stream, kind, row in zip(streams, subject.kinds, offsets, strict=True):
        row[-1] = end + stream.length
        if (segments and row[0] != end) or np.any(row[1:] < row[:-1]) or (not segments and stream.length):
            raise _refuse(f"parts do not fill the stream from {end} to {end + stream.length}", at, stream.name)
        if kind.shared and np.any(row[1:] != row[-1]):
            raise _refuse("a stream that all segments share has a second part", at, stream.name)
        end += align(stream.length)
        if end + ALIGNMENT > length:
            raise _refuse(f"ends at {end}, past the frame's {length} bytes", at, stream.name)
    if end + ALIGNMENT != length:
        raise _refuse(f"the streams end at {end}, the frame at {length}: expected {ALIGNMENT} bytes between", at)
    return offsets, checksums


def parse(data: np.ndarray) -> Head:
    """The proved head of a frame in memory (uint8), every byte of its padding zero."""
    head = read_head(lambda offset, n: data[offset : offset + n], len(data))
    for begin, stream in zip(head.offsets[:, 0], head.streams, strict=True):
        end = int(begin) + stream.length if head.grid.segments else head.data_start
        if data[end : align(end)].any():
            raise _refuse("padding behind the stream is not zero", end, stream.name)
    if data[-ALIGNMENT:].any():
        raise _refuse("padding at the end is not zero", len(data) - ALIGNMENT)
    return head


def _unpack(raw: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(raw, strict_map_key=True, max_ext_len=0)
        canonical = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _refuse(f"the header is not msgpack ({error})", PREFIX.size) from None
    if not isinstance(fields, dict) or list(fields) != _KEYS:
        raise _refuse(f"the header's keys are not {', '.join(_KEYS)}", PREFIX.size)
    if canonical != raw:
        raise _refuse("the header is not in its shortest form", PREFIX.size)
    return fields


def _count(value: Any, most: int = (1 << 63) - 1) -> bool:
    return type(value) is int and 0 <= value <= most


def _tensor_fields(fields: dict[str, Any]) -> tuple[ElementType, tuple[int, ...], int, Grid, Layout]:
    element = BY_NAME.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if element is None:
        raise _refuse(f"dtype {fields['dtype']!r} is none of {', '.join(BY_NAME)}", PREFIX.size)
    shape = fields["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_NDIM
        or not all(map(_count, shape))
        or prod(n or 1 for n in shape) * element.width >= 1 << 63
    ):  # as NumPy counts: a size of 0 does not excuse the others
        raise _refuse(
            f"shape {shape!r} is not a list of at most {MAX_NDIM} sizes below 2**63 bytes in all", PREFIX.size
        )
    row_dims = fields["row_dims"]
    if not _count(row_dims, len(shape)):
        raise _refuse(f"row_dims {row_dims!r} for {len(shape)} dimensions", PREFIX.size)
    rows, cols = matrix_shape(tuple(shape), row_dims)
    segment = fields["segment"]
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_count, segment)):
        raise _refuse(f"segment {segment!r} is not a pair of sizes", PREFIX.size)
    h, w = segment
    empty = rows * cols == 0
    fits = (
        h == w == 0 if empty else 1 <= h <= rows and 1 <= w <= cols and h * w <= MAX_SEGMENT and (w == cols or h == 1)
    )
    if not fits:
        raise _refuse(f"segments of {h} x {w} for a matrix of {rows} x {cols}", PREFIX.size)
    layout = LAYOUTS.get(fields["layout"]) if isinstance(fields["layout"], str) else None
    if layout is None:
        raise _refuse(f"layout {fields['layout']!r} is none of {', '.join(LAYOUTS)}", PREFIX.size)
    return element, tuple(shape), row_dims, Grid(rows, cols, h, w), layout


def _coding_fields(
    fields: dict[str, Any], element: ElementType, grid: Grid, layout: Layout, streams: list[Any]
) -> tuple[dict[str, Any], ValueCoding, tuple[StreamHead, ...]]:
    params = fields["params"]
    try:
        canonical = isinstance(params, dict) and layout.params(params, grid) == params and layout.decided(params)
        if not canonical or list(params) != sorted(params):
            raise _refuse(f"parameters {params!r} are not those of layout {layout.name}", PREFIX.size)
    except FormatError:
        raise
    except (CodecError, TypeError) as error:
        raise _refuse(f"parameters of layout {layout.name}: {error}", PREFIX.size) from None
    try:
        values = ValueCoding.from_header(fields["values"], grid)
    except FormatError as error:
        raise _refuse(error.message, PREFIX.size) from None
    if fields["zero"] not in ("value", "bits") or not isinstance(fields["zero"], str):
        raise _refuse(f"zero rule {fields['zero']!r}, expected value or bits", PREFIX.size)
    nnz, negative = fields["nnz"], fields["negative_zeros"]
    if (
        not _count(nnz, grid.size)
        or not _count(negative, grid.size - nnz)
        or (negative and (fields["zero"] == "bits" or not element.sign_bit))
    ):
        raise _refuse(f"{nnz!r} stored entries and {negative!r} negative zeros among {grid.size} elements", PREFIX.size)
    kinds = values.kinds(layout, params, element)
    if len(streams) != len(kinds):
        raise _refuse(f"{len(streams)} streams, layout {layout.name} has {len(kinds)}", PREFIX.size)
    expected = values.stream_bytes(layout, grid, element, Counts(nnz), params)
    described = []
    for entry, kind, raw_bytes in zip(streams, kinds, expected, strict=True):
        coding = entry.get("coding") if isinstance(entry, dict) else None
        keys = ["name", "length", "coding"] + (["code"] if coding == "huffman" else [])
        if not isinstance(entry, dict) or list(entry) != keys or entry["name"] != kind.name or coding not in CODINGS:
            raise _refuse(f"stream {entry!r} is not a description of {kind.name!r}", PREFIX.size)
        if kind.plain and coding != "none":
            raise _refuse(f"coding {coding}, this stream is always as it is", PREFIX.size, kind.name)
        if layout.entropy_coded and not kind.plain and coding != "huffman":
            raise _refuse(f"coding {coding}, layout {layout.name} is always huffman", PREFIX.size, kind.name)
        length = entry["length"]
        if not _count(length) or (coding == "none" and raw_bytes is not None and length != raw_bytes):
            raise _refuse(f"{length!r} bytes, expected {raw_bytes}", PREFIX.size, kind.name)
        try:
            code = HuffmanCode.from_header(entry["code"], kind.width, kind.kind) if coding == "huffman" else None
            if code is not None:
                values.check_code(code, kind)
        except FormatError as error:
            raise _refuse(error.message, PREFIX.size, kind.name) from None
        if code is not None and code.longest > params.get("max_length", LONGEST):
            raise _refuse(
                f"code words of {code.longest} bits, max_length is {params['max_length']}", PREFIX.size, kind.name
            )
        described.append(StreamHead(kind.name, length, coding, code))
    return params, values, tuple(described)
