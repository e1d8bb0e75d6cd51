"""Whether two tensors are the same, bit for bit under a zero rule, and where they first differ."""

from typing import Any

import numpy as np
import numpy.typing as npt

from codec.dtypes import element_type

# Elements compared at a time: the temporary arrays stay in cache, whatever the tensor's size.
_PIECE = 1 << 18


def first_difference(found: npt.NDArray[Any], expected: npt.NDArray[Any], zero: str) -> int | None:
    """The lowest row-major position at which two arrays of one shape and dtype differ, or None.

    Under ``zero="value"`` the two zeros of a float are the same; every other bit pattern, NaN payloads included, is
    compared as it is. Under ``zero="bits"`` all are.
    """
    element = element_type(expected.dtype)
    negative_zero = element.unsigned.type(element.sign_bit)
    one, other = _bits(found), _bits(expected)
    for start in range(0, other.size, _PIECE):
        a, b = one[start : start + _PIECE], other[start : start + _PIECE]
        differs = a != b
        if zero == "value" and element.is_float and differs.any():
            differs &= ((a | b) & ~negative_zero) != 0
        if differs.any():
            return start + int(np.argmax(differs))
    return None


def lost_signs(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> int:
    """How many -0.0 of `expected` are +0.0 in `found`."""
    element = element_type(expected.dtype)
    if not element.is_float:
        return 0
    one, other = _bits(found), _bits(expected)
    pieces = range(0, other.size, _PIECE)
    return sum(
        int(np.count_nonzero((other[i : i + _PIECE] == element.sign_bit) & (one[i : i + _PIECE] == 0))) for i in pieces
    )


def _bits(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The elements as unsigned numbers, in row-major order."""
    element = element_type(a.dtype)
    bits: npt.NDArray[Any] = np.ascontiguousarray(a, dtype=element.dtype).reshape(-1).view(element.unsigned)
    return bits
