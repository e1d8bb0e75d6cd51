"""How many structures go from each of several tensors under one threshold for all of them.

Scores are not held. They are made anew for each pass over the tensors, and each pass counts them by the next 16 bits of
their keys, from the highest bits down, so that after two passes over float32 scores the threshold is known exactly.
Memory is that of one tensor and its scores, or a few MB where a tensor comes in `Pieces` and its weights are its
scores. What goes from a tensor are its lowest scores, so that one number for each tensor says which (see
`codec.prune.masking`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from codec.arraylike import as_array
from codec.dtypes import element_type
from codec.elements import Pieces
from codec.errors import ArgumentError
from codec.prune.scoring import check_criterion, magnitude_scores, nans, scores
from codec.prune.structures import check_structure, fixes_sparsity, structures_of

Array = np.ndarray
# Scores, or weights that are ranked by magnitude: all of them, or some at a time.
Ranked = Array | Pieces

# What one tensor may lose under a threshold for all, unless told otherwise.
CAP = 0.95
_DIGIT = 16  # bits of a key that one pass looks at
_PIECE = 1 << 17  # keys at a time: temporary arrays take 3 MB and stay in cache


@dataclass
class _Found:
    """What the first pass finds out about a tensor: structures, those that hold NaN, and how many may go."""

    size: int
    nans: int
    limit: int

    @property
    def free(self) -> int:
        """Structures that may go and hold no NaN, which has the highest key."""
        return min(self.limit, self.size - self.nans)


def removals(
    tensors: Mapping[str, Any],
    sparsity: float | None = None,
    *,
    structure: str = "element",
    criterion: str = "l1",
    seed: int = 0,
    allow_empty: bool = False,
    cap: float | None = None,
) -> dict[str, int | None]:
    """How many structures of each tensor `masks` removes, found without holding scores of more than one tensor.

    With `mask_of`, which makes the mask of one tensor from its number, models are pruned that are larger than memory.
    Parameters are those of `masks`. The number is None for n:m, which removes by groups.

    Examples
    --------
    >>> removals({"a": np.array([5, 1, 6]), "b": np.array([2, 1, 1])}, 0.5)
    {'a': 1, 'b': 2}
    """
    scored = Scored(tensors, structure, criterion, seed)
    return scored.removals(sparsity, allow_empty, cap)


class Scored:
    """Scores of several tensors, each made when it is asked for.

    Scores that are much smaller than the weights are held, and those of a single tensor. ``shapes`` has the shapes of
    the tensors that were asked for.
    """

    def __init__(self, tensors: Mapping[str, Any], structure: str, criterion: str, seed: int) -> None:
        if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
            raise ArgumentError(f"tensors is a {type(tensors).__name__}; expected a mapping of names to arrays")
        check_structure(structure)
        check_criterion(criterion, seed)
        self.structure = structure
        self.names = list(tensors)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._tensors, self._criterion, self._seed = tensors, criterion, seed
        self._held: dict[str, Ranked] = {}

    def __call__(self, name: str) -> Any:
        if name in self._held:
            return self._held[name]
        with naming(name):
            weights = self._tensors[name]
            weights = weights if isinstance(weights, Pieces) else as_array(weights)
            found = ranked(weights, self.structure, self._criterion, self._seed, name)
        self.shapes[name] = weights.shape
        if len(self.names) == 1 or 4 * found.nbytes <= weights.nbytes:
            self._held[name] = found
        return found

    def removals(self, sparsity: float | None, allow_empty: bool, cap: float | None) -> dict[str, int | None]:
        """See the function of that name."""
        if fixes_sparsity(self.structure):
            if sparsity is not None or cap is not None:
                given = f"sparsity={sparsity!r}" if sparsity is not None else f"cap={cap!r}"
                raise ArgumentError(f'structure="{self.structure}" fixes the sparsity; leave {given} out')
            return dict.fromkeys(self.names)
        share = check_share(sparsity)
        if share == 1 and not allow_empty:
            raise ArgumentError("sparsity=1 leaves nothing; allow_empty=True says that it may")
        limit = check_cap(cap, share, allow_empty)
        return dict(_counts(self.names, self, share, cap=limit, allow_empty=allow_empty))


def ranked(weights: Ranked, structure: str, criterion: str, seed: int, name: str) -> Any:
    """What structures are ranked by, (down, across): scores, or of single weights these themselves, by magnitude.

    Single weights in pieces are ranked in pieces; other structures of them are ranked whole.
    """
    if isinstance(weights, Pieces):
        if structure == "element" and criterion != "random":
            check_criterion(criterion, seed)
            return weights
        weights = weights.read(0, weights.size).reshape(weights.shape)
    if criterion != "random" and (structure == "element" or fixes_sparsity(structure)):
        check_criterion(criterion, seed)
        cut = structures_of(structure, weights.shape)
        return np.ascontiguousarray(weights, element_type(weights.dtype).dtype).reshape(cut.rows, cut.cols)
    return scores(weights, structure=structure, criterion=criterion, seed=seed, name=name)


def check_cap(cap: Any, share: float, allow_empty: bool) -> float:
    """The share of its structures that one tensor may lose.

    By default it is CAP, or half-way from the sparsity to 1 where that is more (so that high sparsities leave room for
    differences between tensors), and 1 where a tensor may become empty. ArgumentError for a cap that is no share, or
    under which the sparsity cannot be reached.
    """
    if cap is None:
        return 1.0 if allow_empty else max(CAP, (1 + share) / 2)
    try:
        found = float(cap)
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if not 0 <= found <= 1:
        raise ArgumentError(f"cap is {cap}; expected a share from 0 to 1")
    if found < share:
        raise ArgumentError(f"cap={cap} keeps every tensor below sparsity={share}; expected a cap of at least that")
    return found


def _counts(
    names: list[str], scored: Callable[[str], Ranked], share: float, *, cap: float, allow_empty: bool
) -> dict[str, int]:
    """How many structures go from each tensor.

    Parameters
    ----------
    names : list of str
        In the order in which equal scores of several tensors go.
    scored : callable
        Gives a tensor's scores by its name; called several times for each.
    share : float
        Of all structures, ``round(share * structures)`` go, fewer where caps leave fewer.
    cap : float
        The share of its structures that one tensor may lose; ``round(share * its structures)`` may go in any case.
    allow_empty : bool
        Whether a tensor may lose all; if not, each that has structures keeps one.

    Raises
    ------
    ArgumentError
        If more structures are to be removed than hold no NaN; the message names the tensors with NaN.
    """
    found: dict[str, _Found] = {}
    # The first pass over keys of one dtype comes with it; where there are several, it was made in vain.
    first: dict[np.dtype, Array] = {}
    for name in names:
        each = scored(name)
        most = max(int(cap * each.size), round(share * each.size))
        limit = most if allow_empty else max(0, min(most, each.size - 1))
        found[name] = _Found(each.size, count_nans(each), limit)
        if len(names) > 1:
            width = 8 * each.dtype.itemsize
            _, digits = _free_digits(each, found[name], each.dtype, 0, max(0, width - _DIGIT), min(_DIGIT, width))
            first[each.dtype] = first.get(each.dtype, 0) + digits
    total = sum(one.size for one in found.values())
    count = min(round(share * total), sum(one.limit for one in found.values()))
    if count > sum(one.free for one in found.values()):
        raise ArgumentError(_too_many_nans(count, total, found))
    if count == 0 or len(names) < 2:
        return dict.fromkeys(names, count)
    key = _key_dtype(set(first))
    last, _, _ = _threshold(found, scored, key, count, first.get(key) if len(first) == 1 else None)
    below, equal = {}, {}
    for name, one in found.items():
        under, at = _count(scored(name), key, last)
        below[name] = min(under, one.free)
        equal[name] = min(under + at, one.free) - below[name]
    ties = count - sum(below.values())
    for name in names:
        taken = min(ties, equal[name])
        below[name] += taken
        ties -= taken
    return below


def _threshold(
    found: Mapping[str, _Found], scored: Callable[[str], Ranked], key: np.dtype, count: int, first: Array | None
) -> tuple[int, int, int]:
    """The key of the last of the ``count`` structures that go first; how many have a lower one, and how many that one.

    ``first`` is the result of the first pass, where that was made already.
    """
    low, shift, before, equal = 0, 8 * key.itemsize, 0, 0
    while shift:
        bits = min(_DIGIT, shift)
        shift -= bits
        if first is None:
            before, free = 0, np.zeros(1 << bits, np.int64)
            for name, one in found.items():
                under, digits = _free_digits(scored(name), one, key, low, shift, bits)
                before, free = before + under, free + digits
        else:
            before, free, first = 0, first, None
        digit = int(np.searchsorted(before + free.cumsum(), count))
        low += digit << shift
        before += int(free[:digit].sum())
        equal = int(free[digit])
    return low, before, equal


def mask_of_lowest(each: Array, count: int) -> npt.NDArray[np.bool_]:
    """A mask of scores that is False at exactly ``count`` of the lowest, and True elsewhere.

    Of equal ones the first go. No more than a piece of the keys is in memory. At most as many go as are not NaN.
    """
    kept = np.ones(each.size, np.bool_)
    for start, here in lowest_pieces(each, count):
        kept[start : start + len(here)] = here
    return kept.reshape(each.shape)


def lowest_pieces(each: Array, count: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """The mask of `mask_of_lowest` piece by piece, each with its start; nothing where it is True throughout.

    The scores of a piece may be changed once it has been given.
    """
    if not count:
        return
    lowest, start = Lowest.of(each, count), 0
    for keys in _pieces(each, each.dtype):
        yield start, lowest.kept(keys, start)
        start += len(keys)


@dataclass(frozen=True)
class Lowest:
    """The scores that go first: those with a lower key than ``last``, and those with that key in front of ``end``."""

    last: int
    end: int

    @classmethod
    def of(cls, each: Ranked, count: int) -> Self:
        """The ``count`` lowest, at least one."""
        if each.size < 1 << _DIGIT:  # fewer than a pass has bins, and than a piece has keys
            (keys,) = _pieces(each, each.dtype)
            at = int(np.argsort(keys, kind="stable")[count - 1])
            return cls(int(keys[at]), at + 1)
        whole = _Found(each.size, 0, each.size)
        last, before, equal = _threshold({"": whole}, lambda _: each, each.dtype, count, None)
        ties, start = count - before, 0
        if ties == equal:
            return cls(last, each.size)
        for keys in _pieces(each, each.dtype):
            at_last = np.flatnonzero(keys == keys.dtype.type(last))
            if ties <= len(at_last):
                return cls(last, start + int(at_last[ties - 1]) + 1)
            ties, start = ties - len(at_last), start + len(keys)
        raise AssertionError("scores that change while they are read")

    def kept(self, keys: Array, start: int) -> npt.NDArray[np.bool_]:
        """False where the scores from position ``start`` on, with these keys, are among them."""
        last = keys.dtype.type(self.last)
        kept: npt.NDArray[np.bool_] = keys > last
        at = np.flatnonzero(keys == last)
        kept[at[np.searchsorted(at, self.end - start) :]] = True
        return kept


def _free_digits(each: Ranked, one: _Found, key: np.dtype, low: int, shift: int, bits: int) -> tuple[int, Array]:
    """As `_histogram`, of the structures that are free to go, which are the lowest of a tensor."""
    under, digits = _histogram(each, key, low, shift, bits)
    free = np.minimum(under + digits.cumsum(), one.free)
    return min(under, one.free), np.diff(free, prepend=min(under, one.free))


def _histogram(each: Ranked, key: np.dtype, low: int, shift: int, bits: int) -> tuple[int, Array]:
    """Keys below ``low``, and those in the ``2 ** (shift + bits)`` from there on, counted by ``bits`` of them."""
    under, digits = 0, np.zeros(1 << bits, np.int64)
    span = (1 << (shift + bits)) - 1
    for keys in _pieces(each, key):
        if low:
            first = keys.dtype.type(low)
            under += int(np.count_nonzero(keys < first))
            keys = keys - first  # those below wrap around, and are above all others
        # Where most weights are 0 already, most keys are done with here.
        digits[0] += np.count_nonzero(keys == 0)
        inside = keys[(keys != 0) & (keys <= keys.dtype.type(span))] >> keys.dtype.type(shift)
        digits += np.bincount(inside.astype(np.intp), minlength=1 << bits)
    return under, digits


def _count(each: Ranked, key: np.dtype, last: int) -> tuple[int, int]:
    """Keys below ``last``, and keys equal to it."""
    under = equal = 0
    for keys in _pieces(each, key):
        under += int(np.count_nonzero(keys < keys.dtype.type(last)))
        equal += int(np.count_nonzero(keys == keys.dtype.type(last)))
    return under, equal


def _flat(each: Ranked) -> Iterator[Array]:
    """The scores in row-major order, a piece at a time."""
    for held in each if isinstance(each, Pieces) else (each.reshape(-1),):
        for start in range(0, held.size, _PIECE):
            yield held[start : start + _PIECE]


def _pieces(each: Ranked, key: np.dtype) -> Iterator[Array]:
    """The scores' keys, a piece at a time."""
    return (keys_of(piece, key) for piece in _flat(each))


