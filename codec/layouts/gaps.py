"""Gaps: the elements before each listed one, as codes of k bits. Shared by relative_index, run_length and huffman.

With top = 2**k - 1, a gap is written as q codes of top and one code r. With escapes q, r = divmod(gap, top) and the
code top places nothing; with fillers q, r = divmod(gap, top + 1) and each of the q codes places a value of zero bits
(spec sections 5.4 to 5.6).
"""

import numpy as np

from codec.errors import FormatError
from codec.matrix import Grid
from codec.statistics import Counts

MOST_BITS = 16


def gaps_before(listed: np.ndarray) -> np.ndarray:
    """The elements before each listed one, since the one before it, in row-major order."""
    return np.asarray(np.diff(np.flatnonzero(listed), prepend=-1) - 1)


def split(gaps: np.ndarray, step: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the gaps, ``step`` elements to each code ``top`` that places none; and which codes place an entry."""
    last = np.cumsum(gaps // step + 1) - 1
    codes = np.full(int(last[-1]) + 1 if len(gaps) else 0, top, np.int64)
    codes[last] = gaps % step
    entry = np.zeros(len(codes), bool)
    entry[last] = True
    return codes, entry


def join(codes: np.ndarray, entry: np.ndarray, step: int, size: int, stream: str) -> np.ndarray:
    """Positions of the entries: the inverse of ``split``.

    FormatError where the last code places none, or an entry lies outside.
    """
    if len(codes) and not entry[-1]:
        raise FormatError("the last gap places no entry", stream=stream)
    positions = (np.cumsum(np.where(entry, codes + 1, step)) - 1)[entry]
    if len(positions) and positions[-1] >= size:
        raise FormatError(f"an entry at {positions[-1]}, past the segment's {size} elements", stream=stream)
    return np.asarray(positions)


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes side by side, least significant bit first; the last byte is filled with zeros."""
    flags = codes[:, None] >> np.arange(bits) & 1
    return np.packbits(flags.astype(bool).reshape(-1), bitorder="little")


def unpack_bits(packed: np.ndarray, count: int, bits: int, stream: str) -> np.ndarray:
    """The inverse of ``pack_bits``; FormatError for another number of bytes than that, or padding that is not 0."""
    if len(packed) != -(-count * bits // 8):
        raise FormatError(f"{len(packed)} bytes for {count} codes of {bits} bits", stream=stream)
    flags = np.unpackbits(packed, bitorder="little")
    if flags[count * bits :].any():
        raise FormatError("a bit past the last code is set", stream=stream)
    return np.asarray(flags[: count * bits].reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits)))


# Sizes ----------------------------------------------------------------------------------------------------------------


def expected(counts: Counts, grid: Grid) -> Counts:
    """``counts`` if they tell how entries are spread, else what independent zeros come to on average."""
    return counts if counts.parts is not None or not grid.size else Counts.independent(grid, counts.nnz)


def code_histogram(lengths: np.ndarray, step: int, bits: int, idle: int) -> np.ndarray:
    """How often each code occurs: the remainders of the gaps, and ``idle`` codes that place no entry."""
    codes = np.bincount(np.arange(len(lengths)) % step, lengths.astype(np.float64), 1 << bits)
    codes[-1] += idle
    return np.asarray(codes)


def byte_histogram(codes: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Bytes of ``size`` bytes of packed codes by value, taking codes as independent (escaped geometric gaps are)."""
    share = codes / max(1.0, codes.sum())
    total = np.zeros(256)
    phases = bits // np.gcd(bits, 8)  # at how many bits of a code a byte may begin
    for number in range(phases):
        begin, filled, byte = number * 8 % bits, 0, np.ones(1)
        while filled < 8:
            take = min(bits - begin, 8 - filled)
            piece = np.bincount(np.arange(1 << bits) >> begin & (1 << take) - 1, share, 1 << take)
            byte = np.outer(piece, byte).reshape(-1)
            begin, filled = 0, filled + take
        total += byte
    return np.asarray(np.rint(total * size / phases), np.uint64)


def endless(sparsity: float, step: int) -> float:
    """Codes for each element of an endless row of independent zeros, ``step`` zeros to a code that places no entry."""
    return (1 - sparsity) / (1 - float(sparsity**step)) if sparsity < 1 else 1 / step


def stored_zero(what: str) -> str:
    """What an ArgumentError says of a kept zero that would read as a filler."""
    return f'a zero kept by mask= would read as a filler of {what}; use layout="relative_index" with filler="escape"'
