"""Which weights of a model a product can use, and what holds the others back."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from codec.arraylike import torch_element
from codec.errors import ArgumentError
from codec.torch.modules import LAYERS, SparseLayer

# torch hands the weights of these to functions of its own, in which no product can be exchanged.
_OF_FUNCTIONS = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Weight:
    """One weight of two dimensions or more, by its name in the state_dict.

    ``module`` is the layer that owns it, ``sparse`` the class that would take its place, and ``why`` says what holds it
    back: None for a weight that can be packed. ``tied`` names all weights that are the same tensor, this one included.
    """

    name: str
    module: nn.Module
    sparse: type[SparseLayer] | None
    why: str | None
    tied: tuple[str, ...]


def check_model(model: Any) -> None:
    """ArgumentError for what is no model of torch."""
    if not isinstance(model, nn.Module):
        way = "; codec.save_file and codec.load_file take a state_dict" if isinstance(model, Mapping) else ""
        raise ArgumentError(f"model is of type {type(model).__name__}; expected an nn.Module{way}")


def weights_of(model: nn.Module) -> dict[str, Weight]:
    """All weights of two dimensions or more that are not packed, by name, in the order of the model.

    A weight that modules share is there under every name. If one of them needs it dense, all have it dense: another
    copy would only take memory.
    """
    found = list(_named(model))
    users: dict[int, list[str]] = {}
    for name, _, tensor in found:
        users.setdefault(id(tensor), []).append(name)
    sparse = {name: sparse_class(module) for name, module, _ in found}
    readers = _readers(model)
    why = {name: _held_back(module, sparse[name], tensor, readers) for name, module, tensor in found}
    result = {}
    for name, module, tensor in found:
        tied = tuple(users[id(tensor)])
        others = [other for other in tied if why[other] is not None]
        reason = why[name]
        if reason is None and others:
            reason = f"tied to {others[0]!r}, which stays dense: {why[others[0]]}"
        result[name] = Weight(name, module, sparse[name], reason, tied)
    return result


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """(name, owner, tensor) of weights of two dimensions or more; pruned and parametrised ones under their own name."""
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if isinstance(module, parametrize.ParametrizationList):
            continue  # of the layer, which has it as its weight
        for name, tensor in module._parameters.items():
            whole = name.removesuffix("_orig") if f"{name.removesuffix('_orig')}_mask" in module._buffers else name
            if tensor is not None and not nn.parameter.is_lazy(tensor) and tensor.dim() >= 2:
                yield prefix + whole, module, tensor
        for name, chain in module.parametrizations.items() if parametrize.is_parametrized(module) else ():
            yield prefix + name, module, chain.original if hasattr(chain, "original") else chain.original0


def sparse_class(module: nn.Module) -> type[SparseLayer] | None:
    """The class that can take a layer's place; None for classes derived from Linear and the like, which may do more."""
    kind = parametrize.type_before_parametrizations(module)
    return next((layer for layer in LAYERS if kind is layer.dense()), None)


def _held_back(
    module: nn.Module, sparse: type[SparseLayer] | None, tensor: torch.Tensor, readers: dict[int, str]
) -> str | None:
    if sparse is None:
        kind = parametrize.type_before_parametrizations(module)
        if issubclass(kind, _EMBEDDINGS):
            return f"{kind.__name__} looks rows up"
        if issubclass(kind, _OF_FUNCTIONS):
            return f"{kind.__name__} hands its weights to a function of torch"
        return f"{kind.__name__} has no packed form"
    if getattr(module, "groups", 1) > 1:
        return f"a convolution in {module.groups} groups has too little to multiply in each"
    if _hooks(module):
        return "the layer has hooks, which may read its weight"
    if id(module) in readers:
        return f"the forward pass of {readers[id(module)]} reads the layer's weight"
    try:
        torch_element(tensor.dtype)
    except ArgumentError as error:
        return str(error)
    return None


def _readers(model: nn.Module) -> dict[int, str]:
    """Layers, by identity, whose weight the forward pass of the module around them reads, and that module's class.

    T5 casts to the weight's dtype, others hand the weight to a function: the bytes of a packed weight are neither.
    """
    found = {}
    for parent in model.modules():
        if not isinstance(parent, nn.TransformerEncoderLayer):  # `replaced` in models.py keeps it from reading them
            kind: Any = type(parent)
            read = _weights_read(kind)
            found.update({id(child): kind.__name__ for name, child in parent._modules.items() if name in read})
    return found


@cache
def _weights_read(kind: Any) -> frozenset[str]:
    """The ``x`` of all ``self.x.weight`` in the source of a class's forward method; none where there is no source."""
    try:
        source = inspect.getsource(kind.forward)
    except (OSError, TypeError):
        return frozenset()
    return frozenset(re.findall(r"\bself\.(\w+)\.weight\b", source))


def _hooks(module: nn.Module) -> bool:
    """Whether a layer has hooks other than those that torch.nn.utils.prune puts there."""
    before = [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, BasePruningMethod)]
    others = (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks)
    return bool(before) or any(others)
