"""Zeros in x: rows of a matrix packed transposed that meet one are passed over, and nothing else changes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import check, weights, x_for
from strategies import ELEMENTS, LAYOUT_PARAMS, layout_id

import codec
from codec.dtypes import element_type

# Those whose rows can be passed over.
SKIPPING = [("csr", {}), ("csr", {"of": "zeros"}), ("csr", {"index": 32}), ("bitmap", {}), ("dense", {})]
every_layout = pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)


def sparse_x(element: Any, n: int, batch: tuple[int, ...], density: float, seed: int) -> np.ndarray:
    """x with rows of zeros, some of them negative."""
    x = x_for(element, (n, *batch), seed)
    rng = np.random.default_rng(seed)
    dead = rng.random(n) >= density
    x[dead] = 0
    if element_type(x.dtype).is_float:
        x[dead & (rng.random(n) < 0.3)] *= -1
    return x


@given(
    st.sampled_from(LAYOUT_PARAMS), st.sampled_from(ELEMENTS), st.integers(100, 400), st.integers(60, 300),
    st.sampled_from([(), (1,), (3,), (17,)]), st.sampled_from([0.0, 0.02, 0.35, 0.7, 1.0]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_matrix(
    case: tuple[str, dict[str, Any]],
    element: Any,
    rows: int,
    cols: int,
    batch: tuple[int, ...],
    density: float,
    seed: int,
) -> None:
    w = weights((rows, cols), element, seed / 100, seed)
    p = codec.encode(w, layout=case[0], objective="memory", **case[1])
    x = sparse_x(element, rows, batch, density, seed)
    first = p.T @ x  # proves the segments, and reads all of them
    check(first, w.T, x)
    for threads in (1, 2):
        assert codec.matmul(p.T, x, threads=threads).tobytes() == first.tobytes()


@every_layout
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_results_are_the_same_to_the_last_bit(case: tuple[str, dict[str, Any]], dtype: str) -> None:
    element = element_type(dtype)
    w = weights((700, 900), element, 0.8)
    p = codec.encode(w, layout=case[0], objective="memory", **case[1])
    for batch in ((), (8,)):
        x = sparse_x(element, 700, batch, 0.35, 1)
        whole = codec.matmul(p.T, np.concatenate([x[:-1], np.ones_like(x[-1:])]))  # proves it
        check(whole, w.T, np.concatenate([x[:-1], np.ones_like(x[-1:])]))
        found = codec.loads(codec.dumps(p)).T @ x
        for _ in range(2):
            assert (p.T @ x).tobytes() == found.tobytes()
        assert (x.T @ p).tobytes() == np.ascontiguousarray(found.T).tobytes()
        assert codec.linear(x.T, p.T, np.zeros(900, found.dtype)).tobytes() == np.ascontiguousarray(found.T).tobytes()
    check(codec.matvec(p.T, x_for(element, (700,), 0)), w.T, x_for(element, (700,), 0))


@pytest.mark.parametrize("case", SKIPPING, ids=layout_id)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_rows_of_one_word_add_up_in_the_same_order(case: tuple[str, dict[str, Any]], dtype: str) -> None:
    """Of up to 64 columns: the first product reads whole panels, the next ones only rows that x is not zero for."""
    element = element_type(dtype)
    for shape, sparsity in (((1500, 60), 0.0), ((900, 64), 0.6), ((4000, 20), 0.3)):
        p = codec.encode(weights(shape, element, sparsity), layout=case[0], objective="memory", **case[1])
        for batch in ((), (3,), (8,)):
            x = sparse_x(element, shape[0], batch, 0.1, 2)
            first = codec.loads(codec.dumps(p)).T @ x
            codec.matmul(p.T, x)
            for threads in (1, 2):
                assert codec.matmul(p.T, x, threads=threads).tobytes() == first.tobytes()


@pytest.mark.parametrize("coded", [{}, {"values": "codebook", "value_bits": 4, "codebook_rows": 100}])
@pytest.mark.parametrize("case", SKIPPING, ids=layout_id)
@pytest.mark.parametrize("shape", [(600, 300), (40, 20_000), (3, 200_000)])
def test_rows_that_meet_zeros_are_not_read(
    case: tuple[str, dict[str, Any]], coded: dict[str, Any], shape: tuple[int, int]
) -> None:
    """Their values may change once segments are proved; others are read, and so are rows longer than a panel."""
    w = weights(shape, element_type("float32"), 0.8)
    x = np.zeros(shape[0], np.float32)
    x[1::3] = 1
    other = w.copy()
    other[(x == 0)[:, None] & (w != 0)] *= -1 if coded or shape[1] > 16_384 else np.nan
    options = {"layout": case[0], "objective": "memory", **case[1], **coded}
    if coded:
        options["codebook"] = np.arange(-7.0, 8.0, dtype=np.float32)
        w, other = np.clip(np.rint(w * 2), -7, 6), np.clip(np.rint(other * 2), -7, 6)
    frame, changed = codec.encode(w.astype("f4"), **options), codec.encode(other.astype("f4"), **options)
    memory, start, other_start = (
        bytearray(codec.dumps(frame)),
        frame.spans.head.data_start,
        changed.spans.head.data_start,
    )
    size = int(frame.spans.head.bounds[-1]) - start
    assert size == int(changed.spans.head.bounds[-1]) - other_start
    p = codec.loads(memory)
    for _ in range(2):
        before = p.T @ x
    memory[start : start + size] = codec.dumps(changed)[other_start : other_start + size]
    assert (p.T @ x).tobytes() == before.tobytes()
    assert not np.array_equal(p.T @ (x + 1), codec.loads(codec.dumps(frame)).T @ (x + 1))


@pytest.mark.parametrize("batch", [(), (17,)])
def test_positions_that_change_once_they_were_proved_reach_nothing_else(batch: tuple[int, ...]) -> None:
    """A file that another process writes to: wrong sums at worst."""
    w = weights((600, 300), element_type("float32"), 0.8)
    memory = bytearray(codec.dumps(codec.encode(w, layout="csr", objective="memory")))
    p = codec.loads(memory)
    x = sparse_x(element_type("float32"), 600, batch, 0.3, 0)
    for _ in range(2):
        before = p.T @ x
    rows = p.spans.head.grid.segment_rows
    start, size = p.spans.head.data_start + 4 * (rows + 1), 2 * np.count_nonzero(w[:rows])  # behind the row pointers
    memory[start : start + size] = b"\xff" * size
    assert (p.T @ x).shape == before.shape


@pytest.mark.parametrize("case", SKIPPING, ids=layout_id)
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e5m2", "float64"])
def test_zeros_meet_weights_that_are_not_finite(case: tuple[str, dict[str, Any]], special: float, dtype: str) -> None:
    element = element_type(dtype)
    w = weights((400, 300), element, 0.8)
    w[7, 5], w[8, 6] = special, 1
    p = codec.encode(w, layout=case[0], objective="memory", **case[1])
    x = sparse_x(element, 400, (), 0.3, 0)
    x[7] = 0
    for _ in range(3):
        with np.errstate(invalid="ignore"):
            found = (p.T @ x).astype(np.float32)
        assert np.isnan(found[5])
        assert np.isfinite(np.delete(found, 5)).all()


@pytest.mark.parametrize("case", SKIPPING, ids=layout_id)
def test_infinities_in_x_meet_what_is_there(case: tuple[str, dict[str, Any]]) -> None:
    w = weights((400, 300), element_type("float32"), 0.8)
    p = codec.encode(w, layout=case[0], objective="memory", **case[1])
    x = sparse_x(element_type("float32"), 400, (), 0.3, 0)
    p.T @ x
    without, x[9] = x.copy(), np.inf
    without[9] = 0
    found = p.T @ x
    assert np.array_equal(np.isinf(found), w[9] != 0)
    check(found[w[9] == 0], w.T[w[9] == 0], without)


def test_the_view_of_a_transpose_is_a_matrix() -> None:
    w = weights((6, 9), element_type("float32"), 0.5)
    p, x = codec.encode(w), x_for(element_type("float32"), (6,), 0)
    out = np.empty(9, np.float32)
    assert codec.matvec(p.T, x, out=out) is out
    check(out, w.T, x)
    rows = np.ones((2, 3, 6), np.float32)
    check(codec.linear(rows, p.T, scale=2.0).reshape(6, 9).T / 2, w.T, rows.reshape(6, 6).T)
    check((np.ones((4, 9), np.float32) @ p.T).T, w, np.ones((9, 4), np.float32))
    with pytest.raises(codec.ArgumentError, match=r"x is \(9,\), w is \(9, 6\); expected 6"):
        codec.matvec(p.T, np.ones(9, np.float32))
    with pytest.raises(codec.ArgumentError, match="w is a ndarray"):
        codec.matvec(w.T, x)


# ---- a packed matrix and packed activations --------------------------------------------------------------------------


@every_layout
def test_packed_activations(case: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.products.matrices.TILE_BYTES", 1 << 14)
    w = weights((70, 90), element_type("float32"), 0.8)
    x = np.maximum(x_for(element_type("float32"), (101, 90), 0), 0)
    p, packed = codec.encode(w), codec.encode(x, layout=case[0], **case[1])
    bias = np.arange(70, dtype=np.float32)
    expected = codec.linear(x, p, bias, scale=0.5)
    for threads in (1, 3):
        assert codec.linear(packed, p, bias, scale=0.5, threads=threads).tobytes() == expected.tobytes()
    check(packed @ p.T, x, w.T)
    assert (p @ packed.T).tobytes() == (p @ x.T).tobytes()
    assert codec.linear(packed[0], p).tobytes() == codec.linear(x[0], p).tobytes()
    with pytest.raises(codec.ArgumentError, match=r"the left operand is .*, w is \(90, 70\); expected 70"):
        codec.linear(packed, p.T)


def test_packed_activations_and_out() -> None:
    w, x = weights((70, 90), element_type("int8"), 0.8), np.random.default_rng(0).integers(-9, 9, (50_000, 90))
    p, packed = codec.encode(w), codec.encode(x.astype(np.int16))
    expected = x @ w.T.astype(int)
    out = np.empty((50_000, 140), np.int64)[:, ::2]
    assert packed.dense_nbytes > codec.products.TILE_BYTES
    assert codec.linear(packed, p, out=out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(codec.linear(packed, p), expected)
