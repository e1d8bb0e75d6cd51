"""Reading models: an open model of one file or many, its tensors, and parts of them (spec section 8).

Damage is found when it is met: header and index at opening, a tensor's bytes whenever they are read.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from codec import tensor as codec_tensor
from codec.arraylike import to_torch
from codec.dtypes import BY_NAME
from codec.elements import Pieces
from codec.errors import ArgumentError, CodecError, FormatError, UnknownTensorError
from codec.indexing import take
from codec.model.carried import Carried
from codec.model.container import nbytes_of
from codec.model.file import OpenFile, naming
from codec.packed import PackedTensor


@dataclass(frozen=True)
class TensorInfo:
    """What a model file says of one tensor without reading it.

    ``dtype`` is the safetensors name. ``stored_as`` is "frame" or "dense"; a tensor stored as itself has ``layout``
    "dense", and its ``nnz`` is not known (None). ``nbytes`` are the bytes in the file, ``dense_nbytes`` those of the
    array. A tensor that is stored once under another name has that in ``alias_of``, and no bytes of its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    nbytes: int
    dense_nbytes: int
    nnz: int | None
    stored_as: str
    alias_of: str | None = None


@dataclass(frozen=True)
class TensorCheck:
    """One tensor's result of verify(). ``checked`` is False where the file has no CRC to compare with."""

    name: str
    checked: bool
    error: CodecError | None

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return self.error is None


