"""The proof of a frame's head (spec section 4.4): every span and every field, before anyone uses one.

Checksums and padding of parts are compared where the parts are used, so that reading a few rows costs a few rows.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import msgpack
import numpy as np

from codec.dtypes import BY_NAME, ElementType
from codec.entropy import CODINGS, NONE
from codec.errors import ChecksumError, CodecError, FormatError, VersionError
from codec.frame.head import (
    ALIGNMENT,
    MAGIC,
    PART_ALIGNMENT,
    PREFIX,
    VERSION,
    Description,
    Head,
    Parts,
    StreamHead,
    align,
    data_start,
    head_checksum,
    row_type,
    table_bytes,
)
from codec.layouts import LAYOUTS, Layout, StreamKind
from codec.matrix import MAX_NBYTES, MAX_NDIM, MAX_SEGMENT, Grid, TensorSpec, dimensions, matrix_shape
from codec.values import ValueCoding

_MAX_HEADER = 1 << 20
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
    header_length, start, checksum = _prefix(read, length)
    head = np.frombuffer(read(0, start), np.uint8)
    if (found := head_checksum(head)) != checksum:
        raise ChecksumError(
            f"the head's CRC-32C is {found:08x}, expected {checksum:08x}: fetch the bytes again", offset=32
        )
    fields = _unpack(head[PREFIX.size : PREFIX.size + header_length].tobytes())
    described, nnz, negative_zeros = _tensor(fields)
    streams = _streams(fields["streams"], described)
    table = int(align(PREFIX.size + header_length, PART_ALIGNMENT))
    end = table + table_bytes(described.kinds, described.spec.grid.segments)
    if start != data_start(header_length, end - table):
        raise _refuse(f"parts begin at {start}, the table of segments ends at {end}", 24)
    if head[PREFIX.size + header_length : table].any() or head[end:].any():
        raise _refuse("padding in the head is not zero", PREFIX.size + header_length)
    parts, bounds = _parts(head[table:end], table, start, described, streams)
    if align(int(bounds[-1])) + ALIGNMENT != length:
        raise _refuse(
            f"the parts end at {bounds[-1]}, the frame at {length}: expected {ALIGNMENT} bytes between", table
        )
    return Head(
        described.spec, described.layout, described.values, nnz, negative_zeros, streams, parts, bounds, length, start
    )


def parse(data: np.ndarray) -> Head:
    """The proved head of a frame in memory (uint8), and that nothing but zeros follows its parts."""
    head = read_head(lambda offset, n: data[offset : offset + n], len(data))
    end = int(head.bounds[-1])
    if data[end:].any():
        raise _refuse("padding behind the last part is not zero", end)
    return head


def _prefix(read: Read, length: int) -> tuple[int, int, int]:
    """Length of the header, where the parts begin, and the head's checksum."""
    if length < PREFIX.size:
        raise _refuse(f"{length} bytes, expected at least {PREFIX.size} for a frame's prefix", 0)
    magic, version, header_length, frame_length, start, checksum = PREFIX.unpack(bytes(read(0, PREFIX.size)))
    if magic != MAGIC:
        raise _refuse(f"begins with {magic.hex()}, expected {MAGIC.hex()}", 0)
    if version != VERSION:
        raise VersionError(
            f"version {version}, expected {VERSION}: use a release that writes version {version}", offset=8
        )
    if frame_length != length or length % ALIGNMENT:
        raise _refuse(f"a frame of {frame_length} bytes in {length} bytes: it is cut off or has more behind it", 16)
    if start % ALIGNMENT or start > length - ALIGNMENT:
        raise _refuse(f"parts begin at {start} in a frame of {length}", 24)
    if header_length > _MAX_HEADER or PREFIX.size + header_length > start:
        raise _refuse(f"a header of {header_length} bytes before parts that begin at {start}", 12)
    return header_length, start, checksum


def _parts(
    raw: np.ndarray, at: int, start: int, described: Description, streams: tuple[StreamHead, ...]
) -> tuple[tuple[Parts, ...], np.ndarray]:
    """The segment table: rows follow each other without holes, and the parts of a stream add up to its length."""
    kinds = described.kinds
    shared = [number for number, kind in enumerate(kinds) if kind.shared]
    own = [number for number, kind in enumerate(kinds) if not kind.shared]
    first = row_type(len(shared)).itemsize if shared else 0
    found: dict[int, Parts] = {}
    bounds = np.array([start], np.int64)
    for numbers, rows in ((shared, raw[:first]), (own, raw[first:])):
        if not numbers:
            continue
        table = rows.view(row_type(len(numbers)))
        lengths = table["part"][:, :, 0].astype(np.int64)
        padded = align(lengths, PART_ALIGNMENT)
        bounds = bounds[-1] + np.concatenate(([0], np.cumsum(padded.sum(axis=1))))
        wrong = table["offset"].astype(np.uint64) != bounds[:-1].astype(np.uint64)
        if wrong.any():
            row = int(wrong.argmax())
            raise _refuse(f"row {row} of the table begins at {table['offset'][row]}, expected {bounds[row]}", at)
        offsets = bounds[:-1, None] + np.cumsum(padded, axis=1) - padded
        for place, number in enumerate(numbers):
            if (total := int(lengths[:, place].sum())) != streams[number].length:
                raise _refuse(
                    f"parts of {total} bytes, the header says {streams[number].length}", at, kinds[number].name
                )
            # Copies, also of a single row: what is proved here stays as it is whatever becomes of the frame's memory.
            found[number] = Parts(
                np.array(offsets[:, place], np.uint64),
                np.array(table["part"][:, place, 0], np.uint32),
                np.array(table["part"][:, place, 1], np.uint32),
            )
    return tuple(found[number] for number in range(len(kinds))), bounds.astype(np.uint64)


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


