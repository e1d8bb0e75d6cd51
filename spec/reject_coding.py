"""Parts that a reader must refuse: the entropy stage, its codes, and values by codebook."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import zstandard
from cases import PADDED, VARIANTS, Bad, base, book_of, few
from reject_layouts import Change, with_parts
from writer import Draft, encode
from writer_coding import coded_part, count_bits, nibbles, rans_part, zstd_part
from writer_context import joined

CODED = {"values": "huffman"}
RANS = {"values": "rans"}


def zstd() -> Iterator[Bad]:
    """Single-segment frames: descriptor at byte 4, content size at byte 5, block header at 6, contents from 9."""

    def bad(name: str, rule: str, change: Change) -> Bad:
        return Bad(f"zstd_{name}", rule, with_parts("bitmap", 1, 0, change, codings={"values": "zstd"}))

    yield bad("contents_of_another_size", "R6.1b", lambda data: zstd_part(data[9:] + b"\0\0"))
    yield bad("content_size_less", "R6.1b", lambda data: data[:5] + bytes([data[5] - 2]) + data[6:])
    yield bad("content_size_more", "R6.1b", lambda data: data[:5] + bytes([data[5] + 2]) + data[6:])
    yield bad("content_size_missing", "R6.1b", lambda data: data[:4] + b"\0\0" + data[6:])
    yield bad("byte_after", "R6.1a", lambda data: data + b"\0")
    yield bad("two_frames", "R6.1a", lambda data: zstd_part(data[9:]) + zstd_part(b""))
    yield bad("skippable_frame_after", "R6.1a", lambda data: data + b"\x50\x2a\x4d\x18\0\0\0\0")
    yield bad("skippable_frame_before", "R6.1a", lambda data: b"\x50\x2a\x4d\x18\0\0\0\0" + data)
    yield bad("cut", "R6.1a", lambda data: data[:-1])
    yield bad("empty", "R6.1a", lambda data: b"")
    yield bad("no_zstd", "R6.1a", lambda data: data[9:])
    yield bad("reserved_block", "R6.1a", lambda data: data[:6] + bytes([data[6] | 6]) + data[7:])
    yield bad("dictionary", "R6.1c", lambda data: data[:4] + b"\x21\x07" + data[5:])
    for flag, size in ((1, 1), (2, 2), (3, 4)):
        field = bytes([0x20 | flag, *bytes(size)])
        yield bad(f"dictionary_0_of_{size}_bytes", "R6.1c", lambda data, field=field: data[:4] + field + data[5:])
    checked = zstandard.ZstdCompressor(write_checksum=True)
    yield bad("checksum", "R6.1d", lambda data: data[:4] + b"\x24" + data[5:] + checked.compress(data[9:])[-4:])
    yield bad("window_too_large", "R6.1e", lambda data: data[:4] + b"\x80\x70" + struct.pack("<I", data[5]) + data[6:])
    # The window may be as large as the items, not as a segment of many zeros.
    gaps = {"bits": 4, "filler": "escape", "of": "nonzeros"}
    one = np.eye(1, 2**21, dtype=np.uint64)
    long = encode(one, "U64", "relative_index", params=gaps, codings={"values": "zstd"})
    right = long.parts[1][0]
    long.parts[1][0] = right[:4] + b"\x80\x70" + struct.pack("<I", right[5]) + right[6:]
    yield Bad("zstd_window_above_the_items", "R6.1e", long.build())
    for stream, variant in (("steps", "relative"), ("words", "run_length")):
        many = with_parts(variant, 0, 0, lambda data: zstd_part(bytes(1 << 12)), codings={stream: "zstd"})
        yield Bad(f"zstd_too_many_{stream}", "R6.1b", many)
    nothing = encode(np.zeros((2, 2), np.uint8), "U8", "bitmap", params={"order": "rows"}, codings={"values": "zstd"})
    # Two empty blocks; a compressed one in place of the raw one.
    for name, blocks in (("two_blocks", b"\0\0\0\1\0\0"), ("a_block_of_runs", b"\3\0\0\0"), ("no_block", b"")):
        nothing.parts[1][0] = zstd_part(b"")[:-3] + blocks
        yield Bad(f"zstd_without_items_{name}", "R6.1f", nothing.build())


def codes() -> Iterator[Bad]:
    def bad(name: str, rule: str, lengths: Any, **others: Any) -> Bad:
        draft = base(codings=CODED)
        draft.header["streams"][1]["code"].update(lengths=lengths, **others)
        return Bad(f"code_{name}", rule, draft.build())

    yield bad("symbols_outside_keys", "R6.3a", nibbles([1, 1]), low=0, zeros=0, first=2**15 - 1)
    yield bad("first_largest", "R6.3a", nibbles([1, 1]), first=2**63 - 1)
    yield bad("more_raw_bits_than_key", "R6.3a", b"\0", low=16, zeros=0, first=0)
    yield bad("of_no_key_bits", "R6.3a", b"\0", low=15, zeros=0, first=0)
    yield bad("low_and_zeros_overflow", "R6.3a", b"\0", low=2**62, zeros=2**62, first=0)
    ladder = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([*range(1, 14), 13])}
    deep = encode(np.arange(14, dtype=np.uint8)[None], "U8", "dense", codings=CODED, codes={"values": ladder})
    yield Bad("code_words_of_13_bits", "R6.3e", deep.build())
    yield bad("low_negative", "R1b", nibbles([1, 1]), low=-1)
    yield bad("lengths_no_bin", "R1b", [17])
    wide = encode(np.array([[1, 2]], "<u8"), "F64", "dense", codings=CODED, codes={"values": {"low": 55}})
    wide.header["streams"][0]["code"]["low"] = 56
    yield Bad("code_raw_field_of_57_bits", "R6.3b", wide.build())
    yield bad("no_lengths", "R6.3c", b"")
    yield bad("of_258_symbols", "R6.3c", nibbles([1, *[0] * 256, 1]))
    yield bad("first_symbol_without_length", "R6.3c", nibbles([0, 1, 1]))
    yield bad("last_symbol_without_length", "R6.3c", nibbles([1, 1, 0, 0]))
    yield bad("single_symbol_twice", "R6.3c", b"\0\0")
    yield bad("incomplete", "R6.3d", nibbles([2, 2, 2]))
    yield bad("incomplete_single", "R6.3d", nibbles([1]))
    yield bad("overfull", "R6.3d", nibbles([1, 1, 1]))
    yield bad("overfull_then_complete", "R6.3d", nibbles([1, 2, 2, 2]))
    # Right in all but that the header says 8: the gaps are 1, with a word of 2 bits.
    ladder = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([*range(1, 10), 9])}
    spread = np.array([[0, 5] * 9], np.uint8)
    longer = encode(spread, "U8", "huffman", params={"max_length": 9}, codes={"gaps": ladder})
    longer.header["params"]["max_length"] = 8
    yield Bad("code_longer_than_max_length", "R5.4d", longer.build())


def count(change: int) -> Change:
    """Another number of items at the beginning of a part."""
    return lambda data: struct.pack("<I", struct.unpack_from("<I", data)[0] + change) + data[4:]


def coded() -> Iterator[Bad]:
    def bad(name: str, rule: str, change: Change) -> Bad:
        return Bad(f"coded_{name}", rule, with_parts("bitmap", 1, 0, change, codings=CODED))

    def track(number: int, change: int) -> Change:
        def edit(data: bytes) -> bytes:
            sizes = list(struct.unpack_from("<IIII", data))
            sizes[1 + number] = (sizes[1 + number] + change) % 2**32
            return struct.pack("<IIII", *sizes) + data[16:]

        return edit

    def longer_track(data: bytes) -> bytes:
        size = struct.unpack_from("<I", data, 4)[0]
        return track(0, 1)(data[: 16 + size] + b"\0" + data[16 + size :])

    yield bad("count_more", "R6.4a", count(1))
    yield bad("count_less", "R6.4a", count(-1))
    yield bad("count_largest", "R6.4a", lambda data: b"\xff" * 4 + data[4:])
    empty = base(codings=CODED)
    empty.parts[1][1] = bytes(16)
    yield Bad("coded_part_without_its_items", "R6.4a", empty.build())
    yield bad("cut_in_header", "R6.4b", lambda data: data[:15])
    yield bad("empty", "R6.4b", lambda data: b"")
    yield bad("byte_after", "R6.4b", lambda data: data + b"\0")
    yield bad("byte_missing", "R6.4b", lambda data: data[:-1])
    yield bad("track_with_a_byte_too_many", "R6.4b", longer_track)
    yield bad("track_beyond_part", "R6.4b", track(1, 1 << 20))
    yield bad("tracks_overflow", "R6.4b", track(2, -(1 << 20)))
    yield bad("track_boundary_moved", "R6.4b", track(0, -1))
    nothing = encode(np.zeros((2, 2), np.uint8), "U8", "bitmap", params={"order": "rows"}, codings=CODED)
    nothing.parts[1][0] += b"\0"
    yield Bad("coded_bytes_without_items", "R6.4b", nothing.build())
    # Five items with words of 2 bits: track 0 has 4 bits, the others 2; then 5 raw fields of 3 bits.
    small = np.array([[0, 8, 16, 24, 1]], np.uint8)
    given = {"values": {"low": 3, "zeros": 0, "first": 0, "lengths": nibbles([2, 2, 2, 2])}}
    for name, byte in (("track", 16), ("last_track", 19), ("raw_fields", -1)):
        draft = encode(small, "U8", "dense", codings=CODED, codes=given)
        data = bytearray(draft.parts[0][0])
        data[byte] |= 128
        draft.parts[0][0] = bytes(data)
        yield Bad(f"coded_padding_in_{name}", "R6.4c", draft.build())
    # The limits of the streams whose number of items is in the part.
    flat = {"low": 0, "zeros": 0, "first": 0, "lengths": b"\x88" * 128}
    draft = base("relative", codings={"steps": "huffman"}, codes={"steps": flat})
    draft.parts[0][0] = coded_part([0] * (4 + 10 + 1), 8, "unsigned", flat)  # 26 steps of 3 bits are 10 bytes
    yield Bad("coded_too_many_steps", "R6.4a", draft.build())
    single = {"low": 0, "zeros": 0, "first": 0, "lengths": b"\0"}
    draft = base("run_length", codings={"words": "huffman"}, codes={"words": {"low": 56, "zeros": 0}})
    draft.header["streams"][0]["code"] = single
    draft.parts[0] = [coded_part([0] * count, 64, "unsigned", single) for count in (10, 9, 5)]  # 26 elements: 9 words
    yield Bad("coded_too_many_words", "R6.4a", draft.build())


def counts() -> Iterator[Bad]:
    """Tables of coding rans."""

    def bad(name: str, rule: str, **changed: Any) -> Bad:
        draft = base(codings=RANS)
        draft.header["streams"][1]["code"].update(changed)
        return Bad(f"counts_{name}", rule, draft.build())

    halves = {"low": 0, "zeros": 0, "counts": count_bits([2048, 2048])}
    yield bad("symbols_outside_keys", "R6.3a", first=2**15 - 1, **halves)
    yield bad("of_no_key_bits", "R6.3a", low=15, zeros=0, first=0, counts=count_bits([4096]))
    wide = encode(np.array([[1, 2]], "<u8"), "F64", "dense", codings=RANS, codes={"values": {"low": 55}})
    wide.header["streams"][0]["code"]["low"] = 56
    yield Bad("counts_raw_field_of_57_bits", "R6.3b", wide.build())
    yield bad("no_bin", "R1b", counts=[17])
    yield bad("lanes_negative", "R1b", lanes=-1)
    yield bad("32_lanes", "R6.6a", lanes=5)
    yield bad("no_bytes", "R6.6b", counts=b"")
    yield bad("cut", "R6.6b", counts=count_bits([2048, 2048])[:-1])
    yield bad("byte_after", "R6.6b", counts=count_bits([2048, 2048]) + b"\0")
    # Two symbols of order 7: 8 + 3 + 20 bits and 8 more, one short of five bytes.
    short = count_bits([2048, 2048])
    yield bad("padding", "R6.6b", counts=short[:-1] + bytes([short[-1] | 128]))
    yield bad("number_of_41_zeros", "R6.6b", counts=joined([(0, 8), (0, 3), (0, 41), (1, 1), (0, 41)]))
    yield bad("below_0", "R6.6c", counts=count_bits([2048, -1, 2049]))
    yield bad("above_4096", "R6.6c", counts=count_bits([4097, 4096]))
    yield bad("sum_less", "R6.6c", counts=count_bits([2048, 2047]))
    yield bad("sum_more", "R6.6c", counts=count_bits([2048, 2049]))
    yield bad("first_symbol_0", "R6.6c", counts=count_bits([0, 4096]))
    yield bad("last_symbol_0", "R6.6c", counts=count_bits([4096, 0]))
    draft = base(codings=RANS)
    draft.header["streams"][1]["code"].pop("lanes")
    yield Bad("counts_item_missing", "R4.2g", draft.build())


def states() -> Iterator[Bad]:
    """Parts of coding rans: n, two states, words, raw fields."""

    def bad(name: str, rule: str, change: Change) -> Bad:
        return Bad(f"rans_{name}", rule, with_parts("bitmap", 1, 0, change, codings=RANS))

    def state(lane: int, value: int) -> Change:
        at = 4 + 4 * lane
        return lambda data: data[:at] + struct.pack("<I", value) + data[at + 4 :]

    yield bad("count_more", "R6.6d", count(1))
    yield bad("count_less", "R6.6d", count(-1))
    yield bad("count_largest", "R6.6d", lambda data: b"\xff" * 4 + data[4:])
    draft = base("relative", codings={"steps": "rans"})
    code = {"low": 0, "zeros": 0, "first": 0, "lanes": 0, "counts": [16] * 256}
    draft.header["streams"][0]["code"] = code | {"counts": count_bits(code["counts"])}
    # 26 steps of 3 bits are 10 bytes.
    draft.parts[0] = [rans_part([0] * (4 + 10 + 1), 8, "unsigned", code) for _ in draft.parts[0]]
    yield Bad("rans_too_many_steps", "R6.6d", draft.build())
    yield bad("cut_in_count", "R6.6e", lambda data: data[:3])
    yield bad("cut_in_states", "R6.6e", lambda data: data[:11])
    yield bad("byte_after", "R6.6e", lambda data: data + b"\0")
    yield bad("byte_missing", "R6.6e", lambda data: data[:-1])
    yield bad("state_of_65535", "R6.6f", state(1, 65535))
    yield bad("state_of_0", "R6.6f", state(0, 0))
    yield bad("word_missing", "R6.6g", lambda data: data[:12] + data[14:])
    yield bad("word_too_many", "R6.6g", lambda data: data[:12] + b"\0\0" + data[12:])
    empty = base(codings=RANS)
    empty.parts[1][1] = bytes(4)
    yield Bad("rans_part_without_its_items", "R6.6d", empty.build())
    nothing = encode(np.zeros((2, 2), np.uint8), "U8", "bitmap", params={"order": "rows"}, codings=RANS)
    nothing.parts[1][0] += b"\0\0"
    yield Bad("rans_word_without_items", "R6.6g", nothing.build())
    # One symbol of two lanes takes no word, so a state above 65536 stays what it is.
    single = encode(np.full((1, 5), 7, np.uint8), "U8", "dense", codings=RANS)
    single.parts[0][0] = state(1, 65537)(single.parts[0][0])
    yield Bad("rans_state_left_over", "R6.6g", single.build())
    # Five raw fields of 3 bits leave one.
    given = {"values": {"low": 3, "zeros": 0}}
    draft = encode(np.array([[0, 8, 16, 24, 1]], np.uint8), "U8", "dense", codings=RANS, codes=given)
    draft.parts[0][0] = draft.parts[0][0][:-1] + bytes([draft.parts[0][0][-1] | 128])
    yield Bad("rans_padding", "R6.6h", draft.build())


def codebooks() -> Iterator[Bad]:
    def made(variant: str, **options: Any) -> Draft:
        layout, params = VARIANTS[variant]
        bits = few((5, 13), "BF16", 5, seed=9)
        given = book_of(bits, 3, 0, zero=variant in PADDED)
        return encode(bits, "BF16", layout, params=params, segment=(2, 13), book=given, **options)

    def bad(name: str, rule: str, change: Callable[[Draft], Any], draft: Draft | None = None) -> Bad:
        draft = draft or made("bitmap")
        change(draft)
        return Bad(f"codebook_{name}", rule, draft.build())

    def values(**changed: Any) -> Callable[[Draft], None]:
        return lambda draft: draft.header["values"].update(changed)

    def part(stream: int, number: int, change: Change) -> Callable[[Draft], None]:
        def edit(draft: Draft) -> None:
            draft.parts[stream][number] = change(draft.parts[stream][number])

        return edit

    yield bad("item_too_many", "R7.2a", values(entries=8))
    yield bad("item_missing", "R7.2a", lambda draft: draft.header["values"].pop("group_rows"))
    yield bad("bits_boolean", "R1b", values(bits=True))
    yield bad("bits_0", "R7.2a", values(bits=0))
    yield bad("bits_9", "R7.2a", values(bits=9))
    yield bad("group_rows_all", "R7.2a", values(group_rows=5))
    yield bad("group_rows_negative", "R1b", values(group_rows=-1))
    nothing = encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, []))
    yield bad("group_rows_of_empty", "R7.2a", values(group_rows=1), nothing)
    yield bad("raw_with_labels", "R4.2f", lambda draft: draft.header.update(values={"coding": "raw"}))
    yield bad("stream_missing", "R4.2f", lambda draft: (draft.header["streams"].pop(), draft.parts.pop()))
    yield bad("shared_and_coded", "R4.2g", lambda draft: draft.header["streams"][-1].update(coding="zstd"))
    yield bad("bits_other", "R7.2b", values(bits=4))
    yield bad("group_rows_other", "R7.2b", values(group_rows=3))
    yield bad("entry_missing", "R7.2b", part(-1, 0, lambda data: data[:-2]))
    yield bad("entry_too_many", "R7.2b", part(-1, 0, lambda data: data + b"\0\0"))
    for variant in PADDED:
        yield bad(f"{variant}_entry_0", "R7.2c", part(-1, 0, lambda data: b"\1" + data[1:]), made(variant))
    yield bad("labels_missing", "R7.2d", part(1, 0, lambda data: data[:-1]))
    yield bad("labels_byte_after", "R7.2d", part(1, 0, lambda data: data + b"\0"))
    yield bad("dense_labels_missing", "R7.2d", part(0, 1, lambda data: data[:-1]), made("dense"))
    # 13 labels of 3 bits leave one bit, 13 of 1 bit as many as 3 labels.
    padding = part(0, 2, lambda data: data[:-1] + bytes([data[-1] | 128]))
    yield bad("labels_padding", "R7.2d", padding, made("dense"))
    single = few((5, 13), "BF16", 1, seed=9)
    narrow = encode(single, "BF16", "dense", segment=(2, 13), book=book_of(single, 1, 0, zero=True))
    yield bad("labels_padding_of_a_whole_label", "R7.2d", padding, narrow)
    for variant in ("dense", "csr", "huffman"):
        draft = made(variant, codings={"labels": "huffman"})
        flat = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([4] * 16)}
        stream = next(one for one in draft.header["streams"] if one["name"] == "labels")
        number = draft.header["streams"].index(stream)
        stream["code"] = flat
        draft.parts[number] = [coded_part([1], 8, "unsigned", flat) for _ in draft.parts[number]]
        yield Bad(f"codebook_{variant}_label_above_bits", "R7.2e", draft.build())
    # Six pairs of 13 bits would not fit, four of 5 + 8 do: the top bit of the first label.
    words = part(0, 0, lambda data: data[:1] + bytes([data[1] | 0x10]) + data[2:])
    yield bad("label_above_bits_in_words", "R7.2f", words, made("run_length"))
    yield bad("nnz_more", "R4.4a", lambda draft: draft.header.update(nnz=draft.header["nnz"] + 1))


def coding_bads() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (zstd, codes, coded, counts, states, codebooks):
        yield from group()
