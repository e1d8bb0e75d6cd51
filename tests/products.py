"""Weights and operands for products, and the bound that a product must keep."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from codec import _native
from codec.dtypes import ElementType, element_type

# A sum in float32 is off by this share of the sum of magnitudes, and one step of the result's dtype comes on top.
ROUNDING = 2e-6
STEP = {"F64": 2**-53, "F32": 2**-24, "F16": 2**-11, "BF16": 2**-8, "F8_E4M3": 2**-4, "F8_E5M2": 2**-3}
TINY = {"F16": 2**-24, "BF16": 2**-133, "F8_E4M3": 2**-9, "F8_E5M2": 2**-16}


def weights(shape: tuple[int, ...], element: ElementType, sparsity: float, seed: int = 0) -> np.ndarray:
    """Weights that are finite and of the size that they have in models; small integers."""
    rng = np.random.default_rng(seed)
    if element.is_float:
        w = rng.standard_normal(shape) * 0.5
    else:
        w = rng.integers(0 if element.name[0] in "UB" else -100, 2 if element.name == "BOOL" else 100, shape)
    w[rng.random(shape) < sparsity] = 0
    return w.astype(element.dtype)


def exact(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """w @ x in float64, or in whole numbers."""
    wide = np.float64 if element_type(x.dtype).is_float else np.int64
    return np.asarray(w.astype(wide) @ x.astype(wide))


def check(found: np.ndarray, w: np.ndarray, x: np.ndarray) -> None:
    """``found`` is w @ x within what the accumulator and the result's dtype may lose."""
    expected = exact(w, x)
    assert found.shape == expected.shape
    element = element_type(x.dtype)
    if not element.is_float:
        assert found.dtype == (np.int32 if w.dtype == x.dtype == np.int8 else np.int64)
        assert np.array_equal(found, expected)
        return
    assert found.dtype == x.dtype
    magnitude = np.abs(w.astype(np.float64)) @ np.abs(x.astype(np.float64))
    wide = "F64" in (element.name, element_type(w.dtype).name)
    bound = magnitude * (1e-14 if wide else ROUNDING) + np.abs(expected) * 1.01 * STEP[element.name]
    assert (np.abs(found.astype(np.float64) - expected) <= bound + TINY.get(element.name, 1e-300)).all()


def x_for(element: ElementType, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Operands that all products with weights of that dtype take."""
    rng = np.random.default_rng(seed + 100)
    if element.is_float or element.name in ("I8", "U8", "I16", "U16", "BOOL"):
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(-9, 10, shape)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Kernels of another instruction set than the one in use; not while other threads multiply."""
    before = _native.kernel()
    assert _native.select(name) == 0
    try:
        yield
    finally:
        _native.select(before)
