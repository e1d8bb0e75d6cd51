"""What config.json says of a folder's weights, for transformers (field: "quantization_config").

transformers loads model*.safetensors, and only warns about a quantization method that it does not know: it would run a
packed folder of such names on random weights. So packed weights have names that transformers does not look for.
config.json tells codec.hf these names; without codec.hf, loading fails, as there is no file of weights.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from codec.errors import ArgumentError

CONFIG = "config.json"
FIELD = "quantization_config"
METHOD = "codec"
# How weights lie in the file; a closed list, which never chooses code by name.
FORMATS = ("frames",)
# Weights are named model.safetensors, model-00001-of-00002.safetensors or model.safetensors.index.json.
_PLAIN, _PACKED = "model", "model.codec"

# Formats that compressed-tensors had until 0.15; weights that were decompressed since then kept the words. The older
# versions put what FIELD has into compression_config.
_REMOVED = ("sparsity_config", "compression_config")
_QUANTIZED = ("config_groups", "transform_config")  # a quantization that is one
# Suffixes of tensors that are still in such a format.
_COMPRESSED = (".compressed", ".bitmask")


def packed_name(name: str) -> str:
    """The name of a file of packed weights in the place of one that transformers looks for.

    >>> packed_name("model-00001-of-00002.safetensors"), packed_name("other.safetensors")
    ('model.codec-00001-of-00002.safetensors', 'other.safetensors')
    """
    if name.startswith((_PLAIN + ".", _PLAIN + "-")) and not name.startswith((_PACKED + ".", _PACKED + "-")):
        return _PACKED + name.removeprefix(_PLAIN)
    return name


def plain_name(name: str) -> str:
    """The name that `packed_name` made another of.

    >>> plain_name("model.codec.safetensors.index.json")
    'model.safetensors.index.json'
    """
    return _PLAIN + name.removeprefix(_PACKED) if name.startswith((_PACKED + ".", _PACKED + "-")) else name


def stores_names_once(path: str) -> bool:
    """Whether a file may hold one tensor for several names.

    Not one that transformers reads through codec.hf: it takes the names that stand in the file, knows nothing of others
    in the index, and would give such a tensor random weights.
    """
    name = os.path.basename(path)
    return plain_name(name) == name


def read_config(text: bytes) -> dict[str, Any] | None:
    """The configuration of a model of transformers; None for what is none (no JSON object with a model_type)."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) and isinstance(config.get("model_type"), str) else None


def method_of(config: Mapping[str, Any]) -> str | None:
    """The quantization method that a configuration names, if one."""
    found = config.get(FIELD)
    return found.get("quant_method") if isinstance(found, dict) else None


def packed_config(config: Mapping[str, Any], weights: str, parameters: int, **options: Any) -> dict[str, Any]:
    """A configuration for packed weights.

    Parameters
    ----------
    config
        That of the source. One with a quantization method of its own keeps it: such weights are packed for storage, and
        have to be unpacked before they are used.
    weights : str
        The file of the weights, or the index of the shards.
    parameters : int
        Elements of all tensors, before packing.
    **options
        Further fields, as codec.hf.CodecConfig has them.

    Returns
    -------
    dict
        A new one.
    """
    kept = without_removed(config)
    if method_of(kept) not in (None, METHOD):
        return kept
    earlier = kept.get(FIELD) or {}
    own = {"quant_method": METHOD, "format": FORMATS[0], "weights": weights, "num_parameters": parameters}
    return {**kept, FIELD: {**earlier, **options, **own}}


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration for weights that are not packed any more."""
    kept = without_removed(config)
    return {key: value for key, value in kept.items() if key != FIELD} if method_of(kept) == METHOD else kept


def without_removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what is left of the formats that compressed-tensors removed.

    Such words make today's readers refuse weights that are dense. A real quantization beside them stays.

    >>> without_removed({"a": 1, "quantization_config": {"sparsity_config": {}, "quant_method": "compressed-tensors"}})
    {'a': 1}
    """
    sparsity, older = _REMOVED
    kept = {key: value for key, value in config.items() if key != sparsity}
    for field in (FIELD, older):
        found = kept.get(field)
        if field == FIELD and not (isinstance(found, dict) and any(key in found for key in _REMOVED)):
            continue
        inner = {key: value for key, value in found.items() if key not in _REMOVED} if isinstance(found, dict) else {}
        if any(inner.get(key) for key in _QUANTIZED):
            kept[field] = inner
        else:
            kept.pop(field, None)
    return kept


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """The text of a config.json; lone surrogates, which UTF-8 does not have, as JSON's escapes."""
    return json.dumps(config, indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def check_not_compressed(config: Mapping[str, Any], names: list[str]) -> None:
    """ArgumentError if tensors are still in a removed format, of which the configuration is all that tells."""
    found = next((name for name in names if name.endswith(_COMPRESSED)), None)
    inner = config.get(FIELD)
    told = any(key in config for key in _REMOVED) or (isinstance(inner, dict) and any(key in inner for key in _REMOVED))
    if found is not None and told:
        raise ArgumentError(
            f"tensor {found!r} is in a sparse format of compressed-tensors, which config.json describes: "
            "`codec convert` reads it"
        )
