"""Products with x in float16 and bfloat16: kernels widen x and round the result, as NumPy would before and after."""

from typing import Any

import numpy as np
import pytest
from products import weights
from strategies import LAYOUT_PARAMS, layout_id

import codec
from codec.dtypes import element_type

NARROW = ["float16", "bfloat16"]
narrow = pytest.mark.parametrize("dtype", [element_type(name).dtype for name in NARROW], ids=NARROW)
BATCHES = (1, 3, 8, 37)


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint16)


def x_of(shape: tuple[int, ...], dtype: np.dtype, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def orders(x: np.ndarray) -> list[np.ndarray]:
    """The same (n, batch) elements in memory by rows, by columns, apart and backwards."""
    apart = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    apart[::2, ::3] = x
    return [x, np.asfortranarray(x), apart[::2, ::3], np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]]


@narrow
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_a_result_is_that_of_float32_rounded(case: tuple[str, dict[str, Any]], dtype: np.dtype) -> None:
    for number, element in enumerate(("float32", dtype.name, "float64")):
        wide = np.float64 if element == "float64" else np.float32  # which is converted by NumPy
        w = weights((67, 130), element_type(element), 0.8, number)
        p = codec.encode(w, layout=case[0], **case[1])
        for batch in BATCHES:
            for side, n in ((p, 130), (p.T, 67)):
                x = x_of((n, batch), dtype, batch)
                expected = codec.matmul(side, x.astype(wide)).astype(dtype)
                for each in orders(x):
                    found = codec.matmul(side, each)
                    assert found.dtype == dtype
                    assert np.array_equal(bits(found), bits(expected))
                    assert np.array_equal(bits(codec.linear(each.T, side)), bits(expected.T))
                for out in orders(np.empty(expected.shape, dtype)):
                    codec.matmul(side, x, out=out, threads=2)
                    assert np.array_equal(out, expected)


@narrow
def test_a_bias_and_a_scale_apply_before_the_result_is_rounded(dtype: np.dtype) -> None:
    p = codec.encode(weights((67, 130), element_type("float32"), 0.8), objective="speed")
    bias = np.random.default_rng(1).standard_normal(67).astype(np.float32)
    for shape in ((130,), (1, 130), (5, 130), (2, 3, 130)):
        x = x_of(shape, dtype)
        for own in (bias, bias.astype(dtype), bias.astype(np.float64)):
            expected = codec.linear(x.astype(np.float32), p, own.astype(np.float32)).astype(dtype)
            for _ in range(2):  # the second time by the short way
                assert np.array_equal(codec.linear(x, p, own), expected)
        expected = codec.linear(x.astype(np.float32), p, bias, scale=bias).astype(dtype)
        assert np.array_equal(codec.linear(x, p, bias, scale=bias), expected)


@narrow
def test_every_number_is_widened_and_rounded(dtype: np.dtype) -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    one = codec.encode(np.ones((1, 1), np.float32), layout="csr")
    for x in (numbers[None], numbers[None, :8], np.stack([numbers] * 5)[2:3]):
        with np.errstate(invalid="ignore"):
            expected = x.astype(np.float32) + 0  # -0.0 is added to 0.0
        found = codec.matmul(one, x)
        assert np.array_equal(found.astype(np.float32), expected, equal_nan=True)
    # Sums of any float32: a bias is added to none.
    high = np.arange(1, 1 << 16, dtype=np.uint32) << 16
    sums = np.concatenate([high + low for low in (0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    sums = sums[sums != 0x80000000].view(np.float32)
    nothing = codec.encode(np.zeros((len(sums), 1), np.float32), layout="csr")
    with np.errstate(over="ignore", invalid="ignore"):
        expected = sums.astype(dtype)
    for batch in (1, 6):
        found = codec.linear(np.ones((batch, 1), dtype), nothing, sums)
        is_nan = np.isnan(sums)
        assert np.isnan(found[:, is_nan].astype(np.float32)).all()
        assert np.array_equal(bits(found)[:, ~is_nan], np.broadcast_to(bits(expected)[~is_nan], (batch, sum(~is_nan))))


@narrow
@pytest.mark.parametrize("layout", ["csr", "bitmap", "sell"])
def test_infinities_meet_no_zero_weight(layout: str, dtype: np.dtype) -> None:
    w = weights((40, 90), element_type(dtype), 0.7)
    p = codec.encode(w, layout=layout, objective="memory")
    for batch in (1, 9):
        x = x_of((90, batch), dtype)
        x[7] = np.inf
        assert np.array_equal(np.isinf(codec.matmul(p, x).astype(np.float32)), np.repeat(w[:, 7:8] != 0, batch, 1))


@narrow
def test_sums_of_several_views_are_rounded_once(dtype: np.dtype) -> None:
    w = weights((300, 2000), element_type("float32"), 0.8)
    p = codec.encode(w, layout="csr", entropy="zstd")
    assert p.spans.bounded
    for batch in (1, 5):
        for side, n in ((p, 2000), (p.T, 300)):
            x = x_of((n, batch), dtype)
            expected = codec.matmul(side, x.astype(np.float32)).astype(dtype)
            assert np.array_equal(codec.matmul(side, x), expected)


@narrow
def test_the_border_refuses_what_does_not_widen(dtype: np.dtype) -> None:
    from codec import kernels

    f32, f64, own = element_type("float32"), element_type("float64"), element_type(dtype)
    p = codec.encode(np.eye(8, dtype=np.float32), layout="csr")
    x = np.ones((8, 2), dtype)
    for acc in (f64, element_type("int32")):
        with pytest.raises(ValueError, match="do not widen"):
            kernels.backend.operand(x, f32, acc)
    operand, view = kernels.backend.operand(x, f32, f32), p.spans.view(0, 1, 1)
    with pytest.raises(ValueError, match="parts of sums"):
        view.multiply(0, 0, operand, np.zeros((8, 2), np.uint16), False, 0, 1)
    with pytest.raises(ValueError, match="of other items"):
        view.multiply(0, 1, operand, np.zeros((8, 2), np.uint8), False, 0, 1)
    assert kernels.widens(own, f32)
    assert not kernels.widens(own, f64)
