"""What products take and refuse: out, scale and bias, memory orders, shapes and dtypes that do not go together."""

import numpy as np
import pytest
from products import check, weights, x_for

import codec
from codec.dtypes import element_type


def test_out() -> None:
    w = weights((6, 9), element_type("f4"), 0.5)
    p, x = codec.encode(w), x_for(element_type("f4"), (9, 4), 0)
    expected = p @ x
    for out in (np.empty((6, 4), "f4"), np.empty((6, 4), "f4", order="F"), np.empty((12, 8), "f4")[::2, ::-2]):
        assert codec.matmul(p, x, out=out) is out
        assert np.array_equal(out, expected)
    strided = np.full(12, 7, "f4")
    assert np.shares_memory(codec.matvec(p, x[:, 0], out=strided[::2]), strided)
    assert np.array_equal(strided[::2], p @ x[:, 0])
    assert (strided[1::2] == 7).all()
    for out in (np.empty((4, 6), "f4"), np.empty((4, 6), "f4", order="F"), np.empty((4, 12), "f4")[:, ::2]):
        assert codec.linear(x.T, p, out=out) is out
        assert np.array_equal(out, expected.T)
    read_only = np.empty((6, 4), "f4")
    read_only.flags.writeable = False
    wrong = [np.empty((4, 6), "f4"), np.empty((6, 4), "f8"), np.empty((6, 4), ">f4"), [[0.0] * 4] * 6, read_only]
    for out in wrong:
        with pytest.raises(codec.ArgumentError, match=r"^out is "):
            codec.matmul(p, x, out=out)  # type: ignore[arg-type]
    for out in (np.empty((6, 1), "f4"), np.empty(5, "f4"), np.empty(6, "f2"), [0.0] * 6):
        with pytest.raises(codec.ArgumentError, match=r"^out is "):
            codec.matvec(p, x[:, 0], out=out)  # type: ignore[arg-type]
    with pytest.raises(codec.ArgumentError, match=r"^out is "):
        codec.linear(x.T, p, out=np.empty((6, 4), "f4"))


@pytest.mark.parametrize("layout", ["sell", "bitmap", "csr", "dense", "block_offset"])
def test_columns_of_several_strips_and_few_rows(layout: str) -> None:
    """Tasks put x into strips for themselves, in any order of its items: sums are those of any other cut."""
    for rows, cols in ((5, 3), (64, 16), (130, 300), (3, 70)):
        w, x = weights((rows, cols), element_type("f4"), 0.6), x_for(element_type("f4"), (cols, 101), 1)
        p = codec.encode(w, layout=layout)
        found = codec.matmul(p, x, threads=1)
        assert np.array_equal(found[:, 40:80], codec.matmul(p, x[:, 40:80]))
        for same in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
            for threads in (1, 2, 3):
                assert np.array_equal(codec.matmul(p, same, threads=threads), found)
        assert np.allclose(found, w.astype(np.float64) @ x.astype(np.float64), rtol=1e-4, atol=1e-4)
        back = x_for(element_type("f4"), (101, rows), 2)
        assert np.allclose(back @ p, back.astype(np.float64) @ w, rtol=1e-4, atol=1e-4)


def test_out_that_overlaps_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tile of the batch must not change what the later ones read."""
    monkeypatch.setattr("codec.products.matrices.TILE_BYTES", 4096)
    element = element_type("f4")
    w = weights((40, 40), element, 0.5)
    p, x = codec.encode(w), x_for(element, (40, 100), 0)
    expected = p @ x
    row, step = x_for(element, (40,), 1), x_for(element, (40,), 2)
    line = codec.linear(x.T, p, row, scale=step)
    for start, turn in ((0, 1), (3, 1), (0, -1), (2, -1)):
        memory = np.zeros((40, 105), "f4")
        source, out = memory[:, start : start + 100], memory[:, :100][:, ::turn]
        source[...] = x
        assert codec.matmul(p, source, out=out) is out
        assert np.array_equal(out, expected)
        memory = np.zeros((105, 40), "f4")
        source, out = memory[start : start + 100], memory[:100][::turn]
        source[...] = x.T
        assert codec.linear(source, p, row, scale=step, out=out) is out
        assert np.array_equal(out, line)
    for which in ("bias", "scale"):
        out = np.zeros((100, 40), "f4")
        terms = {"bias": row, "scale": step}
        out[1] = terms[which]
        terms[which] = out[1]
        assert np.array_equal(codec.linear(x.T, p, out=out, **terms), line)
    vector = x[:, 0].copy()
    assert np.array_equal(codec.matvec(p, vector, out=vector[::-1])[::-1], vector)
    assert np.array_equal(vector[::-1], p @ x[:, 0])


def test_out_that_overlaps_the_packed_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later tiles still read what the first would overwrite; after that the parts are no longer proved."""
    monkeypatch.setattr("codec.products.matrices.TILE_BYTES", 4096)
    element = element_type("f4")
    w = weights((40, 40), element, 0.5)
    data, x = codec.dumps(codec.encode(w, layout="csr", entropy="none")), x_for(element, (40, 100), 0)
    expected, start = codec.loads(data) @ x, codec.loads(data).spans.head.data_start
    memory = np.zeros(len(data) + 2 * expected.nbytes, np.uint8)
    for transposed in (False, True):
        for step in (1, 2):
            memory[: len(data)] = np.frombuffer(data, np.uint8)
            p = codec.loads(memory[: len(data)])
            assert np.array_equal(p @ x, expected)
            wide = memory[start : start + 2 * expected.nbytes].view("f4")
            if transposed:
                out = wide.reshape(100, 80)[:, : 40 * step : step] if step > 1 else wide[:4000].reshape(100, 40)
                assert codec.linear(x.T, p, out=out) is out
                assert np.array_equal(out, expected.T)
            else:
                out = wide.reshape(80, 100)[: 40 * step : step]
                assert codec.matmul(p, x, out=out) is out
                assert np.array_equal(out, expected)
            with pytest.raises(codec.ChecksumError):
                p @ x


