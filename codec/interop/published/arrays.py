"""What every published format takes: an array of so many dimensions."""

from typing import Any

import numpy as np

from codec.arraylike import as_array
from codec.errors import ArgumentError
from codec.matrix import dimensions


def of_ndim(a: Any, ndim: int) -> np.ndarray:
    """``a`` as an array; ArgumentError for what is no array, and for another number of dimensions."""
    array = as_array(a)
    if array.ndim != ndim:
        raise ArgumentError(f"{dimensions(array.ndim)}; expected {ndim}")
    return array
