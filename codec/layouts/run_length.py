"""run_length: pairs of a zero run and the value behind it, several in a word (spec section 5.6).

``preset="eyeriss"`` is Eyeriss's run-length compression of feature maps (Chen et al., JSSC 2017): 5 bits of run, 16 of
level, three pairs in 64 bits. A run that overflows stores a zero level, as in relative_index with ``filler="value"``.
"""

from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts.base import Counts, Histogram, Layout, Params, StreamKind, choice, items
from codec.layouts.gaps import check_bits, code_histogram, endless, gaps_before, join, split, stored_zero


def _word(width: int) -> int:
    """u64s in a word: the fewest that hold a pair and the top bit."""
    return 1 if width < 8 else 2


def _pairs(bits: int, width: int) -> int:
    return (64 * _word(width) - 1) // (bits + 8 * width)


class RunLength(Layout):
    """Stream: ``words``.

    Parameters: ``bits`` of a run, 1 to 16 (by default 5); ``preset`` ("eyeriss": 5 bits, for dtypes of two bytes).
    """

    name = "run_length"
    code = 5
    defaults: ClassVar[Params] = {"bits": None, "preset": None}
    variants = ({}, {"bits": 1}, {"bits": 12})

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """Bits in range; a preset's bits are its own."""
        if params["preset"] is None:
            del params["preset"]
        elif choice(params, "preset", ("eyeriss",)) and params["bits"] not in (None, 5):
            raise ArgumentError(f'bits={params["bits"]!r} with preset="eyeriss", which has 5')
        params["bits"] = 5 if params["bits"] is None else params["bits"]
        check_bits(params["bits"])
        return params

    def decided(self, params: Params) -> bool:
        """Without a preset."""
        return "preset" not in params

    def decide(self, params: Params, grid: Grid, element: ElementType, counts: Counts) -> dict[str, Any]:
        """A preset, once its dtype is right, is only its bits."""
        if "preset" in params and element.width != 2:
            raise ArgumentError(
                f'preset="eyeriss" is for dtypes of two bytes, not {element.dtype}; leave it out, or convert the tensor'
            )
        return {"bits": params["bits"]}

    def refusal(self, params: Params, found: int) -> str:
        """Only kept zeros."""
        return stored_zero(f"{params['bits']} bits")

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """A word for every so many pairs; a pair for each entry and each filler."""
        bits = params.get("bits") or 5
        word = 64 * -(-(bits + value_bits + 1) // 64)
        return endless(sparsity, 1 << bits) * word / ((word - 1) // (bits + value_bits))

    def zero_items(self, params: Params) -> bool:
        """Fillers."""
        return True

    def native(self, params: Params) -> tuple[int, ...]:
        """Bits of a run."""
        return (params["bits"],)

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Words, as u64s."""
        return (StreamKind("words", 8, "unsigned"),)

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """A segment's pairs, fillers included, rounded up to a word."""
        if counts.parts is None or counts.fillers is None:
            return (None,)
        pairs = (counts.parts + counts.fillers[:, params["bits"] - 1]).astype(np.int64)
        return (8 * _word(width) * int((-(-pairs // _pairs(params["bits"], width))).sum()),)

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """The top bits of the words, which are those of their last pairs; eight-byte levels count as incompressible."""
        size = self.stream_bytes(grid, element.width, counts, params)[0]
        known = counts.keys, counts.gap_lengths, counts.fillers, counts.parts
        if size is None or any(table is None for table in known) or element.width == 8:
            return None
        assert counts.keys is not None
        assert counts.gap_lengths is not None
        assert counts.fillers is not None
        bits, width = params["bits"], 8 * element.width
        words, fillers = size // 8, int(counts.fillers[:, bits - 1].sum())
        at = (_pairs(bits, element.width) - 1) * (bits + width)  # where the last pair begins
        runs = code_histogram(counts.gap_lengths, 1 << bits, bits, 0)
        levels = _items(counts.keys, element)
        low = max(0, width - 16)  # bits of a level that its histogram does not have
        # Few runs differ in what they put on top, mostly none.
        by_run = np.bincount(_top(np.arange(len(runs)), at), runs / max(1.0, runs.sum()))
        by_level = np.bincount(_top(np.arange(len(levels)), at + bits + low), levels)
        run, level = np.flatnonzero(by_run), np.flatnonzero(by_level)
        tops = np.zeros(1 << 16)
        for value in run:
            tops[value | level] += by_run[value] * by_level[level]
        tops[int(_top(np.array([(1 << bits) - 1]), at)[0])] += fillers
        tops *= words / max(1.0, tops.sum())
        marked = np.rint(tops).astype(np.uint64)
        ends = np.uint64(np.count_nonzero(counts.parts) if counts.parts is not None else 0)
        marked[int(np.argmax(marked))] -= min(ends, marked.max())
        marked[1 << 15] += ends
        return marked, (1 << 64) - 1

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Pairs from the lowest bits of each word on; the last word is filled up with fillers."""
        bits, width = params["bits"], segment.dtype.itemsize
        per, size = _pairs(bits, width), bits + 8 * width
        runs, entry = split(gaps_before(stored), 1 << bits, (1 << bits) - 1)
        levels = np.zeros(len(runs), np.uint64)
        levels[entry] = segment[stored]
        if np.any(entry & (runs == (1 << bits) - 1) & (levels == 0)):
            raise ArgumentError(self.refusal(params, 1))
        rest = -len(runs) % per
        pairs = [int(r) | int(v) << bits for r, v in zip(runs, levels, strict=True)] + [(1 << bits) - 1] * rest
        words = [
            sum(pair << size * i for i, pair in enumerate(pairs[at : at + per])) for at in range(0, len(pairs), per)
        ]
        if words:
            words[-1] |= 1 << 64 * _word(width) - 1
        return (np.frombuffer(b"".join(word.to_bytes(8 * _word(width), "little") for word in words), np.uint8),)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Pair by pair; only the last word has its top bit set, and only its end may place nothing."""
        bits, width = params["bits"], dtype.itemsize
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


def _items(keys: np.ndarray, element: ElementType) -> np.ndarray:
    """Values by their top 16 bits (8 for one byte) from their keys' (spec section 6.2): float signs in equal shares."""
    if element.kind == "signed":
        return np.roll(keys, len(keys) // 2).astype(np.float64)
    if element.kind == "float":  # a key has no sign bit: its top bits are one place lower than the value's
        half = keys[: 1 << 15] if element.width == 2 else keys.reshape(-1, 2).sum(axis=1)
        return np.concatenate((half, half)) / 2
    return keys.astype(np.float64)


def _top(bits: np.ndarray, at: int) -> np.ndarray:
    """What bits that begin at bit ``at`` of a word put into its top 16."""
    return (bits << at - 48 if at >= 48 else bits >> 48 - at) & 0x7FFF
