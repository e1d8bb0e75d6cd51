"""Writing frames: the layout stage, the entropy stage on its streams, and the frame around them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codec import kernels
from codec.elements import Pieces, elements_of
from codec.encoding.choose import plans_for
from codec.encoding.request import EncodeRequest, FramePlan
from codec.encoding.sources import ArraySource, CodebookSource, FrameSource, PiecesSource, Source
from codec.entropy import CODINGS, NONE, Items, KeyCounts
from codec.errors import ArgumentError
from codec.frame import Spans, StreamHead, build, in_memory, predicted_size
from codec.frame.head import padded
from codec.layouts import StreamKind
from codec.matrix import TensorSpec
from codec.values.codebook import Quantiser

# A frame's bytes, and its parts.
Packing = tuple[np.ndarray, Spans]


@dataclass(frozen=True)
class Made:
    """An array that is made for packing alone: its memory is free as soon as its elements have been read."""

    make: Callable[[], np.ndarray]


def pack(source: Source, request: EncodeRequest, threads: int) -> Packing:
    """The frame that answers a request: of several plans the one that came out smallest."""
    first, *others = plans_for(request, source)
    best = make_frame(first, source, threads)
    assert best is not None
    for plan in others:
        if source.release():  # as it was when the first frame was made: that holds all that it held
            source = FrameSource(best[1], threads)
        # A frame that is not smaller is not made: it would double the memory of what is kept.
        best = make_frame(plan, source, threads, best[0].nbytes) or best
    return best


def pack_array(
    a: Any,
    *,
    layout: Any = "auto",
    objective: Any = "disk",
    entropy: Any = "auto",
    values: Any = "raw",
    value_bits: Any = None,
    codebook: Any = None,
    codebook_rows: Any = None,
    codebook_start: Any = None,
    zero: Any = "value",
    mask: Any = None,
    row_dims: Any = None,
    batch: Any = None,
    threads: int | None = None,
    **layout_params: Any,
) -> Packing:
    """An array, one that is `Made`, or `Pieces`, as a frame; the arguments are those of ``codec.encode``."""
    count, ours = kernels.thread_count(threads), isinstance(a, Made)
    request = EncodeRequest.of(layout, layout_params, objective, entropy, batch=batch)
    book = {"value_bits": value_bits, "codebook": codebook, "rows": codebook_rows, "start": codebook_start}
    raw = isinstance(values, str) and values == "raw" and all(one is None for one in book.values())
    if isinstance(a, Pieces):
        if raw and mask is None:
            spec = TensorSpec.of(a.dtype, a.shape, row_dims=row_dims, zero=zero)
            return pack(PiecesSource(spec, a, count), request, count)
        a = a.read(0, a.size).reshape(a.shape)
    tensor = elements_of(a.make() if ours else a, zero=zero, mask=mask, row_dims=row_dims)
    if raw:
        source = ArraySource(tensor, count, ours=ours)
        del tensor
        return pack(source, request, count)
    quantiser = Quantiser.of(tensor, request.layout, values, *book.values())
    request = replace(request, values=quantiser.coding)
    return pack(CodebookSource(tensor, quantiser, count), request, count)


def make_frame(plan: FramePlan, source: Source, threads: int, least: int | None = None) -> Packing | None:
    """One planned frame; None where it would not take fewer bytes than ``least``."""
    spec, layout, kinds, values = plan.spec, plan.layout, plan.kinds, plan.values
    grid = spec.grid
    native = kernels.Streams(
        grid.rows, grid.cols, grid.segment_rows, grid.segment_cols, values.width(spec.element),
        255 if values.bits else spec.nonzero_bits, 0 if values.bits else spec.negative, layout.number, layout.native(),
        len(kinds),
    )  # fmt: skip
    for number, kind in enumerate(kinds):
        if kind.name in plan.shared:
            native.share(number, kernels.octets(plan.shared[kind.name]))
    negative_zeros = source.fill(native, plan, threads)
    source.release()
    if native.refused is not None:
        segment, position, found = native.refused
        at = grid.place(segment)
        row, col = at.row + position // at.cols, at.col + position % at.cols
        raise ArgumentError(f"row {row}, column {col}: {layout.refusal(found)}")
    own = [number for number, kind in enumerate(kinds) if not kind.shared]
    coded = {number: _code(_Raw(native, number, kinds[number], grid.segments, threads), plan) for number in own}
    sizes = np.array([_sizes(native, number, grid.segments) for number in own], np.uint64).reshape(len(own), -1)
    shared = {n: np.frombuffer(native.part(0, n), np.uint8) for n, kind in enumerate(kinds) if kind.shared}
    lengths = {**dict(zip(own, map(int, sizes.sum(axis=1)), strict=True)), **{n: len(p) for n, p in shared.items()}}
    streams = [StreamHead(kind.name, lengths[number], *coded.get(number, ())) for number, kind in enumerate(kinds)]
    if least is not None:
        parts = [*sizes.astype(np.int64).reshape(-1), *map(len, shared.values())]
        total = int(padded(np.array(parts, np.int64), layout).sum())
        if predicted_size(plan, native.stored, negative_zeros, streams, total) >= least:
            return None

    def copy(buffer: np.ndarray, offsets: np.ndarray, checksums: np.ndarray) -> None:
        if not shared:
            native.move(buffer, offsets.reshape(-1), checksums.reshape(-1), threads)
            return
        # The kernels number all streams, and leave the shared ones alone.
        places, found = (
            np.zeros((len(kinds), grid.segments), np.uint64),
            np.zeros((len(kinds), grid.segments), np.uint32),
        )
        places[own] = offsets
        native.move(buffer, places.reshape(-1), found.reshape(-1), threads)
        checksums[:] = found[own]

    data, head = build(plan, native.stored, negative_zeros, streams, sizes, list(shared.values()), copy)
    data.flags.writeable = False
    return data, in_memory(head, data, checked=True)


def _sizes(native: kernels.Streams, number: int, segments: int) -> np.ndarray:
    sizes = np.zeros(segments, np.uint64)
    native.sizes(number, sizes)
    return sizes


def _code(stream: "_Raw", plan: FramePlan) -> tuple[str, Any]:
    """Put a stream through the entropy stage: the coding that makes it smallest, and its state."""
    allowed = plan.allowed(stream.kind)
    if allowed == (NONE,):
        stream.finish()
        return NONE, None
    least = stream.nbytes if NONE in allowed else None
    chosen, best = NONE, None
    for name in allowed:
        attempt = CODINGS[name].attempt(stream, least) if name != NONE else None
        if attempt is not None and (least is None or attempt.nbytes < least):
            chosen, best, least = name, attempt, attempt.nbytes
    if best is None:
        stream.finish()
        return NONE, None
    best.apply()
    return chosen, best.state


class _Raw:
    """A stream as the layout stage left it (`codec.entropy.RawStream`)."""

    def __init__(self, native: kernels.Streams, number: int, kind: StreamKind, parts: int, threads: int) -> None:
        self._native, self._number, self.kind, self.parts, self.threads = native, number, kind, parts, threads
        self._counts: KeyCounts | None = None

    @property
    def items(self) -> Items:
        return self.kind.items

    @property
    def nbytes(self) -> int:
        bits, sizes = self.items.bits, _sizes(self._native, self._number, self.parts).astype(np.int64)
        return int((-(-sizes * bits // 8) if bits else sizes).sum())

    def key_counts(self) -> KeyCounts:
        if self._counts is None:
            self._counts = self._count_keys()
        return self._counts

    def _count_keys(self) -> KeyCounts:
        width, kind = self.items.width, kernels.kind_code(self.items.kind)
        ranged = width > 2 and self.items.kind != "float"
        least, most = self._native.key_range(self._number, width, kind) if ranged else (0, 0)
        shift, first, bins = KeyCounts.bins(self.items, least, most)
        counts = np.zeros(bins, np.uint64)
        return KeyCounts(counts, shift, first, self._native.histogram(self._number, width, kind, shift, first, counts))

    def part(self, number: int) -> Any:
        part = self._native.part(number, self._number)
        return _pack_bits(part, self.items.bits) if self.items.bits else part

    def code(self, coder: Any) -> None:
        self._native.code(self._number, coder, self.threads)

    def replace(self, parts: Sequence[bytes]) -> None:
        for number, part in enumerate(parts):
            self._native.set_part(number, self._number, part)

    def finish(self) -> None:
        """Leave the stream without a coding: codes of less than a byte are packed."""
        if self.items.bits:
            self._native.pack_bits(self._number, self.items.bits, self.threads)


def _pack_bits(codes: Any, bits: int) -> bytes:
    """Codes of a byte each as codes of ``bits``, least significant bit first."""
    flags = np.frombuffer(codes, np.uint8)[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(flags.reshape(-1), bitorder="little").tobytes()
