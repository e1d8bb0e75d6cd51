"""Products of shared weights: whichever kernel looks the codes up, it multiplies what decoding gives."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import check, weights, x_for
from strategies import LAYOUT_PARAMS, layout_id

import codec
from codec.dtypes import element_type

# Layouts that take a zero for a filler refuse weights whose nearest entry is one.
CASES = [case for case in LAYOUT_PARAMS if case[0] != "run_length" and case[1].get("filler") != "value"]
FLOATS = ["float32", "bfloat16", "float16", "float64", "float8_e4m3fn"]


@given(
    st.integers(1, 140), st.integers(1, 600), st.integers(0, 9), st.sampled_from(CASES), st.integers(1, 8),
    st.sampled_from([None, 1, 40]), st.sampled_from(FLOATS), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_any_codebook(
    rows: int,
    cols: int,
    batch: int,
    case: tuple[str, dict[str, Any]],
    bits: int,
    group: int | None,
    dtype: str,
    seed: int,
) -> None:
    element = element_type(dtype)
    w = weights((rows, cols), element, seed / 100, seed)
    p = codec.encode(w, layout=case[0], values="codebook", value_bits=bits, codebook_rows=group, **case[1])
    dense = p.to_dense()
    x = x_for(element, (cols, batch) if batch else (cols,), seed)
    check(p @ x, dense, x)
    left = x_for(element, (batch, rows) if batch else (rows,), seed)
    check((left @ p).T, dense.T, left.T)


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_infinities_meet_zero_weights(case: tuple[str, dict[str, Any]]) -> None:
    w = weights((70, 256), element_type("float32"), 0.5)
    w[:, 7] = 0
    p = codec.encode(w, layout=case[0], values="codebook", value_bits=4, **case[1])
    x = x_for(element_type("float32"), (256,), 0)
    without = x.copy()
    x[7], without[7] = np.inf, 0
    check(p @ x, p.to_dense(), without)


@pytest.mark.parametrize("layout", ["sell", "bitmap"])
@pytest.mark.parametrize("bits", [4, 8])
def test_results_do_not_depend_on_threads(layout: str, bits: int) -> None:
    w = weights((1024, 1500), element_type("float32"), 0.7)
    p = codec.encode(w, layout=layout, values="codebook", value_bits=bits)
    for batch in ((), (2,), (9,)):
        x = x_for(element_type("float32"), (1500, *batch), 0)
        one = codec.matmul(p, x, threads=1)
        check(one, p.to_dense(), x)
        assert np.array_equal(codec.matmul(p, x, threads=3), one)
