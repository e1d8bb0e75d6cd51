"""A plain reader of format.md: slow, short, and independent of the library.

It follows the page section by section (1 to 4 in head.py), so that either can be read beside the other.
``read_frame`` reads one frame, ``read_file`` one model file. What the page says to refuse raises SpecError, with the
page's class of error as ``reason``.
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard
from head import (
    DTYPES,
    LIMITS,
    MAGIC,
    Head,
    Part,
    SpecError,
    crc32c,
    fields,
    integer,
    integers,
    need,
    read_head,
    refuse,
)
from head import unpack as unpack_msgpack

__all__ = ["SpecError", "read_file", "read_frame"]

# Section 8.3: the keys of the index and of an entry, in order.
INDEX = ("version", "tensors", "header_crc")
ENTRY = ("dtype", "shape", "layout", "nbytes", "nnz", "crcs")
# Section 8.2: how every index of version 0 begins.
START = "g6d2ZXJzaW9uAKd0ZW5zb3Jz"
# Section 8.1: bits of the types that safetensors has beside those of section 2.
OTHER_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64}


# Section 6 -----------------------------------------------------------------------------------------------------------


def bits_of(data: bytes) -> Iterator[int]:
    """The bits of bytes, from bit 0 of each upwards."""
    return (byte >> bit & 1 for byte in data for bit in range(8))


def coded_items(part: Part, data: bytes, count: int, exact: bool) -> list[int]:
    """Section 6.4."""
    code, where = part.stream.code, f"part of stream {part.stream.name}"
    assert code is not None
    need(len(data) >= 16, f"{where}: shorter than its header")
    n, *sizes = struct.unpack_from("<IIII", data)
    need(n == count if exact else n <= count, f"{where}: {n} items, expected {count}")
    sign = int(part.stream.kind == "float")
    width = code.low + sign
    raw_size = -(-n * width // 8)
    last = len(data) - 16 - sum(sizes) - raw_size
    need(last >= 0, f"{where}: lanes and raw fields do not fit")
    at, symbols = 16, [0] * n
    for lane, size in enumerate([*sizes, last]):
        bits = bits_of(data[at : at + size])
        used = 0
        for item in range(lane, n, 4):
            word = length = 0
            while (length, word) not in code.words:
                bit = next(bits, None)
                need(bit is not None and length < LIMITS["length"], f"{where}: no code word")
                word, length = word << 1 | int(bit or 0), length + 1
            symbols[item] = code.words[length, word]
            used += length
        need(size == -(-used // 8) and not any(bits), f"{where}: lane {lane} does not end with its last item")
        at += size
    packed = np.unpackbits(np.frombuffer(data[at:], np.uint8), bitorder="little")
    need(not packed[n * width :].any(), f"{where}: padding")
    # One column of bits after the other, lowest first; the widest field (F64) has 64.
    raws = np.zeros(n, np.uint64)
    for number, column in enumerate(packed[: n * width].reshape(n, width).T):
        raws |= column.astype(np.uint64) << np.uint64(number)
    items, top = [], part.stream.bits - 1
    for symbol, field in zip(symbols, raws.tolist(), strict=True):
        raw, negative = field & (1 << code.low) - 1, field >> code.low
        key = (code.first + symbol) << (code.low + code.zeros) | raw << code.zeros
        items.append(key ^ 1 << top if part.stream.kind == "signed" else key | negative << top)
    return items


def part_items(part: Part, count: int, exact: bool = True) -> np.ndarray:
    """The items of a part, of which the layout asks for ``count`` (or at most so many)."""
    data, bits = part.check(), part.stream.bits
    unsigned = np.dtype(f"<u{max(1, bits // 8)}")
    if part.stream.coding == "huffman":
        return np.array(coded_items(part, data, count, exact), unsigned)
    size = -(-count * bits // 8)
    if part.stream.coding == "zstd":
        data = unzstd(data, size, exact)
    fits = len(data) == size if exact else len(data) <= size and len(data) * 8 % bits == 0
    need(fits, f"part of stream {part.stream.name}: {len(data)} bytes, expected {size}")
    if bits < 8:  # section 4.5
        packed = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        need(not packed[count * bits :].any(), f"part of stream {part.stream.name}: padding")
        return packed[: count * bits].reshape(count, bits) @ (1 << np.arange(bits)).astype(np.uint8)
    return np.frombuffer(data, unsigned)


def unzstd(data: bytes, size: int, exact: bool) -> bytes:
    """Section 6.1, zstd; ``size`` is what the content has, or at most."""
    try:
        about = zstandard.get_frame_parameters(data)
        need(
            data[:4] == b"\x28\xb5\x2f\xfd" and about.dict_id == 0 and not about.has_checksum,
            "zstd: other than allowed",
        )
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


def decode(head: Head, parts: list[Part], corner: tuple[int, int, int, int]) -> tuple[np.ndarray, int]:
    """One segment: its elements' bits in row-major order, and how many are stored."""
    top, left, h, w = corner
    size, layout, params = h * w, head.info["layout"], head.info["params"]
    books = codebooks(head, parts.pop()) if head.info["values"]["coding"] == "codebook" else None
    shared = head.info["values"].get("rows", 0)

    def elements(items: np.ndarray, positions: np.ndarray) -> np.ndarray:
        if books is None:
            return items
        return books[(top + positions // w) // shared if shared else np.zeros(len(items), int), items]

    fills = layout in ("dense", "run_length", "n_m", "block_offset") or params.get("filler") == "value"
    need(books is None or not fills or not books[:, 0].any(), "codebook: entry 0 is not zero")
    if layout == "dense":
        return elements(part_items(parts[0], size), np.arange(size)), head.info["nnz"]
    if layout in ("relative_index", "run_length"):
        value_bits = DTYPES[head.info["dtype"]].itemsize * 8
        items, stored = gap_elements(head, parts, h, w, value_bits if books is None else 8)
        out = np.zeros(size, f"<u{value_bits // 8}")
        out[stored] = elements(items, stored)
        return out, len(stored)
    if layout == "n_m":
        items, stored = group_elements(params, parts, h, w)
        out = np.zeros(size, f"<u{DTYPES[head.info['dtype']].itemsize}")
        out[stored] = elements(items, stored)
        return out, len(stored)
    blocks = None
    if layout == "block_offset":
        blocks = column_blocks(head, parts[0], left, h, w) if len(parts) == 2 else row_blocks(params, parts, h, w)
        stored = np.concatenate([np.zeros(0, np.int64), *blocks])
    else:
        positions = {"csr": csr_positions, "bitmap": bitmap_positions, "huffman": huffman_positions}[layout]
        stored = positions(params, parts, h, w)
    items = part_items(parts[-1], len(stored))
    if blocks is not None and len(parts) == 3:
        held = np.split(items, np.cumsum([len(block) for block in blocks])[:-1]) if blocks else []
        need(all(one.any() for one in held), "block_offset: a block of zeros")
    values = elements(items, stored)
    out = np.zeros(size, values.dtype)
    out[stored] = values
    return out, len(stored)


def codebooks(head: Head, part: Part) -> np.ndarray:
    """Section 4.5: one row of entries for each group of rows."""
    shared, entries = head.info["values"]["rows"], 1 << head.info["values"]["bits"]
    groups = -(-head.rows // shared) if shared else 1
    return part_items(part, groups * entries).reshape(groups, entries)


def csr_positions(params: dict[str, Any], parts: list[Part], h: int, w: int) -> np.ndarray:
    """Section 5.2."""
    rows = part_items(parts[0], h + 1).astype(np.int64)
    need(rows[0] == 0 and bool((np.diff(rows) >= 0).all()), "csr: row pointers decrease")
    need(rows[-1] <= h * w, "csr: more columns than elements")
    columns = part_items(parts[1], int(rows[-1])).astype(np.int64)
    need(bool((columns < w).all()), "csr: column out of range")
    position = np.repeat(np.arange(h), np.diff(rows)) * w + columns
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


def row_blocks(params: dict[str, Any], parts: list[Part], h: int, w: int) -> list[np.ndarray]:
    """Section 5.8: the positions of each block listed, in the order of its values."""
    r, c = params["block"]
    rows = part_items(parts[0], -(-h // r) + 1).astype(np.int64)
    need(rows[0] == 0 and bool((np.diff(rows) >= 0).all()), "block_offset: pointers decrease")
    need(rows[-1] <= h * w, "block_offset: more blocks than elements")
    columns = part_items(parts[1], int(rows[-1])).astype(np.int64)
    place = np.arange(h * w).reshape(h, w)
    blocks = []
    for number in range(len(rows) - 1):
        inside = columns[rows[number] : rows[number + 1]]
        need(bool((inside < -(-w // c)).all() and (np.diff(inside) > 0).all()), "block_offset: blocks do not ascend")
        blocks += [place[number * r : (number + 1) * r, at * c : (at + 1) * c].ravel() for at in inside]
    return blocks


def column_blocks(head: Head, part: Part, left: int, h: int, w: int) -> list[np.ndarray]:
    """Section 5.8, whole columns: the segment's positions in them, row by row."""
    c, index = head.info["params"]["block"][1], head.info["params"]["index"]
    columns = part_items(part, len(part.data) * 8 // index).astype(np.int64)
    need(
        bool((columns < -(-head.cols // c)).all() and (np.diff(columns) > 0).all()),
        "block_offset: blocks do not ascend",
    )
    live = np.isin(np.arange(left, left + w) // c, columns)
    return [row * w + np.flatnonzero(live) for row in range(h)]


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
        codes, values = run_pairs(parts[0], size, bits, value_bits)
    else:
        codes = packed_codes(part_items(parts[0], 4 + -(-size * bits // 8), exact=False).tobytes(), bits)
        if fillers:
            values = part_items(parts[1], len(codes)).tolist()
    listed, at = [], -1
    placed = True
    for number, code in enumerate(codes):
        placed = code < top or (fillers and values[number] != 0)
        at += code + 1 if placed or fillers else code
        if placed:
            listed.append(at)
    need(placed, "gaps: the last code places nothing")
    need(at < size, "gaps: position out of range")
    if fillers:
        found = [value for code, value in zip(codes, values, strict=True) if code < top or value]
        return np.array(found, f"<u{value_bits // 8}"), np.array(listed, np.int64)
    stored = np.delete(np.arange(size), listed) if params["of"] == "zeros" else np.array(listed, np.int64)
    return part_items(parts[1], len(stored)), stored


def packed_codes(data: bytes, bits: int) -> list[int]:
    """Section 5.5, ``gaps``."""
    need(len(data) >= 4, "gaps: no number of codes")
    count = int.from_bytes(data[:4], "little")
    need(len(data) == 4 + -(-count * bits // 8), "gaps: another number of codes than there are")
    packed = int.from_bytes(data[4:], "little")
    need(packed >> count * bits == 0, "gaps: padding")
    return [packed >> number * bits & (1 << bits) - 1 for number in range(count)]


def run_pairs(part: Part, size: int, bits: int, value_bits: int) -> tuple[list[int], list[int]]:
    """Section 5.6: codes and values."""
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
    stored, used, at = [], [], 0
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
    need(not np.delete(values, used).any(), "n_m: a pad is not zero")
    return values[used], np.array(stored, np.int64)


def read_frame(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """The tensor that a frame holds, and its header."""
    head, parts = read_head(data)
    matrix = np.zeros(head.rows * head.cols, f"<u{DTYPES[head.info['dtype']].itemsize}").reshape(head.rows, head.cols)
    nnz = 0
    for number in range(head.segments):
        row, column, h, w = head.corner(number)
        here = [stream[0 if stream[0].stream.shared else number] for stream in parts]
        elements, stored = decode(head, here, (row, column, h, w))
        matrix[row : row + h, column : column + w] = elements.reshape(h, w)
        nnz += stored
    told = head.info["layout"] not in ("dense", "block_offset")
    need(not told or nnz == head.info["nnz"], f"{nnz} stored elements are not nnz")
    return matrix.reshape(head.info["shape"]).view(DTYPES[head.info["dtype"]]), head.info


# Section 8 -----------------------------------------------------------------------------------------------------------


def natural(digits: str) -> int:
    need(digits.isdecimal() and len(digits) <= 19, "JSON: an integer is not digits, or too long")
    return int(digits)


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len({key for key, _ in pairs}) == len(pairs), "JSON: a key occurs twice")
    return dict(pairs)


def read_container(data: bytes) -> tuple[dict[str, tuple[str, list[int], bytes]], dict[str, str]]:
    """Section 8.1: name -> (dtype, shape, bytes), and the metadata."""
    need(len(data) >= 8, "file: no header length")
    length = int.from_bytes(data[:8], "little")
    need(length <= min(LIMITS["json"], len(data) - 8) and data[8:9] == b"{", "file: no safetensors header")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=object_of, parse_int=natural)
        json.dumps(header, ensure_ascii=False).encode()  # lone surrogates, which only escapes can spell, fail here
    except (json.JSONDecodeError, UnicodeError, RecursionError) as error:
        refuse(f"file: {error}")
    body = data[8 + length :]
    metadata = header.pop("__metadata__", {})
    need(type(metadata) is dict and all(type(value) is str for value in metadata.values()), "file: metadata")
    tensors, spans = {}, []
    for name, about in header.items():
        need(1 <= len(name.encode()) <= LIMITS["name"], "file: a name is empty or too long")
        need(type(about) is dict and set(about) == {"dtype", "shape", "data_offsets"}, f"file: keys of {name!r}")
        dtype, shape, offsets = about["dtype"], integers(about["shape"], name), integers(about["data_offsets"], name)
        need(type(dtype) is str and (dtype in DTYPES or dtype in OTHER_BITS), f"file: dtype of {name!r}")
        bits = OTHER_BITS[dtype] if dtype in OTHER_BITS else DTYPES[dtype].itemsize * 8
        need(len(shape) <= LIMITS["rank"], f"file: rank of {name!r}")
        need(bits * math.prod(size or 1 for size in shape) <= 8 * LIMITS["integer"], f"file: size of {name!r}")
        bits *= math.prod(shape)
        need(len(offsets) == 2 and 8 * (offsets[1] - offsets[0]) == bits, f"file: data_offsets of {name!r}")
        tensors[name] = (dtype, shape, body[slice(*offsets)])
        spans.append(offsets)
    edges = [0, *(edge for span in sorted(spans) for edge in span), len(body)]
    need(all(a == b for a, b in zip(edges[::2], edges[1::2], strict=True)), "file: holes or overlaps")
    return tensors, metadata


def read_index(text: str, header: list[Any], metadata: dict[str, str]) -> dict[str, list[Any]]:
    """Section 8.3: name -> the values of its entry."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        refuse(f"index: {error}")
    need(base64.b64encode(raw).decode() == text and len(raw) >= 4, "index: base64 is not canonical")
    need(crc32c(raw[:-4]) == int.from_bytes(raw[-4:], "little"), "index", "checksum")
    index = unpack_msgpack(raw[:-4])
    need(type(index) is dict and list(index)[:1] == ["version"], "index: no version")
    need(integer(index["version"], "version") == 0, f"index version {index['version']}", "version")
    _, tensors, header_crc = fields(index, INDEX, "index")
    need(type(tensors) is dict, "index: tensors are no map")
    entries = {name: fields(entry, ENTRY, f"index of {name!r}") for name, entry in tensors.items()}
    need(sorted(entries, key=str) == [name for name, _, _ in header], "index: other tensors than the file's")
    for name, (dtype, shape, layout, nbytes, nnz, crcs) in entries.items():
        need(type(dtype) is str and (layout is None) == (nnz is None), f"index of {name!r}: types")
        need(layout is None or type(layout) is str, f"index of {name!r}: layout")
        count = 1 if layout is not None else -(-integer(nbytes, "nbytes") // 2**20)
        integers(shape, "shape")
        need(nnz is None or integer(nnz, "nnz") >= 0, "nnz")
        need(all(crc < 2**32 for crc in integers(crcs, "crcs")) and len(crcs) == count, f"index of {name!r}: crcs")
    for name, dtype, shape in header:
        entry = entries[name]
        stored = entry[:2] if entry[2] is None else ["U8", [entry[3]]]
        need(stored == [dtype, shape], f"index of {name!r}: not as in the JSON header")
    need(crc32c(msgpack.packb([header, dict(sorted(metadata.items()))])) == header_crc, "JSON header", "checksum")
    return entries


def read_file(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a model file; one of a type NumPy has no name for comes as its bytes."""
    tensors, metadata = read_container(Path(path).read_bytes())
    text = metadata.pop("codec", None)
    if text is None:
        framed = any(dtype == "U8" and data[:8] == MAGIC for dtype, _, data in tensors.values())
        need(
            not framed and not any(value.startswith(START) for value in metadata.values()),
            "frames but no index: codec convert --reindex makes it",
        )
        return {name: plain(*tensor) for name, tensor in tensors.items()}
    entries = read_index(text, sorted([name, t[0], t[1]] for name, t in tensors.items()), metadata)
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        entry = entries[name]
        need(entry[3] == len(data), f"index of {name!r}: nbytes")
        step = 2**20 if entry[2] is None else len(data)
        found = [crc32c(data[at : at + step]) for at in range(0, len(data), step)]
        need(found == entry[5], f"tensor {name!r}", "checksum")
        if entry[2] is None:
            out[name] = plain(dtype, shape, data)
            continue
        out[name], info = read_frame(data)
        same = [info[key] for key in ("dtype", "shape", "layout", "nnz")] == [*entry[:3], entry[4]]
        need(same, f"index of {name!r}: not what the frame says")
    return out


def plain(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype in OTHER_BITS:
        return np.frombuffer(data, np.uint8)
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)
