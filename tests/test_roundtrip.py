"""Every layout x entropy stage x dtype x zero rule gives back every bit, at exactly the predicted size."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS, LAYOUT_PARAMS, entropies, layout_id, seeded, tensors, under_rule

import codec
from codec import kernels
from codec.dtypes import ElementType, element_type
from codec.frame import on_demand, read_head

SHAPES = [
    (),
    (0,),
    (1,),
    (5,),
    (0, 3),
    (3, 0),
    (1, 1),
    (7, 9),
    (64, 64),
    (65, 130),
    (8, 3, 3, 3),
    (1, 30, 20),
    (200, 65),
]


def check(a: np.ndarray, layout: str, params: dict, entropy: str, zero: str) -> codec.PackedTensor:
    """One round trip through bytes."""
    p = codec.encode(a, layout=layout, entropy=entropy, zero=zero, **params)
    data = codec.dumps(p)
    back = codec.decode(data)
    assert back.dtype == a.dtype
    assert back.shape == a.shape
    assert back.tobytes() == under_rule(a, zero, element_type(a.dtype)).tobytes()
    assert len(data) == p.nbytes
    assert len(data) % 64 == 0 or layout == "context"
    return p


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_every_bit_comes_back(case: tuple[str, dict], element: ElementType) -> None:
    layout, params = case
    for seed, shape in enumerate(SHAPES):
        a = seeded(shape, element, (0.0, 0.5, 0.9, 1.0)[seed % 4], seed)
        for number, zero in enumerate(("value", "bits")):
            # Each coding meets each shape under one of the rules.
            for entropy in entropies(layout)[(seed + number) % 2 :: 2] or entropies(layout):
                p = check(a, layout, params, entropy, zero)
                if entropy == "none":
                    stats = codec.tensor_stats(a, zero=zero)
                    assert (
                        codec.encoded_nbytes(layout, shape, a.dtype, stats=stats, entropy="none", **params) == p.nbytes
                    )


CUTS = [(3, 20_000), (2, 300_000), (300_000,), (10_000, 30), (400, 700), (5, 60_000)]
# What an operand is and how it is coded; a quarter of them meets each cut.
WAYS = list(product(("BF16", "F64"), (0.3, 0.95), ("auto", "zstd")))
large = cache(seeded)


@pytest.mark.parametrize("shape", CUTS, ids=str)
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_segments_and_panels_of_every_cut(case: tuple[str, dict], shape: tuple[int, ...]) -> None:
    layout, params = case
    first = LAYOUT_PARAMS.index(case) + CUTS.index(shape)
    for name, sparsity, entropy in WAYS[first % 4 :: 4]:
        element = next(e for e in ELEMENTS if e.name == name)
        entropy = entropy if entropy in entropies(layout) else entropies(layout)[-1]
        check(large(shape, element, sparsity), layout, params, entropy, "value")


@given(tensors(), st.sampled_from(LAYOUT_PARAMS), st.sampled_from(["value", "bits"]), st.data())
@settings(max_examples=150, deadline=None)
def test_any_tensor(a: np.ndarray, case: tuple[str, dict], zero: str, data: st.DataObject) -> None:
    layout, params = case
    check(a, layout, params, data.draw(st.sampled_from(entropies(layout))), zero)


@given(tensors(), st.sampled_from(["disk", "memory", "speed"]))
@settings(max_examples=100, deadline=None)
def test_auto_takes_something_that_comes_back(a: np.ndarray, objective: str) -> None:
    p = codec.encode(a, objective=objective)
    assert p.to_dense().tobytes() == under_rule(a, "value", element_type(a.dtype)).tobytes()
    if objective != "disk":
        assert set(p.entropy.values()) <= {"none"}


def test_auto_takes_the_smallest() -> None:
    for sparsity in (0.0, 0.5, 0.9, 0.99):
        a = np.random.default_rng(1).standard_normal((128, 256)).astype(np.float32)
        a[np.random.default_rng(2).random(a.shape) < sparsity] = 0
        for objective, entropy in (("disk", "auto"), ("memory", "none")):
            sizes = {
                (layout, str(params)): codec.encode(a, layout=layout, entropy=entropy, **params).nbytes
                for layout, params in LAYOUT_PARAMS
                if entropy in entropies(layout)
            }
            assert codec.encode(a, objective=objective).nbytes == min(sizes.values())


@cache
def pruned(dtype: str) -> np.ndarray:
    """Normal weights, of which the largest fifth is left."""
    a = np.random.default_rng(3).standard_normal((512, 1024)) * 30
    a[np.abs(a) < 40] = 0
    return a.astype(np.dtype(dtype))


@pytest.mark.parametrize("coding", ["huffman", "rans"])
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_predicted_within_one_percent(case: tuple[str, dict], coding: str) -> None:
    layout, params = case
    turn = LAYOUT_PARAMS.index(case) + (coding == "rans")  # each coding meets each dtype in half of the layouts
    for dtype in ("float32", "bfloat16", "float16", "int8", "int16", "int32")[turn % 2 :: 2]:
        a = pruned(dtype)
        entropy = coding if coding in entropies(layout) else "auto"
        p = codec.encode(a, layout=layout, entropy=entropy, **params)
        predicted = codec.encoded_nbytes(
            layout, a.shape, a.dtype, stats=codec.tensor_stats(a), entropy=entropy, **params
        )
        assert abs(predicted - p.nbytes) <= 0.01 * p.nbytes


def test_the_same_bytes_from_any_number_of_threads() -> None:
    a = seeded((700, 2000), element_type("float32"), 0.8)
    for layout, params in LAYOUT_PARAMS:
        one, two = (codec.dumps(codec.encode(a, layout=layout, threads=n, **params)) for n in (1, 2))
        assert one == two


def test_mask_keeps_exactly_what_it_says() -> None:
    a = np.zeros((5, 70), np.float32)
    a[0, 0], a[4, 69], a[2, 2] = 1, 2, -0.0
    mask = a != 0
    mask[1, 1] = mask[2, 2] = True
    for layout, params in LAYOUT_PARAMS:
        p = codec.encode(a, mask=mask, layout=layout, **params)
        assert (p.nnz, p.negative_zeros) == (4, 0)
        assert p.to_dense().tobytes() == a.tobytes()
        assert codec.tensor_stats(a, mask=mask).nnz == 4
    with pytest.raises(codec.ArgumentError, match=r"drops 1 elements.*flat index 0"):
        codec.encode(a, mask=mask & (np.arange(5)[:, None] > 0))


def test_negative_zeros_are_counted() -> None:
    a = np.array([-0.0, 0.0, 1.0, -0.0], np.float32)
    p = codec.encode(a)
    assert (p.nnz, p.negative_zeros, p.sparsity) == (1, 2, 0.75)
    assert codec.encode(a, zero="bits").nnz == 3
    assert codec.loads(codec.dumps(p)).negative_zeros == 2


@pytest.mark.parametrize("row_dims", [0, 1, 2, 3])
def test_row_dims(row_dims: int) -> None:
    a = seeded((6, 5, 4), element_type("float16"), 0.5)
    for layout, params in LAYOUT_PARAMS:
        p = codec.encode(a, layout=layout, row_dims=row_dims, **params)
        assert codec.loads(codec.dumps(p)).row_dims == row_dims
        assert p.to_dense().tobytes() == under_rule(a, "value", element_type("float16")).tobytes()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_indexing_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(7,), (5, 6), (4, 3, 2), (1, 5, 3), (0, 3)]))
    a = under_rule(seeded(shape, element_type("int16"), 0.5), "value", element_type("int16"))
    p = codec.encode(a, layout=data.draw(st.sampled_from(["bitmap", "csr", "huffman"])))
    axis = st.one_of(
        st.integers(-8, 8),
        st.slices(8),
        st.builds(slice, st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -1, 1, 2])),
        st.just(...),
        st.just(None),
        st.lists(st.integers(-7, 7), min_size=1, max_size=3),
    )
    key = data.draw(st.one_of(axis, st.lists(axis, max_size=len(shape)).map(tuple)))
    try:
        expected = a[key]
    except IndexError:
        with pytest.raises(IndexError):
            p[key]
        return
    found = p[key]
    assert np.shape(found) == np.shape(expected)
    assert np.array_equal(found, expected)


def test_rows_decode_only_their_segments() -> None:
    a = under_rule(seeded((1000, 1500), element_type("float32"), 0.9), "value", element_type("float32"))
    for layout, params in LAYOUT_PARAMS:
        p = codec.encode(a, layout=layout, **params)
        data = codec.dumps(p)
        reads: list[int] = []

        def read(offset: int, length: int, data: bytes = data, reads: list[int] = reads) -> bytes:
            reads.append(length)
            return data[offset : offset + length]

        rows = np.empty((3, 1500), np.float32)
        on_demand(read_head(read, len(data)), read).decode(700 * 1500, 3 * 1500, kernels.octets(rows), 1)
        assert rows.tobytes() == a[700:703].tobytes()
        share = p.spans.head.grid.segment_rows / len(a)  # of the one segment that holds them
        assert sum(reads) < len(data) * (share + 0.1)
        assert codec.decode(data, rows=slice(10, 20)).tobytes() == a[10:20].tobytes()
