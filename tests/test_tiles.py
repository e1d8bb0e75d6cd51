"""Products by tiles (AMX): the model of their instructions against NumPy, and the kernels over it against exact sums.

Where the CPU has tiles, all of it runs with them too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import check, using, weights

import codec
from codec import _native, kernels
from codec.dtypes import element_type

KERNELS = [kernels.MODEL] + ["amx"] * ("amx" in kernels.info()["available"])
LANES = {"order": "lanes"}
LAYOUTS: list[tuple[str, dict[str, Any]]] = [("bitmap", LANES), ("bitmap", {}), ("dense", {})]
BF16 = np.dtype("bfloat16")
every_layout = pytest.mark.parametrize(("layout", "params"), LAYOUTS, ids=["lanes", "rows", "dense"])


@pytest.fixture(params=KERNELS, autouse=True, scope="module")
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def used(p: codec.PackedTensor, x: np.ndarray) -> set[str]:
    """The kernels that a product takes."""
    integers = x.dtype == np.int32
    operand = kernels.backend.operand(x, p.spans.head.element, element_type("int32" if integers else "float32"))
    sums = np.zeros((p.shape[0], x.shape[1]), np.int32 if integers else np.float32)
    segments = p.spans.head.grid.segments
    p.spans.raise_for(p.spans.view(0, segments, 1).multiply(0, segments, operand, sums, False, 1 << 62, 1))
    return set(operand.kernels)


def by_tiles(p: codec.PackedTensor, x: np.ndarray) -> bool:
    """Whether tiles multiplied all of it."""
    return all("tiles" in name for name in used(p, x))


# ---- the instructions ------------------------------------------------------------------------------------------------


def flushed(a: np.ndarray) -> np.ndarray:
    return np.where(np.abs(a) < np.float32(2.0**-126), np.copysign(np.float32(0), a), a)


def dot_bf16(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """c (m, n) + a (m, k) b (k, n) of pairs, as TDPBF16PS adds them up.

    A product is exact in float64, and its sum with a float32 is rounded there to what float32 makes the same of.
    """
    sums = np.zeros((*c.shape, 2), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = flushed(a.astype(np.float32)).astype(np.float64), flushed(b.astype(np.float32)).astype(np.float64)
        for k in range(a.shape[1]):
            sums = flushed((a[:, k, None, :] * b[None, k] + sums.astype(np.float64)).astype(np.float32))
        return flushed(flushed(c) + flushed(sums[..., 0] + sums[..., 1]))


def items(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """bf16 numbers: of any bits, or of sizes that are added up without much loss."""
    if kind == "any":
        return rng.integers(0, 1 << 16, shape, np.uint16).view(BF16)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-70, -50 if kind == "small" else 70, shape)).astype(BF16)


@pytest.mark.parametrize("kind", ["any", "small", "wide"])
@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 16), k=st.integers(1, 16), n=st.integers(1, 16), seed=st.integers(0, 1 << 32))
def test_products_of_pairs(kind: str, m: int, k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = items(rng, (m, k, 2), kind), items(rng, (k, n, 2), kind)
    start = rng.integers(0, 1 << 32, (m, n), np.uint32).view(np.float32) if kind == "any" else np.zeros((m, n), "f4")
    found = start.copy()
    _native.tile_dot(*(each.view(np.uint8).reshape(-1) for each in (a, b, found)), m, k, n, False)
    assert np.array_equal(found, dot_bf16(a, b, start), equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 16), k=st.integers(1, 16), n=st.integers(1, 16), seed=st.integers(0, 1 << 32))
def test_products_of_bytes(m: int, k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-128, 128, (m, k, 4), np.int8), rng.integers(-128, 128, (k, n, 4), np.int8)
    start = rng.integers(-(1 << 31), 1 << 31, (m, n), np.int32)
    found = start.copy()
    _native.tile_dot(*(each.view(np.uint8).reshape(-1) for each in (a, b, found)), m, k, n, True)
    expected = start.astype(np.int64) + np.einsum("mki,kni->mn", a.astype(np.int64), b.astype(np.int64))
    assert np.array_equal(found, expected.astype(np.int32))


def test_tiles_of_other_sizes_are_refused() -> None:
    four = np.zeros(4, np.uint8)
    for sizes in ((0, 1, 1), (17, 1, 1), (1, 1, 17), (2, 1, 1)):
        with pytest.raises(ValueError, match="tiles of"):
            _native.tile_dot(four, four, four, *sizes, False)
    with using("scalar"), pytest.raises(ValueError, match="no tiles"):
        _native.tile_dot(four, four, four, 1, 1, 1, False)


# ---- the kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
@every_layout
def test_products_are_right_and_do_not_depend_on_threads(layout: str, params: dict[str, Any], dtype: str) -> None:
    for number, (rows, cols) in enumerate(((139, 301), (64, 256), (17, 33), (200, 70))):
        w = weights((rows, cols), element_type(dtype), 0.3, number)
        p = codec.encode(w, layout=layout, objective="memory", **params)
        for batch in (5, 8, 13, 29, 70)[number % 2 :: 2]:
            for item in ("float32", "bfloat16", "float16"):
                x = np.random.default_rng(batch).standard_normal((cols, batch)).astype(item)
                found = codec.matmul(p, x, threads=1)
                check(found, w, x)
                assert np.array_equal(codec.matmul(p, x, threads=3), found)
                assert np.array_equal(codec.linear(np.ascontiguousarray(x.T), p, threads=2), found.T)
            assert by_tiles(p, x.astype(np.float32))
            check((x.T @ p.T).T, w, x)


@pytest.mark.parametrize("shape", [(40, 4096), (9, 1057), (3, 16_384)])
def test_dense_panels_of_whole_segments(shape: tuple[int, int]) -> None:
    """They are read where they lie, and hold more elements than other panels."""
    w = weights(shape, element_type("float32"), 0)
    p = codec.encode(w, layout="dense", objective="memory")
    x = np.random.default_rng(0).standard_normal((shape[1], 8), np.float32)
    assert by_tiles(p, x)
    check(p @ x, w, x)


def test_int8_times_int8_is_exact() -> None:
    rng = np.random.default_rng(0)
    w = weights((139, 301), element_type("int8"), 0.5)
    w[3, 5:9] = -128
    p = codec.encode(w, layout="bitmap", objective="memory", **LANES)
    for batch in (5, 16, 40):
        x = rng.integers(-128, 128, (301, batch), np.int8)
        assert np.array_equal(codec.matmul(p, x, threads=2), w.astype(np.int32) @ x.astype(np.int32))
        assert by_tiles(p, x.astype(np.int32))
        x = x.astype(np.int32) * 2
        assert not by_tiles(p, x)


@every_layout
def test_every_float32_is_the_sum_of_its_parts(layout: str, params: dict[str, Any]) -> None:
    """Times 1 it comes back: of the sizes that tiles take to the last bit, others by other kernels."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 23, (96, 128), np.uint32)
    for least, most, tiles in ((-36, 36, True), (-64, 64, False), (-149, 128, False)):
        exponents = rng.integers(max(least, -127), most, (96, 128)) + 127
        numbers = (bits | exponents.astype(np.uint32) << 23).view(np.float32)
        eye = np.eye(128, 32, dtype=np.float32)
        p = codec.encode(numbers, layout=layout, objective="memory", **params)
        assert np.array_equal(codec.matmul(p, eye), numbers[:, :32])
        assert by_tiles(p, eye) == tiles
        p = codec.encode(np.eye(128, dtype=np.float32), layout=layout, objective="memory", **params)
        assert np.array_equal(codec.matmul(p, numbers.T), numbers.T)


