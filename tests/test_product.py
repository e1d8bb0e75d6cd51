"""Products from packed bytes against NumPy in float64: every layout, dtype, shape, batch and direction."""

import os
import signal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import check, weights, x_for
from strategies import ELEMENTS, LAYOUT_PARAMS, layout_id

import codec
from codec.dtypes import ElementType, element_type

SHAPES = [(1, 1), (5, 70), (70, 5), (65, 130), (1, 300), (300, 1)]
BATCHES = (None, 1, 3, 17, 70)
FLOATS = [e for e in ELEMENTS if e.is_float]
INTEGERS = [e for e in ELEMENTS if not e.is_float]
every_layout = pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
@every_layout
def test_every_way_to_multiply(case: tuple[str, dict[str, Any]], element: ElementType) -> None:
    for number, shape in enumerate(SHAPES):
        w = weights(shape, element, (0.5, 0.9, 0.0)[number % 3], number)
        p = codec.encode(w, layout=case[0], **case[1])
        for batch in BATCHES:
            tail = () if batch is None else (batch,)
            x, left = x_for(element, (shape[1], *tail), number), x_for(element, (*tail, shape[0]), number)
            found = p @ x
            check(found, w, x)
            assert np.array_equal(codec.matmul(p, x), found)
            assert np.array_equal(p.T.T @ x, found)
            if batch is None:
                assert np.array_equal(codec.matvec(p, x), found)
            check((left @ p).T, w.T, left.T)
            check(p.T @ left.T, w.T, left.T)
            check(np.ascontiguousarray(x.T @ p.T).T, w, x)
            check(codec.linear(x.T, p).T, w, x)


