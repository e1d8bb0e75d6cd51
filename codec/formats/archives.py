"""NumPy's files with one tensor each: .npz archives for sparse ones, .npy files for dense ones, and folders of them.

Of an archive only the arrays that a format asks for are read. None takes memory that the file's bytes do not justify,
and no Python object is ever loaded.
"""

import io
import os
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import numpy as np

from codec.dtypes import element_type
from codec.errors import ArgumentError, CodecError, FormatError
from codec.formats.base import Format, Place, Source, Stored, array_of
from codec.model import naming
from codec.model.atomic import write_atomic
from codec.packed import PackedTensor

DENSE = ".npy"
MOST_RATIO = 1040  # deflate makes at most 1032 bytes of one (zlib's documentation, "Maximum Expansion Factor")
MOST_NAME = 255  # bytes of a file's name on the file systems of Linux
# Readers of a .npy file's header by its version; version 3 differs in names of fields only, which no tensor has.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}


# What zipfile raises for an archive that is damaged, or that it does not read; CodecError is a ValueError too.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, IndexError, KeyError, OverflowError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def read_archive(path: str, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a .npz file has; others are not read.

    Raises FormatError for what is no such file, is damaged, has an array twice, holds Python objects, or claims more
    than its bytes hold.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(DENSE)
                if name == member.filename or name not in names:
                    continue
                if name in found:
                    raise FormatError(f"{path!r} has the array {name!r} twice; which one counts?")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FormatError(f"{name!r} is compressed by method {member.compress_type}; NumPy writes 0 and 8")
                if member.file_size > MOST_RATIO * (member.compress_size + 64):
                    raise FormatError(
                        f"{name!r} claims {member.file_size} bytes in {member.compress_size} compressed ones; expected "
                        f"at most {MOST_RATIO} for each"
                    )
                with archive.open(member) as file:
                    found[name] = _array(name, file.read())
    except CodecError:
        raise
    except UNREADABLE as error:
        raise FormatError(f"{path!r} is not a readable .npz file: {error}") from None
    return found


def archive_names(path: str) -> set[str]:
    """The names of the members of a zip archive; none for a file that is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except (OSError, *UNREADABLE):
        return set()


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file; FormatError for what is none."""
    with open(path, "rb") as file:
        return _array(os.path.basename(path), file.read())


def _array(name: str, data: bytes) -> np.ndarray:
    """The array of the bytes of a .npy file."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version}; expected one of {', '.join(map(str, _HEADERS))}")
        shape, by_columns, dtype = _HEADERS[version](stream)
    except (ValueError, SyntaxError, TypeError) as error:
        raise FormatError(f"{name!r} is no array of NumPy: {str(error).partition(chr(10))[0]}") from None
    left = len(data) - stream.tell()
    if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != left:
        raise FormatError(
            f"{name!r} says {dtype} of shape {shape}, and {left} bytes follow; expected numbers that fill them"
        )
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


class FilePerTensor(Format):
    """Formats whose files hold one tensor: a model is a folder, and a file's name is the tensor's, quoted as in a URL.

    Tensors that are not stored sparse lie beside as ``NAME.npy``.

    Attributes
    ----------
    endings : tuple of str
        As for every format; the first that fits is no part of the tensor's name.
    beside : tuple of str
        What the names of further files of a tensor end in, where there are several.
    """

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
        """The only tensor: sparse, or dense in a file with another ending. Files of its other form are removed."""
        ((name, value),) = tensors.items()
        *sparse, dense = self.paths(path)
        with naming(name):
            if isinstance(value, PackedTensor):
                self.check(name, value)
                self.write_sparse(path, value)
            else:
                array = array_of(value)
                if element_type(array.dtype).dtype.isbuiltin != 1:
                    raise ArgumentError(f"{self.name} leaves dense tensors to .npy files, which have no {array.dtype}")
                stream = io.BytesIO()
                np.save(stream, array, allow_pickle=False)
                write_atomic(dense, [stream.getvalue()])
        for old in [dense] if isinstance(value, PackedTensor) else sparse:
            with suppress(FileNotFoundError):
                os.unlink(old)

    def paths(self, path: str) -> list[str]:
        """The file itself, those beside it, and last the one of a dense tensor."""
        stem = path.removesuffix(self.suffix)
        return [path, *(stem + ending for ending in (*self.beside, DENSE))]

    def file_name(self, name: str) -> str:
        """The file's name for a tensor of that name; ArgumentError if it is too long for one."""
        try:
            stem = quote(name, safe="")
        except UnicodeEncodeError:
            raise ArgumentError(
                f"tensor {name[:40]!r}: a name that is not valid Unicode makes no name of a file"
            ) from None
        if stem[:1] == ".":  # the name of a hidden file, which nobody would read again
            stem = "%2E" + stem[1:]
        if len(stem) + max(map(len, (self.suffix, *self.beside, DENSE))) > MOST_NAME:
            raise ArgumentError(f"tensor {name[:40]!r}...: its name is too long for a file's, of {MOST_NAME} bytes")
        return stem + self.suffix


def archive_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A .npz file of arrays, compressed."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
