"""Models of torch with packed layers in the place of dense ones, and back."""

import logging
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import nn

from codec.encoding.fastest import faster_than_dense
from codec.errors import ArgumentError
from codec.matrix import TensorSpec
from codec.model.packing import Rules, worth_packing
from codec.packed import PackedTensor
from codec.tensor import encode
from codec.torch.frames import buffer_of
from codec.torch.modules import SparseLayer, effective
from codec.torch.weights import Weight, check_model, weights_of

_log = logging.getLogger("codec.torch")


def compress_model(
    model: nn.Module, plan: Mapping[str, Any] | None = None, *, objective: str = "speed", batch: int | None = None,
    zero: str = "value",
) -> nn.Module:  # fmt: skip
    """Put packed layers in the place of a model's linear layers and convolutions, where that pays.

    These are nn.Linear, nn.Conv2d, and transformers' Conv1D (the linear layer of GPT-2).

    Parameters
    ----------
    model : nn.Module
        On the CPU; it is changed in place, layer by layer, so that at most one weight is there twice. Pruned layers
        (torch.nn.utils.prune) and parametrised ones are packed as they are used.
    plan : mapping, optional
        Layouts by name or shell pattern of weights ("encoder.0.weight", "head.*"), as for `save_file`: a layout's name,
        a dict of arguments for `encode`, or "dense". A weight with a planned layout is packed whatever that brings.
    objective : {"speed", "memory", "disk"}
        What layouts are chosen for.
    batch : int, optional
        For "speed": how many vectors a layer multiplies at a time (tokens of all sequences together), as for `encode`.
    zero : {"value", "bits"}
        As for `encode`.

    Returns
    -------
    nn.Module
        The model; a new layer where the model itself is one that is packed.

    Raises
    ------
    ArgumentError
        For what is no model, a model that is not on the CPU, a plan with a name that no weight has, or that names one
        which stays dense, and as `encode`.

    Notes
    -----
    Without a planned layout a weight is packed if `save_file` would do so, and for "speed" only where a table of
    measured products (codec/encoding/fastest.py) has the packed one faster than the dense library's for this batch.
    Weights that are tied are packed once, or stay dense if one of them has to.

    Some layers stay dense in memory: embeddings, which look rows up; nn.MultiheadAttention, LSTM and GRU, which hand
    their weights to functions of torch; grouped convolutions; layers of other kinds, classes derived from Linear and
    Conv2d among them; layers with hooks; and those whose weight is read by the forward pass of the module around them,
    such as ``F.linear(x, self.layer.weight)``. `save_model` stores their weights packed, and `load_model` unpacks them.
    What became of each weight, and why, is in the log "codec.torch", at level INFO.

    Examples
    --------
    >>> from torch.nn.utils import prune
    >>> layer = prune.l1_unstructured(nn.Linear(256, 256), "weight", 0.8)
    >>> compress_model(nn.Sequential(layer))[0].packed.layout
    'sell'
    """
    check_model(model)
    rules = Rules(objective, zero, plan)
    weights = weights_of(model)
    _check_plan(rules, weights)
    _check_on_cpu(model)
    done: set[str] = set()
    for name, weight in weights.items():
        if name in done:
            continue
        done.update(weight.tied)
        packed = _packed(weight, rules, batch)
        if isinstance(packed, str):
            _log.info("%s stays dense: %s", name, packed)
        else:
            _log.info("%s: %r", name, packed)
            model = swap(model, weight, weights, buffer_of(packed))
    return model


def pays(spec: TensorSpec, nnz: int, nbytes: int, objective: str | None, batch: int | None) -> str | None:
    """Why a weight is better kept dense where nothing was planned; None where packing pays (see `compress_model`)."""
    size = spec.grid.size
    zeros = f"with {1 - nnz / max(1, size):.1%} zeros"
    if not worth_packing(spec.shape, size * spec.element.width, nbytes):
        return f"{zeros} it takes {nbytes} bytes packed and {size * spec.element.width} dense"
    if objective == "speed" and not faster_than_dense(nnz, spec, batch):
        return f"{zeros} its packed product is slower than the dense one"
    return None