def keys_of(piece: Array, key: np.dtype) -> Array:
    """Keys as `magnitude_scores` gives them, compared in a dtype; those of NaN are only above all others."""
    element = element_type(key)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        piece = piece.astype(key, copy=False)
    if element.is_float:
        return np.asarray(piece.view(element.unsigned) & element.unsigned.type(element.nonzero_bits("value")))
    return magnitude_scores(piece)


def _key_dtype(dtypes: set[np.dtype]) -> np.dtype:
    """The dtype in which all scores are compared: their own, or else float32 if it holds all exactly, or float64."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    exact = all(d.itemsize <= (4 if element_type(d).is_float else 2) for d in dtypes)
    return np.dtype("<f4" if exact else "<f8")


def count_nans(each: Ranked) -> int:
    """How many scores are NaN."""
    if not element_type(each.dtype).is_float:
        return 0
    return sum(int(np.count_nonzero(nans(piece))) for piece in _flat(each))


def _too_many_nans(count: int, total: int, found: Mapping[str, _Found]) -> str:
    nans = {name: one.nans for name, one in found.items() if one.nans}
    where = ", ".join(f"{n} in {name!r}" for name, n in list(nans.items())[:5] if name)
    where += f" and {len(nans) - 5} more tensors" if len(nans) > 5 else ""
    return (
        f"cannot remove {count} of {total} structures: {sum(nans.values())} hold NaN"
        f"{f' ({where})' if where else ''}, which is never removed: remove fewer, or leave such tensors out"
    )


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors met inside name the tensor, where it has a name."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(f"tensor {name!r}: {error}" if name else str(error)) from error


def check_share(sparsity: Any) -> float:
    """`sparsity` as a number; ArgumentError where it is none from 0 to 1."""
    try:
        share = float(sparsity)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 1:
        raise ArgumentError(f"sparsity is {sparsity}; expected a share from 0 to 1")
    return share
