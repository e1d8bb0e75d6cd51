"""Values by codebook: every layout x bits x dtype x row groups gives the nearest entries; k-means; and as published."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS, LAYOUT_PARAMS, entropies, layout_id, meets, under_rule

import codec
from codec import kernels
from codec.dtypes import ElementType, element_type
from codec.layouts import make_layout
from codec.values.codebook import kmeans, updated

SHAPES = [(), (0, 3), (5,), (7, 9), (65, 70), (8, 3, 3, 3), (200, 65)]


def numbers(shape: tuple[int, ...], element: ElementType, sparsity: float, seed: int = 0) -> np.ndarray:
    """Finite values of any dtype, a share of zeros, a few of them -0.0."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if element.name == "BOOL":
        a = rng.random(size) < 0.5
    elif element.is_float:
        a = rng.standard_normal(size).astype(element.dtype)
        a[rng.random(size) < 0.05] = -0.0
    else:
        info = np.iinfo(element.dtype)
        a = rng.integers(info.min, info.max, size, element.dtype, endpoint=True)
    a[rng.random(size) < sparsity] = 0
    return a.reshape(shape)


def closest(entries: list[np.generic], codes: range, value: np.generic, element: ElementType) -> int:
    """The code whose entry is nearest to a value, in exact numbers."""
    if not element.is_float:
        return min(codes, key=lambda code: abs(int(entries[code]) - int(value)))
    rough = {code: abs(float(entries[code]) - float(value)) for code in codes}
    least = min(rough.values()) * (1 + 1e-9)  # fractions take their time: only for those that may be it
    w = Fraction(float(value))
    return min((c for c in codes if rough[c] <= least), key=lambda c: abs(Fraction(float(entries[c])) - w))


