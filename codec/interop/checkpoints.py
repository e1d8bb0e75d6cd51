"""Checkpoints that hold a model's tensors among other things, and masks in places of their own.

Distiller: ``state_dict`` and ``compression_sched["masks_dict"]`` (distiller/apputils/checkpoint.py). torch.ao.pruning:
any mapping with ``state`` and ``groups``, where ``state[name]["mask"]`` is the mask of a tensor
(torch/ao/pruning/sparsifier/base_sparsifier.py).
"""

from collections.abc import Mapping
from typing import Any

from codec.errors import ArgumentError

_STATES = ("state_dict", "model_state_dict", "model")
_SCHEDULER = "compression_sched"
_WRAPPER = "module"  # what DataParallel puts into names, anywhere


def is_nested(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's tensors lie deeper."""
    return any(isinstance(checkpoint.get(key), Mapping) for key in _STATES)


def state_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a model with each mask beside its tensor, under the name that `masked_pairs` looks for.

    Raises ArgumentError for several models in one checkpoint, and for a mask of a tensor that is not there.

    >>> state_of({"state_dict": {"w": 1}, "epoch": 3})
    {'w': 1}
    """
    states = [key for key in _STATES if isinstance(checkpoint.get(key), Mapping)]
    if len(states) != 1:
        raise ArgumentError(
            f"a checkpoint with the models {', '.join(map(repr, states))}; expected one: give that alone"
        )
    found = dict(checkpoint[states[0]])
    masks = _distiller(checkpoint) | _sparsifier(checkpoint, states[0])
    if wrong := [name for name in (*found, *masks) if not isinstance(name, str)]:
        raise ArgumentError(f"a checkpoint with {wrong[0]!r} for the name of a tensor; expected a text")
    by_plain_name = {_plain(name): name for name in found}
    for name, mask in masks.items():
        original = _original(name)
        if original in found:
            found[original.removesuffix("original") + "0.mask"] = mask
        elif (own := name if name in found else by_plain_name.get(_plain(name))) is not None:
            found[own + "_mask"] = mask
        else:
            raise ArgumentError(f"a mask for tensor {name!r}, which the model does not have")
    return found


def beside_state(checkpoint: Mapping[str, Any]) -> list[str]:
    """What a checkpoint holds beside its model, but for the places of masks.

    >>> beside_state({"state_dict": {"w": 1}, "epoch": 3})
    ['epoch']
    """
    return [key for key in checkpoint if key not in (*_STATES, _SCHEDULER) and not _is_sparsifier(checkpoint[key])]


def _distiller(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    scheduler = checkpoint.get(_SCHEDULER)
    masks = scheduler.get("masks_dict") if isinstance(scheduler, Mapping) else None
    return {name: mask for name, mask in masks.items() if mask is not None} if isinstance(masks, Mapping) else {}


def _sparsifier(checkpoint: Mapping[str, Any], model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in checkpoint.items():
        if key == model or not _is_sparsifier(value):
            continue
        states = value["state"] if isinstance(value["state"], Mapping) else {}
        # An optimizer's state has the same two keys; its entries are numbers, not names.
        found |= {
            name: state["mask"]
            for name, state in states.items()
            if isinstance(name, str) and isinstance(state, Mapping) and state.get("mask") is not None
        }
    return found


def _is_sparsifier(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() >= {"state", "groups"}


def _original(name: str) -> str:
    module, dot, tensor = name.rpartition(".")
    return f"{module}{dot}parametrizations.{tensor}.original"


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _WRAPPER)
