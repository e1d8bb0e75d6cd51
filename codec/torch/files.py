"""Models of torch in model files: save_model and load_model, as safetensors.torch has them."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import nn

from codec.dtypes import BY_NAME
from codec.encoding.request import check_batch, check_objective
from codec.errors import ArgumentError
from codec.interop.folding import masked_pairs, unfolded_words
from codec.matrix import TensorSpec
from codec.model import ModelFile, safe_open, save_file
from codec.model.file import naming
from codec.model.packing import Rules
from codec.packed import PackedTensor
from codec.torch.frames import buffer_of, release_memory
from codec.torch.models import pays, replaced, swap
from codec.torch.modules import SparseLayer
from codec.torch.transposing import transpose
from codec.torch.weights import Weight, check_model, weights_of

Path = str | os.PathLike[str]

# Dense bytes of a weight after which memory is given back to the system: that takes a millisecond.
_LARGE = 4 << 20


def save_model(
    model: nn.Module,
    filename: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    objective: str | None = None,
    plan: Mapping[str, Any] | None = None,
    zero: str = "value",
) -> None:
    """Write a model's state to a file, every weight packed where that is worth it.

    Parameters
    ----------
    model : nn.Module
        Packed layers are stored as they are (`SparseConv1D` packed anew), dense weights as `save_file` packs them,
        those of embeddings, attention and LSTM among them. Tied tensors are stored once.
    filename, metadata, zero
        As for `save_file`.
    objective : {"disk", "memory", "speed"}, optional
        What layouts are chosen for, of packed layers too. By default these stay as they are, and dense weights are
        packed for "disk".
    plan : mapping, optional
        As for `save_file`, and packed layers follow it too.

    Raises
    ------
    ArgumentError, OSError
        As `save_file`; and for a plan with a name that no tensor has.

    Examples
    --------
    >>> save_model(model, "model.safetensors", objective="disk")  # doctest: +SKIP
    """
    check_model(model)
    rules = Rules(objective or "disk", zero, plan)
    state: dict[str, Any] = model.state_dict()
    rules.check_names(state)
    packed: dict[tuple[int, str], Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SparseLayer):
            name = f"{path}.weight" if path else "weight"
            place = id(module.weight), repr(rules.entry(name))
            if place not in packed:
                packed[place] = stored(name, module, rules, objective)
            state[name] = packed[place]
    save_file(state, filename, metadata, objective=rules.objective, plan=plan, zero=zero)


def stored(name: str, layer: SparseLayer, rules: Rules, objective: str | None) -> PackedTensor | np.ndarray:
    """What a file gets of a layer's packed weight: in the layout that is planned, or the best for an objective.

    Without either it is the weight as it is, or as it is best for "disk" where the file has the transpose of that; a
    plan of "dense" unpacks it.
    """
    planned, packed = rules.arguments(name), layer.packed
    if planned == {"layout": "dense"}:
        return np.ascontiguousarray(layer.unpacked())
    with naming(name):
        if layer.transposed:
            return transpose(packed, **{"objective": rules.objective, **planned})
        wanted = planned if objective is None else {"objective": objective, **planned}
        return packed.to_layout(**wanted) if wanted else packed


def load_model(
    model: nn.Module,
    filename: Path,
    strict: bool = True,
    device: Any = "cpu",
    *,
    objective: str | None = "speed",
    batch: int | None = None,
    dense: bool = False,
) -> tuple[list[str], list[str]]:
    """Load a file, or a sharded model, into a model.

    Parameters
    ----------
    model : nn.Module
        It may be on the meta device (``with torch.device("meta"): model = Net()``): then nothing dense is ever
        allocated for weights that stay packed. Layers whose weights are packed in the file are replaced by packed ones,
        by the rules of `compress_model`; all other weights are unpacked.
    filename, device
        As for `safe_open`: packed, plain and sharded files. The model stays on the CPU.
    strict : bool
        Refuse a file that lacks tensors of the model, or has others.
    objective : {"speed", "memory", "disk", None}
        What the layouts of packed layers are chosen for; None: they stay as they are stored.
    batch : int, optional
        As for `compress_model`.
    dense : bool
        Unpack everything; packed layers of the model become dense ones.

    Returns
    -------
    missing, unexpected : list of str
        Names that the model has and the file lacks (less those tied to one that is there), and the other way round.

    Raises
    ------
    ArgumentError
        With ``strict`` for names that do not fit; for shapes that do not, in any case; for a model that is one packed
        layer, where the weight is to be dense. Nothing is loaded then.
    FormatError, ChecksumError, OSError
        As `safe_open`.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     model = nn.Sequential(nn.Linear(784, 300))
    >>> codec.torch.load_model(model, "model.safetensors")  # doctest: +SKIP
    ([], [])
    """
    check_model(model)
    if objective is not None:
        check_objective(objective)
    check_batch(batch)
    with safe_open(filename, framework="pt", device=device) as file:
        state = model.state_dict(keep_vars=True)
        missing, unexpected = _differences(state, file)
        if strict and (missing or unexpected):
            unfolded = unfolded_words(masked_pairs(unexpected))
            raise ArgumentError(
                _words(missing, unexpected, filename) + (f". In the file, {unfolded}" if unfolded else "")
            )
        known = [name for name in state if name in file]
        _check_shapes(model, state, known, file)
        if isinstance(model, SparseLayer) and "weight" in file and (dense or file.info("weight").stored_as != "frame"):
            raise ArgumentError(
                "the model itself is a packed layer, which nothing can replace by a dense one: load into "
                "codec.torch.to_dense(model)"
            )
        loading = _Loading(model, file, _first_names(state), objective, batch, dense)
        del state  # so that dense weights are freed when packed ones take their place
        for name in known:
            loading.load(name)
    return missing, unexpected


def _first_names(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name the first one of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def _differences(state: Mapping[str, torch.Tensor], file: ModelFile) -> tuple[list[str], list[str]]:
    """(missing, unexpected): a name is not missing if a tensor that is tied to it is in the file."""
    there = {id(tensor) for name, tensor in state.items() if name in file}
    missing = [name for name, tensor in state.items() if name not in file and id(tensor) not in there]
    return missing, [name for name in file if name not in state]


def _words(missing: list[str], unexpected: list[str], filename: Path) -> str:
    words = []
    for names, others, what in (
        (missing, unexpected, f"the model has, but {os.fsdecode(filename)!r} lacks"),
        (unexpected, missing, f"{os.fsdecode(filename)!r} has, but the model lacks"),
    ):
        if names:
            shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            near = get_close_matches(names[0], others, n=1)
            words.append(f"{what} {shown}" + (f" (close to {near[0]!r})" if near else ""))
    return "; ".join(words) + ": give strict=False to load the others"


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def _check_shapes(model: nn.Module, state: Mapping[str, torch.Tensor], names: list[str], file: ModelFile) -> None:
    for name in names:
        if nn.parameter.is_lazy(state[name]):
            raise ArgumentError(f"tensor {name!r} of the model has no shape yet: run the model once on an input first")
        owner, attribute = _owner(model, name)
        packed = isinstance(owner, SparseLayer) and attribute == "weight"
        expected, found = owner.turned_shape(owner.shape) if packed else tuple(state[name].shape), file.info(name).shape
        if found != expected:
            raise ArgumentError(f"tensor {name!r} is {found} in the file, and {expected} in the model")


class _Loading:
    """A file on its way into a model, whose names and shapes fit."""

    def __init__(
        self, model: nn.Module, file: ModelFile, first: Mapping[str, str], objective: str | None, batch: int | None,
        dense: bool,
    ) -> None:  # fmt: skip
        self.model, self.file, self.first = model, file, first
        self.objective, self.batch, self.dense = objective, batch, dense
        self.weights = weights_of(model)
        # What was loaded, by the first name of its tensor: tied ones become one again.
        self.parameters: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self.done: set[str] = set()

    def load(self, name: str) -> None:
        """Load what stands in the file under a name of the model."""
        if name in self.done:
            return
        owner, attribute = _owner(self.model, name)
        is_packed = isinstance(owner, SparseLayer) and attribute == "weight"
        weight = self.weights.get(name)
        frame = self.file.info(name).stored_as == "frame" and not self.dense
        if is_packed and frame:
            if self.first[name] not in self.buffers:
                self.buffers[self.first[name]] = self._packed(name, type(owner))
            owner.hold(self.buffers[self.first[name]])
        elif frame and weight is not None and self._stays_packed(name, weight):
            assert weight.sparse is not None
            swap(self.model, weight, self.weights, self._packed(name, weight.sparse))
            self.done.update(weight.tied)
        else:
            if is_packed:
                layer = owner.to_dense(nn.Parameter(torch.empty(owner.turned_shape(owner.shape), device="meta")))
                replaced(self.model, owner, layer)
                owner = layer
            self._fill(owner, attribute, self.first[name], self.file.get_tensor(name))

    def _packed(self, name: str, sparse: type[SparseLayer]) -> torch.Tensor:
        with naming(name):
            buffer = buffer_of(sparse.of_file(self.file.get_packed(name), self.objective, self.batch))
        if self.file.info(name).dense_nbytes >= _LARGE:
            release_memory()
        return buffer

    def _stays_packed(self, name: str, weight: Weight) -> bool:
        info = self.file.info(name)
        shape = weight.sparse.turned_shape(info.shape) if weight.sparse else info.shape
        spec = TensorSpec.of(BY_NAME[info.dtype].dtype, shape)
        why = weight.why or pays(spec, info.nnz or 0, info.nbytes, self.objective, self.batch)
        return why is None and weight.module is not self.model

    def _fill(self, owner: nn.Module, attribute: str, first: str, found: torch.Tensor) -> None:
        """Copy elements into a tensor of the model, or put them in its place on the meta device."""
        old = getattr(owner, attribute)
        if old.device.type != "meta":
            with torch.no_grad():
                old.copy_(found)
        elif isinstance(old, nn.Parameter):
            if first not in self.parameters:
                self.parameters[first] = nn.Parameter(found, old.requires_grad and found.is_floating_point())
            setattr(owner, attribute, self.parameters[first])
        else:
            setattr(owner, attribute, found)
