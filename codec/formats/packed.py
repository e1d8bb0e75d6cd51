"""Our own model files, as a format among the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from codec.dtypes import BY_NAME
from codec.formats.base import Place, Stored, dense
from codec.formats.safetensors import TensorFiles
from codec.model import ModelFile, save_file, worth_packing
from codec.packed import PackedTensor


@dataclass(frozen=True)
class Packed(TensorFiles):
    """What save_file writes. ``layout`` has arguments of `PackedTensor.to_layout`; those in ``kept`` stay dense."""

    objective: str = "disk"
    layout: Mapping[str, Any] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    name = "codec"
    summary = "our own model files: safetensors files with packed tensors"
    reads = writes = tuple(BY_NAME)

    def claims(self, place: Place) -> bool:
        """A safetensors file in which a tensor is packed."""
        return super().claims(place) and any(info.stored_as == "frame" for info in place.tensors.values())

    def stored(self, model: ModelFile, file_of: Mapping[str, str]) -> dict[str, Stored]:
        """As they are, so that what is stored once stays so."""
        return {name: Stored(partial(model.get_stored, name), file_of[name]) for name in model}

    def form(self, name: str, value: Any, wanted: bool | None) -> Any:
        """What is sparse in the layout that was asked for, if that pays; arrays are packed when they are written."""
        if wanted is False or not isinstance(value, PackedTensor):
            return dense(value)
        found = value.to_layout(objective=self.objective, **self.layout)
        if wanted or self.layout or worth_packing(found.shape, found.dense_nbytes, found.nbytes):
            return found
        return dense(value)

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """One tensor is in memory at a time."""
        kept = [name for name in tensors if name in self.kept]
        plan = {**dict.fromkeys(kept, "dense"), **({"*": dict(self.layout)} if self.layout else {})}
        save_file(tensors, path, metadata, objective=self.objective, plan=plan or None)