def _count(value: Any, most: int = MAX_NBYTES) -> bool:
    return type(value) is int and 0 <= value <= most


def _tensor(fields: dict[str, Any]) -> tuple[Description, int, int]:
    """What the header says but for the streams, in the order of its keys; stored entries and negative zeros."""
    element = BY_NAME.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if element is None:
        raise _refuse(f"dtype {fields['dtype']!r} is none of {', '.join(BY_NAME)}", PREFIX.size)
    shape = _shape(fields["shape"], element)
    row_dims = fields["row_dims"]
    if not _count(row_dims, len(shape)):
        raise _refuse(f"row_dims {row_dims!r} for {dimensions(len(shape))}", PREFIX.size)
    grid = _grid(fields["segment"], *matrix_shape(shape, row_dims))
    layout = LAYOUTS.get(fields["layout"]) if isinstance(fields["layout"], str) else None
    if layout is None:
        raise _refuse(f"layout {fields['layout']!r} is none of {', '.join(LAYOUTS)}", PREFIX.size)
    complete = _complete(layout, fields["params"], TensorSpec(element, shape, row_dims, "value", grid))
    try:
        values = ValueCoding.from_header(fields["values"], grid)
    except FormatError as error:
        raise _refuse(error.message, PREFIX.size) from None
    zero = fields["zero"]
    if not isinstance(zero, str) or zero not in ("value", "bits"):
        raise _refuse(f"zero rule {zero!r}, expected value or bits", PREFIX.size)
    spec = TensorSpec(element, shape, row_dims, zero, grid)
    nnz, negative = fields["nnz"], fields["negative_zeros"]
    if not _count(nnz, grid.size) or not _count(negative, grid.size - nnz) or (negative and not spec.negative):
        raise _refuse(f"{nnz!r} stored entries and {negative!r} negative zeros among {grid.size} elements", PREFIX.size)
    return Description(spec, complete, values), nnz, negative


def _shape(shape: Any, element: ElementType) -> tuple[int, ...]:
    fine = isinstance(shape, list) and len(shape) <= MAX_NDIM and all(map(_count, shape))
    # As NumPy counts: a size of 0 does not excuse the others.
    if not fine or prod(n or 1 for n in shape) * element.width > MAX_NBYTES:
        raise _refuse(
            f"shape {shape!r} is not a list of at most {MAX_NDIM} sizes below 2**63 bytes in all", PREFIX.size
        )
    return tuple(shape)


def _grid(segment: Any, rows: int, cols: int) -> Grid:
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_count, segment)):
        raise _refuse(f"segment {segment!r} is not a pair of sizes", PREFIX.size)
    h, w = segment
    whole = 1 <= h <= rows and 1 <= w <= cols and h * w <= MAX_SEGMENT and (w == cols or h == 1)
    if not (h == w == 0 if rows * cols == 0 else whole):
        raise _refuse(f"segments of {h} x {w} for a matrix of {rows} x {cols}", PREFIX.size)
    return Grid(rows, cols, h, w)


def _complete(layout: type[Layout], params: Any, spec: TensorSpec) -> Layout:
    """The layout with exactly the parameters that it would write for the tensor."""
    try:
        found = layout(**params)
        same = found.complete and found.fit(spec) == found and msgpack.packb(found.params) == msgpack.packb(params)
    except (CodecError, TypeError) as error:
        raise _refuse(f"parameters of layout {layout.name}: {error}", PREFIX.size) from None
    if not same:
        raise _refuse(f"parameters {params!r} are not those of layout {layout.name}", PREFIX.size)
    return found


def _streams(entries: Any, described: Description) -> tuple[StreamHead, ...]:
    kinds = described.kinds
    if not isinstance(entries, list) or len(entries) != len(kinds):
        raise _refuse(f"streams {entries!r:.200}, layout {described.layout.name} has {len(kinds)}", PREFIX.size)
    return tuple(_stream(entry, kind) for entry, kind in zip(entries, kinds, strict=True))


def _stream(entry: Any, kind: StreamKind) -> StreamHead:
    keys = ["name", "length", "coding"]
    if not isinstance(entry, dict) or list(entry) not in (keys, [*keys, "code"]) or entry["name"] != kind.name:
        raise _refuse(f"stream {entry!r:.200} is not a description of {kind.name!r}", PREFIX.size)
    length, coding = entry["length"], entry["coding"]
    if not _count(length):
        raise _refuse(f"{length!r:.50} bytes", PREFIX.size, kind.name)
    if not isinstance(coding, str) or coding not in kind.codings:
        raise _refuse(f"coding {coding!r:.50}, expected one of {', '.join(kind.codings)}", PREFIX.size, kind.name)
    if coding == NONE:
        if "code" in entry:
            raise _refuse("a code without a coding", PREFIX.size, kind.name)
        return StreamHead(kind.name, length)
    try:
        return StreamHead(kind.name, length, coding, CODINGS[coding].from_header(entry.get("code"), kind.items))
    except FormatError as error:
        raise _refuse(error.message, PREFIX.size, kind.name) from None
