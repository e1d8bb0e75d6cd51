"""safetensors files, sharded models and folders: dense tensors, and those that lie beside their pruning masks.

Formats that keep a sparse tensor as several plain tensors of one name and different suffixes are subclasses.
"""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from codec.dtypes import BY_NAME, element_type
from codec.errors import ArgumentError, FormatError
from codec.formats.base import Format, Place, Source, Stored, array_of, carried, dense, missing
from codec.interop.folding import MaskedPair, check_halves, folded, masked_pairs
from codec.model import ModelFile, naming, safe_open
from codec.model.shards import SUFFIX, is_index_name
from codec.model.writer import checked_metadata, write_plain
from codec.packed import PackedTensor

Parts = dict[str, np.ndarray]


def with_folded(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Tensors in which every pair of weights and mask is one; ArgumentError if one half of a pair is missing."""
    check_halves(tensors)
    pairs = masked_pairs(tensors, beside=True)
    masks, halves = {pair.mask for pair in pairs}, {pair.orig: pair for pair in pairs}
    found: dict[str, Stored] = {}
    for name, stored in tensors.items():
        if (pair := halves.get(name)) is not None:
            if pair.name in found or (pair.name != name and pair.name in tensors):
                raise FormatError("is there twice, each time with a mask: keep one", tensor=pair.name)
            found[pair.name] = Stored(partial(_folded, pair, stored, tensors[pair.mask]), stored.file)
        elif name not in masks:
            found[name] = stored
    return found


def _folded(pair: MaskedPair, orig: Stored, mask: Stored) -> np.ndarray:
    return folded(pair, array_of(orig.read()), array_of(mask.read()))


class TensorFiles(Format):
    """Formats whose files are safetensors files: one, or shards beside an index."""

    suffix = SUFFIX
    keeps_metadata = True

    def claims(self, place: Place) -> bool:
        """By its name and its first bytes."""
        if place.is_folder:
            return bool(place.ending(SUFFIX)) or any(map(is_index_name, place.names))
        return place.first[8:9] == b"{" or is_index_name(place.path)

    def open(self, place: Place) -> Source:
        """Every tensor as it is stored."""
        model = safe_open(place.path)
        try:
            return self._source(model, place)
        except BaseException:
            model.close()
            raise

    def _source(self, model: ModelFile, place: Place) -> Source:
        file_of: dict[str, str] = {}
        for file in model.files:
            file_of |= dict.fromkeys(file.names, os.path.basename(file.raw.path).removesuffix(SUFFIX))
        tensors = with_folded(self.stored(model, file_of))
        metadata = model.metadata()
        lost = sorted({key for file in model.files for key in file.metadata} - metadata.keys())
        notes = (
            [f"metadata left out, on which the shards do not agree: {', '.join(map(repr, lost[:5]))}"] if lost else []
        )
        return Source(self.name, place.path, tensors, metadata, model.close, notes, model.origin.index or {})

    def stored(self, model: ModelFile, file_of: Mapping[str, str]) -> dict[str, Stored]:
        """The tensors that are in the files."""
        return {name: Stored(partial(model.get_stored, name), file_of[name]) for name in model}


class Safetensors(TensorFiles):
    """Plain tensors, each under its own name."""

    name = "safetensors"
    summary = "dense tensors, as safetensors, SparseGPT, Wanda and llm-compressor write them; masks beside are folded"
    reads = writes = tuple(BY_NAME)

    def form(self, name: str, value: Any, wanted: bool | None) -> Any:
        """Always dense."""
        return dense(value)

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """One tensor is in memory at a time."""
        infos = []
        for name in tensors:
            value = tensors[name]
            with naming(name):
                plain = carried(value)
            infos.append((name, plain.dtype, plain.shape))
        write_plain(path, infos, tensors.__getitem__, checked_metadata(metadata))


class Companions(TensorFiles):
    """A sparse tensor as several plain ones: ``STEM.SUFFIX`` for each suffix.

    Attributes
    ----------
    parts : tuple of str
        All suffixes.
    marks : tuple of str
        Suffixes of which any one says that a tensor of that stem is stored so, even if others are missing.
    """

    parts: ClassVar[tuple[str, ...]]
    marks: ClassVar[tuple[str, ...]]

    @abstractmethod
    def split(self, packed: PackedTensor) -> Parts:
        """The plain tensors by suffix; ArgumentError for a tensor that the format does not have."""

    @abstractmethod
    def join(self, parts: Parts) -> PackedTensor:
        """The tensor; FormatError for parts that do not belong together."""

    def stem(self, name: str) -> str:
        """What stands before the suffixes of a tensor of that name."""
        return name

    def whole(self, stem: str) -> str:
        """The tensor's name for a stem."""
        return stem

    def groups(self, names: Any) -> dict[str, dict[str, str]]:
        """Names of plain tensors by stem and suffix, for every tensor that is stored in parts."""
        known, found = dict.fromkeys(names), {}
        for name in known:
            stem, dot, suffix = name.rpartition(".")
            if dot and suffix in self.marks:
                found[stem] = {part: f"{stem}.{part}" for part in self.parts if f"{stem}.{part}" in known}
        return found

    def claims(self, place: Place) -> bool:
        """By the names of its tensors."""
        return super().claims(place) and bool(self.groups(place.tensors))

    def stored(self, model: ModelFile, file_of: Mapping[str, str]) -> dict[str, Stored]:
        """Joined tensors in the place of their first part; FormatError where one is missing or there twice."""
        groups = self.groups(model)
        for stem, group in groups.items():
            if len(group) < len(self.parts):
                raise missing(stem, group, self.parts)
        times = Counter(map(self.whole, groups))
        if twice := [name for name, count in times.items() if count > 1 or name in model]:
            raise FormatError("is in the file twice, in parts and whole or by two stems: keep one", tensor=twice[0])
        stem_of = {name: stem for stem, group in groups.items() for name in group.values()}
        found: dict[str, Stored] = {}
        for name in model:
            if name in stem_of:
                stem = stem_of[name]
                found.setdefault(self.whole(stem), Stored(partial(self._joined, model, groups[stem]), file_of[name]))
            else:
                found[name] = Stored(partial(model.get_stored, name), file_of[name])
        return found

    def _joined(self, model: ModelFile, group: Mapping[str, str]) -> PackedTensor:
        return self.join({part: array_of(model.get_stored(name)) for part, name in group.items()})

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """What is sparse is in memory, split; of what is dense one tensor at a time."""
        made: Parts = {}
        others: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name in tensors:
            value = tensors[name]
            with naming(name):
                if isinstance(value, PackedTensor):
                    self.check(name, value)
                    made |= {f"{self.stem(name)}.{part}": array for part, array in self.split(value).items()}
                else:
                    plain = carried(value)
                    others[name] = plain.dtype, plain.shape
        if both := made.keys() & others.keys():
            raise ArgumentError(f"tensor {min(both)!r}: another tensor's part has this name; rename it")
        infos = [(name, element_type(array.dtype).name, array.shape) for name, array in made.items()]
        infos += [(name, *info) for name, info in others.items()]
        write_plain(path, infos, lambda name: made[name] if name in made else tensors[name], checked_metadata(metadata))
