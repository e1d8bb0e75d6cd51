"""Making a frame around parts: where each goes, the table that says so, and the head (spec section 4)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from codec import kernels
from codec.frame.head import (
    CHECKSUM_AT,
    PREFIX,
    Description,
    Head,
    Parts,
    StreamHead,
    data_start,
    frame_length,
    head_checksum,
    header_bytes,
    padded,
    prefix_bytes,
    table_bytes,
)
from codec.frame.memory import aligned

# (the frame, where each part goes by stream and segment, room for their checksums): copies the parts of streams that
# are not shared, and fills in their checksums.
Write = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def predicted_size(
    described: Description, nnz: int, negative_zeros: int, streams: Sequence[StreamHead], parts: int
) -> int:
    """Bytes of the frame that ``build`` would make around parts that take so many bytes with their padding."""
    header = header_bytes(described, nnz, negative_zeros, streams)
    table = table_bytes(described.kinds, described.spec.grid.segments)
    return frame_length(data_start(len(header), table, parts, described.layout) + parts, described.layout)


def build(
    described: Description,
    nnz: int,
    negative_zeros: int,
    streams: Sequence[StreamHead],
    sizes: np.ndarray,
    shared: Sequence[np.ndarray],
    write: Write,
) -> tuple[np.ndarray, Head]:
    """A frame (uint8) and its head.

    Parameters
    ----------
    sizes : ndarray of uint64, (streams that are not shared, segments)
        Bytes of each part.
    shared : sequence of ndarray of uint8
        The parts of the shared streams.
    write
        Copies the parts that ``sizes`` describes.
    """
    kinds, segments, layout = described.kinds, described.spec.grid.segments, described.layout
    header, table = header_bytes(described, nnz, negative_zeros, streams), table_bytes(described.kinds, segments)
    common = [padded(part.nbytes, layout) for part in shared]
    steps = padded(sizes.astype(np.int64), layout).T  # as parts lie in the frame: segment by segment
    ends = steps.cumsum().reshape(steps.shape)
    own = int(ends[-1, -1]) if ends.size else 0
    start = data_start(len(header), table, sum(common) + own, layout)
    first = start + sum(common)
    length = frame_length(first + own, layout)

    frame = aligned(length, start, zeros=True)  # the first part begins on a cache line
    offsets = np.ascontiguousarray((ends - steps).T + first, np.uint64)
    checksums = np.zeros(offsets.shape, np.uint32)
    write(frame, offsets, checksums)
    one_each = []
    for number, part in enumerate(shared):
        at = start + sum(common[:number])
        frame[at : at + part.nbytes] = part
        one_each.append(
            Parts(
                np.array([at], np.uint64),
                np.array([part.nbytes], np.uint32),
                np.array([kernels.crc32c(part)], np.uint32),
            )
        )
    each = list(map(Parts, offsets, sizes.astype(np.uint32), checksums))

    said = b"".join((prefix_bytes(start, 0), header, _table(one_each), _table(each)))
    frame[: len(said)] = np.frombuffer(said, np.uint8)
    frame[CHECKSUM_AT : PREFIX.size] = np.array([head_checksum(frame[:start])], "<u4").view(np.uint8)

    bounds = np.empty(segments + 1, np.uint64)
    bounds[0], bounds[1:] = first, first + (ends[:, -1] if ends.size else 0)
    shared_parts, own_parts = iter(one_each), iter(each)
    parts = tuple(next(shared_parts if kind.shared else own_parts) for kind in kinds)
    return frame, Head(
        described.spec, described.layout, described.values, nnz, negative_zeros, tuple(streams), parts, bounds, length,
        start,
    )  # fmt: skip


def _table(streams: list[Parts]) -> bytes:
    """Rows of the segment table: length and checksum of each part."""
    if not streams:
        return b""
    rows = np.empty((len(streams[0].lengths), len(streams), 2), "<u4")
    for number, parts in enumerate(streams):
        rows[:, number, 0], rows[:, number, 1] = parts.lengths, parts.checksums
    return rows.tobytes()


def restated(head: Head, data: np.ndarray, shape: tuple[int, ...], row_dims: int) -> tuple[np.ndarray, Head]:
    """The same parts in a frame whose head gives another shape with the same matrix view."""
    own = [number for number, kind in enumerate(head.kinds) if not kind.shared]
    common = [part for part, kind in zip(head.parts, head.kinds, strict=True) if kind.shared]
    shared = [data[int(part.offsets[0]) : int(part.offsets[0]) + int(part.lengths[0])] for part in common]
    sizes = np.array([head.parts[number].lengths for number in own], np.uint64).reshape(len(own), -1)

    def copy(frame: np.ndarray, offsets: np.ndarray, checksums: np.ndarray) -> None:
        if offsets.size:
            begin, end = int(head.bounds[0]), int(head.bounds[-1])
            start = int(offsets[0, 0])
            frame[start : start + end - begin] = data[begin:end]
        for row, number in enumerate(own):
            checksums[row] = head.parts[number].checksums

    spec = replace(head.spec, shape=shape, row_dims=row_dims)
    described = Description(spec, head.layout, head.values)
    return build(described, head.nnz, head.negative_zeros, head.streams, sizes, shared, copy)
