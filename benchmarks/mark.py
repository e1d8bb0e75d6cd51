"""What a simple model of a pruned matrix would take at its entropy, without anything beside the coded bits.

The mask given 16 classes of the rows' density and 16 of the columns'; the values by the best split into top bits of at
most 256 symbols at their entropy and raw low bits, without low bits that are 0 in all of them.
"""

import numpy as np
from peers import bits_of

from codec.dtypes import element_type

_CLASSES, _SYMBOLS = 16, 256


def mark(a: np.ndarray) -> float:
    """Bits per weight of a matrix."""
    bits = bits_of(a).reshape(a.shape)
    stored = bits != 0
    if not stored.any():
        return 0.0
    return (_mask_bits(stored) + stored.sum() * _value_bits(bits[stored], element_type(a.dtype).kind)) / a.size


def _mask_bits(stored: np.ndarray) -> float:
    """Entropy of a mask, given the class of each row and of each column."""
    rows, cols = (_classes(stored.mean(axis=axis)) for axis in (1, 0))
    pair = (rows[:, None] * _CLASSES + cols).reshape(-1)
    of = np.bincount(pair, minlength=_CLASSES**2)
    ones = np.bincount(pair, weights=stored.reshape(-1), minlength=_CLASSES**2)
    return _binary(ones, of - ones)


def _binary(ones: np.ndarray, others: np.ndarray) -> float:
    """Bits of so many ones and others in each class at their entropy."""

    def each(n: np.ndarray) -> float:
        return float(n[n > 0] @ np.log2(n[n > 0]))

    return each(ones + others) - each(ones) - each(others)


def _classes(density: np.ndarray) -> np.ndarray:
    """Classes of about as many lines each; lines of one density are of one class."""
    cuts = np.unique(np.quantile(density, np.arange(1, _CLASSES) / _CLASSES))
    return np.searchsorted(cuts, density, side="right")


def _value_bits(items: np.ndarray, kind: str) -> float:
    """Bits of a value."""
    width = 8 * items.itemsize
    every = int(np.bitwise_or.reduce(items))
    zeros = (every & -every).bit_length() - 1
    keys = (items >> items.dtype.type(zeros)).astype(np.uint64)
    if kind != "float":  # two's complement in the order of its numbers
        return _split(keys ^ np.uint64(1 << width - 1 - zeros), pairs=0)
    sign = keys >> np.uint64(width - 1 - zeros)
    magnitude = keys & np.uint64((1 << width - 1 - zeros) - 1)
    return min(1 + _split(magnitude, pairs=0), _split(magnitude << np.uint64(1) | sign, pairs=1))


def _split(keys: np.ndarray, *, pairs: int) -> float:
    """Entropy of the top bits and the raw bits below them; with ``pairs`` the lowest bit belongs to the top ones."""
    best = np.inf
    for low in range(64):
        top = keys >> np.uint64(low + pairs)
        symbols = (top - top.min()).astype(np.uint64) << np.uint64(pairs) | keys & np.uint64(pairs)
        if int(symbols.max()) >= _SYMBOLS:
            continue
        counts = np.bincount(symbols.astype(np.int64))
        counts = counts[counts > 0]
        entropy = np.log2(len(keys)) - counts @ np.log2(counts) / len(keys)
        best = min(best, low + float(entropy))
        if symbols.max() <= pairs:
            break
    return best
