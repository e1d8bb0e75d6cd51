"""The plain form of huffman.py's work: how a code is chosen, and a coded part written and read, in NumPy and bitarray.

Slow, and what the kernels are proved against, on good input and on bad (spec sections 6.2 to 6.4).
"""

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from bitarray import bitarray
from bitarray.util import canonical_decode

from codec.entropy.base import Items, KeyCounts
from codec.entropy.huffman import FIELD, LANES, PART_OVERHEAD, SYMBOLS, HuffmanCode
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
    used = np.flatnonzero(keys.counts)
    bits, every = items.key_bits, keys.or_of_keys
    if keys.shift == 0:  # then the bins know better than a caller with statistics alone
        every = int(np.bitwise_or.reduce(used.astype(np.uint64) + np.uint64(keys.first))) if len(used) else 0
    # A key has its lowest 1 above these bits. If every key is 0, all bits but the one that a code must have.
    zeros = (every & -every).bit_length() - 1 if every else bits - 1
    if len(used) == 0:
        return HuffmanCode(items.width, items.kind, 0, bits - 1, 0, (0,))
    tops = [int(top) + keys.first for top in used]
    shift = max(zeros, keys.shift)  # below it keys are zero, or were not counted
    while (tops[-1] >> (shift - keys.shift)) - (tops[0] >> (shift - keys.shift)) >= SYMBOLS:
        shift += 1
    # The range has a first element: 256 symbols hold 8 of at most 64 bits, so that 56 are left for the raw field.
    codes = []
    for split in range(shift, min(shift + 5, bits, zeros + FIELD + 1 - (items.kind == "float"))):
        symbols = np.array([(top >> split - keys.shift) - (tops[0] >> split - keys.shift) for top in tops])
        sums = np.bincount(symbols, weights=keys.counts[used]).astype(np.int64)
        lengths = code_lengths(sums, items.longest)
        cost = int(sums @ lengths) + int(sums.sum()) * (split - zeros) + 4 * len(sums)
        first = tops[0] >> split - keys.shift
        codes.append((cost, HuffmanCode(items.width, items.kind, split - zeros, zeros, first, tuple(lengths.tolist()))))
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
    return int(counts @ lengths[_symbols(tops, code)]) + int(counts.sum()) * code.field


def _symbols(keys: npt.NDArray[Any], code: HuffmanCode) -> npt.NDArray[Any]:
    """Symbols of keys without their low bits; ArgumentError where the code has none."""
    first = keys.dtype.type(code.first)
    outside = (keys < first) | (keys - first >= code.symbols)
    symbols = np.where(outside, 0, keys - first).astype(np.intp)
    if outside.any() or (code.symbols > 1 and not np.asarray(code.lengths)[symbols].all()):
        raise ArgumentError("this Huffman code has no code word for some of the items")
    return symbols


def encode_part(items: bytes | npt.NDArray[Any], code: HuffmanCode) -> bytes:
    """The coded part of ``items``: as the kernels write it.

    Parameters
    ----------
    items : bytes or ndarray
        Little-endian items of ``code.width`` bytes.
    code : HuffmanCode
        A code that has code words for all of them; ArgumentError otherwise.
    """
    raw = np.frombuffer(items if isinstance(items, bytes) else np.ascontiguousarray(items).tobytes(), f"<u{code.width}")
    bits, one = Items(code.width, code.kind).key_bits, raw.dtype.type(1)
    top = raw.dtype.type(1 << (8 * code.width - 1))
    keys = raw ^ top if code.kind == "signed" else raw & raw.dtype.type((1 << bits) - 1)
    if (keys & raw.dtype.type((1 << code.zeros) - 1)).any():
        raise ArgumentError(f"some items have no {code.zeros} trailing zero bits")
    symbols = _symbols(keys >> raw.dtype.type(code.low + code.zeros), code)
    lanes = []
    for lane in range(LANES):
        coded = bitarray(endian="little")
        if code.symbols > 1:
            coded.encode(code.words, symbols[lane::LANES].tolist())
        lanes.append(coded.tobytes())
    fields = (keys >> raw.dtype.type(code.zeros)) & raw.dtype.type((1 << code.low) - 1)
    if code.kind == "float":
        fields |= ((raw & top) != 0).astype(raw.dtype) * (one << raw.dtype.type(code.low))
    # The bits of every field, lowest first; packbits pads the last byte with zeros.
    planes = np.unpackbits(fields.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    packed = np.packbits(planes[:, : code.field], bitorder="little").tobytes()
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
    raw_bits = count * code.field
    raw_bytes = (raw_bits + 7) // 8
    least = PART_OVERHEAD + sum(sizes) + raw_bytes
    if least > len(part):
        raise FormatError(f"a coded part of {len(part)} bytes; its lanes and raw fields need at least {least}")
    if raw_bits % 8 and part[-1] >> raw_bits % 8:
        raise FormatError("a bit after the last raw field is set")
    symbols, start = np.zeros(count, np.intp), PART_OVERHEAD
    for lane, size in enumerate([*sizes, len(part) - least]):
        share = symbols[lane::LANES]
        share[:] = _lane_symbols(part[start : start + size], code, len(share), lane)
        start += size
    dtype = np.dtype(f"<u{code.width}")
    bits = np.unpackbits(np.frombuffer(part[start:], np.uint8), count=raw_bits, bitorder="little")
    planes = np.zeros((count, 64), np.uint8)
    planes[:, : code.field] = bits.reshape(count, code.field)
    fields = np.packbits(planes, axis=1, bitorder="little").view("<u8").reshape(count)
    shift, sign = np.uint64(code.low + code.zeros), np.uint64(8 * code.width - 1)
    keys = (symbols.astype("<u8") + np.uint64(code.first)) << shift
    keys |= (fields & np.uint64((1 << code.low) - 1)) << np.uint64(code.zeros)
    if code.kind == "signed":
        keys ^= np.uint64(1) << sign
    elif code.kind == "float":
        keys |= (fields >> np.uint64(code.low)) << sign
    return keys.astype(dtype)


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
