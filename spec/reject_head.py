"""Heads that a reader must refuse: prefix, header, segment table.

In this and the other reject files all but the case is right, checksums included unless they are the case.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from decode_cases import VARIANTS, sample
from writer import Draft, encode


@dataclass(frozen=True)
class Bad:
    name: str
    section: str
    error: str
    data: bytes
    model: bool = False


def base(variant: str = "bitmap", **options: Any) -> Draft:
    """A right frame of 5 x 13 elements in three segments."""
    layout, params = VARIANTS[variant]
    options.setdefault("segment", (2, 13))
    return encode(sample((5, 13), "BF16", 40, seed=9), "BF16", layout, params=params, **options)


def poke(where: str, value: int, offset: int = 0) -> Callable[[bytearray, dict[str, int]], None]:
    def edit(frame: bytearray, marks: dict[str, int]) -> None:
        frame[marks[where] + offset] ^= value

    return edit


def prefix() -> Iterator[Bad]:
    def bad(name: str, error: str, data: bytes) -> Bad:
        return Bad(f"prefix_{name}", "4.1", error, data)

    right = base().build()
    yield bad("nothing", "format", b"")
    yield bad("cut", "format", right[:27])
    yield bad("magic", "format", base().build(magic=b"\x89CDCF\n\x1a\n"))
    yield bad("newer_version", "version", base().build(version=1))
    yield bad("newest_version", "version", base().build(version=2**32 - 1))
    yield bad("too_short", "format", right[:-64])
    yield bad("too_long", "format", right + bytes(64))

    def odd(frame: bytearray, marks: dict[str, int]) -> None:
        frame[16:24] = struct.pack("<Q", len(frame) + 1)
        frame += b"\0"

    yield bad("length_no_multiple_of_64", "format", base().build(before=odd))

    def header_length(value: int) -> Callable[[bytearray, dict[str, int]], None]:
        return lambda frame, marks: frame.__setitem__(slice(12, 16), struct.pack("<I", value))

    yield bad("header_beyond_frame", "format", base().build(before=header_length(len(right))))
    yield bad("header_length_largest", "format", base().build(before=header_length(2**32 - 1)))
    yield bad("head_crc", "checksum", base().build(after=lambda frame, _: frame.__setitem__(24, frame[24] ^ 1)))


def header() -> Iterator[Bad]:
    def changed(
        name: str, change: Callable[[dict[str, Any]], Any], draft: Draft | None = None, section: str = "4.2"
    ) -> Bad:
        draft = draft or base()
        change(draft.header)
        return Bad(f"header_{name}", section, "format", draft.build())

    def setting(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda header: header.__setitem__(key, value)

    nothing = encode(np.zeros((0, 2), "<u2"), "BF16", "bitmap", params={"order": "rows"})
    raw = base()
    raw.build()
    packed = msgpack.packb(raw.header)
    nnz = raw.header["nnz"]
    at = packed.index(b"\xa3nnz") + 4
    yield Bad(
        "header_integer_not_minimal",
        "1",
        "format",
        raw.build(raw_header=packed[:at] + bytes([0xCC, nnz]) + packed[at + 1 :]),
    )
    yield Bad("header_string_not_minimal", "1", "format", raw.build(raw_header=packed[:1] + b"\xd9\x05" + packed[2:]))
    yield Bad("header_map_not_minimal", "1", "format", raw.build(raw_header=b"\xde\0\x0b" + packed[1:]))
    yield Bad("header_byte_after", "1", "format", raw.build(raw_header=packed + b"\xc0"))
    yield Bad("header_cut", "1", "format", raw.build(raw_header=packed[:-1]))
    again = packed[:at] + packed[at : at + 1] + b"\xa3nnz" + packed[at:]
    yield Bad("header_key_twice", "1", "format", raw.build(raw_header=b"\x8c" + again[1:]))
    yield Bad("header_no_map", "4.2", "format", raw.build(raw_header=b"\x90"))
    yield changed("unknown_key", setting("more", 0))
    yield changed("key_missing", lambda header: header.pop("negative_zeros"))
    yield changed(
        "keys_in_another_order", lambda header: header.update(streams=header.pop("streams"), nnz=header.pop("nnz"))
    )
    yield changed("boolean_for_integer", setting("row_dims", True))
    yield changed("float_for_integer", setting("nnz", float(nnz)))
    yield changed("negative_integer", setting("negative_zeros", -1))
    yield changed("dtype_unknown", setting("dtype", "F4"))
    yield changed("rank_33", lambda header: header.update(shape=[1] * 31 + [5, 13], row_dims=32))
    yield changed("row_dims_above_rank", setting("row_dims", 3))
    yield changed("shape_product_overflow", setting("shape", [2**32, 2**32]))
    yield changed("shape_of_empty_overflow", lambda header: header.update(shape=[0, 2**62, 2], segment=[0, 0]), nothing)
    yield changed("shape_bytes_overflow", setting("shape", [2**31, 2**31]))
    yield changed("segment_size_0", setting("segment", [0, 13]), section="3")
    yield changed(
        "segment_of_empty_tensor", lambda header: header.update(shape=[0, 13], segment=[1, 13], nnz=0), section="3"
    )
    yield changed("segment_higher_than_tensor", setting("segment", [6, 13]), base(segment=(5, 13)), "3")
    yield changed("segment_wider_than_tensor", setting("segment", [1, 14]), base(segment=(1, 13)), "3")
    yield changed("segment_no_range", setting("segment", [2, 7]), section="3")
    large = encode(np.zeros((1, 2**22 + 1), np.uint8), "U8", "csr", params={"index": 32, "of": "nonzeros"})
    yield Bad("header_segment_too_large", "3", "format", large.build())
    yield changed("table_too_large", lambda header: header.update(shape=[2**40, 13], segment=[1, 13]), section="4.4")
    yield changed("layout_unknown", setting("layout", "coo"))
    yield changed("values_unknown", setting("values", {"coding": "codebook"}))
    yield changed("zero_unknown", setting("zero", "bit"))
    yield changed("nnz_above_size", setting("nnz", 66))
    yield changed("negative_zeros_above_zeros", setting("negative_zeros", 66 - nnz))
    yield changed("negative_zeros_under_bits", setting("negative_zeros", 1), base(zero="bits"))
    yield changed(
        "negative_zeros_of_integers", setting("negative_zeros", 1), encode(np.ones((2, 2), "<i4"), "I32", "dense")
    )
    yield changed("params_unknown_key", setting("params", {"order": "rows", "words": 8}), section="5")
    yield changed("params_missing", setting("params", {}), section="5")
    yield changed("params_unknown_value", setting("params", {"order": "columns"}), section="5")
    wide = encode(sample((2, 300), "U8", 30), "U8", "csr", params={"index": 8, "of": "nonzeros"}, segment=(1, 256))
    yield changed("index_too_narrow", setting("segment", [1, 257]), wide, "5.2")
    yield changed("index_0", setting("params", {"index": 0, "of": "nonzeros"}), base("csr"), "5.2")
    yield changed("index_boolean", setting("params", {"index": True, "of": "nonzeros"}), base("csr"), "5.2")
    yield changed("max_length_16", setting("params", {"max_length": 16}), base("huffman"), "5.4")
    alone = base()
    del alone.header["streams"][0], alone.parts[0]
    yield Bad("header_stream_missing", "4.2", "format", alone.build())
    yield changed("streams_in_another_order", lambda header: header["streams"].reverse())
    yield changed("stream_key_unknown", lambda header: header["streams"][0].update(level=3))
    yield changed("stream_coding_unknown", lambda header: header["streams"][1].update(coding="rans"))
    yield changed("stream_code_without_huffman", lambda header: header["streams"][1].update(code={}))
    coded = base("huffman").header["streams"][1]["code"]
    yield changed("stream_huffman_without_code", lambda header: header["streams"][1].update(coding="huffman"))
    yield changed(
        "code_keys_in_another_order",
        lambda h: h["streams"][1].update(code=dict(sorted(coded.items()))),
        base("huffman"),
    )

    def plain(header: dict[str, Any]) -> None:
        header["streams"][1] = {"name": "values", "length": 0, "coding": "none"}

    yield changed("huffman_layout_with_plain_stream", plain, base("huffman"), "5.4")


def table() -> Iterator[Bad]:
    def bad(name: str, error: str = "format", **edits: Any) -> Bad:
        return Bad(f"table_{name}", "4.3", error, base().build(**edits))

    def offset(entry: int, change: int) -> Callable[[bytearray, dict[str, int]], None]:
        def edit(frame: bytearray, marks: dict[str, int]) -> None:
            at = marks["table"] + 8 * entry
            frame[at : at + 8] = struct.pack("<Q", (struct.unpack_from("<Q", frame, at)[0] + change) % 2**64)

        return edit

    yield bad("part_crc", "checksum", before=poke("crcs", 1, 4))
    yield bad("part_byte", "checksum", before=poke("start", 1, 5))
    yield bad("last_part_byte", "checksum", before=poke("end", 128, -1))
    yield bad("damaged_offset", "checksum", after=poke("table", 1, 8))
    yield bad("first_part_late", before=offset(0, 1))
    yield bad("parts_decrease", before=offset(1, 64))
    yield bad("parts_before_stream", before=offset(4, -64))
    yield bad("part_beyond_stream", before=offset(5, 2**20))
    yield bad("offset_wraps", before=offset(5, -(2**62)))
    yield bad("padding_before", before=poke("pad", 1))
    yield bad("padding_after", before=poke("start", 1, -1))
    yield bad("padding_between_streams", before=poke("start", 1, 63))
    yield bad("padding_after_streams", before=poke("end", 1))
    yield bad("tail_bit", before=poke("length", 128, -1))
    yield bad("no_tail", tail=0)
    yield bad("tail_of_128", tail=128)
    long = base()
    long.lengths["values"] = 2**62
    yield Bad("table_stream_length_beyond_frame", "4.3", "format", long.build())
    long.lengths = {"mask": 0}
    yield Bad("table_stream_length_0", "4.3", "format", long.build())


def head_cases() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (prefix, header, table):
        yield from group()
