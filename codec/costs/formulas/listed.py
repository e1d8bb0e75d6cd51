"""Positions that are listed one by one: of the non-zeros, or of the zeros."""

from dataclasses import dataclass

from codec.costs.formulas.base import Formula


@dataclass(frozen=True)
class Coo(Formula):
    """Coordinates: ``index`` bits of position for each non-zero; d i. It pays from s = i / (b + i) on."""

    name = "coo"
    source = "coordinate format, as in scipy.sparse and torch.sparse"

    index: int = 64  # two int32 coordinates

    def __post_init__(self) -> None:
        self._check_int("index", 1, 128)

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        return (1 - sparsity) * self.index


@dataclass(frozen=True)
class ZeroTable(Formula):
    """The positions of the zeros at ``index`` bits each: s i. It saves s (b - i), and so pays while i < b."""

    name = "zero_table"
    source = "folklore of pruning; csr of=zeros is the layout of this library that does it"

    index: int = 16

    def __post_init__(self) -> None:
        self._check_int("index", 1, 128)

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        return sparsity * self.index
