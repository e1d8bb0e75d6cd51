"""How transformers loads packed weights: into packed layers, and unpacked into everything else."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from transformers import core_model_loading as loading
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.quantizers import HfQuantizer, register_quantizer

from codec.arraylike import from_torch, to_torch
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.frame import MAGIC
from codec.hf.config import CodecConfig
from codec.hf.saving import save_pretrained
from codec.matrix import TensorSpec
from codec.model.disk import open_path
from codec.model.file import naming
from codec.model.huggingface import METHOD
from codec.model.index import Record
from codec.model.shards import opened
from codec.tensor import decode, loads
from codec.torch import compress_model, to_dense
from codec.torch.frames import buffer_of, release_memory
from codec.torch.models import pays, replaced
from codec.torch.modules import SparseLayer
from codec.torch.weights import weights_of


@register_quantizer(METHOD)
class CodecQuantizer(HfQuantizer):
    """Loads packed folders, and packs dense models after loading where `CodecConfig` is given for them."""

    quantization_config: CodecConfig
    requires_calibration = False

    def __init__(self, quantization_config: CodecConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        # Names of frames whose weights are unpacked, before transformers adds or drops the prefix of a base model.
        self._unpacked: list[str] = []
        self._dtypes: list[tuple[str, torch.dtype]] = []
        # Tensors of the model that lie unpacked in files of mostly packed ones.
        self._beside: set[str] = set()

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        """ArgumentError for a device that packed weights are not multiplied on."""
        places = device_map.values() if isinstance(device_map, Mapping) else [device_map]
        others = [place for place in places if place is not None and str(place) not in ("cpu", "auto")]
        if others and not self.quantization_config.dequantize:
            raise ArgumentError(
                f"device_map names {str(others[0])!r}; packed weights are multiplied on the CPU: give "
                "quantization_config=codec.hf.CodecConfig(dequantize=True) for dense ones"
            )

    def update_device_map(self, device_map: Any) -> Any:
        """ "auto" means the CPU here."""
        return device_map if self.quantization_config.dequantize or device_map is None else {"": "cpu"}

    def update_attn_implementation(self, config: Any) -> Any:
        """Tell transformers the file, which has a name that it does not look for; it asks this before it looks."""
        if self.pre_quantized and self.quantization_config.weights is not None:
            config.transformers_weights = self.quantization_config.weights
        return config

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Iterable[str] | None = None, dtype: Any = None, **_: Any
    ) -> Any:
        """Put empty packed layers where the weights in the files will run packed."""
        if not self.pre_quantized:
            self.quantization_config.check_modules([name for name, _ in model.named_modules()])
            return model
        self._dtypes = [*(model._get_dtype_plan(dtype) or {}).items(), ("*", dtype)]
        names, weights, kept = _Names(model), weights_of(model), self._kept_dense(model)
        frames: dict[str, Record] = {}
        for path in checkpoint_files or ():
            records = records_of(path)
            own = {name: record for name, record in records.items() if record.layout is not None}
            frames |= own
            if sum(record.nbytes for record in records.values()) < 2 * sum(record.nbytes for record in own.values()):
                self._beside |= {names.in_model(name)[0] for name in records.keys() - own.keys()}
        for name in sorted(frames, key=loading.dot_natural_key):
            target, converted = names.in_model(name)
            record, weight = frames[name], weights.get(target)
            if converted or record.shape != names.shape(target):
                continue  # transformers merges or splits it, which update_weight_conversions sees to, or reports it
            if (
                weight is None
                or weight.why is not None
                or len(weight.tied) > 1
                or kept(target)
                or not self._pays(record, weight.sparse)
            ):
                self._unpacked.append(names.renamed(name))
                continue
            assert weight.sparse is not None
            replaced(model, weight.module, weight.sparse.like(weight.module, nbytes=record.nbytes, device="meta"))
        return model

    def _kept_dense(self, model: Any) -> Callable[[str], bool]:
        """Whether a weight stays dense whatever it is: where that was asked for, and where transformers needs it."""
        config = self.quantization_config
        tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
        exact = {
            part for names in (model._keep_in_fp32_modules, model._keep_in_fp32_modules_strict) for part in names or ()
        }

        def kept(name: str) -> bool:
            module = name.rpartition(".")[0]
            return config.dequantize or name in tied or config.leaves(module) or not exact.isdisjoint(module.split("."))

        return kept

    def _pays(self, record: Record, sparse: type[SparseLayer] | None) -> bool:
        config, shape = self.quantization_config, record.shape if sparse is None else sparse.turned_shape(record.shape)
        spec = TensorSpec.of(BY_NAME[record.dtype].dtype, shape)
        return pays(spec, record.nnz or 0, record.nbytes, config.objective, config.batch) is None

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """Unpack frames before what transformers itself does to tensors, and those that nothing else is done to."""
        updated = []
        for one in weight_conversions:
            if self.pre_quantized and isinstance(one, loading.WeightConverter):
                operations = [Unpack(self._dtypes), *one.operations]
                one = one.copy(one._original_source_patterns, one._original_target_patterns, operations=operations)
            updated.append(one)
        if self._unpacked:
            names = "|".join(map(re.escape, self._unpacked))
            updated.append(loading.WeightConverter([rf"^({names})$"], [r"\1"], [UnpackWhole(self._dtypes)]))
        return updated

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        """Bring packed layers into the layouts that they run in, or pack a model that was dense."""
        config = self.quantization_config
        if not self.pre_quantized:
            plan = {f"{name}.weight": "dense" for name, _ in model.named_modules() if config.leaves(name)}
            known = weights_of(model)
            compress_model(
                model,
                {**{name: entry for name, entry in plan.items() if name in known}, **(config.plan or {})},
                objective=config.objective or "speed",
                batch=config.batch,
            )
        else:
            for name, layer in model.named_modules():
                if isinstance(layer, SparseLayer) and (config.objective is not None or layer.transposed):
                    with naming(f"{name}.weight"):
                        layer.hold(buffer_of(layer.of_file(layer.packed, config.objective, config.batch)))
                    release_memory()
        self._let_go_of_files(model)
        conversions = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [one for one in conversions if not _is_ours(one)]
        if not config.dequantize:
            model.save_pretrained = partial(save_pretrained, model)
        return model

    def _let_go_of_files(self, model: Any) -> None:
        """Copy what lies beside packed weights in mapped files, so that these do not stay in memory.

        transformers maps files, of which packed weights are used only while they are brought into another layout or
        unpacked; the norms and biases beside them would keep all of it mapped.
        """
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in self._beside and tensor.device.type == "cpu":
                tensor.data = tensor.data.clone()

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        """``model.dequantize()``: dense layers in the place of packed ones."""
        model.__dict__.pop("save_pretrained", None)
        return to_dense(model).to(dtype)

    def is_serializable(self) -> bool:
        """No: the writer of transformers would name the weights as dense ones are. `save_pretrained` writes them."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Packed weights have no gradient: load with ``CodecConfig(dequantize=True)`` for training."""
        return False

    @property
    def is_compileable(self) -> bool:
        """Whether torch.compile works."""
        return True


