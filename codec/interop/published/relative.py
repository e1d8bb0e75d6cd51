"""Zeros counted before each value: EIE, Deep Compression, Eyeriss, MACKO."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from codec.errors import ArgumentError, FormatError
from codec.interop.published.arrays import integers, of_ndim
from codec.layouts.gaps import MOST_BITS, gaps_before, join, split
from codec.matrix import is_int


class Relative(NamedTuple):
    """Values with fillers, and the zeros before each of them."""

    values: np.ndarray
    zeros: np.ndarray


class Columns(NamedTuple):
    """One processing element's matrix as EIE stores it: values, zeros before each, and where each column begins."""

    v: np.ndarray
    z: np.ndarray
    p: np.ndarray


class Macko(NamedTuple):
    """MACKO's arrays: values, two deltas to the byte (even entries in the low four bits), where each row begins."""

    values: np.ndarray
    deltas: np.ndarray
    row_pointers: np.ndarray


def _check_bits(bits: Any) -> None:
    if not is_int(bits) or not 1 <= bits <= MOST_BITS:
        raise ArgumentError(f"bits={bits!r}; expected an int from 1 to {MOST_BITS}")


def _relative(line: np.ndarray, bits: int) -> Relative:
    top = (1 << bits) - 1
    stored = line != 0
    codes, entry = split(gaps_before(stored), top + 1, top)
    values = np.zeros(len(codes), line.dtype)
    values[entry] = line[stored]
    return Relative(values, codes)


def relative_index(a: Any, bits: int = 4) -> Relative:
    """A vector as values and zero counts of ``bits`` bits; where more zeros come, a zero value with the largest count.

    EIE (Han et al., ISCA 2016, section III-B: 4 bits). Deep Compression (Han et al., ICLR 2016, section 2) stores the
    index difference, which is ``zeros + 1``.

    >>> relative_index([0, 0, 1, 2, *[0] * 18, 3])
    Relative(values=array([1, 2, 0, 3]), zeros=array([ 2,  0, 15,  2]))
    """
    _check_bits(bits)
    return _relative(of_ndim(a, 1), bits)


def from_relative_index(values: Any, zeros: Any, size: int) -> np.ndarray:
    """The vector of ``size`` elements: each value behind its zeros. Zero values, fillers or not, leave zeros."""
    values, zeros = of_ndim(values, 1), integers("zero counts", zeros, 1).astype(np.int64)
    if len(values) != len(zeros) or np.any(zeros < 0):
        raise FormatError(f"{len(values)} values and {len(zeros)} zero counts; expected as many, none below 0")
    out = np.zeros(size, values.dtype)
    out[join(zeros, np.ones(len(zeros), bool), 1, size, "zeros")] = values
    return out


def eie_columns(a: Any, pes: int = 1, bits: int = 4) -> list[Columns]:
    """A matrix by columns on ``pes`` processing elements: row i lies on element i mod ``pes``; zeros count its rows.

    EIE (Han et al., ISCA 2016, section III-B and figures 2 and 3). Column j of an element is entries p[j] to p[j + 1],
    fillers included.
    """
    matrix = of_ndim(a, 2)
    _check_bits(bits)
    if not is_int(pes) or pes < 1:
        raise ArgumentError(f"pes={pes!r}; expected an int from 1 on")
    out = []
    for element in range(pes):
        columns = [_relative(matrix[element::pes, j], bits) for j in range(matrix.shape[1])]
        out.append(Columns(*_joined(columns, matrix.dtype)))
    return out


def from_eie_columns(elements: list[Columns], rows: int) -> np.ndarray:
    """The matrix of ``rows`` rows that processing elements hold."""
    if not elements or not len(elements[0].p):
        raise ArgumentError("no processing elements, or one without pointers")
    out = np.zeros((rows, len(elements[0].p) - 1), elements[0].v.dtype)
    for number, (v, z, p) in enumerate(elements):
        mine = out[number :: len(elements)]
        for j, (begin, end) in enumerate(_bounds(p, len(v), out.shape[1])):
            mine[:, j] = from_relative_index(v[begin:end], z[begin:end], len(mine))
    return out


def eyeriss_pairs(a: Any) -> tuple[np.ndarray, np.ndarray]:
    """(run, level) pairs: runs of up to 31 zeros; the value behind a run of 31 is stored even where it is a zero.

    Eyeriss (Chen et al., JSSC 2017, run-length compression); zeros behind the last value are not coded.
    """
    levels, runs = _relative(of_ndim(a, 1), 5)
    return runs, levels


