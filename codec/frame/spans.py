"""The parts of one frame, in memory or read on demand, as views that the kernels can walk."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from codec import kernels
from codec.entropy import CODINGS, NONE
from codec.errors import ArgumentError, FormatError
from codec.frame.head import Head, part_alignment
from codec.frame.memory import with_slack
from codec.kernels import SLACK, StreamParts, View

# Dense bytes of the segments whose parts are held decoded at a time, for codings that are decoded ahead of the kernels.
_HELD = 1 << 20

# (offset, length) -> that many bytes of the frame, and up to SLACK more that are there to be read
Fetch = Callable[[int, int], np.ndarray]


class Spans:
    """Views of ranges of segments of one frame.

    ``checked`` holds a flag per segment, set once its checksums were found right. ``memory`` is what holds the frame,
    or None where its parts are read on demand.
    """

    def __init__(self, head: Head, fetch: Fetch, *, checked: bool, memory: np.ndarray | None) -> None:
        self.head = head
        self._fetch = fetch
        self._memory = memory
        self.checked = np.full(head.grid.segments, checked, np.uint8)
        self._shared = [kind.shared for kind in head.kinds]
        coders = [None if s.coding == NONE else CODINGS[s.coding].coder(s.state) for s in head.streams]
        self._coders = coders
        # The streams whose parts the kernels cannot decode.
        self._ahead = [n for n, s in enumerate(head.streams) if s.coding != NONE and coders[n] is None]
        # In memory one view of everything serves all calls.
        self._whole = self._view(0, self._streams(0, head.grid.segments), self.checked) if memory is not None else None
        # What products have found out about this frame: by the dtype of x and whether they are of the transpose
        # (codec.products.direct), and by the dtype of the sums of a convolution in groups (codec.convolution).
        self.products: dict[Any, Any] = {}

    @property
    def whole(self) -> View | None:
        """One view of all segments that takes no memory of its own, where there is one."""
        return None if self._ahead else self._whole

    @property
    def bounded(self) -> bool:
        """Whether a view of all segments would take memory of its own."""
        return self._whole is None or bool(self._ahead)

    def _streams(self, first: int, last: int) -> list[StreamParts]:
        """The parts of segments [first, last) as they are stored, all of them in one range of the frame."""
        bounds, start = self.head.bounds, self.head.data_start
        begin, end = int(bounds[first]), int(bounds[last])
        own = self._fetch(begin, end - begin)
        common = self._fetch(start, int(bounds[0]) - start) if any(self._shared) else own
        streams: list[StreamParts] = []
        for parts, coder, shared in zip(self.head.parts, self._coders, self._shared, strict=True):
            part = slice(0, 1) if shared else slice(first, last)
            base, buffer = (start, common) if shared else (begin, own)
            offsets = parts.offsets[part] - np.uint64(base)
            streams.append((buffer, offsets, parts.lengths[part], parts.checksums[part], coder, shared))
        return streams

    def _view(self, first: int, streams: list[StreamParts], checked: np.ndarray | None) -> View:
        head = self.head
        return kernels.backend.view(
            head.grid,
            head.layout.number,
            head.element.width,
            head.layout.native(),
            first,
            streams,
            checked,
            head.values.native(head.layout, head.element),
            part_alignment(head.layout),
        )

    def view(self, first: int, last: int, threads: int, *, always: bool = False) -> View:
        """One view of segments [first, last), with all their parts in memory, decoded where the kernels cannot.

        The checksums of parts that are decoded here are compared first (with ``always`` again); those of the others
        are compared by the kernels.
        """
        if not self._ahead:
            return self._whole or self._view(first, self._streams(first, last), self.checked[first:last])
        streams = self._streams(first, last)
        self.raise_for(self._check_ahead(first, streams, threads, always))
        return self._view_ahead(first, streams, threads)

    def _check_ahead(self, first: int, streams: list[StreamParts], threads: int, always: bool) -> kernels.Result:
        """Compare the checksums of the segments from ``first`` on, where that is still to be done."""
        last = first + max(len(offsets) for _, offsets, *_ in streams)
        checked = self.checked[first:last]
        if not always and checked.all():
            return (0, 0, 0, 0, 0)
        result = self._view(first, streams, checked).check(first, last, threads)
        checked[: last - first if not result[0] else max(0, result[1] - first)] = 1
        return result

    def _view_ahead(self, first: int, streams: list[StreamParts], threads: int) -> View:
        """A view of streams whose checksums are right, decoded where the kernels cannot."""
        for number in self._ahead:
            streams[number] = self._decoded(number, streams[number], first, threads)
        return self._view(first, streams, None)

    def views(self, first: int, last: int, threads: int, *, always: bool = False) -> Iterator[tuple[View, int, int]]:
        """(view, first, last) for consecutive ranges that together are segments [first, last).

        Where parts have to be decoded ahead of the kernels, a range is short enough to hold about a MiB of dense
        elements, or a segment for each thread.
        """
        if not self._ahead:
            yield self.view(first, last, threads, always=always), first, last
            return
        grid = self.head.grid
        dense = max(1, grid.segment_rows * grid.segment_cols * self.head.element.width)
        step = max(1, threads, _HELD // dense)
        for begin in range(first, last, step):
            end = min(begin + step, last)
            streams = self._streams(begin, end)
            result = self._check_ahead(begin, streams, threads, always)
            if result[0] and result[1] > begin:  # what is wrong in the segments before comes first (spec section 4.4)
                yield self.view(begin, result[1], threads), begin, result[1]
            self.raise_for(result)
            yield self._view_ahead(begin, streams, threads), begin, end

    def _decoded(self, number: int, stream: StreamParts, first: int, threads: int) -> StreamParts:
        """A stream with its parts out of a coding that the kernels do not have."""
        buffer, offsets, lengths, checksums, _, shared = stream
        parts = [buffer[int(at) : int(at) + int(n)] for at, n in zip(offsets, lengths, strict=True)]
        head, coded = self.head, self.head.streams[number]
        limit = head.layout.part_limit(head.grid, head.values.width(head.element))
        try:
            found, begins, sizes = CODINGS[coded.coding].expand(parts, limit, threads)
        except FormatError as error:
            segment = first + (error.offset or 0)
            at = int(head.parts[number].offsets[segment])
            raise FormatError(f"segment {segment}: {error.message}", stream=coded.name, offset=at) from None
        return found, begins, sizes, checksums, None, shared

    def shared(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The items of a stream that all segments share and that has no coding, its checksum compared."""
        number = self.head.names.index(name)
        parts = self.head.parts[number]
        length = int(parts.lengths[0])
        data = self._fetch(int(parts.offsets[0]), length)[:length]
        found, expected = kernels.crc32c(np.ascontiguousarray(data)), int(parts.checksums[0])
        self.raise_for((int(found != expected), 0, number, found, expected))
        return np.frombuffer(data.tobytes(), dtype)

    def raise_for(self, result: kernels.Result) -> None:
        """Raise the error that a native result on one of our views stands for."""
        if result[0]:
            kernels.raise_for(result, self.head.names, [parts.offsets for parts in self.head.parts])

    def decode(self, first: int, count: int, out: np.ndarray, threads: int, *, always: bool = True) -> None:
        """Elements [first, first + count) in row-major order into ``out`` (uint8, contiguous)."""
        if not self.head.grid.segments:
            self._check_empty()
        if not count:
            return
        grid, width = self.head.grid, self.head.element.width
        begin, end = grid.segment_of(first), grid.segment_of(first + count - 1) + 1
        least = most = 0
        for view, low, high in self.views(begin, end, threads, always=always):
            start, stop = max(first, grid.start(low)), min(first + count, grid.start(high))
            result, fewest, all_items = view.decode(
                start, stop - start, out[(start - first) * width : (stop - first) * width], always, threads
            )
            self.raise_for(result)
            least, most = least + fewest, most + all_items
        if (begin, end) == (0, grid.segments):
            self.check_stored(least, most)

    def _check_empty(self) -> None:
        """The shared parts of a tensor without segments, which no kernel looks at: none has any bytes."""
        for number, (parts, shared) in enumerate(zip(self.head.parts, self._shared, strict=True)):
            if not shared:
                continue
            if parts.checksums[0] and not parts.lengths[0]:
                self.raise_for((1, 0, number, 0, int(parts.checksums[0])))
            self.shared(self.head.names[number], np.dtype(np.uint8))
            self.raise_for((3 if parts.lengths[0] else 0, 0, number, int(parts.lengths[0]), 0))

    def overlaps(self, out: np.ndarray) -> bool:
        """Whether writing to ``out`` could change the frame; bounds of memory decide, which costs nothing."""
        return self._memory is not None and np.may_share_memory(out, self._memory)

    def put(self, result: np.ndarray, out: np.ndarray) -> None:
        """Write a result that was made apart. Parts that this may change are no longer proved."""
        out[...] = result
        if self.overlaps(out):
            self.checked[:] = 0
            self.products.clear()

    def dense(self, threads: int) -> np.ndarray:
        """The whole tensor in a new array."""
        out = np.empty(self.head.shape, self.head.element.dtype)
        self.decode(0, self.head.grid.size, kernels.octets(out), threads)
        return out

    def check_stored(self, least: int, most: int) -> None:
        """Compare the entries found in all segments with the header's count (spec section 4.4)."""
        if not least <= self.head.nnz <= most:
            found = f"{least} stored entries" if least == most else f"{least} to {most} stored entries"
            raise FormatError(
                f"{found}, expected {self.head.nnz} as the header says: not written by codec",
                stream=[kind.name for kind in self.head.kinds if not kind.shared][-1],
            )

    def check(self, threads: int) -> None:
        """Compare every checksum, whatever was compared before."""
        segments = self.head.grid.segments
        view = self._whole or self._view(0, self._streams(0, segments), self.checked)
        self.raise_for(view.check(0, segments, threads))
        self.checked[:] = 1


class Packed(Protocol):
    """Whatever holds one frame: what products and conversions need of a PackedTensor."""

    @property
    def spans(self) -> Spans:
        """The frame's parts."""


def in_memory(head: Head, data: np.ndarray, *, checked: bool) -> Spans:
    """Spans of a parsed frame held as uint8 bytes."""
    readable = with_slack(data)
    return Spans(head, lambda offset, length: readable[offset : offset + length + SLACK], checked=checked, memory=data)


def on_demand(head: Head, read: Callable[[int, int], bytes | memoryview]) -> Spans:
    """Spans of a frame of which only the parts used are read; ``read(offset, length)`` returns exactly those bytes."""

    def fetch(offset: int, length: int) -> np.ndarray:
        buffer = np.zeros(length + SLACK, np.uint8)
        if length:
            buffer[:length] = np.frombuffer(read(offset, length), np.uint8)
        return buffer

    return Spans(head, fetch, checked=False, memory=None)


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """``out`` if a result of that shape and dtype can be written into it; ArgumentError otherwise."""
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        found = f"{out.dtype} array of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArgumentError(f"out is a {found}; expected a {dtype} array of shape {shape}")
    if not out.flags.writeable:
        raise ArgumentError("out is read-only; expected a writable array")
    return out
