"""A plain writer of format.md: it assembles frames and model files field by field and shares no code with the reader.

A Draft is a frame before it is bytes, so that one field can be made wrong while all others, checksums included, stay
right. Elements are given as bits: unsigned integers as wide as the element type.
"""

import base64
import heapq
import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb
from typing import Any

import msgpack
import numpy as np

MAGIC = b"\x89CDCF\r\n\x1a"
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8}


def crc32c(data: bytes) -> int:
    """Section 1, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def kind_of(dtype: str) -> str:
    if BITS[dtype] == 8:
        return "unsigned"
    return {"F": "float", "B": "float", "I": "signed", "U": "unsigned"}[dtype[0]]


def negative_zero(dtype: str) -> int | None:
    return 1 << (BITS[dtype] - 1) if dtype.startswith(("F", "BF")) else None


def bit_string(bits: str) -> bytes:
    """Bytes filled from bit 0 upwards with the bits of a string, first character first."""
    return b"".join(int(bits[at : at + 8][::-1], 2).to_bytes(1, "little") for at in range(0, len(bits), 8))


def key_of(item: int, bits: int, kind: str) -> int:
    """Section 6.2."""
    top = 1 << (bits - 1)
    return item ^ top if kind == "signed" else item & ~top if kind == "float" else item


def code_lengths(counts: Counter[int], longest: int) -> list[int]:
    """Lengths of a Huffman code for symbols 0 to max; counts are flattened until no word is too long."""
    while True:
        heap: list[tuple[int, int, tuple[int, ...]]] = [
            (count, number, (symbol,)) for number, (symbol, count) in enumerate(sorted(counts.items()))
        ]
        heapq.heapify(heap)
        lengths = Counter[int]()
        serial = len(heap)
        while len(heap) > 1:
            (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
            lengths.update(left + right)
            heapq.heappush(heap, (a + b, serial, left + right))
            serial += 1
        if max(lengths.values(), default=0) <= longest:
            return [lengths[symbol] for symbol in range(max(counts, default=0) + 1)]
        counts = Counter({symbol: count // 2 + 1 for symbol, count in counts.items()})


def make_code(
    keys: list[int], bits: int, longest: int, low: int | None = None, zeros: int | None = None
) -> dict[str, Any]:
    """Section 6.3, with the recommended choices where none are given."""
    every = 0
    for key in keys:
        every |= key
    if zeros is None:
        zeros = (every & -every).bit_length() - 1 if every else 0
    if low is None:
        low = 0
        while keys and (max(keys) >> (low + zeros)) - (min(keys) >> (low + zeros)) > 255:
            low += 1
    symbols = [key >> (low + zeros) for key in keys]
    first = min(symbols, default=0)
    lengths = code_lengths(Counter(symbol - first for symbol in symbols), longest)
    assert len(lengths) <= 256
    return {"low": low, "zeros": zeros, "first": first, "lengths": nibbles(lengths)}


def nibbles(lengths: list[int]) -> bytes:
    padded = [*lengths, 0]
    return bytes(padded[at] | padded[at + 1] << 4 for at in range(0, len(lengths), 2))


def code_words(lengths: bytes) -> dict[int, str]:
    """Symbol -> its code word as a string, most significant bit first."""
    by_length = sorted(
        (nibble, number) for number, nibble in enumerate(n for byte in lengths for n in (byte & 15, byte >> 4))
    )
    if lengths == b"\0":
        return {0: ""}
    words, word, before = {}, 0, 0
    for length, symbol in by_length:
        if length:
            word <<= length - before
            words[symbol] = format(word, f"0{length}b")
            word, before = word + 1, length
    return words


def coded_part(items: list[int], bits: int, kind: str, code: dict[str, Any]) -> bytes:
    """Section 6.4."""
    low, zeros, words = code["low"], code["zeros"], code_words(code["lengths"])
    lanes, raws = ["", "", "", ""], ""
    for number, item in enumerate(items):
        key = key_of(item, bits, kind)
        lanes[number % 4] += words[(key >> (low + zeros)) - code["first"]]
        raw = key >> zeros & ((1 << low) - 1)
        width = low
        if kind == "float":
            raw, width = raw | item >> (bits - 1) << low, low + 1
        raws += format(raw, f"0{width}b")[::-1] if width else ""
    packed = [bit_string(lane) for lane in lanes]
    return struct.pack("<IIII", len(items), *map(len, packed[:3])) + b"".join(packed) + bit_string(raws)


def zstd_part(data: bytes) -> bytes:
    """One zstd frame of one block by hand (RFC 8878, section 3.1.1): its bytes depend on no release of zstd."""
    size = struct.pack("<BB", 0x20, len(data)) if len(data) < 256 else struct.pack("<BH", 0x60, len(data) - 256)
    run = len(data) > 1 and len(set(data)) == 1
    block = (1 | (2 if run else 0) | len(data) << 3).to_bytes(3, "little") + (data[:1] if run else data)
    return b"\x28\xb5\x2f\xfd" + size + block


# Frames --------------------------------------------------------------------------------------------------------------

Edit = Callable[[bytearray, dict[str, int]], None]


@dataclass
class Draft:
    """A frame's header and parts (one list per stream), to be changed at will and then built."""

    header: dict[str, Any]
    parts: list[list[bytes]]
    lengths: dict[str, int] = field(default_factory=dict)  # stream -> recorded length, where it is not the true one

    def build(
        self,
        *,
        magic: bytes = MAGIC,
        version: int = 0,
        raw_header: bytes | None = None,
        before: Edit | None = None,
        after: Edit | None = None,
        tail: int = 64,
    ) -> bytes:
        """The frame; ``before`` and ``after`` may change bytes before and after the head's CRC is taken."""
        for stream, parts in zip(self.header.get("streams", []), self.parts, strict=False):
            stream["length"] = self.lengths.get(stream["name"], sum(map(len, parts)))
        header = msgpack.packb(self.header) if raw_header is None else raw_header
        count = sum(map(len, self.parts))
        table = -(-(28 + len(header)) // 8) * 8
        start = -(-(table + 12 * count) // 64) * 64
        body, offsets, crcs = bytearray(), [], []
        for parts in self.parts:
            body += bytes(-len(body) % 64)
            for part in parts:
                offsets.append(start + len(body))
                crcs.append(crc32c(part))
                body += part
        end = start + len(body)
        body += bytes(-len(body) % 64 + tail)
        frame = bytearray(magic + struct.pack("<IIQI", version, len(header), start + len(body), 0) + header)
        frame += bytes(table - len(frame)) + struct.pack(f"<{count}Q{count}I", *offsets, *crcs)
        frame += bytes(start - len(frame)) + body
        marks = {"header": 28, "pad": 28 + len(header), "table": table, "crcs": table + 8 * count, "start": start}
        marks |= {"table_end": table + 12 * count, "end": end, "length": len(frame)}
        if before:
            before(frame, marks)
        frame[24:28] = struct.pack("<I", crc32c(bytes(frame[:24] + frame[28:start])))
        if after:
            after(frame, marks)
        return bytes(frame)


def positions_of(
    layout: str, params: dict[str, Any], stored: np.ndarray, width: int
) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5: the position items of one segment, and the order in which its values are stored."""
    h, w = stored.shape
    flat = np.flatnonzero(stored)
    if layout == "csr":
        listed = stored if params["of"] == "nonzeros" else ~stored
        columns = [int(column) for row in listed for column in np.flatnonzero(row)]
        return {"rows": [0, *np.cumsum(listed.sum(axis=1)).tolist()], "columns": columns}, flat
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
        codes, order = codes_of(params, stored)
        packed = "".join(format(code, f"0{params['bits']}b")[::-1] for code in codes)
        return {"gaps": [*struct.pack("<I", len(codes)), *bit_string(packed)], "codes": codes}, np.array(
            order, np.int64
        )
    if layout == "n_m":
        return groups_of(params["n"], params["m"], stored)
    if layout == "block_offset":
        return blocks_of(params, stored)
    return {}, np.arange(h * w)


def groups_of(n: int, m: int, stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5.7: bytes of patterns, and the positions of the values, -1 for a pad."""
    bits = (sum(comb(m, ones) for ones in range(n + 1)) - 1).bit_length()
    packed, order = "", []
    for top, row in enumerate(stored):
        for left in range(0, len(row), m):
            group = row[left : left + m]
            here = [top * len(row) + left + int(at) for at in np.flatnonzero(group)]
            assert len(here) <= n
            mask = sum(1 << int(at) for at in np.flatnonzero(group))
            packed += format(mask if bits == m else smaller(mask, n), f"0{bits}b")[::-1]
            order += here + [-1] * (min(n, len(group)) - len(here))
    return {"patterns": list(bit_string(packed))}, np.array(order, np.int64)


def smaller(mask: int, n: int) -> int:
    """Masks below this one with at most n bits: those that first differ from it where it has a 1 and they a 0."""
    ones = [bit for bit in range(mask.bit_length()) if mask >> bit & 1][::-1]
    return sum(comb(bit, k) for above, bit in enumerate(ones) for k in range(n - above + 1))


def blocks_of(params: dict[str, Any], stored: np.ndarray) -> tuple[dict[str, list[int]], np.ndarray]:
    """Section 5.8, but for whole columns."""
    (r, c), (h, w) = params["block"], stored.shape
    rows, columns, order = [0], [], [np.zeros(0, np.int64)]
    place = np.arange(h * w).reshape(h, w)
    for top in range(0, h, r):
        for left in range(0, w, c):
            if stored[top : top + r, left : left + c].any():
                columns.append(left // c)
                order.append(place[top : top + r, left : left + c].ravel())
        rows.append(len(columns))
    return {"rows": rows, "columns": columns}, np.concatenate(order)


def codes_of(params: dict[str, Any], stored: np.ndarray) -> tuple[list[int], list[int]]:
    """Sections 5.5 and 5.6: codes, and the positions of the values, -1 for a filler."""
    top = (1 << params["bits"]) - 1
    fillers, zeros = params.get("filler", "value") == "value", params.get("of") == "zeros"
    codes, order, last = [], [], -1
    for position in np.flatnonzero(~stored if zeros else stored).tolist():
        idle, rest = divmod(position - last - 1, top + fillers)
        codes += [top] * idle + [rest]
        order += [-1] * (idle * fillers) + [position]
        last = position
    return codes, np.flatnonzero(stored).tolist() if zeros else order


def words_of(bits: int, codes: list[int], values: list[int], value_bits: int) -> list[int]:
    """Section 5.6, as u64s."""
    width, pair = (128 if value_bits == 64 else 64), bits + value_bits
    count = (width - 1) // pair
    pairs = [code | value << bits for code, value in zip(codes, values, strict=True)]
    pairs += [(1 << bits) - 1] * (-len(pairs) % count)
    words: list[int] = []
    for at in range(0, len(pairs), count):
        word = sum(one << slot * pair for slot, one in enumerate(pairs[at : at + count]))
        word |= (at + count == len(pairs)) << width - 1
        words += [word] if width == 64 else [word & (1 << 64) - 1, word >> 64]
    return words


def default_row_dims(shape: tuple[int, ...]) -> int:
    return 0 if len(shape) < 2 else 2 if len(shape) == 3 and shape[0] == 1 else 1


def encode(
    bits: np.ndarray,
    dtype: str,
    layout: str,
    *,
    params: dict[str, Any] | None = None,
    segment: tuple[int, int] | None = None,
    row_dims: int | None = None,
    zero: str = "value",
    keep: np.ndarray | None = None,
    codings: dict[str, str] | None = None,
    book: tuple[int, int, list[list[int]]] | None = None,
    codes: dict[str, dict[str, Any]] | None = None,
) -> Draft:
    """A right frame for a tensor given as bits; ``codes`` are arguments of make_code, or whole codes, by stream.

    ``book``: bits of a code, rows that share a codebook, and the codebooks; every stored element is an entry (4.5).
    """
    params, codings, codes = dict(params or {}), codings or {}, codes or {}
    bits = bits.copy()
    stored = np.asarray(bits != 0)
    if zero == "value" and negative_zero(dtype):
        stored = stored & (bits != negative_zero(dtype))
    if keep is not None:
        stored = stored | keep
    negative = ~stored & (bits != 0)
    bits[negative] = 0
    row_dims = default_row_dims(bits.shape) if row_dims is None else row_dims
    rows = int(np.prod(bits.shape[:row_dims], dtype=np.int64))
    cols = int(np.prod(bits.shape[row_dims:], dtype=np.int64))
    h, w = segment or ((rows, cols) if rows * cols else (0, 0))
    matrix, stored = bits.reshape(rows, cols), stored.reshape(rows, cols)
    names = {"dense": [], "csr": ["rows", "columns"], "bitmap": ["mask"], "huffman": ["gaps"]}
    names |= {"relative_index": ["gaps"], "run_length": ["words"], "n_m": ["patterns"]}
    names |= {"block_offset": ["rows", "columns"]}
    listed = names[layout]
    whole = False
    if layout == "block_offset":
        r, c = params["block"]
        whole = r == "all"
        params["block"] = [r if whole else min(r, h or 2**22), min(c, w or 2**22)]
    if whole:  # what is left of the matrix is dense
        c = params["block"][1]
        columns = [at for at in range(-(-cols // c)) if stored[:, at * c : (at + 1) * c].any()]
        live, listed = np.isin(np.arange(cols) // c, columns), []
    items: dict[str, list[list[int]]] = {name: [] for name in [*listed, *["values"][: layout != "run_length"]]}
    for top in range(0, rows, h or 1):
        for left in range(0, cols, w or 1):
            piece, there = matrix[top : top + h, left : left + w], stored[top : top + h, left : left + w]
            if piece.size:
                if layout == "block_offset":  # zeros that are kept make no block
                    there = piece != 0
                if whole:
                    found, order = {}, np.flatnonzero(np.tile(live[left : left + w], piece.shape[0]))
                else:
                    found, order = positions_of(layout, params, there, w)
                values = np.append(piece.ravel(), piece.dtype.type(0))[
                    order
                ].tolist()  # a filler is what lies past the end
                if book:
                    groups = [
                        (top + max(at, 0) // piece.shape[1]) // book[1] if book[1] else 0 for at in order.tolist()
                    ]
                    values = [book[2][group].index(item) for group, item in zip(groups, values, strict=True)]
                if layout == "run_length":
                    items["words"].append(words_of(params["bits"], found["codes"], values, 8 if book else BITS[dtype]))
                    continue
                for name in listed:
                    items[name].append(found[name])
                items["values"].append(values)
    streams: list[dict[str, Any]] = []
    parts: list[list[bytes]] = []
    if whole:
        count = len(items["values"])
        streams.append({"name": "columns", "length": 0, "coding": "none"})
        shared = np.array(columns, f"<u{params['index'] // 8}").tobytes()
        parts.append([shared, *[b""] * (count - 1)][:count])
    for name, segments in items.items():
        width = {"rows": 32, "columns": params.get("index"), "values": BITS[dtype], "words": 64}.get(name) or 8
        kind = kind_of(dtype) if name == "values" else "unsigned"
        if book and name == "values":
            name, width, kind = "codes", book[0], "unsigned"
        stream: dict[str, Any] = {"name": name, "length": 0, "coding": codings.get(name, "none")}
        if layout == "huffman":
            stream["coding"] = "huffman"
        if stream["coding"] == "huffman":
            keys = [key_of(item, width, kind) for segment_items in segments for item in segment_items]
            given = codes.get(name, {})
            stream["code"] = (
                given if "lengths" in given else make_code(keys, width, params.get("max_length", 12), **given)
            )
            parts.append([coded_part(one, width, kind, stream["code"]) for one in segments])
        else:
            plain = [
                bit_string("".join(format(item, f"0{width}b")[::-1] for item in one))
                if width < 8
                else np.array(one, f"<u{width // 8}").tobytes()
                for one in segments
            ]
            parts.append([zstd_part(one) for one in plain] if stream["coding"] == "zstd" else plain)
        streams.append(stream)
    if book:
        entries = np.array([entry for group in book[2] for entry in [*group, *[0] * ((1 << book[0]) - len(group))]])
        streams.append({"name": "codebook", "length": 0, "coding": "none"})
        count = len(parts[0])
        parts.append([entries.astype(f"<u{BITS[dtype] // 8}").tobytes(), *[b""] * (count - 1)][:count])
    values = {"coding": "codebook", "bits": book[0], "rows": book[1]} if book else {"coding": "raw"}
    header = {"dtype": dtype, "shape": list(bits.shape), "row_dims": row_dims, "segment": [h, w], "layout": layout}
    header |= {"params": dict(sorted(params.items())), "values": values, "zero": zero}
    header |= {"nnz": int(stored.sum()), "negative_zeros": int(negative.sum()), "streams": streams}
    return Draft(header, parts)


# Model files ---------------------------------------------------------------------------------------------------------


def model_file(
    tensors: dict[str, tuple[str, list[int], bytes, Draft | None]],
    metadata: dict[str, str],
    *,
    index: Callable[[dict[str, Any]], None] | None = None,
    text: Callable[[str], str] | None = None,
    header: Callable[[str], str] | None = None,
) -> bytes:
    """Section 8: name -> (dtype, shape, bytes, Draft of a frame); the hooks change the index, its base64, the JSON."""
    order = sorted(tensors, key=lambda name: (tensors[name][3] is None, -BITS[tensors[name][0]]))
    listing: dict[str, Any] = {}
    entries, at = {}, 0
    for name in order:
        dtype, shape, data, draft = tensors[name]
        listing[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
        if draft:
            about = draft.header
            entry = [about["dtype"], about["shape"], about["layout"], len(data), about["nnz"], [crc32c(data)]]
        else:
            crcs = [crc32c(data[begin : begin + 2**20]) for begin in range(0, len(data), 2**20)]
            entry = [dtype, shape, None, len(data), None, crcs]
        entries[name] = dict(zip(("dtype", "shape", "layout", "nbytes", "nnz", "crcs"), entry, strict=True))
    metadata = dict(sorted({"format": "pt", **metadata}.items()))
    names = [[name, listing[name]["dtype"], listing[name]["shape"]] for name in sorted(listing)]
    content = {"version": 0, "tensors": entries, "header_crc": crc32c(msgpack.packb([names, metadata]))}
    if index:
        index(content)
    packed = msgpack.packb(content)
    encoded = base64.b64encode(packed + struct.pack("<I", crc32c(packed))).decode()
    metadata = dict(sorted({**metadata, "codec": text(encoded) if text else encoded}.items()))
    written = json.dumps({"__metadata__": metadata, **listing}, separators=(",", ":"), ensure_ascii=False)
    raw = (header(written) if header else written).encode()
    raw += b" " * (-(8 + len(raw)) % 64)
    return struct.pack("<Q", len(raw)) + raw + b"".join(tensors[name][2] for name in order)
