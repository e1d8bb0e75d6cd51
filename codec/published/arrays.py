"""What every published format takes: an array of so many dimensions."""

from typing import Any

import numpy as np

from codec.errors import ArgumentError


def of_ndim(a: Any, ndim: int) -> np.ndarray:
    """``a`` as an array; ArgumentError for another number of dimensions."""
    array = np.asarray(a)
    if array.ndim != ndim:
        raise ArgumentError(f"{array.ndim} dimensions; expected {ndim}")
    return array
