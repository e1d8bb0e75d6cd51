"""From one format to another: which tensors go sparse, and which files are written."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from codec.errors import ArgumentError
from codec.formats.archives import FilePerTensor
from codec.formats.base import Format, Place, Source
from codec.formats.compressed_tensors import SPARSE, config_of, with_sparsity
from codec.formats.packed import Packed
from codec.formats.positions import stored_negative_zeros
from codec.formats.registry import FORMATS, named_format
from codec.formats.safetensors import TensorFiles
from codec.model import naming, safe_open
from codec.model.huggingface import (
    CONFIG,
    config_bytes,
    packed_config,
    packed_name,
    plain_config,
    plain_name,
    without_removed,
)
from codec.model.output import Output, check_alone, companions, copy_companions, index_aside, version_of
from codec.model.shards import INDEX_SUFFIX, SUFFIX, write_shard_index
from codec.packed import PackedTensor

# A model's file where the source has no name for it; transformers looks for this one.
_STEM, _TORCH_STEM = "model", "pytorch_model"


def write_file(
    tensors: Mapping[str, Any],
    path: str | os.PathLike[str],
    format: str,
    *,
    like: str | os.PathLike[str] | None = None,
    sparse: Callable[[str], bool | None] = lambda name: None,
) -> list[str]:
    """Write tensors in the format of another tool.

    Parameters
    ----------
    tensors : mapping of str to array-like, torch tensor or PackedTensor
        From memory, or an open Source.
    path : path
        A file; for formats with a file for each tensor a folder, or the file of the only tensor.
    format : str
        One of FORMATS.
    like : path, optional
        For "onnx" and "tflite" a model whose network is kept: the tensors replace those of their names in it.
    sparse : callable
        For a tensor's name whether it has to be sparse (True), dense (False), or sparse if it has two dimensions or
        more and is smaller so (None, the default).

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    ArgumentError
        For a format that is unknown or not installed, and for a tensor that it cannot express; the message names it,
        and no file with it is written.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/w.npz"
    >>> _ = write_file({"w": np.eye(64)}, path, "scipy")
    >>> codec.formats.open_file(path)["w"].nnz
    64
    """
    source = tensors if isinstance(tensors, Source) else Source.of(tensors)
    made = Conversion(
        source, named_format(format), os.fsdecode(path), sparse, None if like is None else os.fsdecode(like)
    )
    output = made.output()
    made.run(output)
    return made.written(output)


@dataclass
class Conversion(Mapping[str, Any]):
    """The tensors of a source in the form that another format writes, each made when it is asked for.

    Attributes
    ----------
    source : Source
    target : Format
    dst : str
        A file, or a folder: for a source that is a folder, and for formats with a file for each tensor.
    wanted : callable
        Whether a tensor of that name has to be sparse (True), dense (False), or what is smaller (None).
    like : str or None
        A file whose network is kept, for formats of networks; by default the source, where it is of the same format.
    way_out : str
        What to do about a tensor that cannot be expressed.
    sparse, dense : dict of str to int
        What became of the tensors, and the bytes of each when it is dense.
    elements, zeros, negative_zeros : int
        Of the tensors that are sparse; the last are those -0.0 that became +0.0 here.
    removed : list of str
        Shards that an earlier model had left in the folder.

    Raises ArgumentError for ``like`` where the target has no networks.
    """

    source: Source
    target: Format
    dst: str
    wanted: Callable[[str], bool | None] = lambda name: None
    like: str | None = None
    way_out: str = "sparse= may say that it stays dense"
    sparse: dict[str, int] = field(init=False, default_factory=dict)
    dense: dict[str, int] = field(init=False, default_factory=dict)
    elements: int = field(init=False, default=0)
    zeros: int = field(init=False, default=0)
    negative_zeros: int = field(init=False, default=0)
    removed: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.like is not None and not self.target.networks:
            networks = " and ".join(name for name, one in FORMATS.items() if one.networks)
            raise ArgumentError(f"{self.like!r}: a network to keep is for {networks}; {self.target.name} has none")

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, name: str) -> Any:
        value = self.source.stored(name)
        with naming(name):
            try:
                found = self.target.form(name, value, self.wanted(name))
            except ArgumentError as error:
                raise ArgumentError(f"{error}; {self.way_out}") from None
        if isinstance(found, PackedTensor):
            self.sparse[name] = found.dense_nbytes
            self.elements += found.size
            self.zeros += found.size - found.nnz
            self.negative_zeros += 0 if isinstance(value, PackedTensor) else found.negative_zeros
            self.negative_zeros += stored_negative_zeros(found) if self.target.drops_zeros else 0
        else:
            self.dense[name] = int(found.nbytes)
        return found

    @property
    def folder(self) -> str | None:
        """The folder to write into, or None for a single file."""
        is_file = self.dst.endswith(self.target.suffix)
        as_folder = isinstance(self.target, FilePerTensor) or os.path.isdir(self.source.path)
        return self.dst if os.path.isdir(self.dst) or self.dst.endswith(os.sep) or (as_folder and not is_file) else None

    def output(self) -> Output:
        """The files to write, each with its tensors, and the index of shards where there are several.

        Raises ArgumentError where the target cannot take them.
        """
        files, index = self._files(), None
        folder, renamed = self.folder, self._renamed
        if folder is not None:
            if self.source.path and os.path.realpath(folder) == os.path.realpath(self.source.path):
                raise ArgumentError(f"{folder!r} is the source's own folder: give another one")
            files = {os.path.join(folder, renamed(name)): names for name, names in files.items()}
            if len(files) > 1 and not isinstance(self.target, FilePerTensor):
                index = os.path.join(folder, renamed(_STEM + INDEX_SUFFIX))
        output = Output(
            files=files,
            metadata=dict.fromkeys(files, self.source.metadata),
            index=index,
            folder=folder,
            along=folder is not None and os.path.isdir(self.source.path),
            source_folder=Place.of(self.source.path).folder if self.source.path else "",
        )
        if folder is not None and isinstance(self.target, TensorFiles):
            check_alone(output)
        return output

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The config.json of a source that is a folder, for an output that is one; None if there is none."""
        if self.folder is None or not os.path.isdir(self.source.path):
            return None
        return config_of(Place.of(self.source.path)) or None

    @property
    def _is_of_transformers(self) -> bool:
        return self.config is not None and isinstance(self.config.get("model_type"), str)

    def _renamed(self, name: str) -> str:
        """The name of a file of weights: in a folder of transformers that of packed ones, or of plain ones."""
        if not self._is_of_transformers:
            return name
        return packed_name(name) if isinstance(self.target, Packed) else plain_name(name)

    @property
    def metadata_left_out(self) -> list[str]:
        """Entries of the source's metadata for which the target has no room."""
        return [] if self.target.keeps_metadata else sorted(self.source.metadata.keys() - {"format"})

    def _files(self) -> dict[str, tuple[str, ...]]:
        """The files with their tensors: paths, or names where they go into a folder."""
        names = tuple(self)
        one_by_one = isinstance(self.target, FilePerTensor)
        if isinstance(self.target, FilePerTensor) and self.folder is not None:
            return {self.target.file_name(name): (name,) for name in names}
        if one_by_one and len(names) != 1:
            raise ArgumentError(
                f"{self.dst!r}: {self.target.name} has one tensor in a file, and there are {len(names)}: name a folder"
            )
        if self.folder is None:
            self._check_name()
            return {self.dst: names}
        shards = {} if isinstance(FORMATS[self.source.format], FilePerTensor) else self.source.files
        if len(shards) > 1 and isinstance(self.target, TensorFiles):
            renamed = {_stem(stem) + SUFFIX: own for stem, own in shards.items()}
            return renamed if len(renamed) == len(shards) else {stem + SUFFIX: own for stem, own in shards.items()}
        return {(_stem(next(iter(shards))) if len(shards) == 1 else _STEM) + self.target.suffix: names}

    def _check_name(self) -> None:
        """ArgumentError if a file of that name would be taken for one of another format."""
        if self.target.is_named(self.dst):
            return
        if others := " or ".join(name for name, one in FORMATS.items() if one.is_named(self.dst)):
            raise ArgumentError(
                f"{self.dst!r} is the name of a file of {others}, and a file of {self.target.name} ends in "
                f"{self.target.suffix}: give another name, or the format (--to)"
            )

    def run(self, output: Output, tick: Callable[[str], object] = lambda name: None) -> list[str]:
        """Write the files, all or none; returns the names of those that came along.

        What config.json says of the sparse format of weights is brought up to date.
        """
        along = companions(output)[0]
        config = self.config if CONFIG in along else None
        if config is not None:
            self._new_config(config, output)  # refuses what cannot be said before anything is written
        if output.folder is not None:
            os.makedirs(output.folder, exist_ok=True)
        with index_aside(output, output.files):
            self._write(output, tick)
            if output.index is not None:
                _write_index(output, self.source.index)
        self.removed = output.stale()
        for path in self.removed:
            os.unlink(path)
        new = config if config is None else self._new_config(config, output, _parameters(output))
        rewritten = {} if new is None or new == config else {CONFIG: config_bytes(new)}
        copy_companions(replace(output, rewritten=rewritten), along)
        return along

    def _write(self, output: Output, tick: Callable[[str], object]) -> None:
        """All files, or none: some files of a model are no model."""
        like = self.like or (self.source.path if self.source.format == self.target.name else None)
        before = {one: version_of(one) for path in output.files for one in self.target.paths(path)}
        try:
            for path, names in output.files.items():
                self.target.write(path, OneFile(self, names, tick), output.metadata[path], like)
        except BaseException:
            for path, version in before.items():
                if version_of(path) not in (None, version):
                    os.unlink(path)
            raise

    def written(self, output: Output) -> list[str]:
        """The files that are there of those that may have been written."""
        possible = [one for path in output.files for one in self.target.paths(path)]
        return [path for path in possible if os.path.exists(path)] + ([output.index] if output.index else [])

    def _new_config(self, old: dict[str, Any], output: Output, parameters: int = 0) -> dict[str, Any]:
        """What config.json says of the weights when they are in the new format."""
        if self.target.name in SPARSE:
            return with_sparsity(old, self.target.name, self.zeros / max(1, self.elements))
        if not isinstance(self.target, Packed):
            return plain_config(old)
        if not self._is_of_transformers:
            return without_removed(old)
        return packed_config(old, os.path.basename(output.paths[-1]), parameters)