def eyeriss_words(a: Any, last: bool = True) -> np.ndarray:
    """Three pairs in each 64-bit word, for 16-bit values: runs and levels in turn from the top, then the last-word bit.

    Eyeriss (Chen et al., JSSC 2017, run-length compression). The paper does not say how bits lie in a word: this is
    the order of its figure from the most significant bit on; layout `run_length` has the first pair lowest and the
    last-word bit on top. A last word is filled with (31, 0). ``last``: whether the last word says that it is.
    """
    line = of_ndim(a, 1)
    if line.dtype.itemsize != 2:
        raise ArgumentError(f"{line.dtype} values; expected a dtype of two bytes")
    runs, levels = eyeriss_pairs(line)
    rest = -len(runs) % 3
    pairs = np.concatenate((runs, np.full(rest, 31))).astype(np.uint64) << np.uint64(16)
    pairs |= np.concatenate((levels, np.zeros(rest, levels.dtype))).view(np.uint16).astype(np.uint64)
    first, second, third = pairs.reshape(-1, 3).T
    words = first << np.uint64(43) | second << np.uint64(22) | third << np.uint64(1)
    if last and len(words):
        words[-1] |= np.uint64(1)
    return np.asarray(words)


def from_eyeriss_words(words: Any, size: int, dtype: Any) -> np.ndarray:
    """The vector of ``size`` elements, up to the first word whose lowest bit is set."""
    if np.dtype(dtype).itemsize != 2:
        raise ArgumentError(f"dtype {np.dtype(dtype)}; expected one of two bytes")
    found = integers("words", words, 1).astype(np.uint64)
    ends = np.flatnonzero(found & np.uint64(1))
    found = found[: ends[0] + 1] if len(ends) else found
    pairs = np.stack([found >> np.uint64(shift) & np.uint64((1 << 21) - 1) for shift in (43, 22, 1)], axis=1).reshape(
        -1
    )
    runs, levels = (pairs >> np.uint64(16)).astype(np.int64), (pairs & np.uint64(0xFFFF)).astype(np.uint16)
    used = len(pairs)
    while used and runs[used - 1] == 31 and not levels[used - 1]:
        used -= 1
    return from_relative_index(levels[:used].view(dtype), runs[:used], size)


def macko(a: Any, trailing_fillers: bool | None = None) -> Macko:
    """A matrix by rows with deltas of four bits: float values as float16, or int8.

    MACKO (github.com/vlejd/macko_spmv): the float16 encoder drops the fillers behind a row's last value, the int8 one
    keeps one for every 16 zeros there; ``trailing_fillers`` says so, by default as for the dtype. Values and deltas are
    filled with zeros to a multiple of 8 entries.
    """
    matrix = of_ndim(a, 2)
    matrix = matrix if matrix.dtype == np.int8 else matrix.astype(np.float16)
    keep = matrix.dtype == np.int8 if trailing_fillers is None else trailing_fillers
    rows = []
    for row in matrix:
        values, zeros = _relative(row, 4)
        behind = (row.size - int(np.flatnonzero(row)[-1]) - 1 if row.any() else row.size) // 16 if keep else 0
        rows.append(Relative(np.append(values, np.zeros(behind, row.dtype)), np.append(zeros, np.full(behind, 15))))
    values, zeros, pointers = _joined(rows, matrix.dtype)
    padded = np.zeros(-(-len(values) // 8) * 8, matrix.dtype)
    padded[: len(values)] = values
    deltas = np.zeros(len(padded), np.uint8)
    deltas[: len(zeros)] = zeros
    return Macko(padded, deltas[::2] | deltas[1::2] << 4, pointers.astype(np.int32))


def from_macko(arrays: Macko, cols: int) -> np.ndarray:
    """The matrix of ``cols`` columns, from either variant."""
    values, packed, pointers = of_ndim(arrays[0], 1), integers("deltas", arrays[1], 1), arrays[2]
    if packed.dtype != np.uint8:
        raise FormatError(f"deltas are {packed.dtype}; expected uint8, two to a byte")
    zeros = np.stack((packed & 15, packed >> 4), axis=1).reshape(-1)
    bounds = _bounds(pointers, min(len(values), len(zeros)), len(pointers) - 1)
    out = np.zeros((len(pointers) - 1, cols), values.dtype)
    for row, (begin, end) in zip(out, bounds, strict=True):
        row[:] = from_relative_index(values[begin:end], zeros[begin:end], cols)
    return out


def _joined(lines: list[Relative], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pointers = np.concatenate(([0], np.cumsum([len(line.values) for line in lines]))).astype(np.int64)
    values = np.concatenate([np.zeros(0, dtype), *(line.values for line in lines)])
    return values, np.concatenate([np.zeros(0, np.int64), *(line.zeros for line in lines)]), pointers


def _bounds(pointers: np.ndarray, entries: int, lines: int) -> list[tuple[int, int]]:
    edges = integers("pointers", pointers, 1).tolist()
    if not edges or len(edges) != lines + 1 or edges[0] != 0 or edges != sorted(edges) or edges[-1] > entries:
        raise FormatError(f"pointers {edges[:4]}...; expected {lines + 1} that ascend from 0 to at most {entries}")
    return list(pairwise(edges))
