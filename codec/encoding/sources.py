"""Where a tensor to encode comes from: an array, codes of an array, CSR arrays, or another frame."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from codec import kernels
from codec.elements import TOGETHER, Elements, Pieces
from codec.encoding.request import FramePlan
from codec.errors import ArgumentError
from codec.frame import Spans
from codec.layouts import Layout
from codec.layouts.base import PARTS, Needs
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, Tallied, count, count_all
from codec.values import RAW, ValueCoding
from codec.values.codebook import Quantiser


class Source(Protocol):
    """A tensor that can be counted and written in any layout."""

    @property
    def spec(self) -> TensorSpec:
        """What it is, in the segments that every layout takes by default."""

    @property
    def nnz(self) -> int:
        """Stored entries."""

    @property
    def negative_zeros(self) -> int:
        """Elements that were -0.0 and are not stored."""

    def count(self, needs: Mapping[Grid, Needs]) -> None:
        """Count ahead, in as few passes as there can be, what ``counts`` is going to be asked for."""

    def counts(self, needs: Needs, grid: Grid) -> Counts:
        """Statistics of the tensor in the segments of ``grid``; what was counted before is not counted again."""

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """What the values become in a layout; ``named`` if a caller named it."""

    def fill(self, streams: kernels.Streams, plan: FramePlan, threads: int) -> int:
        """Run the layout stage; returns how many elements were -0.0 and are not stored."""

    def release(self) -> bool:
        """Give up memory that nobody else holds; whether it is given up, and nothing is left to fill streams from."""


class _Counting(ABC):
    """A source whose elements are counted when that is asked for, once for each statistic and grid.

    It holds no reference to itself: a large array is freed as soon as it is packed.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self._known: dict[Grid, Tallied] = {}

    def release(self) -> bool:
        """Others hold it."""
        return False

    @abstractmethod
    def _run(self, requests: list[Any], grid: Grid) -> tuple[kernels.Result, int]:
        """Count natively; returns the result and the elements that were -0.0 and are not stored."""

    def count(self, needs: Mapping[Grid, Needs]) -> None:
        """In one pass, where one cut tells of the others."""
        self._known |= count_all(self._run, needs, self.spec.element, self._known.values())

    def counts(self, needs: Needs, grid: Grid) -> Tallied:
        """As counted."""
        known = self._known.get(grid)
        if known is None or not needs <= known.needs:
            asked = needs if known is None else needs | known.needs
            known = count(self._run, asked, self.spec.element, grid, self._known.values())
            self._known[grid] = known
        return known


class ArraySource(_Counting):
    """An array's elements. With ``ours`` nobody else holds them."""

    def __init__(self, tensor: Elements, threads: int, *, ours: bool = False) -> None:
        super().__init__(tensor.spec)
        self._tensor = tensor
        self._threads = threads
        self._ours = ours

    def release(self) -> bool:
        """The elements, where a frame of any layout holds all that they say: not which zeros a mask keeps."""
        given_up = self._ours and self._tensor.keep is None
        if given_up:
            self._tensor = Elements(self.spec, np.empty(0, np.uint8))
        return given_up

    def _ranges(self, grid: Grid) -> Iterator[tuple[np.ndarray, np.ndarray | None, int, int]]:
        """(data, keep, first, last): elements of segments [first, last) of a grid, in turn."""
        yield self._tensor.data, self._tensor.keep, 0, grid.segments

    def _run(self, requests: list[Any], grid: Grid) -> tuple[kernels.Result, int]:
        spec, cut = self.spec, (grid.rows, grid.cols, grid.segment_rows, grid.segment_cols)
        result, negative_zeros = (0, 0, 0, 0, 0), 0
        for data, keep, first, last in self._ranges(grid):
            result, found = kernels.count(
                data, keep, *cut, spec.element.width, spec.nonzero_bits, spec.negative, requests, self._threads, first,
                last,
            )  # fmt: skip
            if result[0]:
                break
            negative_zeros += found
        return result, negative_zeros

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.counts(PARTS, self.spec.grid).nnz

    @property
    def negative_zeros(self) -> int:
        """As counted."""
        return self.counts(PARTS, self.spec.grid).negative_zeros

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """Elements as they are."""
        return RAW

    def fill(self, streams: kernels.Streams, plan: FramePlan, threads: int) -> int:
        """From the dense elements."""
        for data, keep, first, last in self._ranges(plan.spec.grid):
            streams.encode(data, keep, threads, first, last)
        return int(streams.dropped_negatives)


