"""Products straight from the packed bytes: matvec, matmul, linear, and the two directions of ``@``."""

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from codec import kernels
from codec.dtypes import BY_NAME, ElementType, element_type
from codec.errors import ArgumentError
from codec.geometry import default_row_dims
from codec.source import as_array
from codec.spans import Packed, check_out

# Sums and packed x of one tile of the batch stay within this: a panel is decoded again for each tile.
TILE_BYTES = 8 << 20
_EXACT_IN_F32 = ("I8", "U8", "BOOL", "I16", "U16")


@dataclass(frozen=True)
class _Kind:
    """How one product is computed: the accumulator's type, the result's dtype, and for integers the overflow bound."""

    acc: ElementType
    result: np.dtype
    limit: int


@cache
def _float_kind(weights: str, source: str) -> _Kind:
    element, dtype, wide = BY_NAME[weights], BY_NAME[source].dtype, "F64" in (weights, source)
    if not element.is_float and (element.width == 8 or not (wide or weights in _EXACT_IN_F32)):
        raise ArgumentError(
            f"{element.dtype} weights with {dtype} x would round: give x as integers" + ("" if wide else " or float64")
        )
    return _Kind(BY_NAME["F64" if wide else "F32"], dtype, 0)


def _kind(weights: ElementType, x: np.ndarray, inner: int) -> _Kind:
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
        return _Kind(BY_NAME["I32"], BY_NAME["I32"].dtype, (1 << 63) - 1)
    return _Kind(BY_NAME["I64"], BY_NAME["I64"].dtype, ((1 << 63) - 1) // (largest * max(1, inner)))


def multiply(
    w: Packed,
    x: np.ndarray,
    *,
    transposed: bool = False,
    out: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """W @ x, or W.T @ x, for a matrix w and x of shape (n, batch); (m, batch), into ``out`` if given (any strides).

    ``scale`` and ``bias`` (m, 1) apply to the sums before they are rounded to the result's dtype. The batch is cut into
    tiles, so that beyond x and the result no more than TILE_BYTES and a few panels are used.
    """
    head = w.spans.head
    n, m = (head.grid.rows, head.grid.cols) if transposed else (head.grid.cols, head.grid.rows)
    batch = x.shape[1]
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    kind = _kind(head.element, x, n)
    for name, term in (("scale", scale), ("bias", bias)):
        if term is not None and not kind.acc.is_float and element_type(term.dtype).is_float:
            raise ArgumentError(
                f"a float {name} with an integer product: give x as float32 to have the result in float32"
            )
    if out is not None:
        check_out(out, (m, batch), kind.result)
    count = kernels.thread_count(threads)
    tile = TILE_BYTES // (kind.acc.width * max(1, n + m))
    tile = max(1, batch) if batch <= tile else max(2, tile - tile % 16)
    # Sums that are the result itself, or that anything is done to first.
    plain = scale is None and bias is None and kind.result == kind.acc.dtype
    if out is None and plain and batch <= tile:
        return _sums(w, x, kind, transposed, count)
    if out is None:
        out = np.empty((m, batch), kind.result)
    for left in range(0, batch, tile):
        columns = x[:, left : left + tile]
        width = columns.shape[1]
        if width == 1 < batch:  # computed beside another, so that it is added up like the others
            columns = x[:, left - 1 : left + 1]
        sums = _sums(w, columns, kind, transposed, count)[:, -width:]
        if plain:
            out[:, left : left + width] = sums
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # what a narrow float cannot hold becomes an infinity
                if scale is not None:
                    sums *= scale.astype(kind.acc.dtype)
                if bias is not None:
                    sums += bias.astype(kind.acc.dtype)
                out[:, left : left + width] = sums
        del sums  # before the next tile's are made
    return out


def _sums(w: Packed, x: np.ndarray, kind: _Kind, transposed: bool, threads: int) -> np.ndarray:
    """The product in the accumulator's dtype, a new array."""
    spans, head, acc = w.spans, w.spans.head, kind.acc
    operand = kernels.operand(np.ascontiguousarray(x, acc.dtype), head.element, acc)
    sums = np.zeros((head.grid.cols if transposed else head.grid.rows, x.shape[1]), acc.dtype)
    for view, first, last in spans.views(0, head.grid.segments, threads):
        spans.raise_for(view.multiply(first, last, operand, sums, transposed, kind.limit, head.nonzero_bits, threads))
    return sums


def check_matrix(w: Packed) -> None:
    """Products take matrices in their default view; ArgumentError with the way there otherwise."""
    shape, row_dims = w.spans.head.shape, w.spans.head.row_dims
    if len(shape) > 2 and default_row_dims(shape) == 1:
        raise ArgumentError(f"w has {len(shape)} dimensions, {shape}; expected 2: reshape the array before encoding it")
    if row_dims != default_row_dims(shape):
        raise ArgumentError(
            f"row_dims={row_dims} of shape {shape}: products need the default, row_dims={default_row_dims(shape)}; "
            "encode(p.to_dense()) again without row_dims, then to_layout(...) as you like"
        )


def _operand(x: Any, expected: int, what: str, w: Packed, ndims: tuple[int, ...]) -> np.ndarray:
    array = as_array(x)
    if array.ndim not in ndims:
        raise ArgumentError(f"{what} has {array.ndim} dimensions; expected {' or '.join(map(str, ndims))}")
    axis = 0 if what == "x" else -1
    if array.shape[axis] != expected:
        raise ArgumentError(
            f"shapes do not match: {what} is {array.shape}, w is {w.spans.head.shape}; "
            f"expected {expected} along axis {axis} of {what}"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _matrix_of(w: Any) -> Packed:
    if not hasattr(w, "spans"):
        raise ArgumentError(f"w is a {type(w).__name__}; expected a PackedTensor (codec.encode makes one)")
    check_matrix(w)
    return w  # type: ignore[no-any-return]


def matvec(w: Packed, x: Any, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
    """w @ x for a vector.

    Parameters
    ----------
    w : PackedTensor
        (rows, cols) in the default matrix view.
    x : array-like, (cols,)
        Floats with float or small integer weights, or integers with integer weights.
    out : ndarray, (rows,), optional
        Where to put the result; of the result's dtype.
    threads : int, optional

    Returns
    -------
    ndarray, (rows,)
        In x's dtype for float x; int32 for int8 by int8; int64 for other integers. Floats are added in float32, in
        float64 if either is float64. A zero weight contributes nothing, also against an infinity or NaN in x.

    Raises
    ------
    ArgumentError
        For shapes or dtypes that do not go together, and where an integer sum could overflow.
    FormatError, ChecksumError
        If w's bytes are damaged.

    Examples
    --------
    >>> matvec(encode(np.eye(3, dtype=np.float32)), np.arange(3, dtype=np.float32))
    array([0., 1., 2.], dtype=float32)
    """
    w = _matrix_of(w)
    return _vector(w, _operand(x, w.spans.head.grid.cols, "x", w, (1,)), out, threads)


def _vector(w: Packed, x: np.ndarray, out: np.ndarray | None, threads: int | None) -> np.ndarray:
    result = multiply(w, x[:, None], out=None if out is None else _rank(out, 1)[:, None], threads=threads)
    return result[:, 0] if out is None else out


def matmul(w: Packed, x: Any, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
    """w @ x for a vector or a matrix.

    Parameters
    ----------
    w : PackedTensor
        (rows, cols) in the default matrix view.
    x : array-like, (cols,) or (cols, batch)
    out : ndarray, (rows,) or (rows, batch), optional
        Where to put the result; of the result's dtype, any strides.
    threads : int, optional

    Returns
    -------
    ndarray, (rows,) or (rows, batch)
        In the dtype that `matvec` gives.

    Raises
    ------
    ArgumentError, FormatError, ChecksumError
        As `matvec`.
    """
    w = _matrix_of(w)
    x = _operand(x, w.spans.head.grid.cols, "x", w, (1, 2))
    return _vector(w, x, out, threads) if x.ndim == 1 else multiply(w, x, out=out, threads=threads)


def rmatmul(x: Any, w: Packed, *, threads: int | None = None) -> np.ndarray:
    """x @ w for x of shape (..., rows); returns (..., cols)."""
    w = _matrix_of(w)
    x = _operand(x, w.spans.head.grid.rows, "the left operand", w, tuple(range(1, 33)))
    if x.ndim == 1:
        return multiply(w, x[:, None], transposed=True, threads=threads)[:, 0]
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    out = np.empty((len(flat), w.spans.head.grid.cols), _kind(w.spans.head.element, flat, x.shape[-1]).result)
    multiply(w, flat.T, transposed=True, out=out.T, threads=threads)
    return out.reshape(*x.shape[:-1], w.spans.head.grid.cols)


def linear(
    x: Any, w: Packed, bias: Any = None, *, scale: Any = None, out: np.ndarray | None = None, threads: int | None = None
) -> np.ndarray:
    """x @ w.T * scale + bias, as torch.nn.functional.linear.

    Parameters
    ----------
    x : array-like, (..., cols)
    w : PackedTensor, (rows, cols)
    bias : array-like, (rows,), optional
    scale : float or array-like, (rows,), optional
        Multiplies each row's sum before the bias: the step of int8 weights.
    out : ndarray, (..., rows), optional
        Where to put the result; of the result's dtype, any strides.
    threads : int, optional

    Returns
    -------
    ndarray, (..., rows)
        In the dtype that `matvec` gives.

    Raises
    ------
    ArgumentError
        As `matvec`; and for a bias or scale of another shape, or a float one with an integer product.
    """
    w = _matrix_of(w)
    x = _operand(x, w.spans.head.grid.cols, "the left operand", w, tuple(range(1, 33)))
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    shape = (*x.shape[:-1], w.spans.head.grid.rows)
    dtype = _kind(w.spans.head.element, flat, x.shape[-1]).result
    result = np.empty(shape, dtype) if out is None else check_out(out, shape, dtype)
    flat_shape = (len(flat), shape[-1])
    flat_out = result.reshape(flat_shape) if result.flags.c_contiguous else np.empty(flat_shape, dtype)
    multiply(
        w,
        flat.T,
        out=flat_out.T,
        scale=_term("scale", scale, shape[-1]),
        bias=_term("bias", bias, shape[-1]),
        threads=threads,
    )
    if not np.shares_memory(flat_out, result):
        result[...] = flat_out.reshape(shape)
    return result


def _term(name: str, term: Any, rows: int) -> np.ndarray | None:
    if term is None:
        return None
    array = as_array(term)
    if array.shape != (rows,) and not (name == "scale" and array.ndim == 0):
        raise ArgumentError(f"{name} is {array.shape}; expected ({rows},)")
    return array.reshape(-1, 1)


def _rank(out: Any, ndim: int) -> np.ndarray:
    if not isinstance(out, np.ndarray) or out.ndim != ndim:
        raise ArgumentError(
            f"out is {getattr(out, 'shape', type(out).__name__)}; expected an array of {ndim} dimension"
        )
    return out
