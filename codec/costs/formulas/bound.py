"""What no code of independent zeros goes below."""

from dataclasses import dataclass
from math import log, log1p, log2

from codec.costs.formulas.base import Formula


@dataclass(frozen=True)
class EntropyBound(Formula):
    """H2(s) bits for the positions, and the values as they are."""

    name = "entropy_bound"
    source = "Shannon 1948"

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        zeros = sparsity * log2(sparsity) if sparsity > 0 else 0.0
        others = (1 - sparsity) * log1p(-sparsity) / log(2) if sparsity < 1 else 0.0
        return -zeros - others


def entropy_bound(sparsity: float, value_bits: float) -> float:
    """Bits per element that no code can go below: the entropy of the positions of independent zeros, and the values.

    >>> entropy_bound(0.5, 16)
    9.0
    """
    return EntropyBound().ideal_bits(sparsity, value_bits, 1, 1)
