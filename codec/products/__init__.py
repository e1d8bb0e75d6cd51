"""Products straight from packed bytes: no dense copy of the weights is made.

operands.py says which dtypes and shapes go together and in what sums are kept; matrices.py has the products of matrices
with dense arrays, and direct.py the short way of calls that need no conversion.
"""

from codec.products.matrices import (
    TILE_BYTES,
    batch_tile,
    linear,
    matmul,
    matvec,
    multiply,
    multiply_pixels,
    rmatmul,
)

__all__ = ["TILE_BYTES", "batch_tile", "linear", "matmul", "matvec", "multiply", "multiply_pixels", "rmatmul"]
