"""The short way of products: floats that kernels take as they lie in memory, with no conversion, cut or new check.

A call of a small layer costs as little as its kernel, so what such a call may rely on is worked out once for each frame
and dtype, by the first product that goes the whole way (`codec.products.matrices.multiply`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from codec import kernels
from codec.dtypes import ElementType, element_type
from codec.kernels import Result, View
from codec.products.operands import Factor, Kind


class Direct(NamedTuple):
    """What products of a frame, or of its transpose, with x of one dtype are.

    (outputs, inputs) is the shape of the matrix that multiplies x, and ``most`` the columns of x at most.
    ``at(x, batch, y, bias, wide_bias, threads, team)`` is x @ W.T (+ bias), or x @ W, into y, of arrays by their
    addresses, as `View.multiply_at` takes them. Its caller has proved that x is (batch, inputs), y (batch, outputs) and
    a bias that is not 0 (outputs,), all row-major and of the dtype that this is remembered for, or with ``wide_bias`` a
    bias of the dtype of sums; and that batch is from 1 to ``most``.
    """

    view: View
    transposed: bool
    segments: int
    outputs: int
    inputs: int
    most: int
    kind: Kind
    weights: ElementType
    at: Callable[[int, int, int, int, bool, int, int], Result]


def remember(w: Factor, kind: Kind, most: int) -> None:
    """Note that W @ x goes this way for x of the dtype of ``kind``, up to ``most`` columns."""
    spans = w.packed.spans
    view, head = spans.whole, spans.head
    # Of an empty matrix, no kernel writes the result; filters are a matrix to convolutions alone.
    if view is not None and kind.acc.is_float and head.grid.size and len(head.shape) < 4:
        item, value, acc = map(kernels.type_code, (element_type(kind.result), head.element, kind.acc))
        at = partial(view.multiply_at, item, value, acc, w.transposed)
        spans.products[kind.result, w.transposed] = Direct(
            view, w.transposed, head.grid.segments, *w.shape, most, kind, head.element, at
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
    if shape[-1 if across else 0] != known.inputs or (
        len(shape) == 2 and not 0 < shape[0 if across else 1] <= known.most
    ):
        return None
    if bias is not None:
        acc = known.kind.acc.dtype
        if type(bias) is not np.ndarray or bias.shape != (known.outputs,) or bias.dtype not in (x.dtype, acc):
            return None
        bias = np.ascontiguousarray(bias, acc)
    count = kernels.thread_count(threads)
    if across:
        y = np.empty((shape[0], known.outputs), x.dtype)
        x, sums = x.T, y.T
    else:
        y = sums = np.empty((known.outputs, *shape[1:]), x.dtype)
    try:
        prepared = kernels.backend.operand(x, known.weights, known.kind.acc)
    except ValueError:  # strides that are not whole items
        return None
    sums = kernels.bits_of(sums)
    result = known.view.multiply(0, known.segments, prepared, sums, known.transposed, 0, count, None, bias)
    spans.raise_for(result)
    return y
