"""The one door to native code: which instruction set runs, how many threads, and what a native result means.

Other modules name nothing of ``codec._native``. What holds and executes packed tensors is a `Backend`: the CPU is the
one there is; another (a GPU) brings its own views and is chosen here.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from codec.dtypes import ElementType, element_type
from codec.errors import ArgumentError, ChecksumError, FormatError
from codec.matrix import Grid

try:
    from codec import _native
except ImportError as error:
    if error.name != "codec":  # the module is there, but does not load
        raise
    place = str(Path(__file__).parents[1])
    raise ImportError(
        f"the folder codec in {place!r} is source code without its compiled module, and hides the installed package: "
        "start Python in another folder, or run `pip install -e .` in this one"
    ) from None

SETS = ("amx", "avx512", "avx2", "scalar")
# The scalar set with a model of the tile instructions of "amx" in portable C++: for tests, and only by its name.
MODEL = "amx-model"
MAX_THREADS = 64
# Bytes that kernels may read behind a part, as they load whole registers (kSlack in native code): a part behind which
# a buffer has fewer is read from a copy.
SLACK = 64
# The number of the stream of codes where codes stand inside another stream (kNoStream in native code).
NO_STREAM = (1 << 32) - 1

# In the order of enum class Type in native code.
_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
_TYPE_CODES = {**{name: code for code, name in enumerate(_TYPES)}, "BOOL": _TYPES.index("U8")}
_KINDS = ("unsigned", "signed", "float")


def _select() -> str | None:
    """Select the instruction set that CODEC_KERNEL demands, or the best; returns why the demand cannot be met."""
    wanted = os.environ.get("CODEC_KERNEL") or None
    outcome = _native.select(wanted)
    if not outcome:
        return None
    why = {
        1: f"is not a kernel: expected one of {', '.join((*SETS, MODEL))}",
        2: "is not built into this installation: it was compiled for another processor architecture",
        3: "needs instructions that this CPU does not have",
    }[outcome]
    return f"CODEC_KERNEL={wanted} {why}; unset it to take the best of {', '.join(_available())}"


def _available() -> list[str]:
    return [name for name in SETS if _native.runs_here(name.encode())]


# A demand that cannot be met is refused at the first use, not at import: a program that never calls codec runs, and the
# command line says it in one line.
_refusal = _select()


def _check_demand() -> None:
    if _refusal is not None:
        raise ArgumentError(_refusal)


def info() -> dict[str, Any]:
    """The instruction set in use, those built in, those that run here, and the number of threads."""
    _check_demand()
    return {
        "kernel": _native.kernel(),
        "built": [name for name in SETS if _native.built(name.encode())],
        "available": _available(),
        "threads": thread_count(None),
    }


_limit: ContextVar[int | None] = ContextVar("codec_threads", default=None)


def _checked_threads(threads: object, source: str) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or not 1 <= threads <= MAX_THREADS:
        raise ArgumentError(f"{source}={threads!r}; expected an int from 1 to {MAX_THREADS}")
    return int(threads)


def thread_count(threads: int | None) -> int:
    """Threads for one call: the argument, else threadpool_limits, else CODEC_NUM_THREADS, else one per CPU."""
    _check_demand()
    if threads is not None:
        return _checked_threads(threads, "threads")
    limit = _limit.get()
    if limit is not None:
        return limit
    found = _native.default_threads()
    if not found:
        configured = os.environ["CODEC_NUM_THREADS"]
        return _checked_threads(int(configured) if configured.isdecimal() else configured, "CODEC_NUM_THREADS")
    return found


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


# Lends the threads of an OpenMP runtime, by the address of its GOMP_parallel; and says how many of them products of
# this thread take from now on (0: threads of the pool).
lend_threads = _native.lend_threads
borrow_threads = _native.borrow_threads


def crc32c(data: Any, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of a contiguous buffer, continued from ``value``.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    _check_demand()
    return _native.crc32c(octets(data), value)


def octets(data: Any) -> np.ndarray:
    """Any contiguous buffer as uint8, without a copy."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


# What a backend gives: results are (status, segment, stream, found, expected), for `raise_for`.
Result = tuple[int, int, int, int, int]
Coder = _native.Coder
# Buffer, where each part begins in it, its length, its checksum, what decodes it, and whether all segments share it.
StreamParts = tuple[Any, np.ndarray, np.ndarray, np.ndarray, "Coder | None", bool]


