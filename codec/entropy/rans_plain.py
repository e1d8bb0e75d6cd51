"""The plain form of rans.py's work: how a table is chosen, and a coded part written and read, in NumPy and Python.

Slow, and what the kernels are proved against, on good input and on bad (spec section 6.6).
"""

from itertools import pairwise
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.entropy.base import Items, KeyCounts
from codec.entropy.bits import folded, golomb_bits
from codec.entropy.rans import COUNT_BYTES, LOW, ORDERS, SCALE, RansCode
from codec.entropy.split_plain import as_items, check_fields, cut, joined, splits
from codec.errors import FormatError


def shares_of(counts: npt.NDArray[np.int64]) -> list[int]:
    """Counts of 2**SCALE for symbols that occur so often, at least 1 for each that does.

    What rounding leaves over goes, one by one, to or from the symbol where that changes the bits most or least.
    """
    down = 0
    while int(counts.sum()) >> down >= 1 << 31:
        down += 1
    times = [count >> down | (count > 0) for count in counts.tolist()]
    total = sum(times)
    shares = [max(1, ((one << SCALE + 1) // total + 1) // 2) if one else 0 for one in times]
    while rest := (1 << SCALE) - sum(shares):
        change = [
            -one / (share + 0.5) if rest > 0 else one / (share - 0.5) if share > 1 else np.inf
            for one, share in zip(times, shares, strict=True)
        ]
        shares[change.index(min(change))] += 1 if rest > 0 else -1
    return shares


def choose(items: Items, keys: KeyCounts) -> tuple[int, int, int, tuple[int, ...]]:
    """low, zeros, first and counts of the table that takes the fewest bits, header included."""
    found = []
    for low, zeros, first, counts in splits(items, keys):
        shares = shares_of(counts if counts.any() else counts + 1)
        times = zip(counts.tolist(), shares, strict=True)
        # Bits are counted in 2**-16, for each share rounded once.
        bits = sum(n * ((SCALE << 16) - int(log2(share) * 65536 + 0.5)) for n, share in times if n)
        steps = [folded(own - before) for before, own in pairwise((0, *shares))]
        table = 11 + min(sum(golomb_bits(step, k) for step in steps) for k in range(ORDERS))
        cost = -(-bits >> 16) + int(counts.sum()) * low + table
        found.append((cost, (low, zeros, first, tuple(shares))))
    return min(found, key=lambda one: one[0])[1]


def encode_part(items: bytes | npt.NDArray[Any], code: RansCode) -> bytes:
    """The coded part of ``items``, which are little endian: as the kernels write it.

    ArgumentError where the table has no symbol for one of them.
    """
    raw = as_items(items, code)
    symbols, packed = cut(raw, code, lambda found: np.asarray(code.counts)[found] > 0)
    starts = [0, *np.cumsum(code.counts).tolist()]
    states, words = [LOW] * (1 << code.lanes), []
    for number in reversed(range(len(raw))):
        lane, symbol = number % len(states), int(symbols[number])
        count, state = code.counts[symbol], states[lane]
        if state >= count << 32 - SCALE:
            words.append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // count << SCALE) + state % count + starts[symbol]
    header = np.array([len(raw), *states[: len(raw)]], "<u4").tobytes()
    return header + np.array(words[::-1], "<u2").tobytes() + packed


def decode_part(part: bytes | memoryview, code: RansCode, limit: int) -> npt.NDArray[Any]:
    """The items of a coded part, unsigned and little endian: as the kernels read it.

    Parameters
    ----------
    part : bytes-like
        What `encode_part` wrote.
    code : RansCode
        The table of its stream.
    limit : int
        The most items that the caller has room for.

    Raises
    ------
    FormatError
        If ``part`` is not exactly what `encode_part` writes for some ``limit`` or fewer items.
    """
    part = bytes(part)
    if len(part) < COUNT_BYTES:
        raise FormatError(f"a coded part of {len(part)} bytes; expected at least {COUNT_BYTES}")
    count = int.from_bytes(part[:COUNT_BYTES], "little")
    if count > limit:
        raise FormatError(f"a coded part of {count} items; expected at most {limit}")
    lanes = min(count, 1 << code.lanes)
    begin, raw_bytes = COUNT_BYTES + 4 * lanes, (count * code.field + 7) // 8
    rest = len(part) - begin - raw_bytes
    if rest < 0 or rest % 2:
        raise FormatError(f"a coded part of {len(part)} bytes does not hold states, words and raw fields")
    check_fields(part, count, code)
    states = np.frombuffer(part[COUNT_BYTES:begin], "<u4").tolist()
    if lanes and min(states) < LOW:
        raise FormatError(f"a state of {min(states)}; expected at least {LOW}")
    words = iter(np.frombuffer(part[begin : begin + rest], "<u2").tolist())
    symbol_at = np.repeat(np.arange(code.symbols), code.counts).tolist()
    starts = [0, *np.cumsum(code.counts).tolist()]
    symbols = np.zeros(count, np.intp)
    for number in range(count):
        lane = number % len(states)
        high, low = divmod(states[lane], 1 << SCALE)
        symbols[number] = symbol = symbol_at[low]
        state = code.counts[symbol] * high + low - starts[symbol]
        if state < LOW:
            word = next(words, None)
            if word is None:
                raise FormatError("the words end too early")
            state = state << 16 | word
        states[lane] = state
    if next(words, None) is not None or any(state != LOW for state in states):
        raise FormatError("words or states are left over")
    return joined(symbols, part[begin + rest :], code)
