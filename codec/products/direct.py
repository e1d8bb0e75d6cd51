"""The short way of products: floats that kernels take as they lie in memory, with no conversion, cut or new check.

A call of a small layer costs as little as its kernel, so what such a call may rely on is worked out once for each frame
and dtype, by the first product that goes the whole way (`codec.products.matrices.multiply`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from codec import kernels
from codec.dtypes import element_type
from codec.kernels import Result
from codec.products.operands import Factor, Kind


class Direct(NamedTuple):
    """What products of a frame, or of its transpose, with x of one dtype are.

    (outputs, inputs) is the shape of the matrix that multiplies x, ``most`` the columns of x at most, and ``foreign``
    whether the dtype is none of NumPy's own. ``array(x, y, across, bias, threads)`` is the product of arrays, or of the
    bits of foreign ones, as `View.multiply_array` takes them.
    ``at(x, batch, y, bias, wide_bias, threads, team)`` is x @ W.T (+ bias), or x @ W, into y, of arrays by their
    addresses, as `View.multiply_at` takes them. Its caller has proved that x is (batch, inputs), y (batch, outputs) and
    a bias that is not 0 (outputs,), all row-major and of the dtype that this is remembered for, or with ``wide_bias`` a
    bias of the dtype of sums; and that batch is from 1 to ``most``.
    """

    outputs: int
    inputs: int
    most: int
    kind: Kind
    foreign: bool
    array: Callable[[np.ndarray, np.ndarray, bool, np.ndarray | None, int], Result]
    at: Callable[[int, int, int, int, bool, int, int], Result]


def remember(w: Factor, kind: Kind, most: int) -> None:
    """Note that W @ x goes this way for x of the dtype of ``kind``, up to ``most`` columns."""
    spans = w.packed.spans
    view, head = spans.whole, spans.head
    # Of an empty matrix, no kernel writes the result; filters are a matrix to convolutions alone.
    if view is not None and kind.acc.is_float and head.grid.size and len(head.shape) < 4:
        item, value, acc = map(kernels.type_code, (element_type(kind.result), head.element, kind.acc))
        array, at = (partial(one, item, value, acc, w.transposed) for one in (view.multiply_array, view.multiply_at))
        foreign = kind.result.isbuiltin != 1
        spans.products[kind.result, w.transposed] = Direct(*w.shape, most, kind, foreign, array, at)


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
    if len(shape) == 1:
        y = np.empty(known.outputs, x.dtype)
    elif len(shape) == 2 and 0 < shape[0 if rows_of_x else 1] <= known.most:
        y = np.empty((shape[0], known.outputs) if rows_of_x else (known.outputs, shape[1]), x.dtype)
    else:
        return None
    if bias is not None:
        acc = known.kind.acc.dtype
        if type(bias) is not np.ndarray or bias.shape != (known.outputs,) or bias.dtype not in (x.dtype, acc):
            return None
        bias = np.ascontiguousarray(bias, acc)
    own, sums = (kernels.bits_of(x), kernels.bits_of(y)) if known.foreign else (x, y)
    count = kernels.thread_count(threads)
    try:
        result = known.array(own, sums, rows_of_x, bias, count)
    except ValueError:  # another size, or items that kernels cannot take as they lie
        return None
    if result[0]:
        spans.raise_for(result)
    return y
