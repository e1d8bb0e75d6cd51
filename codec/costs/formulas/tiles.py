"""Formats of GPU kernels, which cut the matrix into tiles."""

from dataclasses import dataclass

from codec.costs.formulas.base import Formula, row_pointers


@dataclass(frozen=True)
class TiledCsl(Formula):
    """32 bits for a non-zero of 16 bits, its place in a tile of 128 x 64 included, and an offset for each tile.

    ``padded`` counts the padding of a tile to a multiple of four non-zeros (1.5 are expected), which the compression
    ratios of the SpInfer paper leave out.
    """

    name = "tiled_csl"
    source = "Flash-LLM (VLDB 2023); SpInfer (EuroSys 2025) for the formula 4 NT + 4 nnz bytes"

    padded: bool = True

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        padding = 1.5 * (value_bits + 16) if self.padded else 0.0
        return (1 - sparsity) * 16 + (32 + padding) / (128 * 64)


@dataclass(frozen=True)
class TcaBme(Formula):
    """A bitmap in tiles of 8 x 8, and an offset for each group of 64 x 64.

    ``padded`` counts the padding of a group to a multiple of eight values (3.5 are expected), which the published
    4 (NGT + 1) + 8 NBT + 2 nnz bytes leave out. The one offset more than groups is not counted.
    """

    name = "tca_bme"
    source = "SpInfer (EuroSys 2025)"

    padded: bool = True

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        padding = 3.5 * value_bits if self.padded else 0.0
        return 1 + (32 + padding) / (64 * 64)


@dataclass(frozen=True)
class Sparta(Formula):
    """2:4 with two bits of position for each of its values, and CSR for the non-zeros that do not fit into 2:4.

    Of a group of four, one non-zero is left over with chance 4 d^3 s, two with chance d^4.
    """

    name = "sparta"
    source = "SparTA (OSDI 2022), by the formula of SpInfer (EuroSys 2025)"

    def overhead(self, sparsity: float, value_bits: float, rows: int, cols: int) -> float:
        """See Formula."""
        density = 1 - sparsity
        left_over = (4 * density**3 * sparsity + 2 * density**4) / 4
        halves = (value_bits + 2) / 2
        listed = left_over * (value_bits + 32) + row_pointers(32, rows, cols)
        return halves + listed - density * value_bits
