"""scipy.sparse and torch: every layout out and in, without a dense copy, values bit for bit."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS, LAYOUT_PARAMS, entropies, layout_id, seeded, under_rule

import codec
from codec.dtypes import BY_NAME, ElementType, element_type

FORMATS = ("csr", "csc", "coo", "bsr")
SCIPY = [e for e in ELEMENTS if not e.is_float or e.name in ("F32", "F64")]
SHAPES = [(6, 9), (1, 70), (70, 1), (0, 4), (4, 0), (65, 130)]
every_layout = pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)


def dense(shape: tuple[int, ...], element: ElementType, seed: int = 0, sparsity: float = 0.7) -> np.ndarray:
    return under_rule(seeded(shape, element, sparsity, seed), "value", element)


def quiet(shape: tuple[int, ...], element: ElementType, seed: int) -> np.ndarray:
    """The same with one kind of NaN: others add entries to zeros on their way to dense, which changes the bits."""
    a = dense(shape, element, seed)
    if element.is_float:
        with np.errstate(invalid="ignore"):
            a[np.isnan(a)] = np.nan
    return a


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("element", SCIPY, ids=lambda e: e.name)
@every_layout
def test_scipy_there_and_back(case: tuple[str, dict[str, Any]], element: ElementType) -> None:
    for number, shape in enumerate(SHAPES):
        a = quiet(shape, element, number)
        p = codec.encode(a, layout=case[0], **case[1])
        for form in FORMATS:
            s = p.to_scipy(form)
            assert s.format == form
            assert form == "bsr" or s.nnz == p.nnz or case[0] == "dense"
            same(s.toarray(), a)
            back = codec.PackedTensor.from_scipy(s, layout=case[0], **case[1])
            same(back.to_dense(), a)
            if form != "bsr":
                assert codec.dumps(back) == codec.dumps(p)


def test_scipy_of_many_segments() -> None:
    for shape in ((3, 300_000), (40_000, 30)):
        a = dense(shape, BY_NAME["F32"], sparsity=0.99)
        p = codec.encode(a)
        s = p.to_scipy()
        assert (s.nnz, s.has_sorted_indices) == (p.nnz, True)
        assert s.data.tobytes() == a[a != 0].tobytes()
        assert np.array_equal(s.indices, np.nonzero(a)[1])
        assert codec.dumps(codec.PackedTensor.from_scipy(s)) == codec.dumps(p)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("form", FORMATS)
def test_from_scipy_untidy(form: str, index: type) -> None:
    """Unsorted columns, duplicates, stored zeros, either index width, matrices and arrays."""
    rows, cols = np.array([2, 0, 0, 2, 1, 2], index), np.array([3, 4, 1, 0, 2, 3], index)
    values = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.5])
    for kind in ("array", "matrix"):
        s = getattr(scipy.sparse, f"coo_{kind}")((values, (rows, cols)), shape=(3, 5)).asformat(form)
        before = s.copy()
        p = codec.PackedTensor.from_scipy(s)
        same(p.to_dense(), before.toarray())
        # A stored zero stays an entry; bsr has whole blocks of them.
        assert p.nnz == (5 if form != "bsr" else before.tocsr().nnz)
        assert (s != before).nnz == 0
    starts, columns = np.array([0, 3, 3, 5], index), np.array([4, 0, 2, 3, 1], index)
    unsorted = scipy.sparse.csr_array((np.arange(1.0, 6.0), columns, starts), shape=(3, 5))
    expected = unsorted.toarray()
    same(codec.PackedTensor.from_scipy(unsorted).to_dense(), expected)
    assert unsorted.indices.tolist() == [4, 0, 2, 3, 1]


def test_from_scipy_options_and_rules() -> None:
    a = np.array([[0.0, -0.0, 2.0], [0.0, 0.0, -1.0]])
    s = scipy.sparse.csr_array((np.array([-0.0, 2.0, -1.0]), np.array([1, 2, 2]), np.array([0, 2, 3])), shape=(2, 3))
    for layout, params in LAYOUT_PARAMS:
        for entropy in entropies(layout):
            for zero in ("value", "bits"):
                p = codec.PackedTensor.from_scipy(s, layout=layout, entropy=entropy, zero=zero, threads=1, **params)
                assert (p.layout, p.zero) == (layout, zero)
                same(p.to_dense(), a)
    for objective in ("disk", "memory", "speed"):
        same(codec.PackedTensor.from_scipy(s, objective=objective).to_dense(), a)
    for wrong, says in (({"layout": "nope"}, "no layout"), ({"zero": "x"}, "zero="), ({"row_dims": 0}, "row_dims")):
        with pytest.raises(codec.ArgumentError, match=says):
            codec.PackedTensor.from_scipy(s, **wrong)
    with pytest.raises(codec.ArgumentError, match=r"ndarray; expected a scipy\.sparse"):
        codec.PackedTensor.from_scipy(a)


def test_what_scipy_does_not_hold() -> None:
    for name in ("F16", "BF16", "F8_E4M3", "F8_E5M2"):
        with pytest.raises(codec.ArgumentError, match="convert to float32 first"):
            codec.encode(np.zeros((2, 3), BY_NAME[name].dtype)).to_scipy()
    for shape in ((), (3,), (2, 3, 4)):
        with pytest.raises(codec.ArgumentError, match=f"this tensor has {len(shape)} dimensions"):
            codec.encode(np.zeros(shape)).to_scipy()
    with pytest.raises(codec.ArgumentError, match="format='dia'; expected csr, csc, coo or bsr"):
        codec.encode(np.zeros((2, 3))).to_scipy("dia")
    with pytest.raises(codec.ArgumentError, match="cannot code dtype complex128"):
        codec.PackedTensor.from_scipy(scipy.sparse.eye_array(3, dtype=complex))


@pytest.mark.parametrize(
    ("starts", "columns", "says"),
    [
        ([0, 2, 2], [1, 0], "do not ascend within a row"),
        ([0, 2, 2], [1, 1], "do not ascend within a row"),
        ([0, 1, 2], [0, 3], "outside 0 to 2"),
        ([0, 1, 2], [-1, 2], "outside 0 to 2"),
        ([0, 2, 1], [0, 1], "row pointers"),
        ([1, 1, 2], [0, 1], "row pointers"),
        ([0, 1, 3], [0, 1], "row pointers"),
        ([0, 2], [0, 1], "row pointers"),
    ],
)
def test_arrays_that_are_no_csr(starts: list[int], columns: list[int], says: str) -> None:
    """What another library calls CSR is proved before the kernels walk it."""
    with pytest.raises(codec.ArgumentError, match=says):
        codec.interop.proved((2, 3), np.array(starts), np.array(columns), np.ones(2))
    codec.interop.proved((2, 3), np.array([0, 1, 2]), np.array([2, 0]), np.ones(2))


def test_damage_is_found_on_the_way_out() -> None:
    for layout, params in LAYOUT_PARAMS:
        data = bytearray(codec.dumps(codec.encode(dense((20, 30), BY_NAME["F32"]), layout=layout, **params)))
        data[codec.loads(data).spans.head.data_start] ^= 1
        with pytest.raises(codec.ChecksumError):
            codec.loads(data).to_scipy()


@given(st.integers(1, 40), st.integers(1, 80), st.integers(0, 200), st.sampled_from(LAYOUT_PARAMS), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_any_entries(rows: int, cols: int, count: int, case: tuple[str, dict[str, Any]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    where = (rng.integers(0, rows, count), rng.integers(0, cols, count))
    s = scipy.sparse.coo_array((rng.integers(-3, 4, count), where), shape=(rows, cols))
    # Entries that cancel out are kept as zeros, which a layout with fillers may have to refuse.
    if case[0] == "run_length" or case[1].get("filler") == "value":
        s.sum_duplicates()
        s.eliminate_zeros()
    p = codec.PackedTensor.from_scipy(s, layout=case[0], **case[1])
    same(p.to_dense(), s.toarray())
    x = rng.integers(-9, 9, cols)
    assert np.array_equal(p @ x, s.toarray() @ x)
    same(p.to_scipy("csc").toarray(), s.toarray())


# torch ----------------------------------------------------------------------------------------------------------------

TORCH = {e.name: str(e.dtype) for e in ELEMENTS} | {"BOOL": "bool"}


def torch_bits(tensor: Any) -> bytes:
    """A dense torch tensor's bytes."""
    torch = pytest.importorskip("torch")
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
def test_torch_strided(element: ElementType) -> None:
    torch = pytest.importorskip("torch")
    for number, shape in enumerate([(), (5,), (6, 9), (0, 3), (2, 3, 4), (1, 7, 5)]):
        a = dense(shape, element, number)
        p = codec.encode(a)
        t = p.to_torch()
        assert str(t.dtype) == f"torch.{TORCH[element.name]}"
        assert tuple(t.shape) == shape
        assert torch_bits(t) == a.tobytes()
        for again in (codec.encode(t), codec.PackedTensor.from_torch(t)):
            assert codec.dumps(again) == codec.dumps(p)
    grad = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    same(codec.encode(grad.T).to_dense(), np.arange(12.0, dtype="f4").reshape(3, 4).T)


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16", "I8", "U8", "I16", "I32", "I64", "BOOL"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
def test_torch_sparse(name: str) -> None:
    pytest.importorskip("torch")
    element = BY_NAME[name]
    for number, (layout, params) in enumerate(LAYOUT_PARAMS):
        for shape in ((6, 8), (1, 70), (0, 4)):
            a = quiet(shape, element, number)
            p = codec.encode(a, layout=layout, **params)
            for form in ("csr", "coo"):
                t = p.to_torch(form)
                assert str(t.layout) == f"torch.sparse_{form}"
                assert torch_bits(t.to_dense()) == a.tobytes()
                back = codec.PackedTensor.from_torch(t, layout=layout, **params)
                assert codec.dumps(back) == codec.dumps(p)
            if shape == (6, 8):
                blocks = p.to_torch().to_sparse_bsr((2, 4))
                same(codec.PackedTensor.from_torch(blocks).to_dense(), a)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