class _Names:
    """What transformers calls the tensors of a file in a model, found as it finds it."""

    def __init__(self, model: Any) -> None:
        mapping = get_model_conversion_mapping(model)
        self._renamings = [one for one in mapping if isinstance(one, loading.WeightRenaming)]
        self._converters = [one for one in mapping if isinstance(one, loading.WeightConverter)]
        self._prefix, self._known = model.base_model_prefix, model.state_dict()

    def renamed(self, name: str) -> str:
        """The name before a prefix is added or dropped."""
        return loading.apply_renamings(name, self._renamings)  # type: ignore[no-any-return]

    def in_model(self, name: str) -> tuple[str, bool]:
        """The name in the model, and whether the tensor is converted into others there."""
        found, pattern = loading.rename_source_key(name, self._renamings, self._converters, self._prefix, self._known)
        if found not in self._known and name in self._known:
            found, pattern = loading.rename_source_key(name, [], [], self._prefix, self._known)
        return found, pattern is not None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor of the model; None if it has no such tensor."""
        return tuple(self._known[name].shape) if name in self._known else None


class Unpack(loading.ConversionOps):
    """Frames among tensors of a file as dense tensors, in the dtype that the model has for them."""

    def __init__(self, dtypes: list[tuple[str, torch.dtype]]) -> None:
        self.dtypes = dtypes

    def convert(
        self, input_dict: Mapping[str, Any], source_patterns: Any, target_patterns: Any, full_layer_name: str = "",
        **_: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """See transformers."""
        return {
            pattern: [self._dense(one, full_layer_name) for one in (found if isinstance(found, list) else [found])]
            for pattern, found in input_dict.items()
        }

    def _dense(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        if tensor.dtype != torch.uint8 or tensor.dim() != 1 or bytes(tensor[: len(MAGIC)].numpy()) != MAGIC:
            return tensor
        with naming(name):
            dense: torch.Tensor = to_torch(decode(loads(from_torch(tensor))))
        wanted = next(dtype for glob, dtype in self.dtypes if re.search(glob.replace("*", ".*"), name))
        return dense.to(wanted) if dense.is_floating_point() else dense

    @property
    def reverse_op(self) -> Any:
        """Nothing: weights are packed where they are saved."""
        return loading._IdentityOp()


class UnpackWhole(Unpack):
    """A frame that is one tensor of the model."""

    def convert(
        self, input_dict: Mapping[str, Any], source_patterns: Any, target_patterns: Any, full_layer_name: str = "",
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """See transformers."""
        (found,) = super().convert(input_dict, source_patterns, target_patterns, full_layer_name).values()
        return {full_layer_name: found}


def _is_ours(conversion: Any) -> bool:
    return any(isinstance(one, UnpackWhole) for one in getattr(conversion, "operations", ()))


def records_of(path: str) -> dict[str, Record]:
    """What the index of a file says of its tensors; none is read.

    Raises
    ------
    FormatError
        For a file that is not what it should be.
    ArgumentError
        For one that stores a tensor once under several names, of which transformers would see one.
    """
    file = opened(open_path(path))
    file.raw.close()
    if file.aliases:
        alias, name = next(iter(file.aliases.items()))
        raise ArgumentError(
            f"{path!r} stores {alias!r} under the name {name!r} alone, where transformers does not find it: `codec "
            "encode` on the folder, or codec.hf.save_pretrained, writes a file for transformers"
        )
    return file.records
