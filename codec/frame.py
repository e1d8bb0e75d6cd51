"""One tensor's bytes (spec section 4): a head (prefix, map, segment table), then the streams, all at proved places.

The frame knows bytes, not meaning: ``parse`` proves every span before anyone uses one, ``build`` lays them out. Checksums of
parts are compared where the parts are used (codec.kernels), so that reading a few rows costs a few rows.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import msgpack
import numpy as np

from codec import kernels
from codec.dtypes import BY_NAME, ElementType
from codec.entropy import CODINGS, LONGEST, HuffmanCode
from codec.errors import ChecksumError, CodecError, FormatError, VersionError
from codec.geometry import MAX_NDIM, MAX_SEGMENT, Grid, matrix_shape
from codec.layouts import LAYOUTS, Counts, Layout

MAGIC = b"\x89CDCF\r\n\x1a"
VERSION = 0
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sIIQI")  # magic, version, header length, frame length, head checksum
_CHECKSUM_AT = _PREFIX.size - 4
_MAX_HEADER = 1 << 20
_KEYS = "dtype shape row_dims segment layout params values zero nnz negative_zeros streams".split()

Read = Callable[[int, int], Any]  # (offset, length) -> that many bytes of the frame


@dataclass(frozen=True)
class StreamHead:
    """One stream as the head describes it: its name, its bytes as stored, its coding, and the code if it is "huffman"."""

    name: str
    length: int
    coding: str
    code: HuffmanCode | None = None


@dataclass(frozen=True)
class Head:
    """What a frame says of its tensor, proved; ``offsets`` and ``checksums`` are the segment table.

    ``offsets`` is (streams, segments + 1): where each part begins, and after the last where it ends.
    """

    element: ElementType
    shape: tuple[int, ...]
    row_dims: int
    grid: Grid
    layout: Layout
    params: dict[str, Any]
    zero: str
    nnz: int
    negative_zeros: int
    streams: tuple[StreamHead, ...]
    offsets: np.ndarray
    checksums: np.ndarray
    frame_length: int
    data_start: int

    @property
    def names(self) -> list[str]:
        """The streams' names, in order."""
        return [stream.name for stream in self.streams]


