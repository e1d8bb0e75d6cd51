# The border in native/_native.pyx. Buffers are contiguous; arrays are ndarrays of the item type named.

from typing import Any, Self, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, disjoint_base

# numpy gives ndarray its buffer protocol from Python 3.12 on.
_Bytes: TypeAlias = Buffer | npt.NDArray[Any]
_U32: TypeAlias = npt.NDArray[np.uint32]
_U64: TypeAlias = npt.NDArray[np.uint64]
_I64: TypeAlias = npt.NDArray[np.int64]
# status, segment, stream, found, expected
_Result: TypeAlias = tuple[int, int, int, int, int]
# A statistic's name, its two arguments, and its words.
_Request: TypeAlias = tuple[str, int, int, _U64]

def select(name: str | None) -> int: ...
def kernel() -> str: ...
def built(name: bytes) -> bool: ...
def runs_here(name: bytes) -> bool: ...
def lend_threads(region: int) -> None: ...
def borrow_threads(team: int) -> None: ...
def crc32c(data: _Bytes, value: int) -> int: ...
def kmeans(
    x: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64] | None,
    start: bool,
    rounds: int,
    centers: npt.NDArray[np.float64],
) -> None: ...
def assign_codes(items: _Bytes, width: int, order: int, bounds: _U64, codes: _Bytes, out: _Bytes) -> None: ...
def code_lengths(counts: _U64, max_length: int) -> bytes: ...
def choose_code(
    counts: _U64,
    shift: int,
    first: int,
    or_of_keys: int,
    width: int,
    kind: int,
    max_length: int,
    bits: int = 0,
) -> tuple[int, int, int, bytes, int]: ...
def choose_counts(
    counts: _U64,
    shift: int,
    first: int,
    or_of_keys: int,
    width: int,
    kind: int,
    bits: int = 0,
) -> tuple[int, int, int, bytes, int]: ...
def statistic_words(name: str, a: int, b: int, rows: int, cols: int, segment_rows: int, segment_cols: int) -> int: ...
def count(
    dense: _Bytes,
    keep: _Bytes | None,
    rows: int,
    cols: int,
    segment_rows: int,
    segment_cols: int,
    width: int,
    nonzero: int,
    negative: int,
    requests: list[_Request],
    threads: int,
    first: int = 0,
    last: int | None = None,
) -> tuple[_Result, int]: ...
def filter_images(
    pixels: _Bytes,
    item: int,
    sizes: tuple[int, ...],
    groups: int,
    starts: _U64,
    columns: _U64,
    weights: _Bytes,
    bias: _Bytes | None,
    out: _Bytes,
    type: int,
    threads: int,
) -> None: ...

@disjoint_base
class Coder: ...

@final
class HuffmanCoder(Coder):
    def __new__(cls, width: int, kind: int, low: int, zeros: int, first: int, lengths: _Bytes) -> Self: ...

@final
class RansCoder(Coder):
    def __new__(
        cls, width: int, kind: int, low: int, zeros: int, first: int, lanes: int, counts: npt.NDArray[np.uint16]
    ) -> Self: ...

def default_threads() -> int: ...
def product_kernels() -> list[dict[str, Any]]: ...
def tile_dot(a: _Bytes, b: _Bytes, c: _Bytes, m: int, k: int, n: int, signed_bytes: bool) -> None: ...

@final
class Operand:
    def __new__(
        cls, x: _Bytes, item: int, value: int, accumulator: int, window: tuple[int, ...] | None = None
    ) -> Self: ...
    @property
    def kernels(self) -> list[str]: ...

@final
class View:
    def __init__(
        self,
        rows: int,
        cols: int,
        segment_rows: int,
        segment_cols: int,
        layout: int,
        width: int,
        params: tuple[int, ...],
        first: int,
        streams: list[tuple[_Bytes, _U64, _U32, _U32, Coder | None, bool]],
        checked: _Bytes | None,
        coding: tuple[int, int, int, bool] = (0, 0xFFFFFFFF, 0, False),
        alignment: int = 1,
    ) -> None: ...
    def check(self, first: int, last: int, threads: int) -> _Result: ...
    def decode(self, first: int, count: int, out: _Bytes, always: bool, threads: int) -> tuple[_Result, int, int]: ...
    def multiply(
        self,
        first: int,
        last: int,
        x: Operand,
        y: _Bytes,
        transposed: bool,
        limit: int,
        threads: int,
        scale: _Bytes | None = None,
        bias: _Bytes | None = None,
        kernel: str | None = None,
    ) -> _Result: ...
    def multiply_array(
        self,
        item: int,
        value: int,
        accumulator: int,
        transposed: bool,
        x: _Bytes,
        y: _Bytes,
        across: bool,
        bias: _Bytes | None,
        threads: int,
    ) -> _Result: ...
    def multiply_at(
        self,
        item: int,
        value: int,
        accumulator: int,
        transposed: bool,
        x: int,
        batch: int,
        y: int,
        bias: int,
        wide_bias: bool,
        threads: int,
        team: int,
    ) -> _Result: ...
    def entries(
        self, first: int, last: int, starts: _I64, indices: _I64, values: _Bytes, count: int
    ) -> tuple[_Result, int]: ...
    def count(
        self, first: int, last: int, segment_rows: int, segment_cols: int, requests: list[_Request], threads: int
    ) -> _Result: ...

@final
class Streams:
    def __new__(
        cls,
        rows: int,
        cols: int,
        segment_rows: int,
        segment_cols: int,
        width: int,
        nonzero: int,
        negative: int,
        layout: int,
        params: tuple[int, ...],
        streams: int,
    ) -> Self: ...
    @property
    def stored(self) -> int: ...
    @property
    def refused(self) -> tuple[int, int, int] | None: ...
    @property
    def dropped_negatives(self) -> int: ...
    def encode(
        self, dense: _Bytes, keep: _Bytes | None, threads: int, first: int = 0, last: int | None = None
    ) -> None: ...
    def encode_csr(self, starts: _I64, indices: _I64, values: _Bytes, threads: int) -> None: ...
    def transcode(self, source: View, first: int, last: int, threads: int, codes: _Bytes | None = None) -> _Result: ...
    def sizes(self, stream: int, out: _U64) -> None: ...
    def part(self, segment: int, stream: int) -> bytes: ...
    def set_part(self, segment: int, stream: int, data: _Bytes) -> None: ...
    def share(self, stream: int, data: _Bytes) -> None: ...
    def key_range(self, stream: int, width: int, kind: int) -> tuple[int, int]: ...
    def histogram(self, stream: int, width: int, kind: int, shift: int, first: int, counts: _U64) -> int: ...
    def code(self, stream: int, coder: Coder, threads: int) -> None: ...
    def pack_bits(self, stream: int, bits: int, threads: int) -> None: ...
    def move(self, frame: _Bytes, offsets: _U64, checksums: _U32, threads: int) -> None: ...

# What Cython puts into every module with classes that cannot be pickled.
def __reduce_cython__(self: Any) -> None: ...  # noqa: N807
def __setstate_cython__(self: Any, __pyx_state: Any) -> None: ...  # noqa: N807
