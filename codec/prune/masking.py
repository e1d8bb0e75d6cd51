"""Which weights are kept: bool arrays of the tensors' shapes, False at exactly as many structures as were asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from codec.arraylike import as_array
from codec.dtypes import element_type
from codec.elements import Pieces
from codec.errors import ArgumentError
from codec.prune.scoring import magnitude_scores, nans
from codec.prune.structures import Structures, fixes_sparsity, structures_of
from codec.prune.thresholds import (
    Lowest,
    Scored,
    check_share,
    count_nans,
    keys_of,
    lowest_pieces,
    mask_of_lowest,
    naming,
    ranked,
)

# Names for readers: help() shows what a name stands for, and the parameters of ndarray would fill its lines.
Mask = np.ndarray  # of bool
Array = np.ndarray

_PIECE = 1 << 17  # weights whose groups of n:m are sorted at a time


def mask(
    a: Any,
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
    tensors: Mapping[str, Any],
    sparsity: float | None = None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    allow_empty: bool = False,
    cap: float | None = None,
) -> dict[str, Mask]:
    """The weights of several tensors that stay, under one threshold for all.

    Parameters
    ----------
    tensors : mapping of str to array_like
        Weights of any shapes and any dtypes that codec encodes. A mapping may make them when they are asked for: one at
        a time, several times each.
    sparsity : float
        Share of the structures to remove, 0 to 1: exactly ``round(sparsity * structures)`` of all those of the tensors,
        halves to even, or fewer where ``cap`` leaves fewer. Not for n:m, which removes ``m - n`` of every m by itself,
        and of a last, shorter group what is more than n.
    structure : str
        See `structures_of`.
    criterion : {"l1", "l2", "random"}
        See `scores`.
    seed : int
        For "random", from 0 on.
    allow_empty : bool
        Whether a tensor may lose all its structures. If not, each keeps the one that would go last, whatever the
        threshold, and where rounding would take that too, one less goes.
    cap : float, optional
        The share of its structures that one tensor may lose, from ``sparsity`` to 1. By default 0.95, or half-way from
        ``sparsity`` to 1 where that is more; with ``allow_empty`` 1. Others lose more in its place.

    Returns
    -------
    dict of str to ndarray of bool
        True where the weight stays.

    Notes
    -----
    Structures go by rising score; of equal ones the first goes first, in the order of the tensors and row by row in
    each. Structures of zeros of either sign have the lowest score and count as removed. NaN is above infinity and never
    removed by "l1" and "l2", nor is a structure that holds one; "random" does not look at the weights.

    Between tensors, scores of single weights are compared exactly where all are of one dtype, else in float64.

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
    scored = Scored(tensors, structure, criterion, seed)
    counts = scored.removals(sparsity, allow_empty, cap)
    kept = {}
    for name in scored.names:
        found = scored(name)
        with naming(name):
            kept[name] = _kept(found, counts[name], structure, scored.shapes[name])
    return kept


def mask_of(
    a: Any,
    count: int | None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    name: str = "",
) -> Mask:
    """The weights of a tensor that stay when the ``count`` structures with the lowest scores go.

    Parameters
    ----------
    a : array_like
        Weights of any shape and any dtype that codec encodes.
    count : int or None
        As `removals` gives it: None for n:m, and for others not more than there are structures without NaN.
    structure, criterion, seed, name
        See `scores`.

    Examples
    --------
    >>> mask_of(np.array([[1, 1, 5, 0], [2, 2, 0, 0]]), 2, structure="1x2")
    array([[False, False,  True,  True],
           [ True,  True, False, False]])
    """
    weights = as_array(a)
    scored = ranked(weights, structure, criterion, seed, name)
    return _kept(scored, count, structure, weights.shape)


