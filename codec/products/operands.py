"""What products take: which dtypes go together, in what they are added up, and the checks of shapes and memory."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from codec import kernels
from codec.arraylike import as_array
from codec.dtypes import BY_NAME, ElementType, element_type
from codec.errors import ArgumentError
from codec.frame import Packed
from codec.matrix import default_row_dims, dimensions

_EXACT_IN_F32 = ("I8", "U8", "BOOL", "I16", "U16")


@dataclass(frozen=True)
class Kind:
    """How one product is computed.

    ``acc`` is the type that sums are kept in, ``result`` the dtype of the result, and ``limit`` the largest weight that
    cannot overflow an integer sum (0 for floats, whose sums do not overflow). With ``native`` kernels read x and write
    the result in that dtype, which is x's; otherwise they are converted from and to that of the sums.
    """

    acc: ElementType
    result: np.dtype
    limit: int
    native: bool = False


def kind_of(weights: ElementType, x: np.ndarray, inner: int) -> Kind:
    """The kind of a product of weights with x, where ``inner`` of them are added up.

    Raises ArgumentError for dtypes that do not go together, and where the sum of x alone says that it could overflow.
    """
    source = element_type(x.dtype)
    if source.is_float:
        return _float_kind(weights.name, source.name)
    if weights.is_float:
        raise ArgumentError(f"{weights.dtype} weights with integer x ({x.dtype}): convert x to a float dtype first")
    largest = max(abs(int(x.max())), abs(int(x.min())), 1) if x.size else 1
    if largest >= 1 << 63:
        raise ArgumentError(f"x holds {largest}, which does not fit the int64 accumulator")
    if weights.name == "I8" and source.name == "I8":
        if 128 * largest * max(1, inner) >= 1 << 31:
            raise ArgumentError(
                f"int8 x int8 over {inner} columns could overflow int32: split the columns, or give x as int16"
            )
        return Kind(BY_NAME["I32"], BY_NAME["I32"].dtype, (1 << 63) - 1)
    return Kind(BY_NAME["I64"], BY_NAME["I64"].dtype, ((1 << 63) - 1) // (largest * max(1, inner)))


@cache
def _float_kind(weights: str, source: str) -> Kind:
    element, dtype, wide = BY_NAME[weights], BY_NAME[source].dtype, "F64" in (weights, source)
    if not element.is_float and (element.width == 8 or not (wide or weights in _EXACT_IN_F32)):
        raise ArgumentError(
            f"{element.dtype} weights with {dtype} x would round: give x as integers" + ("" if wide else " or float64")
        )
    acc = BY_NAME["F64" if wide else "F32"]
    return Kind(acc, dtype, 0, kernels.widens(BY_NAME[source], acc))


class Transposed(Protocol):
    """The view ``.T`` of a packed matrix."""

    @property
    def T(self) -> Packed:
        """The packed matrix."""


Weights = Packed | Transposed


class Factor(NamedTuple):
    """The packed side of a product: a packed matrix, or its transpose."""

    packed: Packed
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        grid = self.packed.spans.head.grid
        return (grid.cols, grid.rows) if self.transposed else (grid.rows, grid.cols)

    @property
    def T(self) -> "Factor":
        """The other way round."""
        return Factor(self.packed, not self.transposed)


def factor_of(w: Any) -> Factor:
    """``w`` if it is a packed matrix in its default view, or the view ``.T`` of one.

    ArgumentError with the way there otherwise.
    """
    transposed = not hasattr(w, "spans") and hasattr(getattr(w, "T", None), "spans")
    packed = w.T if transposed else w
    if not hasattr(packed, "spans"):
        raise ArgumentError(f"w is a {type(w).__name__}; expected a PackedTensor (codec.encode makes one)")
    head = packed.spans.head
    shape, default = head.shape, default_row_dims(head.shape)
    if len(shape) > 2 and default == 1:
        raise ArgumentError(
            f"w has {dimensions(len(shape))}, {shape}; expected 2: w.reshape({head.grid.rows}, {head.grid.cols}) is "
            "the matrix that it is packed as"
        )
    if head.spec.row_dims != default:
        raise ArgumentError(
            f"row_dims={head.spec.row_dims} of shape {shape}: products need the default, row_dims={default}; "
            "encode(p.to_dense()) again without row_dims, then to_layout(...) as you like"
        )
    return Factor(packed, transposed)


def operand(x: Any, expected: int, what: str, shape: tuple[int, ...], ndims: tuple[int, ...]) -> np.ndarray:
    """x as an array in this machine's byte order; ArgumentError where its shape does not go with ``shape``, w's."""
    array = as_array(x)
    if array.ndim not in ndims:
        raise ArgumentError(f"{what} has {dimensions(array.ndim)}; expected {' or '.join(map(str, ndims))}")
    axis = 0 if what == "x" else -1
    if array.shape[axis] != expected:
        raise ArgumentError(
            f"shapes do not match: {what} is {array.shape}, w is {shape}; expected {expected} along axis {axis} of "
            f"{what}"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def row_term(name: str, term: Any, rows: int) -> np.ndarray | None:
    """A scale or bias with an item for each row, or with one that holds for all; None where there is none."""
    if term is None:
        return None
    array = as_array(term)
    if array.shape != (rows,) and not (name == "scale" and array.ndim == 0):
        raise ArgumentError(f"{name} is {array.shape}; expected ({rows},)")
    return array.reshape(-1)


def in_items(array: np.ndarray) -> bool:
    """Whether kernels can walk over the items of an array where they stand: aligned, and whole items apart."""
    flags = array.flags
    return flags.aligned and (flags.c_contiguous or not any(step % array.itemsize for step in array.strides))


def apart(array: np.ndarray, out: np.ndarray) -> np.ndarray:
    """``array``, or a copy of it where writing to ``out`` could change it.

    Bounds of memory decide: an exact answer can take exponential time, and a copy too many only costs its bytes.
    """
    return array.copy() if np.may_share_memory(array, out) else array
