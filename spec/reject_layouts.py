"""Parts that a reader must refuse: the streams of each layout."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cases import VARIANTS, Bad, base
from writer import Draft, encode
from writer_coding import coded_part

Change = Callable[[bytes], bytes]


def with_parts(variant: str, stream: int, part: int, change: Change, **options: Any) -> bytes:
    """The base frame with one part changed."""
    draft = base(variant, **options)
    draft.parts[stream][part] = change(draft.parts[stream][part])
    return draft.build()


def with_items(variant: str, stream: int, change: Callable[[np.ndarray], Any], width: int, **options: Any) -> bytes:
    """The base frame with the items of the first part changed; ``width`` is their bytes."""

    def edit(data: bytes) -> bytes:
        items = np.frombuffer(data, f"<u{width}").copy()
        change(items)
        return items.tobytes()

    return with_parts(variant, stream, 0, edit, **options)


def counts() -> Iterator[Bad]:
    """Values that are too few, too many or in another part; another nnz."""

    def moved(variant: str) -> bytes:
        """The last two bytes of the values' first part in the second: the sum stays right."""
        draft = base(variant)
        values = draft.parts[-1]
        values[0], values[1] = values[0][:-2], values[0][-2:] + values[1]
        return draft.build()

    def miscounted(variant: str, change: int) -> Bad:
        draft = base(variant)
        draft.header["nnz"] += change
        return Bad(f"{variant}_nnz_{'more' if change > 0 else 'less'}", "R4.4a", draft.build())

    rules = {"dense": "R5.1a", "csr": "R5.2f", "csr_zeros": "R5.2f", "bitmap": "R5.3c", "bitmap_lanes": "R5.3c"}
    for variant, rule in (rules | {"n_m": "R5.7b"}).items():
        yield Bad(f"{variant}_values_of_the_wrong_part", rule, moved(variant))
        yield Bad(f"{variant}_odd_byte_of_values", rule, with_parts(variant, -1, 2, lambda data: data + b"\0"))
        yield Bad(f"{variant}_value_missing", rule, with_parts(variant, -1, 2, lambda data: data[:-2]))
        yield Bad(f"{variant}_value_too_many", rule, with_parts(variant, -1, 2, lambda data: data + b"\0\0"))
        if variant != "dense":  # nnz may be above the number of non-zero elements there
            yield miscounted(variant, 1)
        yield miscounted(variant, -1)
    yield miscounted("huffman", 1)
    one = np.zeros((5, 13), np.uint8)
    one[2, 4] = 7
    for variant, values in (("blocks", 2 * 3), ("blocks_columns", 5 * 2), ("sell", 8)):
        yield miscounted(variant, -1)
        layout, params = VARIANTS[variant]
        draft = encode(one, "U8", layout, params=params)
        draft.header["nnz"] = values + 1
        yield Bad(f"{variant}_nnz_above_the_values", "R4.4a", draft.build())


def csr() -> Iterator[Bad]:
    for variant in ("csr", "csr_zeros"):

        def pointers(name: str, rule: str, change: Callable[[np.ndarray], Any], variant: str = variant) -> Bad:
            return Bad(f"{variant}_pointers_{name}", rule, with_items(variant, 0, change, 4))

        def columns(name: str, change: Callable[[np.ndarray], Any], variant: str = variant) -> Bad:
            return Bad(f"{variant}_column{name}", "R5.2e", with_items(variant, 1, change, 1))

        yield Bad(f"{variant}_pointers_missing", "R5.2b", with_parts(variant, 0, 0, lambda data: data[:-4]))
        yield Bad(f"{variant}_pointers_too_many", "R5.2b", with_parts(variant, 0, 0, lambda data: data + data[-4:]))
        yield pointers("not_from_0", "R5.2c", lambda items: items.__setitem__(0, 1))
        yield pointers("decrease", "R5.2c", lambda items: items.__setitem__(1, items[2] + 1))
        yield pointers("wrap", "R5.2c", lambda items: items.__setitem__(1, 2**32 - 1))
        yield pointers("last_too_large", "R5.2d", lambda items: items.__setitem__(2, items[2] + 1))
        yield pointers("last_too_small", "R5.2d", lambda items: items.__setitem__(2, items[2] - 1))
        yield pointers("last_largest", "R5.2d", lambda items: items.__setitem__(2, 2**32 - 1))
        yield columns("_out_of_range", lambda items: items.__setitem__(-1, 13))
        yield columns("_largest", lambda items: items.__setitem__(-1, 255))
        yield columns("_twice", lambda items: items.__setitem__(1, items[0]))
        yield columns("s_unsorted", lambda items: items.__setitem__(slice(0, 2), items[1::-1].copy()))


