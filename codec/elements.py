"""Any array as the elements that are coded: contiguous little-endian bytes of a dtype of the format, checked once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from codec.arraylike import as_array
from codec.errors import ArgumentError
from codec.kernels import octets
from codec.matrix import TensorSpec


@dataclass(frozen=True)
class Elements:
    """A tensor to encode: its bytes in row-major order (uint8), and which elements are kept whatever they are.

    ``keep`` is one byte per element, 1 where ``mask=`` asked for it to be stored, or None for the zero rule alone.
    """

    spec: TensorSpec
    data: np.ndarray
    keep: np.ndarray | None = None

    @property
    def bits(self) -> np.ndarray:
        """The elements as unsigned numbers, flat."""
        return self.data.view(self.spec.element.unsigned)

    def stored(self) -> np.ndarray:
        """Which elements are stored (bool, flat)."""
        if self.keep is not None:
            return self.keep.view(np.bool_)
        return np.asarray((self.bits & self.spec.element.unsigned.type(self.spec.nonzero_bits)) != 0)


# Activations that are packed at run time share their shapes, and what follows from these is worked out once.
_known_spec = lru_cache(maxsize=256)(TensorSpec.of)
# Elements that are made at a time: temporary arrays of them stay small, and there are enough for all threads.
TOGETHER = 1 << 20


@dataclass(frozen=True)
class Pieces:
    """A tensor whose elements are made when they are asked for, some at a time, and that nobody holds.

    ``read(first, count)`` gives the elements from the row-major index ``first`` on, flat, in ``dtype``, one of the
    format's. The same elements are the same whenever they are asked for.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(first, min(TOGETHER, self.size - first)) for first in range(0, self.size, TOGETHER))


def elements_of(a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None) -> Elements:
    """Check an array and its options and bring it into the form that is coded.

    Raises ArgumentError for a dtype, rank, rule, mask or row_dims that cannot be coded as asked.
    """
    array = as_array(a)
    plain = isinstance(zero, str) and (row_dims is None or type(row_dims) is int)
    spec = (_known_spec if plain else TensorSpec.of)(array.dtype, array.shape, row_dims=row_dims, zero=zero)
    dense = np.ascontiguousarray(array, dtype=spec.element.dtype)
    found = Elements(spec, octets(dense))
    return found if mask is None else Elements(spec, found.data, _keep(mask, found))


def _keep(mask: Any, elements: Elements) -> np.ndarray:
    try:
        kept, spec = as_array(mask), elements.spec
    except ArgumentError as error:
        raise ArgumentError(f"mask: {error}") from error
    if kept.dtype != np.bool_ or kept.shape != spec.shape:
        raise ArgumentError(f"mask is {kept.dtype} of shape {kept.shape}; expected bool of shape {spec.shape}")
    kept = np.ascontiguousarray(kept).reshape(-1)
    lost = elements.stored() & ~kept
    if lost.any():
        raise ArgumentError(
            f"mask drops {int(lost.sum())} elements that are not zero under zero={spec.zero!r}, the first at flat "
            f"index {int(lost.argmax())}: set them to zero first, or keep them"
        )
    return kept.view(np.uint8)
