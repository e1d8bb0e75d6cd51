"""Arrays that cross to other libraries and back, and what must hold when they do."""

import numpy as np
from strategies import seeded, under_rule

from codec.dtypes import ElementType

# A matrix in binsparse: what its description says, and its arrays.
ABOUT = {
    "version": "0.1.0",
    "format": "CSR",
    "shape": [3, 4],
    "number_of_stored_values": 2,
    "data_types": {"pointers_to_1": "int64", "indices_1": "int64", "values": "float32"},
}
CSR = {"pointers_to_1": np.array([0, 1, 1, 2]), "indices_1": np.array([3, 0]), "values": np.ones(2, np.float32)}


def dense(shape: tuple[int, ...], element: ElementType, seed: int = 0, sparsity: float = 0.7) -> np.ndarray:
    """Any bit pattern, but for -0.0."""
    return under_rule(seeded(shape, element, sparsity, seed), "value", element)


def quiet(shape: tuple[int, ...], element: ElementType, seed: int) -> np.ndarray:
    """The same with one kind of NaN: others add entries to zeros on their way to dense, which changes the bits."""
    a = dense(shape, element, seed)
    if element.is_float:
        with np.errstate(invalid="ignore"):
            a[np.isnan(a)] = np.nan
    return a


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal in dtype, shape and every bit."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
