"""Heads that a reader must refuse: prefix, header, segment table, and the order of checks.

In this and the other reject files all but the case is right, checksums included unless they are the case.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
from cases import Bad, add, base, both, poke, put, sample
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
    yield bad("cut", "R4.1a", right[:35])
    yield bad("magic", "R4.1a", base().build(magic=b"\x89CDCF\n\x1a\n"))
    yield bad("newer_version", "R4.1b", base().build(version=1), "version")
    yield bad("newest_version", "R4.1b", base().build(version=2**32 - 1), "version")
    yield bad("too_short", "R4.1c", right[:-64])
    yield bad("too_long", "R4.1c", right + bytes(64))

    def odd(frame: bytearray, marks: dict[str, int]) -> None:
        frame[16:24] = struct.pack("<Q", len(frame) + 1)
        frame += b"\0"

    yield edited("length_no_multiple_of_64", "R4.1c", odd)
    yield edited("data_start_no_multiple_of_64", "R4.1d", add(24, "<Q", 8))
    yield edited("data_start_in_the_tail", "R4.1d", put(24, "<Q", len(right)))
    yield edited("data_start_largest", "R4.1d", put(24, "<Q", 2**64 - 64))
    yield edited("data_start_0", "R4.1e", put(24, "<Q", 0))
    yield edited("header_beyond_data_start", "R4.1e", put(12, "<I", len(right)))
    yield edited("header_length_largest", "R4.1e", put(12, "<I", 2**32 - 1))
    yield bad("head_crc", "R4.1f", base().build(after=poke("header", 1, -4)), "checksum")


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
    raw.build()
    packed, nnz = msgpack.packb(raw.header), raw.header["nnz"]
    at = packed.index(b"\xa3nnz") + 4

    def spelled(name: str, written: bytes, rule: str = "R1a") -> Bad:
        return Bad(f"header_{name}", rule, raw.build(raw_header=written))

    yield spelled("integer_not_minimal", packed[:at] + bytes([0xCC, nnz]) + packed[at + 1 :])
    yield spelled("integer_of_8_bytes", packed[:at] + bytes([0xCF, *bytes(7), nnz]) + packed[at + 1 :])
    yield spelled("signed_integer", packed[:at] + bytes([0xD0, nnz]) + packed[at + 1 :])
    yield spelled("string_not_minimal", packed[:1] + b"\xd9\x05" + packed[2:])
    yield spelled("string_no_utf_8", packed.replace(b"BF16", b"BF\xff6"))
    yield spelled("map_not_minimal", b"\xde\0\x0b" + packed[1:])
    yield spelled("byte_after", packed + b"\xc0")
    yield spelled("cut", packed[:-1])
    again = packed[:at] + packed[at : at + 1] + b"\xa3nnz" + packed[at:]
    yield spelled("key_twice", b"\x8c" + again[1:])
    yield spelled("no_map", b"\x90", "R1b")
    yield spelled("of_no_bytes", b"")
    yield changed("boolean_for_integer", "R1b", setting("row_dims", True))
    yield changed("float_for_integer", "R1b", setting("nnz", float(nnz)))
    yield changed("negative_integer", "R1b", setting("negative_zeros", -1))
    long = base()
    long.lengths["mask"] = 2**63
    yield Bad("header_integer_above_limit", "R1b", long.build())
    yield changed("shape_no_array", "R1b", setting("shape", 65))
    yield changed("unknown_key", "R4.2a", setting("more", 0))
    yield changed("key_missing", "R4.2a", lambda h: h.pop("negative_zeros"))
    yield changed("keys_in_another_order", "R4.2a", lambda h: h.update(streams=h.pop("streams"), nnz=h.pop("nnz")))
    yield changed("dtype_unknown", "R4.2b", setting("dtype", "F4"))
    yield changed("layout_unknown", "R4.2b", setting("layout", "coo"))
    yield changed("zero_unknown", "R4.2b", setting("zero", "bit"))
    yield changed("dimensions_33", "R4.2c", lambda h: h.update(shape=[1] * 31 + [5, 13], row_dims=32))
    yield changed("row_dims_above_dimensions", "R4.2c", setting("row_dims", 3))
    yield changed("shape_product_overflow", "R4.2c", setting("shape", [2**32, 2**32]))
    empty = {"shape": [0, 2**62, 2], "segment": [0, 0]}
    yield changed("shape_of_empty_overflow", "R4.2c", lambda h: h.update(empty), nothing())
    yield changed("shape_bytes_overflow", "R4.2c", setting("shape", [2**31, 2**31]))
    yield changed("nnz_above_size", "R4.2d", setting("nnz", 66))
    yield changed("negative_zeros_above_zeros", "R4.2d", setting("negative_zeros", 66 - nnz))
    yield changed("negative_zeros_under_bits", "R4.2d", setting("negative_zeros", 1), base(zero="bits"))
    integers = encode(np.array([[1, 0]], "<i4"), "I32", "dense")
    yield changed("negative_zeros_of_integers", "R4.2d", setting("negative_zeros", 1), integers)
    yield changed("segment_of_no_rows", "R3a", setting("segment", [0, 13]))
    yield changed("segment_of_empty_tensor", "R3a", setting("segment", [1, 2]), nothing())
    yield changed("segment_higher_than_tensor", "R3a", setting("segment", [6, 13]), base(segment=(5, 13)))
    yield changed("segment_wider_than_tensor", "R3a", setting("segment", [1, 14]), base(segment=(1, 13)))
    yield changed("segment_no_range", "R3a", setting("segment", [2, 7]))
    yield changed("segment_of_three_sides", "R3a", setting("segment", [2, 13, 1]))
    large = encode(np.zeros((1, 2**22 + 1), np.uint8), "U8", "csr", params={"index": 32, "of": "nonzeros"})
    yield Bad("header_segment_too_large", "R3b", large.build())
    yield changed("params_unknown_key", "R5a", setting("params", {"order": "rows", "words": 8}))
    yield changed("params_missing", "R5a", setting("params", {}))
    yield changed("params_unknown_value", "R5a", setting("params", {"order": "columns"}))
    swapped = {"of": "nonzeros", "index": 8}
    yield changed("params_in_another_order", "R5a", setting("params", swapped), base("csr"))
    yield changed("index_0", "R5a", setting("params", {"index": 0, "of": "nonzeros"}), base("csr"))
    yield changed("index_boolean", "R5a", setting("params", {"index": True, "of": "nonzeros"}), base("csr"))
    yield changed("max_length_16", "R5a", setting("params", {"max_length": 16}), base("huffman"))
    wide = encode(sample((2, 300), "U8", 30), "U8", "csr", params={"index": 8, "of": "nonzeros"}, segment=(1, 256))
    yield changed("index_too_narrow", "R5.2a", setting("segment", [1, 257]), wide)


def streams() -> Iterator[Bad]:
    def changed(name: str, rule: str, change: Callable[[list[Header]], Any], draft: Draft | None = None) -> Bad:
        draft = draft or base()
        change(draft.header["streams"])
        return Bad(f"stream_{name}", rule, draft.build())

    alone = base()
    del alone.header["streams"][0], alone.parts[0]
    yield Bad("stream_missing", "R4.2e", alone.build())
    yield changed("in_another_order", "R4.2e", lambda found: found.reverse())
    yield changed("of_another_name", "R4.2e", lambda found: found[1].update(name="codes"))
    yield changed("key_unknown", "R4.2a", lambda found: found[0].update(level=3))
    yield changed("code_without_huffman", "R4.2a", lambda found: found[1].update(code={}))
    yield changed("huffman_without_code", "R4.2a", lambda found: found[1].update(coding="huffman"))
    coded = base("huffman").header["streams"][1]["code"]
    swapped = dict(sorted(coded.items()))
    yield changed("code_keys_in_another_order", "R1a", lambda found: found[1].update(code=swapped), base("huffman"))
    yield changed("coding_unknown", "R4.2f", lambda found: found[1].update(coding="rans"))
    plain = {"name": "values", "length": 0, "coding": "none"}
    yield changed("none_in_layout_huffman", "R4.2f", lambda found: found.__setitem__(1, plain), base("huffman"))
    columns = base("blocks_columns")
    yield changed("columns_shared_and_coded", "R4.2f", lambda found: found[0].update(coding="zstd"), columns)


def table() -> Iterator[Bad]:
    """The base frame has the parts mask, values of three segments, so part 3 are the values of the second."""

    def bad(name: str, rule: str, error: str = "format", draft: Draft | None = None, **edits: Any) -> Bad:
        return Bad(f"table_{name}", rule, (draft or base()).build(**edits), error)

    yield bad("data_start_early", "R4.3a", before=add(24, "<Q", -64))
    yield bad("data_start_late", "R4.3a", before=add(24, "<Q", 64))
    high = base()
    high.header.update(shape=[2**40, 13], segment=[1, 13])
    yield bad("too_large", "R4.3a", draft=high)
    most = base()
    most.header.update(shape=[2**62 // 13, 13], segment=[1, 13])
    yield bad("too_large_for_64_bits", "R4.3a", draft=most)
    yield bad("padding_before", "R4.3b", before=poke("pad", 1))
    yield bad("padding_after", "R4.3b", before=poke("start", 1, -1))
    yield bad("first_record_late", "R4.3c", before=add("record0", "<Q", 64))
    yield bad("record_early", "R4.3c", before=add("record1", "<Q", -8))
    yield bad("record_late", "R4.3c", before=add("record1", "<Q", 8))
    yield bad("record_not_aligned", "R4.3c", before=add("record2", "<Q", 1))
    yield bad("offset_wraps", "R4.3c", before=add("record2", "<Q", -(2**62)))
    yield bad("part_longest", "R4.3d", before=put("record2", "<I", 2**32 - 1, 16))
    yield bad("last_part_into_the_tail", "R4.3d", before=add("record2", "<I", 64, 16))
    yield bad("part_longer", "R4.3e", before=add("record0", "<I", 1, 8))
    yield bad("part_shorter", "R4.3e", before=add("record0", "<I", -1, 8))
    for name, lengths in (("beyond_frame", {"values": 2**62}), ("0", {"mask": 0}), ("less", {"values": 1})):
        draft = base()
        draft.lengths = lengths
        yield bad(f"stream_length_{name}", "R4.3e", draft=draft)
    nothing = encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, []))
    nothing.parts[1][0] = bytes(32)
    yield bad("part_of_an_empty_tensor", "R4.3f", draft=nothing)
    yield bad("no_tail", "R4.3g", tail=0)
    yield bad("tail_of_128", "R4.3g", tail=128)
    yield bad("padding_after_parts", "R4.3h", before=poke("end", 1))
    yield bad("tail_bit", "R4.3h", before=poke("length", 128, -1))
    yield bad("part_crc", "R4.3i", "checksum", before=poke("record1", 1, 20))
    yield bad("part_byte", "R4.3i", "checksum", before=poke("part2", 1))
    yield bad("last_part_byte", "R4.3i", "checksum", before=poke("part5", 128))
    # Sums and padded ends stay right, so that only the CRC shows it.
    moved = both(add("record0", "<I", 1, 16), add("record1", "<I", -1, 16))
    yield bad("parts_of_other_lengths", "R4.3i", "checksum", before=moved)
    empty = encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, []))
    yield bad("crc_of_no_bytes", "R4.3i", "checksum", empty, before=poke("record0", 1, 12))
    yield bad("padding_of_a_part", "R4.3j", before=poke("part1", 1, -1))
    yield bad("padding_of_the_last_part", "R4.3j", before=poke("end", 1, -1))
    shared = encode(np.full((4, 5), 7, np.uint8), "U8", "bitmap", params={"order": "rows"}, book=(1, 0, [[7]]))
    yield bad("padding_of_a_shared_part", "R4.3j", draft=shared, before=poke("part1", 1, -1))


def broken_mask(frame: bytearray, marks: dict[str, int]) -> None:
    """A padding bit in the first segment's mask of 26 bits, and the CRC of that."""
    frame[marks["part0"] + 3] |= 0x80
    crc = crc32c(bytes(frame[marks["part0"] : marks["part0"] + 4]))
    struct.pack_into("<I", frame, marks["record0"] + 12, crc)


