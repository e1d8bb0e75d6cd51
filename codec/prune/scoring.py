"""How much each structure matters: one number for each, where what matters least has the lowest."""

from typing import Any

import numpy as np
import numpy.typing as npt

from codec.arraylike import as_array
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.prune.structures import Structures, structures_of

Array = np.ndarray

CRITERIA = ("l1", "l2", "random")
# Weights that are in float64 at a time: the temporary arrays stay in cache, whatever the tensor's size.
_PIECE = 1 << 17


def scores(a: Any, *, structure: str = "element", criterion: str = "l1", seed: int = 0, name: str = "") -> Array:
    """One score for each structure of a tensor.

    Parameters
    ----------
    a : array_like
        Weights of any shape and any dtype that codec encodes.
    structure : str
        See `structures_of`; of n:m the scores are those of the weights.
    criterion : {"l1", "l2", "random"}
        The mean of ``|w|`` over the structure, the root of the mean of ``w ** 2``, or a number that does not depend on
        the weights. Li et al. 2017 rank filters by the sum of ``|w|``, Han et al. 2015 weights by ``|w|``; over
        structures of one size the means rank as the sums do, and they can be compared where sizes differ: at clipped
        edges, and between tensors.
    seed : int
        For "random": the same seed, name and number of structures give the same scores on every machine.
    name : str
        For "random": tensors of other names get other scores.

    Returns
    -------
    ndarray, (down, across)
        Of elements the exact ``|w|``, in the weights' dtype (integers: unsigned, where that of the most negative one
        fits as well). Of larger structures float64: sums that it cannot hold are infinite, and a NaN makes a NaN. Of
        "random" uint64.

    Examples
    --------
    >>> scores(np.array([[1, -3], [2, 2]], np.int8), structure="row")
    array([[2.],
           [2.]])
    """
    weights = as_array(a)
    element = element_type(weights.dtype)
    cut = structures_of(structure, weights.shape)
    single = cut.keep is not None or cut.height == cut.width == 1
    check_criterion(criterion, seed)
    if criterion == "random":
        down, across = (cut.rows, cut.cols) if single else (cut.down, cut.across)
        generator = np.random.PCG64(np.random.SeedSequence([seed, *name.encode("utf-8", "surrogatepass")]))
        return generator.random_raw(down * across).reshape(down, across)
    matrix = weights.astype(element.dtype, order="C", copy=False).reshape(cut.rows, cut.cols)
    if single:
        return np.abs(matrix) if element.is_float else magnitude_scores(matrix)
    return _norms(matrix, cut, criterion == "l2")


def check_criterion(criterion: Any, seed: Any) -> None:
    """ArgumentError unless the criterion is one, and the seed a natural number."""
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise ArgumentError(f"criterion={criterion!r}; expected one of {', '.join(CRITERIA)}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ArgumentError(f"seed={seed!r}; expected an int from 0 on")


def magnitude_scores(a: Any) -> Array:
    """``|w|`` as unsigned integers of the weights' width: exact for every dtype, and in the same order.

    The bits of a float without its sign, read as an integer, rise with its magnitude, with infinity after every finite
    number and NaN after infinity; all NaNs get the highest score. An integer's magnitude is taken in the unsigned
    type, where that of the most negative one fits as well.
    """
    weights = as_array(a)
    element = element_type(weights.dtype)
    weights = np.ascontiguousarray(weights, dtype=element.dtype)  # little endian
    bits = weights.view(element.unsigned)
    if element.is_float:
        found = bits & element.unsigned.type(element.nonzero_bits("value"))
        found[nans(weights)] = np.iinfo(element.unsigned).max
    elif element.dtype.kind == "i":
        found = np.where(weights < 0, ~bits + element.unsigned.type(1), bits)
    else:
        found = bits
    shaped: Array = found.reshape(np.shape(a))
    return shaped


def nans(a: Array) -> npt.NDArray[np.bool_]:
    """Where an array is NaN."""
    if not element_type(a.dtype).is_float:
        return np.zeros(a.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):  # ml_dtypes converts to float32 first, where NaNs that signal are told of
        found: npt.NDArray[np.bool_] = np.isnan(a)
    return found


def _norms(matrix: Array, cut: Structures, squares: bool) -> Array:
    """Means, or roots of the means of squares, over the blocks; a few rows are in float64 at a time."""
    sums = np.zeros((cut.down, cut.across))
    most = max(1, _PIECE // max(1, cut.cols))
    step = most // cut.height * cut.height or most  # whole blocks, so that equal ones are summed alike
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, cut.rows, step):
            values = _magnitudes(matrix[start : start + step])
            if squares:
                values *= values
            if cut.width > 1:
                values = np.add.reduceat(values, np.arange(0, cut.cols, cut.width), axis=1)
            first, last = start // cut.height, (min(start + step, cut.rows) - 1) // cut.height
            if cut.height > 1:
                starts = np.maximum(np.arange(first, last + 1) * cut.height - start, 0)
                values = np.add.reduceat(values, starts, axis=0)
            sums[first : last + 1] += values
        sums /= cut.sizes()
    return np.sqrt(sums) if squares else sums


def _magnitudes(a: Array) -> Array:
    """``|w|`` in float64, in an array of its own."""
    found = a if element_type(a.dtype).is_float else magnitude_scores(a)
    wide = found.astype(np.float64)
    return np.abs(wide, out=wide)