def remove(
    weights: Array,
    count: int | None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    name: str = "",
) -> int:
    """Put +0.0 where `mask_of` is False, in the memory of the weights; how many weights that were.

    Weights are removed a piece at a time, and by magnitude single ones and those of n:m are ranked so too: nothing of
    the size of the tensor is held beside it. Of other structures scores and mask are, 9 bytes for each structure.

    Parameters
    ----------
    weights : ndarray
        Writable and contiguous; the other parameters are those of `mask_of`.
    """
    bits = weights.view(element_type(weights.dtype).unsigned).reshape(-1)
    scored = ranked(weights, structure, criterion, seed, name)
    cut = structures_of(structure, weights.shape)
    matrix, removed = bits.reshape(cut.rows, cut.cols), 0
    if fixes_sparsity(structure):
        for rows, kept in _groups(scored, cut, count):
            matrix[rows] *= kept
            removed += kept.size - int(np.count_nonzero(kept))
    elif structure == "element":
        for start, kept in lowest_pieces(scored, _checked_count(scored, count)):
            bits[start : start + len(kept)] *= kept
            removed += len(kept) - int(np.count_nonzero(kept))
    else:
        blocks = mask_of_lowest(scored, _checked_count(scored, count))
        step = max(1, _PIECE // max(1, cut.cols))
        for top in range(0, cut.down, step):
            gone = cut.across_rows(~blocks[top : top + step])
            removed += _zero_blocks(matrix[top * cut.height : (top + step) * cut.height], gone, cut.height)
    return removed


def removed(weights: Pieces, count: int) -> Pieces:
    """Weights of which the ``count`` lowest by magnitude are +0.0, made when they are asked for.

    The count is one that `removals` gives for single weights. Nothing of the size of the tensor is held.
    """
    if not count:
        return weights
    lowest, element = Lowest.of(weights, count), element_type(weights.dtype)

    def read(first: int, size: int) -> Array:
        found = np.require(weights.read(first, size), requirements="W")
        bits = found.view(element.unsigned)
        for at in range(0, size, _PIECE):
            piece = slice(at, at + _PIECE)
            bits[piece] *= lowest.kept(keys_of(found[piece], weights.dtype), first + at)
        return found

    return Pieces(weights.dtype, weights.shape, read)


def _zero_blocks(rows: Array, gone: Mask, height: int) -> int:
    """Zeros in the columns that ``gone`` has for each ``height`` rows, fewer in the last; how many these are."""
    whole = len(rows) // height
    upper, last = rows[: whole * height], rows[whole * height :]
    np.copyto(upper.reshape(whole, height, rows.shape[1]), 0, where=gone[:whole, None])
    np.copyto(last, 0, where=gone[whole:])
    return height * int(np.count_nonzero(gone[:whole])) + len(last) * int(np.count_nonzero(gone[whole:]))


def _kept(scored: Array, count: int | None, structure: str, shape: tuple[int, ...]) -> Mask:
    """The mask of a tensor from the scores of its structures."""
    cut = structures_of(structure, shape)
    if fixes_sparsity(structure):
        kept: Mask = np.ones(scored.shape, dtype=np.bool_)
        for rows, here in _groups(scored, cut, count):
            kept[rows] = here
        return kept.reshape(shape)
    return cut.spread(mask_of_lowest(scored, _checked_count(scored, count))).reshape(shape)


def _checked_count(scored: Array, count: int | None) -> int:
    free = scored.size - count_nans(scored)
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count <= free:
        raise ArgumentError(f"count is {count!r}; expected 0 to {free}, the structures that hold no NaN")
    return int(count)


def _groups(scored: Array, cut: Structures, count: int | None) -> Iterator[tuple[slice, Mask]]:
    """The ``cut.keep`` highest of every ``cut.width`` scores of a row; of equal ones the first goes first.

    Some rows at a time, whose scores may be changed once they have been given.
    """
    assert cut.keep is not None
    if count is not None:
        raise ArgumentError(f'structure="{cut.keep}:{cut.width}" fixes the sparsity; leave count={count!r} out')
    whole = cut.cols - cut.cols % cut.width
    step = max(1, _PIECE // max(1, cut.cols))
    for start in range(0, cut.rows, step):
        rows = slice(start, start + step)
        keys = magnitude_scores(scored[rows])
        kept: Mask = np.ones(keys.shape, dtype=np.bool_)
        # Rows of so few 8- and 16-bit keys would each be sorted through a table of all values.
        keys = keys.astype(np.uint32) if keys.itemsize < 4 else keys
        for first, stop in ((0, whole), (whole, cut.cols)):
            width = min(cut.width, stop - first)
            if width > cut.keep:
                order = np.argsort(keys[:, first:stop].reshape(-1, width), axis=1, kind="stable")
                groups = np.ones(order.shape, dtype=np.bool_)
                np.put_along_axis(groups, order[:, : width - cut.keep], False, axis=1)
                kept[:, first:stop] = groups.reshape(-1, stop - first)
        if (lost := nans(scored[rows]) & ~kept).any():
            row, col = (int(i) for i in np.argwhere(lost)[0])
            raise ArgumentError(
                f"row {start + row}, column {col}: more than {cut.keep} of {cut.width} weights are NaN, which is never "
                "removed: leave the tensor out"
            )
        yield rows, kept


def magnitude(a: Any, sparsity: float | None = None, *, zero_count: int | None = None) -> Array:
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


def magnitude_mask(a: Any, sparsity: float | None = None, *, zero_count: int | None = None) -> Mask:
    """The weights that `magnitude` keeps: a bool array of `a`'s shape, True where the weight stays.

    >>> magnitude_mask(np.array([3, -1, 1, 0], dtype=np.int8), 0.5)
    array([ True, False,  True, False])
    """
    weights = as_array(a)
    count = _count(weights.size, sparsity, zero_count)
    lasting = count_nans(weights)
    if count > weights.size - lasting:
        raise ArgumentError(
            f"cannot remove {count} of {weights.size} weights: {lasting} are NaN, which is never removed"
        )
    return mask_of_lowest(ranked(weights, "element", "l1", 0, ""), count).reshape(weights.shape)


def mask_lowest(scores: Array, count: int) -> Mask:
    """A mask of `scores`' shape that is False at exactly `count` of the lowest scores and True elsewhere.

    Of equal scores the first in row-major order are the first to go. The scores hold no NaN.
    """
    return _above(scores, *_threshold(scores.reshape(-1), count))


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


def _above(scores: Array, last: Any, ties: int) -> Mask:
    """True above the threshold; of scores equal to it the first `ties` are False and the others True."""
    if last is None:
        return np.ones(scores.shape, dtype=np.bool_)
    kept: Mask = scores > last
    at = np.flatnonzero(scores == last)
    kept.reshape(-1)[at[ties:]] = True
    return kept


def apply_mask(a: Any, mask: Any) -> Array:
    """A copy of `a` in which every weight that `mask` does not keep is +0.0; kept weights keep every bit."""
    weights, kept = as_array(a), as_array(mask)
    if kept.dtype != np.bool_ or kept.shape != weights.shape:
        raise ArgumentError(f"the mask is {kept.dtype} of shape {kept.shape}; expected bool of shape {weights.shape}")
    pruned = np.zeros_like(weights, order="C", subok=False)
    np.copyto(pruned, weights, where=kept)
    return pruned


def _count(size: int, sparsity: float | None, zero_count: int | None) -> int:
    """How many of `size` weights go, from whichever of the two was given."""
    if (sparsity is None) == (zero_count is None):
        raise ArgumentError("give either sparsity or zero_count")
    if zero_count is None:
        return round(check_share(sparsity) * size)
    if isinstance(zero_count, bool) or not isinstance(zero_count, int | np.integer) or not 0 <= zero_count <= size:
        raise ArgumentError(f"zero_count is {zero_count!r}; expected 0 to {size}, the number of weights")
    return int(zero_count)