def _align(n: int, to: int = ALIGNMENT) -> int:
    return -(-n // to) * to


def _header_map(
    element: ElementType, shape: tuple[int, ...], row_dims: int, grid: Grid, layout: Layout, params: dict[str, Any], zero: str, nnz: int,
    negative_zeros: int, streams: Sequence[StreamHead],
) -> bytes:  # fmt: skip
    described = [
        {"name": s.name, "length": s.length, "coding": s.coding, **({"code": s.code.to_header()} if s.code else {})} for s in streams
    ]
    values = (
        element.name, list(shape), row_dims, [grid.segment_rows, grid.segment_cols], layout.name, params, {"coding": "raw"}, zero, nnz,
        negative_zeros, described,
    )  # fmt: skip
    return bytes(msgpack.packb(dict(zip(_KEYS, values, strict=True))))


def _data_start(header_length: int, streams: int, segments: int) -> int:
    return _align(_align(_PREFIX.size + header_length, 8) + 12 * streams * segments)


def size(
    element: ElementType, shape: tuple[int, ...], row_dims: int, grid: Grid, layout: Layout, params: dict[str, Any], zero: str, nnz: int,
    negative_zeros: int, streams: Sequence[StreamHead],
) -> int:  # fmt: skip
    """Bytes of the frame that ``build`` would make."""
    header = _header_map(element, shape, row_dims, grid, layout, params, zero, nnz, negative_zeros, streams)
    return _data_start(len(header), len(streams), grid.segments) + sum(_align(s.length) for s in streams) + ALIGNMENT


def build(
    element: ElementType, shape: tuple[int, ...], row_dims: int, grid: Grid, layout: Layout, params: dict[str, Any], zero: str, nnz: int,
    negative_zeros: int, streams: Sequence[StreamHead], part_sizes: np.ndarray, write: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
) -> tuple[np.ndarray, Head]:  # fmt: skip
    """A frame around parts of ``part_sizes`` (streams, segments) bytes.

    ``write(frame, offsets, checksums)`` copies each part to its offset and fills in its checksum (both streams x segments).
    """
    header = _header_map(element, shape, row_dims, grid, layout, params, zero, nnz, negative_zeros, streams)
    segments = grid.segments
    start = _data_start(len(header), len(streams), segments)
    offsets = np.zeros((len(streams), segments + 1), "<u8")
    end = start
    for stream, sizes, row in zip(streams, part_sizes, offsets, strict=True):
        row[0] = end
        np.cumsum(sizes, out=row[1:])
        row[1:] += row[0]
        end += _align(stream.length)
    length = end + ALIGNMENT
    frame = _zeros(length)
    checksums = np.zeros((len(streams), segments), "<u4")
    write(frame, np.ascontiguousarray(offsets[:, :-1]), checksums)
    table = _align(_PREFIX.size + len(header), 8)
    frame[: _PREFIX.size] = np.frombuffer(_PREFIX.pack(MAGIC, VERSION, len(header), length, 0), np.uint8)
    frame[_PREFIX.size : _PREFIX.size + len(header)] = np.frombuffer(header, np.uint8)
    spans = offsets[:, :-1].size
    frame[table : table + 8 * spans] = kernels.octets(np.ascontiguousarray(offsets[:, :-1]))
    frame[table + 8 * spans : table + 12 * spans] = kernels.octets(checksums)
    frame[_CHECKSUM_AT : _PREFIX.size].view("<u4")[0] = _head_checksum(frame[:start])
    head = Head(
        element, shape, row_dims, grid, layout, params, zero, nnz, negative_zeros, tuple(streams), offsets, checksums, length, start
    )
    return frame, head


def _zeros(length: int) -> np.ndarray:
    # Begins on a cache line, so that what is aligned in the frame is aligned in memory.
    block = np.zeros(length + ALIGNMENT, np.uint8)
    skip = -block.ctypes.data % ALIGNMENT
    return block[skip : skip + length]


def _head_checksum(head: np.ndarray) -> int:
    return kernels.crc32c(head[_PREFIX.size :], kernels.crc32c(head[:_CHECKSUM_AT]))


def _refuse(message: str, offset: int, stream: str | None = None) -> FormatError:
    return FormatError(f"{message}: the bytes are damaged or not a frame of this format", stream=stream, offset=offset)


def read_head(read: Read, length: int) -> Head:
    """The proved head of a frame of ``length`` bytes, of which only the head is read.

    Raises VersionError for a newer frame, ChecksumError for a damaged head, FormatError for anything else that is wrong.
    """
    if length < _PREFIX.size:
        raise _refuse(f"{length} bytes, expected at least {_PREFIX.size} for a frame's prefix", 0)
    magic, version, header_length, frame_length, checksum = _PREFIX.unpack(bytes(read(0, _PREFIX.size)))
    if magic != MAGIC:
        raise _refuse(f"begins with {magic.hex()}, expected {MAGIC.hex()}", 0)
    if version != VERSION:
        raise VersionError(f"frame version {version}, this release reads {VERSION}: use a release that writes version {version}", offset=8)
    if frame_length != length:
        raise _refuse(f"a frame of {frame_length} bytes in {length} bytes: it is cut off or has more behind it", 16)
    if header_length > min(_MAX_HEADER, length - _PREFIX.size):
        raise _refuse(f"a header of {header_length} bytes in a frame of {length}", 12)
    raw = bytes(read(_PREFIX.size, header_length))
    fields = _unpack(raw)
    element, shape, row_dims, grid, layout = _tensor_fields(fields)
    streams = fields["streams"]
    if not isinstance(streams, list) or not 1 <= len(streams) <= 8:
        raise _refuse("the header lists no streams, or too many", _PREFIX.size)
    start = _data_start(header_length, len(streams), grid.segments)
    if start + ALIGNMENT > length:
        raise _refuse(f"a table of {grid.segments} segments ends at {start}, past the frame's {length} bytes", _PREFIX.size)
    head = np.frombuffer(read(0, start), np.uint8)
    found = _head_checksum(head)
    if found != checksum:
        raise ChecksumError(f"the head's CRC-32C is {found:08x}, expected {checksum:08x}: the bytes are damaged: fetch them again", offset=24)
    table = _align(_PREFIX.size + header_length, 8)
    spans = len(streams) * grid.segments
    if head[_PREFIX.size + header_length : table].any() or head[table + 12 * spans :].any():
        raise _refuse("padding in the head is not zero", _PREFIX.size + header_length)
    params, described = _coding_fields(fields, element, grid, layout, streams)
    offsets = np.zeros((len(described), grid.segments + 1), "<u8")
    offsets[:, :-1] = head[table : table + 8 * spans].view("<u8").reshape(len(described), -1)
    checksums = head[table + 8 * spans : table + 12 * spans].view("<u4").reshape(len(described), -1).copy()
    end = start
    kinds = layout.streams(params, element)
    for stream, row, shared in zip(described, offsets, [kind.shared for kind in kinds], strict=True):
        row[-1] = end + stream.length
        if (grid.segments and row[0] != end) or np.any(row[1:] < row[:-1]) or (not grid.segments and stream.length):
            raise _refuse(f"parts do not fill the stream from {end} to {end + stream.length}", table, stream.name)
        if shared and np.any(row[1:] != row[-1]):
            raise _refuse("a stream that all segments share has a second part", table, stream.name)
        end += _align(stream.length)
        if end + ALIGNMENT > length:
            raise _refuse(f"ends at {end}, past the frame's {length} bytes", table, stream.name)
    if end + ALIGNMENT != length:
        raise _refuse(f"the streams end at {end}, the frame at {length}: expected {ALIGNMENT} bytes between", table)
    return Head(
        element, shape, row_dims, grid, layout, params, fields["zero"], fields["nnz"], fields["negative_zeros"], described, offsets,
        checksums, length, start,
    )  # fmt: skip


def parse(data: np.ndarray) -> Head:
    """The proved head of a frame in memory (uint8), every byte of its padding zero."""
    head = read_head(lambda offset, n: data[offset : offset + n], len(data))
    for begin, stream in zip(head.offsets[:, 0], head.streams, strict=True):
        end = int(begin) + stream.length if head.grid.segments else head.data_start
        if data[end : _align(end)].any():
            raise _refuse("padding behind the stream is not zero", end, stream.name)
    if data[-ALIGNMENT:].any():
        raise _refuse("padding at the end is not zero", len(data) - ALIGNMENT)
    return head


def _unpack(raw: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(raw, strict_map_key=True, max_ext_len=0)
        canonical = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _refuse(f"the header is not msgpack ({error})", _PREFIX.size) from None
    if not isinstance(fields, dict) or list(fields) != _KEYS:
        raise _refuse(f"the header's keys are not {', '.join(_KEYS)}", _PREFIX.size)
    if canonical != raw:
        raise _refuse("the header is not in its shortest form", _PREFIX.size)
    return fields


def _count(value: Any, most: int = (1 << 63) - 1) -> bool:
    return type(value) is int and 0 <= value <= most


def _tensor_fields(fields: dict[str, Any]) -> tuple[ElementType, tuple[int, ...], int, Grid, Layout]:
    element = BY_NAME.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if element is None:
        raise _refuse(f"dtype {fields['dtype']!r} is none of {', '.join(BY_NAME)}", _PREFIX.size)
    shape = fields["shape"]
    if not isinstance(shape, list) or len(shape) > MAX_NDIM or not all(map(_count, shape)) or prod(n or 1 for n in shape) * element.width >= 1 << 63:  # as NumPy counts: a size of 0 does not excuse the others
        raise _refuse(f"shape {shape!r} is not a list of at most {MAX_NDIM} sizes below 2**63 bytes in all", _PREFIX.size)
    row_dims = fields["row_dims"]
    if not _count(row_dims, len(shape)):
        raise _refuse(f"row_dims {row_dims!r} for {len(shape)} dimensions", _PREFIX.size)
    rows, cols = matrix_shape(tuple(shape), row_dims)
    segment = fields["segment"]
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_count, segment)):
        raise _refuse(f"segment {segment!r} is not a pair of sizes", _PREFIX.size)
    h, w = segment
    empty = rows * cols == 0
    fits = h == w == 0 if empty else 1 <= h <= rows and 1 <= w <= cols and h * w <= MAX_SEGMENT and (w == cols or h == 1)
    if not fits:
        raise _refuse(f"segments of {h} x {w} for a matrix of {rows} x {cols}", _PREFIX.size)
    layout = LAYOUTS.get(fields["layout"]) if isinstance(fields["layout"], str) else None
    if layout is None:
        raise _refuse(f"layout {fields['layout']!r} is none of {', '.join(LAYOUTS)}", _PREFIX.size)
    return element, tuple(shape), row_dims, Grid(rows, cols, h, w), layout


