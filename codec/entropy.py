"""The entropy stage (spec section 6): parts of a stream <-> coded parts, by canonical Huffman codes or zstandard.

What is here is the meaning: how a code is chosen, proved and written, and a plain reference of the coded part. The
kernels (native/huffman.inc) do the same work, accept and refuse the same bytes, and are what runs where they are built.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import zstandard
from bitarray import bitarray
from bitarray.util import canonical_decode

from codec.errors import ArgumentError, FormatError

Entropy = Literal["auto", "none", "huffman", "zstd"]

# What a stream's "coding" may say in a frame, and how the bits of an item may be read.
CODINGS = ("none", "huffman", "zstd")
KINDS = ("unsigned", "signed", "float")
# Bits of the longest code word; symbols of a code; raw bits per item (one 64-bit load, shifted by up to 7, holds them).
LONGEST, SYMBOLS, FIELD = 15, 256, 56
LANES = 4
# Bytes of a coded part before its lanes: the count, and the lengths of all lanes but the last.
PART_OVERHEAD = 4 * LANES
# Bits that rounding adds to a part at most: up to 7 for each lane and for the raw fields. A stream of p parts takes
# p * PART_OVERHEAD + coded_bits / 8 bytes, and up to p * PART_ROUNDING / 8 more.
PART_ROUNDING = 7 * (LANES + 1)
# Histograms hold this many top bits of a key: more than SYMBOLS needs, few enough to count in the L2 cache.
HISTOGRAM_BITS = 16
# The highest level that keeps 100 MB/s on every stream of pruned weights (an EPYC core, one thread: 137 MB/s at worst;
# level 9 falls to 28). Higher ones search for matches that such streams hardly have: level 9 is 2 % smaller on average
# (columns 8 %), and not smaller at all on gaps and 8-bit values.
ZSTD_LEVEL = 3
# The window that RFC 8878 (3.1.1.1.2) wants every decoder to grant; ours are smaller, as parts are.
ZSTD_WINDOW = 1 << 23

Histogram = npt.NDArray[np.uint64] | npt.NDArray[np.int64]


def check_entropy(name: str) -> Entropy:
    """Return ``name`` if it is a choice of the ``entropy`` argument.

    Raises
    ------
    ArgumentError
        For any other name, also "rans", which this version does not write.
    """
    if name not in get_args(Entropy):
        later = " (this version has no rans)" if name == "rans" else ""
        raise ArgumentError(f'entropy={name!r} is not one of "auto", "none", "huffman", "zstd"{later}')
    return name  # type: ignore[return-value]


def key_bits(width: int, kind: str) -> int:
    """Bits of a key: an item of ``width`` bytes, without its sign if it is a float."""
    return 8 * width - (kind == "float")


def histogram_shift(width: int, kind: str) -> int:
    """Low bits of a key that histograms do not see."""
    return max(0, key_bits(width, kind) - HISTOGRAM_BITS)


def histogram_size(width: int) -> int:
    """Entries of a histogram for items of ``width`` bytes."""
    return 1 << min(8 * width, HISTOGRAM_BITS)


@dataclass(frozen=True)
class HuffmanCode:
    """The code of one stream: how an item splits into symbol and raw bits, and how long each symbol's code word is.

    A key is ``(first + symbol) << (low + zeros) | raw << zeros``: the item if unsigned, the item with its sign bit
    inverted if signed, the item without its sign bit if float.

    Parameters
    ----------
    width : int
        Bytes of an item: 1, 2, 4 or 8.
    kind : {"unsigned", "signed", "float"}
        How an item's bits are read.
    low, zeros : int
        Raw bits of a key, and the bits below them, which are zero in every key and not stored.
    first : int
        What symbol 0 stands for.
    lengths : tuple of int
        Code word lengths by symbol, 0 where a symbol does not occur. The first and the last occur. One symbol alone has
        length 0; otherwise the code is complete.

    Raises
    ------
    FormatError
        If these do not form a code: an instance is always one that can be used.
    """

    width: int
    kind: str
    low: int
    zeros: int
    first: int
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        _prove(self)

    @property
    def symbols(self) -> int:
        """Number of symbols, with those that do not occur."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Bits of the longest code word."""
        return max(self.lengths)

    @property
    def field(self) -> int:
        """Raw bits of an item: the low bits of its key, and the sign of a float."""
        return self.low + (self.kind == "float")

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

    def to_header(self) -> dict[str, Any]:
        """The "code" of a stream in the frame's header: two code word lengths per byte, the first in the low nibble."""
        nibbles = np.array([*self.lengths, *[0] * (self.symbols % 2)], np.uint8)
        packed = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        return {"low": self.low, "zeros": self.zeros, "first": self.first, "lengths": packed}

    @classmethod
    def from_header(cls, header: object, width: int, kind: str) -> "HuffmanCode":
        """Read what `to_header` wrote, for items of ``width`` bytes.

        Raises
        ------
        FormatError
            If the header is not one that `to_header` could have written.
        """
        names = ["low", "zeros", "first", "lengths"]
        if not isinstance(header, Mapping) or list(header) != names:
            raise FormatError(f"a Huffman code is not a map of {', '.join(names)}")
        low, zeros, first, packed = (header[name] for name in names)
        if type(packed) is not bytes or not 1 <= len(packed) <= SYMBOLS // 2:
            raise FormatError(f"the code lengths are not 1 to {SYMBOLS // 2} bytes")
        lengths = [nibble for byte in packed for nibble in (byte & 15, byte >> 4)]
        if lengths[-1] == 0:  # the unused nibble; the last symbol's own length may be 0 only in a code of one symbol
            lengths.pop()
        return cls(width, kind, low, zeros, first, tuple(lengths))


