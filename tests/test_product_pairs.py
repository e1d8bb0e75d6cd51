"""bfloat16 weights with bfloat16 x: pairs of them are multiplied by one instruction where the processor has it."""

from typing import Any

import numpy as np
import pytest
from products import weights

import codec
from codec import _native, kernels
from codec.dtypes import element_type

BF16 = element_type("bfloat16")
LAYOUTS = [("sell", {}), ("dense", {}), ("bitmap", {}), ("bitmap", {"order": "lanes"}), ("csr", {})]
BATCHES = (5, 8, 13, 16, 29, 70)


def rounded(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(BF16.dtype).astype(np.float32)


def used(p: codec.PackedTensor, x: np.ndarray) -> list[str]:
    """The kernels that a product takes; its result is checked."""
    operand = kernels.backend.operand(x, BF16, element_type("float32"))
    sums = np.zeros((p.shape[0], x.shape[1]), np.float32)
    segments = p.spans.head.grid.segments
    p.spans.raise_for(p.spans.view(0, segments, 1).multiply(0, segments, operand, sums, False, 0, 1))
    exact = p.to_dense().astype(np.float64)
    error = np.abs(sums - exact @ x.astype(np.float64))
    assert (error <= 1e-5 * (np.abs(exact) @ np.abs(x).astype(np.float64) + 1e-30)).all()
    return list(operand.kernels)


@pytest.mark.parametrize(("layout", "params"), LAYOUTS)
@pytest.mark.parametrize("sparsity", [0.2, 0.6, 0.97])
def test_products_are_right_and_do_not_depend_on_threads(layout: str, params: dict[str, Any], sparsity: float) -> None:
    for batch in BATCHES:
        p = codec.encode(weights((139, 301), BF16, sparsity, batch), layout=layout, objective="memory", **params)
        x = rounded((301, batch), batch)
        used(p, x)
        one = codec.matmul(p, x, threads=1)
        assert np.array_equal(codec.matmul(p, x, threads=3), one)
        assert np.array_equal(codec.linear(np.ascontiguousarray(x.T), p, threads=2), one.T)
        assert np.array_equal(codec.matmul(p, x.astype(BF16.dtype)), one.astype(BF16.dtype))


@pytest.mark.parametrize(("layout", "params"), LAYOUTS[:4])
def test_the_smallest_numbers_count(layout: str, params: dict[str, Any]) -> None:
    """The instruction takes numbers below 2^-126 for zeros: neither weights nor x may lose them."""
    w = weights((70, 130), BF16, 0.3, 1)
    w[3] = w[3].astype(np.float32) * 1e-39
    w[9, 5] = 1e-40
    p = codec.encode(w, layout=layout, objective="memory", **params)
    for batch in (8, 32):
        x = rounded((130, batch), batch)
        large = x * np.float32(2.0**100)
        assert (codec.matmul(p, large)[3] != 0).all()
        assert np.allclose(codec.matmul(p, large)[3], w[3].astype(np.float64) @ large, rtol=1e-4, atol=0)
        tiny = x.copy()
        tiny[7] = np.float32(2.0**-130)
        assert not any("pairs" in name or "tiles" in name for name in used(p, tiny))
        alone = np.zeros_like(x)
        alone[7] = np.float32(2.0**-130)
        exact = w.astype(np.float64) @ alone
        assert np.allclose(codec.matmul(p, alone), exact, rtol=1e-3, atol=2.0**-149)


def test_pairs_are_for_x_of_bfloat16_numbers() -> None:
    forms = (("sell", {}, "sliced"), ("dense", {}, "dense"), ("bitmap", {"order": "lanes"}, "mask"))
    for layout, params, form in forms:
        rows = {r["name"] for r in _native.product_kernels() if (r["items"], r["form"]) == ("bf16", form)}
        p = codec.encode(weights((70, 130), BF16, 0.3, 1), layout=layout, objective="memory", **params)
        assert bool(rows & set(used(p, rounded((130, 32), 1)))) == bool(rows)
        x = rounded((130, 32), 1)
        x[77, 3] = np.nextafter(np.float32(1), np.float32(2))
        assert not rows & set(used(p, x))


@pytest.mark.parametrize(("sparsity", "batch"), [(0.35, 8), (0.6, 8), (0.4, 32)])
def test_what_multiplies_pairs_fastest(sparsity: float, batch: int) -> None:
    items = {row["items"] for row in _native.product_kernels()}
    pairs, tiles = "bf16" in items, "parts" in items
    w = weights((256, 300), BF16, sparsity)
    p = codec.encode(w, objective="speed", batch=batch)
    assert (p.layout, p.params) == (("bitmap", {"order": "lanes"}) if pairs else ("sell", {}))
    assert codec.encode(w[:9], objective="speed", batch=batch).layout == "bitmap"
    assert codec.encode(weights((256, 300), BF16, 0.8), objective="speed", batch=batch).layout == (
        "bitmap" if tiles else "sell"
    )


def test_columns_of_up_to_64_rows() -> None:
    """They go to kernels of their own: every height, an odd number of columns, every width of a batch."""
    for rows in (1, 31, 32, 33, 63, 64, 65, 130):
        p = codec.encode(weights((rows, 303), BF16, 0.5, rows), layout="bitmap", order="lanes", objective="memory")
        x = np.random.default_rng(rows).standard_normal((303, 41)).astype(np.float32)
        one = np.stack([codec.matvec(p, np.ascontiguousarray(x[:, j])) for j in range(41)], 1)
        for batch in (2, 3, 4, 5, 12, 20, 41):
            assert np.allclose(codec.matmul(p, x[:, :batch]), one[:, :batch], rtol=0, atol=1e-4)
            used(p, x[:, :batch].astype(BF16.dtype).astype(np.float32))
