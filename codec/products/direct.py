"""The short way of products: floats that kernels take as they lie in memory, with no conversion, cut or new check.

A call of a small layer costs as little as its kernel, so what such a call may rely on is worked out once for each frame
and dtype, by the first product that goes the whole way (`codec.products.matrices.multiply`).
"""

from typing import Any, NamedTuple

import numpy as np

from codec import kernels
from codec.kernels import View
from codec.products.operands import Factor, Kind


class Direct(NamedTuple):
    """What products of a frame, or its transpose, with x of one dtype are: the shape of W, and columns of x at most."""

    view: View
    transposed: bool
    segments: int
    rows: int
    cols: int
    most: int
    kind: Kind
    weights: Any


def remember(w: Factor, kind: Kind, most: int) -> None:
    """Note that W @ x goes this way for x of the dtype of ``kind``, up to ``most`` columns."""
    spans = w.packed.spans
    view, head = spans.whole, spans.head
    if view is not None and kind.acc.is_float and head.grid.size:  # of an empty matrix, no kernel writes the result
        spans.products[kind.result, w.transposed] = Direct(
            view, w.transposed, head.grid.segments, *w.shape, most, kind, head.element
        )


def direct(
    w: Any, x: Any, threads: int | None, *, rows_of_x: bool = False, turned: bool = False, bias: Any = None
) -> np.ndarray | None:
    """W @ x (+ bias), or x @ W.T with ``rows_of_x``, as a new array; None where another way has to be taken.

    W is w, a packed matrix or the view ``.T`` of one; its transpose if ``turned``. None also for whatever is wrong: the
    other way says what.
    """
    if type(x) is not np.ndarray:
        return None
    packed = w if hasattr(w, "spans") else getattr(w, "T", None)
    try:
        spans = packed.spans  # type: ignore[union-attr]
        known: Direct = spans.products[x.dtype, (packed is not w) != turned]
    except (AttributeError, KeyError):
        return None
    shape = x.shape
    if len(shape) > 2 or not shape or not x.flags.aligned:
        return None
    across = rows_of_x and len(shape) == 2
    if shape[-1 if across else 0] != known.cols or (
        len(shape) == 2 and not 0 < shape[0 if across else 1] <= known.most
    ):
        return None
    if bias is not None and not (
        type(bias) is np.ndarray and bias.dtype == x.dtype and bias.shape == (known.rows,) and bias.flags.c_contiguous
    ):
        return None
    count = kernels.thread_count(threads)
    if across:
        y = np.empty((shape[0], known.rows), x.dtype)
        x, sums = x.T, y.T
    else:
        y = sums = np.empty((known.rows, *shape[1:]), x.dtype)
    try:
        prepared = kernels.backend.operand(x, known.weights, known.kind.acc)
    except ValueError:  # strides that are not whole items
        return None
    result = known.view.multiply(0, known.segments, prepared, sums, known.transposed, 0, count, None, bias)
    spans.raise_for(result)
    return y