class View(Protocol):
    """The proved parts of some segments of a frame, and what can be done with them without a dense copy."""

    def check(self, first: int, last: int, threads: int) -> Result:
        """Compare the checksums of segments [first, last)."""

    def decode(self, first: int, count: int, out: np.ndarray, always: bool, threads: int) -> tuple[Result, int, int]:
        """Elements [first, first + count) into ``out``; the result, and how many entries the segments read store: at
        least, and at most (where zeros fill up blocks or slices, zeros that were kept cannot be told from them).
        """

    def multiply(
        self,
        first: int,
        last: int,
        x: Any,
        y: np.ndarray,
        transposed: bool,
        limit: int,
        threads: int,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> Result:
        """W x scale + bias, or the transpose's product, into y (m, batch), in the dtype of x or of the sums.

        y may be (m, images, places), whose columns are the places of the images in turn. It is what `bits_of` gives for
        an array. Sums that come from several views in turn are in their own dtype.
        """

    def multiply_array(
        self, item: int, value: int, accumulator: int, transposed: bool, x: np.ndarray, y: np.ndarray, across: bool,
        bias: np.ndarray | None, threads: int,
    ) -> Result:  # fmt: skip
        """W x + bias, or the transpose's product, of floats into y; types as `type_code` gives them.

        x and y, of type ``item``, are (n, batch) and (m, batch) or vectors, with ``across`` (batch, n) and (batch, m).
        A bias has the sums' type. ValueError for arrays that kernels cannot take as they lie.
        """

    def multiply_at(
        self, item: int, value: int, accumulator: int, transposed: bool, x: int, batch: int, y: int, bias: int,
        wide_bias: bool, threads: int, team: int,
    ) -> Result:  # fmt: skip
        """x W.T + bias, or x W + bias, of row-major arrays by their addresses; types as `type_code` gives them.

        ``item`` is that of x and the result, and of the bias unless ``wide_bias`` says that it has the sums' type.
        """

    def entries(
        self, first: int, last: int, starts: np.ndarray, indices: np.ndarray, values: np.ndarray, count: int
    ) -> tuple[Result, int]:
        """The stored entries as CSR arrays."""

    def count(
        self, first: int, last: int, segment_rows: int, segment_cols: int, requests: list[Any], threads: int
    ) -> Result:
        """Statistics of segments [first, last) of another cut of the matrix."""


class Backend(Protocol):
    """Where packed tensors are held and executed."""

    name: str

    def view(
        self,
        grid: Grid,
        layout: int,
        width: int,
        params: tuple[int, ...],
        first: int,
        streams: Sequence[StreamParts],
        checked: np.ndarray | None,
        coding: tuple[int, int, int, bool],
        alignment: int,
    ) -> View:
        """The parts of the segments from ``first`` on, as many as the streams' arrays have.

        Zeros follow each part up to a multiple of ``alignment``, a power of two.
        """

    def operand(
        self, x: np.ndarray, weights: ElementType, acc: ElementType, window: tuple[int, ...] | None = None
    ) -> Any:
        """A product's x, (n, batch), prepared for the kernels; of the accumulator's dtype, or one that `widens` to it.

        With ``window``, two each of the kernel sizes, strides and dilations of a filter and of the padding before and
        behind an image, x is pixels (images, channels, height, width), and the product's x those under the filter:
        (channels * kernel sizes, images * places).
        """

    def filter_images(
        self,
        pixels: np.ndarray,
        window: tuple[int, ...],
        groups: int,
        starts: np.ndarray,
        columns: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray | None,
        out: np.ndarray,
        threads: int,
    ) -> None:
        """Filters by their non-zero weights over images, into ``out`` (images, filters, height, width), contiguous.

        ``pixels`` and ``window`` are as for `operand`, and out has the dtype of the pixels. The weights of filter i are
        [starts[i], starts[i + 1]), and ``columns`` says where each stands in the filter, counted over the channels of
        a group; both are uint64. Weights and bias are float32 or float64, as the sums.
        """


class Cpu:
    """The kernels of this process, in the instruction set that `info` names."""

    name = "cpu"

    def view(
        self,
        grid: Grid,
        layout: int,
        width: int,
        params: tuple[int, ...],
        first: int,
        streams: Sequence[StreamParts],
        checked: np.ndarray | None,
        coding: tuple[int, int, int, bool] = (0, NO_STREAM, 0, False),
        alignment: int = 1,
    ) -> View:
        """See `Backend.view`."""
        return _native.View(
            grid.rows, grid.cols, grid.segment_rows, grid.segment_cols, layout, width, params, first, list(streams),
            checked, coding, alignment,
        )  # fmt: skip

    def operand(
        self, x: np.ndarray, weights: ElementType, acc: ElementType, window: tuple[int, ...] | None = None
    ) -> Any:
        """See `Backend.operand`."""
        item = type_code(element_type(x.dtype))
        return _native.Operand(bits_of(x), item, type_code(weights), type_code(acc), window)

    def filter_images(
        self,
        pixels: np.ndarray,
        window: tuple[int, ...],
        groups: int,
        starts: np.ndarray,
        columns: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray | None,
        out: np.ndarray,
        threads: int,
    ) -> None:
        """See `Backend.filter_images`."""
        item, acc = (type_code(element_type(array.dtype)) for array in (pixels, weights))
        _native.filter_images(
            bits_of(pixels), item, window, groups, starts, columns, octets(weights),
            None if bias is None else octets(bias), octets(bits_of(out)), acc, threads,
        )  # fmt: skip


backend: Backend = Cpu()

# Writing and counting are the CPU's: a frame is made here, wherever it is used.
Streams = _native.Streams
# How many words a native statistic takes, and counting statistics in one pass over dense elements.
statistic_words = _native.statistic_words
count = _native.count
assign_codes = _native.assign_codes
kmeans = _native.kmeans
code_lengths = _native.code_lengths
# The kernels of products, one row each: form, types, batch.
product_kernels = _native.product_kernels


def widens(item: ElementType, acc: ElementType) -> bool:
    """Whether kernels take x of a type for sums of another, and round these to it (widens_to in native code)."""
    return item == acc or (acc.name == "F32" and item.name in ("F16", "BF16"))


def bits_of(array: np.ndarray) -> np.ndarray:
    """An array, or a view of its bits where its dtype is none of NumPy's own: what native code takes of any strides."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def type_code(element: ElementType) -> int:
    """The native number of an element type."""
    return _TYPE_CODES[element.name]


def kind_code(kind: str) -> int:
    """The native number of an item kind."""
    return _KINDS.index(kind)


def huffman_coder(width: int, kind: str, low: int, zeros: int, first: int, lengths: Sequence[int]) -> Coder:
    """A proved Huffman code, prepared for the kernels."""
    return _native.HuffmanCoder(width, kind_code(kind), low, zeros, first, np.array(lengths, np.uint8))


def rans_coder(width: int, kind: str, low: int, zeros: int, first: int, lanes: int, counts: Sequence[int]) -> Coder:
    """A proved table of rANS, prepared for the kernels."""
    return _native.RansCoder(width, kind_code(kind), low, zeros, first, lanes, np.array(counts, np.uint16))


def choose_code(
    counts: np.ndarray, shift: int, first: int, or_of_keys: int, width: int, kind: str, longest: int, bits: int
) -> tuple[int, int, int, bytes, int]:
    """(low, zeros, first, code word lengths, bits of all items) of the cheapest Huffman code for counted keys."""
    return _native.choose_code(counts, shift, first, or_of_keys, width, kind_code(kind), longest, bits)


def choose_counts(
    counts: np.ndarray, shift: int, first: int, or_of_keys: int, width: int, kind: str, bits: int
) -> tuple[int, int, int, bytes, int]:
    """(low, zeros, first, counts of 2**12 as uint16, bits of all items) of the cheapest rANS table for counted keys."""
    return _native.choose_counts(counts, shift, first, or_of_keys, width, kind_code(kind), bits)


# Status numbers of native code, with what they say; {found} and {expected} are the result's.
_MEANING = {
    2: "ends too early: {found} bytes or items where {expected} are needed",
    3: "is too long: {found} bytes or items where {expected} are needed",
    4: "holds {found}, outside the limit of {expected}",
    5: "goes back: {found} where at least {expected} was expected",
    6: "has bits set outside the matrix or in its padding ({found:#x})",
    7: "is not as short as the format asks ({found}; expected at most {expected})",
    8: "has an incomplete code table",
}
_REPAIR = "the bytes are damaged or were not written by codec: fetch them again, or run `codec verify` on the file"


def raise_for(result: Result, streams: Sequence[str], offsets: Sequence[np.ndarray] | None = None) -> None:
    """Raise the one error that a native result stands for; return on success.

    ``streams`` names the streams; ``offsets`` gives for each where its parts begin in the frame.
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
    at = int(offsets[stream][min(segment, len(offsets[stream]) - 1)]) if offsets is not None else None
    if status == 1:
        raise ChecksumError(
            f"segment {segment}: CRC-32C is {found:08x}, expected {expected:08x}: {_REPAIR}",
            stream=streams[stream],
            offset=at,
        )
    what = _MEANING[status].format(found=found, expected=expected)
    raise FormatError(f"segment {segment} {what}: {_REPAIR}", stream=streams[stream], offset=at)
