"""Products of packed matrices with dense vectors and matrices: matvec, matmul, linear, and products from the left."""

from math import prod
from typing import Any

import numpy as np

from codec import kernels
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.frame import Packed, check_out
from codec.products.direct import direct, remember
from codec.products.operands import Kind, apart, in_items, kind_of, matrix_of, operand, row_term

# What kernels prepare of x, and what is converted beside it, stays within this for one tile of the batch: a panel is
# decoded again for each tile. Tiles are multiples of the widest strip of the kernels.
TILE_BYTES = 8 << 20
_FEW = 4  # columns that kernels of their own multiply (kFewColumns of native/product/dense_few.inc)


def multiply(
    w: Packed,
    x: np.ndarray,
    *,
    transposed: bool = False,
    out: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    threads: int | None = None,
    kind: Kind | None = None,
) -> np.ndarray:
    """W @ x, or W.T @ x, for a packed matrix W: what all products call, once shapes are checked.

    Parameters
    ----------
    w : PackedTensor
        (m, n), or (n, m) if ``transposed``.
    x : ndarray, (n, batch)
        Any strides: kernels put it in their own order, without a copy in between.
    out : ndarray, (m, batch), optional
        Where to put the result; any strides. It may overlap x, scale and bias, and even the memory of w.
    scale, bias : ndarray, (m,) or (1,), optional
        They apply to the sums before these are rounded to the result's dtype.
    threads : int, optional
    kind : Kind, optional
        What `kind_of` gives for w and x, where the caller knows it already.

    Notes
    -----
    The batch is cut into tiles, so that beyond x and the result no more than TILE_BYTES and a few panels are used.
    """
    head = w.spans.head
    n, m = (head.grid.rows, head.grid.cols) if transposed else (head.grid.cols, head.grid.rows)
    batch = x.shape[1]
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    kind = kind or kind_of(head.element, x, n)
    acc = kind.acc.dtype
    terms = [None if term is None else _term(name, term, kind, m) for name, term in (("scale", scale), ("bias", bias))]
    if out is None:
        out = np.empty((m, batch), kind.result)
    else:
        check_out(out, (m, batch), kind.result)
        if w.spans.overlaps(out):
            w.spans.put(multiply(w, x, transposed=transposed, scale=scale, bias=bias, threads=threads, kind=kind), out)
            return out
        # The first rows and tiles of the result are written before the others are read.
        x = apart(x, out)
        terms = [None if term is None else apart(term, out) for term in terms]
    count = kernels.thread_count(threads)
    ready, plain = x.dtype == acc and in_items(x), kind.result == acc and in_items(out)
    tile = batch_tile(kind.acc.width * (n + (0 if ready else n) + (0 if plain else m)), batch)
    if batch <= tile and ready and plain:
        _run(w, x, out, kind, transposed, count, terms)
        remember(w, kind, tile, transposed)
        return out
    for left in range(0, batch, tile):
        width = min(tile, batch - left)
        if width <= _FEW < batch:  # so few alone may be added up in another order than with others beside them
            left, width = left + width - _FEW - 1, _FEW + 1
        part = slice(left, left + width)
        columns = x[:, part] if ready else np.array(x[:, part], acc)
        if plain:
            _run(w, columns, out[:, part], kind, transposed, count, terms)
        else:
            sums = np.empty((m, width), acc)
            _run(w, columns, sums, kind, transposed, count, terms)
            with np.errstate(over="ignore", invalid="ignore"):  # what a narrow float cannot hold becomes an infinity
                out[:, part] = sums
            del sums, columns  # before the next tile's are made
    return out


def multiply_pixels(
    w: Packed,
    pixels: np.ndarray,
    window: tuple[int, ...],
    out: np.ndarray,
    kind: Kind,
    *,
    bias: np.ndarray | None = None,
    threads: int | None = None,
) -> None:
    """W @ the pixels under a filter at every place of the output, which are put into the kernels' own order alone.

    Parameters
    ----------
    w : PackedTensor, (filters, channels * kernel height * kernel width)
    pixels : ndarray, (images, channels, height, width)
        With their padding.
    window : tuple of int
        The two sizes of the kernel, its strides and its dilations.
    out : ndarray, (filters, images * output height * output width)
        Any strides; it overlaps nothing.
    kind : Kind
        What `kind_of` gives for w and the pixels.
    bias : ndarray, (filters,), optional
    threads : int, optional
    """
    count, acc = kernels.thread_count(threads), kind.acc.dtype
    pixels = pixels if pixels.dtype == acc and in_items(pixels) else pixels.astype(acc)
    terms = [None, None if bias is None else _term("bias", bias, kind, len(out))]
    if kind.result == acc and in_items(out):
        _run(w, pixels, out, kind, False, count, terms, window)
        return
    sums = np.empty(out.shape, acc)
    _run(w, pixels, sums, kind, False, count, terms, window)
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = sums


def _run(
    w: Packed,
    x: np.ndarray,
    out: np.ndarray,
    kind: Kind,
    transposed: bool,
    threads: int,
    terms: list[np.ndarray | None],
    window: tuple[int, ...] | None = None,
) -> None:
    """The product of x (of the pixels under a filter) and its result in the accumulator's dtype."""
    spans, grid = w.spans, w.spans.head.grid
    if not grid.size:  # without a segment, no kernel writes anything
        out[...] = 0 if terms[1] is None else terms[1][:, None]
        return
    prepared = kernels.backend.operand(x, spans.head.element, kind.acc, window)
    for view, first, last in spans.views(0, grid.segments, threads):
        spans.raise_for(view.multiply(first, last, prepared, out, transposed, kind.limit, threads, *terms))


