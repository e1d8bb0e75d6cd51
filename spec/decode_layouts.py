"""Frames that a reader must read: shapes, element types, zeros, and every layout at its edges."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import VARIANTS, Case, frame_case, large_line, sample
from writer_coding import BITS


def shapes() -> Iterator[Case]:
    """Every layout x every kind of shape, over changing element types."""
    dtypes = ["F32", "BF16", "I8", "F64", "U16", "F16", "I32"]
    # name, shape, segment, row_dims (None: the default), percent stored
    kinds: list[tuple[str, tuple[int, ...], tuple[int, int] | None, int | None, int]] = [
        ("scalar", (), None, None, 100),
        ("empty", (0, 5), None, None, 40),
        ("one", (1,), None, None, 100),
        ("one_zero", (1, 1), None, None, 0),
        ("odd_tail", (5, 13), (2, 13), None, 40),
        ("pieces", (3, 29), (1, 8), None, 40),
        ("vector", (37,), (1, 16), None, 40),
        ("tall", (135, 3), (70, 3), None, 30),
        ("all_zero", (4, 9), (2, 9), None, 0),
        ("none_zero", (4, 9), (3, 9), None, 100),
        ("convolution", (6, 2, 3, 3), (4, 18), None, 40),
        ("leading_one", (1, 7, 5), (3, 5), None, 40),
        ("row_dims", (4, 3, 5), (5, 5), 2, 40),
        ("column", (11,), (4, 1), 1, 40),
    ]
    for number, variant in enumerate(VARIANTS):
        for step, (kind, shape, segment, row_dims, percent) in enumerate(kinds):
            dtype = dtypes[(number + step) % len(dtypes)]
            bits = sample(shape, dtype, percent, seed=number * 100 + step)
            yield frame_case(f"{variant}_{kind}", "5", bits, dtype, variant, segment=segment, row_dims=row_dims)


def types() -> Iterator[Case]:
    """Every element type, raw and coded."""
    for number, dtype in enumerate(BITS):
        bits = sample((3, 11), dtype, 50, seed=1000 + number)
        yield frame_case(f"type_{dtype}", "2", bits, dtype, "bitmap", segment=(2, 11))
        yield frame_case(f"type_coded_{dtype}", "6.2", bits, dtype, "huffman", segment=(2, 11))


def large() -> Iterator[Case]:
    """Parts that begin at a multiple of 64 though the frame gets longer by that."""
    yield frame_case("large_parts", "4.3", large_line(), "U8", "dense")


def special_bits() -> Iterator[Case]:
    """NaN payloads, infinities, denormals and -0.0 under both rules."""
    # bits of the mantissa: NaNs with the lowest and all payload bits, then both infinities.
    mantissa = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2}
    for dtype, size in mantissa.items():
        sign = 1 << (BITS[dtype] - 1)
        top = sign - (1 << size)  # all exponent bits
        row = [0, sign, 1, sign | 1, top, sign | top, top | 1, sign - 1, 2 * sign - 1, top | 1 << (size - 1), sign, 0]
        bits = np.array([row, row[::-1]], f"<u{BITS[dtype] // 8}")
        for zero in ("value", "bits"):
            for variant in ("dense", "bitmap", "huffman"):
                yield frame_case(f"{variant}_special_{dtype}_{zero}", "7.1", bits, dtype, variant, zero=zero)
    bits = sample((3, 6), "F32", 40, seed=7)
    keep = sample((3, 6), "U8", 50, seed=8) != 0
    for variant in VARIANTS:
        yield frame_case(f"{variant}_kept_zeros", "7.1", bits, "F32", variant, keep=keep)
    bits[bits == 0] = 1 << 31
    for zero in ("value", "bits"):
        yield frame_case(f"bitmap_kept_negative_zeros_{zero}", "7.1", bits, "F32", "bitmap", keep=keep, zero=zero)


def csr() -> Iterator[Case]:
    wide = sample((2, 300), "U8", 30, seed=21)
    full = sample((2, 300), "U8", 90, seed=22)
    yield frame_case("csr_index_16", "5.2", wide, "U8", "csr", params={"index": 16})
    yield frame_case("csr_zeros_index_16", "5.2", full, "U8", "csr_zeros", params={"index": 16})
    # The index follows the w of the header, also where a clipped piece is narrow.
    yield frame_case("csr_index_16_pieces", "5.2", wide, "U8", "csr", params={"index": 16}, segment=(1, 290))
    yield frame_case("csr_index_wider", "5.2", full[:, :9], "U8", "csr", params={"index": 32})
    last = np.zeros((1, 70000), np.uint8)
    last[0, [0, 255, 256, 65535, 65536, 69999]] = 9
    yield frame_case("csr_index_32", "5.2", last, "U8", "csr", params={"index": 32})
    edge = np.zeros((2, 256), np.uint8)
    edge[:, [0, 255]] = 5
    yield frame_case("csr_index_8_widest", "5.2", edge, "U8", "csr")


def gaps() -> Iterator[Case]:
    """Gaps at the edges of 5.5 and 5.6, every number of bits, and last words filled to every degree."""
    for bits in range(1, 17):
        line = np.zeros((1, 70000 if bits == 16 else 1100), np.uint16)
        for gap in range(max(0, (1 << bits) - 2), (1 << bits) + 2):
            at = int(np.flatnonzero(line)[-1]) + 1 if line.any() else 0
            if at + gap < line.size:
                line[0, at + gap] = 0x8001
        line[0, -1] = 7
        for filler in ("escape", "value"):
            params = {"bits": bits, "filler": filler}
            yield frame_case(f"relative_{filler}_bits_{bits}", "5.5", line, "I16", "relative", params=params)
        yield frame_case(f"run_length_bits_{bits}", "5.6", line, "I16", "run_length", params={"bits": bits})
    for gap in (2, 3, 4, 5, 7, 8, 9):
        far = np.zeros((1, 40), np.uint8)
        far[0, [gap, gap + 2]] = 7
        for variant in ("relative", "relative_fillers"):
            yield frame_case(f"{variant}_gap_{gap}", "5.5", far, "U8", variant, params={"bits": 2})
        yield frame_case(f"run_length_gap_{gap}", "5.6", far, "U8", "run_length", params={"bits": 2})
        yield frame_case(
            f"relative_zeros_gap_{gap}", "5.5", (far == 0).astype(np.uint8), "U8", "relative_zeros", params={"bits": 2}
        )
    # Kept zeros that are no fillers: other codes than top, and -0.0 behind top.
    kept = np.zeros((1, 12), "<u2")
    kept[0, [3, 9]] = [0x8000, 0x3F80]
    keep = np.zeros((1, 12), bool)
    keep[0, [3, 5, 6]] = True
    for variant in ("relative_fillers", "run_length"):
        yield frame_case(f"{variant}_kept_no_fillers", "5.5", kept, "BF16", variant, keep=keep, params={"bits": 2})
    for count in range(1, 8):
        full = sample((1, count), "U8", 100, seed=600 + count)
        for bits in (1, 5, 16):
            yield frame_case(
                f"run_length_{count}_pairs_bits_{bits}", "5.6", full, "U8", "run_length", params={"bits": bits}
            )
    for bits in (1, 16):
        wide = sample((2, 5), "F64", 60, seed=610)
        yield frame_case(
            f"run_length_words_of_128_bits_{bits}", "5.6", wide, "F64", "run_length", params={"bits": bits}
        )


def few_of(bits: np.ndarray, n: int, m: int) -> np.ndarray:
    """Bits of a matrix without what is more than n in a group of m of a row."""
    out = bits.copy()
    for row in out:
        for left in range(0, len(row), m):
            group = row[left : left + m]
            group[np.flatnonzero(group)[n:]] = 0
    return out


def groups() -> Iterator[Case]:
    """Section 5.7: masks and ranks, whole groups and short ones, pads, and zeros that are none."""
    dtypes = ["BF16", "F32", "I8", "F64", "I16"]
    pairs = [(1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (2, 5), (1, 8), (2, 8), (3, 8), (4, 8), (1, 16), (2, 16), (4, 16)]
    pairs += [(5, 16), (8, 16), (3, 24), (2, 33), (1, 64), (4, 64), (31, 64), (33, 64), (63, 64), (64, 64), (1, 1)]
    for number, (n, m) in enumerate(pairs):
        dtype = dtypes[number % len(dtypes)]
        for percent in (20, 90):
            bits = few_of(sample((3, 2 * m + 5), dtype, percent, seed=900 + number), n, m)
            given: dict[str, Any] = {"params": {"m": m, "n": n}, "segment": (2, 2 * m + 5)}
            yield frame_case(f"n_m_{n}_of_{m}_{percent}_percent", "5.7", bits, dtype, "n_m", **given)
        whole = few_of(sample((2, 128 // m * m), dtype, 60, seed=950 + number), n, m)
        yield frame_case(f"n_m_{n}_of_{m}_whole", "5.7", whole, dtype, "n_m", params={"m": m, "n": n})
    # Panels of 16384 elements end within a group of most m.
    for n, m in ((2, 4), (1, 4), (2, 5), (1, 48)):
        long = few_of(np.arange(16384 + 7, dtype=np.uint8)[None] // 3 % 2, n, m)
        yield frame_case(f"n_m_{n}_of_{m}_long_row", "5.7", long, "U8", "n_m", params={"m": m, "n": n})
    wide = few_of(sample((3, 29), "F16", 60, seed=980), 2, 4)
    yield frame_case("n_m_2_of_4_pieces", "5.7", wide, "F16", "n_m", params={"m": 4, "n": 2}, segment=(1, 10))
    kept = np.zeros((1, 12), "<u2")
    kept[0, [3, 9]] = [0x8000, 0x3F80]
    keep = np.zeros((1, 12), bool)
    keep[0, [0, 3, 5, 6, 9]] = True
    for n, m in ((2, 4), (1, 3), (3, 12), (5, 12)):
        if few_of(keep.astype(np.uint8), n, m).sum() == keep.sum():
            name = f"n_m_{n}_of_{m}_kept_zeros"
            yield frame_case(name, "5.7", kept, "BF16", "n_m", keep=keep, params={"m": m, "n": n})


def blocks() -> Iterator[Case]:
    """Shapes, edges and offsets of 5.8."""
    bits = sample((13, 50), "F32", 8, seed=30)
    for r, c in ((1, 1), (1, 4), (4, 1), (4, 4), (3, 7), (13, 50), (13, 1), (1, 50), (5, 49)):
        for segment in ((13, 50), (6, 50)):
            name = f"blocks_{r}x{c}_of_{segment[0]}"
            yield frame_case(name, "5.8", bits, "F32", "blocks", segment=segment, params={"block": [r, c]})
    for c in (1, 3, 7, 50):
        for segment in ((13, 50), (6, 50), (1, 20)):
            name = f"blocks_columns_{c}_of_{segment[0]}x{segment[1]}"
            yield frame_case(name, "5.8", bits, "F32", "blocks_columns", segment=segment, params={"block": ["all", c]})
    wide = sample((2, 300), "U8", 5, seed=31)
    far = np.zeros((1, 70000), np.uint8)
    far[0, [0, 255, 256, 16383, 16384, 65535, 65536, 69999]] = 9
    for first in (1, "all"):
        variant = "blocks" if first == 1 else "blocks_columns"
        for index in (16, 32):
            params = {"block": [first, 1], "index": index}
            yield frame_case(f"{variant}_index_{index}", "5.8", wide, "U8", variant, params=params)
        for c, index in ((1, 32), (5, 16), (100, 16), (300, 8)):
            params = {"block": [first, c], "index": index}
            yield frame_case(f"{variant}_far_{c}", "5.8", far, "U8", variant, params=params)
    # Rows longer than what a reader may take at a time, and blocks of several of them.
    tall = np.zeros((5, 20000), np.uint8)
    tall[[0, 1, 3, 4, 4], [16380, 16390, 5, 16385, 19999]] = 7
    yield frame_case("blocks_2x3_long_rows", "5.8", tall, "U8", "blocks", params={"index": 16})
    yield frame_case("blocks_3x16390_long_rows", "5.8", tall, "U8", "blocks", params={"block": [3, 16390]})
    kept = np.zeros((4, 6), "<u2")
    kept[0, 0], kept[3, 5] = 0x3F80, 0x8000
    keep = np.zeros((4, 6), bool)
    keep[[0, 1, 2, 3], [0, 1, 4, 5]] = True
    for variant in ("blocks", "blocks_rows", "blocks_columns"):
        yield frame_case(f"{variant}_kept_zero_alone", "5.8", kept, "BF16", variant, keep=keep)


def layout_cases() -> Iterator[Case]:
    for group in (shapes, types, large, special_bits, csr, gaps, groups, blocks):
        yield from group()
