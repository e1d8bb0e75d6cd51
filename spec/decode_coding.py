"""Frames that a reader must read: the entropy stage, its codes, and values by codebook."""

from collections.abc import Iterator

import numpy as np
from cases import PADDED, VARIANTS, Case, Tensor, book_of, few, frame_case, sample
from writer import CODINGS, encode
from writer_coding import nibbles


def codings() -> Iterator[Case]:
    """The entropy stage on the streams of other layouts."""
    streams = {"dense": ["values"], "csr": ["pointers", "columns", "values"], "bitmap": ["mask", "values"]}
    streams |= {"relative_index": ["steps", "values"], "run_length": ["words"], "n_m": ["patterns", "values"]}
    streams |= {"block_offset": ["pointers", "columns", "values"], "sell": ["places", "lengths", "columns", "values"]}
    for number, (variant, (layout, _)) in enumerate(VARIANTS.items()):
        if layout in ("huffman", "context"):
            continue
        bits = sample((7, 13), "BF16", 40, seed=300 + number)
        for coding in CODINGS[1:]:
            every = dict.fromkeys(streams[layout], coding)
            yield frame_case(f"{variant}_{coding}", "6", bits, "BF16", variant, segment=(3, 13), codings=every)
        empty = np.zeros((4, 5), "<u2")
        empty[2:] = bits[:2, :5] | 0x100
        for coding in CODINGS[1:]:
            every = dict.fromkeys(streams[layout], coding)
            name = f"{variant}_{coding}_part_without_items"
            yield frame_case(name, "6", empty, "BF16", variant, segment=(2, 5), codings=every)
            nothing = np.zeros((0, 3), "<u2")
            yield frame_case(f"{variant}_{coding}_empty", "6", nothing, "BF16", variant, codings=every)
    bits = sample((6, 9), "F32", 40, seed=400)
    mixed = {"pointers": "huffman", "columns": "zstd", "values": "none"}
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
    deep = np.array([[min(number, 12) for number in range(40)]], np.uint8)
    ladder = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([*range(1, 13), 12])}
    coded = {"values": "huffman"}
    yield frame_case("dense_code_words_of_12_bits", "6.3", deep, "U8", "dense", codings=coded, codes={"values": ladder})
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


def counts() -> Iterator[Case]:
    """Tables and lanes at the edges of section 6.6."""
    coded = {"values": "rans"}
    bits = sample((5, 9), "F32", 100, seed=510)
    for lanes in range(5):
        given = {"values": {"lanes": lanes, "low": 19, "zeros": 0}}
        name = f"dense_rans_{1 << lanes}_lanes"
        yield frame_case(name, "6.6", bits, "F32", "dense", segment=(4, 9), codings=coded, codes=given)
    for name, low, zeros in [("zeros", 0, 19), ("low_and_zeros", 5, 17), ("low_but_one_bit", 30, 0)]:
        given = {"values": {"low": low, "zeros": zeros}}
        yield frame_case(f"dense_rans_split_{name}", "6.6", bits, "F32", "dense", codings=coded, codes=given)
    integers = sample((5, 9), "I32", 100, seed=511)
    given = {"values": {"low": 5, "zeros": 19}}
    yield frame_case("dense_rans_split_signed", "6.6", integers, "I32", "dense", codings=coded, codes=given)
    line = np.full((1, 40), 0x3F800000, "<u4")
    yield frame_case("dense_rans_single_symbol", "6.6", line, "F32", "dense", codings=coded)
    every = np.arange(256, dtype=np.uint8).reshape(4, 64)
    yield frame_case("dense_rans_256_symbols", "6.6", every, "U8", "dense", codings=coded)
    # Shares far from what occurs, and one of a symbol that does not occur.
    odd = {"low": 0, "zeros": 0, "first": 0, "lanes": 2, "counts": [1, 4093, 0, 1, 1]}
    few = np.array([[0, 1, 3, 4, 4, 0, 3, 1, 0, 0, 4, 3, 1]], np.uint8)
    yield frame_case("dense_rans_rare_symbols", "6.6", few, "U8", "dense", codings=coded, codes={"values": odd})
    wide = np.array([[1 << 63 | 1, 3, 1 << 62 | 5, 1 << 61, (1 << 55) - 1]], "<u8")
    for dtype, low in (("F64", 55), ("U64", 56), ("I64", 56)):
        given = {"values": {"low": low, "zeros": 0}}
        name = f"dense_rans_raw_field_of_56_bits_{dtype}"
        yield frame_case(name, "6.6", wide, dtype, "dense", codings=coded, zero="bits", codes=given)


def codebook() -> Iterator[Case]:
    """Values by codebook: every layout x every width of a code; row groups; codings."""
    dtypes = ["F32", "BF16", "I16", "F64", "F8_E4M3", "F16", "I64", "U8"]
    for number, (variant, (layout, _)) in enumerate(VARIANTS.items()):
        padded = variant in PADDED
        for label_bits in range(1, 9):
            dtype = dtypes[(number + label_bits) % len(dtypes)]
            bits = few((5, 13), dtype, (1 << label_bits) - padded, seed=600 + number)
            book = book_of(bits, label_bits, 0, zero=padded)
            name = f"codebook_{variant}_{label_bits}"
            yield frame_case(name, "7.2", bits, dtype, variant, segment=(2, 13), book=book)
        bits = few((7, 11), "F16", 5, seed=700 + number)
        bits[2:4] ^= (bits[2:4] != 0) * np.uint16(0x8000)
        for rows, segment in ((1, (3, 11)), (2, (7, 11)), (5, (1, 4)), (6, (4, 11))):
            book = book_of(bits, 4, rows, zero=padded)
            yield frame_case(
                f"codebook_{variant}_groups_of_{rows}", "7.2", bits, "F16", variant, segment=segment, book=book
            )
        for coding in CODINGS[1:]:
            if layout not in ("huffman", "run_length"):
                for label_bits in (4, 8):
                    book = book_of(bits, label_bits, 2, zero=padded)
                    name = f"codebook_{variant}_{coding}_{label_bits}"
                    given = {"segment": (3, 11), "book": book, "codings": {"labels": coding}}
                    yield frame_case(name, "7.2", bits, "F16", variant, **given)
        nothing = np.zeros((0, 3), "<u2")
        yield frame_case(f"codebook_{variant}_empty", "7.2", nothing, "BF16", variant, book=(4, 0, []))
        zeros = np.zeros((4, 5), "<u2")
        yield frame_case(
            f"codebook_{variant}_all_zero", "7.2", zeros, "BF16", variant, segment=(2, 5), book=(4, 0, [[0]])
        )
    # An entry of zero bits, and one twice: readers take entries as they are.
    bits = few((4, 6), "F32", 3, seed=800)
    one = [0, *sorted({int(v) for v in bits.ravel()} - {0})]
    yield frame_case("codebook_zero_entry", "7.2", bits, "F32", "bitmap", book=(3, 0, [[*one, *one]]))


def coding_cases() -> Iterator[Case]:
    for group in (codings, codes, counts, codebook):
        yield from group()
