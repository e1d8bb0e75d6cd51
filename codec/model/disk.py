"""Bytes of files: positional reads into private memory; what another file names is opened without following links.

It needs POSIX: positional reads, and opening relative to a folder.
"""

import mmap
import os
import re
import stat
import weakref
from typing import NoReturn, Protocol

from codec.errors import ArgumentError, FormatError
from codec.frame import aligned

CHUNK = 1 << 30  # bytes per system call: Linux stops at 2 GiB, others refuse more
_HUB_LINK = re.compile(r"(?:\.\./){2,8}blobs/[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Raw(Protocol):
    """Bytes at positions: those of a file, or of memory."""

    path: str
    size: int

    def read(self, offset: int, length: int, align: int = 1) -> memoryview:
        """Bytes [offset, offset + length); a view of the source only where ``offset`` is a multiple of ``align``."""

    def read_private(self, offset: int, length: int) -> memoryview:
        """The bytes in memory of our own (64-byte aligned, writable), which nobody else can change under us."""

    def stamp(self) -> str:
        """What the system says of the version of these bytes, without reading them."""

    def close(self) -> None:
        """Nothing more will be read."""


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

    def __reduce__(self) -> NoReturn:
        # A descriptor is a number: in another process, or after a close, it is another file's.
        raise ArgumentError(f"{self.path!r} is open, and an open file cannot be copied or pickled")

    def close(self) -> None:
        """Close the file. Arrays that view a mapping stay valid: it goes when the last of them does."""
        self._fd, self._map = -1, None
        self._finalizer()

    def stamp(self) -> str:
        """The file's size and the time of its last change."""
        status = os.fstat(self._open_fd())
        return f"{status.st_size}:{status.st_mtime_ns}"

    def read(self, offset: int, length: int, align: int = 1) -> memoryview:
        """Bytes [offset, offset + length); a mapped file gives a view where the offset is a multiple of ``align``."""
        self._open_fd()
        if offset < 0 or length < 0 or length > self.size - offset:
            raise FormatError(f"{length} bytes asked for, file has {self.size}", offset=offset)
        if self._map is not None and offset % align == 0:
            return memoryview(self._map)[offset : offset + length]
        return self.read_private(offset, length)

    def read_private(self, offset: int, length: int) -> memoryview:
        """The bytes in memory of our own (64-byte aligned, writable), which no other process can change under us."""
        fd, view, done = self._open_fd(), private_memory(length), 0
        while done < length:
            try:
                count = os.preadv(fd, [view[done : done + CHUNK]], offset + done)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self.path) from error
            if count == 0:
                raise FormatError(
                    f"file ends here, {length - done} bytes early: truncated or changed while open",
                    offset=offset + done,
                )
            done += count
        return view

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise ArgumentError(f"{self.path!r} is closed")
        return self._fd


class RawBytes:
    """A file's bytes in memory. Everything read is a copy, so that results do not change with the caller's buffer."""

    path = "<bytes>"

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._data = memoryview(data).cast("B")
        except TypeError as error:
            raise ArgumentError(f"data is a {type(data).__name__}; expected the bytes of a file: {error}") from None
        self.size = len(self._data)

    def close(self) -> None:
        """Let go of the buffer."""
        self._data = memoryview(b"")

    def stamp(self) -> str:
        """Nothing is known of the age of bytes in memory."""
        return str(self.size)

    def read(self, offset: int, length: int, align: int = 1) -> memoryview:
        """A copy of bytes [offset, offset + length)."""
        if offset < 0 or length < 0 or length > self.size - offset:
            raise FormatError(f"{length} bytes asked for, there are {self.size}", offset=offset)
        return self.read_private(offset, length)

    def read_private(self, offset: int, length: int) -> memoryview:
        """A copy of bytes [offset, offset + length)."""
        view = private_memory(length)
        view[:] = self._data[offset : offset + length]
        return view


def private_memory(length: int) -> memoryview:
    """So many writable bytes; where there are at least 64, they begin at a multiple of that."""
    if length < 64:
        return memoryview(bytearray(length))
    return aligned(length).data


def open_path(path: str, *, use_mmap: bool = False) -> RawFile:
    """Open a path that the caller named. Links are followed; a pipe or device is refused without waiting for it."""
    return RawFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), path, use_mmap)


def open_beside(folder: str, name: str, *, use_mmap: bool = False) -> RawFile:
    """Open a file of ``folder`` that another file named: a bare file name, not a link.

    The one link allowed is that of the Hugging Face cache (``../../blobs/<hash>``).
    """
    if fault := bare_name_fault(name):
        raise FormatError(fault)
    path = os.path.join(folder, name)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = name
        if stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            target = os.readlink(name, dir_fd=folder_fd)
            if not is_hub_link(target):
                raise FormatError(
                    f"{name!r} is a link to {target!r}; files of a model are opened without following links"
                )
        fd = os.open(target, flags, dir_fd=folder_fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(folder_fd)
    return RawFile(fd, path, use_mmap)


def bare_name_fault(name: str) -> str | None:
    """Why a text from a file is not the name of a file beside it, or None."""
    if not name or name[0] in ".~" or any(c in "/\\:" or not c.isprintable() for c in name):
        return f"{name!r} is not a bare file name"
    return None


def is_hub_link(target: str) -> bool:
    """Whether a link's target is a blob of the Hugging Face cache, which is named by a hash of its content."""
    return _HUB_LINK.fullmatch(target) is not None
