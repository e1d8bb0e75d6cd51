"""Heads that a reader must refuse: prefix, header, segment table, and the order of checks.

In this and the other reject files all but the case is right, checksums included unless they are the case.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cases import Bad, add, base, both, large_line, poke, put, sample
from writer import Draft, Edit, encode
from writer_coding import crc32c

Header = dict[str, Any]


def prefix() -> Iterator[Bad]:
    def bad(name: str, rule: str, data: bytes, error: str = "format") -> Bad:
        return Bad(f"prefix_{name}", rule, data, error)

    def edited(name: str, rule: str, before: Edit) -> Bad:
        return bad(name, rule, base().build(before=before))

    right = base().build()
    yield bad("nothing", "R4.1a", b"")
    yield bad("cut", "R4.1a", right[:11])
    yield bad("magic", "R4.1a", base().build(magic=b"\x89CDF"))
    yield bad("newer_version", "R4.1b", base().build(version=1), "version")
    yield bad("newest_version", "R4.1b", base().build(version=255), "version")
    yield edited("data_start_0", "R4.1c", put(5, "<H", 0))
    yield edited("data_start_behind_the_prefix", "R4.1c", put(5, "<H", 12))
    yield edited("data_start_behind_the_end", "R4.1c", put(5, "<H", len(right) + 1))
    yield edited("data_start_largest", "R4.1c", put(4, "<I", 0xFFFFFF00))
    yield bad("head_crc", "R4.1d", base().build(after=poke("header", 1, 2)), "checksum")


def header() -> Iterator[Bad]:
    def changed(name: str, rule: str, change: Callable[[Header], Any], draft: Draft | None = None) -> Bad:
        draft = draft or base()
        change(draft.header)
        return Bad(f"header_{name}", rule, draft.build())

    def setting(key: str, value: Any) -> Callable[[Header], None]:
        return lambda header: header.__setitem__(key, value)

    def nothing() -> Draft:
        return encode(np.zeros((0, 2), "<u2"), "BF16", "bitmap", params={"order": "rows"})

    raw = base()
    packed, nnz = raw.packed(), raw.header["nnz"]
    at = packed.index(bytes([nnz, raw.header["negative_zeros"], 0x92]))  # nnz, negative_zeros, two streams
    assert packed.count(packed[at : at + 3]) == 1

    def spelled(name: str, written: bytes, rule: str = "R1a") -> Bad:
        return Bad(f"header_{name}", rule, raw.build(raw_header=written))

    yield spelled("integer_not_minimal", packed[:at] + bytes([0xCC, nnz]) + packed[at + 1 :])
    yield spelled("integer_of_8_bytes", packed[:at] + bytes([0xCF, *bytes(7), nnz]) + packed[at + 1 :])
    yield spelled("signed_integer", packed[:at] + bytes([0xD0, nnz]) + packed[at + 1 :])
    yield spelled("array_not_minimal", b"\xdc\0\x0a" + packed[1:])
    yield spelled("byte_after", packed + b"\xc0", "R4.3a")
    yield spelled("no_array", b"\x80", "R1b")
    yield spelled("of_no_bytes", b"", "R1b")
    yield spelled("longer_than_the_head", packed[:-1] + b"\x91\xc6\xff\xff\xff\xff", "R4.2a")
    yield changed("boolean_for_integer", "R1b", setting("row_dims", True))
    yield changed("float_for_integer", "R1b", setting("nnz", float(nnz)))
    yield changed("nil_for_integer", "R1b", setting("nnz", None))
    yield changed("string_for_integer", "R1b", setting("dtype", "bfloat16"))
    yield changed("negative_integer", "R1b", setting("negative_zeros", -1))
    yield changed("boolean_for_negative_zeros", "R1b", setting("negative_zeros", False))
    yield changed("shape_no_array", "R1b", lambda h: h.update(shape=65, segment=2))
    yield spelled("item_missing", b"\x99" + packed[1:-3], "R4.2b")
    yield spelled("item_too_many", b"\x9b" + packed[1:] + b"\0", "R4.2b")
    yield changed("dtype_unknown", "R4.2c", setting("dtype", 15))
    yield changed("layout_unknown", "R4.2c", setting("layout", 10))
    yield changed("dimensions_33", "R4.2d", lambda h: h.update(shape=[1] * 31 + [5, 13], row_dims=32))
    yield changed("row_dims_above_dimensions", "R4.2d", setting("row_dims", 3))
    yield changed("shape_product_overflow", "R4.2d", setting("shape", [2**32, 2**32]))
    yield changed("shape_of_empty_overflow", "R4.2d", setting("shape", [0, 2**62, 2]), nothing())
    yield changed("shape_bytes_overflow", "R4.2d", setting("shape", [2**31, 2**31]))
    yield changed("nnz_above_size", "R4.2e", setting("nnz", 66))
    yield changed("negative_zeros_above_zeros", "R4.2e", setting("negative_zeros", 66 - nnz))
    integers = encode(np.array([[1, 0]], "<i4"), "I32", "dense")
    yield changed("negative_zeros_of_integers", "R4.2e", setting("negative_zeros", 1), integers)
    yield changed("segment_of_empty_tensor", "R3a", setting("segment", 1), nothing())
    yield changed("pieces_of_empty_tensor", "R3a", setting("segment", [1]), nothing())
    yield changed("segment_of_all_rows", "R3a", setting("segment", 5), base(segment=(5, 13)))
    yield changed("segment_higher_than_tensor", "R3a", setting("segment", 6), base(segment=(5, 13)))
    yield changed("segment_of_all_columns", "R3a", setting("segment", [13]), base(segment=(1, 13)))
    yield changed("segment_wider_than_tensor", "R3a", setting("segment", [14]), base(segment=(1, 13)))
    yield changed("segment_of_no_columns", "R3a", setting("segment", [0]))
    yield changed("segment_of_two_sides", "R3a", setting("segment", [2, 13]))
    large = encode(np.zeros((1, 2**22 + 1), np.uint8), "U8", "csr", params={"index": 32, "of": "nonzeros"})
    yield Bad("header_segment_too_large", "R3b", large.build())
    yield changed("params_too_many", "R5a", setting("params", {"order": "rows", "words": 8}))
    yield changed("params_missing", "R5a", setting("params", {}))
    yield changed("params_unknown_value", "R5a", setting("params", {"order": 2}))
    yield changed("params_in_another_order", "R5a", setting("params", {"of": "nonzeros", "index": 8}), base("csr"))
    yield changed("index_0", "R5a", setting("params", {"index": 0, "of": "nonzeros"}), base("csr"))
    yield changed("index_boolean", "R5a", setting("params", {"index": True, "of": "nonzeros"}), base("csr"))
    yield changed("max_length_16", "R5a", setting("params", {"max_length": 16}), base("huffman"))
    wide = encode(sample((2, 300), "U8", 30), "U8", "csr", params={"index": 8, "of": "nonzeros"}, segment=(1, 256))
    yield changed("index_too_narrow", "R5.2a", setting("segment", [257]), wide)


def streams() -> Iterator[Bad]:
    def changed(name: str, rule: str, change: Callable[[list[Header]], Any], draft: Draft | None = None) -> Bad:
        draft = draft or base()
        change(draft.header["streams"])
        return Bad(f"stream_{name}", rule, draft.build())

    def coding(name: str, rule: str, number: int, value: Any, draft: Draft | None = None) -> Bad:
        return changed(name, rule, lambda found: found[number].update(coding=value), draft)

    alone = base()
    del alone.header["streams"][0], alone.parts[0]
    yield Bad("stream_missing", "R4.2f", alone.build())
    yield changed("too_many", "R4.2f", lambda found: found.append({"name": "more", "coding": "none"}))
    yield coding("unknown", "R4.2g", 1, 3)
    yield coding("boolean", "R1b", 1, False)
    yield changed("code_without_huffman", "R4.2g", lambda found: found[1].update(code={"low": 0}))
    yield coding("huffman_without_code", "R4.2g", 1, "huffman")
    yield changed("code_too_long", "R4.2g", lambda found: found[1]["code"].update(more=0), base("huffman"))
    yield changed(
        "none_in_layout_huffman",
        "R4.2g",
        lambda h: h.__setitem__(1, {"name": "values", "coding": "none"}),
        base("huffman"),
    )
    yield coding("columns_shared_and_coded", "R4.2g", 0, "zstd", base("blocks_columns"))
    yield coding("coded_of_context_coded", "R4.2g", 0, "zstd", base("context"))
    yield coding("of_no_coding", "R4.2g", 1, [])
    yield coding("in_an_array", "R4.2g", 1, [0])
    yield coding("nil", "R1b", 1, None)


def level(more: bytes = b"") -> Draft:
    """A frame of as many bytes of values as end on a multiple of 64, and so many more."""
    return encode(np.arange(1, 65 + len(more), dtype=np.uint8)[None], "U8", "dense")


def table() -> Iterator[Bad]:
    """The base frame has the parts mask, values of three segments, so part 3 are the values of the second."""

    def bad(name: str, rule: str, error: str = "format", draft: Draft | None = None, **edits: Any) -> Bad:
        return Bad(f"table_{name}", rule, (draft or base()).build(**edits), error)

    high = base()
    high.header.update(shape=[2**40, 13], segment=1)
    yield bad("too_large", "R4.3a", draft=high)
    most = base()
    most.header.update(shape=[2**62 // 13, 13], segment=1)
    yield bad("too_large_for_64_bits", "R4.3a", draft=most)
    less = base()
    less.header.update(shape=[4, 13])
    yield bad("record_too_many", "R4.3a", draft=less)
    yield bad("data_start_early", "R4.3a", before=add(5, "<B", -16))
    yield bad("data_start_late", "R4.3a", before=add(5, "<B", 8))
    yield bad("data_start_near_without_need", "R4.3a", draft=level(), far=8)
    yield bad("data_start_far_at_a_cost", "R4.3a", draft=level(b"8 bytes."), far=64)
    large = encode(large_line(), "U8", "dense")
    yield bad("data_start_near_of_a_large_frame", "R4.3a", draft=large, far=8)
    yield bad("padding_behind", "R4.3b", before=poke("start", 1, -1), draft=level())
    yield bad("part_longest", "R4.3c", before=put("record2", "<I", 2**32 - 1, 8))
    yield bad("last_part_into_the_tail", "R4.3c", before=add("record2", "<I", 64, 8))
    yield bad("no_tail", "R4.3c", tail=0)
    yield Bad("table_too_short", "R4.3e", base().build()[:-1])
    yield Bad("table_too_long", "R4.3e", base().build() + bytes(1))
    close = base("context")
    yield bad("data_start_of_a_layout_that_is_not_aligned", "R4.3a", draft=close, far=64)
    yield Bad("table_too_short_in_a_layout_that_is_not_aligned", "R4.3c", close.build()[:-1])
    yield bad("tail_of_a_layout_that_is_not_aligned", "R4.3e", draft=close, tail=64)
    nothing = encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, []))
    nothing.parts[1][0] = bytes(32)
    yield bad("part_of_an_empty_tensor", "R4.3d", draft=nothing)
    yield bad("tail_of_128", "R4.3e", tail=128)
    yield bad("part_longer", "R4.3e", before=add("record0", "<I", 64))
    yield bad("padding_after_parts", "R4.3f", before=poke("end", 1))
    yield bad("tail_bit", "R4.3f", before=poke("length", 128, -1))
    yield bad("part_crc", "R4.3g", "checksum", before=poke("record1", 1, 12))
    yield bad("part_byte", "R4.3g", "checksum", before=poke("part2", 1))
    yield bad("last_part_byte", "R4.3g", "checksum", before=poke("part5", 128))
    # Sums and padded ends stay right, so that only the CRC shows it.
    moved = both(add("record0", "<I", 1, 8), add("record1", "<I", -1, 8))
    yield bad("parts_of_other_lengths", "R4.3g", "checksum", before=moved)
    empty = encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, []))
    yield bad("crc_of_no_bytes", "R4.3g", "checksum", empty, before=poke("record0", 1, 4))
    yield bad("padding_of_a_part", "R4.3h", before=poke("part1", 1, -1))
    yield bad("padding_of_the_last_part", "R4.3h", before=poke("end", 1, -1))
    shared = encode(np.full((4, 5), 7, np.uint8), "U8", "bitmap", params={"order": "rows"}, book=(1, 0, [[7]]))
    yield bad("padding_of_a_shared_part", "R4.3h", draft=shared, before=poke("part1", 1, -1))


def broken_mask(frame: bytearray, marks: dict[str, int]) -> None:
    """A padding bit in the first segment's mask of 26 bits, and the CRC of that."""
    frame[marks["part0"] + 3] |= 0x80
    crc = crc32c(bytes(frame[marks["part0"] : marks["part0"] + 4]))
    struct.pack_into("<I", frame, marks["record0"] + 4, crc)


