"""Pruning removes exactly what was asked for, smallest first, for every dtype."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec import prune
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError

SPARSITIES = st.floats(0, 1, allow_nan=False)


@st.composite
def weights(draw, names=tuple(BY_NAME)):
    """Any bit pattern of any dtype in any small shape: NaN payloads, infinities, denormals and -0.0 among them."""
    element = BY_NAME[draw(st.sampled_from(names))]
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7))
    few = draw(st.booleans())  # few distinct values make ties
    top = 1 if element.name == "BOOL" else 2 ** (8 * element.width) - 1
    patterns = (
        st.sampled_from([0, 1, element.sign_bit, element.sign_bit | 1, top]) if few else st.integers(0, top)
    ).filter(lambda bits: bits <= top)
    return draw(hnp.arrays(element.unsigned, shape, elements=patterns)).view(element.dtype)


def expected_mask(a, count):
    """The definition, by sorting Python numbers: the first `count` by (magnitude, position) go."""
    order = sorted(range(a.size), key=lambda i: (abs(a.reshape(-1)[i].item()), i))
    mask = np.ones(a.size, dtype=bool)
    mask[order[:count]] = False
    return mask.reshape(a.shape)


def is_nan(a):
    with np.errstate(invalid="ignore"):  # NaNs that signal
        return np.isnan(a) if a.dtype.kind not in "biu" else np.zeros(a.shape, dtype=bool)


@given(weights(), SPARSITIES)
def test_exactly_the_smallest_go(a, sparsity):
    count = round(sparsity * a.size)
    if count > a.size - np.count_nonzero(is_nan(a)):
        with pytest.raises(ArgumentError, match="are NaN, which is never removed"):
            prune.magnitude(a, sparsity)
        return
    mask = prune.magnitude_mask(a, sparsity)
    assert mask.dtype == np.bool_
    assert mask.shape == a.shape
    assert np.count_nonzero(~mask) == count
    numbers = ~is_nan(a)
    assert mask[~numbers].all()
    assert np.array_equal(mask[numbers], expected_mask(a[numbers], count))


@given(weights(), SPARSITIES)
def test_the_copy_keeps_bits_and_the_rest_is_positive_zero(a, sparsity):
    before = a.tobytes()
    try:
        mask = prune.magnitude_mask(a, sparsity)
    except ArgumentError:
        return
    pruned = prune.magnitude(a, sparsity)
    unsigned = f"<u{a.dtype.itemsize}"
    assert pruned.dtype == a.dtype
    assert pruned.shape == a.shape
    assert not np.shares_memory(pruned, a)
    assert a.tobytes() == before
    bits, was = pruned.reshape(-1).view(unsigned), a.reshape(-1).view(unsigned)
    assert np.array_equal(bits, np.where(mask.reshape(-1), was, 0))


@given(weights(), st.data())
def test_a_count_says_the_same_as_a_sparsity(a, data):
    count = data.draw(st.integers(0, a.size - np.count_nonzero(is_nan(a))))
    assert np.count_nonzero(~prune.magnitude_mask(a, zero_count=count)) == count
    if a.size:
        assert np.array_equal(prune.magnitude_mask(a, zero_count=count), prune.magnitude_mask(a, count / a.size))


@given(weights(), st.data())
def test_higher_sparsity_removes_all_that_lower_removes(a, data):
    most = a.size - np.count_nonzero(is_nan(a))
    low, high = sorted(data.draw(st.tuples(st.integers(0, most), st.integers(0, most))))
    assert not (prune.magnitude_mask(a, zero_count=high) & ~prune.magnitude_mask(a, zero_count=low)).any()


@pytest.mark.parametrize(("size", "sparsity", "count"), [(5, 0.5, 2), (7, 0.5, 4), (10, 0.25, 2), (3, 1, 3), (3, 0, 0)])
def test_halves_are_rounded_to_even(size, sparsity, count):
    assert np.count_nonzero(prune.magnitude(np.ones(size, np.float32), sparsity) == 0) == count


def test_ties_go_in_row_major_order_whatever_the_memory_order():
    a = np.ones((2, 3), dtype=np.float32)
    expected = [[False, False, False], [False, True, True]]
    assert prune.magnitude_mask(a, zero_count=4).tolist() == expected
    assert prune.magnitude_mask(np.asfortranarray(a), zero_count=4).tolist() == expected
    assert prune.magnitude(np.asfortranarray(a), zero_count=4).tolist() == [[0, 0, 0], [0, 1, 1]]


def test_zeros_of_either_sign_go_first():
    a = np.array([1e-45, -0.0, 2.0, 0.0], dtype=np.float32)
    assert prune.magnitude_mask(a, 0.5).tolist() == [True, False, True, False]
    assert prune.magnitude(a, 0.5).tobytes() == np.array([1e-45, 0.0, 2.0, 0.0], dtype=np.float32).tobytes()
    assert np.signbit(prune.magnitude(a, 0)[1])


def test_nan_outlasts_infinity():
    a = np.array([np.nan, -np.inf, 1, np.inf], dtype=np.float16)
    assert prune.magnitude_mask(a, 0.75).tolist() == [True, False, False, False]
    with pytest.raises(ArgumentError, match="cannot remove 4 of 4 weights: 1 are NaN"):
        prune.magnitude(a, 1)


def test_the_most_negative_integer_is_the_largest():
    a = np.array([-128, 127, -127], dtype=np.int8)
    assert prune.magnitude(a, zero_count=2).tolist() == [-128, 0, 0]


def test_big_endian_and_plain_lists_work():
    assert prune.magnitude(np.array([3, -1, 2], dtype=">f4"), zero_count=1).tolist() == [3, 0, 2]
    assert prune.magnitude([0.5, -0.1], 0.5).tolist() == [0.5, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either sparsity or zero_count"),
        ({"sparsity": 0.5, "zero_count": 1}, "give either sparsity or zero_count"),
        ({"sparsity": 1.5}, "sparsity is 1.5; expected a share from 0 to 1"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"zero_count": 4}, "zero_count is 4; expected 0 to 3"),
        ({"zero_count": -1}, "zero_count is -1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        prune.magnitude(np.ones(3), **arguments)


def test_dtypes_and_masks_that_cannot_be():
    with pytest.raises(ArgumentError, match="cannot code dtype complex128"):
        prune.magnitude(np.ones(3, dtype=complex), 0.5)
    with pytest.raises(ArgumentError, match=r"the mask is int64 of shape \(3,\); expected bool of shape \(3,\)"):
        prune.apply_mask(np.ones(3), np.ones(3, dtype=np.int64))
    with pytest.raises(ArgumentError, match=r"bool of shape \(2,\); expected bool of shape \(3,\)"):
        prune.apply_mask(np.ones(3), np.ones(2, dtype=bool))
