"""Parts that a reader must refuse: the streams of each layout, and the entropy stage."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import zstandard
from decode_cases import PADDED, VARIANTS, book_of, few
from reject_head import Bad, base
from writer import Draft, coded_part, encode, nibbles, zstd_part


def with_parts(variant: str, stream: int, part: int, change: Callable[[bytes], bytes], **options: Any) -> bytes:
    """The base frame with one part changed."""
    draft = base(variant, **options)
    draft.parts[stream][part] = change(draft.parts[stream][part])
    return draft.build()


def with_items(variant: str, stream: int, part: int, change: Callable[[np.ndarray], Any], width: int) -> bytes:
    def edit(data: bytes) -> bytes:
        items = np.frombuffer(data, f"<u{width}").copy()
        change(items)
        return items.tobytes()

    return with_parts(variant, stream, part, edit)


def layouts() -> Iterator[Bad]:
    def shift(first: int, second: int) -> Callable[[Draft], None]:
        """Move the last two bytes of the values' first part to the second: the sum stays right."""

        def edit(draft: Draft) -> None:
            values = draft.parts[-1]
            values[first], moved = values[first][:-2], values[first][-2:]
            values[second] = moved + values[second]

        return edit

    def moved(variant: str, section: str) -> Bad:
        draft = base(variant)
        shift(0, 1)(draft)
        return Bad(f"{variant}_values_of_the_wrong_part", section, "format", draft.build())

    def miscounted(variant: str, section: str, change: int) -> Bad:
        draft = base(variant)
        draft.header["nnz"] += change
        return Bad(f"{variant}_nnz_{'more' if change > 0 else 'less'}", section, "format", draft.build())

    yield moved("dense", "5.1")
    for variant, section in [
        ("csr", "5.2"),
        ("csr_zeros", "5.2"),
        ("bitmap", "5.3"),
        ("bitmap_lanes", "5.3"),
        ("n_m", "5.7"),
    ]:
        yield moved(variant, section)
        yield miscounted(variant, section, 1)
        yield miscounted(variant, section, -1)
        yield Bad(
            f"{variant}_odd_byte_of_values", section, "format", with_parts(variant, -1, 2, lambda data: data + b"\0")
        )
        yield Bad(f"{variant}_values_missing", section, "format", with_parts(variant, -1, 2, lambda data: data[:-2]))
    yield Bad("dense_value_missing", "5.1", "format", with_parts("dense", 0, 2, lambda data: data[:-2]))
    yield Bad("dense_value_too_many", "5.1", "format", with_parts("dense", 0, 2, lambda data: data + b"\0\0"))
    yield miscounted("huffman", "5.4", 1)

    for variant in ("csr", "csr_zeros"):

        def rows(name: str, change: Callable[[np.ndarray], Any], variant: str = variant) -> Bad:
            return Bad(f"{variant}_{name}", "5.2", "format", with_items(variant, 0, 0, change, 4))

        def columns(name: str, change: Callable[[np.ndarray], Any], variant: str = variant) -> Bad:
            return Bad(f"{variant}_{name}", "5.2", "format", with_items(variant, 1, 0, change, 1))

        yield rows("rows_not_from_0", lambda items: items.__setitem__(0, 1))
        yield rows("rows_decrease", lambda items: items.__setitem__(1, items[2] + 1))
        yield rows("rows_wrap", lambda items: items.__setitem__(1, 2**32 - 1))
        yield rows("rows_last_too_large", lambda items: items.__setitem__(2, items[2] + 1))
        yield rows("rows_last_too_small", lambda items: items.__setitem__(2, items[2] - 1))
        yield rows("rows_last_largest", lambda items: items.__setitem__(2, 2**32 - 1))
        yield Bad(f"{variant}_rows_missing", "5.2", "format", with_parts(variant, 0, 0, lambda data: data[:-4]))
        yield Bad(f"{variant}_rows_too_many", "5.2", "format", with_parts(variant, 0, 0, lambda data: data + data[-4:]))
        yield columns("column_out_of_range", lambda items: items.__setitem__(-1, 13))
        yield columns("column_largest", lambda items: items.__setitem__(-1, 255))
        yield columns("column_twice", lambda items: items.__setitem__(1, items[0]))
        yield columns("columns_unsorted", lambda items: items.__setitem__(slice(0, 2), items[1::-1].copy()))

    yield Bad(
        "bitmap_padding", "5.3", "format", with_parts("bitmap", 0, 0, lambda data: data[:-1] + bytes([data[-1] | 128]))
    )
    extra = with_parts(
        "bitmap",
        0,
        0,
        lambda data: bytes([next(data[0] | 1 << bit for bit in range(8) if not data[0] >> bit & 1)]) + data[1:],
    )
    yield Bad("bitmap_bit_without_value", "5.3", "format", extra)
    yield Bad("bitmap_mask_too_short", "5.3", "format", with_parts("bitmap", 0, 0, lambda data: data[:-1]))
    yield Bad("bitmap_mask_too_long", "5.3", "format", with_parts("bitmap", 0, 0, lambda data: data + b"\0"))
    yield Bad(
        "bitmap_lanes_padding",
        "5.3",
        "format",
        with_parts("bitmap_lanes", 0, 0, lambda data: bytes([data[0] | 4]) + data[1:]),
    )
    yield Bad(
        "bitmap_lanes_padding_high", "5.3", "format", with_parts("bitmap_lanes", 0, 0, lambda data: data[:-1] + b"\x80")
    )
    yield Bad("bitmap_lanes_mask_too_short", "5.3", "format", with_parts("bitmap_lanes", 0, 0, lambda data: data[:-8]))

    # A code of 8 bits for each of 256 gaps, so that any gaps can be written.
    def gaps(name: str, items: list[int], shape: tuple[int, int] = (1, 300), stored: tuple[int, ...] = (3, 290)) -> Bad:
        tensor = np.zeros(shape, np.uint8)
        tensor.flat[list(stored)] = 5
        flat = {"low": 0, "zeros": 0, "first": 0, "lengths": b"\x88" * 128}
        draft = encode(tensor, "U8", "huffman", params={"max_length": 12}, codes={"gaps": flat})
        draft.parts[0] = [coded_part(items, 8, "unsigned", flat)]
        return Bad(f"huffman_{name}", "5.4", "format", draft.build())

    yield gaps("trailing_gap_255", [3, 255, 31, 255])
    yield gaps("position_out_of_range", [3, 255, 41])
    yield gaps("position_far_out_of_range", [3, 255, 255, 255, 0])
    yield gaps("gap_without_value", [3, 255, 31, 1])
    yield gaps("value_without_gap", [3])
    yield gaps("more_gaps_than_elements", [0] * 5, (1, 4), (0, 1, 2, 3))