def broken_book(frame: bytearray, marks: dict[str, int]) -> None:
    """Another first entry of a codebook of 16 bytes, and the CRC of that."""
    frame[marks["part0"]] |= 1
    struct.pack_into("<I", frame, marks["record0"] + 12, crc32c(bytes(frame[marks["part0"] : marks["part0"] + 16])))


def order() -> Iterator[Bad]:
    """Two faults in one frame: the one that an earlier step of 4.4 finds names the class of error."""

    def bad(name: str, error: str, data: bytes) -> Bad:
        return Bad(f"order_{name}", "R4.4b", data, error)

    def edited(name: str, error: str, first: Edit, second: Edit, draft: Draft | None = None) -> Bad:
        return bad(name, error, (draft or base()).build(before=both(first, second)))

    yield bad("magic_before_version", "format", base().build(magic=b"\x89CDCF\n\x1a\n", version=1))
    yield bad("version_before_length", "version", base().build(version=1)[:-64])
    yield bad("length_before_head_crc", "format", base().build(after=poke("header", 1, -4)) + bytes(64))
    yield bad("data_start_before_head_crc", "format", base().build(after=add(24, "<Q", 8)))
    yield bad("head_crc_before_header", "checksum", base().build(after=poke("header", 1)))
    yield bad("head_crc_before_table", "checksum", base().build(after=poke("record1", 8)))
    wrong = base()
    wrong.header["zero"] = "bit"
    yield bad("header_before_part_crc", "format", wrong.build(before=poke("part0", 1)))
    yield edited("table_before_part_crc", "format", poke("record0", 8), poke("part0", 1))
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
