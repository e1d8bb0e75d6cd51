"""Which tensors of a model are stored once where both are packed: fingerprints that are taken as they are counted."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.costs.options import Option
from codec.costs.tensors import Tensors
from codec.dtypes import element_type
from codec.kernels import octets

_PIECE = 1 << 18  # elements at a time, so that temporary arrays stay small


class Prints:
    """Fingerprints of the tensors that could be tied: those that share their dtype and shape with another of the file.

    What is the same memory in the file is tied whatever becomes of it; copies are tied where both are packed, as their
    frames are the same.
    """

    def __init__(self, model: Tensors) -> None:
        self._model = model
        self._file = {name: number for number, file in enumerate(model.files) for name in file.names}
        self._alike = Counter(self._kind(name) for name in model if model.info(name).alias_of is None)
        self._found: dict[str, bytes] = {}

    def add(self, name: str, array: Callable[[], npt.NDArray[Any]], zero: str) -> None:
        """The fingerprint of a tensor under its zero rule; its array is asked for only where that is needed."""
        if self._alike[self._kind(name)] > 1:
            self._found[name] = _print(array(), zero)

    def ties(self, chosen: Mapping[str, Option]) -> dict[str, str]:
        """The names that take no bytes where tensors are stored as chosen, each with the one that does.

        Of tied names that is the first by code point.
        """
        groups: dict[Any, list[str]] = {}
        for name, option in chosen.items():
            stored = self._model.info(name).alias_of or name
            same = self._found.get(stored, stored) if option.packed else stored
            groups.setdefault((self._kind(name), same, option.packed, option.label, option.entropy), []).append(name)
        return {name: min(group) for group in groups.values() for name in group if name != min(group)}

    def _kind(self, name: str) -> tuple[Any, ...]:
        info = self._model.info(name)
        return self._file[name], info.dtype, info.shape


def _print(array: npt.NDArray[Any], zero: str) -> bytes:
    """Equal for tensors that are packed to the same bytes: what the rule drops is only counted in a frame."""
    element = element_type(array.dtype)
    bits = np.ascontiguousarray(array, element.dtype).reshape(-1).view(element.unsigned)
    digest, lost = hashlib.sha256(zero.encode()), 0
    for start in range(0, bits.size, _PIECE):
        piece = bits[start : start + _PIECE]
        if zero == "value" and element.sign_bit and (negative := piece == element.sign_bit).any():
            lost += int(np.count_nonzero(negative))
            piece = np.where(negative, element.unsigned.type(0), piece)
        digest.update(octets(piece).data)
    digest.update(lost.to_bytes(8, "little"))
    return digest.digest()
