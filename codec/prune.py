"""Which weights go: scores say how much each weight matters, masks say which are kept.

Pruning has two steps, so that a new criterion is a new score and a new pattern is a new rule for the mask:

    scores = magnitude_scores(a)             # one number per weight; what matters least has the lowest
    mask = mask_lowest(scores, count)        # False at the `count` lowest
    pruned = apply_mask(a, mask)             # a copy with +0.0 where the mask is False

>>> import numpy as np
>>> magnitude(np.array([0.5, -0.1, 0.3, -2.0]), 0.5)
array([ 0.5,  0. ,  0. , -2. ])
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from codec.dtypes import element_type
from codec.errors import ArgumentError

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


def magnitude(a: npt.ArrayLike, sparsity: float | None = None, *, zero_count: int | None = None) -> Array:
    """A copy of `a` without its smallest weights.

    Parameters
    ----------
    a : array_like
        Weights of any shape and any dtype that codec encodes.
    sparsity : float
        Share of the weights to remove, 0 to 1: exactly ``round(sparsity * a.size)`` of them, halves to even.
    zero_count : int, keyword only
        The number of weights to remove, instead of `sparsity`.

    Notes
    -----
    Weights are removed by rising ``|w|``; of equal ones the first in row-major order goes first. Zeros of either sign
    are the smallest and count as removed, so a tensor that has enough of them keeps every other weight. Removed
    weights become +0.0. NaN is above everything and never removed.

    Raises
    ------
    ArgumentError
        If more weights are to be removed than are not NaN, or the arguments are out of range.
    """
    return apply_mask(a, magnitude_mask(a, sparsity, zero_count=zero_count))


def magnitude_mask(a: npt.ArrayLike, sparsity: float | None = None, *, zero_count: int | None = None) -> Mask:
    """The weights that `magnitude` keeps: a bool array of `a`'s shape, True where the weight stays.

    >>> magnitude_mask(np.array([3, -1, 1, 0], dtype=np.int8), 0.5)
    array([ True, False,  True, False])
    """
    scores = magnitude_scores(a)
    count = _count(scores.size, sparsity, zero_count)
    nans = np.count_nonzero(np.isnan(a)) if element_type(np.asarray(a).dtype).is_float else 0
    if count > scores.size - nans:
        raise ArgumentError(f"cannot remove {count} of {scores.size} weights: {nans} are NaN, which is never removed")
    return mask_lowest(scores, count)


def magnitude_scores(a: npt.ArrayLike) -> Array:
    """``|w|`` as unsigned integers of the weights' width: exact for every dtype, and in the same order.

    The bits of a float without its sign, read as an integer, rise with its magnitude, with infinity after every finite
    number and NaN after infinity; all NaNs get the highest score. An integer's magnitude is taken in the unsigned
    type, where that of the most negative one fits as well.
    """
    weights = np.asarray(a)
    element = element_type(weights.dtype)
    weights = np.ascontiguousarray(weights, dtype=element.dtype)  # little endian
    bits = weights.view(element.unsigned)
    if element.is_float:
        scores = bits & element.unsigned.type(element.nonzero_bits("value"))
        scores[np.isnan(weights)] = np.iinfo(element.unsigned).max
    elif element.dtype.kind == "i":
        scores = np.where(weights < 0, ~bits + element.unsigned.type(1), bits)
    else:
        scores = bits
    shaped: Array = scores.reshape(np.shape(a))
    return shaped


def mask_lowest(scores: Array, count: int) -> Mask:
    """A mask of `scores`' shape that is False at exactly `count` of the lowest scores and True elsewhere.

    Of equal scores the first in row-major order are the first to go. The scores hold no NaN.
    """
    flat = scores.reshape(-1)
    if count == 0:
        return np.ones(scores.shape, dtype=np.bool_)
    # The ones that share the lowest score are set aside: np.partition takes 15 times as long on mostly zero weights.
    last = flat.min()
    rest = flat[flat > last]
    if (lowest := flat.size - rest.size) < count:
        last = np.partition(rest, count - lowest - 1)[count - lowest - 1]  # the highest score that goes
    mask: Mask = flat > last
    equal = np.flatnonzero(flat == last)
    below = flat.size - np.count_nonzero(mask) - equal.size
    mask[equal[count - below :]] = True
    shaped: Mask = mask.reshape(scores.shape)
    return shaped


def apply_mask(a: npt.ArrayLike, mask: npt.ArrayLike) -> Array:
    """A copy of `a` in which every weight that `mask` does not keep is +0.0; kept weights keep every bit."""
    weights, kept = np.asarray(a), np.asarray(mask)
    if kept.dtype != np.bool_ or kept.shape != weights.shape:
        raise ArgumentError(f"the mask is {kept.dtype} of shape {kept.shape}; expected bool of shape {weights.shape}")
    pruned = np.zeros_like(weights, order="C", subok=False)
    np.copyto(pruned, weights, where=kept)
    return pruned


def _count(size: int, sparsity: float | None, zero_count: int | None) -> int:
    """How many of `size` weights go, from whichever of the two was given."""
    if (sparsity is None) == (zero_count is None):
        raise ArgumentError("give either sparsity or zero_count")
    if zero_count is not None:
        if not 0 <= zero_count <= size:
            raise ArgumentError(f"zero_count is {zero_count}; expected 0 to {size}, the number of weights")
        return int(zero_count)
    if not 0 <= float(sparsity or 0) <= 1:
        raise ArgumentError(f"sparsity is {sparsity}; expected a share from 0 to 1")
    return round(float(sparsity or 0) * size)
