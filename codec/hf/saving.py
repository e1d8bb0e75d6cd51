"""save_pretrained: a folder of transformers with packed weights."""

import copy
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from transformers.core_model_loading import revert_weight_conversion
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_utils import PreTrainedModel, remove_tied_weights_from_state_dict

from codec.errors import ArgumentError
from codec.hf.config import CodecConfig
from codec.model import save_file
from codec.model.atomic import write_atomic
from codec.model.huggingface import CONFIG, FIELD, packed_config, packed_name, plain_name
from codec.model.packing import Rules
from codec.model.shards import INDEX_SUFFIX, SUFFIX, write_shard_index
from codec.torch.files import stored
from codec.torch.models import parameter_count
from codec.torch.modules import SparseLayer

_STEM = packed_name("model" + SUFFIX).removesuffix(SUFFIX)


def save_pretrained(
    model: Any,
    save_directory: str | os.PathLike[str],
    *,
    ignore: Iterable[str] | None = None,
    objective: str | None = None,
    plan: Mapping[str, Any] | None = None,
    zero: str = "value",
    max_shard_size: int | str = "5GB",
) -> None:
    """Write a model of transformers into a folder, its weights packed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A dense model, whose weights are packed as `save_file` packs them, or one that runs packed.
    save_directory : path
        Gets config.json, the generation configuration, code of the model's own, and model.codec*.safetensors. Save the
        tokenizer beside them as usual.
    ignore : sequence of str, optional
        Modules whose weights stay dense, here and when they are loaded, such as "lm_head"; by default those that the
        model was loaded with.
    objective : {"disk", "memory", "speed"}, optional
        What layouts are chosen for. By default packed layers stay as they are, and dense weights are packed for "disk".
    plan, zero
        As for `codec.torch.save_model`.
    max_shard_size : int or str
        Bytes of a file, counted as the tensors are in memory.

    Raises
    ------
    ArgumentError
        For what is no model of transformers; for names to ignore or in the plan that the model does not have; if the
        folder holds weights that transformers would load instead; and as `save_file`.
    OSError
        What the system says.

    Examples
    --------
    >>> codec.hf.save_pretrained(model, "Llama-packed", ignore=["lm_head"])  # doctest: +SKIP
    """
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError(
            f"model is of type {type(model).__name__}; expected a model of transformers: codec.torch.save_model writes "
            "others"
        )
    folder = os.fsdecode(save_directory)
    options = _options(model, ignore)
    os.makedirs(folder, exist_ok=True)
    _check_alone(folder)
    state, layers = _state(model), {}
    for layer in model.modules():
        if isinstance(layer, SparseLayer):
            layers[layer.weight.data_ptr()] = layer
    kept = {f"{name}.weight": "dense" for name, _ in model.named_modules() if options.leaves(name)}
    Rules(plan=plan).check_names(state)
    split = split_torch_state_dict_into_shards(
        state, filename_pattern=_STEM + "{suffix}" + SUFFIX, max_shard_size=max_shard_size
    )
    # The index of an earlier model would find a mixture of its shards and these, were this interrupted.
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, _STEM + INDEX_SUFFIX))
    rules = Rules(objective or "disk", zero, {**kept, **(plan or {})})
    for name, tensors in split.filename_to_tensors.items():
        shard = {}
        for tensor in tensors:
            found = state.pop(tensor)
            layer = layers.get(found.data_ptr()) if found.numel() else None
            shard[tensor] = found if layer is None else stored(tensor, layer, rules, objective)
        own = {tensor: entry for tensor in shard if (entry := rules.entry(tensor)) is not None}
        save_file(shard, os.path.join(folder, name), objective=rules.objective, plan=own, zero=zero)
    weights = next(iter(split.filename_to_tensors))
    count = parameter_count(model)
    if split.is_sharded:
        weights = _STEM + INDEX_SUFFIX
        total = sum(os.path.getsize(os.path.join(folder, name)) for name in split.filename_to_tensors)
        rest = {"metadata": {"total_parameters": count}}
        write_shard_index(os.path.join(folder, weights), dict(split.tensor_to_filename), rest, total)
    _write_config(model, folder, weights, count, options)
    for name in _own_files(folder) - {weights, *split.filename_to_tensors}:
        os.unlink(os.path.join(folder, name))


def _options(model: Any, ignore: Iterable[str] | None) -> CodecConfig:
    """What config.json says: of a model that was loaded packed what it said, but for what is given here."""
    found = getattr(model.config, FIELD, None)
    options = copy.copy(found) if isinstance(found, CodecConfig) else CodecConfig()
    if ignore is not None:
        options.ignore = CodecConfig(ignore=ignore).ignore
        options.check_modules([name for name, _ in model.named_modules()])
    return options


def _state(model: Any) -> dict[str, Any]:
    """The tensors to write, by the names that files of this architecture have; tied ones once."""
    state = model.state_dict()
    for key in model._keys_to_ignore_on_save or ():
        state.pop(key, None)
    state = remove_tied_weights_from_state_dict(state, model)
    return dict(revert_weight_conversion(model, state))


def _write_config(model: Any, folder: str, weights: str, count: int, options: CodecConfig) -> None:
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = str(model.dtype).removeprefix("torch."), [type(model).__name__]
    if hasattr(config, FIELD):
        delattr(config, FIELD)
    if model.is_remote_code():
        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    path = os.path.join(folder, CONFIG)
    with open(path, "rb") as file:
        own = json.load(file)
    new = packed_config(own, weights, count, objective=options.objective, ignore=options.ignore)
    write_atomic(path, [json.dumps(new, indent=2, ensure_ascii=False).encode() + b"\n"])
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _own_files(folder: str) -> set[str]:
    """Files of packed weights in a folder."""
    return {name for name in os.listdir(folder) if name.startswith((_STEM + ".", _STEM + "-"))}


def _check_alone(folder: str) -> None:
    """ArgumentError if there are weights that transformers would load instead of the packed ones."""
    for name in sorted(os.listdir(folder)):
        if name.endswith((SUFFIX, INDEX_SUFFIX)) and packed_name(name) != name and plain_name(name) == name:
            raise ArgumentError(
                f"{folder!r} holds {name!r}, which transformers without codec would load: write to another folder, or "
                "remove that"
            )
