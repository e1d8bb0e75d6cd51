"""One open model file: its header and index proved, its tensors read (spec section 8)."""

import gc
import hashlib
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from codec import tensor as codec_tensor
from codec.dtypes import element_type
from codec.errors import ArgumentError, FormatError
from codec.frame import MAGIC, Head, on_demand, read_head
from codec.frame.head import alignment
from codec.kernels import octets, thread_count
from codec.layouts import layout_named
from codec.model.carried import Carried
from codec.model.container import Entry, array_dtype, read_header
from codec.model.disk import Raw
from codec.model.index import CRC_STEP, KEY, LOST, Index, Record, check_crcs, decode_index, is_index
from codec.packed import PackedTensor

# What is read of a plain file to tell it from another: so many bytes at so many places, and in at most so many tensors.
_BLOCK, _SPREAD, _MOST_TENSORS = 4096, 64, 1024


class naming:  # noqa: N801  # read as a statement: with naming(name)
    """Errors met inside name the tensor, and the file where it is one of several."""

    __slots__ = ("_file", "_name")

    def __init__(self, name: str, file: str | None = None) -> None:
        self._name, self._file = name, file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        where = "" if self._file is None else f" (in {self._file!r})"
        if isinstance(error, FormatError):
            message = error.message if error.message.endswith(where) else error.message + where
            raise type(error)(message, tensor=self._name, stream=error.stream, offset=error.offset) from error
        if isinstance(error, ArgumentError):
            raise ArgumentError(f"tensor {self._name!r}: {error}{where}") from error


