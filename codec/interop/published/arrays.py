"""What every published format takes: arrays of so many dimensions, of elements or of integers."""

from typing import Any

import numpy as np

from codec.arraylike import as_array
from codec.errors import ArgumentError, FormatError
from codec.matrix import dimensions


def of_ndim(a: Any, ndim: int) -> np.ndarray:
    """``a`` as an array; ArgumentError for what is no array, and for another number of dimensions."""
    array = as_array(a)
    if array.ndim != ndim:
        raise ArgumentError(f"{dimensions(array.ndim)}; expected {ndim}")
    return array


def integers(what: str, a: Any, ndim: int) -> np.ndarray:
    """``a`` as an array of integers; FormatError for other numbers, which would be cut off."""
    array = of_ndim(a, ndim)
    if array.dtype.kind not in "iu":
        raise FormatError(f"{what} are {array.dtype}; expected integers")
    return array
