"""What a closed form is: the bits that a published format takes for each element of independent zeros."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from codec.errors import ArgumentError
from codec.matrix import is_int


@dataclass(frozen=True)
class Formula(ABC):
    """A format that codec does not write, with its parameters as fields; only its size is known.

    Attributes
    ----------
    name : str
        What ``break_even`` calls it.
    source : str
        Where the format is published, or where the formula was derived.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """Bits per element beside the values of the non-zeros, which take ``(1 - sparsity) * value_bits``.

        Positions, padding, and pointers count; headers do not. ``rows`` and ``cols`` are those of the matrix.
        """

    def ideal_bits(self, sparsity: float, value_bits: float, rows: int, cols: int, less: float = 0.0) -> float:
        """Bits per element, minus the constant ``less``.

        Subtracting the value width first avoids cancellation where two formats differ only slightly.
        """
        return self.overhead(sparsity, value_bits, rows, cols) - sparsity * value_bits + (value_bits - less)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _check_int(self, field: str, low: int, high: int) -> None:
        value = getattr(self, field)
        if not is_int(value) or not low <= value <= high:
            raise ArgumentError(f"{field}={value!r}; expected an int from {low} to {high}")

    def _check_one_of(self, field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in allowed:
            raise ArgumentError(f"{field}={value!r}; expected one of {', '.join(map(repr, allowed))}")


def row_pointers(bits: int, rows: int, cols: int) -> float:
    """Bits per element of a pointer of so many bits for each row, and of one more."""
    return bits * (rows + 1) / (rows * cols)