def _term(name: str, term: np.ndarray, kind: Kind, rows: int) -> np.ndarray:
    """A scale or bias in the accumulator's dtype, an item for each row."""
    if not kind.acc.is_float and element_type(term.dtype).is_float:
        raise ArgumentError(f"a float {name} with an integer product: give x as float32 to have the result in float32")
    return np.ascontiguousarray(np.broadcast_to(term.reshape(-1), (rows,)), kind.acc.dtype)


def batch_tile(nbytes: int, batch: int) -> int:
    """Columns that are multiplied at a time, of ``nbytes`` each.

    >>> batch_tile(4 * 4096, 128), batch_tile(4 * 65536, 128)
    (128, 32)
    """
    tile = TILE_BYTES // max(1, nbytes)
    return max(1, batch) if batch <= tile else max(_FEW + 1, tile - tile % 32)


def matvec(w: Packed, x: Any, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
    """w @ x for a vector.

    Parameters
    ----------
    w : PackedTensor
        (rows, cols) in the default matrix view.
    x : array-like, (cols,)
        An array or a dense torch tensor. Floats with float or small integer weights, or integers with integer weights.
    out : ndarray, (rows,), optional
        Where to put the result; of the result's dtype, any strides. It may overlap x.
    threads : int, optional
        At most this many threads; the result does not depend on it.

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
    if out is None and getattr(x, "ndim", 0) == 1 and (found := direct(w, x, threads)) is not None:
        return found
    w = matrix_of(w)
    return _vector(w, operand(x, w.spans.head.grid.cols, "x", w, (1,)), out, threads)


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
        As for `matvec`; each column is multiplied by itself.
    out : ndarray, (rows,) or (rows, batch), optional
        Where to put the result; of the result's dtype, any strides. It may overlap x.
    threads : int, optional
        At most this many threads; the result does not depend on it.

    Returns
    -------
    ndarray, (rows,) or (rows, batch)
        In the dtype that `matvec` gives.

    Raises
    ------
    ArgumentError, FormatError, ChecksumError
        As `matvec`.

    Examples
    --------
    >>> matmul(encode(np.array([[1, 0, 2]], np.int8)), np.array([[1, 2], [3, 4], [5, 6]]))
    array([[11, 14]])
    """
    if out is None and (found := direct(w, x, threads)) is not None:
        return found
    w = matrix_of(w)
    x = operand(x, w.spans.head.grid.cols, "x", w, (1, 2))
    return _vector(w, x, out, threads) if x.ndim == 1 else multiply(w, x, out=out, threads=threads)


def rmatmul(x: Any, w: Packed, *, threads: int | None = None) -> np.ndarray:
    """x @ w.

    Parameters
    ----------
    x : array-like, (..., rows)
    w : PackedTensor, (rows, cols)
    threads : int, optional

    Returns
    -------
    ndarray, (..., cols)
        In the dtype that `matvec` gives.

    Raises
    ------
    ArgumentError, FormatError, ChecksumError
        As `matvec`.
    """
    w = matrix_of(w)
    x = operand(x, w.spans.head.grid.rows, "the left operand", w, tuple(range(1, 33)))
    if x.ndim == 1:
        return multiply(w, x[:, None], transposed=True, threads=threads)[:, 0]
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    kind = kind_of(w.spans.head.element, flat, x.shape[-1])
    out = np.empty((len(flat), w.spans.head.grid.cols), kind.result)
    multiply(w, flat.T, transposed=True, out=out.T, threads=threads, kind=kind)
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
        Where to put the result; of the result's dtype, any strides. It may overlap x, bias and scale.
    threads : int, optional
        At most this many threads; the result does not depend on it.

    Returns
    -------
    ndarray, (..., rows)
        In the dtype that `matvec` gives.

    Raises
    ------
    ArgumentError
        As `matvec`; and for a bias or scale of another shape, or a float one with an integer product.
    FormatError, ChecksumError
        If w's bytes are damaged.

    Examples
    --------
    >>> linear(np.ones((2, 3), np.float32), encode(np.eye(3, dtype=np.float32)), np.arange(3))
    array([[1., 2., 3.],
           [1., 2., 3.]], dtype=float32)
    """
    if out is None and scale is None and (found := direct(w, x, threads, rows_of_x=True, bias=bias)) is not None:
        return found
    w = matrix_of(w)
    x = operand(x, w.spans.head.grid.cols, "the left operand", w, tuple(range(1, 33)))
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    shape = (*x.shape[:-1], w.spans.head.grid.rows)
    kind = kind_of(w.spans.head.element, flat, x.shape[-1])
    result = np.empty(shape, kind.result) if out is None else check_out(out, shape, kind.result)
    whole = result.flags.c_contiguous  # so that its leading dimensions can be taken as one
    rows = result.reshape(len(flat), shape[-1]) if whole else np.empty((len(flat), shape[-1]), kind.result)
    multiply(
        w,
        flat.T,
        out=rows.T,
        scale=row_term("scale", scale, shape[-1]),
        bias=row_term("bias", bias, shape[-1]),
        threads=threads,
        kind=kind,
    )
    if not whole:
        w.spans.put(rows.reshape(shape), result)
    return result


def _rank(out: Any, ndim: int) -> np.ndarray:
    if not isinstance(out, np.ndarray) or out.ndim != ndim:
        raise ArgumentError(
            f"out is {getattr(out, 'shape', type(out).__name__)}; expected an array of {ndim} dimension"
        )
    return out
