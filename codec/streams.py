"""One tensor's streams on their way into a frame: layout stage, entropy stage, frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from codec import _native, frame, kernels
from codec.entropy import (
    PART_OVERHEAD,
    PART_ROUNDING,
    HuffmanCode,
    choose_code,
    coded_bits,
    histogram_size,
    zstd_compress,
)
from codec.errors import ArgumentError
from codec.layouts import StreamKind
from codec.valuecoding import packed_bytes

# Bytes of a stream tried with zstandard before all of it is.
_SAMPLE = 1 << 16
# Bytes that a stream's "code" takes in the header at most: four keys, three integers and up to 128 bytes of lengths.
CODE_HEADER = 180


@dataclass(frozen=True)
class Target(frame.Subject):
    """A frame to be made: its tensor, the entropy stage that its streams go through, and what shared streams hold."""

    entropy: str
    shared: Mapping[str, np.ndarray]

    @property
    def longest(self) -> int:
        """Bits of the longest code word that the streams' codes may have."""
        return int(self.params.get("max_length", 12))


def huffman_bytes(histogram: np.ndarray, code: HuffmanCode, parts: int) -> int:
    """Bytes of a coded stream of ``parts`` parts, within PART_ROUNDING / 16 bytes a part."""
    return coded_bits(histogram, code) // 8 + parts * (PART_OVERHEAD + PART_ROUNDING // 16)


def pack(target: Target, fill: Callable[[_native.Streams, Target], int], threads: int) -> tuple[np.ndarray, frame.Head]:
    """A frame: ``fill`` runs the layout stage on the native streams and returns the count of negative zeros."""
    kinds = target.kinds
    element, grid = target.element, target.grid
    native = _native.Streams(
        grid.rows,
        grid.cols,
        grid.segment_rows,
        grid.segment_cols,
        target.values.width(element),
        255 if target.values.bits else target.nonzero_bits,
        element.sign_bit if target.zero == "value" and not target.values.bits else 0,
        target.layout.code,
        target.layout.native(target.params),
        len(kinds),
        target.values.bits,
    )
    for number, kind in enumerate(kinds):
        if kind.name in target.shared:
            native.share(number, kernels.octets(target.shared[kind.name]))
    negative_zeros = fill(native, target)
    if native.refused is not None:
        segment, position, found = native.refused
        at = grid.place(segment)
        row, col = at.row + position // at.cols, at.col + position % at.cols
        raise ArgumentError(f"row {row}, column {col}: {target.layout.refusal(target.params, found)}")
    codings = [_code_stream(native, number, kind, target, threads) for number, kind in enumerate(kinds)]
    sizes = np.array([_sizes(native, number, grid.segments) for number in range(len(kinds))])
    streams = [
        frame.StreamHead(kind.name, int(total), coding, code)
        for kind, total, (coding, code) in zip(kinds, sizes.sum(axis=1), codings, strict=True)
    ]

    def write(buffer: np.ndarray, offsets: np.ndarray, checksums: np.ndarray) -> None:
        native.write(buffer, offsets.reshape(-1), checksums.reshape(-1), threads)

    return frame.build(target, native.stored, negative_zeros, streams, sizes, write)


def _sizes(native: _native.Streams, number: int, segments: int) -> np.ndarray:
    sizes = np.zeros(segments, np.uint64)
    native.sizes(number, sizes)
    return sizes


def _code_stream(
    native: _native.Streams, number: int, kind: StreamKind, target: Target, threads: int
) -> tuple[str, HuffmanCode | None]:
    """Put a stream through the entropy stage; its coding is "none" wherever that is not larger."""
    if kind.plain:
        return "none", None
    entropy = "huffman" if target.layout.entropy_coded else target.entropy
    raw = int(packed_bytes(_sizes(native, number, target.grid.segments), kind).sum())
    best, code, coding = raw, None, "none"
    if entropy in ("huffman", "auto"):
        histogram = np.zeros(histogram_size(kind.width), np.uint64)
        every = native.histogram(number, kind.width, kernels.kind_code(kind.kind), histogram)
        candidate = choose_code(histogram, every, kind.width, kind.kind, target.longest, bits=kind.bits)
        coded = huffman_bytes(histogram, candidate, target.grid.segments) + CODE_HEADER
        if coded < best or target.layout.entropy_coded:
            best, code, coding = coded, candidate, "huffman"
    # A Huffman code takes the codes, anything else their packed bytes.
    packed = kind.bits and coding == "none"
    if packed:
        native.pack(number, kind.bits, threads)
    if entropy in ("zstd", "auto") and (packed or not kind.bits) and not target.layout.entropy_coded and raw:
        parts = _zstd_parts(native, number, target.grid.segments, None if entropy == "zstd" else best / raw)
        if parts is not None and sum(map(len, parts)) < best:
            for segment, part in enumerate(parts):
                native.set_part(segment, number, part)
            return "zstd", None
    if code is not None:
        native.code(number, kernels.native_code(code), threads)
    return coding, code


def _zstd_parts(native: _native.Streams, number: int, segments: int, beat: float | None) -> list[bytes] | None:
    """Every part compressed; None, after a sample from the middle, where that is not going to ``beat`` a ratio."""
    if beat is not None:
        sample = native.part(segments // 2, number)[:_SAMPLE]
        if sample and len(zstd_compress(sample)) >= beat * len(sample):
            return None
    return [zstd_compress(native.part(segment, number)) for segment in range(segments)]