@dataclass(frozen=True)
class OneFile(Mapping[str, Any]):
    """The tensors of one file of a conversion; ``tick(name)`` follows each that was asked for."""

    conversion: Conversion
    names: tuple[str, ...]
    tick: Callable[[str], object]

    def __getitem__(self, name: str) -> Any:
        found = self.conversion[name]
        self.tick(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _stem(stem: str) -> str:
    """The name of a safetensors file for the stem of a source's file, as transformers looks for it."""
    return _STEM + stem.removeprefix(_TORCH_STEM) if stem.startswith(_TORCH_STEM) else stem


def _write_index(output: Output, rest: dict[str, Any]) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for path in output.files:
        with safe_open(path) as model:
            # As the files have them: where a tensor is in parts, their names; of tied tensors the one that is stored.
            stored = (name for name in model if model.info(name).alias_of is None)
            weight_map |= dict.fromkeys(stored, os.path.basename(path))
            total += sum(model.info(name).nbytes for name in model)
    write_shard_index(str(output.index), weight_map, rest, total)


def _parameters(output: Output) -> int:
    """Elements of all tensors of a model of safetensors files; 0 for other files."""
    if not output.paths[-1].endswith((SUFFIX, INDEX_SUFFIX)):
        return 0
    with safe_open(output.paths[-1]) as model:
        return sum(prod(info.shape) for info in map(model.info, model) if info.alias_of is None)
