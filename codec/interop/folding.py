"""Pruned weights that lie beside their masks, as pruning tools leave them: found by their names, and multiplied.

Stored as they are, they take the space of the weights before pruning and of a mask; folded, that of what is left. The
tools and their names:

    torch.nn.utils.prune                    x_orig and x_mask; the module multiplies them at every forward pass
    torch.ao.pruning                        parametrizations.x.original; the mask lies in the sparsifier's state
    Distiller, SynFlow, shrinkbench         x and x_mask (Distiller's masks lie in the scheduler's masks_dict)
    SparseML                                module.weight and module.mask
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec.arraylike import as_array, is_torch_tensor, to_torch
from codec.errors import ArgumentError
from codec.interop.checkpoints import is_nested, state_of

_ORIG, _MASK = "_orig", "_mask"
_PARAMETRIZED, _ORIGINAL = "parametrizations.", ".original"


@dataclass(frozen=True)
class MaskedPair:
    """The two tensors of a pruned one, and its name when they are folded."""

    name: str
    orig: str
    mask: str


def masked_pairs(names: Iterable[str], *, beside: bool = False) -> list[MaskedPair]:
    """The tensors that are split in two, in the order of the names.

    A name that ends in ``_orig`` or ``_mask`` makes no pair by itself, and none if the folded tensor is there as well.
    With ``beside`` also weights and biases that have a mask beside them and keep their name.

    >>> masked_pairs(["fc.weight_orig", "fc.bias", "fc.weight_mask"])
    [MaskedPair(name='fc.weight', orig='fc.weight_orig', mask='fc.weight_mask')]
    >>> masked_pairs(["fc.weight", "fc.mask"], beside=True)
    [MaskedPair(name='fc.weight', orig='fc.weight', mask='fc.mask')]
    """
    known = dict.fromkeys(names)
    found = []
    for name in known:
        for pair in _possible(name, beside):
            if pair.mask in known and pair.name and (pair.name == name or pair.name not in known):
                found.append(pair)
                break
    return found


def _possible(name: str, beside: bool) -> Iterator[MaskedPair]:
    """The pairs whose weights a tensor of that name can be."""
    if name.endswith(_ORIG):
        whole = name.removesuffix(_ORIG)
        yield MaskedPair(whole, name, whole + _MASK)
    if (place := _parametrized(name)) is not None:
        whole, stem = place
        yield MaskedPair(whole, name, f"{stem}.0.mask")
    module, dot, last = name.rpartition(".")
    if beside and ("weight" in last or "bias" in last):
        yield MaskedPair(name, name, name + _MASK)
        if last == "weight":
            yield MaskedPair(name, name, f"{module}{dot}mask")


def _parametrized(name: str) -> tuple[str, str] | None:
    """The tensor's own name and the stem of its parametrization, of the original of one.

    >>> _parametrized("net.0.parametrizations.weight.original")
    ('net.0.weight', 'net.0.parametrizations.weight')
    """
    stem = name.removesuffix(_ORIGINAL)
    module, found, tensor = stem.rpartition(_PARAMETRIZED)
    if stem == name or not found or not tensor or (module and not module.endswith(".")):
        return None
    return module + tensor, stem


def single_halves(names: Iterable[str]) -> list[str]:
    """Names that are one half of a pair whose other half is missing, in their order.

    An ``x_orig`` is one if there is no ``x``, nor the ``x_u`` that spectral normalisation has beside its ``x_orig``; an
    ``x_mask`` if x is a weight or bias by its name, as models have other masks too; a parametrization's original if
    nothing else of that parametrization is there.

    >>> single_halves(["fc.weight_orig", "fc.bias", "causal_mask"])
    ['fc.weight_orig']
    """
    known = dict.fromkeys(names)
    stems = {name.rpartition(".")[0] for name in known if _PARAMETRIZED in name}

    def alone(name: str) -> bool:
        if (place := _parametrized(name)) is not None:
            return place[0] not in known and not any(stem.startswith(place[1] + ".") for stem in stems)
        own, other = (_ORIG, _MASK) if name.endswith(_ORIG) else (_MASK, _ORIG)
        whole = name.removesuffix(own)
        if not name.endswith(own) or whole in known or whole + other in known:
            return False
        last = whole.rpartition(".")[2]
        return bool(last) and (whole + "_u" not in known if own == _ORIG else "weight" in last or "bias" in last)

    return [name for name in known if alone(name)]


def check_halves(names: Iterable[str]) -> None:
    """ArgumentError if one half of a pair is missing."""
    if not (alone := single_halves(names)):
        return
    half = alone[0]
    if (place := _parametrized(half)) is not None:
        raise ArgumentError(
            f"tensor {half!r}: its mask is missing, {place[1] + '.0.mask'!r}: torch.ao.pruning keeps masks in "
            "sparsifier.state_dict(); save that with the model's, or call sparsifier.squash_mask() before saving"
        )
    other = _MASK if half.endswith(_ORIG) else _ORIG
    missing = half[: -len(_ORIG)] + other
    raise ArgumentError(
        f"tensor {half!r}: {missing!r} is missing, without which it cannot be folded: add that, or rename it"
    )


def unfolded_words(pairs: list[MaskedPair]) -> str | None:
    """What to say of pairs that are about to be stored as they are; None if there are none."""
    if not pairs:
        return None
    shown = ", ".join(repr(pair.name) for pair in pairs[:4]) + (f" and {len(pairs) - 4} more" if len(pairs) > 4 else "")
    return (
        f"pruned tensors are split in weights and mask, and take several times their space: {shown}. "
        "`codec encode --fold` multiplies them; in torch, torch.nn.utils.prune.remove does"
    )


def folded(pair: MaskedPair, orig: Any, mask: Any) -> np.ndarray:
    """The pruned tensor: ``orig`` where ``mask`` is 1, and +0.0 where it is 0.

    torch multiplies, which leaves -0.0 where a negative weight goes, and NaN where an infinite one does.

    Parameters
    ----------
    pair : MaskedPair
        For the errors.
    orig, mask : array-like
        Of one shape; the mask of any dtype.

    Raises
    ------
    ArgumentError
        If the shapes differ, or the mask has other values than 0 and 1.
    """
    weights, kept = _array(pair.orig, orig), _array(pair.mask, mask)
    if weights.shape != kept.shape:
        raise ArgumentError(f"tensor {pair.mask!r}: has shape {kept.shape}, {pair.orig!r} has {weights.shape}")
    keep = kept.astype(np.bool_)
    if not np.array_equal(keep, kept):
        raise ArgumentError(f"tensor {pair.mask!r}: has values other than 0 and 1, so it is no mask")
    out: np.ndarray = np.zeros_like(weights, order="C")
    np.copyto(out, weights, where=keep)
    return out


def _array(name: str, half: Any) -> np.ndarray:
    try:
        return as_array(half)
    except ArgumentError as error:
        raise ArgumentError(f"tensor {name!r}: {error}") from error


def fold_masks(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors with every pair of weights and mask folded into one, in the place of the weights.

    Pairs are those of torch.nn.utils.prune (``x_orig``, ``x_mask``), torch.ao.pruning (``parametrizations.x.original``
    and its mask), Distiller, SynFlow and shrinkbench (``x``, ``x_mask``), and SparseML (``module.weight``,
    ``module.mask``).

    Parameters
    ----------
    tensors : mapping of str to array-like or torch tensor
        A model's tensors, for example its ``state_dict()``; or a checkpoint that holds it: Distiller's, with
        ``state_dict`` and ``compression_sched``, or one with a ``state_dict`` and torch.ao.pruning's
        ``sparsifier.state_dict()`` under names of any kind. It is not changed.

    Returns
    -------
    dict
        Folded tensors are arrays, or torch tensors where ``x_orig`` is one; the others are those that were given.

    Raises
    ------
    ArgumentError
        If one half of a pair is missing, their shapes differ, or a mask has other values than 0 and 1; the message
        names the tensor.

    Examples
    --------
    >>> halves = {"w_orig": np.array([1.0, -2.0]), "w_mask": np.array([1.0, 0.0]), "b": np.array([3.0])}
    >>> fold_masks(halves)
    {'w': array([1., 0.]), 'b': array([3.])}
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        raise ArgumentError(f"tensors is a {type(tensors).__name__}; expected a mapping of names to arrays")
    if is_nested(tensors):
        tensors = state_of(tensors)
    check_halves(tensors)
    pairs = masked_pairs(tensors, beside=True)
    masks, halves = {pair.mask for pair in pairs}, {pair.orig: pair for pair in pairs}
    found: dict[str, Any] = {}
    for name in tensors:
        pair = halves.get(name)
        if pair is not None:
            orig = tensors[name]
            whole_tensor = folded(pair, orig, tensors[pair.mask])
            found[pair.name] = to_torch(whole_tensor) if is_torch_tensor(orig) else whole_tensor
        elif name not in masks:
            found[name] = tensors[name]
    return found
