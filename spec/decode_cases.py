"""The vectors that a reader must read, and what it must find in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from writer import BITS, encode, kind_of, negative_zero, nibbles

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "csr": ("csr", {"index": 8, "of": "nonzeros"}),
    "csr_zeros": ("csr", {"index": 8, "of": "zeros"}),
    "bitmap": ("bitmap", {"order": "rows"}),
    "bitmap_lanes": ("bitmap", {"order": "lanes"}),
    "huffman": ("huffman", {"max_length": 12}),
    "relative": ("relative_index", {"bits": 3, "filler": "escape", "of": "nonzeros"}),
    "relative_fillers": ("relative_index", {"bits": 2, "filler": "value", "of": "nonzeros"}),
    "relative_zeros": ("relative_index", {"bits": 1, "filler": "escape", "of": "zeros"}),
    "run_length": ("run_length", {"bits": 5}),
    "n_m": ("n_m", {"m": 4, "n": 4}),
    "blocks": ("block_offset", {"block": [2, 3], "index": 8}),
    "blocks_rows": ("block_offset", {"block": [1, 99], "index": 8}),
    "blocks_columns": ("block_offset", {"block": ["all", 2], "index": 8}),
}
# Those that store zeros for no element: code 0 of a codebook is theirs.
PADDED = ("dense", "relative_fillers", "run_length", "n_m", "blocks", "blocks_rows", "blocks_columns")


@dataclass(frozen=True)
class Tensor:
    """What a reader must find: bits, element type, zero rule."""

    bits: np.ndarray
    dtype: str
    zero: str = "value"


@dataclass(frozen=True)
class Case:
    name: str
    section: str
    data: bytes
    tensors: dict[str, Tensor]
    model: bool = False


def sample(shape: tuple[int, ...], dtype: str, percent: int = 40, seed: int = 1) -> np.ndarray:
    """Bits with about ``percent`` stored elements of few different values, from a fixed linear congruence."""
    state, out = seed, []
    for _ in range(int(np.prod(shape, dtype=np.int64))):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        there, low, high = state >> 33 & 127, state >> 40 & 31, state >> 50 & 3
        value = (0x3E + high << 8 | low << 3) << (BITS[dtype] - 16) if BITS[dtype] > 8 else 0x30 + low
        if kind_of(dtype) != "unsigned" and state >> 60 & 1:
            value ^= 1 << (BITS[dtype] - 1)
        if dtype == "BOOL":
            value = 1
        out.append(value if there * 100 < percent * 128 else 0)
    return np.array(out, f"<u{BITS[dtype] // 8}").reshape(shape)


def frame_case(name: str, section: str, bits: np.ndarray, dtype: str, variant: str, **options: Any) -> Case:
    layout, params = VARIANTS[variant]
    params = {**params, **options.pop("params", {})}
    draft = encode(bits, dtype, layout, params=params, **options)
    zero = options.get("zero", "value")
    expected = bits.copy()
    if zero == "value" and negative_zero(dtype):
        expected[(expected == negative_zero(dtype)) & ~np.asarray(options.get("keep", False))] = 0
    return Case(name, section, draft.build(), {"": Tensor(expected, dtype, zero)})


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
                yield frame_case(f"{variant}_special_{dtype}_{zero}", "7", bits, dtype, variant, zero=zero)
    bits = sample((3, 6), "F32", 40, seed=7)
    keep = sample((3, 6), "U8", 50, seed=8) != 0
    for variant in VARIANTS:
        yield frame_case(f"{variant}_kept_zeros", "7", bits, "F32", variant, keep=keep)
    bits[bits == 0] = 1 << 31
    for zero in ("value", "bits"):
        yield frame_case(f"bitmap_kept_negative_zeros_{zero}", "7", bits, "F32", "bitmap", keep=keep, zero=zero)


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


def codings() -> Iterator[Case]:
    """The entropy stage on the streams of other layouts."""
    streams = {"dense": ["values"], "csr": ["rows", "columns", "values"], "bitmap": ["mask", "values"]}
    streams |= {"relative_index": ["gaps", "values"], "run_length": ["words"], "n_m": ["patterns", "values"]}
    streams |= {"block_offset": ["rows", "columns", "values"]}
    for number, (variant, (layout, _)) in enumerate(VARIANTS.items()):
        if layout == "huffman":
            continue
        bits = sample((7, 13), "BF16", 40, seed=300 + number)
        for coding in ("huffman", "zstd"):
            every = dict.fromkeys(streams[layout], coding)
            yield frame_case(f"{variant}_{coding}", "6", bits, "BF16", variant, segment=(3, 13), codings=every)
        empty = np.zeros((4, 5), "<u2")
        empty[2:] = bits[:2, :5] | 0x100
        for coding in ("huffman", "zstd"):
            every = dict.fromkeys(streams[layout], coding)
            name = f"{variant}_{coding}_part_without_items"
            yield frame_case(name, "6", empty, "BF16", variant, segment=(2, 5), codings=every)
            nothing = np.zeros((0, 3), "<u2")
            yield frame_case(f"{variant}_{coding}_empty", "6", nothing, "BF16", variant, codings=every)
    bits = sample((6, 9), "F32", 40, seed=400)
    mixed = {"rows": "huffman", "columns": "zstd", "values": "none"}
    yield frame_case("csr_mixed", "6", bits, "F32", "csr", segment=(4, 9), codings=mixed)
    yield frame_case("bitmap_mixed", "6", bits, "F32", "bitmap", segment=(4, 9), codings={"mask": "huffman"})
    # A compressed block, made once by zstd 1.5.7 at level 19 from the bytes of this tensor.
    bits = np.array([[i * i % 7 for i in range(64)]] * 4, np.uint8)
    draft = encode(bits, "U8", "dense", codings={"values": "zstd"})
    draft.parts[0][0] = bytes.fromhex(COMPRESSED)
    yield Case("dense_zstd_compressed_block", "6.1", draft.build(), {"": Tensor(bits, "U8")})


COMPRESSED = "28b52ffd600000a5000038000104020204010300353014ea1052609dc508"


def codes() -> Iterator[Case]:
    """Codes at the edges of section 6.3, and gaps at the edges of 5.4."""
    line = np.zeros((1, 40), "<u4")
    line[0, 3::5] = 0x3F800000
    yield frame_case("huffman_single_symbol", "6.3", line, "F32", "huffman")
    signs = line.copy()
    signs[0, 8::10] |= 0x80000000
    yield frame_case("huffman_single_symbol_signs", "6.3", signs, "F32", "huffman")
    split = sample((5, 9), "F32", 60, seed=500)
    for name, low, zeros in [("low", 19, 0), ("zeros", 0, 19), ("low_and_zeros", 5, 17), ("low_but_one_bit", 30, 0)]:
        given = {"values": {"low": low, "zeros": zeros}}
        yield frame_case(f"huffman_split_{name}", "6.3", split, "F32", "huffman", segment=(2, 9), codes=given)
    integers = sample((5, 9), "I32", 60, seed=501)
    yield frame_case(
        "huffman_split_signed", "6.3", integers, "I32", "huffman", codes={"values": {"low": 5, "zeros": 19}}
    )
    deep = np.array([[min(number, 15) for number in range(40)]], np.uint8)
    ladder = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([*range(1, 16), 15])}
    coded = {"values": "huffman"}
    yield frame_case("dense_code_words_of_15_bits", "6.3", deep, "U8", "dense", codings=coded, codes={"values": ladder})
    every = np.arange(256, dtype=np.uint8).reshape(4, 64)
    yield frame_case("dense_code_of_256_symbols", "6.3", every, "U8", "dense", codings=coded)
    raw = {"low": 7, "zeros": 0, "first": 0, "lengths": nibbles([1, 1])}
    yield frame_case("dense_code_of_one_bit", "6.3", every[:1], "U8", "dense", codings=coded, codes={"values": raw})
    wide = np.array([[1 << 63 | 1, 3, 1 << 62 | 5, 1 << 61, (1 << 55) - 1]], "<u8")
    for dtype, low in (("F64", 55), ("U64", 56), ("I64", 56)):
        fields = {"values": {"low": low, "zeros": 0}}
        name = f"dense_raw_field_of_56_bits_{dtype}"
        yield frame_case(name, "6.4", wide, dtype, "dense", codings=coded, zero="bits", codes=fields)
    for gap in (0, 1, 254, 255, 256, 509, 510, 511, 1023):
        far = np.zeros((1, 1030), np.uint8)
        far[0, [gap, gap + 2]] = 7
        yield frame_case(f"huffman_gap_{gap}", "5.4", far, "U8", "huffman")
    far = np.zeros((2, 300), np.uint8)
    far[1, 299] = 1
    yield frame_case("huffman_last_position", "5.4", far, "U8", "huffman", segment=(2, 300))
    for longest in (8, 15):
        yield frame_case(
            f"huffman_max_length_{longest}", "5.4", split, "F32", "huffman", params={"max_length": longest}
        )


def book_of(bits: np.ndarray, code_bits: int, rows: int, *, zero: bool) -> tuple[int, int, list[list[int]]]:
    """Codebooks with every element of a matrix, zero first if it is needed for padding; as ``encode`` takes them."""
    groups = [bits[at : at + (rows or len(bits))] for at in range(0, len(bits), rows or len(bits))] if bits.size else []
    found = [[*[0] * zero, *sorted({int(one) for one in group.ravel()} - {0})] for group in groups]
    assert all(len(group) <= 1 << code_bits for group in found)
    return code_bits, rows, found


def few(shape: tuple[int, int], dtype: str, values: int, seed: int) -> np.ndarray:
    """Bits with so many different values and as many zeros."""
    bits = sample(shape, dtype, 50, seed)
    chosen = np.unique(sample((1, 400), dtype, 100, 77))[:values]
    return np.where(bits != 0, chosen[np.arange(bits.size).reshape(shape) * 7 % len(chosen)], 0).astype(bits.dtype)


def codebook() -> Iterator[Case]:
    """Values by codebook: every layout x every width of a code; row groups; codings."""
    dtypes = ["F32", "BF16", "I16", "F64", "F8_E4M3", "F16", "I64", "U8"]
    for number, (variant, (layout, _)) in enumerate(VARIANTS.items()):
        padded = variant in PADDED
        for code_bits in range(1, 9):
            dtype = dtypes[(number + code_bits) % len(dtypes)]
            bits = few((5, 13), dtype, (1 << code_bits) - padded, seed=600 + number)
            book = book_of(bits, code_bits, 0, zero=padded)
            name = f"codebook_{variant}_{code_bits}"
            yield frame_case(name, "4.5", bits, dtype, variant, segment=(2, 13), book=book)
        bits = few((7, 11), "F16", 5, seed=700 + number)
        bits[2:4] ^= (bits[2:4] != 0) * np.uint16(0x8000)
        for rows, segment in ((1, (3, 11)), (2, (7, 11)), (5, (1, 4)), (6, (4, 11))):
            book = book_of(bits, 4, rows, zero=padded)
            yield frame_case(f"codebook_{variant}_rows_{rows}", "4.5", bits, "F16", variant, segment=segment, book=book)
        for coding in ("huffman", "zstd"):
            if layout not in ("huffman", "run_length"):
                for code_bits in (4, 8):
                    book = book_of(bits, code_bits, 2, zero=padded)
                    name = f"codebook_{variant}_{coding}_{code_bits}"
                    given = {"segment": (3, 11), "book": book, "codings": {"codes": coding}}
                    yield frame_case(name, "4.5", bits, "F16", variant, **given)
        nothing = np.zeros((0, 3), "<u2")
        yield frame_case(f"codebook_{variant}_empty", "4.5", nothing, "BF16", variant, book=(4, 0, []))
        zeros = np.zeros((4, 5), "<u2")
        yield frame_case(
            f"codebook_{variant}_all_zero", "4.5", zeros, "BF16", variant, segment=(2, 5), book=(4, 0, [[0]])
        )
    # An entry of zero bits, and one twice: readers take entries as they are.
    bits = few((4, 6), "F32", 3, seed=800)
    one = [0, *sorted({int(v) for v in bits.ravel()} - {0})]
    yield frame_case("codebook_zero_entry", "4.5", bits, "F32", "bitmap", book=(3, 0, [[*one, *one]]))


def decode_cases() -> Iterator[Case]:
    for group in (shapes, types, special_bits, csr, gaps, groups, blocks, codings, codes, codebook):
        yield from group()
