"""A plain reader of format.md: slow, short, and independent of the library.

It follows the page section by section (1 to 4 in head.py, 6 in reader_coding.py, 8 in reader_model.py), so that either
can be read beside the other. ``read_frame`` reads one frame. What the page says to refuse raises SpecError, with the
page's class of error as ``reason``.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from head import DTYPES, Head, Part, read_head
from head_words import LIMITS, SpecError, need, refuse
from reader_coding import coded_items, rans_items
from reader_context import coded_elements

__all__ = ["SpecError", "read_frame"]


# Section 6 -----------------------------------------------------------------------------------------------------------


def part_items(part: Part, count: int, exact: bool = True) -> np.ndarray:
    """The items of a part, of which the layout asks for ``count`` (or at most so many)."""
    data, bits = part.data, part.stream.bits
    unsigned = np.dtype(f"<u{max(1, bits // 8)}")
    if part.stream.coding in ("huffman", "rans"):
        read = coded_items if part.stream.coding == "huffman" else rans_items
        return np.array(read(part, count, exact), unsigned)
    size = -(-count * bits // 8)
    if part.stream.coding == "zstd":
        data = unzstd(data, size, exact)
    fits = len(data) == size if exact else len(data) <= size and len(data) * 8 % bits == 0
    need(fits, f"part of stream {part.stream.name}: {len(data)} bytes, expected {size}")
    if bits < 8:  # section 7.2
        packed = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        need(not packed[count * bits :].any(), f"part of stream {part.stream.name}: padding")
        return packed[: count * bits].reshape(count, bits) @ (1 << np.arange(bits)).astype(np.uint8)
    return np.frombuffer(data, unsigned)


def unzstd(data: bytes, size: int, exact: bool) -> bytes:
    """Section 6.1, zstd; ``size`` is what the content has, or at most."""
    try:
        about = zstandard.get_frame_parameters(data)
        # Byte 4 is the frame header descriptor; its two lowest bits say whether there is a field Dictionary_ID.
        need(data[:4] == b"\x28\xb5\x2f\xfd" and data[4] & 3 == 0 and not about.has_checksum, "zstd: not allowed")
        wrong = about.content_size != size if exact else about.content_size > size
        need(not wrong, f"zstd: content size {about.content_size}, expected {size}")
        size = about.content_size
        need(about.window_size <= max(size, LIMITS["window"]), f"zstd: a window of {about.window_size} bytes")
        # zstandard reads no block of an empty frame.
        need(size > 0 or data[zstandard.frame_header_size(data) :] == b"\x01\0\0", "zstd: more than an empty block")
        found = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        refuse(f"zstd: {error}")
    return bytes(found)


# Section 5 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What the shared parts hold: codebooks, one row of entries each, and numbers of column blocks."""

    books: np.ndarray | None = None
    columns: np.ndarray | None = None


