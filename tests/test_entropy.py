"""The entropy stage in plain Python: codes are proved and optimal, parts round-trip and say what is wrong with them."""

import heapq
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from items import TYPES, count, flips, streams

from codec import entropy
from codec.entropy import Items, KeyCounts
from codec.entropy.huffman import PART_OVERHEAD, PART_ROUNDING, HuffmanCode, code_of, coded_bytes
from codec.entropy.huffman_plain import choose_code, code_lengths, coded_bits, decode_part, encode_part
from codec.entropy.zstd import compress, decompress_into, stated_size
from codec.errors import ArgumentError, FormatError


def code_for(items, kind, max_length=12):
    return code_of(Items(items.itemsize, kind, longest=max_length), count(items, kind))


def unzstd(frame, limit):
    """The bytes of a zstandard frame of at most so many."""
    out = np.zeros(stated_size(frame, limit), np.uint8)
    decompress_into(frame, out)
    return out.tobytes()


@settings(deadline=None, max_examples=300)
@given(streams(), st.integers(8, 15))
@example((np.zeros(0, "<u4"), "float"), 12)
@example((np.zeros(9, "<u2"), "signed"), 12)
def test_round_trip_and_size(stream, max_length):
    items, kind = stream
    keys, about = count(items, kind), Items(items.itemsize, kind, longest=max_length)
    code = code_of(about, keys)
    assert code == choose_code(about, keys)
    assert code.longest <= max_length
    assert HuffmanCode.from_header(code.header, items.itemsize, kind) == code
    part = encode_part(items, code)
    assert encode_part(items.tobytes(), code) == part
    decoded = decode_part(part, code, len(items))
    assert decoded.dtype == items.dtype
    assert decoded.tobytes() == items.tobytes()
    slack = 8 * (len(part) - PART_OVERHEAD) - coded_bits(keys, code)
    assert 0 <= slack <= PART_ROUNDING
    assert abs(coded_bytes(about, keys, 1)[0] - len(part)) <= PART_ROUNDING // 16 + 1


@pytest.mark.parametrize(("width", "kind"), TYPES)
def test_nothing_and_zeros_take_no_bits(width, kind):
    nothing, zeros = np.zeros(0, f"<u{width}"), np.zeros(100, f"<u{width}")
    assert encode_part(nothing, code_for(nothing, kind)) == bytes(PART_OVERHEAD)
    code = code_for(zeros, kind)
    assert code.lengths == (0,)
    sign = 13 if kind == "float" else 0  # a bit each
    assert encode_part(zeros, code) == b"\x64" + bytes(PART_OVERHEAD - 1 + sign)


def test_half_precision_values_in_single_precision_store_no_trailing_bits():
    values = np.random.default_rng(1).normal(size=3000).astype("<f2").astype("<f4").view("<u4")
    code = code_for(values, "float")
    assert code.zeros == 13
    assert len(encode_part(values, code)) < 2 * len(values)


def test_part_by_hand():
    # Symbols a, b, c = 5, 6, 7 with the words 0, 10, 11; items a b c a | c: lane 0 holds a then c.
    code = HuffmanCode(1, "unsigned", 0, 0, 5, (1, 2, 2))
    part = encode_part(bytes([5, 6, 7, 5, 7]), code)
    assert part == bytes([5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0b110, 0b01, 0b11, 0])
    # Floats: -(1.5 * 2**k) in bf16 is sign 1, exponent, mantissa 1000000; low = 7 and the sign above it.
    floats = HuffmanCode(2, "float", 7, 0, 127, (0,))
    assert encode_part(np.array([0xBFC0, 0x3F81], "<u2"), floats)[16:] == bytes([0b11000000, 0b00000001])


def huffman_cost(counts):
    """Bits of an optimal code: every merge adds one bit to all it holds."""
    heap, cost = sorted(counts), 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


def kraft(lengths):
    return sum(Fraction(1, 2 ** int(n)) for n in lengths if n)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=256).filter(lambda c: sum(map(bool, c)) > 1))
def test_lengths_are_complete_and_optimal(counts):
    counts = np.array(counts)
    free = code_lengths(counts, 40)
    assert int(counts @ free) == huffman_cost([c for c in counts.tolist() if c])
    for limit in (8, 12, 15):
        lengths = code_lengths(counts, limit)
        assert lengths.max() <= limit
        assert kraft(lengths) == 1
        assert ((lengths > 0) == (counts > 0)).all()
        assert counts @ lengths >= counts @ free
        if free.max() <= limit:
            assert counts @ lengths == counts @ free