def broken_book(frame: bytearray, marks: dict[str, int]) -> None:
    """Another first entry of a codebook of 16 bytes, and the CRC of that."""
    frame[marks["part0"]] |= 1
    struct.pack_into("<I", frame, marks["record0"] + 4, crc32c(bytes(frame[marks["part0"] : marks["part0"] + 16])))


def order() -> Iterator[Bad]:
    """Two faults in one frame: the one that an earlier step of 4.4 finds names the class of error."""

    def bad(name: str, error: str, data: bytes) -> Bad:
        return Bad(f"order_{name}", "R4.4b", data, error)

    def edited(name: str, error: str, first: Edit, second: Edit, draft: Draft | None = None) -> Bad:
        return bad(name, error, (draft or base()).build(before=both(first, second)))

    yield bad("magic_before_version", "format", base().build(magic=b"\x89CDF", version=1))
    yield bad("version_before_length", "version", base().build(version=1)[:-1])
    yield bad("head_crc_before_length", "checksum", base().build(after=poke("header", 1)) + bytes(1))
    yield bad("data_start_before_head_crc", "format", base().build(after=put(5, "<H", 0)))
    yield bad("head_crc_before_header", "checksum", base().build(after=poke("header", 1)))
    yield bad("head_crc_before_table", "checksum", base().build(after=poke("record1", 8)))
    wrong = base()
    wrong.header["layout"] = 10
    yield bad("header_before_part_crc", "format", wrong.build(before=poke("part0", 1)))
    yield edited("table_before_part_crc", "format", add("record0", "<I", 64), poke("part0", 1))
    yield edited("tail_before_part_crc", "format", poke("length", 1, -1), poke("part0", 1))
    yield edited("part_crc_before_its_padding", "checksum", poke("part0", 1), poke("part1", 1, -1))
    yield edited("padding_before_next_part_crc", "format", poke("part1", 1, -1), poke("part1", 1))
    yield edited("part_crcs_before_items", "checksum", broken_mask, poke("part1", 1))
    yield edited("items_before_next_segment_crc", "format", broken_mask, poke("part2", 1))
    coded = base(codings={"values": "zstd"})
    yield edited("items_before_next_segment_crc_with_zstd", "format", broken_mask, poke("part2", 1), coded)
    book = encode(np.array([[0, 7], [7, 0]], "<u8"), "U64", "dense", segment=(1, 2), book=(1, 0, [[0, 7]]))
    yield edited("shared_part_crc_before_segment", "checksum", poke("part0", 1), poke("part1", 1, 7), book)
    yield edited("shared_items_before_segment_crc", "format", broken_book, poke("part1", 1), book)
    last = base()
    last.header["nnz"] += 1
    yield bad("last_part_crc_before_nnz", "checksum", last.build(before=poke("part5", 1)))


def head_cases() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (prefix, header, streams, table, order):
        yield from group()