@every_layout
def test_numbers_that_tiles_would_lose_go_another_way(layout: str, params: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for dtype, w_size, x_size, tiles in (
        ("float32", -33, -60, True), ("float32", -40, 0, False), ("float32", 0, -70, False), ("float32", 40, 0, False),
        ("float32", 0, 70, False), ("bfloat16", -33, -60, True), ("bfloat16", -120, 0, False),
        ("bfloat16", -120, -20, False), ("bfloat16", 0, -120, False),
    ):  # fmt: skip
        w = (rng.uniform(1, 2, (70, 96)) * 2.0**w_size).astype(dtype)
        x = (rng.uniform(1, 2, (96, 9)) * 2.0**x_size).astype(np.float32)
        p = codec.encode(w, layout=layout, objective="memory", **params)
        assert by_tiles(p, x) == tiles
        found, expected = codec.matmul(p, x), w.astype(np.float64) @ x
        assert (np.abs(found - expected) <= 2e-6 * expected + 96 * 2.0**-149).all()


@every_layout
def test_infinities_and_nan(layout: str, params: dict[str, Any]) -> None:
    for dtype in ("float32", "bfloat16"):
        w = weights((70, 130), element_type(dtype), 0.3)
        w[:, 7] = 0
        p = codec.encode(w, layout=layout, objective="memory", **params)
        x = np.random.default_rng(3).standard_normal((130, 12)).astype(np.float32)
        without = x.copy()
        without[7] = 0
        for value in (np.inf, -np.inf, np.nan):
            x[7] = value  # meets zeros alone
            check(codec.matmul(p, x), w, without)
        w[5, 9], w[6, 9] = np.inf, np.nan
        p = codec.encode(w, layout=layout, objective="memory", **params)
        found = codec.matmul(p, without)
        assert np.isinf(found[5]).all()
        assert np.isnan(found[6]).all()
        assert np.isfinite(np.delete(found, [5, 6], 0)).all()


def test_what_tiles_multiply_fastest() -> None:
    for dtype, sparsity, batch, layout in (
        ("float32", 0.5, 32, "bitmap"), ("float32", 0.8, 32, "sell"), ("float32", 0.5, 8, "sell"),
        ("bfloat16", 0.8, 8, "bitmap"), ("bfloat16", 0.95, 8, "sell"), ("int8", 0.5, 8, "bitmap"),
        ("bfloat16", 0.05, 8, "dense"),
    ):  # fmt: skip
        w = weights((256, 300), element_type(dtype), sparsity)
        assert codec.encode(w, objective="speed", batch=batch).layout == layout
