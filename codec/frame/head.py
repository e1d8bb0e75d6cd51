"""What the head of a frame says: of the tensor, of its streams, and where each part lies (spec sections 4.1 to 4.3)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import msgpack
import numpy as np

from codec import kernels
from codec.dtypes import ElementType
from codec.entropy import CODINGS, NONE
from codec.errors import ArgumentError
from codec.layouts import Layout, StreamKind
from codec.matrix import Grid, TensorSpec
from codec.values import ValueCoding

MAGIC = b"\x89CDC"
VERSION = 0
# Of layouts that are aligned: of a frame's length, which ends in so many zero bytes, and of its parts.
ALIGNMENT, PART_ALIGNMENT = 64, 8
LARGE = 1 << 16  # bytes of parts from which on they always begin on a cache line
# Magic, version, where the first part begins (3 bytes), checksum of the head.
PREFIX = struct.Struct("<4sB3sI")
CHECKSUM_AT = PREFIX.size - 4
MOST_HEAD = (1 << 24) - 1


@dataclass(frozen=True)
class StreamHead:
    """One stream as the head describes it: its name, bytes as stored, coding, and what that needs to decode."""

    name: str
    length: int
    coding: str = NONE
    state: Any = None


@dataclass(frozen=True)
class Description:
    """What decides a tensor's streams: the tensor, its layout, and what its values are."""

    spec: TensorSpec
    layout: Layout
    values: ValueCoding

    @cached_property
    def kinds(self) -> tuple[StreamKind, ...]:
        """The streams, in their order in the frame."""
        return self.values.streams(self.layout, self.spec.element)


@dataclass(frozen=True)
class Parts:
    """Where the parts of one stream lie in the frame: one for each segment, or one in all for a shared stream."""

    offsets: np.ndarray  # uint64
    lengths: np.ndarray  # uint32, without padding
    checksums: np.ndarray  # uint32


@dataclass(frozen=True)
class Head(Description):
    """All that a frame says of its tensor, proved.

    Attributes
    ----------
    nnz, negative_zeros : int
        Stored entries; elements that were -0.0 and were not stored.
    streams : tuple of StreamHead
    parts : tuple of Parts
        By stream.
    bounds : ndarray of uint64, (segments + 1,)
        Where the parts of each segment begin in the frame, and after the last one where they end.
    frame_length, data_start : int
    """

    nnz: int
    negative_zeros: int
    streams: tuple[StreamHead, ...]
    parts: tuple[Parts, ...]
    bounds: np.ndarray
    frame_length: int
    data_start: int

    @property
    def names(self) -> list[str]:
        """The streams' names, in order."""
        return [stream.name for stream in self.streams]

    @property
    def element(self) -> ElementType:
        """The element type."""
        return self.spec.element

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.spec.shape

    @property
    def grid(self) -> Grid:
        """The matrix and its segments."""
        return self.spec.grid


def align(n: Any, to: int = ALIGNMENT) -> Any:
    """n rounded up to a multiple of a power of two; also for arrays of signed integers."""
    return n + (to - 1) & -to


def alignment(layout: Layout | type[Layout]) -> int:
    """What a frame begins at a multiple of in a file or in memory."""
    return ALIGNMENT if layout.aligned else 1


def part_alignment(layout: Layout) -> int:
    """What each part of a frame begins at a multiple of."""
    return PART_ALIGNMENT if layout.aligned else 1


def padded(sizes: Any, layout: Layout) -> Any:
    """Bytes of parts (int, or array of signed integers) with the padding behind them."""
    return align(sizes, part_alignment(layout))


def frame_length(end: int, layout: Layout) -> int:
    """Bytes of a frame whose last part ends there, with its padding."""
    return int(align(end)) + ALIGNMENT if layout.aligned else end


def header_bytes(described: Description, nnz: int, negative_zeros: int, streams: Sequence[StreamHead]) -> bytes:
    """The header: an array in canonical msgpack (spec section 4.2)."""
    spec = described.spec
    header = [
        spec.element.number,
        spec.shape,
        spec.row_dims,
        _segment(spec.grid),
        described.layout.number,
        described.layout.to_header(),
        described.values.to_header(),
        nnz,
        None if spec.zero == "bits" else negative_zeros,
        [_coding(one) for one in streams],
    ]
    return bytes(msgpack.packb(header))


def _coding(stream: StreamHead) -> Any:
    return 0 if stream.coding == NONE else CODINGS[stream.coding].said(stream.state)


def _segment(grid: Grid) -> int | list[int]:
    """0 where one segment is all of the matrix, rows where it is whole rows, and columns in an array otherwise."""
    if grid.segments <= 1:
        return 0
    return grid.segment_rows if grid.segment_cols == grid.cols else [grid.segment_cols]


@cache
def row_type(streams: int) -> np.dtype:
    """A row of the segment table: length and checksum of each part."""
    return np.dtype([("part", "<u4", (streams, 2))])


def table_bytes(kinds: Sequence[StreamKind], segments: int) -> int:
    """Bytes of the segment table: a row for the shared streams, where there are any, and one for each segment."""
    shared = sum(kind.shared for kind in kinds)
    return row_type(shared).itemsize * bool(shared) + row_type(len(kinds) - shared).itemsize * segments


def data_start(header_length: int, table: int, parts: int, layout: Layout) -> int:
    """Where the first part begins: behind the prefix, the header and the segment table. Parts that are aligned begin
    on a cache line where the frame gets no longer by that, or they take so many bytes with their padding that it does
    not matter.

    >>> from codec.layouts import LAYOUTS
    >>> [data_start(20, 8, parts, LAYOUTS["csr"]()) for parts in (80, 64, 80 << 10)]
    [40, 64, 64]
    >>> data_start(21, 8, 80, LAYOUTS["context"]())
    41
    """
    end = PREFIX.size + header_length + table
    near, far = padded(end, layout), align(end)
    free = parts >= LARGE or align(far + parts) == align(near + parts)
    return int(far if layout.aligned and free else near)


def prefix_bytes(start: int, checksum: int) -> bytes:
    """The prefix; ArgumentError for a head that is too long for it."""
    if start > MOST_HEAD:
        raise ArgumentError(
            f"a head of {start} bytes; expected at most {MOST_HEAD}: a matrix of so many segments is too large"
        )
    return PREFIX.pack(MAGIC, VERSION, start.to_bytes(3, "little"), checksum)


def head_checksum(head: np.ndarray) -> int:
    """CRC-32C of a head (its bytes up to ``data_start``) but for the four bytes that hold it."""
    return kernels.crc32c(head[PREFIX.size :], kernels.crc32c(head[:CHECKSUM_AT]))
