"""One tensor's bytes (spec section 4): a head (prefix, header, segment table), then the streams, each aligned.

The frame knows bytes, not meaning. ``build`` lays it out here; codec.head proves what is read.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import msgpack
import numpy as np

from codec import kernels
from codec.dtypes import ElementType
from codec.entropy import HuffmanCode
from codec.geometry import Grid
from codec.layouts import Layout, StreamKind
from codec.valuecoding import ValueCoding

MAGIC = b"\x89CDCF\r\n\x1a"
VERSION = 0
ALIGNMENT = 64
PREFIX = struct.Struct("<8sIIQI")  # magic, version, header length, frame length, head checksum
CHECKSUM_AT = PREFIX.size - 4


@dataclass(frozen=True)
class StreamHead:
    """One stream as the head describes it: its name, bytes as stored, coding, and the code if that is "huffman"."""

    name: str
    length: int
    coding: str
    code: HuffmanCode | None = None


@dataclass(frozen=True)
class Subject:
    """What a frame says of its tensor, whatever its streams are."""

    element: ElementType
    shape: tuple[int, ...]
    row_dims: int
    grid: Grid
    layout: Layout
    params: dict[str, Any]
    values: ValueCoding
    zero: str

    @cached_property
    def nonzero_bits(self) -> int:
        """The bits of an element that make it non-zero under the zero rule."""
        return self.element.nonzero_bits(self.zero)

    @property
    def kinds(self) -> tuple[StreamKind, ...]:
        """The streams' items."""
        return self.values.kinds(self.layout, self.params, self.element)


@dataclass(frozen=True)
class Head(Subject):
    """All that a frame says of its tensor, proved; ``offsets`` and ``checksums`` are the segment table.

    ``offsets`` is (streams, segments + 1): where each part begins, and after the last where it ends.
    """

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


def align(n: int, to: int = ALIGNMENT) -> int:
    """n rounded up to a multiple."""
    return -(-n // to) * to


def data_start(header_length: int, streams: int, segments: int) -> int:
    """Where the first stream begins: behind the prefix, the header and the segment table."""
    return align(align(PREFIX.size + header_length, 8) + 12 * streams * segments)


def head_checksum(head: np.ndarray) -> int:
    """CRC-32C of a head (its bytes up to ``data_start``) but for the four bytes that hold it."""
    return kernels.crc32c(head[PREFIX.size :], kernels.crc32c(head[:CHECKSUM_AT]))


def _header(subject: Subject, nnz: int, negative_zeros: int, streams: Sequence[StreamHead]) -> bytes:
    grid = subject.grid
    described = [
        {"name": s.name, "length": s.length, "coding": s.coding, **({"code": s.code.to_header()} if s.code else {})}
        for s in streams
    ]
    header = {
        "dtype": subject.element.name,
        "shape": list(subject.shape),
        "row_dims": subject.row_dims,
        "segment": [grid.segment_rows, grid.segment_cols],
        "layout": subject.layout.name,
        "params": subject.params,
        "values": subject.values.to_header(),
        "zero": subject.zero,
        "nnz": nnz,
        "negative_zeros": negative_zeros,
        "streams": described,
    }
    return bytes(msgpack.packb(header))


def size(subject: Subject, nnz: int, negative_zeros: int, streams: Sequence[StreamHead]) -> int:
    """Bytes of the frame that ``build`` would make."""
    header = _header(subject, nnz, negative_zeros, streams)
    start = data_start(len(header), len(streams), subject.grid.segments)
    return start + sum(align(stream.length) for stream in streams) + ALIGNMENT


def build(
    subject: Subject,
    nnz: int,
    negative_zeros: int,
    streams: Sequence[StreamHead],
    part_sizes: np.ndarray,
    write: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
) -> tuple[np.ndarray, Head]:
    """A frame around parts of ``part_sizes`` (streams, segments) bytes.

    ``write(frame, offsets, checksums)`` copies the parts and fills in their checksums (both by stream and segment).
    """
    header = _header(subject, nnz, negative_zeros, streams)
    segments = subject.grid.segments
    start = data_start(len(header), len(streams), segments)
    offsets = np.zeros((len(streams), segments + 1), "<u8")
    end = start
    for stream, sizes, row in zip(streams, part_sizes, offsets, strict=True):
        row[0] = end
        np.cumsum(sizes, out=row[1:])
        row[1:] += row[0]
        end += align(stream.length)
    length = end + ALIGNMENT
    frame = _zeros(length)
    begins = np.ascontiguousarray(offsets[:, :-1])
    checksums = np.zeros((len(streams), segments), "<u4")
    write(frame, begins, checksums)
    table = align(PREFIX.size + len(header), 8)
    frame[: PREFIX.size] = np.frombuffer(PREFIX.pack(MAGIC, VERSION, len(header), length, 0), np.uint8)
    frame[PREFIX.size : PREFIX.size + len(header)] = np.frombuffer(header, np.uint8)
    frame[table : table + 8 * begins.size] = kernels.octets(begins)
    frame[table + 8 * begins.size : table + 12 * begins.size] = kernels.octets(checksums)
    frame[CHECKSUM_AT : PREFIX.size].view("<u4")[0] = head_checksum(frame[:start])
    described = {field.name: getattr(subject, field.name) for field in fields(Subject)}
    return frame, Head(
        **described,
        nnz=nnz,
        negative_zeros=negative_zeros,
        streams=tuple(streams),
        offsets=offsets,
        checksums=checksums,
        frame_length=length,
        data_start=start,
    )


def _zeros(length: int) -> np.ndarray:
    # Begins on a cache line, so that what is aligned in the frame is aligned in memory.
    block = np.zeros(length + ALIGNMENT, np.uint8)
    skip = -block.ctypes.data % ALIGNMENT
    return block[skip : skip + length]