def read_shared(head: Head, parts: list[Part]) -> Shared:
    """The shared parts: section 7.2, and whole columns of 5.8."""
    found: dict[str, np.ndarray] = {}
    for part in parts if head.segments else []:
        if part.stream.name == "codebook":
            group_rows, entries = head.info["values"]["group_rows"], 1 << head.info["values"]["bits"]
            groups = -(-head.rows // group_rows) if group_rows else 1
            books = part_items(part, groups * entries).reshape(groups, entries)
            need(not fills(head) or not books[:, 0].any(), "codebook: entry 0 is not zero")
            found["books"] = books
        else:
            columns = part_items(part, len(part.data) * 8 // part.stream.bits).astype(np.int64)
            right = (columns < -(-head.cols // head.info["params"]["block"][1])).all() and (np.diff(columns) > 0).all()
            need(bool(right), "block_offset: blocks do not ascend")
            found["columns"] = columns
    return Shared(**found)


def fills(head: Head) -> bool:
    """Whether the layout has fillers, values that stand for no stored element."""
    filler = head.info["params"].get("filler") == "value"
    return filler or head.info["layout"] in ("dense", "run_length", "n_m", "block_offset", "sell")


def decode(head: Head, shared: Shared, parts: list[Part], corner: tuple[int, int, int, int]) -> tuple[np.ndarray, int]:
    """One segment: its elements' bits in row-major order, and how many may be stored at most."""
    top, left, h, w = corner
    size, layout, params = h * w, head.info["layout"], head.info["params"]
    group_rows, fillers = head.info["values"].get("group_rows", 0), 0
    value_bits = DTYPES[head.info["dtype"]].itemsize * 8

    def elements(items: np.ndarray, positions: np.ndarray) -> np.ndarray:
        if shared.books is None:
            return items
        need(bool((items < shared.books.shape[1]).all()), "words: a label that the codebook does not have")
        return shared.books[(top + positions // w) // group_rows if group_rows else np.zeros(len(items), int), items]

    if layout == "dense":
        return elements(part_items(parts[0], size), np.arange(size)), size
    if layout in ("relative_index", "run_length"):
        items, stored = gap_elements(head, parts, h, w, value_bits if shared.books is None else 8)
    elif layout == "n_m":
        items, stored = group_elements(params, parts, h, w)
    elif layout == "block_offset" and shared.columns is not None:
        stored = column_positions(params, shared.columns, left, h, w)
        items = part_items(parts[0], len(stored))
    elif layout == "block_offset":
        blocks = block_positions(params, parts, h, w)
        stored = np.concatenate([np.zeros(0, np.int64), *blocks])
        items = part_items(parts[2], len(stored))
    elif layout == "sell":
        items, stored, fillers = slice_elements(parts, h, w)
    elif layout == "context":
        label_bits = 0 if shared.books is None else head.info["values"]["bits"]
        found = coded_elements(parts[0].data, h, w, 8 if label_bits else value_bits, label_bits)
        items, stored = np.array(found[0], np.uint64), np.array(found[1], np.int64)
    else:
        positions = {"csr": csr_positions, "bitmap": bitmap_positions, "huffman": huffman_positions}[layout]
        stored = positions(params, parts, h, w)
        items = part_items(parts[-1], len(stored))
    out = np.zeros(size, f"<u{value_bits // 8}")
    out[stored] = elements(items, stored)
    return out, len(stored) + fillers


def csr_positions(params: dict[str, Any], parts: list[Part], h: int, w: int) -> np.ndarray:
    """Section 5.2."""
    pointers = part_items(parts[0], h + 1).astype(np.int64)
    need(pointers[0] == 0 and bool((np.diff(pointers) >= 0).all()), "csr: pointers decrease")
    need(pointers[-1] <= h * w, "csr: more columns than elements")
    columns = part_items(parts[1], int(pointers[-1])).astype(np.int64)
    need(bool((columns < w).all()), "csr: column out of range")
    position = np.repeat(np.arange(h), np.diff(pointers)) * w + columns
    need(bool((np.diff(position) > 0).all()), "csr: columns do not ascend")
    if params["of"] == "zeros":
        return np.delete(np.arange(h * w), position)
    return position


def bitmap_positions(params: dict[str, Any], parts: list[Part], h: int, w: int) -> np.ndarray:
    """Section 5.3; positions in the order of the values."""
    if params["order"] == "rows":
        mask = np.unpackbits(part_items(parts[0], -(-h * w // 8)), bitorder="little")
        need(not mask[h * w :].any(), "bitmap: padding")
        return np.flatnonzero(mask)
    groups = -(-h // 64)
    words = np.unpackbits(part_items(parts[0], groups * w * 8), bitorder="little").reshape(groups, w, 64)
    group, column, bit = np.nonzero(words)
    row = group * 64 + bit
    need(bool((row < h).all()), "bitmap: padding past a clipped group")
    return np.asarray(row * w + column)


def block_positions(params: dict[str, Any], parts: list[Part], h: int, w: int) -> list[np.ndarray]:
    """Section 5.8: the positions of each block listed, in the order of its values."""
    r, c = params["block"]
    pointers = part_items(parts[0], -(-h // r) + 1).astype(np.int64)
    need(pointers[0] == 0 and bool((np.diff(pointers) >= 0).all()), "block_offset: pointers decrease")
    need(pointers[-1] <= -(-h // r) * -(-w // c), "block_offset: more blocks than the segment has")
    columns = part_items(parts[1], int(pointers[-1])).astype(np.int64)
    place = np.arange(h * w).reshape(h, w)
    blocks = []
    for number in range(len(pointers) - 1):
        inside = columns[pointers[number] : pointers[number + 1]]
        need(bool((inside < -(-w // c)).all() and (np.diff(inside) > 0).all()), "block_offset: blocks do not ascend")
        blocks += [place[number * r : (number + 1) * r, at * c : (at + 1) * c].ravel() for at in inside]
    return blocks


def slice_elements(parts: list[Part], h: int, w: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Section 5.9: the values that are not zero, their positions, and the number of the others."""
    places = part_items(parts[0], h * -(-w // 256)).astype(np.int64)
    tiles = [(top, left) for left in range(0, w, 256) for top in range(0, h, 64)]
    slices = [-(-min(64, h - top) // 8) for top, _ in tiles]
    lengths = part_items(parts[1], sum(slices)).astype(np.int64)
    need(int(lengths.sum()) * 8 <= (h + 56) * w, "sell: more items than the tiles have room for")
    columns = part_items(parts[2], 8 * int(lengths.sum())).astype(np.int64)
    values = part_items(parts[3], 8 * int(lengths.sum()))
    positions, elements, place, number, at = [np.zeros(0, np.int64)], [values[:0]], 0, 0, 0
    for (top, left), many in zip(tiles, slices, strict=True):
        tall, wide = min(64, h - top), min(256, w - left)
        order = np.argsort(places[place : place + tall])
        right = bool((places[place : place + tall][order] == np.arange(tall)).all())
        need(right, "sell: places are not one for each row")
        for first in range(many):
            steps = int(lengths[number + first])
            need(steps <= wide, "sell: more steps than columns")
            near, own = columns[at : at + 8 * steps].reshape(-1, 8), values[at : at + 8 * steps].reshape(-1, 8)
            at += 8 * steps
            for lane in range(8):
                if 8 * first + lane >= tall:
                    need(not near[:, lane].any() and not own[:, lane].any(), "sell: an item of no row")
                    continue
                there = own[:, lane] != 0
                rises = np.diff(near[:, lane], prepend=-1)
                need(bool((rises >= there).all() and (near[:, lane] < wide).all()), "sell: columns do not ascend")
                positions.append((top + order[8 * first + lane]) * w + left + near[there, lane])
                elements.append(own[there, lane])
        place, number = place + tall, number + many
    found = np.concatenate(elements)
    return found, np.concatenate(positions), len(values) - len(found)


def column_positions(params: dict[str, Any], columns: np.ndarray, left: int, h: int, w: int) -> np.ndarray:
    """Section 5.8, whole columns: the segment's positions in them, row by row."""
    live = np.flatnonzero(np.isin(np.arange(left, left + w) // params["block"][1], columns))
    return (np.arange(h)[:, None] * w + live).ravel()


def huffman_positions(params: dict[str, Any], parts: list[Part], h: int, w: int) -> np.ndarray:
    """Section 5.4."""
    gaps = part_items(parts[0], h * w, exact=False)
    need(len(gaps) == 0 or gaps[-1] != 255, "huffman: the last gap is 255")
    position = np.cumsum(np.where(gaps == 255, 255, gaps.astype(np.int64) + 1)) - 1
    stored = position[gaps != 255]
    need(len(stored) == 0 or stored[-1] < h * w, "huffman: position out of range")
    return np.asarray(stored)


def gap_elements(head: Head, parts: list[Part], h: int, w: int, value_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Sections 5.5 and 5.6: values, and where they are stored."""
    size, params = h * w, head.info["params"]
    bits = params["bits"]
    top, fillers = (1 << bits) - 1, params.get("filler", "value") == "value"
    values: list[int] = []
    if head.info["layout"] == "run_length":
        steps, values = run_pairs(parts[0], size, bits, value_bits)
    else:
        steps = packed_steps(part_items(parts[0], 4 + -(-size * bits // 8), exact=False).tobytes(), bits)
        if fillers:
            values = part_items(parts[1], len(steps)).tolist()
    listed, at = [], -1
    placed = True
    for number, step in enumerate(steps):
        placed = step < top or (fillers and values[number] != 0)
        at += step + 1 if placed or fillers else step
        if placed:
            listed.append(at)
    need(placed, "steps: the last one reaches no element")
    need(at < size, "steps: position out of range")
    if fillers:
        found = [value for step, value in zip(steps, values, strict=True) if step < top or value]
        return np.array(found, f"<u{value_bits // 8}"), np.array(listed, np.int64)
    stored = np.delete(np.arange(size), listed) if params["of"] == "zeros" else np.array(listed, np.int64)
    return part_items(parts[1], len(stored)), stored


def packed_steps(data: bytes, bits: int) -> list[int]:
    """Section 5.5, ``steps``."""
    need(len(data) >= 4, "steps: no number of steps")
    count = int.from_bytes(data[:4], "little")
    need(len(data) == 4 + -(-count * bits // 8), "steps: another number of steps than there are")
    packed = int.from_bytes(data[4:], "little")
    need(packed >> count * bits == 0, "steps: padding")
    return [packed >> number * bits & (1 << bits) - 1 for number in range(count)]


def run_pairs(part: Part, size: int, bits: int, value_bits: int) -> tuple[list[int], list[int]]:
    """Section 5.6: steps and values."""
    width = 128 if value_bits == 64 else 64
    pair = bits + value_bits
    count = (width - 1) // pair
    data = part_items(part, -(-size // count) * width // 64, exact=False).tobytes()
    need(len(data) * 8 % width == 0, "words: half a word")
    step = width // 8
    words = [int.from_bytes(data[at : at + step], "little") for at in range(0, len(data), step)]
    pairs = []
    for number, word in enumerate(words):
        need(word >> width - 1 == (number == len(words) - 1), "words: the top bit is not the last word's")
        need(word >> count * pair & (1 << width - 1 - count * pair) - 1 == 0, "words: padding")
        pairs += [word >> slot * pair & (1 << pair) - 1 for slot in range(count)]
    filler = (1 << bits) - 1
    whole = count * max(0, len(words) - 1)
    while len(pairs) > whole and pairs[-1] == filler:
        pairs.pop()
    need(not words or len(pairs) > whole, "words: the last one holds nothing")
    return [one & filler for one in pairs], [one >> bits for one in pairs]


def group_elements(params: dict[str, Any], parts: list[Part], h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Section 5.7: values, and where they are stored."""
    n, m = params["n"], params["m"]

    def masks_of(bits: int, most: int) -> int:
        return sum(math.comb(bits, ones) for ones in range(most + 1))

    lengths = [min(m, w - left) for left in range(0, w, m)]
    bits = (masks_of(m, n) - 1).bit_length()
    packed = int.from_bytes(part_items(parts[0], -(-h * len(lengths) * bits // 8)).tobytes(), "little")
    slots = sum(min(n, length) for length in lengths)
    values = part_items(parts[1], h * slots)
    stored: list[int] = []
    used: list[int] = []
    at = 0
    for row in range(h):
        for number, length in enumerate(lengths):
            mask, packed = packed & (1 << bits) - 1, packed >> bits
            if bits < m:
                need(mask < masks_of(m, n), "n_m: a rank of no mask")
                rank, mask, left = mask, 0, n
                for bit in reversed(range(m)):
                    if left and rank >= masks_of(bit, left):
                        rank, mask, left = rank - masks_of(bit, left), mask | 1 << bit, left - 1
            need(mask >> length == 0, "n_m: a bit behind the last element of a group")
            found = [bit for bit in range(length) if mask >> bit & 1]
            need(len(found) <= n, "n_m: more than n elements in a group")
            stored += [row * w + number * m + bit for bit in found]
            used += range(at, at + len(found))
            at += min(n, length)
    need(packed == 0, "n_m: padding")
    need(not np.delete(values, used).any(), "n_m: a filler is not zero")
    return values[used], np.array(stored, np.int64)


def read_frame(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """The tensor that a frame holds, and its header."""
    head, shared_parts, segments = read_head(data)
    matrix = np.zeros(head.rows * head.cols, f"<u{DTYPES[head.info['dtype']].itemsize}").reshape(head.rows, head.cols)
    for part in shared_parts:
        part.check()
    shared = read_shared(head, shared_parts)
    least, most, fewer = 0, 0, head.info["layout"] in ("dense", "block_offset", "sell")
    for number, parts in enumerate(segments):
        for part in parts:
            part.check()
        row, column, h, w = head.corner(number)
        elements, held = decode(head, shared, parts, (row, column, h, w))
        matrix[row : row + h, column : column + w] = elements.reshape(h, w)
        least, most = least + (int(np.count_nonzero(elements)) if fewer else held), most + held
    need(least <= head.info["nnz"] <= most, f"{least} to {most} stored elements, and another nnz")
    return matrix.reshape(head.info["shape"]).view(DTYPES[head.info["dtype"]]), head.info
