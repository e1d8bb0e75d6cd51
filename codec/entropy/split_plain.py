"""The plain form of a split: items to symbols and packed raw fields, and back, in NumPy (spec sections 6.2 to 6.4)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.entropy.base import Items, KeyCounts
from codec.entropy.split import FIELD, SYMBOLS, Split
from codec.errors import ArgumentError, FormatError


def as_items(items: bytes | npt.NDArray[Any], split: Split) -> npt.NDArray[Any]:
    """Little-endian items of ``split.width`` bytes as unsigned integers."""
    data = items if isinstance(items, bytes) else np.ascontiguousarray(items).tobytes()
    return np.frombuffer(data, f"<u{split.width}")


def splits(items: Items, keys: KeyCounts) -> Iterator[tuple[int, int, int, npt.NDArray[np.int64]]]:
    """The splits that a choice tries: low, zeros, first, and how often each symbol occurs.

    They are the finest of which at most 256 symbols result, and the four above it. Without keys there is one, of the
    single symbol 0, which does not occur.
    """
    used = np.flatnonzero(keys.counts)
    bits, every = items.key_bits, keys.or_of_keys
    if keys.shift == 0:  # then the bins know better than a caller with statistics alone
        every = int(np.bitwise_or.reduce(used.astype(np.uint64) + np.uint64(keys.first))) if len(used) else 0
    # A key has its lowest 1 above these bits. If every key is 0, all bits but the one that a code must have.
    zeros = (every & -every).bit_length() - 1 if every else bits - 1
    if len(used) == 0:
        yield 0, bits - 1, 0, np.zeros(1, np.int64)
        return
    tops = [int(top) + keys.first for top in used]
    shift = max(zeros, keys.shift)  # below it keys are zero, or were not counted
    while (tops[-1] >> (shift - keys.shift)) - (tops[0] >> (shift - keys.shift)) >= SYMBOLS:
        shift += 1
    # The range has a first element: 256 symbols hold 8 of at most 64 bits, so that 56 are left for the raw field.
    for split in range(shift, min(shift + 5, bits, zeros + FIELD + 1 - (items.kind == "float"))):
        first = tops[0] >> split - keys.shift
        symbols = np.array([(top >> split - keys.shift) - first for top in tops])
        counts = np.zeros(int(symbols[-1]) + 1, np.int64)
        np.add.at(counts, symbols, keys.counts[used].astype(np.int64))
        yield split - zeros, zeros, first, counts


def symbols_of(keys: npt.NDArray[Any], split: Split, known: Callable[[npt.NDArray[Any]], Any]) -> npt.NDArray[Any]:
    """Symbols of keys without their low bits; ArgumentError where the split has none, or its code does not know one."""
    first = keys.dtype.type(split.first)
    outside = (keys < first) | (keys - first >= split.symbols)
    symbols = np.where(outside, 0, keys - first).astype(np.intp)
    if outside.any() or not np.all(known(symbols)):
        raise ArgumentError("this code has no code word for some of the items")
    return symbols


def cut(
    raw: npt.NDArray[Any], split: Split, known: Callable[[npt.NDArray[Any]], Any]
) -> tuple[npt.NDArray[Any], bytes]:
    """The symbols of items, and their packed raw fields."""
    bits, one = Items(split.width, split.kind).key_bits, raw.dtype.type(1)
    top = raw.dtype.type(1 << (8 * split.width - 1))
    keys = raw ^ top if split.kind == "signed" else raw & raw.dtype.type((1 << bits) - 1)
    if (keys & raw.dtype.type((1 << split.zeros) - 1)).any():
        raise ArgumentError(f"some items have no {split.zeros} trailing zero bits")
    symbols = symbols_of(keys >> raw.dtype.type(split.low + split.zeros), split, known)
    fields = (keys >> raw.dtype.type(split.zeros)) & raw.dtype.type((1 << split.low) - 1)
    if split.kind == "float":
        fields |= ((raw & top) != 0).astype(raw.dtype) * (one << raw.dtype.type(split.low))
    # The bits of every field, lowest first; packbits pads the last byte with zeros.
    planes = np.unpackbits(fields.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return symbols, np.packbits(planes[:, : split.field], bitorder="little").tobytes()


def check_fields(part: bytes, count: int, split: Split) -> None:
    """FormatError where a bit behind the last of a part's raw fields, which end it, is set."""
    raw_bits = count * split.field
    if raw_bits % 8 and part[-1] >> raw_bits % 8:
        raise FormatError("a bit after the last raw field is set")


def joined(symbols: npt.NDArray[Any], fields: bytes, split: Split) -> npt.NDArray[Any]:
    """The items of symbols and packed raw fields."""
    count = len(symbols)
    bits = np.unpackbits(np.frombuffer(fields, np.uint8), count=count * split.field, bitorder="little")
    planes = np.zeros((count, 64), np.uint8)
    planes[:, : split.field] = bits.reshape(count, split.field)
    found = np.packbits(planes, axis=1, bitorder="little").view("<u8").reshape(count)
    shift, sign = np.uint64(split.low + split.zeros), np.uint64(8 * split.width - 1)
    keys = (symbols.astype("<u8") + np.uint64(split.first)) << shift
    keys |= (found & np.uint64((1 << split.low) - 1)) << np.uint64(split.zeros)
    if split.kind == "signed":
        keys ^= np.uint64(1) << sign
    elif split.kind == "float":
        keys |= (found >> np.uint64(split.low)) << sign
    return keys.astype(f"<u{split.width}")
