"""scipy.sparse: every layout out and in, without a dense copy, values bit for bit, nothing believed."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from interop import dense, quiet, same
from strategies import ELEMENTS, LAYOUT_PARAMS, entropies, layout_id

import codec
from codec.dtypes import BY_NAME, ElementType
from codec.interop import csr

FORMATS = ("csr", "csc", "coo", "bsr")
SCIPY = [e for e in ELEMENTS if not e.is_float or e.name in ("F32", "F64")]
SHAPES = [(6, 9), (1, 70), (70, 1), (0, 4), (4, 0), (65, 130)]
every_layout = pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)


@pytest.mark.parametrize("element", SCIPY, ids=lambda e: e.name)
@every_layout
def test_scipy_there_and_back(case: tuple[str, dict[str, Any]], element: ElementType) -> None:
    for number, shape in enumerate(SHAPES):
        a = quiet(shape, element, number)
        p = codec.encode(a, layout=case[0], **case[1])
        # Each layout and dtype meets each format at half of the shapes.
        turn = number + LAYOUT_PARAMS.index(case) + SCIPY.index(element)
        for form in FORMATS[turn % 2 :: 2]:
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


@every_layout
def test_scipy_of_a_tensor_that_stores_nothing(case: tuple[str, dict[str, Any]]) -> None:
    for shape in ((3, 5), (130, 3000)):
        s = codec.encode(np.zeros(shape, np.float32), layout=case[0], **case[1]).to_scipy()
        assert s.shape == shape
        assert not s.toarray().any()
        assert s.indptr[-1] == s.nnz == 0


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("form", FORMATS)
def test_from_scipy_untidy(form: str, index: type) -> None:
    """Unsorted columns, duplicates, stored zeros, either index width, matrices and arrays."""
    rows, cols = np.array([2, 0, 0, 2, 1, 2], index), np.array([3, 4, 1, 0, 2, 3], index)
    values = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.5])
    for kind in ("array", "matrix"):
        s = getattr(scipy.sparse, f"coo_{kind}")((values, (rows, cols)), shape=(3, 5)).asformat(form)
        before = s.copy()
        p = codec.PackedTensor.from_scipy(s, layout="csr")
        same(p.to_dense(), before.toarray())
        # A stored zero stays an entry; bsr has whole blocks of them.
        listed = codec.PackedTensor.from_scipy(s, layout="csr")
        assert listed.nnz == (5 if form != "bsr" else before.tocsr().nnz)
        assert codec.PackedTensor.from_scipy(s, layout="dense").nnz == listed.nnz
        assert (s != before).nnz == 0
    apart = np.array([[4, 0], [0, 0], [2, 0], [3, 0], [1, 0]], index)[:, 0]
    strided = scipy.sparse.csr_array((np.arange(10.0)[::2], apart, np.array([0, 3, 3, 5], index)), shape=(3, 5))
    same(codec.PackedTensor.from_scipy(strided).to_dense(), strided.toarray())
    starts, columns = np.array([0, 3, 3, 5], index), np.array([4, 0, 2, 3, 1], index)
    unsorted = scipy.sparse.csr_array((np.arange(1.0, 6.0), columns, starts), shape=(3, 5))
    expected = unsorted.toarray()
    same(codec.PackedTensor.from_scipy(unsorted).to_dense(), expected)
    assert unsorted.indices.tolist() == [4, 0, 2, 3, 1]


@pytest.mark.parametrize("form", FORMATS)
def test_flags_are_not_believed(form: str) -> None:
    """A matrix may say that it is sorted and without duplicates when it is not."""
    rows, cols, values = np.array([2, 0, 0, 2, 0]), np.array([3, 4, 1, 0, 4]), np.array([1.0, 2.0, 3.0, 4.0, 0.5])
    expected = np.zeros((3, 6))
    np.add.at(expected, (rows, cols), values)
    if form == "coo":
        s = scipy.sparse.coo_array((values, (rows, cols)), shape=(3, 6))
    elif form == "csr":
        by_rows = [1, 2, 4, 0, 3]
        s = scipy.sparse.csr_array((values[by_rows], cols[by_rows], [0, 3, 3, 5]), shape=(3, 6))
    elif form == "csc":
        s = scipy.sparse.csc_array(
            (values[[3, 2, 0, 1, 4]], rows[[3, 2, 0, 1, 4]], [0, 1, 2, 2, 3, 5, 5]), shape=(3, 6)
        )
    else:
        blocks = values[[1, 2, 4, 0, 3]][:, None, None] * np.array([[[1.0, 0.0]]])
        s = scipy.sparse.bsr_array((blocks, [2, 0, 2, 1, 0], [0, 3, 3, 5]), shape=(3, 6))
        expected = np.zeros((3, 6))
        np.add.at(expected, ([0, 0, 0, 2, 2], [4, 0, 4, 2, 0]), values[[1, 2, 4, 0, 3]])
    s.has_canonical_format = True
    if form != "coo":
        s.has_sorted_indices = True
    same(codec.PackedTensor.from_scipy(s).to_dense(), expected)


@pytest.mark.parametrize("form", FORMATS)
def test_arrays_that_were_changed_later(form: str) -> None:
    """scipy checks indices when a matrix is made, and walks them unchecked afterwards."""
    s = scipy.sparse.coo_array((np.ones(2), ([0, 2], [1, 2])), shape=(3, 4)).asformat(form)
    (s.row if form == "coo" else s.indices)[0] = 1 << 20
    with pytest.raises(codec.ArgumentError, match=r"index 1048576 lies outside 0 to \d"):
        codec.PackedTensor.from_scipy(s)
    if form != "coo":
        s.indices[0] = 0
        s.indptr[1] = 1 << 20
        with pytest.raises(codec.ArgumentError, match=r"pointers.* expected \d pointers|pointers that ascend"):
            codec.PackedTensor.from_scipy(s)


def test_room_behind_the_last_pointer_is_not_the_matrix() -> None:
    for form in ("csr", "csc", "bsr"):
        s = scipy.sparse.eye_array(4, format=form)
        s.indices, s.data = np.append(s.indices, [1, 1]), np.concatenate([s.data, s.data[:2]])
        same(codec.PackedTensor.from_scipy(s).to_dense(), np.eye(4))


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", [*FORMATS, "dia", "lil", "dok"])
def test_from_every_format(form: str, kind: str) -> None:
    for shape in ((6, 9), (1, 70), (300, 2), (4, 70_000), (0, 4), (4, 0)):
        number = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        a = np.where(number % 7 == 3, number % 5, np.float32(0))
        if form == "dia":  # which takes a value for each element of every diagonal
            a = a[:, :9]
        s = getattr(scipy.sparse, f"coo_{kind}")(a).asformat(form)
        same(codec.PackedTensor.from_scipy(s).to_dense(), a)
        same(codec.PackedTensor.from_scipy(s.T).to_dense(), a.T)


def test_rows_are_those_of_the_tensor() -> None:
    """Whatever the matrix view is that it was coded as."""
    for shape in ((2, 3), (65, 130), (3, 1), (0, 4), (4, 0)):
        a = dense(shape, BY_NAME["I16"])
        for row_dims in (0, 1, 2):
            for layout, params in LAYOUT_PARAMS:
                p = codec.encode(a, row_dims=row_dims, layout=layout, **params)
                for form in FORMATS:
                    assert p.to_scipy(form).shape == shape
                    same(p.to_scipy(form).toarray(), a)


def test_what_is_no_matrix() -> None:
    for shape in ((4,), (2, 3, 2)):
        s = scipy.sparse.coo_array(np.ones(shape))
        with pytest.raises(codec.ArgumentError, match=rf"shape \({shape[0]},.*expected 2 dimensions: a\.reshape"):
            codec.PackedTensor.from_scipy(s)
    broken = scipy.sparse.lil_array((2, 3))
    broken.rows[0] = [0, 1]
    with pytest.raises(codec.ArgumentError, match="lil_array whose rows have other numbers of columns than of values"):
        codec.PackedTensor.from_scipy(broken)
    broken = scipy.sparse.dok_array((2, 3))
    broken._dict[1, 9] = 1.0
    with pytest.raises(codec.ArgumentError, match="dok_array that scipy cannot read itself"):
        codec.PackedTensor.from_scipy(broken)


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", [*FORMATS, "dia", "lil", "dok"])
def test_where_a_dense_array_is_expected(form: str, kind: str) -> None:
    s = getattr(scipy.sparse, f"{form}_{kind}")((3, 3))
    for ask in (codec.encode, codec.tensor_stats, lambda a: codec.encode(np.eye(3)) @ a):
        with pytest.raises(codec.ArgumentError, match=rf"{form}_{kind}; expected a dense array: .*from_scipy"):
            ask(s)


NEARLY_EMPTY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import numpy as np, scipy.sparse, codec
rng = np.random.default_rng(0)
for side, count in ((100_000, 50_000), (300_000, 80_000)):
    where = rng.integers(0, side, (2, count))
    s = scipy.sparse.coo_array((rng.standard_normal(count), tuple(where)), shape=(side, side)).tocsr()
    p = codec.PackedTensor.from_scipy(s, layout="csr")
    assert p.nbytes < 16 << 20
    assert (p.to_scipy() != s).nnz == 0
    if side == 100_000:  # by any objective: other layouts would look at every position
        assert all(codec.PackedTensor.from_scipy(s, objective=o).layout == "csr" for o in ("disk", "memory", "speed"))
# ru_maxrss would begin with that of the process that started this one.
assert next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) < 400 << 10
"""