def test_a_limit_that_binds_is_met_at_the_least_cost():
    for counts in ([1, 1, 2, 3, 5, 8], [1, 1, 1, 1, 100], [3, 1, 4, 1, 5, 9, 2]):
        for limit in (3, 4, 5):
            best = min(
                sum(c * n for c, n in zip(counts, tried, strict=True))
                for tried in product(range(1, limit + 1), repeat=len(counts))
                if sum(2 ** (limit - n) for n in tried) == 2**limit
            )
            assert np.array(counts) @ code_lengths(np.array(counts), limit) == best


def test_split_is_the_cheapest_of_its_candidates():
    items = np.random.default_rng(2).normal(size=2000).astype("<f4").view("<u4")
    keys = count(items, "float")
    chosen = code_of(Items(4, "float"), keys)
    cost = coded_bits(keys, chosen) + 4 * chosen.symbols
    used = np.flatnonzero(keys.counts)
    for low in range(17, 28):
        tops = used >> (low - 15)
        if tops[-1] - tops[0] < 256:
            sums = np.bincount(tops - tops[0], weights=keys.counts[used]).astype(np.int64)
            other = HuffmanCode(4, "float", low, 0, int(tops[0]), tuple(code_lengths(sums, 12).tolist()))
            assert cost <= coded_bits(keys, other) + 4 * other.symbols


def test_wide_integers_of_a_narrow_range_take_no_raw_bits():
    items = np.random.default_rng(3).integers(3, 14, 4000).astype("<i8").view("<u8")
    part = encode_part(items, code_for(items, "signed"))
    narrow = items.astype("<u2")
    assert len(part) == len(encode_part(narrow, code_for(narrow, "signed")))


def test_every_small_table_is_accepted_exactly_if_complete():
    for symbols in range(1, 6):
        for lengths in product(range(6), repeat=symbols):
            expected = lengths == (0,) or (symbols > 1 and lengths[0] and lengths[-1] and kraft(lengths) == 1)
            try:
                code = HuffmanCode(1, "unsigned", 0, 0, 0, lengths)
            except FormatError:
                assert not expected, lengths
            else:
                assert expected, lengths
                # No word begins another; together with the sum of 1 that leaves no bits without a meaning.
                words = sorted(word.to01() for word in code.words.values())
                assert not any(b.startswith(a) for a, b in pairwise(words))


