"""run_length: pairs of a zero run and the value behind it, several in a word (spec section 5.6).

``preset="eyeriss"`` is Eyeriss's run-length compression of feature maps (Chen et al., JSSC 2017): 5 bits of run, 16 of
level, three pairs in 64 bits. A run that overflows stores a zero level, as in relative_index with ``filler="value"``.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.layouts.base import KEYS, Layout, Needs, Sizes, StreamKind, items, unsigned
from codec.layouts.gaps import MOST_BITS, code_histogram, endless, gaps_before, join, split, stored_zero
from codec.matrix import Grid, TensorSpec
from codec.statistics import Counts, Need

_EYERISS = 5  # bits of a run


def _word(width: int) -> int:
    """u64s in a word: the fewest that hold a pair and the top bit."""
    return 1 if width < 8 else 2


def _pairs(bits: int, width: int) -> int:
    return (64 * _word(width) - 1) // (bits + 8 * width)


@dataclass(frozen=True)
class RunLength(Layout):
    """Stream: ``words``.

    Parameters: ``bits`` of a run, 1 to 16 (by default 5); ``preset`` ("eyeriss": 5 bits, for dtypes of two bytes).
    """

    name = "run_length"
    number = 5
    shorthands: ClassVar[tuple[str, ...]] = ("preset",)

    bits: int | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        self._check_one_of("preset", (None, "eyeriss"))
        self._check_int("bits", 1, MOST_BITS, none=True)
        if self.preset is not None and self.bits not in (None, _EYERISS):
            raise ArgumentError(f'bits={self.bits!r} with preset="eyeriss", which has {_EYERISS}')

    @classmethod
    def variants(cls) -> tuple[Self, ...]:
        """The default, and the shortest and long runs."""
        return (cls(), cls(bits=1), cls(bits=12))

    def fit(self, spec: TensorSpec) -> Self:
        """A preset, once its dtype is right, is only its bits."""
        if self.preset is not None and spec.element.width != 2:
            raise ArgumentError(
                f'preset="eyeriss" is for dtypes of two bytes, not {spec.element.dtype}; leave it out, or convert the '
                "tensor"
            )
        return replace(self, bits=self._bits, preset=None)

    @property
    def _bits(self) -> int:
        return _EYERISS if self.bits is None else self.bits

    def refusal(self, found: int) -> str:
        """Only kept zeros."""
        return stored_zero(f"{self._bits} bits")

    def ideal_bits(self, sparsity: float, value_bits: float) -> float:
        """A word for every so many pairs; a pair for each entry and each filler."""
        bits = self._bits
        word = 64 * -(-(bits + value_bits + 1) // 64)
        return endless(sparsity, 1 << bits) * word / ((word - 1) // (bits + value_bits))

    @property
    def zero_items(self) -> bool:
        """Fillers."""
        return True

    def native(self) -> tuple[int, ...]:
        """Bits of a run."""
        return (self._bits,)

    def streams(self, element: ElementType) -> tuple[StreamKind, ...]:
        """Words, as u64s."""
        return (unsigned("words", 8),)

    def part_limit(self, grid: Grid, width: int) -> int:
        """A word for each pair, a pair for each element."""
        return 8 * _word(width) * (grid.segment_rows * grid.segment_cols + 1)

    @property
    def size_needs(self) -> Needs:
        """The gaps, and the entries of each segment."""
        return frozenset({Need("gaps"), Need("parts")})

    def stream_bytes(self, grid: Grid, width: int, counts: Counts) -> tuple[Sizes, ...]:
        """A segment's pairs, fillers included, rounded up to a word."""
        if counts.parts is None or counts.fillers is None:
            return (None,)
        pairs = (counts.parts + counts.fillers[:, self._bits - 1]).astype(np.int64)
        return (8 * _word(width) * -(-pairs // _pairs(self._bits, width)),)

    def key_counts(self, stream: str, grid: Grid, element: ElementType, counts: Counts) -> KeyCounts | None:
        """The top bits of the words, which are those of their last pairs; eight-byte levels count as incompressible."""
        sizes, bits, width = self.stream_bytes(grid, element.width, counts)[0], self._bits, 8 * element.width
        if counts.keys is None or counts.gap_lengths is None or counts.fillers is None or counts.parts is None:
            return None
        if sizes is None or element.width == 8:
            return None
        words, fillers = int(sizes.sum()) // 8, int(counts.fillers[:, bits - 1].sum())
        at = (_pairs(bits, element.width) - 1) * (bits + width)  # where the last pair begins
        runs = code_histogram(counts.gap_lengths, 1 << bits, bits, 0)
        levels, times = _levels(counts.keys, element)
        low = max(0, width - 16)  # bits of a level that its histogram does not have
        # Few runs differ in what they put on top, mostly none.
        by_run = np.bincount(_top(np.arange(len(runs)), at), runs / max(1.0, runs.sum()))
        by_level = np.bincount(_top(levels, at + bits + low), times)
        run, level = np.flatnonzero(by_run), np.flatnonzero(by_level)
        tops = np.zeros(1 << 16)
        for value in run:
            tops[value | level] += by_run[value] * by_level[level]
        tops[int(_top(np.array([(1 << bits) - 1]), at)[0])] += fillers
        used = np.flatnonzero(tops)
        # Rounded so that the sum stays: where words are few, each of their many values is expected less than once.
        sums = np.rint(np.cumsum(tops[used] * (words / max(1.0, tops.sum()))))
        marked = np.zeros(1 << 16, np.uint64)
        marked[used] = np.diff(sums, prepend=0)
        ends = np.uint64(np.count_nonzero(counts.parts))
        marked[int(np.argmax(marked))] -= min(ends, marked.max())
        marked[1 << 15] += ends
        return KeyCounts(marked, 48, 0, (1 << 64) - 1)

    @property
    def key_needs(self) -> Needs:
        """Those of the size, and the values."""
        return KEYS | self.size_needs

    def encode(self, segment: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Pairs from the lowest bits of each word on; the last word is filled up with fillers."""
        bits, width = self._bits, segment.dtype.itemsize
        per, size = _pairs(bits, width), bits + 8 * width
        runs, entry = split(gaps_before(stored), 1 << bits, (1 << bits) - 1)
        levels = np.zeros(len(runs), np.uint64)
        levels[entry] = segment[stored]
        if np.any(entry & (runs == (1 << bits) - 1) & (levels == 0)):
            raise ArgumentError(self.refusal(1))
        rest = -len(runs) % per
        pairs = [int(r) | int(v) << bits for r, v in zip(runs, levels, strict=True)] + [(1 << bits) - 1] * rest
        words = [
            sum(pair << size * i for i, pair in enumerate(pairs[at : at + per])) for at in range(0, len(pairs), per)
        ]
        if words:
            words[-1] |= 1 << 64 * _word(width) - 1
        return (np.frombuffer(b"".join(word.to_bytes(8 * _word(width), "little") for word in words), np.uint8),)

    def decode(self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
        """Pair by pair; only the last word has its top bit set, and only its end may place nothing."""
        bits, width = self._bits, dtype.itemsize
        per, size, whole = _pairs(bits, width), bits + 8 * width, 8 * _word(width)
        data = items(streams[0], f"V{whole}", None, "words").tobytes()
        words = [int.from_bytes(data[at : at + whole], "little") for at in range(0, len(data), whole)]
        if any(
            word >> per * size != (number == len(words) - 1) << 8 * whole - 1 - per * size
            for number, word in enumerate(words)
        ):
            raise FormatError(
                "a bit between the pairs and the top is set, or the top bit of a word that is not the last",
                stream="words",
            )
        pairs = [word >> size * i & (1 << size) - 1 for word in words for i in range(per)]
        filler = (1 << bits) - 1
        full = per * max(0, len(words) - 1)
        while len(pairs) > full and pairs[-1] == filler:
            pairs.pop()
        if words and len(pairs) == full:
            raise FormatError("the last word holds no entry", stream="words")
        runs = np.array([pair & filler for pair in pairs], np.int64)
        levels = np.array([pair >> bits for pair in pairs], np.uint64).astype(dtype)
        entry = (runs < filler) | (levels != 0)
        out = np.zeros(rows * cols, dtype)
        out[join(runs, entry, 1 << bits, rows * cols, "words")] = levels[entry]
        return out.reshape(rows, cols)


def _levels(keys: KeyCounts, element: ElementType) -> tuple[np.ndarray, np.ndarray]:
    """The top 16 bits of values (8 for one byte) and how often they occur, from their keys (spec section 6.2).

    A key does not have the sign of a float: both signs count in equal shares.
    """
    used = np.flatnonzero(keys.counts)
    times = keys.counts[used].astype(np.float64)
    low = max(0, 8 * element.width - 16)
    found = ((used.astype(np.uint64) + np.uint64(keys.first)) << np.uint64(keys.shift)) >> np.uint64(low)
    levels, top = found.astype(np.int64), 1 << min(16, 8 * element.width) - 1
    if element.kind == "float":
        return np.concatenate((levels, levels | top)), np.concatenate((times, times)) / 2
    return (levels ^ top if element.kind == "signed" else levels), times


def _top(bits: np.ndarray, at: int) -> np.ndarray:
    """What bits that begin at bit ``at`` of a word put into its top 16."""
    return (bits << at - 48 if at >= 48 else bits >> 48 - at) & 0x7FFF
