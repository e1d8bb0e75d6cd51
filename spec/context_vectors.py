"""Layout context (5.10): frames that a reader must read, and parts that it must refuse."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import Bad, Case, book_of, few, frame_case, sample
from writer import encode
from writer_context import Field, g, joined, r


def context_cases() -> Iterator[Case]:
    """Every field of the head, every sign, panels at their edges."""
    matrix = sample((9, 24), "F32", 40, seed=1100)
    models: dict[str, dict[str, Any]] = {f"lanes_{1 << lanes}": {"lanes": lanes} for lanes in range(7)}
    models |= {f"sign_{sign}": {"sign": sign} for sign in range(5)}
    models |= {f"fine_{fine}": {"fine": fine, "low": 20, "zeros": 0} for fine in (1, 4, 7)}
    models |= {f"scale_{scale}": {"scale": scale} for scale in (6, 9, 11, 12)}
    models |= {
        "no_masks": {"blocks": []},
        "rows_and_columns": {"blocks": [(1, 24), (9, 1)]},
        "one_block": {"blocks": [(9, 24)]},
    }
    models |= {
        "tables_4": {"tables": 4, "rows": [0, 1, 2, 3, 4, 5, 6, 7, 8]},
        "one_class": {"rows": [0] * 9, "columns": [0] * 24},
    }
    models |= {"classes_63": {"rows": [0, 38, *[1] * 7], "columns": [0, 24, *range(22)], "blocks": []}}
    models |= {"group_4": {"group": 4, "near": [1, 2, 3], "columns": [0, 1, 2, 3] * 6, "rows": [0] * 9}}
    models |= {"group_24": {"group": 24, "near": [1, 5, 23]}, "group_8": {"group": 8, "near": [7], "lanes": 3}}
    for name, model in models.items():
        yield frame_case(f"context_{name}", "5.10", matrix, "F32", "context", segment=(9, 24), codes={"coded": model})
    holes = matrix.copy()
    holes[[2, 5]] = holes[:, 3::7] = 0
    for name, dead in {"rows": ["rows"], "columns": ["columns"], "lines": ["rows", "columns"]}.items():
        model = {"dead": dead, "line_scale": 4 + 3 * len(dead), "blocks": [(2, 2)] * len(dead)}
        yield frame_case(f"context_dead_{name}", "5.10", holes, "F32", "context", codes={"coded": model})
    alike = {"dead": ["rows"], "rows": [0] * 9, "columns": [0] * 24, "lanes": 5}
    yield frame_case("context_dead_alone", "5.10", holes, "F32", "context", codes={"coded": alike})
    for number, (dtype, sign) in enumerate((("I8", 4), ("I16", 4), ("I8", 3), ("U8", 2), ("I64", 4))):
        bits = sample((5, 11), dtype, 60, seed=1140 + number)
        model = {"sign": sign, "low": 4 * (dtype == "I64")}
        yield frame_case(f"context_{dtype}_sign_{sign}", "5.10", bits, dtype, "context", codes={"coded": model})
    for number, dtype in enumerate(("F64", "U64", "I64", "I16", "BF16", "I8", "BOOL")):
        bits = sample((5, 11), dtype, 60, seed=1120 + number)
        yield frame_case(f"context_type_{dtype}", "5.10", bits, dtype, "context", segment=(2, 11))
    wide = np.frombuffer(np.arange(1, 41, dtype="<u8") * 0x9E3779B97F4A7C15, "<u8").reshape(4, 10)
    for sign in (0, 2):
        yield frame_case(f"context_raw_field_{sign}", "5.10", wide, "F64", "context", codes={"coded": {"sign": sign}})
    long = sample((2, 16390), "U8", 3, seed=1130)
    yield frame_case("context_long_rows", "5.10", long, "U8", "context")
    tall = sample((700, 40), "U8", 5, seed=1131)
    yield frame_case("context_panels", "5.10", tall, "U8", "context", codes={"coded": {"group": 2, "near": [1]}})
    # Two panels: 16 low bits are 0 in the first, 8 in the second.
    short = sample((700, 40), "U32", 3, seed=1135)
    short[409:] |= short[409:] >> 8 & 0xFF00
    for lanes in (2, 4):
        model = {"zeros": 0, "low": 20, "left_out": "all", "sign": 0, "lanes": lanes}
        yield frame_case(f"context_left_out_{lanes}", "5.10", short, "U32", "context", codes={"coded": model})
    halves = sample((700, 40), "F32", 3, seed=1136)
    halves[:409] &= 0xFFFF0000
    model = {"zeros": 0, "low": 16, "left_out": "all", "sign": 2}
    yield frame_case("context_left_out_with_sign", "5.10", halves, "F32", "context", codes={"coded": model})
    full = sample((4, 8), "F16", 100, seed=1132)
    yield frame_case("context_full", "5.10", full, "F16", "context")
    labels = few((6, 9), "F32", 9, 1133)
    yield frame_case(
        "context_labels", "7.2", labels, "F32", "context", segment=(4, 9), book=book_of(labels, 4, 0, zero=False)
    )
    many = few((12, 30), "F32", 200, 1134)
    for sign in range(4):  # sign 4 has no key for label 128
        yield frame_case(
            f"context_labels_sign_{sign}", "7.2", many, "F32", "context",
            book=book_of(many, 8, 0, zero=False), codes={"coded": {"sign": sign}},
        )  # fmt: skip


# A part of 4 x 6 elements of 16 bits, of which the first three of each row are 1.
_K = 12


def head_of(**change: Any) -> bytes:
    """Its head, with some fields replaced; one that is None is left out."""
    fields: dict[str, list[Field] | None] = {
        "k": g(_K, 8), "lanes": [(0, 3)], "masks": [(1, 2), *g(3, 2), *g(2, 2), *g(1, 8), (0, 4), *r(0, 0)],
        "rows": g(0, 1), "columns": g(0, 1), "group": g(0, 0), "levels": g(2 * 160, 2), "tables": [(0, 4)],
        "table_of": [], "sign": [(0, 3)], "bits": [(0, 6), (0, 6)], "fine": [(0, 3)], "first": [(1, 16)],
        "symbols": [(0, 8)], "scale": [(4, 3)],
        "counts": [(3, 2)], "left_out": [(0, 1)],
    }  # fmt: skip
    return joined([one for name, field in fields.items() for one in (change.get(name, field) or [])])


def context_bads() -> Iterator[Bad]:
    """Every rule of 5.10."""
    bits = np.zeros((4, 6), "<u2")
    bits[:, :3] = 1
    state = (65536).to_bytes(4, "little")

    def bad(name: str, rule: str, part: bytes, values: np.ndarray = bits, dtype: str = "U16", **options: Any) -> Bad:
        draft = encode(values, dtype, "context", **options)
        draft.parts[0][0] = part
        return Bad(f"context_{name}", rule, draft.build())

    def head(name: str, rule: str, behind: bytes = state, **change: Any) -> Bad:
        return bad(name, rule, head_of(**change) + behind)

    right = head_of() + state
    yield bad("head_cut", "R5.10a", head_of()[:8])
    yield bad("nothing", "R5.10a", b"")
    for fill in range(1, 8):  # one of them leaves bits behind the last field
        longer = head_of(counts=[(3, 2), (0, fill), (1, 1)])
        if len(longer) == len(head_of()):
            yield bad("padding_of_the_head", "R5.10a", longer + state)
            break
    yield head("too_many_stored", "R5.10b", k=g(25, 8))
    yield head("lanes_7", "R5.10b", lanes=[(7, 3)])
    yield head("masks_3", "R5.10b", masks=[(3, 2)])
    for name, fields in {
        "too_tall": [*g(4, 2), *g(0, 2)], "too_wide": [*g(0, 2), *g(6, 2)], "too_small": [*g(0, 2), *g(2, 2)],
        "too_many": [*g(1, 2), *g(1, 2), *g(7, 8)],
        "behind_the_last": [*g(1, 2), *g(1, 2), *g(2, 8), (0, 4), *r(0, 0), *r(5, 0)],
    }.items():  # fmt: skip
        yield head(f"blocks_{name}", "R5.10b", masks=[(1, 2), *fields])
    yield head("group_of_4", "R5.10b", group=[*g(3, 0), (1, 2), *g(0, 1)])
    yield head("no_neighbours", "R5.10b", group=[*g(2, 0), (0, 2)])
    yield head("distances_descend", "R5.10b", group=[*g(2, 0), (2, 2), *g(1, 1), *g(0, 1)])
    yield head("distance_of_the_group", "R5.10b", group=[*g(2, 0), (1, 2), *g(2, 1)])
    wide = np.zeros((1, 16386), np.uint8)
    wide[0, 0] = 1
    long = head_of(k=g(1, 8), masks=[(0, 2)], group=[*g(1, 0), (1, 2), *g(0, 1)])
    yield bad("group_of_long_rows", "R5.10b", long + state, wide, "U8")
    # Two symbols of rows, whose counts have the sum 32.
    two = [*g(1, 1), (0, 1), (0, 3), (0, 2)]
    yield head("symbols_of_rows_65", "R5.10b", rows=g(64, 1))
    yield head("symbol_of_rows_below_0", "R5.10c", rows=[*two, *g(1, 0)])
    yield head("symbols_of_rows_long", "R5.10c", rows=[*two, *g(2 * 33, 0)])
    yield head("symbol_0_of_columns_missing", "R5.10c", columns=[*two, *g(0, 0)])
    yield head("last_symbol_of_columns_missing", "R5.10c", columns=[*two, *g(2 * 32, 0)])
    for name, symbols, group in (
        ("classes_64", 64, g(0, 0)), ("levels_264", 33, [*g(5, 0), (3, 2), *g(0, 1), *g(1, 1), *g(2, 1)]),
    ):  # fmt: skip
        rows = [
            *g(symbols - 1, 1),
            (0, 1),
            (2, 3),
            (0, 2),
            *g(4, 0),
            *[one for _ in range(2, symbols) for one in g(0, 0)],
        ]
        yield head(name, "R5.10c", rows=rows, group=group)
    yield head("word_of_rows_missing", "R5.10h", rows=[*two, *g(2 * 16, 0)], levels=[*g(2 * 160, 2), *g(0, 2)])
    yield head("level_321", "R5.10d", levels=g(2 * 161, 2))
    yield head("level_below_0", "R5.10d", levels=g(2 * 161 - 1, 2))
    yield head("table_of_a_class", "R5.10b", tables=[(2, 4)], table_of=[(3, 2)])
    yield head("no_bits_of_a_symbol", "R5.10b", bits=[(8, 6), (8, 6)], first=[])
    for name, count in {
        "table_long": 2 * 513, "count_below_0": 1, "first_symbol_missing": 0, "last_symbol_missing": 2 * 512,
    }.items():  # fmt: skip
        yield head(name, "R5.10e", symbols=[(1, 8)], counts=[(3, 2), *g(count, 2)])
    yield head("symbols_outside", "R5.10e", first=[(65535, 16)], symbols=[(1, 8)], counts=[(3, 2), *g(2 * 256, 2)])
    tables = {"tables": [(15, 4)], "table_of": [(0, 4)], "scale": [(7, 3)]}
    yield head("tables_too_large", "R5.10e", counts=[(3, 2)] * 16, **tables)
    yield head("sign_5", "R5.10b", sign=[(5, 3)], first=[(1, 15)])
    deep = head_of(bits=[(0, 6), (57, 6)], first=[(0, 7)])
    yield bad("raw_field_57", "R5.10b", deep + state + bytes(100), bits.astype("<u8"), "U64")
    yield bad("no_state", "R5.10f", head_of())
    yield bad("half_a_word", "R5.10f", right + b"\0")
    none = np.zeros((4, 6), "<u2")
    yield bad("bytes_behind_nothing", "R5.10f", joined(g(0, 8)) + b"\0\0", none)
    yield bad("state_below", "R5.10g", head_of() + (65535).to_bytes(4, "little"))
    yield bad("word_missing", "R5.10h", head_of(levels=g(0, 2)) + state)
    yield bad("word_left", "R5.10i", right + b"\0\0")
    banks, none_or_one = {"lanes": [(5, 3)]}, [number.to_bytes(4, "little") for number in (0, 1)]
    yield bad("length_cut", "R5.10f", head_of(**banks) + 32 * state)
    yield bad("bank_too_long", "R5.10f", head_of(**banks) + 32 * state + none_or_one[1])
    yield bad("word_left_in_a_bank", "R5.10i", head_of(**banks) + 32 * state + none_or_one[1] + b"\0\0")
    halves = head_of(levels=g(0, 2), **banks)
    yield bad("word_missing_in_a_bank", "R5.10h", halves + 32 * state + none_or_one[0] + bytes(100))
    yield bad("state_left", "R5.10i", head_of() + (65537).to_bytes(4, "little"))
    yield head("stored_more", "R5.10j", k=g(_K + 1, 8))
    yield head("stored_less", "R5.10j", k=g(_K - 1, 8))
    narrow = {"bits": [(0, 6), (4, 6)], "first": [(0, 12)]}  # 12 raw fields of 4 bits, less what is left out
    for name, rule, bits_left, size in (
        ("nothing", "R5.10b", 0, 6), ("more_than_there_is", "R5.10b", 5, 0), ("too_few_bytes", "R5.10h", 1, 4),
        ("too_many_bytes", "R5.10k", 1, 6),
    ):  # fmt: skip
        fields = [(1, 1), *g(size, 8), (0, 3), *r(bits_left, 0)]
        yield head(f"left_out_{name}", rule, behind=state + bytes(size), left_out=fields, **narrow)
    yield head("fine_of_nothing", "R5.10b", fine=[(1, 3)], first=[(2, 17)])
    low = head_of(bits=[(0, 6), (1, 6)], first=[(0, 15)])
    yield bad("padding_of_raw_bits", "R5.10k", low + state + b"\xff\x1f")
    labels = few((4, 6), "F32", 3, 1140)
    draft = encode(labels, "F32", "context", book=book_of(labels, 2, 0, zero=False))
    draft.parts[0][0] = head_of(first=[(4, 8)]) + state
    yield Bad("context_label_of_no_entry", "R7.2f", draft.build())
    draft.parts[0][0] = head_of(sign=[(1, 3)], first=[(128, 8)]) + state
    yield Bad("context_label_with_a_sign", "R7.2f", draft.build())