def _packed(weight: Weight, rules: Rules, batch: int | None) -> PackedTensor | str:
    """A weight's packed tensor, or why it stays dense."""
    planned = rules.arguments(weight.name)
    if weight.why is not None:
        return weight.why
    if planned == {"layout": "dense"}:
        return "the plan says so"
    dense = effective(weight.module, "weight")
    assert dense is not None
    assert weight.sparse is not None
    packed = encode(
        weight.sparse.turned(dense), **{"objective": rules.objective, "zero": rules.zero, "batch": batch, **planned}
    )
    why = pays(packed.spans.head.spec, packed.nnz, packed.nbytes, rules.objective, batch)
    return packed if why is None or planned.get("layout", "auto") != "auto" else why


def _check_plan(rules: Rules, weights: Mapping[str, Weight]) -> None:
    """Refuse a plan that would not be followed: names that no weight has, or of weights that cannot be packed."""
    rules.check_names(weights, "weight")
    for key, entry in (rules.plan or {}).items():
        why = weights[key].why if key in weights else None
        if why is not None and entry != "dense":
            raise ArgumentError(f"plan gives {key!r} the layout {entry!r}, but it stays dense: {why}")


def _check_on_cpu(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise ArgumentError(
                f"parameter {name!r} is on device {parameter.device}; packed weights are multiplied on the CPU: "
                + ("load the weights first" if parameter.device.type == "meta" else "model.to('cpu') first")
            )


def swap(model: nn.Module, weight: Weight, weights: Mapping[str, Weight], buffer: torch.Tensor) -> nn.Module:
    """Put packed layers that share one buffer in the place of all layers that a weight belongs to; the new model."""
    for module in {id(weights[name].module): weights[name].module for name in weight.tied}.values():
        assert weight.sparse is not None
        new = weight.sparse.like(module, bias=False)
        new.hold(buffer)
        new.bias = effective(module, "bias")
        model = replaced(model, module, new.train(module.training))
    return model


def replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model with one module in the place of another, under every name that this has."""
    if model is old:
        return new
    parents = [(parent, name) for parent in model.modules() for name, child in parent._modules.items() if child is old]
    for parent, name in parents:
        setattr(parent, name, new)
    encoders = {parent for parent, _ in parents if isinstance(parent, nn.TransformerEncoderLayer)}
    for module in model.modules() if encoders else ():
        # In evaluation torch may hand the dense weights of a layer to one function, and nested tensors to a stack of
        # layers; these flags keep it from that, and have no other use.
        if module in encoders:
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and not encoders.isdisjoint(module.layers):
            module.use_nested_tensor = False
    return model


def to_dense(model: nn.Module) -> nn.Module:
    """Put dense layers in the place of a model's packed ones, in place: for training, or for another device.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    nn.Module
        The model; a new layer where the model itself is a packed one. Weights have the dtype that they were packed
        with, or that of ``model.to(dtype)`` and the like since then; layers that shared a packed weight share the dense
        one.

    Raises
    ------
    FormatError, ChecksumError
        If the bytes of a weight are damaged.

    Examples
    --------
    >>> to_dense(compress_model(nn.Sequential(nn.Linear(8, 8)), {"0.weight": "bitmap"}))
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
    )
    """
    check_model(model)
    weights: dict[int, nn.Parameter] = {}
    for layer in [module for module in model.modules() if isinstance(module, SparseLayer)]:
        place = layer.weight.data_ptr()
        dense = layer.to_dense(weights.get(place))
        weights[place] = dense.weight
        model = replaced(model, layer, dense)
    return model


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model, packed weights counted by their dense shape, and each shared tensor once.

    >>> parameter_count(compress_model(nn.Sequential(nn.Linear(8, 8)), {"0.weight": "bitmap"}))
    72
    """
    check_model(model)
    shapes = {id(m.weight): m.shape for m in model.modules() if isinstance(m, SparseLayer)}
    dense = {id(parameter): tuple(parameter.shape) for parameter in model.parameters()}
    return sum(map(prod, [*shapes.values(), *dense.values()]))
