"""From one format to another: which format a path holds, which tensors go sparse, and which files are written."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.formats.archives import FilePerTensor
from codec.formats.base import Format, Place, Source
from codec.formats.binsparse import Binsparse
from codec.formats.compressed_tensors import (
    CONFIG,
    SPARSE,
    Sparse24Bitmask,
    SparseBitmask,
    config_of,
    with_sparsity,
    without_sparsity,
)
from codec.formats.coreml import CoreML
from codec.formats.macko import Macko
from codec.formats.onnx import Onnx
from codec.formats.packed import Packed
from codec.formats.safetensors import Safetensors, TensorFiles
from codec.formats.scipy import ScipyNpz
from codec.formats.tca_bme import TcaBme
from codec.formats.tflite import TFLite
from codec.formats.torch import TorchFile
from codec.model import naming, safe_open
from codec.model.atomic import write_atomic
from codec.model.output import Output, companions, copy_companions
from codec.model.shards import INDEX_SUFFIX, SUFFIX, write_shard_index
from codec.packed import PackedTensor

# In the order in which they are asked whether a file is theirs: what looks at more of it comes first.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Packed(), SparseBitmask(), Sparse24Bitmask(), CoreML(), Safetensors(), Macko(), TorchFile(), Binsparse(),
        ScipyNpz(), TcaBme(), Onnx(), TFLite(),
    )
}  # fmt: skip
# A model's file where the source has no name for it; transformers looks for this one.
_STEM, _TORCH_STEM = "model", "pytorch_model"


def named_format(name: str) -> Format:
    """The format of that name, with what it needs installed; ArgumentError, with close names, if there is none.

    >>> named_format("safetensor")
    Traceback (most recent call last):
        ...
    codec.errors.ArgumentError: no format 'safetensor'; did you mean 'safetensors'? codec formats lists all
    """
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        raise ArgumentError(
            f"no format {name!r}{f'; did you mean {near[0]!r}?' if near else ';'} codec formats lists all"
        )
    FORMATS[name].require()
    return FORMATS[name]


def format_of(path: str) -> Format | None:
    """The format of what lies at a path, whether or not what it needs is installed; None if none is known.

    Raises FormatError for a damaged file, and OSError.
    """
    place = Place.of(path)
    return next((one for one in FORMATS.values() if one.claims(place)), None)


def open_file(path: str | os.PathLike[str], format: str | None = None) -> Source:
    """Open a file or folder of another tool.

    Parameters
    ----------
    path : path
        What holds the model, or a single tensor.
    format : str, optional
        One of FORMATS; by default what the bytes and names there look like. It is a name in a closed list: no file
        chooses code by what it says.

    Returns
    -------
    Source
        A mapping of names to PackedTensors (what is stored sparse) and arrays, each made when it is asked for.

    Raises
    ------
    ArgumentError
        For an unknown format, or one whose extra is not installed.
    FormatError
        For a file that is damaged or contradicts itself; it names the tensor.

    Examples
    --------
    >>> with open_file("pruned.onnx") as model:  # doctest: +SKIP
    ...     weights = dict(model)
    """
    place = os.fsdecode(path)
    found = format_of(place) if format is None else named_format(format)
    if found is None:
        raise ArgumentError(f"{place!r} is of no format that is known here; codec formats lists those that are")
    found.require()
    return found.open(Place.of(place))


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
    >>> open_file(path)["w"].nnz
    64
    """
    source = tensors if isinstance(tensors, Source) else Source.of(tensors)
    made = Conversion(
        source, named_format(format), os.fsdecode(path), sparse, None if like is None else os.fsdecode(like)
    )
    output = made.output()
    made.run(output)
    return made.written(output)


