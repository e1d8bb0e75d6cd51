"""Which weights are kept: bool arrays of the tensors' shapes, False at exactly as many structures as were asked for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.prune.scoring import check_criterion, magnitude_scores, scores
from codec.prune.structures import Structures, check_structure, fixes_sparsity, structures_of

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

_PIECE = 1 << 20  # weights whose groups of n:m are sorted at a time


def mask(
    a: npt.ArrayLike,
    sparsity: float | None = None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    allow_empty: bool = False,
) -> Mask:
    """The weights of one tensor that stay: a bool array of its shape.

    Exactly `masks` for a single tensor, which see. Scores of another kind (movement, activations, gradients) can be
    given in the place of the weights: they are ranked by magnitude.

    Examples
    --------
    >>> mask(np.array([[1, 1, 5, 0], [2, 2, 0, 0]]), 0.5, structure="1x2")
    array([[False, False,  True,  True],
           [ True,  True, False, False]])
    """
    options: dict[str, Any] = {"structure": structure, "criterion": criterion, "seed": seed, "allow_empty": allow_empty}
    return masks({"": a}, sparsity, **options)[""]


def masks(
    tensors: Mapping[str, npt.ArrayLike],
    sparsity: float | None = None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    allow_empty: bool = False,
) -> dict[str, Mask]:
    """The weights of several tensors that stay, under one threshold for all.

    Parameters
    ----------
    tensors : mapping of str to array_like
        Weights of any shapes and any dtypes that codec encodes. Asked for one at a time; only scores are held.
    sparsity : float
        Share of the structures to remove, 0 to 1: exactly ``round(sparsity * structures)`` of all those of the tensors,
        halves to even. Not for n:m, which removes ``m - n`` of every m by itself, and of a last, shorter group what is
        more than n.
    structure : str
        See `structures_of`.
    criterion : {"l1", "l2", "random"}
        See `scores`.
    seed : int
        For "random", from 0 on.
    allow_empty : bool
        Whether a tensor may lose all its structures. If not, each keeps the one that would go last, whatever the
        threshold, and where rounding would take that too, one less goes.

    Returns
    -------
    dict of str to ndarray of bool
        True where the weight stays.

    Notes
    -----
    Structures go by rising score; of equal ones the first goes first, in the order of the tensors and row by row in
    each. Structures of zeros of either sign have the lowest score and count as removed. NaN is above infinity and never
    removed by "l1" and "l2", nor is a structure that holds one; "random" does not look at the weights.

    Scores of single weights are compared exactly where all tensors are of one dtype, else in float64.

    Raises
    ------
    ArgumentError
        If more structures are to be removed than hold no NaN, or the arguments are out of range.

    Examples
    --------
    >>> found = masks({"a": np.array([5, 1, 6]), "b": np.array([2, 1, 1])}, 0.5)
    >>> found["a"], found["b"]
    (array([ True, False,  True]), array([ True, False, False]))
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        raise ArgumentError(f"tensors is a {type(tensors).__name__}; expected a mapping of names to arrays")
    check_structure(structure)
    check_criterion(criterion, seed)
    if fixes_sparsity(structure):
        if sparsity is not None:
            raise ArgumentError(f'structure="{structure}" fixes the sparsity; leave sparsity={sparsity!r} out')
    elif _share(sparsity) == 1 and not allow_empty:
        raise ArgumentError("sparsity=1 leaves nothing; allow_empty=True says that it may")
    cuts, shapes, found, kept = {}, {}, {}, {}
    for name in tensors:
        with _naming(name):
            weights = np.asarray(tensors[name])
            scored = scores(weights, structure=structure, criterion=criterion, seed=seed, name=name)
            cuts[name], shapes[name] = structures_of(structure, weights.shape), weights.shape
            if fixes_sparsity(structure):
                kept[name] = _mask_groups(scored, cuts[name])
            else:
                found[name] = scored
    if not fixes_sparsity(structure):
        kept = _mask_together(found, _share(sparsity), allow_empty)
        kept = {name: cuts[name].spread(few) for name, few in kept.items()}
    return {name: whole.reshape(shapes[name]) for name, whole in kept.items()}


def _mask_together(found: dict[str, Array], share: float, allow_empty: bool) -> dict[str, Mask]:
    """Masks of the scores' shapes under one threshold; empties `found`, as keys take the place of the scores."""
    exact = len({scored.dtype for scored in found.values()}) == 1
    keys, free, nans = {}, {}, 0
    for name in list(found):
        scored = found.pop(name)
        with np.errstate(invalid="ignore"):  # NaNs that signal
            key = keys[name] = magnitude_scores(scored if exact else scored.astype(np.float64))
        free[name] = ~_nans(scored)
        nans += key.size - int(np.count_nonzero(free[name]))
        if key.size and not allow_empty:
            free[name].reshape(-1)[key.size - 1 - int(key.reshape(-1)[::-1].argmax())] = False
    total = sum(key.size for key in keys.values())
    most = total if allow_empty else total - sum(key.size > 0 for key in keys.values())
    count = min(round(share * total), most)
    pool = np.concatenate([key[free[name]] for name, key in keys.items()]) if keys else np.zeros(0, np.uint8)
    if count > pool.size:
        raise ArgumentError(f"cannot remove {count} of {total} structures: {nans} hold NaN, which is never removed")
    last, ties = _threshold(pool, count)
    kept = {}
    for name, key in keys.items():
        kept[name], ties = _above(key, last, ties, free[name])
    return kept


