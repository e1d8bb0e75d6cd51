"""Distances between non-zeros: a fixed number of bits for each, or a code of them."""

from dataclasses import dataclass
from math import inf

import numpy as np

from codec.costs.formulas.base import Formula, row_pointers
from codec.errors import ArgumentError
from codec.layouts.gaps import endless
from codec.matrix import is_int

_LONG = 1 << 20  # fillers of a row from which on it counts as endless


@dataclass(frozen=True)
class RelativeRows(Formula):
    """Gaps of ``bits`` bits with zero values as fillers, as in layout relative_index, behind row pointers (MACKO).

    ``case`` is what the zeros are like: "expected" (independent), "best" (no filler is needed) or "worst" (a filler for
    every 2^k zeros). The effective density of MACKO is this over b, without pointers.
    """

    name = "relative_index_rows"
    source = "MACKO (arXiv 2511.13061)"

    bits: int = 4
    pointer: int = 32
    case: str = "expected"

    def __post_init__(self) -> None:
        self._check_int("bits", 1, 16)
        self._check_int("pointer", 0, 64)
        self._check_one_of("case", ("expected", "best", "worst"))

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        density, step = 1 - sparsity, 1 << self.bits
        fillers = {"expected": expected_fillers(sparsity, step, cols), "best": 0.0, "worst": sparsity / step}[self.case]
        return density * self.bits + fillers * (self.bits + value_bits) + row_pointers(self.pointer, rows, cols)


@dataclass(frozen=True)
class PackedRunLength(Formula):
    """Pairs of a run of ``bits`` bits and a value, one behind the other: d (b + k) / (1 - s^(2^k)).

    Layout run_length puts whole pairs into words of 64 bits instead.
    """

    name = "run_length_packed"
    source = "Eyeriss (JSSC 2017), without its words"

    bits: int = 5

    def __post_init__(self) -> None:
        self._check_int("bits", 1, 16)

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        pairs = endless(sparsity, 1 << self.bits)
        return pairs * self.bits + (pairs - (1 - sparsity)) * value_bits


@dataclass(frozen=True)
class RiceGaps(Formula):
    """Gaps in Rice codes of parameter r: d (r + 1 / (1 - s^(2^r))); None takes the best r."""

    name = "rice_gaps"
    source = "Golomb-Rice codes of geometric gaps (Rice 1979)"

    parameter: int | None = None

    def __post_init__(self) -> None:
        if self.parameter is not None and not (is_int(self.parameter) and 0 <= self.parameter <= 32):
            raise ArgumentError(f"parameter={self.parameter!r}; expected an int from 0 to 32, or None for the best")

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        if sparsity >= 1:
            return 0.0
        tried = range(33) if self.parameter is None else (self.parameter,)
        return (1 - sparsity) * min(r + _unary(float(sparsity ** (1 << r))) for r in tried)


def expected_fillers(sparsity: float, step: int, length: float) -> float:
    """Expected fillers per element of runs of ``length`` elements whose trailing zeros are not coded.

    One for each multiple j of the step that still has a non-zero behind it: d / L * sum of (L - j step) s^(j step).
    """
    most = int(length - 1) // step
    if most > _LONG:
        return endless(sparsity, step) - (1 - sparsity)
    reached = step * np.arange(1.0, most + 1)
    return float((1 - sparsity) / length * ((length - reached) * sparsity**reached).sum())


def _unary(q: float) -> float:
    """Expected unary bits of a gap, where another 2^r zeros follow with chance q."""
    return 1 / (1 - q) if q < 1 else inf
