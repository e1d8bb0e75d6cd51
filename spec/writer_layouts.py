"""How a plain writer of format.md keeps positions: section 5, one segment at a time."""

import struct
from math import comb
from typing import Any

import numpy as np
from writer_coding import bit_string, packed

# The streams of each layout, but for whole columns of block_offset.
STREAMS = {"dense": ["values"], "csr": ["pointers", "columns", "values"], "bitmap": ["mask", "values"]}
STREAMS |= {"huffman": ["gaps", "values"], "relative_index": ["steps", "values"], "run_length": ["words"]}
STREAMS |= {"n_m": ["patterns", "values"], "block_offset": ["pointers", "columns", "values"]}
STREAMS |= {"sell": ["places", "lengths", "columns", "values"], "context": ["coded"]}


def positions_of(layout: str, params: dict[str, Any], stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5: the position items of one segment, and the positions of its values in their order (-1: a filler).

    For run_length the items are the ``steps`` of its pairs.
    """
    h, w = stored.shape
    flat = np.flatnonzero(stored)
    if layout == "csr":
        listed = stored if params["of"] == "nonzeros" else ~stored
        columns = [int(column) for row in listed for column in np.flatnonzero(row)]
        return {"pointers": [0, *np.cumsum(listed.sum(axis=1)).tolist()], "columns": columns}, flat
    if layout == "bitmap" and params["order"] == "rows":
        return {"mask": list(bit_string("".join("01"[int(bit)] for bit in stored.ravel())))}, flat
    if layout == "bitmap":
        words, order = b"", []
        for top in range(0, h, 64):
            for column in range(w):
                rows = [row for row in range(top, min(top + 64, h)) if stored[row, column]]
                words += sum(1 << (row - top) for row in rows).to_bytes(8, "little")
                order += [row * w + column for row in rows]
        return {"mask": list(words)}, np.array(order, np.int64)
    if layout == "huffman":
        gaps, last = [], -1
        for position in flat.tolist():
            gap, last = position - last - 1, position
            gaps += [255] * (gap // 255) + [gap % 255]
        return {"gaps": gaps}, flat
    if layout in ("relative_index", "run_length"):
        steps, order = steps_of(params, stored)
        if layout == "relative_index":
            steps = [*struct.pack("<I", len(steps)), *packed(steps, params["bits"])]
        return {"steps": steps}, np.array(order, np.int64)
    if layout == "n_m":
        return groups_of(params["n"], params["m"], stored)
    if layout == "block_offset":
        return blocks_of(params, stored)
    if layout == "sell":
        return slices_of(stored)
    return {}, flat if layout == "context" else np.arange(h * w)


def slices_of(stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5.9: places, lengths and columns, and the positions of the values, -1 for what fills a slice up."""
    found: dict[str, list[int]] = {"places": [], "lengths": [], "columns": []}
    order = []
    for left in range(0, stored.shape[1], 256):
        for top in range(0, len(stored), 64):
            rows = [[int(at) for at in np.flatnonzero(row)] for row in stored[top : top + 64, left : left + 256]]
            sorted_rows = sorted(range(len(rows)), key=lambda row, rows=rows: (-len(rows[row]), row))
            found["places"] += [sorted_rows.index(row) for row in range(len(rows))]
            for first in range(0, len(rows), 8):
                slice_rows = sorted_rows[first : first + 8]
                found["lengths"].append(len(rows[slice_rows[0]]))
                for step in range(found["lengths"][-1]):
                    for lane in range(8):
                        row = slice_rows[lane] if lane < len(slice_rows) else None
                        here = [] if row is None else rows[row]
                        found["columns"].append(here[min(step, len(here) - 1)] if here else 0)
                        there = row is not None and step < len(here)
                        order.append((top + row) * stored.shape[1] + left + here[step] if there else -1)
    return found, np.array(order, np.int64)


def groups_of(n: int, m: int, stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5.7: bytes of patterns, and the positions of the values, -1 for a filler."""
    bits = (sum(comb(m, ones) for ones in range(n + 1)) - 1).bit_length()
    patterns, order = "", []
    for top, row in enumerate(stored):
        for left in range(0, len(row), m):
            group = row[left : left + m]
            here = [top * len(row) + left + int(at) for at in np.flatnonzero(group)]
            assert len(here) <= n
            mask = sum(1 << int(at) for at in np.flatnonzero(group))
            patterns += format(mask if bits == m else smaller(mask, n), f"0{bits}b")[::-1]
            order += here + [-1] * (min(n, len(group)) - len(here))
    return {"patterns": list(bit_string(patterns))}, np.array(order, np.int64)


def smaller(mask: int, n: int) -> int:
    """Masks below this one with at most n bits: those that first differ from it where it has a 1 and they a 0."""
    ones = [bit for bit in range(mask.bit_length()) if mask >> bit & 1][::-1]
    return sum(comb(bit, k) for above, bit in enumerate(ones) for k in range(n - above + 1))


def blocks_of(params: dict[str, Any], stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5.8, but for whole columns."""
    (r, c), (h, w) = params["block"], stored.shape
    pointers, columns, order = [0], [], [np.zeros(0, np.int64)]
    place = np.arange(h * w).reshape(h, w)
    for top in range(0, h, r):
        for left in range(0, w, c):
            if stored[top : top + r, left : left + c].any():
                columns.append(left // c)
                order.append(place[top : top + r, left : left + c].ravel())
        pointers.append(len(columns))
    return {"pointers": pointers, "columns": columns}, np.concatenate(order)


def steps_of(params: dict[str, Any], stored: np.ndarray) -> tuple[list[int], list[int]]:
    """Sections 5.5 and 5.6: steps, and the positions of the values, -1 for a filler."""
    top = (1 << params["bits"]) - 1
    fillers, zeros = params.get("filler", "value") == "value", params.get("of") == "zeros"
    steps, order, last = [], [], -1
    for position in np.flatnonzero(~stored if zeros else stored).tolist():
        idle, rest = divmod(position - last - 1, top + fillers)
        steps += [top] * idle + [rest]
        order += [-1] * (idle * fillers) + [position]
        last = position
    return steps, np.flatnonzero(stored).tolist() if zeros else order


def words_of(bits: int, steps: list[int], values: list[int], value_bits: int) -> list[int]:
    """Section 5.6, as u64s."""
    width, pair = (128 if value_bits == 64 else 64), bits + value_bits
    count = (width - 1) // pair
    pairs = [step | value << bits for step, value in zip(steps, values, strict=True)]
    pairs += [(1 << bits) - 1] * (-len(pairs) % count)
    words: list[int] = []
    for at in range(0, len(pairs), count):
        word = sum(one << slot * pair for slot, one in enumerate(pairs[at : at + count]))
        word |= (at + count == len(pairs)) << width - 1
        words += [word] if width == 64 else [word & (1 << 64) - 1, word >> 64]
    return words
