"""Structures, criteria and thresholds: exact counts, the lowest go, ties by position, nothing is pruned to nothing."""

import math
import tracemalloc
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec import prune
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.matrix import default_row_dims, matrix_shape

NORMS = ("l1", "l2")
SPARSITIES = st.floats(0, 0.999)


@st.composite
def tensors(draw, shapes=None, few=True):
    """Small tensors of any dtype without NaN: few distinct values make ties, -0.0 and infinities among them."""
    element = BY_NAME[draw(st.sampled_from(list(BY_NAME)))]
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6) if shapes is None else shapes)
    top = 1 if element.name == "BOOL" else 2 ** (8 * element.width) - 1
    some = [0, 1, 2, element.sign_bit, 1 << (8 * element.width - 1), top // 4, top // 3]
    bits = st.sampled_from([b for b in some if b <= top]) if few else st.integers(0, top)
    a = draw(hnp.arrays(element.unsigned, shape, elements=bits)).view(element.dtype)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        assume(not element.is_float or not np.isnan(a).any())
    return a


@st.composite
def cut(draw, shapes=None):
    """A tensor and the name of a structure that it has."""
    a = draw(tensors(shapes))
    names = ["element", "row", "column"] + ["filter", "channel"] * (a.ndim > 1) + ["kernel"] * (a.ndim > 2)
    figures = st.builds("{}x{}".format, st.integers(1, 7), st.integers(1, 7))
    return a, draw(st.sampled_from(names) | figures)


def blocks(a, structure):
    """The definition: for each structure, in order, the flat indices of its weights."""
    convolution = structure in ("filter", "kernel", "channel")
    rows, cols = matrix_shape(a.shape, 1 if convolution else default_row_dims(a.shape))
    kernel = math.prod(a.shape[2:])
    named = {
        "element": (1, 1),
        "row": (1, cols),
        "filter": (1, cols),
        "column": (rows, 1),
        "kernel": (1, kernel),
        "channel": (rows, kernel),
    }
    height, width = named.get(structure) or map(int, structure.split("x"))
    if not a.size:
        return []
    at = np.arange(a.size).reshape(rows, cols)
    return [
        at[r : r + height, c : c + width].reshape(-1) for r in range(0, rows, height) for c in range(0, cols, width)
    ]


def score(a, criterion):
    """The definition, in Python numbers."""
    magnitudes = [abs(w) for w in a.reshape(-1).tolist()]
    if len(magnitudes) == 1:
        return magnitudes[0]
    if criterion == "l1":
        return sum(map(float, magnitudes)) / len(magnitudes)
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.sum(np.square(np.array(magnitudes, np.float64))) / len(magnitudes)))


@given(cut(), SPARSITIES, st.sampled_from(prune.CRITERIA), st.booleans())
def test_exact_counts_and_whole_structures(case, sparsity, criterion, allow_empty):
    a, structure = case
    before = a.tobytes()
    mask = prune.mask(a, sparsity, structure=structure, criterion=criterion, allow_empty=allow_empty)
    assert mask.dtype == np.bool_
    assert mask.shape == a.shape
    assert a.tobytes() == before
    found = blocks(a, structure)
    kept = [set(mask.reshape(-1)[at].tolist()) for at in found]
    assert all(len(one) == 1 for one in kept)
    most = len(found) if allow_empty else max(0, len(found) - 1)
    assert kept.count({False}) == min(round(sparsity * len(found)), most)
    assert not a.size or allow_empty or mask.any()


@given(cut(), SPARSITIES, st.sampled_from(NORMS))
def test_what_stays_matters_as_much_as_what_goes(case, sparsity, criterion):
    a, structure = case
    found = blocks(a, structure)
    scores = prune.scores(a, structure=structure, criterion=criterion).reshape(-1)
    expected = np.array([score(a.reshape(-1)[at], criterion) for at in found], np.float64)
    np.testing.assert_allclose(scores.astype(np.float64), expected, rtol=1e-12)
    kept = np.array(
        [prune.mask(a, sparsity, structure=structure, criterion=criterion).reshape(-1)[at[0]] for at in found]
    )
    if len(found):
        ranks = sorted(range(len(found)), key=lambda i: (scores[i].item(), i))
        assert ranks[: len(found) - np.count_nonzero(kept)] == sorted(np.flatnonzero(~kept), key=ranks.index)


