"""One bit for each element, or for each block of elements."""

from dataclasses import dataclass

from codec.costs.formulas.base import Formula
from codec.errors import ArgumentError
from codec.matrix import is_int


@dataclass(frozen=True)
class BitmapRows(Formula):
    """A bitmap with an offset of ``pointer`` bits for each row: 1 + p / C."""

    name = "bitmap_rows"
    source = "compressed-tensors, sparse-bitmask"

    pointer: int = 64

    def __post_init__(self) -> None:
        self._check_int("pointer", 1, 64)

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        return 1 + self.pointer / cols


@dataclass(frozen=True)
class TwoLevelBitmap(Formula):
    """A bit for each word of the bitmap, and only the words with a bit set: 1 / w + 1 - s^w."""

    name = "bitmap_two_level"
    source = "hierarchical bitmaps, as in SMASH (Kanellopoulos 2019)"

    word: int = 64

    def __post_init__(self) -> None:
        self._check_int("word", 2, 4096)

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        return float(1 / self.word + 1 - sparsity**self.word)


@dataclass(frozen=True)
class BlockBitmap(Formula):
    """A bit for each r x c block, and all values of the blocks that are not zero: 1 / (r c) + (1 - s^(r c)) b."""

    name = "block_bitmap"
    source = "derived: block sparsity S = s^(r c) of independent zeros"

    block: tuple[int, int] = (4, 4)

    def __post_init__(self) -> None:
        size = tuple(self.block) if isinstance(self.block, tuple | list) else ()
        if len(size) != 2 or not all(is_int(n) and 1 <= n <= 1 << 16 for n in size):
            raise ArgumentError(f"block={self.block!r}; expected two ints, rows and columns, from 1 to 65536")
        object.__setattr__(self, "block", (int(size[0]), int(size[1])))

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        size = self.block[0] * self.block[1]
        return float(1 / size + (sparsity - sparsity**size) * value_bits)
