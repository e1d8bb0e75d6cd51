"""rans: interleaved rANS of the top bits of each item under one table of counts, and the low bits as they are (spec
section 6.6).

J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540, 2013); F. Giesen, "Interleaved entropy coders" (arXiv 1402.3392,
2014). What is here is how a table is proved, kept in the header and chosen. The kernels choose it and do the work;
rans_plain.py says the same in plain Python, and tests hold the two together.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from codec import kernels
from codec.entropy.base import Attempt, Coding, Items, KeyCounts, RawStream
from codec.entropy.bits import BitReader, BitWriter, best_order, folded, golomb_bits, unfolded
from codec.entropy.split import Split
from codec.errors import FormatError

# The counts of a table add up to 2**SCALE; a state is at least LOW between symbols; log2 of the most lanes.
SCALE, LOW, MOST_LANES = 12, 1 << 16, 4
# Orders that the code of a table's numbers may have: 2**3 of them.
ORDERS = 8
# Bytes of a coded part before its states, and, on the average, of a lane: a state, less the 8 bits that it codes.
COUNT_BYTES, LANE_BYTES = 4, 3
# log2 of the lanes that are written: those that fill a vector, where they take no more than one byte in so many of what
# they code; else four, whose states stay in registers.
LANES, _SHARE = (4, 2), 256


@dataclass(frozen=True)
class RansCode(Split):
    """The table of one stream: how an item splits into symbol and raw bits, and how many of 2**SCALE each symbol has.

    ``lanes`` is log2 of the states side by side. ``counts`` are 0 where a symbol does not occur; the first and the last
    occur. FormatError for others.
    """

    lanes: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.lanes) is not int or not 0 <= self.lanes <= MOST_LANES:
            raise FormatError(f"a table of counts for 2**{self.lanes!r} lanes; 0 to {MOST_LANES} are allowed")
        if set(map(type, self.counts)) != {int} or min(self.counts) < 0 or sum(self.counts) != 1 << SCALE:
            raise FormatError(f"counts that add up to {sum(self.counts)}; expected {1 << SCALE}, none below 0")
        if not self.counts[0] or not self.counts[-1]:
            raise FormatError("the first or the last symbol of a table of counts does not occur")

    @property
    def symbols(self) -> int:
        """Number of symbols, with those that do not occur."""
        return len(self.counts)

    @cached_property
    def header(self) -> list[Any]:
        """The table in a frame's header: ``low``, ``zeros``, ``first``, ``lanes``, and the counts as bits."""
        steps = [folded(own - before) for before, own in pairwise((0, *self.counts))]
        order = best_order(steps, ORDERS, golomb_bits)
        out = BitWriter()
        out.bits(self.symbols - 1, 8)
        out.bits(order, 3)
        for step in steps:
            out.golomb(step, order)
        return [self.low, self.zeros, self.first, self.lanes, out.bytes()]

    @classmethod
    def from_header(cls, header: list[Any], width: int, kind: str) -> "RansCode":
        """Read what `header` is, for items of ``width`` bytes; FormatError for anything else."""
        if len(header) != 5:
            raise FormatError(f"a table of {len(header)} values, expected low, zeros, first, lanes and counts")
        low, zeros, first, lanes, packed = header
        if type(packed) is not bytes:
            raise FormatError("the counts are not bytes")
        bits = BitReader(packed)
        symbols, order, count, counts = bits.bits(8) + 1, bits.bits(3), 0, []
        for _ in range(symbols):
            count += unfolded(bits.golomb(order))
            if not 0 <= count <= 1 << SCALE:
                raise FormatError(f"a symbol that has {count} of {1 << SCALE}")
            counts.append(count)
        bits.end()
        return cls(width, kind, low, zeros, first, lanes, tuple(counts))


def lanes_for(nbytes: int, parts: int) -> int:
    """log2 of the lanes of a stream whose symbols take so many bytes in so many parts."""
    most = nbytes // max(1, parts) // _SHARE
    return next((lanes for lanes in LANES if LANE_BYTES << lanes <= most), LANES[-1])


def code_of(items: Items, keys: KeyCounts, parts: int = 1) -> RansCode:
    """The table that takes the fewest bits for the keys counted, header included; of the single symbol 0 for none."""
    return coded_bytes(items, keys, parts)[1]


def coded_bytes(items: Items, keys: KeyCounts, parts: int) -> tuple[int, RansCode]:
    """Bytes of a coded stream of ``parts`` parts, right within about a byte for each lane, and its table."""
    low, zeros, first, counts, bits = _chosen(items, keys)
    raw = int(keys.counts.sum()) * (low + (items.kind == "float"))
    code = RansCode(items.width, items.kind, low, zeros, first, lanes_for((bits - raw) // 8, parts), counts)
    return bits // 8 + parts * (COUNT_BYTES + (LANE_BYTES << code.lanes)), code


# Most layouts have the same stream of values: what is chosen for its keys serves all of them.
@lru_cache(maxsize=8)
def _chosen(items: Items, keys: KeyCounts) -> tuple[int, int, int, tuple[int, ...], int]:
    """The split, the counts, and the bits of all items under them."""
    low, zeros, first, counts, bits = kernels.choose_counts(
        keys.counts, keys.shift, keys.first, keys.or_of_keys, items.width, items.kind, items.bits
    )
    return low, zeros, first, tuple(np.frombuffer(counts, np.uint16).tolist()), bits


class Rans(Coding):
    """Interleaved rANS, one table for all parts of a stream; its state is the table."""

    name = "rans"
    number = 3

    def attempt(self, stream: RawStream, least: int | None) -> Attempt | None:
        """By the keys of all items."""
        nbytes, code = coded_bytes(stream.items, stream.key_counts(), stream.parts)
        if least is not None and nbytes >= least:
            return None
        nbytes += self.header_bytes(code)
        if least is not None and nbytes >= least:
            return None
        return Attempt(nbytes, code, lambda: stream.code(self.coder(code)))

    def predict(self, items: Items, counts: KeyCounts | None, nbytes: int, parts: int) -> tuple[int, RansCode] | None:
        """From the counts alone."""
        return None if counts is None else coded_bytes(items, counts, parts)

    def to_header(self, state: RansCode) -> list[Any]:
        """The table."""
        return state.header

    def from_header(self, values: list[Any], items: Items) -> RansCode:
        """A table that fits the items."""
        code = RansCode.from_header(values, items.width, items.kind)
        code.check(items)
        return code

    def coder(self, state: RansCode) -> "kernels.Coder":
        """The tables that the kernels code with."""
        return _coder(state)


@lru_cache(maxsize=16)
def _coder(code: RansCode) -> "kernels.Coder":
    return kernels.rans_coder(code.width, code.kind, code.low, code.zeros, code.first, code.lanes, code.counts)
