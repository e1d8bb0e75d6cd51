"""The codes of the entropy stage in a header, plainly: sections 6.3 and 6.6 of format.md."""

from dataclasses import dataclass
from typing import Any

from head_words import LIMITS, Bits, integer, items, need, unfolded

# The items of each array, in order.
CODE = ("low", "zeros", "first", "lengths")
COUNTS = ("low", "zeros", "first", "lanes", "counts")


@dataclass(frozen=True)
class Code:
    """Section 6.3. ``words`` maps (length, code word) to symbol."""

    low: int
    zeros: int
    first: int
    words: dict[tuple[int, int], int]


@dataclass(frozen=True)
class Counts:
    """Section 6.6. ``counts`` are those of each symbol."""

    low: int
    zeros: int
    first: int
    lanes: int
    counts: list[int]


def check_split(low: int, zeros: int, first: int, symbols: int, bits: int, kind: str) -> None:
    """Section 6.3: a key is cut into symbol, raw bits and zeros."""
    sign = int(kind == "float")
    top = bits - sign - low - zeros
    need(low + sign <= LIMITS["raw field"], "code: raw fields are too wide")
    need(top > 0 and first + symbols <= 1 << top, "code: symbols outside the range of keys")


def read_code(value: list[Any], bits: int, kind: str, longest: int) -> Code:
    """Section 6.3, for items of so many bits and of that kind; no code word may be longer than ``longest``."""
    low, zeros, first, raw = items(value, CODE, "code")
    integer(low, "low"), integer(zeros, "zeros"), integer(first, "first", LIMITS["first"])
    need(type(raw) is bytes and 1 <= len(raw) <= LIMITS["symbols"] // 2, "code: lengths are no bin of 1 to 128 bytes")
    lengths = [nibble for byte in raw for nibble in (byte & 15, byte >> 4)]
    if lengths[-1] == 0:
        lengths.pop()
    check_split(low, zeros, first, len(lengths), bits, kind)
    if raw == b"\0":
        return Code(low, zeros, first, {(0, 0): 0})
    need(lengths[0] > 0 and lengths[-1] > 0, "code: the first or last symbol has no length")
    need(max(lengths) <= longest, f"code: a code word of more than {longest} bits")
    words, word, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        word <<= length - before
        need(word >> length == 0, "code: over-full")
        words[length, word] = symbol
        word, before = word + 1, length
    need(word == 1 << before, "code: incomplete")
    return Code(low, zeros, first, words)


def read_counts(value: list[Any], bits: int, kind: str) -> Counts:
    """Section 6.6, for items of so many bits and of that kind."""
    low, zeros, first, lanes, raw = items(value, COUNTS, "counts")
    integer(low, "low"), integer(zeros, "zeros"), integer(first, "first", LIMITS["first"]), integer(lanes, "lanes", 4)
    need(type(raw) is bytes, "counts: no bin")
    read = Bits(raw)
    symbols, order = read.take(8) + 1, read.take(3)
    counts: list[int] = []
    for _ in range(symbols):
        counts.append((counts[-1] if counts else 0) + unfolded(read.g(order)))
        need(0 <= counts[-1] <= 4096, "counts: one outside its limits")
    need(8 * len(raw) - read.at < 8 and not read.take(8 * len(raw) - read.at), "counts: more than the last one")
    check_split(low, zeros, first, symbols, bits, kind)
    need(sum(counts) == 4096, "counts: another sum than 4096")
    need(counts[0] > 0 and counts[-1] > 0, "counts: the first or last symbol does not occur")
    return Counts(low, zeros, first, lanes, counts)