def nearest(a: np.ndarray, stored: np.ndarray, p: codec.PackedTensor, rows: int) -> np.ndarray:
    """What decoding must give, by definition and in exact fractions: of entries as near, the lowest code's."""
    grid = p.spans.head.grid
    out = np.zeros(grid.size, a.dtype)
    padded = p.spans.head.layout.zero_items
    book = p.codebook
    flat = a.reshape(-1)
    for at in np.flatnonzero(stored):
        entries = list(book[at // grid.cols // rows if rows else 0])
        # Unused entries are zeros behind the others; in a padded layout no weight takes code 0.
        while len(entries) > 1 and entries[-1] == 0 and entries[-1].tobytes() == bytes(a.itemsize):
            entries.pop()
        codes = range(1, len(entries)) if padded and len(entries) > 1 and flat[at] != 0 else range(len(entries))
        exact = [code for code in codes if entries[code].tobytes() == flat[at].tobytes()]
        code = exact[0] if exact else closest(entries, codes, flat[at], p.spans.head.element)
        out[at] = entries[code]
    return out.reshape(a.shape)


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_every_entry_comes_back(case: tuple[str, dict], element: ElementType) -> None:
    layout, params = case
    for seed, shape in enumerate(SHAPES):
        a = numbers(shape, element, (0.0, 0.5, 0.9, 1.0)[seed % 4], seed)
        stored = under_rule(a, "value", element).reshape(-1).view(element.unsigned) != 0
        # Each layout and dtype meets each shape with one codebook, or with several.
        turn = seed + LAYOUT_PARAMS.index(case) + ELEMENTS.index(element)
        for bits, rows in ((1 + seed, None), (8 - seed, 3))[turn % 2 :: 2]:
            wanted = {"values": "codebook", "value_bits": bits, "codebook_rows": rows}
            # The codes are the same under every coding: beside the first one, another in turn.
            first, *others = entropies(layout)
            every = (first,) if rows == 3 or not others else (first, others[seed % len(others)])
            found = [codec.encode(a, layout=layout, entropy=entropy, **wanted, **params) for entropy in every]
            for p in found:
                back = codec.decode(codec.dumps(p))
                assert back.tobytes() == found[0].to_dense().tobytes()
                assert (p.values, p.value_bits, p.nnz) == ("codebook", bits, int(stored.sum()))
                assert codec.loads(codec.dumps(p)).codebook.tobytes() == p.codebook.tobytes()
            p = found[0]
            if p.size < 500:
                groups = p.spans.head.values.rows
                assert p.to_dense().tobytes() == nearest(a, stored, p, groups).tobytes()
            if first == "none":
                stats = codec.tensor_stats(a)
                asked = {"stats": stats, "entropy": "none", **wanted, **params}
                assert codec.encoded_nbytes(layout, shape, a.dtype, **asked) == p.nbytes


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_segments_panels_and_products(case: tuple[str, dict]) -> None:
    layout, params = case
    rng = np.random.default_rng(5)
    # Groups end inside panels, but are not so many that k-means takes long.
    for shape, name, bits, rows in (
        ((3, 20_000), "F64", 6, None),
        ((2, 300_000), "F32", 4, None),
        ((10_000, 30), "BF16", 3, 800),
    ):
        a = numbers(shape, next(e for e in ELEMENTS if e.name == name), 0.8)
        p = codec.encode(a, layout=layout, values="codebook", value_bits=bits, codebook_rows=rows, **params)
        dense = p.to_dense()
        group = np.arange(shape[0]) // (p.spans.head.values.rows or shape[0])
        assert all(np.isin(dense[i], [*p.codebook[group[i]], 0]).all() for i in range(0, shape[0], 997))
        exact = dense.astype(np.float64)
        for x in (rng.standard_normal(shape[1]), rng.standard_normal((shape[1], 3))):
            x = x.astype(np.float64 if name == "F64" else np.float32)
            tolerance = 1e-4 * (1 + np.abs(exact) @ np.abs(x))
            assert (np.abs(p @ x - exact @ x) <= tolerance).all()
        y = rng.standard_normal(shape[0]).astype(np.float32)
        assert (np.abs(y @ p - y @ exact) <= 1e-4 * (1 + np.abs(y) @ np.abs(exact))).all()
        x = np.full(shape[1], np.inf, np.float32)  # zeros contribute nothing, also those that pad
        with np.errstate(invalid="ignore"):
            expected = np.array([np.sum(np.unique(np.sign(row[row != 0])) * np.inf) for row in exact[:50]])
            assert np.array_equal((p @ x)[:50], expected, equal_nan=True)
        middle = shape[0] // 2
        assert codec.decode(p, rows=(middle, middle + 1)).tobytes() == dense[middle : middle + 1].tobytes()
        assert codec.dumps(
            codec.encode(a, layout=layout, values="codebook", value_bits=bits, codebook_rows=rows, threads=1, **params)
        ) == codec.dumps(p)


@pytest.mark.parametrize("source", LAYOUT_PARAMS, ids=layout_id)
def test_to_layout_keeps_the_codebook(source: tuple[str, dict]) -> None:
    after = LAYOUT_PARAMS.index(source) + 1
    for turn, (shape, bits, rows) in enumerate(
        [((300, 50), 4, None), ((64, 64), 5, 10), ((130, 70), 8, None), ((0, 4), 4, None), ((2, 300_000), 3, 1)]
    ):
        a = numbers(shape, element_type("float16"), 0.7)
        p = codec.encode(a, layout=source[0], values="codebook", value_bits=bits, codebook_rows=rows, **source[1])
        # Several segments go to the next two only: every layout is then a source and a target of such.
        for layout, params in LAYOUT_PARAMS if p.size < 1 << 16 else (LAYOUT_PARAMS * 2)[after : after + 2]:
            if p.size < 1 << 16 and not meets(source, LAYOUT_PARAMS.index((layout, params)), turn % 2, 2):
                continue
            pads = make_layout(layout, params).zero_items
            grows = pads and not p.spans.head.layout.zero_items and p.size and (p.codebook[:, -1] != 0).any()
            if grows and bits == 8:
                with pytest.raises(codec.ArgumentError, match=r'all 256 codes are in use.*values="raw"'):
                    p.to_layout(layout, **params)
                continue
            q = p.to_layout(layout, **params)
            assert (q.values, q.value_bits) == ("codebook", bits + bool(grows))
            assert q.to_dense().tobytes() == p.to_dense().tobytes()
            assert codec.decode(codec.dumps(q)).tobytes() == p.to_dense().tobytes()
            raw = p.to_layout(layout, values="raw", **params)
            assert raw.values == "raw"
            assert raw.to_dense().tobytes() == p.to_dense().tobytes()
        for objective in ("disk", "memory", "speed"):
            assert p.to_layout(objective=objective).to_dense().tobytes() == p.to_dense().tobytes()


def test_few_values_are_kept_exactly() -> None:
    rng = np.random.default_rng(1)
    for element in ELEMENTS:
        if element.name == "BOOL":
            continue
        pool = np.unique(numbers((15,), element, 0.0, 3))
        a = pool[rng.integers(0, len(pool), (60, 50))]
        a[rng.random(a.shape) < 0.6] = 0
        for zero in ("value", "bits"):
            for layout, params in LAYOUT_PARAMS:
                p = codec.encode(a, layout=layout, values="codebook", value_bits=4, zero=zero, **params)
                assert p.to_dense().tobytes() == under_rule(a, zero, element).tobytes()
    a = np.array([[-0.0, 0.0, 1.5, -0.0]], np.float32)
    for layout, params in LAYOUT_PARAMS:
        p = codec.encode(a, layout=layout, values="codebook", value_bits=2, **params)
        assert (p.nnz, p.negative_zeros) == (1, 3 - 1)
        kept = codec.encode(
            a, layout=layout, values="codebook", value_bits=2, mask=np.array([[True, False, True, False]]), **params
        )
        assert (kept.nnz, kept.negative_zeros) == (2, 1)
        assert kept.to_dense().tobytes() == np.array([[-0.0, 0, 1.5, 0]], np.float32).tobytes()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_codebook_of_the_callers(data: st.DataObject) -> None:
    element = data.draw(st.sampled_from([e for e in ELEMENTS if e.name != "BOOL"]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    book = np.unique(numbers((data.draw(st.integers(1, 40)),), element, 0.0, seed).astype(np.float64)).astype(
        element.dtype
    )
    book = np.random.default_rng(seed).permutation(book[book != 0])
    if not len(book):
        return
    a = numbers((9, 13), element, 0.4, seed + 1)
    stored = under_rule(a, "value", element).reshape(-1).view(element.unsigned) != 0
    layout, params = data.draw(st.sampled_from(LAYOUT_PARAMS))
    p = codec.encode(a, layout=layout, values="codebook", codebook=book, **params)
    assert p.to_dense().tobytes() == nearest(a, stored, p, 0).tobytes()
    first = int(p.spans.head.layout.zero_items)
    assert p.codebook[0, first : first + len(book)].tobytes() == book.tobytes()


def test_codebooks_of_the_callers() -> None:
    a = np.array([[0.9, 0.1, -0.2, 0.0], [-1.2, 0.5, -0.5, 0.0]], np.float32)
    p = codec.encode(a, layout="dense", values="codebook", codebook=[-1, 0, 1])
    assert p.to_dense().tolist() == [[1, 0, 0, 0], [-1, 0, 0, 0]]  # the middle goes to the lower code: 0 comes first
    assert p.nnz == 2  # what became zero is one
    for layout, params in LAYOUT_PARAMS:  # also where no code must be kept free for zeros
        p = codec.encode(a, layout=layout, values="codebook", codebook=[1, 0, -1], **params)
        assert p.to_dense().tolist() == [[1, 0, 0, 0], [-1, 0, 0, 0]]
        assert (p.nnz, p.value_bits, p.codebook[0, :3].tolist()) == (2, 2, [0, 1, -1])
    p = codec.encode(a, layout="bitmap", values="codebook", codebook=[[2, -2], [3, -3]], codebook_rows=1)
    assert p.to_dense().tolist() == [[2, 2, -2, 0], [-3, 3, -3, 0]]
    assert p.codebook.tolist() == [[2, -2], [3, -3]]


def test_a_centroid_that_rounds_to_zero_leaves_what_is_stored_stored() -> None:
    """Fillers of zeros are told from weights, and nnz is the same in every layout."""
    for name, small, least in (("float8_e4m3fn", 0.002, 2**-9), ("int8", 1, 1)):
        a = np.zeros((4, 64), element_type(name).dtype)
        a[[0, 1, 2, 3], [3, 7, 0, 60]] = np.array([small, small, -small, -small]).astype(a.dtype)
        for layout, params in LAYOUT_PARAMS:
            p = codec.encode(a, layout=layout, values="codebook", value_bits=1, **params)
            assert p.nnz == 4
            if p.spans.head.layout.zero_items:  # the only code for weights stands for the least value above zero
                assert codec.decode(codec.dumps(p)).astype(float)[a != 0].tolist() == [least] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "kmeans"}, "values='kmeans'; expected"),
        ({"value_bits": 4}, 'value_bits belongs to values="codebook"'),
        ({"codebook": [1.0]}, 'codebook belongs to values="codebook"'),
        ({"values": "codebook", "value_bits": 0}, "value_bits=0; expected an int from 1 to 8"),
        ({"values": "codebook", "value_bits": 9}, "value_bits=9"),
        ({"values": "codebook", "value_bits": True}, "value_bits=True"),
        ({"values": "codebook", "codebook_rows": 0}, "codebook_rows=0"),
        ({"values": "codebook", "codebook_start": "forgy"}, "codebook_start='forgy'"),
        ({"values": "codebook", "codebook": [1.0], "codebook_start": "linear"}, "codebook_start with codebook="),
        ({"values": "codebook", "codebook": [1.0, np.nan]}, "codebook holds NaN"),
        ({"values": "codebook", "codebook": [1.0, np.inf]}, "codebook holds NaN or an infinity"),
        ({"values": "codebook", "codebook": [1.0, 1e39]}, "codebook holds 1e\\+39"),
        ({"values": "codebook", "codebook": [1.0, 2.0, 1.0]}, "codebook holds an entry twice"),
        ({"values": "codebook", "codebook": [1.0, 1.0 + 1e-12]}, r"twice \(as float32\)"),
        ({"values": "codebook", "codebook": []}, "at least one entry"),
        ({"values": "codebook", "codebook": np.arange(257)}, "257 entries"),
        ({"values": "codebook", "codebook": np.arange(5), "value_bits": 2}, "5 entries; value_bits=2 has 4 codes"),
        ({"values": "codebook", "codebook": [[1.0], [2.0]]}, "2 groups; the matrix has 1"),
        (
            {"values": "codebook", "codebook": [1.0, 2.0], "value_bits": 1, "layout": "dense"},
            "without 0: layout dense pads",
        ),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    with pytest.raises(codec.ArgumentError, match=message):
        codec.encode(np.eye(3, dtype=np.float32), **options)


def test_specials_are_refused() -> None:
    for element in ELEMENTS:
        if not element.is_float:
            continue
        for special in (np.nan, np.inf):
            a = np.ones(7, element.dtype)
            a[4] = special
            with pytest.raises(codec.ArgumentError, match="1 weights are NaN or infinite, the first at flat index 4"):
                codec.encode(a, values="codebook")
    with pytest.raises(codec.ArgumentError, match="which int8 cannot hold"):
        codec.encode(np.ones(7, np.int8), values="codebook", codebook=[1, 200])


def test_integers_at_their_ends() -> None:
    for name in ("int64", "uint64", "int8", "uint32"):
        info = np.iinfo(name)
        a = np.array([info.min, info.min + 1, info.max - 1, info.max, info.max // 2, info.max // 2 + 2], name)
        p = codec.encode(a, layout="csr", values="codebook", codebook=np.array([info.min, info.max], name))
        assert p.to_dense().tolist() == nearest(a, a != 0, p, 0).tolist()
        assert codec.encode(a, values="codebook", value_bits=3).to_dense().tolist() == a.tolist()


# -- k-means ----------------------------------------------------------------------------------------------------------


def squared_error(x: np.ndarray, centers: np.ndarray) -> float:
    return float(((x - centers[np.searchsorted((centers[1:] + centers[:-1]) / 2, x)]) ** 2).sum())


def distributions(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    wide = rng.standard_normal(4 * n)
    return {
        "normal": rng.standard_normal(n),
        "pruned": wide[np.abs(wide) > 1][:n],
        "laplace": rng.laplace(size=n),
        "uniform": rng.random(n),
        "heavy": rng.standard_t(2, n),
        "clusters": rng.integers(0, 40, n) + rng.normal(0, 0.01, n),
        "crowd and spread": np.concatenate([rng.normal(0, 1, n // 2), rng.normal(0, 1e-3, n // 2)]),
    }


@pytest.mark.parametrize("k", [1, 2, 3, 15, 16, 31, 64])
def test_within_a_five_hundredth_of_the_optimum(k: int) -> None:
    kmeans1d = pytest.importorskip("kmeans1d")
    for name, x in distributions(6000).items():
        best = squared_error(x, np.sort(kmeans1d.cluster(x.tolist(), k).centroids))
        assert squared_error(x, kmeans(x, k)) <= 1.002 * best, name


def test_published_starts() -> None:
    x = distributions(4000)["pruned"]
    best = squared_error(x, kmeans(x, 16))
    for start in ("linear", "density", "random"):
        centers = kmeans(x, 16, start=start)
        assert best <= squared_error(x, centers) * 1.0005 < 4 * best
        assert np.array_equal(centers, kmeans(x, 16, start=start))
        codec.encode(x, values="codebook", value_bits=4, codebook_start=start)
    with pytest.raises(codec.ArgumentError, match="start='forgy'"):
        kmeans(x, 16, start="forgy")


def test_weights_count_as_repetitions() -> None:
    rng = np.random.default_rng(3)
    x, n = rng.standard_normal(500), rng.integers(0, 9, 500)
    for start in (None, "linear", "density", "random"):
        both = kmeans(x, 8, weights=n, start=start), kmeans(np.repeat(x, n), 8, start=start)
        errors = [squared_error(np.repeat(x, n), centers) for centers in both]
        assert errors[0] == pytest.approx(errors[1], rel=0.002 if start is None else 0.5)


def test_extremes_and_offsets() -> None:
    assert kmeans(np.array([3.0]), 5).tolist() == [3.0]
    assert kmeans(np.array([1.7e308, -1.7e308, 1.6e308]), 2).tolist() == pytest.approx([-1.7e308, 1.65e308])
    assert kmeans(np.array([5e-324, 0.0]), 2).tolist() == [0.0, 5e-324]
    offset = kmeans(1e6 + np.repeat([0.0, 1.0, 8.0, 9.0], 100), 2)
    assert offset.tolist() == pytest.approx([1e6 + 0.5, 1e6 + 8.5])
    many = np.random.default_rng(4).standard_normal(5_000_000)
    assert squared_error(many, kmeans(many, 16)) <= 1.002 * squared_error(many, kmeans(many[:400_000], 16))


# -- Deep Compression (Han, Mao, Dally, ICLR 2016) ---------------------------------------------------------------------

WEIGHTS = np.array(
    [[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]], np.float32
)
CENTROIDS = [-1.0, 0.0, 1.5, 2.0]
LABELS = [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]


def test_figure_3() -> None:
    kept = np.ones((4, 4), bool)
    p = codec.encode(WEIGHTS, layout="csr", mask=kept, values="codebook", codebook=CENTROIDS)
    assert p.value_bits == 2
    assert p.to_dense().tolist() == np.array(CENTROIDS)[LABELS].tolist()
    found = codec.encode(WEIGHTS, layout="csr", mask=kept, values="codebook", value_bits=2)
    assert np.round(found.codebook[0], 2).tolist() == pytest.approx([-1.0, 0.0, 1.5, 2.0], abs=0.01)
    assert np.array_equal(np.searchsorted(found.codebook[0], found.to_dense()), LABELS)
    gradients = [
        [-0.03, -0.01, 0.03, 0.02],
        [-0.01, 0.01, -0.02, 0.12],
        [-0.01, 0.02, 0.04, 0.01],
        [-0.07, -0.02, 0.01, -0.02],
    ]
    assert updated(np.array(CENTROIDS), np.array(LABELS), np.array(gradients)).tolist() == pytest.approx(
        [-0.97, -0.04, 1.48, 1.96]
    )


def test_the_rate_of_section_3() -> None:
    # r = n b / (n log2 k + k b): 3.2 for 16 weights of 32 bits and 4 entries.
    p = codec.encode(WEIGHTS, layout="csr", mask=np.ones((4, 4), bool), values="codebook", value_bits=2, entropy="none")
    assert WEIGHTS.nbytes / (p.parts["labels"] + p.parts["codebook"]) == 16 * 32 / (16 * 2 + 4 * 32) == 3.2
    for n, bits in ((4096, 4), (10_000, 5), (30_000, 8)):
        a = np.random.default_rng(0).standard_normal((n,)).astype(np.float32)
        p = codec.encode(a, layout="csr", values="codebook", value_bits=bits, entropy="none")
        assert p.parts["labels"] + p.parts["codebook"] == (n * bits + 7) // 8 + (1 << bits) * 4


def test_huffman_codes_are_of_codes_not_of_their_bytes() -> None:
    # Section 4: the codes of pruned weights take fewer bits than they are wide.
    rng = np.random.default_rng(6)
    a = rng.standard_normal((400, 1000)).astype(np.float32)
    a[np.abs(a) < 1.3] = 0
    p = codec.encode(a, layout="huffman", values="codebook", value_bits=5)
    _, counts = np.unique(p.to_dense()[p.to_dense() != 0], return_counts=True)
    entropy = -(counts / p.nnz) @ np.log2(counts / p.nnz)
    assert entropy < 5
    assert 8 * p.parts["labels"] / p.nnz < entropy + 0.1


# -- bytes that are wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_damage_is_found(case: tuple[str, dict]) -> None:
    layout, params = case
    a = numbers((9, 13), element_type("float16"), 0.5)
    for bits, rows in ((3, 6), (5, None)):
        data = codec.dumps(
            codec.encode(a, layout=layout, values="codebook", value_bits=bits, codebook_rows=rows, **params)
        )
        for at in range(len(data)):
            with pytest.raises(codec.FormatError):
                codec.decode(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])


def test_a_product_finds_a_damaged_codebook() -> None:
    p = codec.encode(numbers((20, 30), element_type("float32"), 0.5), layout="csr", values="codebook", value_bits=3)
    data = bytearray(codec.dumps(p))
    data[int(p.spans.head.parts[-1].offsets[0]) + 5] ^= 1
    with pytest.raises(codec.ChecksumError, match="codebook"):
        codec.loads(bytes(data)) @ np.ones(30, np.float32)
    with pytest.raises(codec.ChecksumError, match="codebook"):
        _ = codec.loads(bytes(data)).codebook


def test_model_files_carry_codebooks(tmp_path: object) -> None:
    path = tmp_path / "m.safetensors"  # type: ignore[operator]
    a = numbers((300, 40), element_type("bfloat16"), 0.9)
    p = codec.encode(a, values="codebook", value_bits=4, codebook_rows=50)
    codec.save_file({"w": p}, path)
    back = codec.load_file(path, packed=True)["w"]
    assert codec.dumps(back) == codec.dumps(p)
    with codec.safe_open(path, framework="np") as file:
        assert file.get_slice("w")[100:103].tobytes() == p.to_dense()[100:103].tobytes()
        file.verify()


def test_the_kernels_agree_with_what_is_packed() -> None:
    # Codes are packed lowest bit first, whatever the kernel.
    assert kernels.info()["kernel"] in kernels.SETS
    for bits in range(1, 9):
        a = np.arange(1, 1 << bits, dtype=np.uint8)
        p = codec.encode(a, layout="dense", values="codebook", value_bits=bits, entropy="none")
        begin = int(p.spans.head.parts[0].offsets[0])
        part = np.frombuffer(codec.dumps(p)[begin : begin + p.parts["labels"]], np.uint8)
        expected = "".join(format(code, f"0{bits}b")[::-1] for code in a)
        assert "".join(map(str, np.unpackbits(part, bitorder="little"))) == expected.ljust(8 * len(part), "0")


def test_auto_weighs_raw_values_where_no_code_is_left_for_pads():
    some = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    w = np.random.default_rng(1).permutation(some.repeat(16)).reshape(64, 64)
    p = codec.encode(w, layout="bitmap", values="codebook", value_bits=8)
    for objective in ("disk", "memory"):
        q = p.to_layout("auto", objective=objective)
        assert q.values == "codebook"
        assert q.nbytes <= p.nbytes
        assert q.to_dense().tobytes() == w.tobytes()