def bitmap() -> Iterator[Bad]:
    def mask(name: str, rule: str, change: Change, variant: str = "bitmap") -> Bad:
        return Bad(f"{variant}_{name}", rule, with_parts(variant, 0, 0, change))

    def free(data: bytes) -> bytes:
        """One bit more."""
        return bytes([next(data[0] | 1 << bit for bit in range(8) if not data[0] >> bit & 1)]) + data[1:]

    yield mask("mask_too_short", "R5.3a", lambda data: data[:-1])
    yield mask("mask_too_long", "R5.3a", lambda data: data + b"\0")
    yield mask("mask_too_short", "R5.3a", lambda data: data[:-8], "bitmap_lanes")
    yield mask("mask_too_long", "R5.3a", lambda data: data + bytes(8), "bitmap_lanes")
    yield mask("padding", "R5.3b", lambda data: data[:-1] + bytes([data[-1] | 128]))
    yield mask("padding", "R5.3b", lambda data: bytes([data[0] | 4]) + data[1:], "bitmap_lanes")
    yield mask("padding_high", "R5.3b", lambda data: data[:-1] + b"\x80", "bitmap_lanes")
    yield mask("bit_without_value", "R5.3c", free)


def huffman() -> Iterator[Bad]:
    def gaps(
        name: str,
        rule: str,
        items: list[int],
        shape: tuple[int, int] = (1, 300),
        stored: tuple[int, ...] = (3, 290),
    ) -> Bad:
        """A code of 8 bits for each of 256 items, so that any of them can be written."""
        tensor = np.zeros(shape, np.uint8)
        tensor.flat[list(stored)] = 5
        flat = {"low": 0, "zeros": 0, "first": 0, "lengths": b"\x88" * 128}
        draft = encode(tensor, "U8", "huffman", params={"max_length": 12}, codes={"gaps": flat})
        draft.parts[0] = [coded_part(items, 8, "unsigned", flat)]
        return Bad(f"huffman_{name}", rule, draft.build())

    yield gaps("last_gap_255", "R5.4a", [3, 255, 31, 255])
    yield gaps("position_out_of_range", "R5.4b", [3, 255, 41])
    yield gaps("position_far_out_of_range", "R5.4b", [3, 255, 255, 255, 0])
    yield gaps("gap_without_value", "R5.4c", [3, 255, 31, 1])
    yield gaps("value_without_gap", "R5.4c", [3])
    yield gaps("more_gaps_than_elements", "R6.4a", [0] * 5, (1, 4), (0, 1, 2, 3))


