"""Any array as the matrix that is coded: its element type, shape, zero rule and bytes, checked once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.dtypes import ElementType, element_type
from codec.errors import ArgumentError
from codec.geometry import MAX_NDIM, Grid, check_row_dims, matrix_shape
from codec.kernels import octets


@dataclass(frozen=True)
class Source:
    """A tensor to encode: contiguous little-endian bytes in row-major order, and the rule for its zeros.

    ``keep`` is one byte per element, 1 where ``mask=`` asked for it to be stored, or None for the zero rule alone.
    """

    element: ElementType
    shape: tuple[int, ...]
    row_dims: int
    grid: Grid
    zero: str
    dense: np.ndarray
    keep: np.ndarray | None

    @property
    def nonzero_bits(self) -> int:
        """Bits that make an element non-zero."""
        return self.element.nonzero_bits(self.zero)

    @property
    def negative(self) -> int:
        """The pattern whose dropped occurrences are counted: -0.0 under zero="value", else none."""
        return self.element.sign_bit if self.zero == "value" else 0


def check_zero(zero: Any) -> str:
    """``zero`` if it names a zero rule; ArgumentError otherwise."""
    if zero not in ("value", "bits") or not isinstance(zero, str):
        raise ArgumentError(f'zero={zero!r}; expected "value" (-0.0 is a zero too) or "bits" (only +0.0 is)')
    return zero


def as_array(a: Any) -> np.ndarray:
    """Anything array-like, also a torch tensor, as an ndarray of a dtype that the format has; bytes are not changed."""
    if type(a) is np.ndarray:
        array = a
    else:
        if type(a).__module__.partition(".")[0] == "torch":
            a = from_torch_strided(a)
        if isinstance(a, np.ma.MaskedArray):
            raise ArgumentError(
                "a masked array: what its mask hides has no value; give a.filled(0) to make zeros of it"
            )
        try:
            array = np.asarray(a)
        except ValueError as error:
            raise ArgumentError(f"not an array: {error}") from None
    element_type(array.dtype)
    if array.ndim > MAX_NDIM:
        raise ArgumentError(f"{array.ndim} dimensions; expected at most {MAX_NDIM}: reshape the array")
    return array


def from_torch_strided(tensor: Any) -> np.ndarray:
    """A strided torch tensor's elements as an ndarray, sharing memory where torch allows it."""
    tensor = tensor.detach()
    if str(tensor.layout) != "torch.strided":
        raise ArgumentError(f"a torch tensor of layout {tensor.layout}; use PackedTensor.from_torch for sparse ones")
    name = str(tensor.dtype).removeprefix("torch.")
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):  # NumPy cannot take these across; their bits it can
        import torch

        bits = tensor.cpu().contiguous().view(torch.uint16 if name == "bfloat16" else torch.uint8).numpy()
        array: np.ndarray = bits.view(element_type(name).dtype)
    else:
        array = tensor.cpu().numpy()
    return array


def source_of(a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None) -> Source:
    """Check an array and its options and bring it into the form that is coded.

    Raises ArgumentError for a dtype, rank, rule, mask or row_dims that cannot be coded as asked.
    """
    array = as_array(a)
    element = element_type(array.dtype)
    shape = array.shape
    dims = check_row_dims(shape, row_dims)
    rows, cols = matrix_shape(shape, dims)
    dense = np.ascontiguousarray(array, dtype=element.dtype)
    bits = octets(dense)
    rule = check_zero(zero)
    keep = None if mask is None else _keep(mask, dense, element, rule)
    return Source(element, shape, dims, Grid.default(rows, cols, element.width), rule, bits, keep)


def _keep(mask: Any, dense: np.ndarray, element: ElementType, zero: str) -> np.ndarray:
    kept = np.asarray(mask)
    if kept.dtype != np.bool_ or kept.shape != dense.shape:
        raise ArgumentError(f"mask is {kept.dtype} of shape {kept.shape}; expected bool of shape {dense.shape}")
    kept = np.ascontiguousarray(kept)
    lost = (dense.reshape(-1).view(element.unsigned) & element.unsigned.type(element.nonzero_bits(zero))) != 0
    lost &= ~kept.reshape(-1)
    if lost.any():
        raise ArgumentError(
            f"mask drops {int(lost.sum())} elements that are not zero under zero={zero!r}, the first at flat index "
            f"{int(lost.argmax())}: set them to zero first, or keep them"
        )
    return kept.reshape(-1).view(np.uint8)
