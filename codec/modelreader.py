"""Reading model files: an open file, its tensors, and parts of them (spec section 8).

Damage is found when it is met: header and index at opening, a tensor's bytes whenever they are read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from codec import tensor as codec_tensor
from codec.dtypes import BY_NAME, element_type
from codec.errors import ArgumentError, CodecError, FormatError, UnknownTensorError
from codec.frame import MAGIC, Head
from codec.head import read_head
from codec.indexing import take
from codec.kernels import octets, thread_count
from codec.modelindex import CRC_STEP, KEY, LOST, START, Record, check_crcs, decode_index
from codec.safetensors_io import Entry, RawFile, nbytes_of
from codec.spans import on_demand
from codec.tensor import PackedTensor


@dataclass(frozen=True)
class TensorInfo:
    """What a model file says of one tensor without reading it.

    ``dtype`` is the safetensors name. A tensor stored as itself has ``layout`` "dense", and its ``nnz`` is not known
    (None). ``nbytes`` are the bytes in the file, ``dense_nbytes`` those of the array.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    nbytes: int
    dense_nbytes: int
    nnz: int | None
    stored_as: str


@dataclass(frozen=True)
class TensorCheck:
    """One tensor's result of verify(). ``checked`` is False where the file has no CRC to compare with."""

    name: str
    checked: bool
    error: CodecError | None

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class VerifyReport:
    """All results of verify(), in the order of the file."""

    tensors: tuple[TensorCheck, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.tensors)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors met inside name the tensor."""
    try:
        yield
    except FormatError as error:
        raise error.at(name) from error
    except ArgumentError as error:
        raise ArgumentError(f"tensor {name!r}: {error}") from error


class OpenFile:
    """One open file: the header, and a record for every tensor."""

    def __init__(self, raw: RawFile) -> None:
        self.raw = raw
        self.header = raw.read_header()
        self.metadata = {key: value for key, value in self.header.metadata.items() if key != KEY}
        self.indexed = KEY in self.header.metadata
        self.records = decode_index(self.header.metadata[KEY], self.header) if self.indexed else self._plain()

    def _plain(self) -> dict[str, Record]:
        if any(value.startswith(START) for value in self.metadata.values()):
            raise FormatError(f"metadata holds the index under a key other than {KEY!r}{LOST}")
        for entry in self.header.entries.values():
            if is_frame(self.raw, entry):
                raise FormatError(f"holds a frame, but the file has no index{LOST}", tensor=entry.name)
        return {e.name: Record(e.dtype, e.shape, None, e.nbytes, None, ()) for e in self.header.entries.values()}

    def read(self, name: str, offset: int, length: int, align: int = 1) -> memoryview:
        entry = self.header.entries[name]
        if offset < 0 or length < 0 or length > entry.nbytes - offset:
            raise FormatError(f"{length} bytes asked for, the tensor has {entry.nbytes}", offset=offset)
        return self.raw.read(entry.start + offset, length, align)

    def frame(self, name: str) -> PackedTensor:
        """The whole frame, as the index describes it. What is mapped is checked when it is used."""
        record = self.records[name]
        data = self.read(name, 0, record.nbytes, 64)
        if not data.readonly:
            check_crcs(data, record)
        packed = codec_tensor.loads(data, copy=False)
        _agree(record, packed)
        return packed

    def dense(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """``count`` elements of a tensor stored as itself, flat; whole MiBs are read, as the CRCs cover those."""
        record = self.records[name]
        dtype = _array_dtype(record)
        start = first * dtype.itemsize
        stop = record.nbytes if count is None else start + count * dtype.itemsize
        step = CRC_STEP if self.indexed else 1
        low, high = start // step * step, min(record.nbytes, -(-stop // step) * step)
        data = self.read(name, low, high - low, dtype.itemsize)
        if self.indexed:
            check_crcs(data, record, low // step)
        found = np.frombuffer(data[start - low : stop - low], np.uint8).view(dtype)
        return found if data.readonly or len(data) == found.nbytes else found.copy()  # few elements hold no MiB

    def some(self, name: str, first: int, count: int) -> np.ndarray:
        """``count`` elements of a frame, flat, of which only the head and the segments needed are read."""
        record = self.records[name]

        def read(offset: int, length: int) -> memoryview:
            return self.read(name, offset, length)

        head = read_head(read, record.nbytes)
        _agree(record, head)
        out = np.empty(count, head.element.dtype)
        on_demand(head, read).decode(first, count, octets(out), thread_count(None))
        return out

    def array(self, name: str) -> np.ndarray:
        """The whole tensor, decoded."""
        if self.records[name].layout is None:
            return self.dense(name).reshape(self.records[name].shape)
        return codec_tensor.decode(self.frame(name))

    def stored(self, name: str) -> memoryview:
        """The tensor's bytes as they lie in the file, compared with the index."""
        data = self.read(name, 0, self.records[name].nbytes)
        if self.indexed:
            check_crcs(data, self.records[name])
        return data


def is_frame(raw: RawFile, entry: Entry) -> bool:
    """Whether a tensor of a safetensors file holds a frame, as far as its dtype, rank and first bytes say."""
    framed = entry.dtype == "U8" and len(entry.shape) == 1 and entry.nbytes >= len(MAGIC)
    return framed and bytes(raw.read(entry.start, len(MAGIC))) == MAGIC