def _prove(code: HuffmanCode) -> None:
    """Raise FormatError unless the code is complete and fits its items: what prepare() in native/huffman.hpp proves."""
    if code.width not in (1, 2, 4, 8) or code.kind not in KINDS or (code.kind == "float" and code.width == 1):
        raise FormatError(f"no Huffman code for {code.kind} items of {code.width} bytes")
    bits = key_bits(code.width, code.kind)
    for name, value in (("low", code.low), ("zeros", code.zeros), ("first", code.first)):
        if type(value) is not int or value < 0:
            raise FormatError(f"{name} of a Huffman code is {value!r}, not an integer from 0")
    if code.low + code.zeros >= bits:
        raise FormatError(f"a Huffman code codes no bit: {code.low} raw and {code.zeros} zero bits of {bits}")
    if code.field > FIELD:
        raise FormatError(f"a Huffman code has {code.field} raw bits per item; at most {FIELD} are allowed")
    if not 1 <= code.symbols <= SYMBOLS:
        raise FormatError(f"a Huffman code has {code.symbols} symbols; 1 to {SYMBOLS} are allowed")
    room = 1 << (bits - code.low - code.zeros)
    if code.first + code.symbols > room:
        raise FormatError(f"symbols of a Huffman code go up to {code.first + code.symbols - 1}; expected below {room}")
    if any(type(n) is not int or not 0 <= n <= LONGEST for n in code.lengths):
        raise FormatError(f"a code word is not 0 to {LONGEST} bits long")
    if code.symbols == 1:
        if code.lengths[0]:
            raise FormatError(f"the only symbol of a Huffman code has {code.lengths[0]} bits; expected 0")
        return
    if not code.lengths[0] or not code.lengths[-1]:
        raise FormatError("the first or the last symbol of a Huffman code has no code word")
    kraft = sum(1 << (LONGEST - n) for n in code.lengths if n)
    if kraft != 1 << LONGEST:
        raise FormatError(f"a Huffman code takes {kraft} of {1 << LONGEST} words of {LONGEST} bits; expected all, once")


def code_lengths(counts: Histogram, max_length: int) -> npt.NDArray[np.int64]:
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


def choose_code(
    histogram: Histogram, or_of_keys: int, width: int, kind: str, max_length: int = 12, *, bits: int = 0
) -> HuffmanCode:
    """The code that takes the fewest bits for the items counted, header included.

    Parameters
    ----------
    histogram : ndarray of int
        Counts by the top 16 bits of the key, or by the whole key where it is shorter (see `histogram_shift`).
    or_of_keys : int
        Bitwise OR of all keys, for the low bits that are zero in all of them; unused where the histogram shows them.
    width : int
        Bytes of an item.
    kind : {"unsigned", "signed", "float"}
        How an item's bits are read.
    max_length : int, default 12
        Bits of the longest code word, 8 to 15: shorter ones decode from a smaller table.
    bits : int, optional
        Bits of a key, where items of one byte have less than eight.

    Returns
    -------
    HuffmanCode
        For an empty histogram the code of the single symbol 0.
    """
    if not 8 <= max_length <= LONGEST:
        raise ArgumentError(f"max_length={max_length} is not 8 to {LONGEST}")
    if len(histogram) != (size := histogram_size(width)):
        raise ArgumentError(f"a histogram of {len(histogram)} entries; items of {width} bytes need {size}")
    bits, hidden = bits or key_bits(width, kind), histogram_shift(width, kind)
    used = np.flatnonzero(histogram)
    if hidden == 0:  # then the histogram knows better than a caller with statistics alone
        or_of_keys = int(np.bitwise_or.reduce(used)) if len(used) else 0
    # A key has its lowest 1 above these bits. If every key is 0, all bits but the one that a code must have.
    zeros = (or_of_keys & -or_of_keys).bit_length() - 1 if or_of_keys else bits - 1
    if len(used) == 0:
        return HuffmanCode(width, kind, 0, bits - 1, 0, (0,))
    least, most, counts = int(used[0]), int(used[-1]), histogram[used]
    shift = max(zeros, hidden)  # below it keys are zero, or were not counted
    while (most >> (shift - hidden)) - (least >> (shift - hidden)) >= SYMBOLS:
        shift += 1
    # The range has a first element: 256 symbols hold 8 of at most 64 bits, so that 56 are left for the raw field.
    splits = range(shift, min(shift + 5, bits, zeros + FIELD + 1 - (kind == "float")))

    def sums(split: int) -> npt.NDArray[np.int64]:
        return np.bincount((used >> (split - hidden)) - (least >> (split - hidden)), weights=counts).astype(np.int64)

    # Entropy ranks the splits as closely as codes would; the code is then made for one of them. Rounded, so that what
    # tells two logarithm functions apart does not tell two splits apart: the bytes must not depend on the machine.
    best = min(splits, key=lambda split: round(_entropy_bits(sums(split)), 3) + int(counts.sum()) * split)
    lengths = code_lengths(sums(best), max_length)
    return HuffmanCode(width, kind, best - zeros, zeros, least >> (best - hidden), tuple(lengths.tolist()))


