"""NumPy indexing that fetches no more of the leading dimension than a key names."""

from collections.abc import Callable
from typing import Any

import numpy as np


def take(shape: tuple[int, ...], key: Any, fetch: Callable[[int, int], np.ndarray]) -> Any:
    """``a[key]`` for an array of ``shape`` of which ``fetch(start, stop)`` returns ``a[start:stop]``.

    Raises IndexError as NumPy does.
    """
    if not shape:
        return fetch_scalar(fetch)[key]
    keys = key if isinstance(key, tuple) else (key,)
    first = keys[0] if keys else slice(None)
    length = shape[0]
    if isinstance(first, int | np.integer) and not isinstance(first, bool | np.bool_):
        row = int(first)
        if not -length <= row < length:
            raise IndexError(f"index {row} is out of bounds for axis 0 with size {length}")
        row %= length
        return fetch(row, row + 1)[(0, *keys[1:])]
    if isinstance(first, slice):
        start, stop, step = first.indices(length)
        named = range(start, stop, step)
        if not named:
            return fetch(0, 0)[(slice(0, 0), *keys[1:])]
        low, high = min(named), max(named)
        picked = slice(start - low, None if step < 0 and named[-1] == low else stop - low, step)
        return fetch(low, high + 1)[(picked, *keys[1:])]
    if isinstance(first, list | np.ndarray) and np.asarray(first).dtype.kind in "iu" and np.asarray(first).size:
        rows = np.asarray(first)
        if rows.min() < -length or rows.max() >= length:
            raise IndexError(f"index out of bounds for axis 0 with size {length}")
        rows = np.where(rows < 0, rows + length, rows)
        low = int(rows.min())
        return fetch(low, int(rows.max()) + 1)[(rows - low, *keys[1:])]
    return fetch(0, length)[key]


def fetch_scalar(fetch: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """A 0-d array from its one element."""
    return fetch(0, 1).reshape(())
