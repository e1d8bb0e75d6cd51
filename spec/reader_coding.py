"""Sections 6.4 and 6.6 of format.md, plainly: parts of coding huffman and rans."""

import struct
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
from head import Part, Stream
from head_code import Code, Counts
from head_words import LIMITS, need


def bits_of(data: bytes) -> Iterator[int]:
    """The bits of bytes, from bit 0 of each upwards."""
    return (byte >> bit & 1 for byte in data for bit in range(8))


def coded_items(part: Part, count: int, exact: bool) -> list[int]:
    """Section 6.4."""
    data = part.data
    code, where = part.stream.code, f"part of stream {part.stream.name}"
    assert isinstance(code, Code)
    need(len(data) >= 16, f"{where}: shorter than its header")
    n, *sizes = struct.unpack_from("<IIII", data)
    need(n == count if exact else n <= count, f"{where}: {n} items, expected {count}")
    sign = int(part.stream.kind == "float")
    width = code.low + sign
    raw_size = -(-n * width // 8)
    last = len(data) - 16 - sum(sizes) - raw_size
    need(last >= 0, f"{where}: tracks and raw fields do not fit")
    at, symbols = 16, [0] * n
    for track, size in enumerate([*sizes, last]):
        bits = bits_of(data[at : at + size])
        used = 0
        for item in range(track, n, 4):
            word = length = 0
            while (length, word) not in code.words:
                bit = next(bits, None)
                need(bit is not None and length < LIMITS["code word"], f"{where}: no code word")
                word, length = word << 1 | int(bit or 0), length + 1
            symbols[item] = code.words[length, word]
            used += length
        need(size == -(-used // 8) and not any(bits), f"{where}: track {track} does not end with its last item")
        at += size
    return from_symbols(symbols, data[at:], part.stream, code)


def from_symbols(symbols: list[int], fields: bytes, stream: Stream, code: Code | Counts) -> list[int]:
    """Items of their symbols and the raw fields (6.4)."""
    n, width = len(symbols), code.low + (stream.kind == "float")
    packed = np.unpackbits(np.frombuffer(fields, np.uint8), bitorder="little")
    need(not packed[n * width :].any(), f"part of stream {stream.name}: padding")
    # One column of bits after the other, lowest first; the widest field (F64) has 64.
    raws = np.zeros(n, np.uint64)
    for number, column in enumerate(packed[: n * width].reshape(n, width).T):
        raws |= column.astype(np.uint64) << np.uint64(number)
    items, top = [], stream.bits - 1
    for symbol, field in zip(symbols, raws.tolist(), strict=True):
        raw, negative = field & (1 << code.low) - 1, field >> code.low
        key = (code.first + symbol) << (code.low + code.zeros) | raw << code.zeros
        items.append(key ^ 1 << top if stream.kind == "signed" else key | negative << top)
    return items


def rans_items(part: Part, count: int, exact: bool) -> list[int]:
    """Section 6.6."""
    data, code, where = part.data, part.stream.code, f"part of stream {part.stream.name}"
    assert isinstance(code, Counts)
    need(len(data) >= 4, f"{where}: shorter than its number of items")
    n = int.from_bytes(data[:4], "little")
    need(n == count if exact else n <= count, f"{where}: {n} items, expected {count}")
    lanes, width = min(n, 1 << code.lanes), code.low + (part.stream.kind == "float")
    begin, end = 4 + 4 * lanes, len(data) - -(-n * width // 8)
    need(begin <= end and (end - begin) % 2 == 0, f"{where}: too short, or half a word")
    states = list(struct.unpack_from(f"<{lanes}I", data, 4))
    need(all(state >= 65536 for state in states), f"{where}: a state is too small")
    words = [int.from_bytes(data[at : at + 2], "little") for at in range(begin, end, 2)][::-1]
    bounds = [0, *accumulate(code.counts)]
    symbols = []
    for item in range(n):
        high, rest = divmod(states[item % lanes], 4096)
        symbol = sum(bound <= rest for bound in bounds) - 1
        state = code.counts[symbol] * high + rest - bounds[symbol]
        if state < 65536:
            need(bool(words), f"{where}: words end too early")
            state = state * 65536 + words.pop()
        states[item % lanes] = state
        symbols.append(symbol)
    need(not words and all(state == 65536 for state in states), f"{where}: words or states are left over")
    return from_symbols(symbols, data[end:], part.stream, code)
