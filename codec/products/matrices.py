"""Products of packed matrices with dense vectors and matrices: matvec, matmul, linear, and products from the left."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from codec import kernels
from codec.arraylike import as_array
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.frame import Packed, check_out
from codec.matrix import MAX_NDIM
from codec.products.direct import direct, remember
from codec.products.operands import Factor, Kind, Weights, apart, factor_of, in_items, kind_of, operand, row_term

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
    ready = (kind.native or x.dtype == acc) and in_items(x)
    # Sums that several views add up in turn are rounded once, when they are whole.
    plain = (kind.result == acc or (kind.native and w.spans.whole is not None)) and in_items(out)
    tile = batch_tile(kind.acc.width * (n + (0 if ready else n) + (0 if plain else m)), batch)
    if batch <= tile and ready and plain:
        _run(w, x, out, kind, transposed, count, terms)
        remember(Factor(w, transposed), kind, tile)
        return out
    for part in _tiles(batch, tile):
        columns = x[:, part] if ready else np.array(x[:, part], acc)
        if plain:
            _run(w, columns, out[:, part], kind, transposed, count, terms)
        else:
            sums = np.empty((m, part.stop - part.start), acc)
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
    window : tuple of int
        The two sizes of the kernel, its strides, its dilations, and the padding before and behind an image.
    out : ndarray, (filters, images, output height * output width)
        Any strides; it overlaps nothing.
    kind : Kind
        What `kind_of` gives for w and the pixels.
    bias : ndarray, (filters,), optional
    threads : int, optional

    Notes
    -----
    Images and results of dtypes that kernels do not take are converted some at a time, about TILE_BYTES of them.
    """
    count, acc = kernels.thread_count(threads), kind.acc.dtype
    terms = [None, None if bias is None else _term("bias", bias, kind, len(out))]
    ready = (kind.native or pixels.dtype == acc) and pixels.dtype.isnative and in_items(pixels)
    plain = (kind.result == acc or (kind.native and w.spans.whole is not None)) and in_items(out)
    if not pixels.size:  # no images, or nothing of them but padding
        fill(out, terms[1])
        return
    each = (0 if ready else pixels[0].size) + (0 if plain else out[:, 0].size)
    step = max(1, TILE_BYTES // (each * acc.itemsize)) if each else len(pixels)
    for first in range(0, len(pixels), step):
        some = slice(first, first + step)
        x = pixels[some] if ready else pixels[some].astype(acc)
        if plain:
            _run(w, x, out[:, some], kind, False, count, terms, window)
            continue
        sums = np.empty(out[:, some].shape, acc)
        _run(w, x, sums, kind, False, count, terms, window)
        with np.errstate(over="ignore", invalid="ignore"):
            out[:, some] = sums


def fill(out: np.ndarray, bias: np.ndarray | None) -> None:
    """What a product without an element comes to: in each row of ``out`` its bias, or zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        out.T[...] = 0 if bias is None else bias


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
    """The product of x (of the pixels under a filter), where x and ``out`` are such as kernels take."""
    spans, grid = w.spans, w.spans.head.grid
    if not grid.size:  # without a segment, no kernel writes anything
        fill(out, terms[1])
        return
    prepared, y = kernels.backend.operand(x, spans.head.element, kind.acc, window), kernels.bits_of(out)
    for view, first, last in spans.views(0, grid.segments, threads):
        spans.raise_for(view.multiply(first, last, prepared, y, transposed, kind.limit, threads, *terms))


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


def _tiles(batch: int, tile: int) -> Iterator[slice]:
    """Columns [0, batch) cut into tiles; the last may overlap the one before.

    So few columns alone may be added up in another order than those with others beside them.
    """
    for left in range(0, batch, tile):
        stop = min(left + tile, batch)
        yield slice(max(0, stop - _FEW - 1) if stop - left <= _FEW else left, stop)


def matvec(w: Weights, x: Any, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
    """w @ x for a vector.

    Parameters
    ----------
    w : PackedTensor, or its view ``.T``
        (rows, cols) in the default matrix view. Of a matrix that was packed transposed in layout csr, bitmap or dense,
        rows of up to 16,384 elements that meet a zero of x are not read (EIE, Han et al. 2016, section III), and the
        result is the same to the last bit. csr is so faster than the layout for speed where three quarters of x or
        more are zeros, as behind some ReLUs (benchmarks/eie.py).
    x : array-like, (cols,)
        An array, a dense torch tensor or a packed one. Floats with float or small integer weights, or integers with
        integer weights.
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
    >>> matvec(encode(np.array([[1, 0], [0, 2], [3, 0]], np.float32), layout="csr").T, np.array([1, 0, 2], np.float32))
    array([7., 0.], dtype=float32)
    """
    if out is None and getattr(x, "ndim", 0) == 1 and (found := direct(w, x, threads)) is not None:
        return found
    factor = factor_of(w)
    return _vector(factor, operand(x, factor.shape[1], "x", factor.shape, (1,)), out, threads)


def _vector(w: Factor, x: np.ndarray, out: np.ndarray | None, threads: int | None) -> np.ndarray:
    column = None if out is None else _rank(out, 1)[:, None]
    result = multiply(w.packed, x[:, None], transposed=w.transposed, out=column, threads=threads)
    return result[:, 0] if out is None else out


def matmul(w: Weights, x: Any, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
    """w @ x for a vector or a matrix.

    Parameters
    ----------
    w : PackedTensor, or its view ``.T``
        (rows, cols) in the default matrix view.
    x : array-like, (cols,) or (cols, batch)
        As for `matvec`; each column is multiplied by itself. Of a batch, rows of x are passed over that are all zeros.
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
    factor = factor_of(w)
    x = operand(x, factor.shape[1], "x", factor.shape, (1, 2))
    if x.ndim == 1:
        return _vector(factor, x, out, threads)
    return multiply(factor.packed, x, transposed=factor.transposed, out=out, threads=threads)


def rmatmul(x: Any, w: Weights, *, threads: int | None = None) -> np.ndarray:
    """x @ w.

    Parameters
    ----------
    x : array-like, (..., rows)
    w : PackedTensor, (rows, cols), or its view ``.T``
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
    if (found := direct(w, x, threads, rows_of_x=True, turned=True)) is not None:
        return found
    factor = factor_of(w)
    x = operand(x, factor.shape[0], "the left operand", factor.shape, _ANY_RANK)
    return _linear(x, factor.T, None, None, None, threads)


def linear(
    x: Any,
    w: Weights,
    bias: Any = None,
    *,
    scale: Any = None,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """x @ w.T * scale + bias, as torch.nn.functional.linear.

    Parameters
    ----------
    x : array-like, (..., cols)
        As for `matvec`. A packed x of two dimensions is decoded a tile of rows at a time.
    w : PackedTensor, (rows, cols), or its view ``.T``
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
    factor = factor_of(w)
    if hasattr(x, "spans") and x.ndim == 2 and x.dense_nbytes > TILE_BYTES:
        return _linear_of_packed(x, factor, bias, scale, out, threads)
    x = operand(x, factor.shape[1], "the left operand", factor.shape, _ANY_RANK)
    return _linear(x, factor, bias, scale, out, threads)


_ANY_RANK = tuple(range(1, MAX_NDIM + 1))


def _linear(x: np.ndarray, w: Factor, bias: Any, scale: Any, out: np.ndarray | None, threads: int | None) -> np.ndarray:
    flat = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    shape = (*x.shape[:-1], w.shape[0])
    kind = kind_of(w.packed.spans.head.element, flat, x.shape[-1])
    result = np.empty(shape, kind.result) if out is None else check_out(out, shape, kind.result)
    whole = result.flags.c_contiguous  # so that its leading dimensions can be taken as one
    rows = result.reshape(len(flat), shape[-1]) if whole else np.empty((len(flat), shape[-1]), kind.result)
    multiply(
        w.packed,
        flat.T,
        transposed=w.transposed,
        out=rows.T,
        scale=row_term("scale", scale, shape[-1]),
        bias=row_term("bias", bias, shape[-1]),
        threads=threads,
        kind=kind,
    )
    if not whole:
        w.packed.spans.put(rows.reshape(shape), result)
    return result


def _linear_of_packed(
    x: Any, w: Factor, bias: Any, scale: Any, out: np.ndarray | None, threads: int | None
) -> np.ndarray:
    """`linear` of a packed matrix of activations, of which only a tile of rows is dense at a time."""
    operand(np.empty((0, x.shape[1]), x.dtype), w.shape[1], "the left operand", w.shape, _ANY_RANK)
    shape = (x.shape[0], w.shape[0])
    kind = kind_of(w.packed.spans.head.element, np.empty((0, x.shape[1]), x.dtype), x.shape[1])
    result = np.empty(shape, kind.result) if out is None else check_out(out, shape, kind.result)
    if x.spans.overlaps(result):
        return _linear(x.to_dense(threads=threads), w, bias, scale, result, threads)
    bias, scale = (None if one is None else apart(as_array(one), result) for one in (bias, scale))
    for part in _tiles(shape[0], batch_tile(x.dtype.itemsize * x.shape[1], shape[0])):
        _linear(x[part], w, bias, scale, result[part], threads)
    return result


def _rank(out: Any, ndim: int) -> np.ndarray:
    if not isinstance(out, np.ndarray) or out.ndim != ndim:
        raise ArgumentError(
            f"out is {getattr(out, 'shape', type(out).__name__)}; expected an array of {ndim} dimension"
        )
    return out
