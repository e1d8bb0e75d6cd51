"""How a frame is made: from an array, from CSR arrays, or from another frame. Layout stage, entropy stage, frame."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from codec import _native, kernels
from codec.choose import Wish, candidates, fastest, target
from codec.codebook import Quantiser, given_codebook
from codec.errors import ArgumentError
from codec.geometry import Grid
from codec.layouts import Counts, layout_named
from codec.source import Source, source_of
from codec.spans import Spans, in_memory
from codec.stats import TensorStats, stats_of, stats_of_spans
from codec.streams import Target, pack
from codec.valuecoding import RAW, ValueCoding, check_values

# A frame's bytes, and its parts.
Packing = tuple[np.ndarray, Spans]
# Makes a frame to be, of a layout and its parameters.
Aim = Callable[[Wish, str, Mapping[str, Any], Counts], Target]
# Runs the layout stage on native streams for a frame to be; returns the count of negative zeros.
Fill = Callable[[_native.Streams, Target], int]


def _best(wish: Wish, stats: Callable[[], TensorStats], nnz: int | None, to: Aim, fill: Fill, threads: int) -> Packing:
    """Make the frame that was wished for; of two candidates for "disk" the smaller."""
    if wish.layout != "auto":
        counts = stats().counts if wish.needs_stats else Counts(0)
        return _packed(to(wish, wish.layout, wish.params, counts), fill, threads)
    counted = stats() if wish.needs_stats or nnz is None else None
    if wish.needs_stats and counted is not None:
        exact = wish.stage == "none"
        frames = [_packed(t, fill, threads) for t in candidates(wish, counted, most=1 if exact else 2, to=to)]
        return min(frames, key=lambda frame: frame[0].nbytes)
    counts = counted.counts if counted is not None else Counts(nnz or 0)
    probe = to(wish, "dense", {}, counts)
    return _packed(to(wish, *fastest(counts.nnz, probe.grid), counts), fill, threads)


def _packed(to: Target, fill: Fill, threads: int) -> Packing:
    data, head = pack(to, fill, threads)
    data.flags.writeable = False
    return data, in_memory(head, data, checked=True)


def quantised(
    source: Source, layout: str, layout_params: Mapping[str, Any], *, values: Any, value_bits: Any, codebook: Any,
    codebook_rows: Any, codebook_start: Any,
) -> tuple[ValueCoding, Quantiser | None]:  # fmt: skip
    """The value coding that a caller of ``encode`` asks for, checked, and what makes its codes."""
    given = None if codebook is None or values != "codebook" else given_codebook(codebook, source.element)
    entries = None if given is None else given.shape[1]
    if given is not None and layout != "auto" and not (given == 0).any(axis=1).all():
        named = layout_named(layout)
        entries = given.shape[1] + int(named.zero_items(named.params(layout_params, source.grid)))
    coding = check_values(values, value_bits, codebook, codebook_rows, codebook_start, source.grid, entries)
    return coding, Quantiser(source, coding, start=codebook_start, given=given) if coding.bits else None


def pack_array(source: Source, wish: Wish, quantiser: Quantiser | None, threads: int) -> Packing:
    """A checked array as the frame that was wished for; with ``quantiser`` as codes."""

    def to(wish: Wish, name: str, params: Mapping[str, Any], counts: Counts) -> Target:
        return target(
            wish, name, params, dtype=source.element.dtype, shape=source.shape, row_dims=source.row_dims,
            grid=source.grid, zero=source.zero, counts=counts,
        )  # fmt: skip

    def fill(native: _native.Streams, to: Target) -> int:
        if quantiser is None:
            native.encode(source.dense, source.keep, threads)
            return int(native.dropped_negatives)
        book, codes, stored = quantiser.made(to.layout.name, zero_first=to.layout.zero_items(to.params))
        native.share(len(to.kinds) - 1, book)
        native.encode(codes, stored, threads)
        return quantiser.negative_zeros

    return _best(wish, lambda: stats_of(source, threads, *wish.asks), None, to, fill, threads)


def pack_csr(
    shape: tuple[int, int], starts: np.ndarray, indices: np.ndarray, items: np.ndarray, zero: str, threads: int
) -> Packing:
    """Proved CSR arrays (int64 starts and ascending indices) as a bitmap, without a dense copy."""
    # A row of no elements has the dtype, and the grid is the matrix's.
    element = source_of(np.zeros(0, items.dtype), zero=zero).element
    grid = Grid.default(*shape, element.width)

    def fill(native: _native.Streams, to: Target) -> int:
        native.encode_csr(starts, indices, kernels.octets(items), threads)
        return 0

    wish = Wish("bitmap", {}, "memory", "none")
    described: dict[str, Any] = {"dtype": items.dtype, "shape": shape, "row_dims": 1, "grid": grid, "zero": zero}
    return _packed(target(wish, "bitmap", {}, counts=Counts(0), **described), fill, threads)


def codebook_of(spans: Spans) -> np.ndarray | None:
    """A frame's codebooks, (groups, entries), in the order of the codes; None for raw values."""
    head = spans.head
    coding = head.values
    return spans.shared("codebook", head.element.dtype).reshape(-1, coding.entries) if coding.bits else None


