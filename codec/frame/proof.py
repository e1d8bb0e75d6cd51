"""The proof of a frame's head (spec section 4.4): every span and every field, before anyone uses one.

Checksums and padding of parts are compared where the parts are used, so that reading a few rows costs a few rows.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeVar

import msgpack
import numpy as np

from codec.dtypes import BY_NAME, ElementType
from codec.entropy import BY_NUMBER, NONE
from codec.errors import ChecksumError, CodecError, FormatError, VersionError
from codec.frame.head import (
    CHECKSUM_AT,
    MAGIC,
    PREFIX,
    VERSION,
    Description,
    Head,
    Parts,
    StreamHead,
    data_start,
    frame_length,
    head_checksum,
    padded,
    row_type,
    table_bytes,
)
from codec.layouts import LAYOUTS, Layout, StreamKind
from codec.matrix import MAX_NBYTES, MAX_NDIM, MAX_SEGMENT, Grid, TensorSpec, dimensions, matrix_shape
from codec.values import ValueCoding

_MAX_HEADER = 1 << 20
_FIELDS = ("dtype", "shape", "row_dims", "segment", "layout", "params", "values", "nnz", "negative_zeros", "streams")
_ELEMENTS = {element.number: element for element in BY_NAME.values()}
_LAYOUTS = {layout.number: layout for layout in LAYOUTS.values()}

_Row = TypeVar("_Row")
Read = Callable[[int, int], Any]  # (offset, length) -> that many bytes of the frame


def _refuse(message: str, offset: int, stream: str | None = None) -> FormatError:
    return FormatError(f"{message}: the bytes are damaged or not a frame of this format", stream=stream, offset=offset)


def read_head(read: Read, length: int) -> Head:
    """The proved head of a frame of ``length`` bytes, of which only the head is read.

    Raises VersionError for a newer frame, ChecksumError for a damaged head, FormatError for anything else.
    """
    start, checksum = _prefix(read, length)
    head = np.frombuffer(read(0, start), np.uint8)
    if (found := head_checksum(head)) != checksum:
        raise ChecksumError(
            f"the head's CRC-32C is {found:08x}, expected {checksum:08x}: fetch the bytes again", offset=CHECKSUM_AT
        )
    fields, used = _unpack(head[PREFIX.size :].tobytes())
    described, nnz, negative_zeros = _tensor(fields)
    codings = _codings(fields["streams"], described)
    table, size = PREFIX.size + used, table_bytes(described.kinds, described.spec.grid.segments)
    if table + size > start:
        raise _refuse(f"{start - table} bytes for a table of {size}", table)
    parts, bounds = _parts(head[table : table + size], start, described)
    end = int(bounds[-1])
    if start != data_start(used, size, end - start, described.layout):
        raise _refuse(f"parts begin at {start}, and the table of segments ends at {table + size}", table)
    if head[table + size :].any():
        raise _refuse("padding in the head is not zero", table + size)
    if frame_length(end, described.layout) != length:
        raise _refuse(
            f"a frame of {length} bytes, and its parts end at {end}: it is cut off or has more behind it", table
        )
    streams = tuple(
        StreamHead(kind.name, int(part.lengths.sum(dtype=np.uint64)), *coding)
        for kind, part, coding in zip(described.kinds, parts, codings, strict=True)
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


def _prefix(read: Read, length: int) -> tuple[int, int]:
    """Where the parts begin, and the head's checksum."""
    if length < PREFIX.size:
        raise _refuse(f"{length} bytes, expected at least {PREFIX.size} for a frame's prefix", 0)
    magic, version, begin, checksum = PREFIX.unpack(bytes(read(0, PREFIX.size)))
    if magic != MAGIC:
        raise _refuse(f"begins with {magic.hex()}, expected {MAGIC.hex()}", 0)
    if version != VERSION:
        raise VersionError(
            f"version {version}, expected {VERSION}: use a release that writes version {version}", offset=len(MAGIC)
        )
    start = int.from_bytes(begin, "little")
    if not PREFIX.size < start <= length:
        raise _refuse(f"parts begin at {start} in a frame of {length}", len(MAGIC) + 1)
    return start, checksum


def _parts(raw: np.ndarray, start: int, described: Description) -> tuple[tuple[Parts, ...], np.ndarray]:
    """The parts of each stream, and where those of each segment begin: they follow each other without holes."""
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
        steps = padded(table["part"][:, :, 0].astype(np.int64), described.layout)
        bounds = bounds[-1] + np.concatenate(([0], np.cumsum(steps.sum(axis=1))))
        offsets = bounds[:-1, None] + np.cumsum(steps, axis=1) - steps
        for place, number in enumerate(numbers):
            # Copies, also of a single row: what is proved here stays as it is whatever becomes of the frame's memory.
            found[number] = Parts(
                np.array(offsets[:, place], np.uint64),
                np.array(table["part"][:, place, 0], np.uint32),
                np.array(table["part"][:, place, 1], np.uint32),
            )
    return tuple(found[number] for number in range(len(kinds))), bounds.astype(np.uint64)


