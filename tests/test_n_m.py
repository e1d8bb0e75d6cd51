"""Layout n_m: every n of every m, with and without pads; what it refuses, what it chooses, and the published sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS, seeded, under_rule

import codec
from codec.dtypes import element_type
from codec.errors import ArgumentError
from codec.layouts import LAYOUTS, make_layout
from codec.layouts.n_m import MOST, GroupsOfM, pattern_bits, patterns, rank, unrank
from codec.prune import magnitude

PAIRS = [
    (1, 1),
    (1, 2),
    (1, 4),
    (2, 4),
    (3, 4),
    (2, 5),
    (1, 8),
    (2, 8),
    (3, 8),
    (4, 8),
    (1, 16),
    (4, 16),
    (6, 16),
    (8, 16),
]
PAIRS += [(1, 3), (3, 27), (13, 32), (2, 33), (1, 64), (5, 64), (32, 64), (64, 64)]


def pruned(a: np.ndarray, n: int, m: int) -> np.ndarray:
    """A copy of a matrix of which at most the first n others than zeros of each group of m in a row are left."""
    out = a.copy()
    for left in range(0, a.shape[1], m):
        bits = out[:, left : left + m].view(element_type(a.dtype).unsigned)
        bits[np.cumsum(bits != 0, axis=1) > n] = 0
    return out


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_any_n_of_any_m(pair: tuple[int, int]) -> None:
    n, m = pair
    for seed, (shape, sparsity) in enumerate([((9, 4 * m), 0.0), ((5, 131), 0.5), ((70, 64), 0.9), ((2, 40_001), 0.4)]):
        element = ELEMENTS[(seed + 5 * n + m) % len(ELEMENTS)]
        a = pruned(seeded(shape, element, sparsity, seed), n, m)
        stats = codec.tensor_stats(a, group=m)
        for entropy in ("none", "huffman"):
            p = codec.encode(a, layout="n_m", n=n, m=m, entropy=entropy)
            assert codec.decode(codec.dumps(p)).tobytes() == under_rule(a, "value", element).tobytes()
            assert p.to_layout("csr").nnz == p.nnz
        size = codec.encoded_nbytes("n_m", shape, a.dtype, stats=stats, n=n, m=m, entropy="none")
        p = codec.encode(a, layout="n_m", n=n, m=m, entropy="none")
        assert size == p.nbytes
        # No smaller n holds it, and left out it is the one found.
        least = codec.encode(a, layout="n_m", m=m, entropy="none")
        assert least.params["n"] <= n
        assert codec.encoded_nbytes("n_m", shape, a.dtype, stats=stats, m=m, entropy="none") == least.nbytes
        if least.params["n"] > 1:
            with pytest.raises(ArgumentError, match=f"stores {least.params['n']}, and n={least.params['n'] - 1}"):
                codec.encode(a, layout="n_m", n=least.params["n"] - 1, m=m)
        if a.size < 10_000:
            flags = under_rule(a, "value", element).view(element.unsigned) != 0
            layout = make_layout("n_m", p.params)
            streams = layout.encode(a.view(element.unsigned), flags)
            assert sum(stream.nbytes for stream in streams) == sum(p.parts.values())
            back = layout.decode(streams, *shape, element.unsigned)
            assert back.tobytes() == under_rule(a, "value", element).tobytes()


@given(st.integers(1, MOST), st.data())
@settings(max_examples=60, deadline=None)
def test_any_pattern(m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m))
    places = data.draw(st.lists(st.sets(st.integers(0, m - 1), max_size=n), min_size=1, max_size=9))
    width = data.draw(st.integers(1, len(places) * m))
    a = np.zeros((1, len(places) * m), np.int16)
    for group, entries in enumerate(places):
        for at in entries:
            a[0, group * m + at] = 1 + at
    a = np.repeat(a[:, :width], 3, axis=0)
    p = codec.encode(a, layout="n_m", n=n, m=m)
    assert np.array_equal(codec.decode(codec.dumps(p)), a)
    assert np.array_equal(p @ np.ones(width), a.sum(axis=1))
    assert np.array_equal(np.ones(3) @ p, a.sum(axis=0))


def test_ranks_count_masks() -> None:
    for n, m in ((1, 1), (1, 4), (2, 4), (3, 7), (10, 10)):
        masks = [mask for mask in range(1 << m) if mask.bit_count() <= n]
        assert len(masks) == patterns(n, m)
        assert [rank(mask, n) for mask in masks] == [*range(len(masks))]
        assert [unrank(code, n, m) for code in range(len(masks))] == masks
    assert {(n, m): pattern_bits(n, m) for n, m in ((2, 4), (4, 8), (1, 4), (2, 8), (1, 16), (2, 16), (64, 64))} == {
        (2, 4): 4, (4, 8): 8, (1, 4): 3, (2, 8): 6, (1, 16): 5, (2, 16): 8, (64, 64): 64,
    }  # fmt: skip


def test_a_group_with_more_is_refused_by_row_and_column() -> None:
    a = np.zeros((300, 3000), np.float32)
    a[200, [4, 5, 7, 2997]] = 1
    a[250, :] = 1
    message = "row 200, column 7: a group of 4 elements stores 3, and n=2; leave n out"
    with pytest.raises(ArgumentError, match=message):
        codec.encode(a, layout="n_m", n=2, threads=2)
    for source in ("bitmap", "csr", "dense", "relative_index"):
        with pytest.raises(ArgumentError, match=message):
            codec.encode(a, layout=source).to_layout("n_m", n=2)
    assert codec.encode(a[:250], layout="n_m").params == {"m": 4, "n": 3}
    # Groups begin anew in every row.
    assert codec.encode(np.array([[0, 1, 1], [1, 1, 0]]), layout="n_m", n=2).nnz == 4


def test_kept_zeros_are_no_pads() -> None:
    a = np.zeros((2, 12), np.float32)
    a[0, 3] = 1
    for n, m in ((1, 4), (2, 4), (4, 4), (3, 12)):
        mask = np.zeros(a.shape, bool)
        mask[0, [3, 4]] = mask[1, [0, 8]] = True
        p = codec.encode(a, layout="n_m", n=n, m=m, mask=mask)
        assert p.nnz == 4
        assert codec.loads(codec.dumps(p)).to_layout("csr").nnz == 4
        assert np.array_equal(p.to_dense(), a)
        assert codec.encode(a, layout="bitmap", mask=mask).to_layout("n_m", n=n, m=m).parts == p.parts


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 5)])
def test_codebooks(n: int, m: int) -> None:
    a = pruned(np.random.default_rng(3).integers(-3, 4, (64, 200)).astype(np.float32), n, m)
    p = codec.encode(a, layout="n_m", n=n, m=m, values="codebook", value_bits=3)
    assert np.array_equal(p.to_dense(), a)
    assert np.array_equal(p.to_layout("bitmap").to_dense(), a)
    x = np.arange(200, dtype=np.float32)
    assert np.allclose(p @ x, a @ x)


def test_the_published_closed_form() -> None:
    # (1/2 + 1/b) b bits an element: 3/4 of dense for 4 bits, then 5/8, 9/16 and 17/32.
    for bits, share in ((4, 0.75), (8, 0.625), (16, 0.5625), (32, 0.53125)):
        assert GroupsOfM(n=2, m=4).ideal_bits(0.5, bits) == share * bits
        found = codec.break_even("n_m", (64, 64), "float32", headers=False, value_bits=bits, n=2, m=4)
        assert found.sparsity == 0.0
    # Independent zeros leave some group of an endless row full: dense, and a bit more.
    assert GroupsOfM().ideal_bits(0.9, 16) == 17
    assert GroupsOfM().ideal_bits(1.0, 16) == (16 + 3) / 4
    a = magnitude(np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32), 0.9)
    expected = codec.encoded_nbytes("n_m", a.shape, a.dtype, sparsity=0.9)
    assert expected == codec.encode(a, layout="n_m", entropy="none").nbytes


@pytest.mark.parametrize("pair", [(1, 4), (2, 8), (1, 16)], ids=str)
def test_auto_takes_it_where_it_is_the_smallest(pair: tuple[int, int]) -> None:
    n, m = pair
    rng = np.random.default_rng(1)
    # Gaps take as many bits, and four bytes a segment more.
    full = rng.standard_normal((2048, 1024)).astype(np.float32)
    order = rng.permuted(np.tile(np.arange(m), (full.size // m, 1)), axis=1)
    full.reshape(-1, m)[order >= n] = 0
    p = codec.encode(full, objective="memory")
    assert (p.layout, dict(p.params)) == ("n_m", {"m": m, "n": n})
    sizes = [
        codec.encode(full, layout=name, objective="memory").nbytes
        for name in LAYOUTS
        if not LAYOUTS[name]().always_coded
    ]
    assert p.nbytes <= min(sizes)
    assert codec.encode(rng.standard_normal((64, 64)), objective="memory").layout == "dense"
    # Under Huffman codes within one percent, from groups alone where no mask was counted.
    stats = codec.tensor_stats(full)
    coded = codec.encode(full, layout="n_m", n=n, m=m, entropy="huffman")
    size = codec.encoded_nbytes("n_m", full.shape, full.dtype, stats=stats, n=n, m=m, entropy="huffman")
    assert abs(size - coded.nbytes) <= 0.01 * coded.nbytes


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"m": 0}, "m=0; expected an int from 1 to 64"),
        ({"m": 65, "n": 2}, "m=65; expected an int from 1 to 64"),
        ({"m": True, "n": 1}, "m=True"),
        ({"n": 0}, "n=0; expected an int from 1 to m=4"),
        ({"n": 5}, "n=5; expected an int from 1 to m=4"),
        ({"n": 2.0}, "n=2.0"),
        ({"m": "4", "n": 2}, "m='4'"),
        ({"k": 2}, "no parameter 'k'"),
    ],
    ids=str,
)
def test_parameters(params: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        codec.encode(np.eye(4), layout="n_m", **params)


def test_statistics_must_hold_the_groups() -> None:
    a = np.eye(10, dtype=np.float32)
    with pytest.raises(ArgumentError, match=r"groups of 5: tensor_stats\(a, group=5\)"):
        codec.encoded_nbytes("n_m", a.shape, a.dtype, stats=codec.tensor_stats(a), m=5)
    assert codec.encode(a, layout="n_m", m=5).params == {"m": 5, "n": 1}
    assert codec.encode(np.zeros((0, 3)), layout="n_m").params == {"m": 4, "n": 1}