def relative_index() -> Iterator[Bad]:
    """From a row of 40 elements with steps 3, 3, 1 (fillers or escapes) or their like."""

    def tensor(positions: tuple[int, ...] = (7, 9)) -> np.ndarray:
        line = np.zeros((1, 40), np.uint8)
        line[0, list(positions)] = 5
        return line

    def made(
        name: str, rule: str, steps: list[int], filler: str = "escape", values: bytes = b"\5\5", **changed: Any
    ) -> Bad:
        params = {"bits": 2, "filler": filler, "of": changed.get("of", "nonzeros")}
        line = tensor() if params["of"] == "nonzeros" else 5 * (tensor() == 0).astype(np.uint8)
        draft = encode(line, "U8", "relative_index", params=params)
        packed = sum(step << 2 * at for at, step in enumerate(steps)) | changed.get("padding", 0) << 2 * len(steps)
        body = packed.to_bytes(changed.get("bytes", -(-2 * len(steps) // 8)), "little")
        draft.parts[0][0] = struct.pack("<I", changed.get("count", len(steps))) + body
        draft.parts[1][0] = values
        draft.header["nnz"] = changed.get("nnz", 2)
        return Bad(f"relative_{name}", rule, draft.build())

    # Right: 3 3 1 | 1 is positions 7 and 9; with fillers 3 3 0 | 1 is 8 and 10.
    draft = encode(tensor(), "U8", "relative_index", params={"bits": 2, "filler": "escape", "of": "zeros"})
    draft.header["params"]["filler"] = "value"
    yield Bad("relative_fillers_between_zeros", "R5.5a", draft.build())
    for name, data in (("empty", b""), ("count_cut", b"\0\0\0")):
        draft = encode(tensor(()), "U8", "relative_index", params={"bits": 2, "filler": "escape", "of": "nonzeros"})
        draft.parts[0][0] = data
        yield Bad(f"relative_steps_{name}", "R5.5b", draft.build())
    yield made("count_more", "R5.5b", [3, 3, 1, 1], count=5)
    yield made("count_less", "R5.5b", [3, 3, 1, 1, 1], count=4)
    yield made("count_largest", "R5.5b", [3, 3, 1, 1], count=2**32 - 1)
    yield made("byte_after", "R5.5b", [3, 3, 1, 1], bytes=2)
    yield made("padding", "R5.5c", [3, 3, 1, 1, 0], padding=1, values=b"\5\5\5", nnz=3)
    yield made("count_within_padding", "R5.5c", [3, 3, 1, 1], count=3, values=b"\5")
    yield made("last_escape", "R5.5d", [3, 3, 1, 1, 3])
    yield made("only_escapes", "R5.5d", [3], values=b"", nnz=0)
    yield made("last_filler", "R5.5d", [3, 3, 0, 1, 3], "value", b"\0\0\5\5\0")
    yield made("position_out_of_range", "R5.5e", [3] * 13 + [0, 0])
    yield made("position_out_of_range_behind_fillers", "R5.5e", [3] * 9 + [3, 0], "value", bytes(9) + b"\5\5")
    yield made("zeros_out_of_range", "R5.5e", [3] * 13 + [1], of="zeros", values=b"\5" * 38, nnz=38)
    yield made("value_missing", "R5.5f", [3, 3, 1, 1], values=b"\5")
    yield made("value_too_many", "R5.5f", [3, 3, 1, 1], values=b"\5\5\5")
    yield made("filler_missing", "R5.5f", [3, 3, 0, 1], "value", b"\0\5\5")
    yield made("filler_too_many", "R5.5f", [3, 3, 0, 1], "value", b"\0\0\0\5\5")
    yield made("zeros_value_missing", "R5.5f", [3, 3, 1, 1], of="zeros", values=b"\5" * 37, nnz=38)
    yield made("fillers_counted", "R4.4a", [3, 3, 0, 1], "value", b"\0\0\5\5", nnz=4)
    yield made("miscounted", "R4.4a", [3, 3, 1, 1], nnz=1)


def run_length() -> Iterator[Bad]:
    """From a row of 40 elements in words of six pairs of 10 bits."""

    def made(positions: tuple[int, ...] = (7, 9), dtype: str = "<u1") -> Draft:
        line = np.zeros((1, 40), dtype)
        line[0, list(positions)] = 5
        return encode(line, f"U{8 * line.itemsize}", "run_length", params={"bits": 2})

    def words(
        name: str,
        rule: str,
        change: Callable[[list[int]], Any],
        positions: tuple[int, ...] = (7, 9),
        nnz: int | None = None,
    ) -> Bad:
        draft = made(positions)
        found = list(struct.unpack(f"<{len(draft.parts[0][0]) // 8}Q", draft.parts[0][0]))
        change(found)
        draft.parts[0][0] = struct.pack(f"<{len(found)}Q", *found)
        draft.header["nnz"] = draft.header["nnz"] if nnz is None else nnz
        return Bad(f"run_length_{name}", rule, draft.build())

    last = 1 << 63
    many = tuple(range(0, 40, 3))
    fill = sum(3 << 10 * slot for slot in range(6))

    def fillers_behind(found: list[int]) -> None:
        found[-1] ^= last
        found.append(fill | last)

    def fillers_before(found: list[int]) -> None:
        found.insert(0, fill)

    draft = made()
    draft.parts[0][0] += b"\0" * 4
    yield Bad("run_length_half_a_u64", "R5.6a", draft.build())
    draft = made(dtype="<u8")
    draft.parts[0][0] = draft.parts[0][0][:-8]
    yield Bad("run_length_half_a_word", "R5.6a", draft.build())
    yield words("no_last_word", "R5.6b", lambda found: found.__setitem__(-1, found[-1] ^ last))
    yield words("last_word_too_early", "R5.6b", lambda found: found.__setitem__(0, found[0] | last), many)
    yield words("word_after_last", "R5.6b", lambda found: found.append(fill))
    yield words("padding_low", "R5.6c", lambda found: found.__setitem__(0, found[0] | 1 << 60))
    yield words("padding_high", "R5.6c", lambda found: found.__setitem__(0, found[0] | 1 << 62))
    yield words("padding_of_an_early_word", "R5.6c", lambda found: found.__setitem__(0, found[0] | 1 << 62), many)
    yield words("last_word_of_fillers", "R5.6d", fillers_behind)
    yield words("only_fillers", "R5.6d", lambda found: found.__setitem__(0, fill | last), nnz=0)
    yield words("position_out_of_range", "R5.6e", fillers_before, (7, 20))
    yield words("filled_with_zeros", "R4.4a", lambda found: found.__setitem__(0, found[0] & ~(3 << 50)))
    yield words("miscounted", "R4.4a", lambda found: None, nnz=3)
    yield words("missing", "R4.4a", lambda found: found.clear())


def n_m() -> Iterator[Bad]:
    """From a row of 10 elements: two groups of 4, with masks of 4 bits or ranks of 3, and one of 2."""

    def bad(name: str, rule: str, n: int, patterns: int, values: bytes, nnz: int, size: int = 2) -> Bad:
        draft = encode(np.zeros((1, 10), np.uint8), "U8", "n_m", params={"m": 4, "n": n})
        draft.parts[0][0] = patterns.to_bytes(size, "little")
        draft.parts[1][0] = values
        draft.header["nnz"] = nnz
        return Bad(f"n_m_{name}", rule, draft.build())

    for name, rule, params in (
        ("n_above_m", "R5.7a", {"m": 4, "n": 5}),
        ("n_0", "R5a", {"m": 4, "n": 0}),
        ("m_65", "R5a", {"m": 65, "n": 4}),
    ):
        draft = encode(np.zeros((1, 10), np.uint8), "U8", "n_m", params={"m": 4, "n": 4})
        draft.header["params"] = params
        yield Bad(f"n_m_{name}", rule, draft.build())
    # Right: 0x135 with six values is elements 0 and 2; 4 and 5; 8, and a filler; ranks 2 4 1 are elements 1, 7 and 8.
    yield bad("patterns_missing", "R5.7b", 2, 0x35, b"\5\5\5\5\5\0", 4, 1)
    yield bad("patterns_byte_after", "R5.7b", 2, 0x135, b"\5\5\5\5\5\0", 5, 3)
    yield bad("value_missing_of_six", "R5.7b", 2, 0x135, b"\5\5\5\5\5", 5)
    yield bad("value_too_many_for_six", "R5.7b", 2, 0x135, b"\5\5\5\5\5\0\0", 5)
    yield bad("more_than_n", "R5.7c", 2, 0x137, b"\5\5\5\5\5\0", 6)
    yield bad("all_of_a_group", "R5.7c", 2, 0x13F, b"\5\5\5\5\5\0", 7)
    yield bad("rank_of_none", "R5.7c", 1, 0o152, b"\5\5\5", 3)
    yield bad("rank_largest", "R5.7c", 1, 0o127, b"\5\5\5", 3)
    draft = encode(np.zeros((1, 64), np.uint8), "U8", "n_m", params={"m": 64, "n": 2})
    draft.parts[0][0] = (2081).to_bytes(2, "little")
    yield Bad("n_m_rank_of_none_of_64", "R5.7c", draft.build())
    yield bad("bit_behind_the_row", "R5.7d", 2, 0x435, b"\5\5\5\5\5\0", 5)
    yield bad("rank_behind_the_row", "R5.7d", 1, 0o342, b"\5\5\5", 3)
    yield bad("padding", "R5.7e", 2, 0x1135, b"\5\5\5\5\5\0", 5)
    yield bad("rank_of_a_missing_group", "R5.7e", 1, 0o1142, b"\5\5\5", 3)
    yield bad("filler_not_zero", "R5.7f", 2, 0x135, b"\5\5\5\5\5\5", 5)
    yield bad("fillers_first", "R5.7f", 2, 0x131, b"\0\5\5\5\5\0", 4)
    yield bad("rank_filler_not_zero", "R5.7f", 1, 0o042, b"\5\5\5", 2)
    yield bad("fillers_counted", "R4.4a", 2, 0x135, b"\5\5\5\5\5\0", 6)


def block_offset() -> Iterator[Bad]:
    """From 5 x 13 elements in blocks of 2 x 3 (segments of 4 rows), and in pairs of whole columns."""
    segment = (4, 13)

    def items(name: str, rule: str, stream: int, change: Callable[[np.ndarray], Any], variant: str = "blocks") -> Bad:
        width = 4 if stream == 0 and variant == "blocks" else 1
        return Bad(f"{variant}_{name}", rule, with_items(variant, stream, change, width, segment=segment))

    def part(name: str, rule: str, stream: int, change: Change, variant: str = "blocks", number: int = 0) -> Bad:
        return Bad(f"{variant}_{name}", rule, with_parts(variant, stream, number, change, segment=segment))

    def header(name: str, rule: str, variant: str = "blocks", **params: Any) -> Bad:
        draft = base(variant, segment=segment)
        draft.header["params"].update(params)
        return Bad(f"{variant}_{name}", rule, draft.build())

    yield header("of_no_rows_with_pointers", "R4.2f", block=[0, 3])
    yield header("of_no_rows_with_pointers", "R4.2f", "blocks_columns", block=[1, 2])
    yield header("of_no_columns", "R5.8a", block=[2, 0])
    yield header("higher_than_a_segment", "R5.8a", block=[5, 3])
    yield header("wider_than_a_segment", "R5.8a", block=[2, 14])
    yield header("wider_than_a_segment", "R5.8a", "blocks_columns", block=["all", 14])
    yield header("of_some_rows", "R5.8a", "blocks_columns", block=["some", 2])
    yield header("of_all_columns", "R5.8a", block=[2, "all"])
    yield header("of_three_sides", "R5.8a", block=[2, 3, 1])
    yield header("of_one_number", "R5.8a", block=6)
    yield header("boolean", "R5.8a", block=[True, 3])
    yield header("index_12", "R5a", block=[2, 3], index=12)
    for variant, block in (("blocks", [1, 1]), ("blocks_columns", ["all", 1])):
        draft = encode(np.ones((1, 300), np.uint8), "U8", "block_offset", params={"block": block, "index": 16})
        draft.header["params"]["index"] = 8
        yield Bad(f"{variant}_index_too_narrow", "R5.8b", draft.build())
    yield part("pointers_missing", "R5.8c", 0, lambda data: data[:-4])
    yield part("pointers_too_many", "R5.8c", 0, lambda data: data + data[-4:])
    yield items("pointers_not_from_0", "R5.8c", 0, lambda found: found.__setitem__(0, 1))
    yield items("pointers_decrease", "R5.8c", 0, lambda found: found.__setitem__(1, found[2] + 1))
    yield items("pointers_largest", "R5.8c", 0, lambda found: found.__setitem__(1, 2**32 - 1))
    yield items("pointers_last_too_small", "R5.8d", 0, lambda found: found.__setitem__(2, found[2] - 1))
    yield items("pointers_last_too_large", "R5.8c", 0, lambda found: found.__setitem__(2, found[2] + 1))
    yield part("number_missing", "R5.8d", 1, lambda data: data[:-1])
    wide = base("blocks_columns", segment=segment, params={"index": 16})
    wide.parts[0][0] += b"\0"
    yield Bad("blocks_columns_half_a_number", "R5.8d", wide.build())

    def swapped(found: np.ndarray) -> None:
        found[:2] = found[1::-1].copy()

    for variant, stream in (("blocks", 1), ("blocks_columns", 0)):
        yield items("number_out_of_range", "R5.8e", stream, lambda found: found.__setitem__(-1, 7), variant)
        yield items("number_largest", "R5.8e", stream, lambda found: found.__setitem__(-1, 255), variant)
        yield items("number_twice", "R5.8e", stream, lambda found: found.__setitem__(1, found[0]), variant)
        yield items("numbers_unsorted", "R5.8e", stream, swapped, variant)
        yield part("value_missing", "R5.8f", stream + 1, lambda data: data[:-2], variant)
        yield part("odd_byte_of_values", "R5.8f", stream + 1, lambda data: data + b"\0", variant)
        yield part("value_too_many", "R5.8f", stream + 1, lambda data: data + b"\0\0", variant)
    yield part("column_without_values", "R5.8f", 0, lambda data: data[:-1], "blocks_columns")


def sell() -> Iterator[Bad]:
    """From 70 x 260 elements, which have four tiles: the first has eight slices, the last one slice of six rows."""

    def draft() -> Draft:
        bits = np.zeros((70, 260), np.uint16)
        bits[:, ::7] = 5
        bits[1:3, 1:4] = 7
        return encode(bits, "U16", "sell")

    def part(name: str, rule: str, stream: int, change: Change) -> Bad:
        made = draft()
        made.parts[stream][0] = change(made.parts[stream][0])
        return Bad(f"sell_{name}", rule, made.build())

    def at(name: str, rule: str, stream: int, index: int, value: int) -> Bad:
        def change(data: bytes) -> bytes:
            return data[:index] + bytes([value]) + data[index + 1 :]

        return part(name, rule, stream, change)

    steps = 2 * len(draft().parts[1][0])
    yield part("place_missing", "R5.9a", 0, lambda data: data[:-1])
    yield part("place_too_many", "R5.9a", 0, lambda data: data + b"\0")
    yield part("length_missing", "R5.9a", 1, lambda data: data[:-2])
    yield part("length_too_many", "R5.9a", 1, lambda data: data + b"\0\0")
    yield part("step_missing", "R5.9a", 2, lambda data: data[:-8])
    yield part("step_too_many", "R5.9a", 2, lambda data: data + bytes(8))
    yield part("value_missing", "R5.9a", 3, lambda data: data[:-2])
    yield part("value_too_many", "R5.9a", 3, lambda data: data + b"\0\0")
    yield at("length_above_the_columns", "R5.9b", 1, 1, 2)
    yield at("length_above_the_last_columns", "R5.9b", 1, steps // 2 - 2, 5)
    yield at("place_twice", "R5.9c", 0, 0, 1)
    yield at("place_of_no_row", "R5.9c", 0, 0, 64)
    yield at("column_of_no_tile", "R5.9d", 2, len(draft().parts[2][0]) - 8, 4)
    yield at("columns_go_back", "R5.9d", 2, 16, 0)
    yield at("column_twice", "R5.9d", 2, 8, draft().parts[2][0][0])
    yield at("value_of_no_row", "R5.9e", 3, len(draft().parts[3][0]) - 2, 1)
    yield at("column_of_no_row", "R5.9e", 2, len(draft().parts[2][0]) - 1, 1)


def layout_bads() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (counts, csr, bitmap, huffman, relative_index, run_length, n_m, block_offset, sell):
        yield from group()