def test_integers_of_numpy_are_integers() -> None:
    p, x = codec.encode(np.eye(3, dtype=np.int8)), np.arange(3)
    for threads in (np.int64(1), np.uint8(2)):
        assert codec.matvec(p, x, threads=threads).tolist() == [0, 1, 2]
        with codec.threadpool_limits(threads):
            assert codec.linear(x, p, scale=np.int64(2)).tolist() == [0, 2, 4]
    assert codec.linear(x, p, scale=np.bool_(True)).tolist() == [0, 1, 2]
    for wrong in (True, np.bool_(True), np.float64(1), np.int64(0)):
        with pytest.raises(codec.ArgumentError, match=r"threads=.*; expected an int from 1 to 64"):
            codec.matvec(p, x, threads=wrong)  # type: ignore[arg-type]


def test_scale_and_bias() -> None:
    w = weights((6, 9), element_type("i1"), 0.5)
    p, x = codec.encode(w), x_for(element_type("f4"), (2, 3, 9), 0)
    plain = x.astype(np.float64) @ w.T.astype(np.float64)
    scale, bias = np.linspace(0.1, 1, 6).astype("f4"), np.arange(6).astype("f2")
    for s in (None, 0.25, np.float32(0.25), scale):
        for b in (None, bias):
            expected = plain * (1 if s is None else s) + (0 if b is None else b)
            found = codec.linear(x, p, b, scale=s)
            assert found.dtype == np.float32
            assert np.allclose(found, expected, rtol=1e-5, atol=1e-4)
    whole = codec.linear(np.ones(9, np.int16), p, np.arange(6))
    assert whole.tolist() == (w.sum(axis=1, dtype=int) + np.arange(6)).tolist()
    for wrong in (np.ones(5, "f4"), np.ones((6, 1), "f4"), 1.0):
        with pytest.raises(codec.ArgumentError, match="bias is"):
            codec.linear(x, p, wrong)
    with pytest.raises(codec.ArgumentError, match=r"scale is \(9,\); expected \(6,\)"):
        codec.linear(x, p, scale=np.ones(9, "f4"))
    for name in ("bias", "scale"):
        with pytest.raises(codec.ArgumentError, match=f"a float {name} with an integer product"):
            codec.linear(np.ones(9, np.int16), p, **{name: np.ones(6, "f4")})


def test_shapes_that_do_not_match() -> None:
    p = codec.encode(np.ones((6, 9), "f4"))
    for wrong in (np.ones(6, "f4"), np.ones((6, 9), "f4")):
        for product in (lambda x: p @ x, lambda x: codec.matmul(p, x)):
            with pytest.raises(codec.ArgumentError) as caught:
                product(wrong)
            assert str(wrong.shape) in str(caught.value)
            assert "(6, 9)" in str(caught.value)
    for wrong in (np.ones(9, "f4"), np.ones((6, 9), "f4")):
        with pytest.raises(codec.ArgumentError, match=r"\(6, 9\).*expected 6"):
            wrong @ p
    with pytest.raises(codec.ArgumentError, match=r"\(2, 6\).*\(6, 9\).*expected 9"):
        codec.linear(np.ones((2, 6), "f4"), p)
    for product in (lambda x: p @ x, lambda x: codec.matmul(p, x), lambda x: p.T @ x):
        with pytest.raises(codec.ArgumentError, match="3 dimensions"):
            product(np.ones((2, 9, 2), "f4"))
    with pytest.raises(codec.ArgumentError, match="2 dimensions"):
        codec.matvec(p, np.ones((9, 1), "f4"))
    for product in (lambda: p @ 1.0, lambda: 1.0 @ p, lambda: codec.linear(2.0, p)):  # type: ignore[operator]
        with pytest.raises(codec.ArgumentError, match="0 dimensions"):
            product()
    with pytest.raises(codec.ArgumentError, match="w is a ndarray"):
        codec.matmul(np.ones((6, 9)), np.ones(9))  # type: ignore[arg-type]


