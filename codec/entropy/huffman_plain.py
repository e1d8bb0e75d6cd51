"""The plain form of huffman.py's work: how a code is chosen, and a coded part written and read, in NumPy and bitarray.

Slow, and what the kernels are proved against, on good input and on bad (spec sections 6.2 to 6.4).
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from bitarray import bitarray
from bitarray.util import canonical_decode

from codec.entropy.base import Items, KeyCounts
from codec.entropy.huffman import LANES, PART_OVERHEAD, HuffmanCode
from codec.entropy.split_plain import as_items, check_fields, cut, joined, splits, symbols_of
from codec.errors import ArgumentError, FormatError


def code_lengths(counts: npt.NDArray[Any], max_length: int) -> npt.NDArray[np.int64]:
    """Lengths of the code words of at most ``max_length`` bits that code ``counts`` in the fewest bits (package-merge).

    Symbols with count 0 get length 0, as does a symbol that is alone. ``2**max_length`` symbols must suffice.
    """
    lengths = np.zeros(len(counts), np.int64)
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return lengths
    # Ties keep the order of symbols, so that equal counts give the same code everywhere.
    used = used[np.argsort(counts[used], kind="stable")]
    leaves = counts[used].astype(np.int64)
    row, rows = leaves, []
    for _ in range(max_length - 1):
        pairs = row[: len(row) // 2 * 2].reshape(-1, 2).sum(axis=1)
        both = np.concatenate([leaves, pairs])
        order = np.argsort(both, kind="stable")
        rows.append(order < len(leaves))
        row = both[order]
    # Take the 2 n - 2 cheapest of the last row: a leaf costs its symbol one bit, a pair is two of the row before.
    take = 2 * len(leaves) - 2
    for is_leaf in reversed(rows):
        taken = int(np.count_nonzero(is_leaf[:take]))
        lengths[used[:taken]] += 1
        take = 2 * (take - taken)
    lengths[used[:take]] += 1
    return lengths


def choose_code(items: Items, keys: KeyCounts) -> HuffmanCode:
    """The code that takes the fewest bits for the keys counted, header included; the plain form of `code_of`."""
    codes = []
    for low, zeros, first, counts in splits(items, keys):
        lengths = code_lengths(counts, items.longest)
        cost = int(counts @ lengths) + int(counts.sum()) * low + 4 * len(counts)
        codes.append((cost, HuffmanCode(items.width, items.kind, low, zeros, first, tuple(lengths.tolist()))))
    return min(codes, key=lambda found: found[0])[1]


def coded_bits(keys: KeyCounts, code: HuffmanCode) -> int:
    """Bits that the items counted take under ``code``, symbols and raw fields.

    A stream of them in p parts is longer by its parts' overhead and rounding: see PART_OVERHEAD and PART_ROUNDING.

    Raises
    ------
    ArgumentError
        If the code has no code word for an item counted, or tells apart what the counts do not.
    """
    used = np.flatnonzero(keys.counts)
    shift = code.low + code.zeros - keys.shift
    if shift < 0:
        raise ArgumentError("the counts do not tell the symbols of this code apart")
    counts, lengths = keys.counts[used].astype(np.int64), np.asarray(code.lengths, np.int64)
    tops = (used.astype(np.uint64) + np.uint64(keys.first)) >> np.uint64(shift)
    return int(counts @ lengths[symbols_of(tops, code, _known(code))]) + int(counts.sum()) * code.field


def _known(code: HuffmanCode) -> Callable[[npt.NDArray[Any]], Any]:
    """Whether symbols have code words."""
    return lambda symbols: code.symbols == 1 or np.asarray(code.lengths)[symbols] > 0


def encode_part(items: bytes | npt.NDArray[Any], code: HuffmanCode) -> bytes:
    """The coded part of ``items``: as the kernels write it.

    Parameters
    ----------
    items : bytes or ndarray
        Little-endian items of ``code.width`` bytes.
    code : HuffmanCode
        A code that has code words for all of them; ArgumentError otherwise.
    """
    raw = as_items(items, code)
    symbols, packed = cut(raw, code, _known(code))
    lanes = []
    for lane in range(LANES):
        coded = bitarray(endian="little")
        if code.symbols > 1:
            coded.encode(code.words, symbols[lane::LANES].tolist())
        lanes.append(coded.tobytes())
    header = np.array([len(raw), *(len(lane) for lane in lanes[:-1])], "<u4").tobytes()
    return b"".join([header, *lanes, packed])


def decode_part(part: bytes | memoryview, code: HuffmanCode, limit: int) -> npt.NDArray[Any]:
    """The items of a coded part: as the kernels read it.

    Parameters
    ----------
    part : bytes-like
        What `encode_part` wrote.
    code : HuffmanCode
        The code of its stream.
    limit : int
        The most items that the caller has room for.

    Returns
    -------
    ndarray
        Unsigned little-endian items: the bits, whatever they mean.

    Raises
    ------
    FormatError
        If ``part`` is not exactly what `encode_part` writes for some ``limit`` or fewer items.
    """
    part = bytes(part)
    if len(part) < PART_OVERHEAD:
        raise FormatError(f"a coded part of {len(part)} bytes; expected at least {PART_OVERHEAD}")
    count, *sizes = (int(n) for n in np.frombuffer(part[:PART_OVERHEAD], "<u4"))
    if count > limit:
        raise FormatError(f"a coded part of {count} items; expected at most {limit}")
    raw_bytes = (count * code.field + 7) // 8
    least = PART_OVERHEAD + sum(sizes) + raw_bytes
    if least > len(part):
        raise FormatError(f"a coded part of {len(part)} bytes; its lanes and raw fields need at least {least}")
    check_fields(part, count, code)
    symbols, start = np.zeros(count, np.intp), PART_OVERHEAD
    for lane, size in enumerate([*sizes, len(part) - least]):
        share = symbols[lane::LANES]
        share[:] = _lane_symbols(part[start : start + size], code, len(share), lane)
        start += size
    return joined(symbols, part[start:], code)


def _lane_symbols(lane: bytes, code: HuffmanCode, count: int, number: int) -> list[int]:
    """The ``count`` symbols that fill a lane exactly."""
    bits = bitarray(endian="little")
    bits.frombytes(lane)
    symbols, used = [0] * count, 0
    if code.symbols > 1:
        order = sorted(code.words, key=lambda symbol: (code.lengths[symbol], symbol))
        by_length = [sum(1 for symbol in order if code.lengths[symbol] == n) for n in range(code.longest + 1)]
        try:
            symbols = list(islice(canonical_decode(bits, by_length, order), count))
        except ValueError:  # the bits end within a code word
            symbols = []
        if len(symbols) < count:
            raise FormatError(f"lane {number} of {len(lane)} bytes ends before its {count} symbols")
        used = sum(code.lengths[symbol] for symbol in symbols)
    if (used + 7) // 8 < len(lane):
        raise FormatError(f"lane {number} has {len(lane)} bytes; its {count} symbols take {(used + 7) // 8}")
    if bits[used:].any():
        raise FormatError(f"a bit after the last symbol of lane {number} is set")
    return symbols