BAD_HEADERS = {
    "short": [0, 0, 0],
    "extra": [0, 0, 0, b"\x11", 0],
    "bool": [False, 0, 0, b"\x11"],
    "negative": [0, -1, 0, b"\x11"],
    "text": [0, 0, 0, "11"],
    "empty": [0, 0, 0, b""],
    "too many": [0, 0, 0, b"\x88" * 129],
    "no bits": [8, 8, 0, b"\x00"],
    "overflow": [8, 0, 255, b"\x11"],
    "first 0": [0, 0, 0, b"\x10\x01"],
    "last 0": [0, 0, 0, b"\x11\x00"],
    "lone 1": [0, 0, 0, b"\x01"],
    "over": [0, 0, 0, b"\x11\x01"],
    "under": [0, 0, 0, b"\x21"],
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_headers(header):
    with pytest.raises(FormatError):
        HuffmanCode.from_header(header, 2, "unsigned")


def test_codes_fit_their_items():
    for width, kind in [(1, "float"), (3, "unsigned"), (2, "complex")]:
        with pytest.raises(FormatError, match="no code for"):
            HuffmanCode(width, kind, 0, 0, 0, (0,))
    with pytest.raises(FormatError, match="57 raw bits"):
        HuffmanCode(8, "float", 56, 0, 0, (0,))
    assert HuffmanCode(8, "unsigned", 56, 0, 255, (0,)).field == 56


PARTS = [
    (np.array([5, 6, 7, 5, 7, 5, 5], "u1"), "unsigned"),
    (np.array([0xBFC0, 0x3F81, 0x3E00, 0x0000, 0x8000], "<u2"), "float"),
    (np.array([-3, 200, 7], "<i4").view("<u4"), "signed"),
    (np.full(3, 9, "u1"), "unsigned"),
    (np.zeros(0, "<u8"), "unsigned"),
]


@pytest.mark.parametrize(("items", "kind"), PARTS)
def test_damage_is_an_error_or_another_valid_part(items, kind):
    code = code_for(items, kind)
    part = encode_part(items, code)
    damaged = [part[:n] for n in range(len(part))] + [part + bytes([n]) for n in (0, 1, 255)]
    for other in [*damaged, *flips(part)]:
        with suppress(FormatError):
            decoded = decode_part(other, code, len(items) + 3)
            # No two parts hold the same items: what is accepted differs, and is written back as it was.
            assert decoded.tobytes() != items.tobytes()
            assert encode_part(decoded, code) == other


def test_what_is_wrong_is_said():
    code = HuffmanCode(1, "unsigned", 0, 0, 5, (1, 2, 2))
    good = encode_part(bytes([5, 6, 7, 5, 7]), code)
    with_field = HuffmanCode(1, "unsigned", 2, 0, 0, (0,))
    for part, limit, message in [
        (good[:15], 9, "expected at least 16"),
        (good, 4, "5 items; expected at most 4"),
        (good[:18], 9, "need at least 19"),
        (good[:19], 9, "lane 3 of 0 bytes ends"),
        (good + b"\0", 9, "lane 3 has 2 bytes; its 1 symbols take 1"),
        (good[:-1] + b"\x80", 9, "after the last symbol of lane 3"),
    ]:
        with pytest.raises(FormatError, match=message):
            decode_part(part, code, limit)
    with pytest.raises(FormatError, match="after the last raw field"):
        decode_part(b"\x01" + bytes(15) + b"\x04", with_field, 1)


def test_items_without_a_code_word_are_refused():
    code = HuffmanCode(1, "unsigned", 0, 1, 5, (1, 0, 1))
    for item in (8, 12, 16, 11):
        with pytest.raises(ArgumentError):
            encode_part(bytes([item]), code)
    histogram = np.zeros(256, np.uint64)
    histogram[12] = 1
    with pytest.raises(ArgumentError):
        coded_bits(KeyCounts(histogram, 0, 0, 12), code)


def test_arguments():
    for name in ("auto", "none", *entropy.CODINGS):
        assert entropy.check_entropy(name) == name
    for name in ("gzip", "", None):
        with pytest.raises(ArgumentError, match="expected one of"):
            entropy.check_entropy(name)


@given(st.binary(max_size=400), st.integers(0, 3))
def test_zstd_round_trip(part, room):
    frame = compress(part)
    assert zstandard.get_frame_parameters(frame).content_size == len(part)
    assert not zstandard.get_frame_parameters(frame).has_checksum
    assert unzstd(memoryview(frame), len(part) + room) == part
    if part:
        with pytest.raises(FormatError, match="expected at most"):
            unzstd(frame, len(part) - 1)


def zstd_frames():
    """Frames that are refused, and the reason."""
    data, magic = bytes(range(100)) * 5, zstandard.FRAME_HEADER
    frame, empty = compress(data), compress(b"")
    skippable, block = b"\x50\x2a\x4d\x18\x04\0\0\0abcd", b"\x19\0\0abc"
    return {
        "nothing": (b"", "not a zstandard frame: .*parameters"),
        "another format": (b"PK\3\4" + bytes(20), "not a zstandard frame: "),
        "short": (frame[:-1], "damaged"),
        "long": (frame + b"\0", "damaged.*ends? at|damaged.*end at"),
        "two frames": (frame + frame, "damaged"),
        "skippable": (skippable, "skippable"),
        "skippable after": (frame + skippable, "damaged"),
        "size unknown": (zstandard.ZstdCompressor(write_content_size=False).compress(data), "at most 1000"),
        "size too small": (magic + b"\x20\x02" + block, "damaged"),
        "size too large": (magic + b"\x20\x04" + block, "damaged"),
        "checksum": (zstandard.ZstdCompressor(write_checksum=True).compress(data), "neither"),
        "dictionary": (magic + b"\x21\x07\x03" + block, "neither"),
        "dictionary 0": (magic + b"\x21\x00\x03" + block, "neither"),
        "window": (magic + b"\x80\x70" + (500).to_bytes(4, "little") + block, "window of 16777216"),
        "empty, long": (empty + b"\0", "blocks end at"),
        "empty, short": (empty[:-1], "blocks end at"),
        "empty, not empty": (magic + b"\x20\x00" + block, "empty raw block"),
    }


@pytest.mark.parametrize(("frame", "message"), zstd_frames().values(), ids=zstd_frames())
def test_zstd_refuses(frame, message):
    with pytest.raises(FormatError, match=message):
        unzstd(frame, 1000)


def test_zstd_takes_the_frame_by_hand():  # from which the refused ones differ
    assert unzstd(zstandard.FRAME_HEADER + b"\x20\x03\x19\0\0abc", 3) == b"abc"


def test_zstd_damage_is_never_another_exception():
    frame = compress(bytes(range(60)) * 2)
    for other in flips(frame):
        with suppress(FormatError):
            assert len(unzstd(other, 4096)) <= 4096