@given(st.lists(cut(), max_size=4), st.data())
def test_together_is_one_threshold_over_all(cases, data):
    structure = data.draw(st.sampled_from(["element", "row", "2x3"]))
    criterion = data.draw(st.sampled_from(NORMS))
    allow_empty = data.draw(st.booleans())
    sparsity = data.draw(SPARSITIES)
    cap = data.draw(st.none() | st.floats(sparsity, 1))
    some = {f"t{i}": a for i, (a, _) in enumerate(cases)}
    options = {"structure": structure, "criterion": criterion}
    exact = len({prune.scores(a, **options).dtype for a in some.values()}) == 1
    # The definition: each tensor is free to lose its lowest scores, and the lowest of all that are free go.
    share = (1 if allow_empty else max(0.95, (1 + sparsity) / 2)) if cap is None else cap
    free, total = [], 0
    for layer, a in enumerate(some.values()):
        scored = prune.scores(a, **options).reshape(-1)
        ranked = sorted((s.item(), i) for i, s in enumerate(scored))
        most = max(int(share * len(ranked)), round(sparsity * len(ranked)))
        most = most if allow_empty else min(most, max(0, len(ranked) - 1))
        free += [(s if exact else float(s), layer, i) for s, i in ranked[:most]]
        total += len(ranked)
    counts = [0] * len(some)
    for _, layer, _ in sorted(free)[: min(round(sparsity * total), len(free))]:
        counts[layer] += 1
    masks = prune.masks(some, sparsity, allow_empty=allow_empty, cap=cap, **options)
    assert list(masks) == list(some)
    assert prune.removals(some, sparsity, allow_empty=allow_empty, cap=cap, **options) == dict(
        zip(some, counts, strict=True)
    )
    for (name, a), count in zip(some.items(), counts, strict=True):
        scored = prune.scores(a, **options).reshape(-1)
        gone = {i for _, i in sorted((s.item(), i) for i, s in enumerate(scored))[:count]}
        for i, at in enumerate(blocks(a, structure)):
            assert set(masks[name].reshape(-1)[at].tolist()) == {i not in gone}, (name, i)
        assert not a.size or allow_empty or masks[name].any()
        assert np.array_equal(prune.mask_of(a, count, name=name, **options), masks[name])


