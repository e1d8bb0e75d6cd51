"""The parts of one frame, in memory or read on demand, as views that the kernels can walk."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from codec import _native, kernels
from codec.entropy import zstd_decompress
from codec.errors import ArgumentError, FormatError
from codec.frame import Head

SLACK = 64  # kSlack in native/kernels.hpp: kernels read this far past the end of a part
# Dense bytes of the segments whose parts are held decompressed at a time.
_HELD = 1 << 20

# (offset, length) -> that many bytes of the frame and SLACK readable ones behind them
Fetch = Callable[[int, int], np.ndarray]
# Buffer, where parts begin in it (and the last ends), their checksums, the code that they are in, whether all segments
# share one part.
_Stream = tuple[np.ndarray, np.ndarray, np.ndarray, _native.Code | None, bool]


class Spans:
    """Views of ranges of segments of one frame.

    ``checked`` holds a flag per segment, set once its checksums were found right.
    """

    def __init__(self, head: Head, fetch: Fetch, *, checked: bool, in_memory: bool) -> None:
        self.head = head
        self._fetch = fetch
        self.checked = np.full(head.grid.segments, checked, np.uint8)
        self._codes = [kernels.native_code(s.code) if s.code else None for s in head.streams]
        self._shared = [kind.shared for kind in head.kinds]
        self._zstd = [s.coding == "zstd" for s in head.streams]
        # In memory one view of everything serves all calls.
        self._whole = self._stored(0, head.grid.segments) if in_memory else None

    def _stored(self, first: int, last: int) -> _native.View:
        """The parts as they are stored; where that is under zstandard, only their checksums can be compared."""
        return self._view(self._streams(first, last), self.checked)

    def _streams(self, first: int, last: int) -> list[_Stream]:
        streams = []
        table = zip(self.head.offsets, self.head.checksums, self._codes, self._shared, strict=True)
        for offsets, checksums, code, shared in table:
            begin, end = (int(offsets[0]), int(offsets[-1])) if shared else (int(offsets[first]), int(offsets[last]))
            streams.append((self._fetch(begin, end - begin), _clipped(offsets, begin, end), checksums, code, shared))
        return streams

    def _view(self, streams: list[_Stream], checked: np.ndarray | None) -> _native.View:
        head = self.head
        return kernels.view(
            head.grid,
            head.layout.code,
            head.element.width,
            head.layout.native(head.params),
            streams,
            checked,
            head.values.native(head.layout, head.params, head.element),
        )

    def views(
        self, first: int, last: int, threads: int, *, always: bool = False
    ) -> Iterator[tuple[_native.View, int, int]]:
        """(view, first, last) for consecutive ranges that together are segments [first, last).

        Streams under zstandard are decompressed a few segments at a time, after their checksums, into memory that the
        next range takes over: a view is good until the next one is asked for. The checksums of other streams are
        compared by the kernels.
        """
        if not any(self._zstd):
            yield self._whole or self._stored(first, last), first, last
            return
        grid = self.head.grid
        most = max(1, _HELD // max(1, grid.segment_rows * grid.segment_cols * self.head.element.width))
        rooms: list[np.ndarray] = [np.zeros(0, np.uint8)] * len(self._zstd)
        for begin in range(first, last, most):
            end = min(begin + most, last)
            streams = self._streams(begin, end)
            if always or not self.checked[begin:end].all():
                self.raise_for(self._view(streams, self.checked).check(begin, end, threads))
                self.checked[begin:end] = 1
            for number in (n for n, under in enumerate(self._zstd) if under):
                streams[number] = self._decompressed(number, streams[number], begin, end, rooms[number])
                rooms[number] = streams[number][0]
            yield self._view(streams, None), begin, end

    def _decompressed(self, number: int, stream: _Stream, first: int, last: int, room: np.ndarray) -> _Stream:
        """A stream's parts of segments [first, last) out of zstandard, in ``room`` or, where that is small, in more."""
        grid = self.head.grid
        # No stream takes more than 16 bytes for each element and a pointer for each row.
        most = 16 * grid.segment_rows * grid.segment_cols + 4 * (grid.segment_rows + 1)
        stored, bounds, checksums, _, shared = stream  # shared streams have no coding
        used = 0
        offsets = np.zeros(grid.segments + 1, np.uint64)
        for segment in range(first, last):
            try:
                part = zstd_decompress(stored.data[int(bounds[segment]) : int(bounds[segment + 1])], most)
            except FormatError as error:
                at = int(self.head.offsets[number][segment])
                raise FormatError(
                    f"segment {segment}: {error.message}", stream=self.head.names[number], offset=at
                ) from None
            if used + len(part) + SLACK > len(room):
                room = np.concatenate([room[:used], np.zeros((last - segment) * len(part) + SLACK, np.uint8)])
            room[used : used + len(part)] = np.frombuffer(part, np.uint8)
            used += len(part)
            offsets[segment + 1] = used
        offsets[last + 1 :] = used
        if not len(room):
            room = np.zeros(SLACK, np.uint8)
        return room, offsets, checksums, None, shared

    def shared(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The items of a stream that all segments share and that has no coding, its checksum compared."""
        number = self.head.names.index(name)
        offsets = self.head.offsets[number]
        data = self._fetch(int(offsets[0]), self.head.streams[number].length)[: self.head.streams[number].length]
        if len(data):
            found, expected = kernels.crc32c(np.ascontiguousarray(data)), int(self.head.checksums[number][0])
            self.raise_for((int(found != expected), 0, number, found, expected))
        return np.frombuffer(data.tobytes(), dtype)

    def raise_for(self, result: tuple[int, int, int, int, int]) -> None:
        """Raise the error that a native result on one of our views stands for."""
        if result[0]:
            kernels.raise_for(result, self.head.names, self.head.offsets)

    def decode(self, first: int, count: int, out: np.ndarray, threads: int, *, always: bool = True) -> None:
        """Elements [first, first + count) in row-major order into ``out`` (uint8, contiguous)."""
        if not count:
            return
        grid, width = self.head.grid, self.head.element.width
        begin, end = grid.segment_of(first), grid.segment_of(first + count - 1) + 1
        stored = 0
        for view, low, high in self.views(begin, end, threads, always=always):
            start, stop = max(first, grid.start(low)), min(first + count, grid.start(high))
            result, entries = view.decode(
                start, stop - start, out[(start - first) * width : (stop - first) * width], always, threads
            )
            self.raise_for(result)
            stored += entries
        if (begin, end) == (0, grid.segments):
            self.check_stored(stored)

    def dense(self, threads: int) -> np.ndarray:
        """The whole tensor in a new array."""
        out = np.empty(self.head.shape, self.head.element.dtype)
        self.decode(0, self.head.grid.size, kernels.octets(out), threads)
        return out

    def check_stored(self, found: int) -> None:
        """Compare the entries found in all segments with the header's count (a padded layout does not tell)."""
        if found != self.head.nnz and not self.head.layout.padded(self.head.params):
            raise FormatError(
                f"{found} stored entries, expected {self.head.nnz} as the header says: not written by codec",
                stream=[name for name in self.head.names if name != "codebook"][-1],
            )

    def check(self, threads: int) -> None:
        """Compare every checksum, whatever was compared before."""
        segments = self.head.grid.segments
        self.raise_for((self._whole or self._stored(0, segments)).check(0, segments, threads))
        self.checked[:] = 1


class Packed(Protocol):
    """Whatever holds one frame: what products and conversions need of a PackedTensor."""

    @property
    def spans(self) -> Spans:
        """The frame's parts."""


def _clipped(offsets: np.ndarray, begin: int, end: int) -> np.ndarray:
    clipped: np.ndarray = np.clip(offsets, np.uint64(begin), np.uint64(end)) - np.uint64(begin)
    return clipped


def in_memory(head: Head, data: np.ndarray, *, checked: bool) -> Spans:
    """Spans of a parsed frame held as uint8 bytes; its zero tail is the slack of its last part."""
    return Spans(head, lambda offset, length: data[offset : offset + length + SLACK], checked=checked, in_memory=True)


def on_demand(head: Head, read: Callable[[int, int], bytes | memoryview]) -> Spans:
    """Spans of a frame of which only the parts used are read; ``read(offset, length)`` returns exactly those bytes."""

    def fetch(offset: int, length: int) -> np.ndarray:
        buffer = np.zeros(length + SLACK, np.uint8)
        if length:
            buffer[:length] = np.frombuffer(read(offset, length), np.uint8)
        return buffer

    return Spans(head, fetch, checked=False, in_memory=False)


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """``out`` if a result of that shape and dtype can be written into it; ArgumentError otherwise."""
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        found = f"{out.dtype} array of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArgumentError(f"out is a {found}; expected a {dtype} array of shape {shape}")
    if not out.flags.writeable:
        raise ArgumentError("out is read-only; expected a writable array")
    return out
