"""How a plain writer of format.md turns items into bytes: sections 1, 2 and 6."""

import heapq
import struct
from collections import Counter
from itertools import pairwise
from typing import Any

from writer_context import folded, g, joined, shares_of, shortest

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


def packed(items: list[int], bits: int) -> bytes:
    """Items of so many bits, packed without gaps from bit 0 upwards; whole bytes little endian."""
    if bits % 8 == 0:
        return b"".join(item.to_bytes(bits // 8, "little") for item in items)
    return bit_string("".join(format(item, f"0{bits}b")[::-1] for item in items))


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


def make_split(
    keys: list[int], low: int | None = None, zeros: int | None = None
) -> tuple[dict[str, Any], Counter[int]]:
    """Section 6.3: how keys are cut, with the recommended choices where none are given, and how often symbols occur."""
    every = 0
    for key in keys:
        every |= key
    if zeros is None:
        zeros = (every & -every).bit_length() - 1 if every else 0
    if low is None:
        low, least, most = 0, min(keys, default=0), max(keys, default=0)
        while (most >> (low + zeros)) - (least >> (low + zeros)) > 255 or least >> (low + zeros) > 2**63 - 1:
            low += 1
    symbols = [key >> (low + zeros) for key in keys]
    first = min(symbols, default=0)
    return {"low": low, "zeros": zeros, "first": first}, Counter(symbol - first for symbol in symbols)


def make_code(keys: list[int], longest: int, low: int | None = None, zeros: int | None = None) -> dict[str, Any]:
    """Section 6.3."""
    split, times = make_split(keys, low, zeros)
    lengths = code_lengths(times, longest)
    assert len(lengths) <= 256
    return split | {"lengths": nibbles(lengths)}


def make_counts(keys: list[int], low: int | None = None, zeros: int | None = None, lanes: int = 1) -> dict[str, Any]:
    """Section 6.6; counts as a list. It does not look for the smallest table."""
    split, times = make_split(keys, low, zeros)
    assert max(times, default=0) < 256
    return split | {"lanes": lanes, "counts": shares_of(times or Counter([0]), max(times, default=0) + 1, 12)}


def count_bits(counts: list[int]) -> bytes:
    """The item `counts` of section 6.6."""
    steps = [folded(own - before) for before, own in pairwise([0, *counts])]
    order = shortest(g, steps, 8)
    return joined([(len(counts) - 1, 8), (order, 3), *(field for step in steps for field in g(step, order))])


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


def cut(items: list[int], bits: int, kind: str, code: dict[str, Any]) -> tuple[list[int], bytes]:
    """Sections 6.3 and 6.4: the symbols of items, and their raw fields."""
    low, zeros = code["low"], code["zeros"]
    symbols, raws = [], ""
    for item in items:
        key = key_of(item, bits, kind)
        symbols.append((key >> (low + zeros)) - code["first"])
        raw = key >> zeros & ((1 << low) - 1)
        width = low
        if kind == "float":
            raw, width = raw | item >> (bits - 1) << low, low + 1
        raws += format(raw, f"0{width}b")[::-1] if width else ""
    return symbols, bit_string(raws)


def coded_part(items: list[int], bits: int, kind: str, code: dict[str, Any]) -> bytes:
    """Section 6.4."""
    symbols, raws = cut(items, bits, kind, code)
    words, tracks = code_words(code["lengths"]), ["", "", "", ""]
    for number, symbol in enumerate(symbols):
        tracks[number % 4] += words[symbol]
    done = [bit_string(track) for track in tracks]
    return struct.pack("<IIII", len(items), *map(len, done[:3])) + b"".join(done) + raws


def rans_part(items: list[int], bits: int, kind: str, code: dict[str, Any]) -> bytes:
    """Section 6.6; counts as a list."""
    symbols, raws = cut(items, bits, kind, code)
    counts, lanes, words = code["counts"], min(len(items), 1 << code["lanes"]), b""
    states = [65536] * lanes
    for number in reversed(range(len(items))):
        count, below = counts[symbols[number]], sum(counts[: symbols[number]])
        state = states[number % lanes]
        if state >= count << 20:
            words = struct.pack("<H", state % 65536) + words
            state //= 65536
        states[number % lanes] = state // count * 4096 + state % count + below
    return struct.pack(f"<{1 + lanes}I", len(items), *states) + words + raws


def zstd_part(data: bytes) -> bytes:
    """One zstd frame of one block by hand (RFC 8878, section 3.1.1): its bytes depend on no release of zstd."""
    size = struct.pack("<BB", 0x20, len(data)) if len(data) < 256 else struct.pack("<BH", 0x60, len(data) - 256)
    run = len(data) > 1 and len(set(data)) == 1
    block = (1 | (2 if run else 0) | len(data) << 3).to_bytes(3, "little") + (data[:1] if run else data)
    return b"\x28\xb5\x2f\xfd" + size + block
