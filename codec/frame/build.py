"""Making a frame around parts: where each goes, the table that says so, and the head (spec section 4)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from codec import kernels
from codec.frame.head import (
    ALIGNMENT,
    CHECKSUM_AT,
    PART_ALIGNMENT,
    PREFIX,
    Description,
    Head,
    Parts,
    StreamHead,
    align,
    data_start,
    head_checksum,
    header_bytes,
    prefix_bytes,
    row_type,
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
    start = data_start(len(header), table_bytes(described.kinds, described.spec.grid.segments), parts)
    return int(align(start + parts)) + ALIGNMENT


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
    kinds, segments = described.kinds, described.spec.grid.segments
    header, table = header_bytes(described, nnz, negative_zeros, streams), table_bytes(described.kinds, segments)
    common = np.array([part.nbytes for part in shared], np.int64)
    before, padded = align(common, PART_ALIGNMENT), align(sizes.astype(np.int64), PART_ALIGNMENT)
    start = data_start(len(header), table, int(before.sum() + padded.sum()))
    common_offsets = start + np.cumsum(before) - before
    bounds = start + int(before.sum()) + np.concatenate(([0], np.cumsum(padded.sum(axis=0))))
    length = int(align(int(bounds[-1]))) + ALIGNMENT

    frame = aligned(length, start, zeros=True)  # the first part begins on a cache line
    offsets = np.ascontiguousarray(bounds[:-1] + np.cumsum(padded, axis=0) - padded, np.uint64)
    checksums = np.zeros(offsets.shape, np.uint32)
    write(frame, offsets, checksums)
    for part, offset in zip(shared, common_offsets, strict=True):
        frame[offset : offset + part.nbytes] = part
    common_checksums = np.array([kernels.crc32c(part) for part in shared], np.uint32)

    head = [prefix_bytes(start, 0), header]
    for count, lengths, crcs in (
        (len(shared), common[:, None], common_checksums[:, None]),
        (len(sizes), sizes, checksums),
    ):
        if count:
            rows = np.zeros(lengths.shape[1], row_type(count))
            rows["part"][:, :, 0], rows["part"][:, :, 1] = lengths.T, crcs.T
            head.append(rows.tobytes())
    said = b"".join(head)
    frame[: len(said)] = np.frombuffer(said, np.uint8)
    frame[CHECKSUM_AT : PREFIX.size] = np.array([head_checksum(frame[:start])], "<u4").view(np.uint8)

    own = map(Parts, offsets, sizes.astype(np.uint32), checksums)
    one_each = map(
        Parts,
        common_offsets.astype(np.uint64)[:, None],
        common.astype(np.uint32)[:, None],
        common_checksums[:, None],
    )
    parts = tuple(next(one_each) if kind.shared else next(own) for kind in kinds)
    return frame, Head(
        described.spec, described.layout, described.values, nnz, negative_zeros, tuple(streams), parts,
        bounds.astype(np.uint64), length, start,
    )  # fmt: skip


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