def _coding_fields(
    fields: dict[str, Any], element: ElementType, grid: Grid, layout: Layout, streams: list[Any]
) -> tuple[dict[str, Any], tuple[StreamHead, ...]]:
    params = fields["params"]
    try:
        if not isinstance(params, dict) or layout.params(params, grid) != params or list(params) != sorted(params):
            raise _refuse(f"parameters {params!r} are not those of layout {layout.name}", _PREFIX.size)
    except FormatError:
        raise
    except (CodecError, TypeError) as error:
        raise _refuse(f"parameters of layout {layout.name}: {error}", _PREFIX.size) from None
    if fields["values"] != {"coding": "raw"}:
        raise _refuse(f"value coding {fields['values']!r}, expected raw", _PREFIX.size)
    if fields["zero"] not in ("value", "bits") or not isinstance(fields["zero"], str):
        raise _refuse(f"zero rule {fields['zero']!r}, expected value or bits", _PREFIX.size)
    nnz, negative = fields["nnz"], fields["negative_zeros"]
    if not _count(nnz, grid.size) or not _count(negative, grid.size - nnz) or (negative and (fields["zero"] == "bits" or not element.sign_bit)):
        raise _refuse(f"{nnz!r} stored entries and {negative!r} negative zeros among {grid.size} elements", _PREFIX.size)
    kinds = layout.streams(params, element)
    if len(streams) != len(kinds):
        raise _refuse(f"{len(streams)} streams, layout {layout.name} has {len(kinds)}", _PREFIX.size)
    expected = layout.stream_bytes(grid, element.width, Counts(nnz), params)
    described = []
    for entry, kind, raw_bytes in zip(streams, kinds, expected, strict=True):
        coding = entry.get("coding") if isinstance(entry, dict) else None
        keys = ["name", "length", "coding"] + (["code"] if coding == "huffman" else [])
        if not isinstance(entry, dict) or list(entry) != keys or entry["name"] != kind.name or coding not in CODINGS:
            raise _refuse(f"stream {entry!r} is not a description of {kind.name!r}", _PREFIX.size)
        if layout.entropy_coded and coding != "huffman":
            raise _refuse(f"coding {coding}, layout {layout.name} is always huffman", _PREFIX.size, kind.name)
        length = entry["length"]
        if not _count(length) or (coding == "none" and raw_bytes is not None and length != raw_bytes):
            raise _refuse(f"{length!r} bytes, expected {raw_bytes}", _PREFIX.size, kind.name)
        try:
            code = HuffmanCode.from_header(entry["code"], kind.width, kind.kind) if coding == "huffman" else None
        except FormatError as error:
            raise _refuse(error.message, _PREFIX.size, kind.name) from None
        if code is not None and code.longest > params.get("max_length", LONGEST):
            raise _refuse(f"code words of {code.longest} bits, max_length is {params['max_length']}", _PREFIX.size, kind.name)
        described.append(StreamHead(kind.name, length, coding, code))
    return params, tuple(described)