def _unpack(raw: bytes) -> tuple[dict[str, Any], int]:
    """The header's fields by name, and its bytes; the segment table follows them."""
    head = raw[:_MAX_HEADER]
    unpacker = msgpack.Unpacker(strict_map_key=True, max_ext_len=0, max_buffer_size=max(1, len(head)))
    try:
        unpacker.feed(head)
        fields = unpacker.unpack()
        used = unpacker.tell()
        canonical = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise _refuse(f"the header is not msgpack of at most {_MAX_HEADER} bytes ({error})", PREFIX.size) from None
    if not isinstance(fields, list) or len(fields) != len(_FIELDS):
        raise _refuse(f"the header is not an array of {', '.join(_FIELDS)}", PREFIX.size)
    if canonical != head[:used]:
        raise _refuse("the header is not in its shortest form", PREFIX.size)
    return dict(zip(_FIELDS, fields, strict=True)), used


def _count(value: Any, most: int = MAX_NBYTES) -> bool:
    return type(value) is int and 0 <= value <= most


def _tensor(fields: dict[str, Any]) -> tuple[Description, int, int]:
    """What the header says but for the streams, in the order of its fields; stored entries and negative zeros."""
    element = _numbered(_ELEMENTS, fields["dtype"], "dtype")
    shape = _shape(fields["shape"], element)
    row_dims = fields["row_dims"]
    if not _count(row_dims, len(shape)):
        raise _refuse(f"row_dims {row_dims!r:.50} for {dimensions(len(shape))}", PREFIX.size)
    grid = _grid(fields["segment"], *matrix_shape(shape, row_dims))
    layout = _numbered(_LAYOUTS, fields["layout"], "layout")
    zero = "bits" if fields["negative_zeros"] is None else "value"
    spec = TensorSpec(element, shape, row_dims, zero, grid)
    complete = _complete(layout, fields["params"], spec)
    try:
        values = ValueCoding.from_header(fields["values"], grid)
    except FormatError as error:
        raise _refuse(error.message, PREFIX.size) from None
    nnz, negative = fields["nnz"], 0 if zero == "bits" else fields["negative_zeros"]
    if not _count(nnz, grid.size) or not _count(negative, grid.size - nnz) or (negative and not spec.negative):
        raise _refuse(
            f"{nnz!r:.50} stored entries and {negative!r:.50} negative zeros among {grid.size} elements", PREFIX.size
        )
    return Description(spec, complete, values), nnz, negative


def _numbered(known: Mapping[int, _Row], number: Any, what: str) -> _Row:
    if type(number) is not int or number not in known:
        raise _refuse(f"{what} {number!r:.50} is none of 0 to {max(known)}", PREFIX.size)
    return known[number]


def _shape(shape: Any, element: ElementType) -> tuple[int, ...]:
    fine = isinstance(shape, list) and len(shape) <= MAX_NDIM and all(map(_count, shape))
    # As NumPy counts: a size of 0 does not excuse the others.
    if not fine or prod(n or 1 for n in shape) * element.width > MAX_NBYTES:
        raise _refuse(
            f"shape {shape!r} is not a list of at most {MAX_NDIM} sizes below 2**63 bytes in all", PREFIX.size
        )
    return tuple(shape)


def _grid(segment: Any, rows: int, cols: int) -> Grid:
    """The matrix and its segments: 0 where it is one, or none; else rows of one, or in an array columns of one."""
    h, w = rows, cols
    if isinstance(segment, list) and len(segment) == 1 and _count(segment[0], cols - 1) and segment[0]:
        h, w = 1, segment[0]
    elif _count(segment, rows - 1) and segment:
        h = segment
    elif segment != 0 or type(segment) is not int:
        raise _refuse(f"segment {segment!r:.50} for a matrix of {rows} x {cols}", PREFIX.size)
    if rows * cols == 0:
        h = w = 0
    if h * w > MAX_SEGMENT or (segment and not h):
        raise _refuse(f"segments of {h} x {w} for a matrix of {rows} x {cols}", PREFIX.size)
    return Grid(rows, cols, h, w)


def _complete(layout: type[Layout], params: Any, spec: TensorSpec) -> Layout:
    """The layout with exactly the parameters that it would write for the tensor."""
    try:
        found = layout.from_header(params)
        same = found.complete and found.fit(spec) == found and msgpack.packb(found.to_header()) == msgpack.packb(params)
    except (CodecError, TypeError) as error:
        raise _refuse(f"parameters of layout {layout.name}: {error}", PREFIX.size) from None
    if not same:
        raise _refuse(f"parameters {params!r:.200} are not those of layout {layout.name}", PREFIX.size)
    return found


def _codings(entries: Any, described: Description) -> list[tuple[str, Any]]:
    """The coding of each stream, and what that needs to decode."""
    kinds = described.kinds
    if not isinstance(entries, list) or len(entries) != len(kinds):
        raise _refuse(f"streams {entries!r:.200}, layout {described.layout.name} has {len(kinds)}", PREFIX.size)
    return [_coding(entry, kind) for entry, kind in zip(entries, kinds, strict=True)]


def _coding(entry: Any, kind: StreamKind) -> tuple[str, Any]:
    number, *state = entry if isinstance(entry, list) and len(entry) > 1 else [entry]
    coding = BY_NUMBER.get(number) if type(number) is int else None
    name = NONE if coding is None else coding.name
    if name not in kind.codings or (coding is None and (type(entry) is not int or entry != 0)):
        raise _refuse(f"coding {entry!r:.200}, expected one of {', '.join(kind.codings)}", PREFIX.size, kind.name)
    if coding is None:
        return NONE, None
    try:
        return name, coding.from_header(state, kind.items)
    except FormatError as error:
        raise _refuse(error.message, PREFIX.size, kind.name) from None
