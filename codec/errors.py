"""Everything that codec refuses, it refuses with one of these; the class says whose fault it is."""

from collections.abc import Iterable
from difflib import get_close_matches


class CodecError(ValueError):
    """Base of every error that codec raises on its own account. OSErrors pass through unchanged."""


class ArgumentError(CodecError):
    """The caller's fault: a dtype, shape, name or parameter that cannot be used as asked."""


class FormatError(CodecError):
    """The bytes' fault: they are not what the format says, or not ours.

    Attributes
    ----------
    tensor, stream : str or None
        Where in the file; ``None`` where that is not known (or the fault is in no stream).
    offset : int or None
        Byte offset from the start of the frame or file that was being read.

    The message names them too, with what was found, what was expected and what to do.
    """

    def __init__(
        self, message: str, *, tensor: str | None = None, stream: str | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.tensor, self.stream, self.offset = message, tensor, stream, offset

    def __str__(self) -> str:
        where = [f"tensor {self.tensor!r}"] if self.tensor is not None else []
        where += [f"stream {self.stream!r}"] if self.stream is not None else []
        where += [f"byte {self.offset}"] if self.offset is not None else []
        return f"{', '.join(where)}: {self.message}" if where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.tensor, self.stream, self.offset)

    def at(self, tensor: str) -> "FormatError":
        """The same error, naming the tensor in which it was met."""
        return type(self)(self.message, tensor=tensor, stream=self.stream, offset=self.offset)


class ChecksumError(FormatError):
    """Bytes are damaged: a CRC-32C differs from the recorded one."""


class VersionError(FormatError):
    """Bytes of a format version that this release does not read."""


class UnknownTensorError(CodecError, KeyError):
    """No tensor of that name; the message offers close matches."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        near = get_close_matches(name, list(known), n=3)
        super().__init__(f"no tensor {name!r} in this file" + (f"; close: {', '.join(near)}" if near else ""))

    __str__ = ValueError.__str__


def _rebuild(
    cls: type[FormatError], message: str, tensor: str | None, stream: str | None, offset: int | None
) -> FormatError:
    return cls(message, tensor=tensor, stream=stream, offset=offset)
