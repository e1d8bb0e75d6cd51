"""Every product kernel of the instruction set in use and of the model of tiles, forced in turn, against NumPy."""

from typing import Any

import numpy as np
import pytest
from products import check, using, weights, x_for

import codec
from codec import _native, kernels
from codec.dtypes import element_type

IN_USE = _native.kernel()
ROWS = _native.product_kernels()
with using(kernels.MODEL):
    TILES = [row for row in _native.product_kernels() if row["items"] != "sums" and IN_USE != kernels.MODEL]
# Layouts whose panels have a form; where lines are columns, a product by rows goes along the sums.
LAYOUTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "mask": [("bitmap", {}), ("bitmap", {"order": "lanes"})],
    "index": [("csr", {})],
    "dense": [("dense", {})],
    "sliced": [("sell", {})],
    "block": [("block_offset", {"block": block}) for block in ((4, 4), (1, 8), (9, 1), (8, 40))],
}
DTYPES = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
DTYPES |= {"i64": "int64", "i32": "int32", "i8": "int8"}
# What stands for "any" value type, which is converted first.
ANY = {"f32": "float16", "f64": "float32", "i64": "int16", "i32": "int8"}
SHAPES = [(70, 65), (130, 3000), (9, 17_000)]
MODELLED = [(70, 65), (130, 600)]  # a model of an instruction takes its time


def forced(row: dict[str, Any], layout: str, params: dict[str, Any], batch: int, case: tuple[Any, ...]) -> bool:
    """Whether the kernel multiplied a panel; its product is checked."""
    shape, sparsity, transposed = case
    element = element_type(ANY[row["accumulator"]] if row["value"] == "any" else DTYPES[row["value"]])
    acc = element_type(DTYPES[row["accumulator"]])
    w = weights(shape, element, sparsity, batch)
    bits = 4 if row["codes"] == "fours" else 3 + batch % 2
    coded = {"values": "codebook", "value_bits": bits} if row["codes"] else {}
    p = codec.encode(w, layout=layout, objective="memory", **coded, **params)
    rng = np.random.default_rng(batch)
    exact = (p.to_dense().T if transposed else p.to_dense()).astype(np.float64)
    x = rng.standard_normal((exact.shape[1], batch)) if acc.is_float else rng.integers(-9, 9, (exact.shape[1], batch))
    x = x.astype("bfloat16" if row["items"] == "bf16" else acc.dtype).astype(acc.dtype)
    sums = np.zeros((exact.shape[0], batch), acc.dtype)
    operand = kernels.backend.operand(x, element, acc)
    view = p.spans.view(0, p.spans.head.grid.segments, 1)
    result = view.multiply(0, p.spans.head.grid.segments, operand, sums, transposed, 1 << 31, 1, kernel=row["name"])
    p.spans.raise_for(result)
    error = np.abs(sums - exact @ x.astype(np.float64))
    assert (error <= 1e-5 * (np.abs(exact) @ np.abs(x).astype(np.float64) + 1e-30)).all()
    return row["name"] in operand.kernels


@pytest.mark.parametrize(
    ("row", "kernel"),
    [(r, IN_USE) for r in ROWS] + [(r, kernels.MODEL) for r in TILES],
    ids=lambda each: each if isinstance(each, str) else each["name"],
)
def test_every_kernel_multiplies_what_it_is_for(row: dict[str, Any], kernel: str) -> None:
    modelled = kernel == kernels.MODEL and row["items"] != "sums"
    shapes = MODELLED if modelled else SHAPES if row["form"] != "block" else [(70, 80), (130, 3000), (9, 17_000)]
    with using(kernel):
        assert multiplies(row, shapes)


def multiplies(row: dict[str, Any], shapes: list[tuple[int, int]]) -> bool:
    """Whether the kernel multiplied a panel of one of them, for its least batch and for others."""
    least, most = row["batch"]
    batches = sorted({least, min(most or 70, 70), min(most or 37, 37)})
    sparsities = (0.2, 0.7, 0.97) if row["form"] == "mask" else (0.2, 0.97)
    used = False
    for layout, params in LAYOUTS[row["form"]]:
        columns = params.get("order") == "lanes"
        transposed = (row["direction"] == "axpy") != columns
        for batch in batches:
            for shape in shapes:
                for sparsity in sparsities:
                    used |= forced(row, layout, params, batch, (shape, sparsity, transposed))
    return used


def test_names_are_told_apart_and_the_last_rows_take_everything() -> None:
    names = [row["name"] for row in ROWS]
    assert len(set(names)) == len(names)
    for form in ("index", "dense"):
        for direction in ("dot", "axpy"):
            rows = [r for r in ROWS if (r["form"], r["direction"], r["value"]) == (form, direction, "any")]
            open_ended = {r["accumulator"] for r in rows if r["batch"][1] is None and not r["finite"]}
            assert open_ended == {"f32", "f64", "i64", "i32"}


def test_a_kernel_for_another_product_is_refused() -> None:
    p = codec.encode(np.eye(3, dtype=np.float32), layout="csr")
    operand = kernels.backend.operand(np.ones((3, 1), np.float32), element_type("float32"), element_type("float32"))
    for name in ("index_dot_any_f64_b1", "nothing"):
        with pytest.raises(ValueError, match="no product kernel"):
            p.spans.view(0, 1, 1).multiply(0, 1, operand, np.zeros((3, 1), np.float32), False, 0, 1, kernel=name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "int32"])
def test_rows_with_the_same_columns_have_the_sums_that_they_have_among_others(dtype: str) -> None:
    """Slices of sell whose rows have the same columns are multiplied by themselves: rows or columns that are zeros as a
    whole, and rows that only look like them.
    """
    element, rng = element_type(dtype), np.random.default_rng(5)
    w = weights((150, 600), element, 0)
    w[rng.random(150) < 0.5] = 0
    w[:, rng.random(600) < 0.3] = 0
    w[:8] = 0
    w[1, 0], w[2, 256], w[3, 255] = 1, 1, 1  # a single entry, at the position that rows without one are filled up with
    w[64:128, 256:512] = 0
    w[70:76, 300], w[71, 256] = 1, 1
    w[140, np.flatnonzero(w[140])[:1]] = 0
    others = np.empty((300, 600), w.dtype)
    others[::2], others[1::2] = w, weights((150, 600), element, 0.5, 1)
    alone, among = (codec.encode(each, layout="sell") for each in (w, others))
    for batch in (2, 5, 8, 13, 16, 40):
        x = x_for(element, (600, batch), batch)
        found = alone @ x
        check(found, w, x)
        assert np.array_equal(found, (among @ x)[::2])
