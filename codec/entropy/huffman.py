"""huffman: canonical Huffman codes of the top bits of each item, and the low bits as they are (spec section 6).

What is here is how a code is proved, kept in the header and chosen. The kernels choose the code and do the work;
huffman_plain.py says the same in plain Python, and tests hold the two together.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from bitarray import bitarray

from codec import kernels
from codec.entropy.base import Attempt, Coding, Items, KeyCounts, RawStream
from codec.entropy.split import SYMBOLS, Split
from codec.errors import FormatError

# Bits of the longest code word that a table of lengths can hold.
MOST_BITS = 15
LANES = 4
# Bytes of a coded part before its lanes: the count, and the lengths of all lanes but the last.
PART_OVERHEAD = 4 * LANES
# Bits that rounding adds to a part at most: up to 7 for each lane and for the raw fields. A stream of p parts takes
# p * PART_OVERHEAD + coded_bits / 8 bytes, and up to p * PART_ROUNDING / 8 more.
PART_ROUNDING = 7 * (LANES + 1)


@dataclass(frozen=True)
class HuffmanCode(Split):
    """The code of one stream: how an item splits into symbol and raw bits, and how long each symbol's code word is.

    ``lengths`` are the code word lengths by symbol, 0 where a symbol does not occur. The first and the last occur. One
    symbol alone has length 0; otherwise the code is complete. FormatError for others.
    """

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _prove(self.lengths)

    @property
    def symbols(self) -> int:
        """Number of symbols, with those that do not occur."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Bits of the longest code word."""
        return max(self.lengths)

    @cached_property
    def words(self) -> dict[int, bitarray]:
        """Code words of the symbols that occur, assigned in order of (length, symbol) from 0 upwards."""
        words: dict[int, bitarray] = {}
        word = previous = 0
        for length, symbol in sorted((n, s) for s, n in enumerate(self.lengths) if n):
            word <<= length - previous
            words[symbol] = bitarray(f"{word:0{length}b}", endian="little")
            word, previous = word + 1, length
        return words

    @cached_property
    def header(self) -> list[Any]:
        """The code in a frame's header: ``low``, ``zeros``, ``first``, and two code word lengths per byte, the first
        in the low nibble.
        """
        nibbles = np.array([*self.lengths, *[0] * (self.symbols % 2)], np.uint8)
        packed = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        return [self.low, self.zeros, self.first, packed]

    @classmethod
    def from_header(cls, header: list[Any], width: int, kind: str) -> "HuffmanCode":
        """Read what `header` is, for items of ``width`` bytes.

        Raises
        ------
        FormatError
            If the header is not a `header`.
        """
        if len(header) != 4:
            raise FormatError(f"a Huffman code of {len(header)} values, expected low, zeros, first and lengths")
        low, zeros, first, packed = header
        if type(packed) is not bytes or not 1 <= len(packed) <= SYMBOLS // 2:
            raise FormatError(f"the code lengths are not 1 to {SYMBOLS // 2} bytes")
        lengths = [nibble for byte in packed for nibble in (byte & 15, byte >> 4)]
        if lengths[-1] == 0:  # the unused nibble; the last symbol's own length may be 0 only in a code of one symbol
            lengths.pop()
        return cls(width, kind, low, zeros, first, tuple(lengths))


def _prove(lengths: tuple[int, ...]) -> None:
    """Raise FormatError unless code words of these lengths are a complete code: what the kernels prove again."""
    if set(map(type, lengths)) != {int} or min(lengths) < 0 or max(lengths) > MOST_BITS:
        raise FormatError(f"a code word is not 0 to {MOST_BITS} bits long")
    if len(lengths) == 1:
        if lengths[0]:
            raise FormatError(f"the only symbol of a Huffman code has {lengths[0]} bits; expected 0")
        return
    if not lengths[0] or not lengths[-1]:
        raise FormatError("the first or the last symbol of a Huffman code has no code word")
    counts = Counter(lengths)
    kraft = sum(many << (MOST_BITS - length) for length, many in counts.items() if length)
    if kraft != 1 << MOST_BITS:
        raise FormatError(
            f"a Huffman code takes {kraft} of {1 << MOST_BITS} words of {MOST_BITS} bits; expected all, once"
        )


def code_of(items: Items, keys: KeyCounts) -> HuffmanCode:
    """The code that takes the fewest bits for the keys counted, header included; of the single symbol 0 for none.

    The split into coded top bits and raw low bits is the cheapest of five, from the finest of which at most 256 symbols
    result.
    """
    return _chosen(items, keys)[0]


def coded_bytes(items: Items, keys: KeyCounts, parts: int) -> tuple[int, HuffmanCode]:
    """Bytes of a coded stream of ``parts`` parts, right within PART_ROUNDING / 16 bytes a part, and its code."""
    code, bits = _chosen(items, keys)
    return bits // 8 + parts * (PART_OVERHEAD + PART_ROUNDING // 16), code


# Most layouts have the same stream of values: what is chosen for its keys serves all of them.
@lru_cache(maxsize=8)
def _chosen(items: Items, keys: KeyCounts) -> tuple[HuffmanCode, int]:
    """The code, and the bits of all items under it."""
    low, zeros, first, lengths, bits = kernels.choose_code(
        keys.counts, keys.shift, keys.first, keys.or_of_keys, items.width, items.kind, items.longest, items.bits
    )
    return HuffmanCode(items.width, items.kind, low, zeros, first, tuple(lengths)), bits


class Huffman(Coding):
    """Huffman codes, one for all parts of a stream; its state is the code."""

    name = "huffman"
    number = 1

    def attempt(self, stream: RawStream, least: int | None) -> Attempt | None:
        """By the keys of all items."""
        nbytes, code = coded_bytes(stream.items, stream.key_counts(), stream.parts)
        nbytes += self.header_bytes(code)
        if least is not None and nbytes >= least:
            return None
        return Attempt(nbytes, code, lambda: stream.code(self.coder(code)))

    def predict(
        self, items: Items, counts: KeyCounts | None, nbytes: int, parts: int
    ) -> tuple[int, HuffmanCode] | None:
        """From the counts alone."""
        return None if counts is None else coded_bytes(items, counts, parts)

    def to_header(self, state: HuffmanCode) -> list[Any]:
        """The code."""
        return state.header

    def from_header(self, values: list[Any], items: Items) -> HuffmanCode:
        """A code that fits the items and has no longer words than they may have."""
        code = HuffmanCode.from_header(values, items.width, items.kind)
        code.check(items)
        if code.longest > items.longest:
            raise FormatError(f"code words of {code.longest} bits; at most {items.longest} are allowed here")
        return code

    def coder(self, state: HuffmanCode) -> "kernels.Coder":
        """The tables that the kernels decode with."""
        return _coder(state)


@lru_cache(maxsize=16)
def _coder(code: HuffmanCode) -> "kernels.Coder":
    return kernels.huffman_coder(code.width, code.kind, code.low, code.zeros, code.first, code.lengths)