def _entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Bits of the items counted at their entropy, and of their code's header: four for each symbol."""
    used = counts[counts > 0].astype(np.float64)
    total = used.sum()
    return float(total * np.log2(total) - used @ np.log2(used)) + 4 * len(counts)


def coded_bits(histogram: Histogram, code: HuffmanCode) -> int:
    """Bits that the items counted in ``histogram`` take under ``code``, symbols and raw fields.

    A stream of them in p parts is longer by its parts' overhead and rounding: see PART_OVERHEAD and PART_ROUNDING.

    Raises
    ------
    ArgumentError
        If the code has no code word for an item counted, or tells apart what the histogram does not.
    """
    used = np.flatnonzero(histogram)
    shift = code.low + code.zeros - histogram_shift(code.width, code.kind)
    if shift < 0:
        raise ArgumentError("the histogram does not tell the symbols of this code apart")
    counts, lengths = histogram[used].astype(np.int64), np.asarray(code.lengths, np.int64)
    return int(counts @ lengths[_symbols(used >> shift, code)]) + int(counts.sum()) * code.field


def _symbols(keys: npt.NDArray[Any], code: HuffmanCode) -> npt.NDArray[Any]:
    """Symbols of keys without their low bits; ArgumentError where the code has none."""
    first = keys.dtype.type(code.first)
    outside = (keys < first) | (keys - first >= code.symbols)
    symbols = np.where(outside, 0, keys - first).astype(np.intp)
    if outside.any() or (code.symbols > 1 and not np.asarray(code.lengths)[symbols].all()):
        raise ArgumentError("this Huffman code has no code word for some of the items")
    return symbols


def encode_part(items: bytes | npt.NDArray[Any], code: HuffmanCode) -> bytes:
    """The coded part of ``items``: the reference of huffman_encode in native/huffman.inc.

    Parameters
    ----------
    items : bytes or ndarray
        Little-endian items of ``code.width`` bytes.
    code : HuffmanCode
        A code that has code words for all of them; ArgumentError otherwise.
    """
    raw = np.frombuffer(items if isinstance(items, bytes) else np.ascontiguousarray(items).tobytes(), f"<u{code.width}")
    bits, one = key_bits(code.width, code.kind), raw.dtype.type(1)
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
    """The items of a coded part: the reference of huffman_decode in native/huffman.inc.

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


def zstd_compress(part: bytes) -> bytes:
    """One zstandard frame that states its size, without a checksum: there is one for every part already."""
    return zstandard.ZstdCompressor(ZSTD_LEVEL, write_content_size=True, write_checksum=False).compress(part)


def zstd_decompress(part: bytes | memoryview, limit: int) -> bytes:
    """The bytes of exactly one zstandard frame; nothing is decompressed before its stated size is known to fit.

    Raises
    ------
    FormatError
        If ``part`` is not one frame with its size, of at most ``limit`` bytes, without dictionary or checksum.
    """
    part = bytes(part)
    try:
        frame = zstandard.get_frame_parameters(part)
        start = zstandard.frame_header_size(part)
    except zstandard.ZstdError as error:
        raise FormatError(f"not a zstandard frame: {error}") from error
    if part[:4] != zstandard.FRAME_HEADER:
        raise FormatError("not a zstandard frame: a skippable one")
    if frame.dict_id or frame.has_checksum:
        raise FormatError("a zstandard frame with a dictionary or a checksum; expected neither")
    if frame.content_size > limit:  # an unknown size is the largest number there is
        raise FormatError(f"a zstandard frame of {frame.content_size} bytes; expected at most {limit}")
    if frame.window_size > (window := max(limit, ZSTD_WINDOW)):
        raise FormatError(f"a zstandard frame with a window of {frame.window_size} bytes; expected at most {window}")
    if frame.content_size == 0:  # zstandard takes any bytes after such a header for an empty frame
        if part[start:] != _EMPTY_BLOCK:
            raise FormatError("an empty zstandard frame is not one empty raw block")
        return b""
    try:
        return zstandard.ZstdDecompressor().decompress(part, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"a damaged zstandard frame: {error}") from error


# Raw, last, of 0 bytes (RFC 8878, 3.1.1.2).
_EMPTY_BLOCK = b"\x01\x00\x00"