def _mask_groups(scored: Array, cut: Structures) -> Mask:
    """The ``cut.keep`` highest of every ``cut.width`` scores of a row; of equal ones the first goes first."""
    assert cut.keep is not None
    # Rows of so few 8- and 16-bit keys would each be sorted through a table of all values.
    keys = magnitude_scores(scored)
    keys = keys.astype(np.uint32) if keys.itemsize < 4 else keys
    kept: Mask = np.ones(keys.shape, dtype=np.bool_)
    whole = cut.cols - cut.cols % cut.width
    step = max(1, _PIECE // max(1, cut.cols))
    for start in range(0, cut.rows, step):
        for first, stop in ((0, whole), (whole, cut.cols)):
            width = min(cut.width, stop - first)
            if width > cut.keep:
                rows = slice(start, start + step)
                order = np.argsort(keys[rows, first:stop].reshape(-1, width), axis=1, kind="stable")
                groups = np.ones(order.shape, dtype=np.bool_)
                np.put_along_axis(groups, order[:, : width - cut.keep], False, axis=1)
                kept[rows, first:stop] = groups.reshape(-1, stop - first)
    if (lost := _nans(scored) & ~kept).any():
        row, col = (int(i) for i in np.argwhere(lost)[0])
        raise ArgumentError(
            f"row {row}, column {col}: more than {cut.keep} of {cut.width} weights are NaN, which is never removed"
        )
    return kept


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
    nans = np.count_nonzero(_nans(np.asarray(a)))
    if count > scores.size - nans:
        raise ArgumentError(f"cannot remove {count} of {scores.size} weights: {nans} are NaN, which is never removed")
    return mask_lowest(scores, count)


def mask_lowest(scores: Array, count: int) -> Mask:
    """A mask of `scores`' shape that is False at exactly `count` of the lowest scores and True elsewhere.

    Of equal scores the first in row-major order are the first to go. The scores hold no NaN.
    """
    kept, _ = _above(scores, *_threshold(scores.reshape(-1), count))
    return kept


def _threshold(pool: Array, count: int) -> tuple[Any, int]:
    """The highest of the `count` lowest scores, and how many of just that score go; None and 0 where none does."""
    if count == 0:
        return None, 0
    # The ones that share the lowest score are set aside: np.partition takes 15 times as long on mostly zero weights.
    last = pool.min()
    rest = pool[pool > last]
    if (lowest := pool.size - rest.size) < count:
        rest.partition(count - lowest - 1)
        last = rest[count - lowest - 1]
    return last, count - int(np.count_nonzero(pool < last))


def _above(scores: Array, last: Any, ties: int, free: Mask | None = None) -> tuple[Mask, int]:
    """True above the threshold and where a score is not free to go; of scores equal to it the first `ties` go.

    Returns the mask, and how many ties are left to go elsewhere.
    """
    if last is None:
        return np.ones(scores.shape, dtype=np.bool_), 0
    kept: Mask = scores > last
    equal = scores == last
    if free is not None:
        kept |= ~free
        equal &= free
    at = np.flatnonzero(equal)
    kept.reshape(-1)[at[ties:]] = True
    return kept, max(0, ties - at.size)


def apply_mask(a: npt.ArrayLike, mask: npt.ArrayLike) -> Array:
    """A copy of `a` in which every weight that `mask` does not keep is +0.0; kept weights keep every bit."""
    weights, kept = np.asarray(a), np.asarray(mask)
    if kept.dtype != np.bool_ or kept.shape != weights.shape:
        raise ArgumentError(f"the mask is {kept.dtype} of shape {kept.shape}; expected bool of shape {weights.shape}")
    pruned = np.zeros_like(weights, order="C", subok=False)
    np.copyto(pruned, weights, where=kept)
    return pruned


def _nans(scored: Array) -> Mask:
    """Where scores are NaN."""
    nans: Mask = np.isnan(scored) if element_type(scored.dtype).is_float else np.zeros(scored.shape, dtype=np.bool_)
    return nans


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors met inside name the tensor, where it has a name."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(f"tensor {name!r}: {error}" if name else str(error)) from error


def _share(sparsity: Any) -> float:
    """`sparsity` as a number; ArgumentError where it is none from 0 to 1."""
    try:
        share = float(sparsity)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 1:
        raise ArgumentError(f"sparsity is {sparsity}; expected a share from 0 to 1")
    return share


def _count(size: int, sparsity: float | None, zero_count: int | None) -> int:
    """How many of `size` weights go, from whichever of the two was given."""
    if (sparsity is None) == (zero_count is None):
        raise ArgumentError("give either sparsity or zero_count")
    if zero_count is None:
        return round(_share(sparsity) * size)
    if isinstance(zero_count, bool) or not isinstance(zero_count, int | np.integer) or not 0 <= zero_count <= size:
        raise ArgumentError(f"zero_count is {zero_count!r}; expected 0 to {size}, the number of weights")
    return int(zero_count)