@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f4", "f2"), ("f8", "f4"), ("u1", "u1"), ("i8", "i8"), ("f4", "i8")])
def test_one_threshold_over_many_scores(dtypes):
    """More than a pass takes at a time, with most of them in one digit of the keys, and with ties."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 2000, 1_300_000) if dtypes[0] == "i8" else rng.standard_normal(1_300_000) * 3
    some = {"a": wide.astype(dtypes[0]), "b": (1 + rng.random(5000) / 500 if dtypes[1] == "f4" else wide[:5000])}
    some["b"] = some["b"].astype(dtypes[1])
    for sparsity in (0, 1e-6, 0.8):
        order = np.concatenate([np.abs(a.astype(np.float64)) for a in some.values()]).argsort(kind="stable")
        expected = np.ones(len(order), bool)
        expected[order[: round(sparsity * len(order))]] = False
        masks = prune.masks(some, sparsity, allow_empty=True)
        assert np.array_equal(np.concatenate(list(masks.values())), expected)
        masks = prune.masks(some, sparsity, criterion="random")
        assert sum(np.count_nonzero(~m) for m in masks.values()) == round(sparsity * len(order))


def test_no_tensor_loses_nearly_all():
    """Under one threshold a tensor of small weights would lose all but one of its filters."""
    rng = np.random.default_rng(0)
    some = {name: rng.standard_normal((1000, 8)) * size for name, size in (("small", 0.01), ("a", 1), ("b", 1))}
    for structure in ("row", "element"):

        def lost(sparsity, structure=structure, **options):
            masks = prune.masks(some, sparsity, structure=structure, **options)
            assert sum(np.count_nonzero(~m) for m in masks.values()) == round(sparsity * 24000)
            return 1 - masks["small"].mean()

        assert lost(0.5, cap=1) > 0.99
        assert lost(0.5) == lost(0.5, cap=0.95) == pytest.approx(0.95)
        assert lost(0.95) == pytest.approx(0.975)
        assert lost(0.5, allow_empty=True) == 1
        assert lost(0.5, cap=0.5) == 0.5
    for cap, says in (
        (0.4, "cap=0.4 keeps every tensor below sparsity=0.5"),
        ("x", "cap is x; expected"),
        (2, "cap is"),
    ):
        with pytest.raises(ArgumentError, match=says):
            prune.masks(some, 0.5, cap=cap)
    with pytest.raises(ArgumentError, match=r'structure="2:4" fixes the sparsity; leave cap=0\.9 out'):
        prune.masks(some, structure="2:4", cap=0.9)


@given(tensors(few=False), st.integers(1, 5), st.integers(0, 5), st.sampled_from(NORMS))
def test_groups_of_n_m(a, n, more, criterion):
    m = n + more
    mask = prune.mask(a, structure=f"{n}:{m}", criterion=criterion)
    rows, cols = matrix_shape(a.shape, default_row_dims(a.shape))
    kept, magnitudes = mask.reshape(rows, cols), prune.magnitude_scores(a).reshape(rows, cols)
    for row in range(rows):
        for start in range(0, cols, m):
            group = range(start, min(start + m, cols))
            ranks = sorted(group, key=lambda i: (int(magnitudes[row, i]), i))
            assert [i for i in group if kept[row, i]] == sorted(ranks[-n:])


def test_groups_of_n_m_in_many_rows_and_with_a_short_last_one():
    a = (
        np.random.default_rng(0).standard_normal((700, 1603)).astype(ml_dtypes.bfloat16)
    )  # sorted in more than one piece
    mask = prune.mask(a, structure="2:4")
    assert (mask[:, :1600].reshape(700, 400, 4).sum(axis=2) == 2).all()
    assert (mask[:, 1600:].sum(axis=1) == 2).all()
    groups = np.abs(a[:, :1600].astype(np.float32)).reshape(-1, 4)
    kept = mask[:, :1600].reshape(-1, 4)
    lost = np.where(kept, 0, groups).max(axis=1)
    assert (np.where(kept, groups, np.inf).min(axis=1) >= lost).all()


@pytest.mark.parametrize("structure", ["8x8", "3x5000", "5000x3", "row", "column"])
@pytest.mark.parametrize("criterion", NORMS)
def test_scores_of_matrices_that_are_cut_into_pieces(structure, criterion):
    a = np.random.default_rng(0).standard_normal((301, 2003)).astype(np.float32)
    found = prune.scores(a, structure=structure, criterion=criterion).reshape(-1)
    wide = np.abs(a.reshape(-1).astype(np.float64)) ** (1 if criterion == "l1" else 2)
    expected = np.array([wide[at].mean() for at in blocks(a, structure)]) ** (1 if criterion == "l1" else 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Random


@given(cut(), SPARSITIES, st.integers(0, 2**70))
def test_random_is_the_same_again(case, sparsity, seed):
    a, structure = case
    options = {"structure": structure, "criterion": "random", "seed": seed}
    one = prune.mask(a, sparsity, **options)
    assert np.array_equal(one, prune.mask(np.asfortranarray(a), sparsity, **options))
    assert np.array_equal(one, prune.mask(np.zeros(a.shape, np.int8), sparsity, **options))


def test_random_is_pinned_and_spread():
    a = np.ones((100, 100), np.float32)
    zero, one = (prune.mask(a, 0.5, criterion="random", seed=seed) for seed in (0, 1))
    assert np.flatnonzero(~zero)[:6].tolist() == [1, 2, 3, 11, 13, 15]  # on every machine, in every version
    assert 4500 < np.count_nonzero(zero != one) < 5500
    both = {name: prune.masks({name: a}, 0.5, criterion="random")[name] for name in "ab"}
    assert 4500 < np.count_nonzero(both["a"] != both["b"]) < 5500
    assert prune.mask(a, structure="2:4", criterion="random").reshape(-1, 4).sum(axis=1).tolist() == [2] * 2500


# NaN, infinity, integers, memory


def test_a_structure_that_holds_nan_is_never_removed():
    a = np.array([[np.nan, 0], [np.inf, 5], [1, 1]], np.float32)
    assert prune.mask(a, 0.67, structure="row").all(axis=1).tolist() == [True, False, False]
    with pytest.raises(ArgumentError, match="cannot remove 3 of 3 structures: 1 hold NaN"):
        prune.mask(a, 1, structure="row", allow_empty=True)
    with pytest.raises(ArgumentError, match="row 0, column 0: more than 1 of 3 weights are NaN"):
        prune.mask(np.array([np.nan, 1, np.nan]), structure="1:3")
    assert prune.mask(np.array([np.nan, 1, np.nan]), structure="2:3").tolist() == [True, False, True]
    assert not prune.mask(a, 1, structure="row", criterion="random", allow_empty=True).any()


def test_signalling_nans_pass_in_silence():
    a = np.array([0x7F800001, 0x3F800000, 0, 0], np.uint32).view(np.float32)
    masks = prune.masks({"a": a, "b": np.ones(2, np.float16)}, 0.5)
    assert masks["a"].tolist() == [True, False, False, False]
    half = a.view(np.uint16)[1::2].view(ml_dtypes.bfloat16)
    half.view(np.uint16)[0] = 0x7F81
    assert prune.mask(half, 0.5).tolist() == prune.magnitude_mask(half, 0.5).tolist() == [True, True, False, False]
    assert prune.mask(a, 0.5, structure="1x2").tolist() == [True, True, False, False]


def test_integers_are_ranked_by_magnitude_also_the_most_negative():
    a = np.array([[-128, 0], [127, 0]], np.int8)
    assert prune.scores(a).tolist() == [[128, 0], [127, 0]]
    assert prune.scores(a, structure="row").tolist() == [[64], [63.5]]
    assert prune.mask(a, 0.5, structure="row").tolist() == [[True, True], [False, False]]
    top = np.array([2**63 - 1, -(2**63 - 2), -(2**63)], np.int64)  # one number in float64
    assert prune.masks({"a": top, "b": top}, 0.5)["a"].tolist() == [False, False, True]


def test_sums_that_float64_cannot_hold_are_infinite():
    a = np.array([[1e308, 1e308], [1, np.inf], [2, 2]])
    assert prune.scores(a, structure="row").tolist() == [[np.inf], [np.inf], [2]]
    assert prune.scores(a, structure="row", criterion="l2").tolist() == [[np.inf], [np.inf], [2]]


def test_clipped_blocks_are_compared_by_their_means():
    a = np.array([[1, 1, 1, 1, 3]], np.float32)  # by sums the clipped block of one would go
    assert prune.mask(a, 0.5, structure="1x4").tolist() == [[False] * 4 + [True]]


def test_any_memory_order_and_lists():
    a = np.random.default_rng(0).standard_normal((9, 14)).astype(">f4")
    for structure, sparsity in (("2:4", None), ("4x4", 0.5), ("element", 0.5), ("channel", 0.5)):
        expected = prune.mask(np.ascontiguousarray(a[::2, ::-2]), sparsity, structure=structure)
        assert np.array_equal(prune.mask(a[::2, ::-2], sparsity, structure=structure), expected)
        assert np.array_equal(prune.mask(a[::2, ::-2].tolist(), sparsity, structure=structure), expected)


def test_one_tensor_is_asked_for_at_a_time():
    class Made(dict):
        asked = 0

        def __getitem__(self, name):
            self.asked += 1
            return np.full(4, len(name), np.float32)

    made = Made(a=None, bb=None)
    assert [m.sum() for m in prune.masks(made, 0.5).values()] == [1, 3]
    assert made.asked == 8  # one pass for each 16 bits of a key, one for ties, one for the masks


def test_a_threshold_takes_the_memory_of_one_tensor():
    class Made(Mapping):
        def __getitem__(self, name):
            return np.random.default_rng(int(name)).standard_normal((1000, 1000), np.float32)

        def __iter__(self):
            return map(str, range(12))

        def __len__(self):
            return 12

    tracemalloc.start()
    try:
        counts = prune.removals(Made(), 0.8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(counts.values()) == 0.8 * 12e6
    assert peak < 0.7 * 12 * 4e6  # all scores alone would be 1.0


def test_figures_larger_than_the_matrix_take_no_memory():
    assert prune.mask(np.ones((2, 2)), 0.9, structure="999999999x999999999").all()
    assert prune.mask(np.ones((2, 2)), structure="999999999:999999999").all()


@pytest.mark.parametrize(
    ("shape", "structure", "count"),
    [
        ((8, 3, 5, 5), "kernel", 24),
        ((8, 3, 5, 5), "filter", 8),
        ((8, 3, 5, 5), "channel", 3),
        ((8, 3, 5, 5), "row", 8),
        ((8, 3, 5, 5), "column", 75),
        ((1, 18, 6), "row", 18),
        ((1, 18, 6), "kernel", 18),
        ((8, 3), "channel", 3),
        ((7, 5), "3x2", 9),
        ((5,), "row", 1),
        ((), "element", 1),
        ((0, 4), "row", 0),
        ((4, 0, 3), "channel", 0),
    ],
)
def test_how_many_structures_a_shape_has(shape, structure, count):
    assert prune.scores(np.ones(shape), structure=structure).size == count
    assert prune.structures_of(structure, shape).sizes().sum() == math.prod(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "sparsity is None; expected a share from 0 to 1"),
        ({"sparsity": "half"}, "sparsity is half"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"sparsity": 1}, "sparsity=1 leaves nothing; allow_empty=True"),
        ({"sparsity": 0.5, "structure": "2:4"}, 'structure="2:4" fixes the sparsity; leave sparsity=0.5 out'),
        ({"sparsity": 0.5, "structure": "cube"}, "structure='cube'; expected one of 2:4, 4x4, element, row"),
        ({"sparsity": 0.5, "structure": "0x4"}, "structure='0x4'"),
        ({"sparsity": 0.5, "structure": ["row"]}, r"structure=\['row'\]"),
        ({"structure": "5:4"}, 'structure="5:4" keeps 5 of every 4; expected n:m with n <= m'),
        (
            {"sparsity": 0.5, "structure": "kernel"},
            r'structure="kernel" of shape \(2, 2\); expected \(out, in, ...\): 3',
        ),
        ({"sparsity": 0.5, "criterion": "l3"}, "criterion='l3'; expected one of l1, l2, random"),
        ({"sparsity": 0.5, "criterion": "random", "seed": -1}, "seed=-1; expected an int from 0 on"),
    ],
)
def test_what_cannot_be_asked_for(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        prune.mask(np.ones((2, 2)), **arguments)


def test_errors_name_the_tensor():
    with pytest.raises(ArgumentError, match="tensor 'fc': structure=\"kernel\" of shape"):
        prune.masks({"fc": np.ones((2, 2))}, 0.5, structure="kernel")
    with pytest.raises(ArgumentError, match="tensor 'c': cannot code dtype complex128"):
        prune.masks({"c": np.ones(2, complex)}, 0.5)
    with pytest.raises(ArgumentError, match="structure='cube'"):
        prune.masks({}, 0.5, structure="cube")
    some = {"fine": np.ones(2), "fc": np.array([np.nan, 1]), "b": np.full(3, np.nan)}
    with pytest.raises(
        ArgumentError,
        match=r"cannot remove 4 of 7 structures: 4 hold NaN \(1 in 'fc', 3 in 'b'\), which is never removed",
    ):
        prune.masks(some, 0.6, allow_empty=True)
    with pytest.raises(ArgumentError, match=r"hold NaN \(3 in 'b'\)"):
        prune.masks({"b": some["b"]}, 0.6)
    with pytest.raises(ArgumentError, match="tensor 'fc': row 0, column 0: more than 1 of 2 weights are NaN"):
        prune.masks({"fc": np.full(2, np.nan)}, structure="1:2")


@pytest.mark.parametrize(
    "call",
    [
        lambda: prune.mask(np.ones(4), 10**400),
        lambda: prune.magnitude_mask(np.ones(4), zero_count="3"),
        lambda: prune.magnitude_mask(np.ones(4), zero_count=1.5),
        lambda: prune.masks({3: np.ones(4)}, 0.5),
        lambda: prune.masks([np.ones(4)], 0.5),
    ],
)
def test_arguments_that_are_none(call):
    with pytest.raises(ArgumentError, match="expected"):
        call()


def test_any_name_seeds():
    assert prune.masks({"\ud800": np.ones(4)}, 0.5, criterion="random")["\ud800"].sum() == 2
