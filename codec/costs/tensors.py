"""Tensors to plan for: those of a model file, or those of a mapping, told about in the same way."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from codec.dtypes import BY_NAME, element_type
from codec.encoding.sources import FrameSource
from codec.encoding.stats import stats_of, tensor_stats
from codec.errors import UnknownTensorError
from codec.kernels import thread_count
from codec.model import TensorInfo, naming
from codec.model.carried import Carried, carry
from codec.packed import PackedTensor
from codec.statistics import TensorStats


class Names(Protocol):
    """A file of a model, as far as its names go."""

    @property
    def names(self) -> Sequence[str]:
        """Of its tensors."""


class Tensors(Protocol):
    """What the planner asks of a model: `codec.model.ModelFile` has all of it."""

    @property
    def files(self) -> Sequence[Names]:
        """Its files: tied tensors are stored once in a file."""

    def __iter__(self) -> Iterator[str]:
        """The names of its tensors."""

    def info(self, name: str) -> TensorInfo:
        """What is known of a tensor without its elements."""

    def get_stored(self, name: str) -> PackedTensor | Carried:
        """The tensor, as it is stored."""


class GivenTensors:
    """Tensors of a mapping, as ``save_file`` takes them."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._infos: dict[str, TensorInfo] = {}
        self.names = tuple(tensors)
        first: dict[Hashable, str] = {}
        for name in self.names:
            with naming(name):
                found = self.get_stored(name)
            place = id(self._tensors[name]) if isinstance(found, PackedTensor) else found.place
            tied = None if place is None else first.setdefault(place, name)
            self._infos[name] = _info(name, found, tied if tied != name else None)

    @property
    def files(self) -> Sequence[Names]:
        """They are one file."""
        return (self,)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def info(self, name: str) -> TensorInfo:
        """See Tensors."""
        if name not in self._infos:
            raise UnknownTensorError(name, self.names)
        return self._infos[name]

    def get_stored(self, name: str) -> PackedTensor | Carried:
        """See Tensors."""
        value = self._tensors[name]
        return value if isinstance(value, PackedTensor) else carry(value)


def _info(name: str, found: PackedTensor | Carried, tied: str | None) -> TensorInfo:
    if isinstance(found, PackedTensor):
        dtype = element_type(found.dtype).name
        return TensorInfo(
            name, dtype, found.shape, found.layout, found.nbytes, found.dense_nbytes, found.nnz, "frame", tied
        )
    return TensorInfo(name, found.dtype, found.shape, "dense", found.nbytes, found.nbytes, None, "dense", tied)


def can_be_counted(info: TensorInfo) -> bool:
    """Whether the format has its dtype."""
    return info.dtype in BY_NAME


def stats_of_stored(info: TensorInfo, stored: PackedTensor | Carried) -> TensorStats:
    """What sizes of a stored tensor depend on."""
    if not prod(info.shape):  # one without elements has the same counts in any shape
        return tensor_stats(np.zeros((0, 0), BY_NAME[info.dtype].dtype))
    if isinstance(stored, PackedTensor):
        return stats_of(FrameSource(stored.spans, thread_count(None)))
    return tensor_stats(stored.array())
