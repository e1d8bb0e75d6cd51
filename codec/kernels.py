"""The one door to native code: which instruction set runs, how many threads, and what a native result means."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from codec import _native
from codec.dtypes import ElementType
from codec.entropy import HuffmanCode
from codec.errors import ArgumentError, ChecksumError, CodecError, FormatError
from codec.geometry import Grid

SETS = ("avx512", "avx2", "scalar")
MAX_THREADS = 64

# In the order of enum class Type in native/kernels.hpp.
_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
_TYPE_CODES = {**{name: code for code, name in enumerate(_TYPES)}, "BOOL": _TYPES.index("U8")}
_KINDS = ("unsigned", "signed", "float")


def _select() -> None:
    wanted = os.environ.get("CODEC_KERNEL") or None
    outcome = _native.select(wanted)
    if outcome:
        why = {
            1: f"is not a kernel: expected one of {', '.join(SETS)}",
            2: "is not built into this installation: it was compiled for another processor architecture",
            3: "needs instructions that this CPU does not have",
        }[outcome]
        raise CodecError(f"CODEC_KERNEL={wanted} {why}; unset it to take the best of {', '.join(_available())}")


def _available() -> list[str]:
    return [name for name in SETS if _native.runs_here(name.encode())]


_select()


def info() -> dict[str, Any]:
    """The instruction set in use, those built in, those that run here, and the number of threads."""
    return {
        "kernel": _native.kernel(),
        "built": [name for name in SETS if _native.built(name.encode())],
        "available": _available(),
        "threads": thread_count(None),
    }


_limit: ContextVar[int | None] = ContextVar("codec_threads", default=None)


def _checked_threads(threads: object, source: str) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ArgumentError(f"{source}={threads!r}; expected an int from 1 to {MAX_THREADS}")
    return threads


def thread_count(threads: int | None) -> int:
    """Threads for one call: the argument, else threadpool_limits, else CODEC_NUM_THREADS, else one per CPU."""
    if threads is not None:
        return _checked_threads(threads, "threads")
    limit = _limit.get()
    if limit is not None:
        return limit
    configured = os.environ.get("CODEC_NUM_THREADS")
    if configured:
        return _checked_threads(int(configured) if configured.isdecimal() else configured, "CODEC_NUM_THREADS")
    return max(
        1, min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


@contextmanager
def threadpool_limits(limits: int) -> Iterator[None]:
    """Bound the threads of every call inside the ``with`` block (same name and use as threadpoolctl's).

    Parameters
    ----------
    limits : int
        At most this many threads, 1 to 64.

    >>> with threadpool_limits(1):
    ...     thread_count(None)
    1
    """
    token = _limit.set(_checked_threads(limits, "limits"))
    try:
        yield
    finally:
        _limit.reset(token)


def crc32c(data: Any, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of a contiguous buffer, continued from ``value``.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    return _native.crc32c(octets(data), value)


def octets(data: Any) -> np.ndarray:
    """Any contiguous buffer as uint8, without a copy."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def type_code(element: ElementType) -> int:
    """The native number of an element type (bool multiplies as u8)."""
    return _TYPE_CODES[element.name]


def kind_code(kind: str) -> int:
    """The native number of an item kind."""
    return _KINDS.index(kind)


def native_code(code: HuffmanCode) -> _native.Code:
    """A proved Huffman code, prepared for the kernels."""
    return _native.Code(
        code.width, kind_code(code.kind), code.low, code.zeros, code.first, np.array(code.lengths, np.uint8)
    )


def operand(x: np.ndarray, weights: ElementType, acc: ElementType) -> _native.Operand:
    """A product's x, (n, batch), contiguous, in the accumulator's type, prepared for the kernels."""
    return _native.Operand(x, type_code(weights), type_code(acc), acc.width, *x.shape)


def view(
    grid: Grid,
    layout: int,
    width: int,
    params: tuple[int, ...],
    streams: Sequence[tuple[Any, ...]],
    checked: np.ndarray | None,
    coding: tuple[int, int, int, bool] = (0, 0, 0, False),
) -> _native.View:
    """The proved spans of a frame, for the operations of ``codec._native.View``."""
    return _native.View(
        grid.rows,
        grid.cols,
        grid.segment_rows,
        grid.segment_cols,
        layout,
        width,
        params,
        list(streams),
        checked,
        coding,
    )


# Status numbers of native/kernels.hpp, with what they say; {found} and {expected} are the result's.
_MEANING = {
    2: "ends too early: {found} bytes or items where {expected} are needed",
    3: "is too long: {found} bytes or items where {expected} are needed",
    4: "holds {found}, outside the limit of {expected}",
    5: "goes back: {found} where at least {expected} was expected",
    6: "has bits set outside the matrix or in its padding ({found:#x})",
    7: "says the same in more words than needed ({found} where at most {expected} was expected)",
    8: "has an incomplete code table",
}
_REPAIR = "the bytes are damaged or were not written by codec: fetch them again, or run `codec verify` on the file"


def raise_for(
    result: tuple[int, int, int, int, int], streams: Sequence[str], offsets: np.ndarray | None = None
) -> None:
    """Raise the one error that a native result stands for; return on success.

    ``streams`` names the streams; ``offsets`` (streams x segments + 1) gives where parts begin in the frame.
    """
    status, segment, stream, found, expected = result
    if status == 0:
        return
    if status == 9:
        raise ArgumentError(
            "an integer product could overflow 64 bits: scale x down, or convert x and the weights to float64"
        )
    if status == 10:
        raise MemoryError("no memory for a segment")
    at = int(offsets[stream][segment]) if offsets is not None else None
    if status == 1:
        raise ChecksumError(
            f"segment {segment}: CRC-32C is {found:08x}, expected {expected:08x}: {_REPAIR}",
            stream=streams[stream],
            offset=at,
        )
    what = _MEANING[status].format(found=found, expected=expected)
    raise FormatError(f"segment {segment} {what}: {_REPAIR}", stream=streams[stream], offset=at)