def support() -> list[dict[str, Any]]:
    """Which format takes which dtypes, in and out: one row for each format, as `codec formats` prints it.

    Returns
    -------
    list of dict
        ``format``, ``summary``, ``extra``, and ``dtypes``: by safetensors name "in", "out", "in, out" or "".

    >>> support()[0]["format"], support()[0]["dtypes"]["BF16"]
    ('codec', 'in, out')
    """
    return [
        {
            "format": one.name,
            "summary": one.summary,
            "extra": one.extra,
            "dtypes": {
                name: ", ".join(word for word, dtypes in (("in", one.reads), ("out", one.writes)) if name in dtypes)
                for name in BY_NAME
            },
        }
        for one in FORMATS.values()
    ]


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
        A file whose network is kept; by default the source, where it is of the same format.
    way_out : str
        What to do about a tensor that cannot be expressed.
    sparse, dense : dict of str to int
        What became of the tensors, and the bytes of each when it is dense.
    elements, zeros, negative_zeros : int
        Of the tensors that are sparse; the last are those -0.0 that became +0.0 here.
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
        folder = self.folder
        if folder is not None:
            if self.source.path and os.path.realpath(folder) == os.path.realpath(self.source.path):
                raise ArgumentError(f"{folder!r} is the source's own folder: give another one")
            files = {os.path.join(folder, name): names for name, names in files.items()}
            if len(files) > 1 and not isinstance(self.target, FilePerTensor):
                index = os.path.join(folder, _STEM + INDEX_SUFFIX)
        return Output(
            files=files,
            metadata=dict.fromkeys(files, self.source.metadata),
            index=index,
            folder=folder,
            along=folder is not None and os.path.isdir(self.source.path),
            source_folder=Place.of(self.source.path).folder if self.source.path else "",
        )

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
            return {self.dst: names}
        shards = {} if isinstance(FORMATS[self.source.format], FilePerTensor) else self.source.files
        if len(shards) > 1 and isinstance(self.target, TensorFiles):
            return {_stem(stem) + SUFFIX: own for stem, own in shards.items()}
        return {(_stem(next(iter(shards))) if len(shards) == 1 else _STEM) + self.target.suffix: names}

    def run(self, output: Output, tick: Callable[[str], object] = lambda name: None) -> list[str]:
        """Write the files, all or none; returns the names of those that came along.

        What config.json says of the sparse format of weights is brought up to date.
        """
        along = companions(output)[0]
        config = config_of(Place.of(self.source.path)) if CONFIG in along else None
        if config is not None:
            self._config(config)  # refuses what cannot be said before anything is written
        if output.folder is not None:
            os.makedirs(output.folder, exist_ok=True)
        like = self.like or (self.source.path if self.source.format == self.target.name else None)
        done: list[str] = []
        try:
            for path, names in output.files.items():
                self.target.write(path, OneFile(self, names, tick), output.metadata[path], like)
                done += self.target.paths(path)
        except BaseException:  # some files of a model are no model
            for path in done:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            raise
        if output.index is not None:
            _write_index(output)
        copy_companions(output, along)
        if config is not None and (new := self._config(config)) != config:
            text = json.dumps(new, indent=2, ensure_ascii=False).encode()
            write_atomic(os.path.join(str(output.folder), CONFIG), [text + b"\n"])
        return along

    def written(self, output: Output) -> list[str]:
        """The files that are there of those that may have been written."""
        possible = [one for path in output.files for one in self.target.paths(path)]
        return [path for path in possible if os.path.exists(path)] + ([output.index] if output.index else [])

    def _config(self, old: dict[str, Any]) -> dict[str, Any]:
        """What config.json says of the weights when they are in the new format."""
        if self.target.name in SPARSE:
            return with_sparsity(old, self.target.name, self.zeros / max(1, self.elements))
        return without_sparsity(old)


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


def _write_index(output: Output) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for path in output.files:
        with safe_open(path) as model:
            # As the files have them: where a tensor is in parts, their names.
            weight_map |= dict.fromkeys(model.keys(), os.path.basename(path))
            total += sum(model.info(name).nbytes for name in model)
    write_shard_index(str(output.index), weight_map, {}, total)