def test_only_matrices_multiply() -> None:
    stack = weights((1, 6, 9), element_type("f4"), 0.5)
    check(codec.encode(stack) @ np.ones(9, "f4"), stack[0], np.ones(9, "f4"))
    line = weights((9,), element_type("f4"), 0.5)
    check(codec.encode(line) @ np.ones(9, "f4"), line[None], np.ones(9, "f4"))
    for shape in ((4, 3, 2), (4, 3, 3, 3), (1, 1, 2, 3), (2, 1, 3)):
        p = codec.encode(np.ones(shape, "f4"))
        for product in (lambda x, p=p: p @ x, lambda x, p=p: codec.linear(x, p), lambda x, p=p: x @ p):
            matrix = rf"w\.reshape\({shape[0]}, {p.size // shape[0]}\) is the matrix"
            with pytest.raises(codec.ArgumentError, match=rf"{len(shape)} dimensions.*{matrix}"):
                product(np.ones(p.size // shape[0], "f4"))
    for row_dims in (0, 2):
        p = codec.encode(np.ones((6, 9), "f4"), row_dims=row_dims)
        with pytest.raises(codec.ArgumentError, match=rf"row_dims={row_dims} .*to_layout"):
            p @ np.ones(9, "f4")


def test_operands_of_any_memory_order() -> None:
    w = weights((6, 9), element_type("f4"), 0.5)
    p, x = codec.encode(w), x_for(element_type("f4"), (9, 4), 0)
    expected = p @ x
    wide = np.zeros((18, 8), "f4")
    wide[::-2, ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(x), wide[::-2, ::2], x.astype(">f4"), read_only, x):
        assert np.array_equal(p @ same, expected)
        assert np.array_equal(codec.linear(np.asarray(same).T, p), expected.T)
    assert np.array_equal(p @ np.broadcast_to(x[:1, :1], (9, 4)), p @ np.full((9, 4), x[0, 0]))


def test_matrices_without_columns_give_zeros_or_the_bias_at_every_call() -> None:
    p, x, bias = codec.encode(np.empty((5, 0), np.float32)), np.empty(0, np.float32), np.arange(5, dtype=np.float32)
    left = [np.full(5, 7, np.float32) for _ in range(100)]
    del left  # memory of the same size that holds something
    for _ in range(3):
        assert np.array_equal(codec.matvec(p, x), np.zeros(5))
        assert np.array_equal(codec.matmul(p, np.empty((0, 2), np.float32)), np.zeros((5, 2)))
        assert np.array_equal(codec.linear(np.empty((2, 0), np.float32), p, bias), [bias, bias])


def test_operands_that_do_not_go_together() -> None:
    floats, ints = codec.encode(np.eye(3, dtype=np.float32)), codec.encode(np.eye(3, dtype=np.int8))
    with pytest.raises(codec.ArgumentError, match=r"float32 weights with integer x \(int64\)"):
        floats @ np.arange(3)
    with pytest.raises(codec.ArgumentError, match="int64 weights with float32 x would round"):
        codec.encode(np.eye(3, dtype=np.int64)) @ np.ones(3, np.float32)
    with pytest.raises(codec.ArgumentError, match=r"int32 weights with float32 x would round: .* or float64"):
        codec.encode(np.eye(3, dtype=np.int32)) @ np.ones(3, np.float32)
    with pytest.raises(codec.ArgumentError, match="does not fit the int64"):
        ints @ np.array([2**63, 0, 0], np.uint64)
    wide = codec.encode(np.full((1, 2**18), -128, np.int8))
    with pytest.raises(codec.ArgumentError, match="could overflow int32"):
        wide @ np.full(2**18, -128, np.int8)
    for wrong in (np.ones(3, complex), ["a", "b", "c"], np.array([None] * 3)):
        with pytest.raises(codec.ArgumentError, match="cannot code dtype"):
            floats @ wrong


def test_the_short_way_refuses_arrays_that_do_not_fit_or_lie_askew() -> None:
    p, x = codec.encode(weights((6, 9), element_type("f4"), 0.5)), x_for(element_type("f4"), (9, 4), 0)
    expected = p @ x
    array = p.spans.products[np.dtype("f4"), False].array
    y = np.empty((6, 4), "f4")
    assert array(x, y, False, None, 1)[0] == 0
    assert np.array_equal(y, expected)
    askew = np.zeros(9 * 4 * 4 + 1, np.uint8)[1:].view("f4").reshape(9, 4)
    wrong = [(x[:8], y, False), (x, y[:5], False), (x[:, :3], y, False), (x, y, True), (x[:, 0], y, False)]
    for own, sums, across in [*wrong, (askew, y, False), (x.astype("f8"), y, False), (x[None], y, False)]:
        with pytest.raises(ValueError, match=r"another size|other items"):
            array(own, sums, across, None, 1)
    with pytest.raises(ValueError, match="another size"):
        array(x, y, False, np.zeros(5, "f4"), 1)
    askew[:] = x
    assert np.array_equal(p @ askew, expected)
    assert np.array_equal(p @ x[:, ::-1], expected[:, ::-1])
    assert np.array_equal(x.T @ p.T, expected.T)