def test_large_and_nearly_empty() -> None:
    """Entries go into segments straight from CSR arrays: the memory is that of the entries, not of the positions."""
    done = subprocess.run([sys.executable, "-c", NEARLY_EMPTY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
    for shape, dimensions in (((), "0 dimensions"), ((3,), "1 dimension"), ((2, 3, 4), "3 dimensions")):
        with pytest.raises(codec.ArgumentError, match=f"this tensor has {dimensions}$"):
            codec.encode(np.zeros(shape)).to_scipy()
    with pytest.raises(codec.ArgumentError, match="format='dia'; expected csr, csc, coo or bsr"):
        codec.encode(np.zeros((2, 3))).to_scipy("dia")
    with pytest.raises(codec.ArgumentError, match="cannot code dtype complex128; expected one of float64"):
        codec.PackedTensor.from_scipy(scipy.sparse.eye_array(3, dtype=complex))


@pytest.mark.parametrize(
    ("starts", "columns", "says"),
    [
        ([0, 1, 2], [0, 3], "column index 3 lies outside 0 to 2"),
        ([0, 1, 2], [-1, 2], "column index -1 lies outside 0 to 2"),
        ([0, 2, 1], [0, 1], "row pointers"),
        ([1, 1, 2], [0, 1], "row pointers"),
        ([0, 1, 3], [0, 1], "row pointers"),
        ([0, 2], [0, 1], "row pointers"),
        ([0, 1, 2], [0.0, 1.0], "column indices are float64 of shape"),
        ([[0, 1, 2]], [0, 1], "row pointers are int64 of shape"),
        ([0, 1, 2], np.array([2**64 - 1, 0], np.uint64), "column index 18446744073709551615 lies outside"),
    ],
)
def test_arrays_that_are_no_csr(starts: Any, columns: Any, says: str) -> None:
    """What another library calls CSR is proved before the kernels walk it."""
    with pytest.raises(codec.ArgumentError, match=says):
        csr.compressed((2, 3), np.array(starts), np.array(columns), np.ones(2))
    csr.compressed((2, 3), np.array([0, 1, 2]), np.array([2, 0]), np.ones(2))


def test_arrays_that_are_no_coordinates_or_blocks() -> None:
    two = np.array([0, 1])
    with pytest.raises(codec.ArgumentError, match="row index 2 lies outside 0 to 1"):
        csr.coordinates((2, 3), two + 1, two, np.ones(2))
    with pytest.raises(codec.ArgumentError, match="2 row indices, 1 column indices"):
        csr.coordinates((2, 3), two, two[:1], np.ones(2))
    with pytest.raises(codec.ArgumentError, match="blocks of 2 x 2 do not tile a matrix of 4 x 5"):
        csr.compressed((4, 5), two, two[:1], np.ones((1, 2, 2)))
    with pytest.raises(codec.ArgumentError, match=r"values of shape \(1, 2\)"):
        csr.compressed((4, 4), two, two[:1], np.ones((1, 2)))


def test_proved_arrays_are_those_that_were_given() -> None:
    starts, columns, values = np.array([0, 2, 3]), np.array([0, 2, 1]), np.array([1.0, 2.0, 3.0])
    found = csr.compressed((2, 3), starts, columns, values)
    assert [np.shares_memory(*pair) for pair in zip(found[1:], (starts, columns, values), strict=True)] == [True] * 3


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
