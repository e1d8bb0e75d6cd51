"""What goes or stays as one: every structure is a block of a matrix, but for n:m, which is a rule for groups of a row.

The matrix is the one that codec encodes (its rows are the first dimension, of 1-d and of (1, n, m) see codec.matrix),
so that what is pruned together lies together in the layouts. "filter", "kernel" and "channel" read the shape as a
convolution (out, in, ...) or a linear layer (out, in) has it.
"""

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.errors import ArgumentError
from codec.matrix import default_row_dims, matrix_shape

# What a structure may be called; the figures in the first two stand for any.
NAMES = ("2:4", "4x4", "element", "row", "column", "filter", "kernel", "channel")
# Those that read the shape as (out, in, ...), and the dimensions that a shape needs for them.
_LEAST = {"filter": 2, "kernel": 3, "channel": 2}
_FIGURES = re.compile(r"([1-9]\d{0,8})[:x]([1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True)
class Structures:
    """A matrix of ``rows`` x ``cols`` cut into blocks of ``height`` x ``width``; those at the edges are clipped.

    ``keep`` is None, or for n:m the number of weights kept in each block, of height 1.
    """

    rows: int
    cols: int
    height: int
    width: int
    keep: int | None = None

    @property
    def down(self) -> int:
        """Rows of blocks."""
        return -(-self.rows // self.height)

    @property
    def across(self) -> int:
        """Columns of blocks."""
        return -(-self.cols // self.width)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Weights in each block: (down, across)."""
        heights = np.minimum(self.height, self.rows - self.height * np.arange(self.down))
        widths = np.minimum(self.width, self.cols - self.width * np.arange(self.across))
        return np.outer(heights, widths)

    def across_rows(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What holds for some rows of blocks, for each of their columns: (rows of blocks, cols)."""
        return np.repeat(kept, self.width, axis=1)[:, : self.cols] if self.width > 1 else kept

    def spread(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What holds for each block, (down, across), for each of its weights: (rows, cols)."""
        wide = self.across_rows(kept)
        return np.repeat(wide, self.height, axis=0)[: self.rows] if self.height > 1 else wide


def structures_of(structure: str, shape: tuple[int, ...]) -> Structures:
    """The structures of a tensor.

    Parameters
    ----------
    structure : str
        =========  ====================================================================================
        "element"  every weight by itself (Han et al. 2015)
        "2:4"      n of every m consecutive weights of a row are kept (Mishra et al. 2021); any n <= m
        "4x4"      blocks of r rows and c columns from the first row and column on, clipped at the last
                   ones; a vector is a block of "1xc" or "rx1"
        "row"      an output of a linear layer
        "column"   a column of the matrix
        "filter"   all weights of an output channel of (out, in, ...) (Li et al. 2017)
        "kernel"   the weights between an output and an input channel: of (out, in, kh, kw) kh * kw
        "channel"  all weights of an input channel: of (out, in, kh, kw) out * kh * kw
        =========  ====================================================================================
    shape : tuple of int
        Of the tensor.

    Raises
    ------
    ArgumentError
        For a structure of no such name, or one that the shape does not have.

    Examples
    --------
    >>> structures_of("kernel", (64, 3, 7, 7))
    Structures(rows=64, cols=147, height=1, width=49, keep=None)
    """
    figures = check_structure(structure)
    least = _LEAST.get(structure, 0)
    if not applies(structure, shape):
        raise ArgumentError(
            f'structure="{structure}" of shape {shape}; expected (out, in{", ..." if least > 2 else ""}): {least} '
            "dimensions or more"
        )
    convolution = structure in _LEAST
    rows, cols = matrix_shape(shape, 1 if convolution else default_row_dims(shape))
    if figures is not None:
        first, second = figures
        if fixes_sparsity(structure):
            return Structures(rows, cols, 1, second, keep=first)
        return Structures(rows, cols, min(first, max(1, rows)), min(second, max(1, cols)))
    kernel = prod(shape[2:])
    height, width = {
        "element": (1, 1),
        "row": (1, cols),
        "column": (rows, 1),
        "filter": (1, cols),
        "kernel": (1, kernel),
        "channel": (rows, kernel),
    }[structure]
    return Structures(rows, cols, max(1, height), max(1, width))


def check_structure(structure: Any) -> tuple[int, int] | None:
    """The figures in a structure's name, or None where it has none; ArgumentError where nothing is called so."""
    figures = _FIGURES.fullmatch(structure) if isinstance(structure, str) else None
    if figures is None:
        if structure not in NAMES or not isinstance(structure, str):
            raise ArgumentError(
                f"structure={structure!r}; expected one of {', '.join(NAMES)}; 2:4 and 4x4 stand for any n:m and block"
            )
        return None
    first, second = int(figures[1]), int(figures[2])
    if fixes_sparsity(structure) and first > second:
        raise ArgumentError(f'structure="{structure}" keeps {first} of every {second}; expected n:m with n <= m')
    return first, second


def applies(structure: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of that shape has such structures: filters and channels need two dimensions, kernels three.

    >>> applies("kernel", (64, 3, 7, 7)), applies("kernel", (64, 147))
    (True, False)
    """
    return len(shape) >= _LEAST.get(structure, 0)


def fixes_sparsity(structure: str) -> bool:
    """Whether a structure says by itself how much goes, as n:m does."""
    return ":" in structure