class OpenFile:
    """One open file: the header, and a record for every stored tensor. Errors in them name the file."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.one_of_many = False
        # A header of 300,000 tensors makes millions of objects, none of them garbage: looking for some on the way took
        # a third of the time (2.7 of 7.2 s).
        collecting = gc.isenabled()
        gc.disable()
        try:
            self.header = read_header(raw)
            text = self.header.metadata.get(KEY)
            self.indexed = text is not None and is_index(text)
            index = decode_index(text, self.header) if text is not None and self.indexed else self._plain()
        except FormatError as error:
            message = error.message if error.message.startswith(repr(raw.path)) else f"{raw.path!r}: {error.message}"
            raise type(error)(message, tensor=error.tensor, stream=error.stream, offset=error.offset) from error
        finally:
            if collecting:
                gc.enable()
        self.records, self.aliases = index.records, index.aliases
        own = {} if index.own is None else {KEY: index.own}
        self.metadata = {key: value for key, value in self.header.metadata.items() if key != KEY} | own

    def __reduce__(self) -> NoReturn:
        raise ArgumentError(f"{self.raw.path!r} is open, and an open file cannot be copied or pickled")

    def _plain(self) -> Index:
        metadata, entries = self.header.metadata, self.header.entries.values()
        if any(map(is_index, metadata.values())):
            raise FormatError(f"metadata holds the index under a key other than {KEY!r}{LOST}")
        for entry in entries:
            if starts_as_frame(self.raw, entry):
                raise FormatError(f"holds a frame, but the file has no index{LOST}", tensor=entry.name)
        records = {e.name: Record(e.dtype, e.shape, None, e.nbytes, None, ()) for e in entries}
        return Index(records, {}, metadata.get(KEY))

    @property
    def name(self) -> str | None:
        """The file's path, for errors, if the model has several."""
        return self.raw.path if self.one_of_many else None

    @property
    def names(self) -> list[str]:
        """Stored tensors in the order of the data, then aliases."""
        return [*self.records, *self.aliases]

    def record(self, name: str) -> Record:
        """The record of a tensor, whatever name it is called by."""
        return self.records[self.aliases.get(name, name)]

    def fingerprint(self) -> str:
        """What tells this file's content from another: its header, which holds all checksums if there is an index.

        A plain file's header says nothing of the values. There the size, the time of the last change and a digest of
        samples stand in for them: blocks spread over the file, and one of each tensor. Checkpoints of one architecture
        have the same header and size, and may have the same time (of an archive, say). Nothing of it is known to one
        machine alone, as an inode is: a copy that kept its time passes elsewhere. A change that keeps size and time
        and meets no sample passes too.
        """
        length = int.from_bytes(self.raw.read_private(0, 8), "little")
        digest = hashlib.sha256(self.raw.read_private(0, 8 + length)).hexdigest()
        return f"{digest}:{self.raw.size if self.indexed else f'{self.raw.stamp()}:{self._samples()}'}"

    def _samples(self) -> str:
        """A digest of blocks at places that header and size tell alone; of small files it is one of all bytes."""
        last = max(0, self.raw.size - _BLOCK)
        places = {last * number // (_SPREAD - 1) for number in range(_SPREAD)}
        entries = list(self.header.entries.values())
        for entry in entries[:: -(-len(entries) // _MOST_TENSORS) or 1]:
            places.add(max(0, min(last, entry.start + (entry.nbytes - _BLOCK) // 2)))
        digest = hashlib.sha256()
        for place in sorted(places):
            digest.update(self.raw.read_private(place, min(_BLOCK, self.raw.size - place)))
        return digest.hexdigest()

    def read(self, name: str, offset: int, length: int, align: int = 1) -> memoryview:
        """Bytes of a stored tensor as they lie in the file, not compared with anything."""
        entry = self.header.entries[name]
        if offset < 0 or length < 0 or length > entry.nbytes - offset:
            raise FormatError(f"{length} bytes asked for, the tensor has {entry.nbytes}", offset=offset)
        return self.raw.read(entry.start + offset, length, align)

    def frame(self, name: str) -> PackedTensor:
        """The whole frame, as the index describes it. What is mapped is checked when it is used."""
        record = self.records[name]
        data = self.read(name, 0, record.nbytes, alignment(layout_named(record.layout)))
        if not data.readonly:
            check_crcs(data, record)
        packed = codec_tensor.loads(data, copy=False)
        _agree(record, packed)
        return packed

    def dense(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """``count`` elements of a tensor stored as itself, flat; whole MiBs are read, as the CRCs cover those."""
        record = self.records[name]
        dtype = array_dtype(record.dtype)
        start = first * dtype.itemsize
        stop = record.nbytes if count is None else start + count * dtype.itemsize
        step = CRC_STEP if self.indexed else 1
        low, high = start // step * step, min(record.nbytes, -(-stop // step) * step)
        data = self.read(name, low, high - low, dtype.itemsize)
        if self.indexed:
            check_crcs(data, record, low // step)
        found = np.frombuffer(data[start - low : stop - low], np.uint8).view(dtype)
        return found if data.readonly or len(data) == found.nbytes else found.copy()  # few elements hold no MiB

    def elements(self, name: str) -> Callable[[int, int], np.ndarray]:
        """What gives ``count`` elements of a tensor from ``first`` on, flat, and reads no more than it needs for them.

        Of a frame that is the head, once, and segments; of a tensor stored as itself, whole MiBs.
        """
        record = self.records[name]
        if record.layout is None:
            return lambda first, count: self.dense(name, first, count)

        def read(offset: int, length: int) -> memoryview:
            return self.read(name, offset, length)

        head = read_head(read, record.nbytes)
        _agree(record, head)
        spans = on_demand(head, read)

        def some(first: int, count: int) -> np.ndarray:
            out = np.empty(count, head.element.dtype)
            spans.decode(first, count, octets(out), thread_count(None))
            return out

        return some

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

    def verify(self, name: str) -> None:
        """Read and decode a stored tensor; FormatError if anything is wrong with it."""
        data = self.stored(name)
        if self.records[name].layout is not None:
            _agree(self.records[name], proved_frame(data))

    def carried(self, name: str) -> Carried:
        """A tensor stored as itself, to be copied."""
        record = self.records[name]

        def read(offset: int, length: int) -> memoryview:
            return self.read(name, offset, length, 64)

        place = ("file", id(self.raw), self.header.entries[name].start) if record.nbytes else None
        crcs = record.crcs if self.indexed else None
        return Carried(record.dtype, record.shape, record.nbytes, read, place, self.raw, crcs, file=self.name)


def starts_as_frame(raw: Raw, entry: Entry) -> bool:
    """Whether the bytes of a tensor of a safetensors file begin as a frame does."""
    return entry.dtype == "U8" and entry.nbytes >= len(MAGIC) and bytes(raw.read(entry.start, len(MAGIC))) == MAGIC


def _agree(record: Record, found: PackedTensor | Head) -> None:
    """What the frame says of itself is what the index says of it."""
    if isinstance(found, Head):
        said = found.element.name, found.shape, found.layout.name, found.nnz
    else:
        said = element_type(found.dtype).name, found.shape, found.layout, found.nnz
    expected = record.dtype, record.shape, record.layout, record.nnz
    if said != expected:
        raise FormatError(f"frame is {said} (dtype, shape, layout, nnz), the index says {expected}")


def proved_frame(data: memoryview) -> PackedTensor:
    """The frame, after decoding all of it."""
    packed = codec_tensor.loads(data, copy=False)
    codec_tensor.decode(packed)
    return packed
