"""Files that appear under their name only when they are whole and on the disk; those that fail leave nothing behind.

A file is written under a temporary name beside its place: ``.codec-<host>-<random>.tmp``, locked as long as its writer
lives. The next write into the folder removes those that lost their writer.
"""

import fcntl
import os
import re
import secrets
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Self
from zlib import crc32

from codec.errors import ArgumentError, CodecError
from codec.model.disk import CHUNK, is_hub_link

_BUFFER = 1 << 20  # small parts are gathered into writes of this many bytes
_PIECE = 1 << 24  # bytes that a spool holds in memory at a time
_PREFIX = ".codec-"
_TEMPORARY = re.compile(r"\.codec-(?:([0-9a-f]{8})-)?[0-9a-f]{16}\.tmp")
_ENDS = (signal.SIGTERM, signal.SIGHUP)
# Without a lock to tell (another machine's file, a file system without locks) a temporary file is abandoned after this.
_ABANDONED = 24 * 3600.0  # seconds without a write


def resolve_target(path: str) -> str:
    """Where a write to ``path`` goes: itself, or the file that it links to. What cannot be replaced is refused.

    A link stays a link, and what it points to is replaced, as writing to an open file would do. Only a link into the
    Hugging Face cache is refused, because the files there are named by a hash of their content.

    Raises ArgumentError for what is not a regular file, FileNotFoundError where the folder does not exist.
    """
    target = path
    if os.path.islink(path):
        if is_hub_link(os.readlink(path)):
            raise ArgumentError(
                f"{path!r} is a link into the Hugging Face cache, whose files are named by a hash of their content: "
                "write to another folder"
            )
        target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(target) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(2, "no such folder to write into", folder) from None
        return target
    if not stat.S_ISREG(mode):
        raise ArgumentError(f"{path!r} exists and is not a regular file: it will not be replaced")
    return target


def write_atomic(path: str, parts: Iterable[memoryview | bytes]) -> None:
    """Write a file from its parts: at every moment there is the old file or the new one, whole.

    A new file beside it, fsync, rename, fsync of the folder. A file that is replaced hands on its permissions, and its
    owner and group where the system permits it (where the group cannot be kept, the rights of the group become those of
    all others); a new file has those that the umask leaves. An error leaves the old file and no other, and so do
    SIGTERM and SIGHUP where nobody handles them; after a SIGKILL a temporary file stays until the next write into the
    folder. If only the folder's fsync fails, that is raised with the new file in place: it may not survive a power cut.
    """
    target = resolve_target(path)
    folder = os.path.dirname(target) or "."
    sweep(folder)
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    with _naming(path):
        temporary, fd = _create(folder, 0o666 if old is None else 0o600)
        with _removed_at_the_end(temporary):
            try:
                try:
                    if old is not None:
                        _hand_on(fd, old)
                    _write(fd, parts)
                    os.fsync(fd)
                    os.replace(temporary, target)
                finally:
                    os.close(fd)  # and with it the lock
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        _fsync_folder(folder)


def sweep(folder: str) -> None:
    """Remove temporary files whose writers are gone, which only happens to those that were killed."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if match := _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_if_abandoned(entry.path, match[1] == _host())


class Spool:
    """Bytes put aside in an unnamed file until all is known of the file that they belong into, which starts with that.

    The file lies in the folder of ``path``, and goes with the process, whatever ends that.
    """

    def __init__(self, path: str) -> None:
        self._path, self._size = path, 0
        with _naming(path):
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # closed by __exit__
                dir=os.path.dirname(os.path.realpath(path)), prefix=_PREFIX, buffering=0
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def put(self, data: memoryview) -> Callable[[], Iterator[memoryview]]:
        """Put bytes aside; the result gives them back, piece by piece."""
        start, length = self._size, len(data)
        with _naming(self._path):
            _write(self._file.fileno(), [data])
        self._size += length
        return lambda: self._pieces(start, length)

    def _pieces(self, start: int, length: int) -> Iterator[memoryview]:
        for at in range(start, start + length, _PIECE):
            piece = memoryview(bytearray(min(_PIECE, start + length - at)))
            done = 0
            while done < len(piece):
                count = os.preadv(self._file.fileno(), [piece[done:]], at + done)
                if not count:
                    raise CodecError(f"bytes put aside for {self._path!r} are gone")
                done += count
            yield piece


def _create(folder: str, mode: int) -> tuple[str, int]:
    """A new temporary file, locked where the file system has locks."""
    while True:
        temporary = os.path.join(folder, f"{_PREFIX}{_host()}-{secrets.token_hex(8)}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)  # less the umask
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a sweep was faster than the lock, and removes the file
            os.close(fd)
            continue
        except OSError:
            return temporary, fd
        if os.fstat(fd).st_nlink:
            return temporary, fd
        os.close(fd)


def _remove_if_abandoned(path: str, of_this_host: bool) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        dead = False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead = of_this_host  # locks may not reach across machines
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            pass
        if dead or time.time() - status.st_mtime > _ABANDONED:
            os.unlink(path)
    finally:
        os.close(fd)


def _host() -> str:
    return f"{crc32(os.uname().nodename.encode()):08x}"


def _hand_on(fd: int, old: os.stat_result) -> None:
    """Give a new file the owner, the group and the permissions of the one that it replaces, as far as permitted."""
    mode = stat.S_IMODE(old.st_mode) & 0o777
    with suppress(OSError):
        os.fchown(fd, -1, old.st_gid)
    with suppress(OSError):
        os.fchown(fd, old.st_uid, -1)
    if os.fstat(fd).st_gid != old.st_gid:  # another group gets no more than everybody does
        mode &= ~0o070 | (mode & 0o007) << 3
    os.fchmod(fd, mode)


def _write(fd: int, parts: Iterable[memoryview | bytes]) -> None:
    gathered = bytearray()
    for part in parts:
        if len(gathered) + len(part) > _BUFFER:
            _write_all(fd, gathered)
            gathered = bytearray()
        if len(part) > _BUFFER:
            _write_all(fd, part)
        else:
            gathered += part
    _write_all(fd, gathered)


def _write_all(fd: int, data: memoryview | bytes | bytearray) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view[:CHUNK]) :]


def _fsync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """The system's errors on temporary files and bare descriptors name the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.filename is None or os.path.basename(str(error.filename)).startswith(_PREFIX):
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _removed_at_the_end(temporary: str) -> AbstractContextManager[None]:
    """Remove a file when a signal ends the process: SIGTERM, or SIGHUP when the terminal has gone.

    Where the caller handles a signal, ignores it as nohup does, or may not handle any, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return nullcontext()
    return _handler(temporary, [end for end in _ENDS if signal.getsignal(end) is signal.SIG_DFL])


@contextmanager
def _handler(temporary: str, ends: list[signal.Signals]) -> Iterator[None]:
    owner = os.getpid()

    def remove(number: int, _: Any) -> None:
        if os.getpid() == owner:  # not in a process that was forked meanwhile
            with suppress(OSError):
                os.unlink(temporary)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for end in ends:
        signal.signal(end, remove)
    try:
        yield
    finally:
        for end in ends:
            signal.signal(end, signal.SIG_DFL)