@dataclass(frozen=True)
class VerifyReport:
    """All results of verify(), in the order of the file."""

    tensors: tuple[TensorCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong with any tensor."""
        return all(check.ok for check in self.tensors)


@dataclass(frozen=True)
class Origin:
    """Where an open model came from: what safe_open was asked for, and how a copy of it is opened again.

    ``index`` is the content of the sharded model's index.json, without its weight_map.
    """

    path: str
    framework: str
    mmap: bool
    index: dict[str, Any] | None
    reopen: Callable[[str, str, bool, tuple[str, ...]], "ModelFile"]


class ModelFile:
    """An open model: one file or all shards of one. Made by safe_open.

    A copy, or one that was pickled and loaded in another process, opens the same path again, and is refused if another
    file lies there meanwhile.
    """

    def __init__(self, files: list[OpenFile], origin: Origin) -> None:
        self.files, self.origin = files, origin
        self._where: dict[str, OpenFile] = {}
        for file in files:
            file.one_of_many = len(files) > 1
            for name in file.names:
                if name in self._where:
                    raise FormatError(f"is in {self._where[name].raw.path!r} and in {file.raw.path!r} too", tensor=name)
                self._where[name] = file

    def __reduce__(self) -> tuple[Any, ...]:
        origin, prints = self.origin, tuple(file.fingerprint() for file in self.files)
        return origin.reopen, (os.path.abspath(origin.path), origin.framework, origin.mmap, prints)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what was read stays valid."""
        for file in self.files:
            file.raw.close()

    def keys(self) -> list[str]:
        """Names, in the order of the file's data (and of the shards); those of a file's aliases come last."""
        return list(self._where)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def metadata(self) -> dict[str, str]:
        """The user's metadata: all entries but the index; of a sharded model, those that its shards agree on."""
        first, *others = (file.metadata for file in self.files) if self.files else ({},)
        return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

    def info(self, name: str) -> TensorInfo:
        """What is known of a tensor without reading its data."""
        file = self._find(name)
        record, alias_of = file.record(name), file.aliases.get(name)
        return TensorInfo(
            name=name,
            dtype=record.dtype,
            shape=record.shape,
            layout=record.layout or "dense",
            nbytes=record.nbytes if alias_of is None else 0,
            dense_nbytes=nbytes_of(record.dtype, record.shape),
            nnz=record.nnz,
            stored_as="dense" if record.layout is None else "frame",
            alias_of=alias_of,
        )

    def get_tensor(self, name: str) -> Any:
        """The tensor, decoded: a NumPy array, or with ``framework="pt"`` a torch tensor."""
        file = self._find(name)
        with naming(name, file.name):
            return self._given(file.array(file.aliases.get(name, name)))

    def get_packed(self, name: str, objective: str | None = None, *, batch: int | None = None) -> PackedTensor:
        """The tensor, packed as it is stored; with ``objective`` in the best layout for that.

        ``batch`` is that of `encode`.
        A tensor stored as itself comes in layout "dense", with every bit kept.
        """
        found = self.get_stored(name)
        with naming(name, self._find(name).name):
            if isinstance(found, Carried):
                found = codec_tensor.encode(found.array(), layout="dense", entropy="none", zero="bits")
            return found if objective is None else found.to_layout("auto", objective=objective, batch=batch)

    def get_stored(self, name: str) -> PackedTensor | Carried:
        """The tensor as it is stored, for writing it to another file without a change.

        A packed tensor, or its bytes, of which nothing is read before they are asked for. save_file takes both.
        """
        file = self._find(name)
        stored = file.aliases.get(name, name)
        with naming(name, file.name):
            return file.carried(stored) if file.records[stored].layout is None else file.frame(stored)

    def get_pieces(self, name: str) -> Pieces:
        """The tensor's elements some at a time, for what needs no more of them; each time they are read again.

        ArgumentError for a dtype that cannot be packed.
        """
        file = self._find(name)
        stored = file.aliases.get(name, name)
        record = file.records[stored]
        if record.dtype not in BY_NAME:
            raise ArgumentError(f"tensor {name!r}: dtype {record.dtype} cannot be packed, only stored as it is")
        with naming(name, file.name):
            elements = file.elements(stored)

        def read(first: int, count: int) -> np.ndarray:
            with naming(name, file.name):
                return elements(first, count)

        return Pieces(BY_NAME[record.dtype].dtype, record.shape, read)

    def get_slice(self, name: str) -> "TensorSlice":
        """The tensor as something to index: only what it needs along the first axis is read."""
        return TensorSlice(self, self._find(name), name)

    def verify(self, *, raise_on_error: bool = True) -> VerifyReport:
        """Read and decode everything, one tensor at a time.

        Returns the result of each tensor; the first fault is raised, unless ``raise_on_error=False``.
        """
        checks: dict[str, TensorCheck] = {}
        for name, file in self._where.items():
            error: CodecError | None = None
            if name in file.aliases:
                error = checks[file.aliases[name]].error
            else:
                try:
                    with naming(name, file.name):
                        file.verify(name)
                except FormatError as caught:
                    if raise_on_error:
                        raise
                    error = caught
            checks[name] = TensorCheck(name, file.indexed, error)
        return VerifyReport(tuple(checks.values()))

    def _find(self, name: str) -> OpenFile:
        try:
            return self._where[name]
        except (KeyError, TypeError):
            raise UnknownTensorError(str(name), self._where) from None

    def _given(self, array: Any) -> Any:
        return to_torch(array) if self.origin.framework == "pt" else array


class TensorSlice:
    """One tensor of an open model, to be indexed as NumPy indexes an array of its shape.

    Of a frame the head and the segments of the leading indices named are read, of a tensor stored as itself the MiBs;
    the rest is indexed in memory. A copy of a slice opens the model again, as a copy of the model does.
    """

    def __init__(self, model: ModelFile, file: OpenFile, name: str) -> None:
        self._model, self._file, self._name = model, file, name
        self._stored = file.aliases.get(name, name)
        self._record = file.records[self._stored]

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelFile.get_slice, (self._model, self._name)

    def get_shape(self) -> list[int]:
        """Shape of the tensor."""
        return list(self._record.shape)

    def get_dtype(self) -> str:
        """The safetensors name of the dtype."""
        return self._record.dtype

    def __getitem__(self, key: Any) -> Any:
        with naming(self._name, self._file.name):
            found = take(self._record.shape, key, self._leading)
        if isinstance(found, np.ndarray) and found.base is not None and found.base.nbytes > found.nbytes:
            found = found.copy()  # a small result does not hold all that was read for it
        return self._model._given(found)

    def _leading(self, start: int, stop: int) -> np.ndarray:
        shape = self._record.shape
        step = math.prod(shape[1:])
        found = self._file.elements(self._stored)(start * step, (stop - start) * step)
        return found.reshape(stop - start, *shape[1:])
