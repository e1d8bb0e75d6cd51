"""The container: a safetensors file, proved before any of it is used, written all or nothing (spec section 8.1).

This module knows names, dtypes, shapes and positions; modelindex.py and modelreader.py know what the bytes mean.
It needs POSIX: positional reads, and opening relative to a folder without following links.
"""

import json
import math
import mmap
import os
import re
import secrets
import stat
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError

MAX_HEADER = 100_000_000  # bytes of JSON; safetensors' own limit
MAX_NAME = 1024  # bytes of UTF-8
MAX_RANK = 32
MAX_NBYTES = 2**63 - 1
ALIGNMENT = 64  # of the data's start, in what we write

# Bits per element of every dtype that safetensors has; we carry all of them, and read as arrays those of dtypes.py.
BITS = {name: 8 * row.width for name, row in BY_NAME.items()}
BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64}

_CHUNK = 1 << 30  # bytes per system call: Linux stops at 2 GiB, others refuse more
_HUB_LINK = re.compile(r"(?:\.\./){2,8}blobs/[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class Entry:
    """One tensor of the header; ``start`` is its offset from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The header: tensors in the order of the file's data, and ``__metadata__``."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


# What may stand in a header: one rule for reader (FormatError) and writer (ArgumentError). Each returns the fault.


def name_fault(name: object) -> str | None:
    """What is wrong with a tensor's name, or None."""
    if not isinstance(name, str) or not name or name == "__metadata__":
        return f"{name!r} is not a tensor name: expected a non-empty string other than '__metadata__'"
    if not _is_text(name) or len(name.encode()) > MAX_NAME:
        return f"name of a tensor is not valid UTF-8 of at most {MAX_NAME} bytes: {name[:40]!r}"
    return None


def shape_fault(dtype: object, shape: Sequence[object]) -> str | None:
    """What is wrong with a tensor's dtype and shape, or None."""
    if dtype not in BITS:
        return f"unknown dtype {dtype!r}; expected one of {', '.join(BITS)}"
    if len(shape) > MAX_RANK:
        return f"{len(shape)} dimensions; at most {MAX_RANK} are allowed"
    sides = [side for side in shape if type(side) is int and 0 <= side <= MAX_NBYTES]
    if len(sides) != len(shape):
        return f"shape {list(shape)} is not made of integers from 0 to 2**63 - 1"
    # Zero sides hide the others from the product, but not from whoever allocates the array.
    bits = math.prod(side for side in sides if side) * BITS[str(dtype)]
    if bits > 8 * MAX_NBYTES or (bits % 8 and 0 not in sides):
        return f"shape {list(shape)} of {dtype} is not a whole number of bytes below 2**63"
    return None


def metadata_fault(metadata: object) -> str | None:
    """What is wrong with a file's metadata, or None."""
    if not isinstance(metadata, Mapping):
        return "metadata is not a map of strings to strings"
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or not _is_text(key) or not _is_text(value):
            return f"metadata {key!r}: {value!r} is not a string (valid UTF-8) for a string"
    return None


def _is_text(text: str) -> bool:
    try:  # JSON can spell lone surrogates, UTF-8 cannot
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor stored as itself."""
    return math.prod(shape) * BITS[dtype] // 8


class RawFile:
    """A regular file, open for positional reads. Reads are into private memory; with ``use_mmap`` views of the file."""

    def __init__(self, fd: int, path: str, use_mmap: bool) -> None:
        self.path, self._fd = path, fd
        self._finalizer = weakref.finalize(self, os.close, fd)
        self._map: mmap.mmap | None = None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{path!r} is not a regular file")
            self.size = status.st_size
            if use_mmap and self.size:
                self._map = mmap.mmap(fd, self.size, access=mmap.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Arrays that view a mapping stay valid: it goes when the last of them does."""
        self._fd, self._map = -1, None
        self._finalizer()

    def read(self, offset: int, length: int, align: int = 1) -> memoryview:
        """Bytes [offset, offset + length); a mapped file gives a view where the offset is a multiple of ``align``."""
        if self._fd < 0:
            raise ArgumentError(f"{self.path!r} is closed")
        if offset < 0 or length < 0 or length > self.size - offset:
            raise FormatError(f"{length} bytes asked for, file has {self.size}", offset=offset)
        if self._map is not None and offset % align == 0:
            return memoryview(self._map)[offset : offset + length]
        return self.read_private(offset, length)

    def read_private(self, offset: int, length: int) -> memoryview:
        """The bytes in memory of our own (64-byte aligned, writable), which no other process can change under us."""
        space = np.empty(length + 63, np.uint8)
        skip = -space.ctypes.data % 64
        view, done = space[skip : skip + length].data, 0
        while done < length:
            count = os.preadv(self._fd, [view[done : done + _CHUNK]], offset + done)
            if count == 0:
                raise FormatError(
                    f"file ends here, {length - done} bytes early: truncated or changed while open",
                    offset=offset + done,
                )
            done += count
        return view

    def read_header(self) -> Header:
        """The header, everything in it proved."""
        if self.size < 8:
            raise FormatError(
                f"{self.path!r} is not a safetensors file: {self.size} bytes, at least 8 are needed", offset=0
            )
        length = int.from_bytes(self.read_private(0, 8), "little")
        if length > MAX_HEADER or length > self.size - 8:
            raise FormatError(
                f"header of {length} bytes in a file of {self.size} (limit {MAX_HEADER}): cut off, or not safetensors",
                offset=0,
            )
        raw = bytes(self.read_private(8, length))
        if not raw.startswith(b"{"):
            raise FormatError(f"header starts with {raw[:8]!r}, expected '{{': not a safetensors file", offset=8)
        return _parse_header(strict_json(raw), 8 + length, self.size)


def open_path(path: str, *, use_mmap: bool = False) -> RawFile:
    """Open a path that the caller named. Links are followed; a pipe or device is refused without waiting for it."""
    return RawFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), path, use_mmap)