def kept_values(spans: Spans, values: Any) -> ValueCoding:
    """The value coding that a frame keeps in another layout: its own, or "raw" if that was asked for."""
    own = spans.head.values
    if values not in (None, "raw", own.name) or not isinstance(values, str | None):
        raise ArgumentError(
            f'values={values!r}; expected "raw" or None (as it is): encode the dense tensor for a codebook'
        )
    return RAW if values == "raw" else own


def repack(spans: Spans, wish: Wish, threads: int) -> Packing:
    """A frame in another layout, segment by segment: never through a whole dense tensor."""
    head, book = spans.head, codebook_of(spans)

    def moves(to: Target) -> bool:
        """Whether code 0 is to become a zero that it is not here."""
        return to.layout.zero_items(to.params) and not head.layout.zero_items(head.params)

    def to(wish: Wish, layout: str, params: Mapping[str, Any], counts: Counts) -> Target:
        aim = target(
            wish, layout, params, dtype=head.element.dtype, shape=head.shape, row_dims=head.row_dims, grid=head.grid,
            zero=head.zero, counts=counts,
        )  # fmt: skip
        if not wish.values.bits or book is None or not moves(aim):
            return aim
        if not (book.view(head.element.unsigned)[:, -1] != 0).any():  # a code is left for the zero
            return aim
        if aim.values.bits < 8:
            return replace(aim, values=replace(aim.values, bits=aim.values.bits + 1))
        if wish.layout == "auto":
            return replace(aim, values=RAW)
        raise ArgumentError(
            f'all 256 codes are in use, and layout {layout} pads with a code of its own; take values="raw"'
        )

    def fill(native: _native.Streams, to: Target) -> int:
        codes = None
        if to.values.bits:
            assert book is not None
            moved, codes = _recoded(book, to.values.entries) if moves(to) else (book, np.arange(256, dtype=np.uint8))
            native.share(len(to.kinds) - 1, kernels.octets(moved))
        for view, first, last in spans.views(0, head.grid.segments, threads):
            spans.raise_for(native.transcode(view, first, last, threads, codes))
        spans.check_stored(native.stored)
        return head.negative_zeros

    return _best(wish, lambda: stats_of_spans(spans, threads, *wish.asks), head.nnz, to, fill, threads)


def _recoded(book: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Codebooks of so many entries whose first is 0, and what each code becomes."""
    same = np.arange(256, dtype=np.uint8)
    moved = np.zeros((len(book), entries), book.dtype)
    moved[:, 1 : book.shape[1] + 1] = book[:, : entries - 1]
    # The last entry is 0 where there is no room for it.
    return moved, np.where(same < entries - 1, same + np.uint8(1), np.uint8(0))