def test_torch_untidy_and_refused() -> None:
    torch = pytest.importorskip("torch")
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 0, 1], [2, 0, 2]]), torch.tensor([1.0, 2.0, 3.0]), (2, 3), check_invariants=True
    )
    same(codec.PackedTensor.from_torch(twice).to_dense(), twice.to_dense().numpy())
    with pytest.raises(codec.ArgumentError, match="sparse_csc"):
        codec.PackedTensor.from_torch(torch.eye(3).to_sparse_csc())
    with pytest.raises(codec.ArgumentError, match="3 dimensions; expected a matrix"):
        codec.PackedTensor.from_torch(torch.ones(2, 2, 2).to_sparse())
    with pytest.raises(codec.ArgumentError, match=r"use PackedTensor\.from_torch"):
        codec.encode(torch.eye(3).to_sparse())
    with pytest.raises(codec.ArgumentError, match="cannot code dtype complex64"):
        codec.PackedTensor.from_torch(torch.ones(2, dtype=torch.complex64))
    for wrong in (np.ones(2), None):
        with pytest.raises(codec.ArgumentError, match="expected a torch tensor"):
            codec.PackedTensor.from_torch(wrong)
    p = codec.encode(dense((2, 3, 4), element_type("float32")))
    with pytest.raises(codec.ArgumentError, match="layout='csc'; expected strided, csr or coo"):
        p.to_torch("csc")
    with pytest.raises(codec.ArgumentError, match=r"torch's csr holds matrices; this tensor has 3 dimensions"):
        p.to_torch("csr")


def test_torch_operands() -> None:
    torch = pytest.importorskip("torch")
    w = dense((6, 9), BY_NAME["I8"])
    x = torch.arange(9, dtype=torch.bfloat16)
    found = codec.matvec(codec.encode(w), x)
    assert np.array_equal(found.astype(np.float32), (w @ np.arange(9.0)).astype(found.dtype).astype(np.float32))