def _agree(record: Record, found: PackedTensor | Head) -> None:
    """What the frame says of itself is what the index says of it."""
    if isinstance(found, Head):
        said = found.element.name, found.shape, found.layout.name, found.nnz
    else:
        said = element_type(found.dtype).name, found.shape, found.layout, found.nnz
    expected = record.dtype, record.shape, record.layout, record.nnz
    if said != expected:
        raise FormatError(f"frame is {said} (dtype, shape, layout, nnz), the index says {expected}")


def _array_dtype(record: Record) -> np.dtype:
    if record.dtype not in BY_NAME:
        raise ArgumentError(
            f"there is no array of dtype {record.dtype}; the tensor can only be carried from file to file"
        )
    return BY_NAME[record.dtype].dtype


class ModelFile:
    """An open model: one file or all shards of one. Made by safe_open."""

    def __init__(self, files: list[OpenFile], framework: str) -> None:
        self._files, self._framework = files, framework
        self._where = {name: file for file in files for name in file.records}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what was read stays valid."""
        for file in self._files:
            file.raw.close()

    def keys(self) -> list[str]:
        """Names, in the order of the file's data (and of the shards)."""
        return list(self._where)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def metadata(self) -> dict[str, str]:
        """The user's metadata: all entries but the index; of a sharded model, those that its shards agree on."""
        first, *others = (file.metadata for file in self._files)
        return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

    def info(self, name: str) -> TensorInfo:
        """What is known of a tensor without reading its data."""
        record = self._find(name).records[name]
        layout, stored_as = ("dense", "dense") if record.layout is None else (record.layout, "frame")
        dense_nbytes = nbytes_of(record.dtype, record.shape)
        return TensorInfo(name, record.dtype, record.shape, layout, record.nbytes, dense_nbytes, record.nnz, stored_as)

    def get_tensor(self, name: str) -> Any:
        """The tensor, decoded: a NumPy array, or with ``framework="pt"`` a torch tensor."""
        file = self._find(name)
        with naming(name):
            return self._given(file.array(name))

    def get_packed(self, name: str, objective: str | None = None) -> PackedTensor:
        """The tensor, packed as it is stored; with ``objective`` in the best layout for that.

        A tensor stored as itself comes in layout "dense", with every bit kept.
        """
        file = self._find(name)
        with naming(name):
            if file.records[name].layout is None:
                packed = codec_tensor.encode(file.array(name), layout="dense", entropy="none", zero="bits")
            else:
                packed = file.frame(name)
            return packed if objective is None else packed.to_layout("auto", objective=objective)

    def get_slice(self, name: str) -> "TensorSlice":
        """The tensor as something to index: only what it needs along the first axis is read."""
        return TensorSlice(self, self._find(name), name)

    def verify(self, *, raise_on_error: bool = True) -> VerifyReport:
        """Read and decode everything, one tensor at a time.

        Returns the result of each tensor; the first fault is raised, unless ``raise_on_error=False``.
        """
        checks = []
        for name, file in self._where.items():
            error = None
            try:
                with naming(name):
                    _verify(file, name)
            except FormatError as caught:
                if raise_on_error:
                    raise
                error = caught
            checks.append(TensorCheck(name, file.indexed, error))
        return VerifyReport(tuple(checks))

    def _find(self, name: str) -> OpenFile:
        try:
            return self._where[name]
        except (KeyError, TypeError):
            raise UnknownTensorError(str(name), self._where) from None

    def _given(self, array: Any) -> Any:
        return _to_torch(array) if self._framework == "pt" else array


def _verify(file: OpenFile, name: str) -> None:
    data = file.stored(name)
    if file.records[name].layout is not None:
        _agree(file.records[name], proved_frame(data))


def proved_frame(data: memoryview) -> PackedTensor:
    """The frame, after decoding all of it."""
    packed = codec_tensor.loads(data, copy=False)
    codec_tensor.decode(packed)
    return packed


class TensorSlice:
    """One tensor of an open model, to be indexed as NumPy indexes an array of its shape.

    Of a frame the head and the segments of the leading indices named are read, of a tensor stored as itself the MiBs;
    the rest is indexed in memory.
    """

    def __init__(self, model: ModelFile, file: OpenFile, name: str) -> None:
        self._model, self._file, self._name = model, file, name

    def get_shape(self) -> list[int]:
        return list(self._file.records[self._name].shape)

    def get_dtype(self) -> str:
        """The safetensors name of the dtype."""
        return self._file.records[self._name].dtype

    def __getitem__(self, key: Any) -> Any:
        with naming(self._name):
            found = take(self._file.records[self._name].shape, key, self._leading)
        if isinstance(found, np.ndarray) and found.base is not None and found.base.nbytes > found.nbytes:
            found = found.copy()  # a small result does not hold all that was read for it
        return self._model._given(found)

    def _leading(self, start: int, stop: int) -> np.ndarray:
        record = self._file.records[self._name]
        step = math.prod(record.shape[1:])
        elements = self._file.dense if record.layout is None else self._file.some
        return elements(self._name, start * step, (stop - start) * step).reshape(stop - start, *record.shape[1:])


def _to_torch(value: Any) -> Any:
    """A torch tensor of the same memory; a read-only array (a mapped file) is copied, as torch has none of those."""
    import torch

    array = np.asarray(value)
    array = array if array.flags.writeable else array.copy()
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"i{array.itemsize}" if array.itemsize > 1 else "u1")).view(
        getattr(torch, array.dtype.name)
    )