def relative() -> Iterator[Bad]:
    """Sections 5.5 and 5.6, from a row of 40 elements with codes 3, 3, 1 (fillers or escapes) or their like."""

    def tensor(positions: tuple[int, ...] = (7, 9)) -> np.ndarray:
        line = np.zeros((1, 40), np.uint8)
        line[0, list(positions)] = 5
        return line

    def gaps(name: str, codes: list[int], filler: str = "escape", values: bytes = b"\5\5", **changed: Any) -> Bad:
        params = {"bits": 2, "filler": filler, "of": changed.get("of", "nonzeros")}
        line = tensor() if params["of"] == "nonzeros" else 5 * (tensor() == 0).astype(np.uint8)
        draft = encode(line, "U8", "relative_index", params=params)
        packed = sum(code << 2 * at for at, code in enumerate(codes)) | changed.get("padding", 0) << 2 * len(codes)
        body = packed.to_bytes(changed.get("bytes", -(-2 * len(codes) // 8)), "little")
        draft.parts[0][0] = struct.pack("<I", changed.get("count", len(codes))) + body
        draft.parts[1][0] = values
        draft.header["nnz"] = changed.get("nnz", 2)
        return Bad(f"relative_{name}", "5.5", "format", draft.build())

    # Right: 3 3 1 | 1 is positions 7 and 9; with fillers 3 3 0 | 1 is 8 and 10.
    yield gaps("last_escape", [3, 3, 1, 1, 3])
    yield gaps("only_escapes", [3], values=b"", nnz=0)
    yield gaps("last_filler", [3, 3, 0, 1, 3], "value", b"\0\0\5\5\0")
    yield gaps("position_out_of_range", [3] * 13 + [0, 0])
    yield gaps("position_out_of_range_behind_fillers", [3] * 9 + [3, 0], "value", bytes(9) + b"\5\5")
    yield gaps("count_more", [3, 3, 1, 1], count=5)
    yield gaps("count_less", [3, 3, 1, 1], count=3)
    yield gaps("count_within_padding", [3, 3, 1, 1, 0], count=4)
    yield gaps("count_largest", [3, 3, 1, 1], count=2**32 - 1)
    yield gaps("padding", [3, 3, 1, 1, 0], padding=1, values=b"\5\5\5", nnz=3)
    yield gaps("byte_after", [3, 3, 1, 1], bytes=2)
    yield gaps("value_missing", [3, 3, 1, 1], values=b"\5")
    yield gaps("value_too_many", [3, 3, 1, 1], values=b"\5\5\5")
    yield gaps("filler_missing", [3, 3, 0, 1], "value", b"\0\5\5")
    yield gaps("filler_too_many", [3, 3, 0, 1], "value", b"\0\0\0\5\5")
    yield gaps("fillers_counted", [3, 3, 0, 1], "value", b"\0\0\5\5", nnz=4)
    yield gaps("miscounted", [3, 3, 1, 1], nnz=1)
    yield gaps("zeros_out_of_range", [3] * 13 + [1], of="zeros", values=b"\5" * 38, nnz=38)
    yield gaps("zeros_value_missing", [3, 3, 1, 1], of="zeros", values=b"\5" * 37, nnz=38)
    for name, data in (("empty", b""), ("count_cut", b"\0\0\0")):
        draft = encode(tensor(()), "U8", "relative_index", params={"bits": 2, "filler": "escape", "of": "nonzeros"})
        draft.parts[0][0] = data
        yield Bad(f"relative_gaps_{name}", "5.5", "format", draft.build())
    draft = encode(tensor(), "U8", "relative_index", params={"bits": 2, "filler": "escape", "of": "zeros"})
    draft.header["params"]["filler"] = "value"
    yield Bad("relative_fillers_between_zeros", "5.5", "format", draft.build())

    def words(
        name: str, change: Callable[[list[int]], Any], positions: tuple[int, ...] = (7, 9), nnz: int | None = None
    ) -> Bad:
        draft = encode(tensor(positions), "U8", "run_length", params={"bits": 2})
        found = list(struct.unpack(f"<{len(draft.parts[0][0]) // 8}Q", draft.parts[0][0]))
        change(found)
        draft.parts[0][0] = struct.pack(f"<{len(found)}Q", *found)
        draft.header["nnz"] = draft.header["nnz"] if nnz is None else nnz
        return Bad(f"run_length_{name}", "5.6", "format", draft.build())

    last = 1 << 63
    many = tuple(range(0, 40, 3))
    fill = sum(3 << 10 * slot for slot in range(6))
    yield words("no_last_word", lambda found: found.__setitem__(-1, found[-1] ^ last))
    yield words("last_word_too_early", lambda found: found.__setitem__(0, found[0] | last), many)
    yield words("word_after_last", lambda found: found.append(fill))
    yield words(
        "last_word_of_fillers", lambda found: found.__setitem__(slice(-1, None), [found[-1] ^ last, fill | last])
    )
    yield words("only_fillers", lambda found: found.__setitem__(0, fill | last), nnz=0)
    yield words("padding_low", lambda found: found.__setitem__(0, found[0] | 1 << 60))
    yield words("padding_high", lambda found: found.__setitem__(0, found[0] | 1 << 62))
    yield words("padding_of_an_early_word", lambda found: found.__setitem__(0, found[0] | 1 << 62), many)
    yield words("filled_with_zeros", lambda found: found.__setitem__(0, found[0] & ~(3 << 50)))
    yield words("position_out_of_range", lambda found: found.append(found[0]) or found.__setitem__(0, fill), (7, 20))
    yield words("miscounted", lambda found: None, nnz=3)
    yield words("missing", lambda found: found.clear())
    draft = encode(tensor(), "U8", "run_length", params={"bits": 2})
    draft.parts[0][0] += b"\0" * 4
    yield Bad("run_length_half_a_u64", "5.6", "format", draft.build())
    draft = encode(tensor().astype("<u8"), "U64", "run_length", params={"bits": 2})
    draft.parts[0][0] = draft.parts[0][0][:-8]
    yield Bad("run_length_half_a_word", "5.6", "format", draft.build())


def groups() -> Iterator[Bad]:
    """Section 5.7, from a row of 10 elements: two groups of 4, with masks of 4 bits or ranks of 3, and one of 2."""

    def bad(name: str, n: int, patterns: int, values: bytes, nnz: int, size: int = 2) -> Bad:
        draft = encode(np.zeros((1, 10), np.uint8), "U8", "n_m", params={"m": 4, "n": n})
        draft.parts[0][0] = patterns.to_bytes(size, "little")
        draft.parts[1][0] = values
        draft.header["nnz"] = nnz
        return Bad(f"n_m_{name}", "5.7", "format", draft.build())

    # Right: 0x135 with six values is elements 0 and 2; 4 and 5; 8, and a pad; ranks 2 4 1 are elements 1, 7 and 8.
    yield bad("more_than_n", 2, 0x137, b"\5\5\5\5\5\0", 6)
    yield bad("all_of_a_group", 2, 0x13F, b"\5\5\5\5\5\0", 7)
    yield bad("bit_behind_the_row", 2, 0x435, b"\5\5\5\5\5\0", 5)
    yield bad("padding", 2, 0x1135, b"\5\5\5\5\5\0", 5)
    yield bad("pad_not_zero", 2, 0x135, b"\5\5\5\5\5\5", 5)
    yield bad("pads_first", 2, 0x131, b"\0\5\5\5\5\0", 4)
    yield bad("pads_counted", 2, 0x135, b"\5\5\5\5\5\0", 6)
    yield bad("patterns_missing", 2, 0x35, b"\5\5\5\5\5\0", 4, 1)
    yield bad("patterns_byte_after", 2, 0x135, b"\5\5\5\5\5\0", 5, 3)
    yield bad("value_missing", 2, 0x135, b"\5\5\5\5\5", 5)
    yield bad("value_too_many", 2, 0x135, b"\5\5\5\5\5\0\0", 5)
    yield bad("rank_of_none", 1, 0o152, b"\5\5\5", 3)
    yield bad("rank_largest", 1, 0o127, b"\5\5\5", 3)
    yield bad("rank_behind_the_row", 1, 0o342, b"\5\5\5", 3)
    yield bad("rank_of_a_missing_group", 1, 0o1142, b"\5\5\5", 3)
    yield bad("rank_pad_not_zero", 1, 0o042, b"\5\5\5", 2)
    draft = encode(np.zeros((1, 64), np.uint8), "U8", "n_m", params={"m": 64, "n": 2})
    draft.parts[0][0] = (2081).to_bytes(2, "little")
    yield Bad("n_m_rank_of_none_of_64", "5.7", "format", draft.build())
    for name, params in (("n_above_m", {"m": 4, "n": 5}), ("n_0", {"m": 4, "n": 0}), ("m_65", {"m": 65, "n": 4})):
        draft = encode(np.zeros((1, 10), np.uint8), "U8", "n_m", params={"m": 4, "n": 4})
        draft.header["params"] = params
        yield Bad(f"n_m_{name}", "5.7", "format", draft.build())


def blocks() -> Iterator[Bad]:
    """Section 5.8, from 5 x 13 elements in blocks of 2 x 3 (segments of 4 rows), and in pairs of whole columns."""
    segment = (4, 13)

    def items(name: str, stream: int, change: Callable[[np.ndarray], Any], variant: str = "blocks") -> Bad:
        width = 4 if stream == 0 and variant == "blocks" else 1
        draft = base(variant, segment=segment)
        found = np.frombuffer(draft.parts[stream][0], f"<u{width}").copy()
        change(found)
        draft.parts[stream][0] = found.tobytes()
        return Bad(f"{variant}_{name}", "5.8", "format", draft.build())

    def part(name: str, stream: int, change: Callable[[bytes], bytes], variant: str = "blocks", number: int = 0) -> Bad:
        draft = base(variant, segment=segment)
        draft.parts[stream][number] = change(draft.parts[stream][number])
        return Bad(f"{variant}_{name}", "5.8", "format", draft.build())

    def header(name: str, variant: str = "blocks", **params: Any) -> Bad:
        draft = base(variant, segment=segment)
        draft.header["params"].update(params)
        return Bad(f"{variant}_{name}", "5.8", "format", draft.build())

    yield items("rows_not_from_0", 0, lambda found: found.__setitem__(0, 1))
    yield items("rows_decrease", 0, lambda found: found.__setitem__(1, found[2] + 1))
    yield items("rows_largest", 0, lambda found: found.__setitem__(1, 2**32 - 1))
    yield items("rows_last_too_small", 0, lambda found: found.__setitem__(2, found[2] - 1))
    yield items("rows_last_too_large", 0, lambda found: found.__setitem__(2, found[2] + 1))
    yield part("rows_missing", 0, lambda data: data[:-4])
    yield part("rows_too_many", 0, lambda data: data + data[-4:])
    for variant, stream in (("blocks", 1), ("blocks_columns", 0)):
        yield items("offset_out_of_range", stream, lambda found: found.__setitem__(-1, 7), variant)
        yield items("offset_largest", stream, lambda found: found.__setitem__(-1, 255), variant)
        yield items("offset_twice", stream, lambda found: found.__setitem__(1, found[0]), variant)
        yield items(
            "offsets_unsorted", stream, lambda found: found.__setitem__(slice(0, 2), found[1::-1].copy()), variant
        )
        yield part("offset_missing", stream, lambda data: data[:-1], variant)
        yield part("value_missing", stream + 1, lambda data: data[:-2], variant)
        yield part("odd_byte_of_values", stream + 1, lambda data: data + b"\0", variant)
        yield part("value_too_many", stream + 1, lambda data: data + b"\0\0", variant)
    yield part("block_of_zeros", 2, lambda data: bytes(12) + data[12:])
    yield part("clipped_block_of_zeros", 2, lambda data: data[:-6] + bytes(6), number=1)
    yield part("second_part", 0, lambda data: b"\1", "blocks_columns", 1)
    yield header("of_no_rows", block=[0, 3])
    yield header("of_no_columns", block=[2, 0])
    yield header("higher_than_a_segment", block=[5, 3])
    yield header("wider_than_a_segment", block=[2, 14])
    yield header("wider_than_a_segment", "blocks_columns", block=["all", 14])
    yield header("of_some_rows", "blocks_columns", block=["some", 2])
    yield header("of_all_columns", block=[2, "all"])
    yield header("of_three_sides", block=[2, 3, 1])
    yield header("of_one_number", block=6)
    yield header("boolean", block=[True, 3])
    yield header("index_12", block=[2, 3], index=12)
    whole = base("blocks_columns", segment=segment)
    whole.header["streams"][0]["coding"] = "zstd"
    whole.parts[0][0] = zstd_part(whole.parts[0][0])
    yield Bad("blocks_columns_coded", "5.8", "format", whole.build())
    narrow = encode(np.ones((1, 300), np.uint8), "U8", "block_offset", params={"block": [1, 1], "index": 16})
    narrow.header["params"]["index"] = 8
    yield Bad("blocks_index_too_narrow", "5.8", "format", narrow.build())


def entropy() -> Iterator[Bad]:
    coded: dict[str, Any] = {"values": "huffman"}

    def code(name: str, lengths: bytes, **others: int) -> Bad:
        draft = base(codings=coded)
        draft.header["streams"][1]["code"].update(lengths=lengths, **others)
        return Bad(f"code_{name}", "6.3", "format", draft.build())

    yield code("incomplete", nibbles([2, 2, 2]))
    yield code("incomplete_single", nibbles([1]))
    yield code("overfull", nibbles([1, 1, 1]))
    yield code("overfull_then_complete", nibbles([1, 2, 2, 2]))
    yield code("first_symbol_without_length", nibbles([0, 1, 1]))
    yield code("last_symbol_without_length", nibbles([1, 1, 0, 0]))
    yield code("no_lengths", b"")
    yield code("single_symbol_twice", b"\0\0")
    yield code("of_258_symbols", nibbles([1, *[0] * 256, 1]))
    yield code("symbols_outside_keys", nibbles([1, 1]), low=0, zeros=0, first=2**15 - 1)
    yield code("first_largest", nibbles([1, 1]), first=2**63 - 1)
    yield code("more_raw_bits_than_key", b"\0", low=16, zeros=0, first=0)
    yield code("of_no_key_bits", b"\0", low=15, zeros=0, first=0)
    yield code("low_and_zeros_overflow", b"\0", low=2**62, zeros=2**62, first=0)
    wide = encode(np.array([[1, 2]], "<u8"), "F64", "dense", codings=coded, codes={"values": {"low": 55}})
    wide.header["streams"][0]["code"]["low"] = 56
    yield Bad("code_raw_field_of_57_bits", "6.3", "format", wide.build())
    # Right in all but that the header says 8: the gaps are 1, with a word of 2 bits.
    ladder = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([*range(1, 10), 9])}
    spread = np.array([[0, 5] * 9], np.uint8)
    longer = encode(spread, "U8", "huffman", params={"max_length": 9}, codes={"gaps": ladder})
    longer.header["params"]["max_length"] = 8
    yield Bad("code_longer_than_max_length", "5.4", "format", longer.build())

    def part(name: str, change: Callable[[bytes], bytes], which: int = 0) -> Bad:
        return Bad(f"coded_{name}", "6.4", "format", with_parts("bitmap", 1, which, change, codings=coded))

    def count(change: int) -> Callable[[bytes], bytes]:
        return lambda data: struct.pack("<I", struct.unpack_from("<I", data)[0] + change) + data[4:]

    def lane(number: int, change: int) -> Callable[[bytes], bytes]:
        def edit(data: bytes) -> bytes:
            sizes = list(struct.unpack_from("<IIII", data))
            sizes[1 + number] = (sizes[1 + number] + change) % 2**32
            return struct.pack("<IIII", *sizes) + data[16:]

        return edit

    def longer_lane(data: bytes) -> bytes:
        size = struct.unpack_from("<I", data, 4)[0]
        return lane(0, 1)(data[: 16 + size] + b"\0" + data[16 + size :])

    yield part("count_more", count(1))
    yield part("count_less", count(-1))
    yield part("count_largest", lambda data: b"\xff" * 4 + data[4:])
    yield part("cut_in_header", lambda data: data[:15])
    yield part("empty", lambda data: b"")
    yield part("byte_after", lambda data: data + b"\0")
    yield part("byte_missing", lambda data: data[:-1])
    yield part("lane_with_a_byte_too_many", longer_lane)
    yield part("lane_beyond_part", lane(1, 1 << 20))
    yield part("lanes_overflow", lane(2, -(1 << 20)))
    yield part("lane_boundary_moved", lane(0, -1))
    # Five items with words of 2 bits: lane 0 has 4 bits, the others 2; then 5 raw fields of 3 bits.
    small = np.array([[0, 8, 16, 24, 1]], np.uint8)
    given = {"values": {"low": 3, "zeros": 0, "first": 0, "lengths": nibbles([2, 2, 2, 2])}}

    def padding(name: str, byte: int) -> Bad:
        draft = encode(small, "U8", "dense", codings=coded, codes=given)
        data = bytearray(draft.parts[0][0])
        data[byte] |= 128
        draft.parts[0][0] = bytes(data)
        return Bad(f"coded_padding_{name}", "6.4", "format", draft.build())

    yield padding("in_lane", 16)
    yield padding("in_last_lane", 19)
    yield padding("in_raw_fields", -1)
    empty = base(codings=coded)
    nothing = encode(np.zeros((2, 2), np.uint8), "U8", "bitmap", params={"order": "rows"}, codings=coded)
    nothing.parts[1][0] += b"\0"
    yield Bad("coded_bytes_without_items", "6.4", "format", nothing.build())
    empty.parts[1][1] = bytes(16)
    yield Bad("coded_part_without_its_items", "6.4", "format", empty.build())

    def zstd(name: str, change: Callable[[bytes], bytes]) -> Bad:
        return Bad(f"zstd_{name}", "6.1", "format", with_parts("bitmap", 1, 0, change, codings={"values": "zstd"}))

    # Single-segment frames: descriptor at byte 4, content size at byte 5, block header at 6, contents from 9.
    yield zstd("content_size_less", lambda data: data[:5] + bytes([data[5] - 2]) + data[6:])
    yield zstd("content_size_more", lambda data: data[:5] + bytes([data[5] + 2]) + data[6:])
    yield zstd("content_size_missing", lambda data: data[:4] + b"\0\0" + data[6:])
    yield zstd("contents_of_another_size", lambda data: zstd_part(data[9:] + b"\0\0"))
    yield zstd("byte_after", lambda data: data + b"\0")
    yield zstd("two_frames", lambda data: zstd_part(data[9:-2]) + zstd_part(data[-2:]))
    yield zstd("skippable_frame_after", lambda data: data + b"\x50\x2a\x4d\x18\0\0\0\0")
    yield zstd("skippable_frame_before", lambda data: b"\x50\x2a\x4d\x18\0\0\0\0" + data)
    yield zstd("dictionary", lambda data: data[:4] + b"\x21\x07" + data[5:])
    whole = zstandard.ZstdCompressor(write_checksum=True)
    yield zstd("checksum", lambda data: data[:4] + b"\x24" + data[5:] + whole.compress(data[9:])[-4:])
    yield zstd("window_too_large", lambda data: data[:4] + b"\x80\x70" + struct.pack("<I", data[5]) + data[6:])
    yield zstd("cut", lambda data: data[:-1])
    yield zstd("empty", lambda data: b"")
    yield zstd("no_zstd", lambda data: data[9:])
    yield zstd("reserved_block", lambda data: data[:6] + bytes([data[6] | 6]) + data[7:])


def codebooks() -> Iterator[Bad]:
    def made(variant: str, code_bits: int = 3, rows: int = 0, **options: Any) -> Draft:
        layout, params = VARIANTS[variant]
        bits = few((5, 13), "BF16", 5, seed=9)
        given = book_of(bits, code_bits, rows, zero=variant in PADDED)
        return encode(bits, "BF16", layout, params=params, segment=(2, 13), book=given, **options)

    def bad(name: str, change: Callable[[Draft], Any], draft: Draft | None = None) -> Bad:
        draft = draft or made("bitmap")
        change(draft)
        return Bad(f"codebook_{name}", "4.5", "format", draft.build())

    def values(**changed: Any) -> Callable[[Draft], None]:
        return lambda draft: draft.header["values"].update(changed)

    def part(stream: int, number: int, change: Callable[[bytes], bytes]) -> Callable[[Draft], None]:
        def edit(draft: Draft) -> None:
            draft.parts[stream][number] = change(draft.parts[stream][number])

        return edit

    def moved(draft: Draft) -> None:
        whole = draft.parts[-1][0]
        draft.parts[-1][:2] = [whole[:8], whole[8:]]

    yield bad("bits_0", values(bits=0))
    yield bad("bits_9", values(bits=9))
    yield bad("bits_boolean", values(bits=True))
    yield bad("bits_other", values(bits=4))
    yield bad("rows_all", values(rows=5))
    yield bad("rows_other", values(rows=3))
    yield bad("rows_negative", values(rows=-1))
    yield bad("key_unknown", values(entries=8))
    yield bad("coding_unknown", values(coding="table"))
    yield bad("keys_in_another_order", lambda d: d.header.update(values={"bits": 3, "coding": "codebook", "rows": 0}))
    yield bad("rows_of_empty", values(rows=1), encode(np.zeros((0, 3), "<u2"), "BF16", "dense", book=(4, 0, [])))
    yield bad("raw_with_codes", lambda draft: draft.header.update(values={"coding": "raw"}))
    yield bad("stream_missing", lambda draft: (draft.header["streams"].pop(), draft.parts.pop()))
    yield bad("entry_missing", part(-1, 0, lambda data: data[:-2]))
    yield bad("entry_too_many", part(-1, 0, lambda data: data + b"\0\0"))
    yield bad("in_two_parts", moved)
    yield bad("coded", lambda draft: draft.header["streams"][-1].update(coding="zstd"))
    yield bad("codes_missing", part(1, 0, lambda data: data[:-1]))
    yield bad("codes_byte_after", part(1, 0, lambda data: data + b"\0"))
    # 13 codes of 3 bits leave one bit, 13 of 1 bit as many as 3 codes.
    padding = part(0, 2, lambda data: data[:-1] + bytes([data[-1] | 128]))
    yield bad("codes_padding", padding, made("dense"))
    single = few((5, 13), "BF16", 1, seed=9)
    narrow = encode(single, "BF16", "dense", segment=(2, 13), book=book_of(single, 1, 0, zero=True))
    yield bad("codes_padding_of_a_whole_code", padding, narrow)
    for variant in ("dense", "csr", "huffman"):
        draft = made(variant, codings={"codes": "huffman"})
        flat = {"low": 0, "zeros": 0, "first": 0, "lengths": nibbles([4] * 16)}
        stream = next(one for one in draft.header["streams"] if one["name"] == "codes")
        number = draft.header["streams"].index(stream)
        stream["code"] = flat
        draft.parts[number] = [coded_part([1], 8, "unsigned", flat) for _ in draft.parts[number]]
        yield Bad(f"codebook_{variant}_huffman_above_bits", "4.5", "format", draft.build())
    for variant in PADDED:
        yield bad(f"{variant}_zero_not_first", part(-1, 0, lambda data: b"\1" + data[1:]), made(variant))
    yield bad("dense_codes_missing", part(0, 1, lambda data: data[:-1]), made("dense"))
    yield bad("nnz_more", lambda draft: draft.header.update(nnz=draft.header["nnz"] + 1))


def part_cases() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (layouts, relative, groups, blocks, entropy, codebooks):
        yield from group()