class PiecesSource(ArraySource):
    """Elements that are made whenever they are looked at, and never all at once."""

    def __init__(self, spec: TensorSpec, pieces: Pieces, threads: int) -> None:
        super().__init__(Elements(spec, np.empty(0, np.uint8)), threads)
        self._pieces = pieces

    def _ranges(self, grid: Grid) -> Iterator[tuple[np.ndarray, np.ndarray | None, int, int]]:
        """So many whole segments at a time as hold about a million elements, one at least."""
        step = max(1, TOGETHER // max(1, grid.segment_rows * grid.segment_cols))
        for first in range(0, grid.segments, step):
            last = min(first + step, grid.segments)
            start = grid.start(first)
            yield kernels.octets(self._pieces.read(start, grid.start(last) - start)), None, first, last


class CodebookSource(ArraySource):
    """An array's elements as codes of a codebook."""

    def __init__(self, tensor: Elements, quantiser: Quantiser, threads: int) -> None:
        super().__init__(tensor, threads)
        self._quantiser = quantiser

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """The codes that were asked for."""
        return asked.on(self.spec.grid)

    def fill(self, streams: kernels.Streams, plan: FramePlan, threads: int) -> int:
        """From codes of a byte each."""
        layout = plan.layout
        book, codes, stored = self._quantiser.made(layout.name, zero_first=layout.zero_items)
        streams.share(len(plan.kinds) - 1, book)
        streams.encode(codes, stored, threads)
        return self._quantiser.negative_zeros


class CsrSource:
    """Proved CSR arrays: ``starts`` and ascending ``indices`` (int64), and their values. Every value is stored."""

    def __init__(self, spec: TensorSpec, starts: np.ndarray, indices: np.ndarray, values: np.ndarray) -> None:
        self.spec = spec
        self.nnz = len(values)
        self.negative_zeros = 0
        self._arrays = starts, indices, kernels.octets(values)

    def count(self, needs: Mapping[Grid, Needs]) -> None:
        """Nothing: the count of entries is known."""

    def counts(self, needs: Needs, grid: Grid) -> Counts:
        """The count of entries alone: layout csr, in which these arrays are packed first, needs no other."""
        return Counts(self.nnz)

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """Elements as they are."""
        return RAW

    def fill(self, streams: kernels.Streams, plan: FramePlan, threads: int) -> int:
        """Straight into segments, without a dense copy."""
        streams.encode_csr(*self._arrays, threads)
        return 0

    def release(self) -> bool:
        """Others hold them."""
        return False


class FrameSource(_Counting):
    """Another frame, read segment by segment: never through a whole dense tensor."""

    def __init__(self, spans: Spans, threads: int) -> None:
        head = spans.head
        rows, cols = head.grid.rows, head.grid.cols
        super().__init__(head.spec.cut(Grid.default(rows, cols)))
        self.nnz, self.negative_zeros = head.nnz, head.negative_zeros
        self._spans, self._threads = spans, threads

    @cached_property
    def book(self) -> np.ndarray | None:
        """The codebooks, (groups, entries), in the order of the codes; None for raw values."""
        head, coding = self._spans.head, self._spans.head.values
        return self._spans.shared("codebook", head.element.dtype).reshape(-1, coding.entries) if coding.bits else None

    def _run(self, requests: list[Any], grid: Grid) -> tuple[kernels.Result, int]:
        for view, first, last in self._ranges(grid):
            self._spans.raise_for(
                view.count(first, last, grid.segment_rows, grid.segment_cols, requests, self._threads)
            )
        return (0, 0, 0, 0, 0), self.negative_zeros

    def _ranges(self, grid: Grid) -> Any:
        """(view, first, last): views of the frame, each with what segments [first, last) of another grid hold."""
        spans, head = self._spans, self._spans.head
        if not grid.segments:
            return
        if not spans.bounded:
            yield spans.view(0, head.grid.segments, self._threads), 0, grid.segments
            return
        step = max(1, self._threads)
        for first in range(0, grid.segments, step):
            last = min(first + step, grid.segments)
            begin = head.grid.segment_of(grid.start(first))
            end = head.grid.segment_of(grid.start(last) - 1) + 1
            yield spans.view(begin, end, self._threads), first, last

    def values(self, layout: Layout, asked: ValueCoding, *, named: bool) -> ValueCoding:
        """The frame's codes, with one bit more where the layout reserves a code for zeros and none is left."""
        coding = asked.on(self.spec.grid)
        if not coding.bits or self.book is None or not self._reserves(layout):
            return coding
        if not (self.book.view(self.spec.element.unsigned)[:, -1] != 0).any():
            return coding
        if coding.bits < 8:
            return replace(coding, bits=coding.bits + 1)
        if not named:
            return RAW
        raise ArgumentError(
            f'all 256 codes are in use, and layout {layout.name} pads with a code of its own; take values="raw"'
        )

    def _reserves(self, layout: Layout) -> bool:
        """Whether the layout must reserve code 0 for zeros while the frame's layout does not."""
        return layout.zero_items and not self._spans.head.layout.zero_items

    def fill(self, streams: kernels.Streams, plan: FramePlan, threads: int) -> int:
        """Segment by segment of the new frame, whatever the segments of the old one."""
        codes = None
        if plan.values.bits and self.book is not None:
            moved, codes = (
                _recoded(self.book, plan.values.entries)
                if self._reserves(plan.layout)
                else (self.book, np.arange(256, dtype=np.uint8))
            )
            streams.share(len(plan.kinds) - 1, kernels.octets(moved))
        for view, first, last in self._ranges(plan.spec.grid):
            self._spans.raise_for(streams.transcode(view, first, last, threads, codes))
        return self.negative_zeros


def _recoded(book: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Codebooks of so many entries whose first is 0, and what each code becomes."""
    same = np.arange(256, dtype=np.uint8)
    moved = np.zeros((len(book), entries), book.dtype)
    moved[:, 1 : book.shape[1] + 1] = book[:, : entries - 1]
    # The last entry is 0 where there is no room for it.
    return moved, np.where(same < entries - 1, same + np.uint8(1), np.uint8(0))