@pytest.mark.parametrize("operand", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
def test_every_pair_of_floats(element: ElementType, operand: str) -> None:
    for number, (layout, params) in enumerate(LAYOUT_PARAMS):
        w = weights((67, 130), element, 0.8, number)
        p = codec.encode(w, layout=layout, **params)
        for batch in ((), (1,), (18,)):
            x = x_for(element, (130, *batch), number).astype(element_type(operand).dtype)
            check(p @ x, w, x)


@pytest.mark.parametrize("operand", ["int8", "uint8", "int16", "uint32", "int64", "bool", ">i4"])
@pytest.mark.parametrize("element", INTEGERS, ids=lambda e: e.name)
def test_every_pair_of_integers(element: ElementType, operand: str) -> None:
    for number, (layout, params) in enumerate(LAYOUT_PARAMS):
        w = weights((67, 130), element, 0.8, number)
        p = codec.encode(w, layout=layout, **params)
        for batch in ((), (1,), (18,)):
            x = (
                np.random.default_rng(number)
                .integers(0, 2 if operand == "bool" else 100, (130, *batch))
                .astype(operand)
            )
            check(p @ x, w, x.astype(x.dtype.newbyteorder("=")))


@every_layout
def test_integers_that_could_overflow(case: tuple[str, dict[str, Any]]) -> None:
    most = np.iinfo(np.int64).max
    for value, x in ((most, 1), (most // 2, 2), (-(most // 3), 3), (np.iinfo(np.int64).min, -1)):
        p = codec.encode(np.array([[value, 0]]), layout=case[0], **case[1])
        with pytest.raises(codec.ArgumentError, match="could overflow"):
            p @ np.array([x, x])
    top = codec.encode(np.array([[2**64 - 1, 0]], np.uint64), layout=case[0], **case[1])
    with pytest.raises(codec.ArgumentError, match="could overflow"):
        top @ np.array([1, 1])
    fits = codec.encode(np.array([[most // 4, -(most // 4)]]), layout=case[0], **case[1])
    assert (fits @ np.array([2, 2])).tolist() == [0]


@every_layout
def test_zero_weights_meet_infinities_and_nan(case: tuple[str, dict[str, Any]]) -> None:
    for name in ("F32", "F16", "BF16", "F64"):
        element = element_type({"F32": "f4", "F16": "f2", "F64": "f8"}.get(name, "bfloat16"))
        w = weights((70, 130), element, 0.7)
        w[:, 7], w[11] = 0, 0
        p = codec.encode(w, layout=case[0], **case[1])
        for batch in ((), (3,), (20,)):
            x, left = x_for(element, (130, *batch), 0), x_for(element, (*batch, 70), 0)
            without_x, without_left = x.copy(), left.copy()
            for value in (np.inf, -np.inf, np.nan):
                x[7], left[..., 11] = value, value
                without_x[7] = without_left[..., 11] = 0
                check(p @ x, w, without_x)
                check((left @ p).T, w.T, without_left.T)
        x[8, 0] = np.inf  # and where weights are not zero, infinities are what they are
        reached = np.isinf((p @ x)[:, 0].astype(np.float32))
        assert np.array_equal(reached, w[:, 8].astype(np.float32) != 0)


@every_layout
def test_stored_zeros_contribute_nothing(case: tuple[str, dict[str, Any]]) -> None:
    """Zeros that a mask keeps are stored in some layouts and not in others, and count as zeros in all of them."""
    for dtype in ("f4", "f2", "bfloat16", "f8", "i1"):
        element = element_type(dtype)
        w = weights((70, 130), element, 0.3)
        w[:, 6], w[:, 7], w[11] = 1, 0, 0
        if element.is_float:
            w[::6, 7] = -0.0
        kept = w != 0
        kept[::3, 7] = True
        kept[11, ::5] = case[0] != "run_length" and case[1].get("filler") != "value"  # they take these for fillers
        p = codec.encode(w, mask=kept, layout=case[0], **case[1])
        for batch in ((), (3,), (20,)):
            x, left = x_for(element, (130, *batch), 0), x_for(element, (*batch, 70), 0)
            without_x, without_left = x.copy(), left.copy()
            without_x[7] = without_left[..., 11] = 0
            for value in (np.inf, -np.inf, np.nan):
                x[7], left[..., 11] = value, value
                check(p @ x, w, without_x)
                check((left @ p).T, w.T, without_left.T)
                check(codec.linear(x.T, p).T, w, without_x)


@every_layout
def test_results_do_not_depend_on_threads_or_tiles(
    case: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    element = element_type("bfloat16")
    w = weights((130, 3000), element, 0.9)  # three segments
    p = codec.encode(w, layout=case[0], **case[1])
    x = x_for(element, (3000, 101), 0)
    whole = codec.matmul(p, x, threads=1)  # one tile
    check(whole, w, x)
    monkeypatch.setattr("codec.products.matrices.TILE_BYTES", 40 * (2 * 3000 + 130) * 4)  # x in float32 too
    one = codec.matmul(p, x, threads=1)
    assert np.array_equal(one, whole)
    for threads in (2, 3):
        assert np.array_equal(codec.matmul(p, x, threads=threads), one)
    assert np.array_equal(codec.matmul(p, x[:, 30:90]), one[:, 30:90])
    rows = np.ascontiguousarray(x[:130].T)
    with codec.threadpool_limits(1):
        left = rows @ p
    with codec.threadpool_limits(3):
        assert np.array_equal(rows @ p, left)
    check(left.T, w.T, rows.T)


@every_layout
def test_empty_matrices(case: tuple[str, dict[str, Any]]) -> None:
    for rows, cols in ((0, 5), (5, 0), (0, 0)):
        p = codec.encode(np.zeros((rows, cols), "f4"), layout=case[0], **case[1])
        for batch in ((), (0,), (3,)):
            found = p @ np.ones((cols, *batch), "f4")
            assert found.shape == (rows, *batch)
            assert not found.any()
            assert (np.ones((*batch, rows), "f4") @ p).shape == (*batch, cols)
            assert codec.linear(np.ones((2, *batch, cols), "f4"), p).shape == (2, *batch, rows)
    p = codec.encode(np.ones((4, 5), "f4"), layout=case[0], **case[1])
    assert (p @ np.ones((5, 0), "f4")).shape == (4, 0)
    assert codec.linear(np.ones((0, 7, 5), "f4"), p).shape == (0, 7, 4)
    assert (np.ones((0, 4), "f4") @ p).shape == (0, 5)


@given(st.integers(1, 90), st.integers(1, 200), st.integers(0, 40), st.sampled_from(LAYOUT_PARAMS), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_any_shape(rows: int, cols: int, batch: int, case: tuple[str, dict[str, Any]], seed: int) -> None:
    element = FLOATS[seed % len(FLOATS)]
    w = weights((rows, cols), element, seed / 100, seed)
    p = codec.encode(w, layout=case[0], **case[1])
    x = x_for(element, (cols, batch) if batch else (cols,), seed)
    check(p @ x, w, x)
    left = x_for(element, (batch, rows) if batch else (rows,), seed)
    check((left @ p).T, w.T, left.T)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_fork() -> None:
    """Threads of the parent's pool do not exist in the child: it makes its own."""
    w = weights((400, 3000), element_type("f4"), 0.9)
    p, x = codec.encode(w, threads=2), x_for(element_type("f4"), (3000, 20), 0)
    expected = codec.matmul(p, x, threads=2)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            again = codec.encode(w, threads=2)
            same = np.array_equal(codec.matmul(p, x, threads=2), expected) and codec.dumps(again) == codec.dumps(p)
            status = 0 if same else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(codec.matmul(p, x, threads=2), expected)