def open_beside(folder: str, name: str, *, use_mmap: bool = False) -> RawFile:
    """Open a file of ``folder`` that another file named: a bare file name, not a link.

    The one link allowed is that of the Hugging Face cache (``../../blobs/<hash>``).
    """
    if not name or name[0] in ".~" or any(c in "/\\:" or not c.isprintable() for c in name):
        raise FormatError(f"{name!r} is not a bare file name")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            target = os.readlink(name, dir_fd=folder_fd)
            if not _HUB_LINK.fullmatch(target):
                raise FormatError(
                    f"{name!r} is a link to {target!r}; files of a model are opened without following links"
                )
            fd = os.open(target, flags, dir_fd=folder_fd)
        else:
            fd = os.open(name, flags, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
    return RawFile(fd, os.path.join(folder, name), use_mmap)


def strict_json(raw: bytes) -> object:
    """JSON in UTF-8 without duplicate keys."""
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_int=_natural)
    except (ValueError, RecursionError) as error:  # decoding errors of both kinds are ValueErrors
        raise FormatError(f"not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} occurs twice")
        found[key] = value
    return found


def _natural(digits: str) -> int:
    if digits.startswith("-") or len(digits) > 19:
        raise ValueError(f"{digits[:24]} is not an integer from 0 to 2**63 - 1")
    return int(digits)


def _parse_header(header: object, data_start: int, size: int) -> Header:
    assert isinstance(header, dict)  # it starts with a brace
    metadata = header.pop("__metadata__", {})
    if fault := metadata_fault(metadata):
        raise FormatError(fault)
    entries = sorted(
        (_parse_entry(name, value, data_start) for name, value in header.items()), key=lambda e: (e.start, e.nbytes)
    )
    position = data_start
    for entry in entries:
        if entry.start != position:
            raise FormatError(
                f"data starts at {entry.start}, expected {position}: tensors overlap or leave a hole", tensor=entry.name
            )
        position += entry.nbytes
    if position != size:
        raise FormatError(
            f"tensors end here, the file at {size}: it is truncated or has bytes that belong to no tensor",
            offset=position,
        )
    return Header({entry.name: entry for entry in entries}, metadata)


def _parse_entry(name: str, value: object, data_start: int) -> Entry:
    if fault := name_fault(name):
        raise FormatError(fault)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError("header entry is not a map of dtype, shape and data_offsets", tensor=name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise FormatError("dtype is not a string or shape not an array", tensor=name)
    if fault := shape_fault(dtype, shape):
        raise FormatError(fault, tensor=name)
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise FormatError(f"data_offsets {offsets!r} are not two integers", tensor=name)
    if offsets[1] - offsets[0] != nbytes_of(dtype, shape):
        raise FormatError(
            f"data_offsets {offsets} do not span the {nbytes_of(dtype, shape)} bytes of {dtype} {shape}", tensor=name
        )
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])


def header_bytes(tensors: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]) -> bytes:
    """The header for tensors (name, dtype, shape) in the order of their data, padded so that data is aligned."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, dtype, shape in tensors:
        stop = position + nbytes_of(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    if len(raw) > MAX_HEADER:
        raise ArgumentError(f"header of {len(raw)} bytes; safetensors allows {MAX_HEADER}: split the model into shards")
    return len(raw).to_bytes(8, "little") + raw


def check_target(path: str) -> None:
    """Refuse before any work what could not be replaced after it."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        os.stat(os.path.dirname(path) or ".")  # the folder must exist
        return
    if not stat.S_ISREG(mode):
        raise ArgumentError(f"{path!r} exists and is not a regular file: it will not be replaced")


def write_atomic(path: str, parts: Iterable[memoryview | bytes]) -> None:
    """Write a file that appears under its name only when it is whole and on the disk.

    A new file beside it, fsync, rename, fsync of the folder. An error leaves the old file and no other; so does a
    crash, but for a ``.codec-*.tmp``. If only the folder's fsync fails, that is raised with the new file in place: it
    may not survive a power cut.
    """
    check_target(path)
    folder = os.path.dirname(path) or "."
    temporary = os.path.join(folder, f".codec-{secrets.token_hex(8)}.tmp")
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
    )  # less the umask, as open() does
    try:
        try:
            for part in parts:
                view = memoryview(part)
                while len(view):
                    view = view[os.write(fd, view[:_CHUNK]) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
