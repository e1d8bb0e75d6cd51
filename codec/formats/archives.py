"""NumPy's files with one tensor each: .npz archives for sparse ones, .npy files for dense ones, and folders of them.

Archives are read by their own table of contents, so that no array takes memory that the file's bytes do not justify,
and nothing of Python's own is ever loaded.
"""

import io
import os
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import numpy as np

from codec.dtypes import element_type
from codec.errors import ArgumentError, FormatError
from codec.formats.base import Format, Place, Source, Stored, array_of
from codec.model import naming
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

DENSE = ".npy"
MOST_RATIO = 1040  # deflate makes at most 1032 bytes of one (zlib's documentation, "Maximum Expansion Factor")
MOST_NAME = 255  # bytes of a file's name on the file systems of Linux


def read_archive(path: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by their names.

    Raises FormatError for what is no such file, is damaged, holds Python objects, or claims more than its bytes hold.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(DENSE)
                if name == member.filename:
                    continue
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FormatError(f"{name!r} is compressed by method {member.compress_type}; NumPy writes 0 and 8")
                if member.file_size > MOST_RATIO * (member.compress_size + 64):
                    raise FormatError(f"{name!r} would have {member.file_size} bytes, of {member.compress_size} packed")
                with archive.open(member) as file:
                    found[name] = _array(name, file.read())
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path!r} is not a readable .npz file: {error}") from None
    return found


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file; FormatError for what is none."""
    with open(path, "rb") as file:
        return _array(os.path.basename(path), file.read())


def _array(name: str, data: bytes) -> np.ndarray:
    """The array of the bytes of a .npy file."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(stream)
    except (ValueError, SyntaxError, TypeError) as error:
        raise FormatError(f"{name!r} is no array of NumPy: {str(error).partition(chr(10))[0]}") from None
    left = len(data) - stream.tell()
    if dtype.hasobject or prod(shape) * dtype.itemsize != left:
        raise FormatError(f"{name!r} has {left} bytes of {dtype}; expected an array of shape {shape}, without objects")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


class FilePerTensor(Format):
    """Formats whose files hold one tensor: a model is a folder, and a file's name is the tensor's, quoted as in a URL.

    Tensors that are not stored sparse lie beside as ``NAME.npy``.

    Attributes
    ----------
    endings : tuple of str
        What the names of files end in that are read; the first that fits is no part of the tensor's name.
    beside : tuple of str
        What the names of further files of a tensor end in, where there are several.
    """

    endings: ClassVar[tuple[str, ...]]
    beside: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read_file(self, path: str) -> Any:
        """The tensor of one file."""

    @abstractmethod
    def write_sparse(self, path: str, packed: PackedTensor) -> None:
        """Write one file."""

    @abstractmethod
    def claims_file(self, path: str) -> bool:
        """Whether a file whose name ends as it should is of this format."""

    def claims(self, place: Place) -> bool:
        """By the names of the files, and what is in the first of them."""
        found = place.ending(*self.endings)
        return bool(found) and self.claims_file(os.path.join(place.folder, found[0]))

    def open(self, place: Place) -> Source:
        """The tensor of a file, or those of all files in a folder."""
        tensors = {}
        for file in place.ending(*self.endings, DENSE):
            ending = next(one for one in (*self.endings, DENSE) if file.endswith(one))
            name, path = unquote(file.removesuffix(ending)), os.path.join(place.folder, file)
            if not name or name in tensors:
                raise FormatError(f"{path!r}: another file has a tensor of this name too", tensor=name)
            tensors[name] = Stored(partial(read_array if ending == DENSE else self.read_file, path), name)
        if not tensors:
            raise ArgumentError(f"{place.path!r} holds no file that ends in {self.endings[-1]}")
        return Source(self.name, place.path, tensors)

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """The only tensor; what is dense goes into a file with another ending."""
        ((name, value),) = tensors.items()
        with naming(name):
            if isinstance(value, PackedTensor):
                self.check(name, value)
                self.write_sparse(path, value)
                return
            array = array_of(value)
            if element_type(array.dtype).dtype.isbuiltin != 1:
                raise ArgumentError(f"NumPy's files have no dense {array.dtype}, which {self.name} leaves to them")
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=False)
            write_atomic(path.removesuffix(self.suffix) + DENSE, [stream.getvalue()])

    def paths(self, path: str) -> list[str]:
        """The file itself, those beside it, and the one of a dense tensor."""
        stem = path.removesuffix(self.suffix)
        return [path, *(stem + ending for ending in (*self.beside, DENSE))]

    def file_name(self, name: str) -> str:
        """The file's name for a tensor of that name; ArgumentError if it is too long for one."""
        found = quote(name, safe="") + self.suffix
        if found[0] == ".":  # the name of a hidden file, which nobody would read again
            found = "%2E" + found[1:]
        if len(found) > MOST_NAME:
            raise ArgumentError(f"tensor {name[:40]!r}...: it makes no name of a file, which has {MOST_NAME} bytes")
        return found


def archive_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A .npz file of arrays, compressed."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
