"""What config.json says of packed weights, as transformers reads it."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from transformers.quantizers import auto, register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from codec.encoding.request import check_batch, check_objective
from codec.errors import ArgumentError
from codec.matrix import is_int
from codec.model.huggingface import FORMATS, METHOD
from codec.model.packing import Rules


@register_quantization_config(METHOD)
class CodecConfig(QuantizationConfigMixin):
    """The field "quantization_config" of a packed model.

    Parameters
    ----------
    objective : {"speed", "memory", "disk", None}
        What the layouts of packed layers are chosen for when they are loaded; None: they stay as they are stored.
    batch : int, optional
        For "speed": how many vectors a layer multiplies at a time, as for `codec.torch.compress_model`. Not written to
        files.
    ignore : sequence of str
        Modules that are not packed, or unpacked when they are loaded, such as "lm_head": names, their last parts, or
        shell patterns.
    dequantize : bool
        Unpack all weights when they are loaded: for training, or for another device. It is not written to files.
    plan : mapping, optional
        As for `codec.torch.compress_model`, where a dense model is packed while it is loaded. Not written to files.
    format, weights, num_parameters
        What save_pretrained and ``codec encode`` write: how weights lie in the file, its name, and the elements of all
        tensors before packing.

    Raises
    ------
    ArgumentError
        For values that are none of these, and for fields that are not known here.

    Examples
    --------
    >>> CodecConfig(ignore=["lm_head"]).leaves("model.lm_head")
    True
    """

    def __init__(
        self, *, objective: str | None = "speed", batch: int | None = None, ignore: Iterable[str] = (),
        dequantize: bool = False, plan: Mapping[str, Any] | None = None, format: str = FORMATS[0],
        weights: str | None = None, num_parameters: int | None = None, quant_method: str = METHOD, **unknown: Any,
    ) -> None:  # fmt: skip
        if unknown:
            raise ArgumentError(
                f"quantization_config has a field {next(iter(unknown))!r}, which this version does not know: a newer "
                "codec may have written it, and reads it"
            )
        if format not in FORMATS or quant_method != METHOD:
            raise ArgumentError(
                f"quantization_config has format {format!r} of method {quant_method!r}; expected "
                f"{' or '.join(map(repr, FORMATS))} of {METHOD!r}"
            )
        if objective is not None:
            check_objective(objective)
        check_batch(batch)
        if not isinstance(ignore, Iterable) or isinstance(ignore, str) or not all(isinstance(n, str) for n in ignore):
            raise ArgumentError(f"ignore={ignore!r}; expected a list of names of modules")
        if not isinstance(dequantize, bool):
            raise ArgumentError(f"dequantize={dequantize!r}; expected True or False")
        Rules(plan=plan)
        if weights is not None and not isinstance(weights, str):
            raise ArgumentError(f"quantization_config names the file {weights!r}; expected a text")
        if num_parameters is not None and (not is_int(num_parameters) or num_parameters < 0):
            raise ArgumentError(f"quantization_config has num_parameters {num_parameters!r}; expected a count")
        self.quant_method, self.format, self.weights, self.num_parameters = METHOD, format, weights, num_parameters
        self.objective, self.batch, self.ignore = objective, batch, list(ignore)
        self.dequantize, self.plan = dequantize, plan

    def leaves(self, module: str) -> bool:
        """Whether a module is one of those to ignore."""
        return any(_names(name, module) for name in self.ignore)

    def check_modules(self, modules: Collection[str]) -> None:
        """ArgumentError where a name to ignore is that of no module, so that a misspelt one is packed."""
        for name in self.ignore:
            if not any(_names(name, module) for module in modules):
                ends = {module.rpartition(".")[2] for module in modules}
                near = get_close_matches(name, [*modules, *ends], n=3)
                raise ArgumentError(
                    f"ignore names {name!r}, and no module has such a name"
                    + (f"; close: {', '.join(near)}" if near else "")
                )

    def get_loading_attributes(self) -> dict[str, Any]:
        """What from_pretrained's own argument decides, and not config.json."""
        return {name: getattr(self, name) for name in ("dequantize", "objective", "batch", "ignore")}

    def to_dict(self) -> dict[str, Any]:
        """What is written to config.json."""
        written = {key: value for key, value in super().to_dict().items() if key not in ("batch", "dequantize", "plan")}
        return {key: value for key, value in written.items() if value is not None or key == "objective"}


def _names(name: str, module: str) -> bool:
    """Whether a name to ignore is that of a module: its name, the last parts of it, or a shell pattern."""
    return name == module or module.endswith(f".{name}") or fnmatchcase(module, name)


# transformers takes the arguments of one call beside what config.json says for the classes listed there only.
auto.LOADING_ATTRIBUTES_CONFIG_TYPES = (*auto.LOADING_ATTRIBUTES_CONFIG_TYPES, CodecConfig)
