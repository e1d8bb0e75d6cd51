"""The choice of a Huffman code: native == plain, optimal among all codes, and safe for any counts."""

from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import weights

import codec
from codec import _native
from codec.dtypes import element_type

TYPES = [(w, k) for w in (1, 2, 4, 8) for k in range(3) if (w, k) != (1, 2)]
SYMBOLS, RAW_BITS, SPLITS = 256, 56, 5


def plain_lengths(counts: list[int], max_length: int) -> list[int]:
    """Package-merge by its definition: a row of (cost, symbols inside), leaves before pairs of the same cost."""
    leaves = sorted((n, i) for i, n in enumerate(counts) if n)
    lengths = [0] * len(counts)
    if len(leaves) < 2:
        return lengths
    row = [(n, (i,)) for n, i in leaves]
    for _ in range(max_length - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[0::2], row[1::2], strict=False)]
        row = sorted([(n, (i,)) for n, i in leaves] + pairs, key=lambda package: package[0])
    for _, inside in row[: 2 * len(leaves) - 2]:
        for symbol in inside:
            lengths[symbol] += 1
    return lengths


def plain_choice(counts, shift, first, or_of_keys, width, kind, max_length=12, bits=0):
    """Every split's code, and the cheapest: (low, zeros, first, lengths, bits of the items)."""
    sign = int(kind == 2)
    bits = bits or 8 * width - sign
    used = [(first + i, int(n)) for i, n in enumerate(counts) if n]
    if not used:
        return 0, bits - 1, 0, b"\0", 0
    if shift == 0:
        or_of_keys = 0
        for key, _ in used:
            or_of_keys |= key
    zeros = (or_of_keys & -or_of_keys).bit_length() - 1 if or_of_keys else bits - 1
    least, most = used[0][0], used[-1][0]
    split = max(zeros, shift)
    while (most >> split - shift) - (least >> split - shift) >= SYMBOLS:
        split += 1
    best, found = inf, None
    for at in range(split, min(split + SPLITS, bits, zeros + RAW_BITS + 1 - sign)):
        base = least >> at - shift
        sums = [0] * ((most >> at - shift) - base + 1)
        for key, n in used:
            sums[(key >> at - shift) - base] += n
        lengths = plain_lengths(sums, max_length)
        coded = sum(n * length for n, length in zip(sums, lengths, strict=True))
        coded += sum(sums) * (at - zeros + sign)
        if coded + 4 * len(sums) < best:
            best, found = coded + 4 * len(sums), (at - zeros, zeros, base, bytes(lengths), coded)
    return found


def native_lengths(counts: list[int], max_length: int) -> list[int]:
    return list(_native.code_lengths(np.array(counts, np.uint64), max_length))


def test_lengths_of_few_symbols_cost_what_the_best_of_all_codes_does() -> None:
    for n in range(1, 6):
        for limit in range(max(1, (n - 1).bit_length()), 6):
            complete = [
                tried
                for tried in product(range(1, limit + 1), repeat=n)
                if sum(2 ** (limit - length) for length in tried) == 2**limit
            ]
            for counts in product((1, 2, 3, 4, 5, 8, 13) if n < 5 else (1, 2, 4, 7), repeat=n):
                lengths = native_lengths(list(counts), limit)
                if n == 1:
                    assert lengths == [0]
                    continue
                best = min(sum(c * length for c, length in zip(counts, tried, strict=True)) for tried in complete)
                assert tuple(lengths) in complete
                assert sum(c * length for c, length in zip(counts, lengths, strict=True)) == best


COUNTS = st.one_of(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=256),
    st.lists(st.integers(0, 3), min_size=1, max_size=256),
    st.lists(st.integers(0, 40).map(lambda n: 2**n - 1), min_size=1, max_size=256),
)


@settings(deadline=None, max_examples=150)
@given(COUNTS, st.integers(8, 15))
def test_native_lengths_are_the_plain_ones(counts: list[int], limit: int) -> None:
    assert native_lengths(counts, limit) == plain_lengths(counts, limit)


def test_lengths_of_counts_near_the_limits() -> None:
    for total in (2**63 - 1, 2**60, 2**60 - 1):
        counts = [total // 3, 1, total // 3, 5, 7]
        assert native_lengths(counts, 15) == plain_lengths(counts, 15)
        assert native_lengths(counts, 3) == plain_lengths(counts, 3)
    assert native_lengths([1] * 256, 8) == [8] * 256
    assert native_lengths([], 8) == []
    for counts, limit in (([2**62, 2**62], 9), ([2**64 - 1, 1], 9), ([1] * 257, 9), ([1] * 3, 1), ([1], 0), ([1], 16)):
        with pytest.raises(ValueError, match="length"):
            native_lengths(counts, limit)


@st.composite
def histograms(draw):
    """A type and a histogram of keys of it: few or many of them, narrow or wide, with zero bits below."""
    width, kind = draw(st.sampled_from(TYPES))
    bits = 8 * width - (kind == 2)
    key = st.integers(0, 2**bits - 1)
    base, low = draw(key), draw(st.integers(0, bits - 1))
    span = draw(st.integers(1, bits))
    keys = draw(
        st.lists(
            st.one_of(
                key.map(lambda n: n >> low << low), st.integers(0, 2**span - 1).map(lambda n: (base + n) % 2**bits)
            ),
            max_size=80,
        )
    )
    least, most = (min(keys), max(keys)) if keys else (0, 0)
    shift = 0
    while (most >> shift) - (least >> shift) >= 1 << 16:
        shift += 1
    first = least >> shift
    counts = np.zeros((most >> shift) - first + 1, np.uint64)
    every = 0
    for n in keys:
        counts[(n >> shift) - first] += np.uint64(draw(st.sampled_from((1, 1, 2, 1000, 2**50))))
        every |= n
    return counts, shift, first, every, width, kind, draw(st.integers(8, 15))


@settings(deadline=None, max_examples=300)
@given(histograms())
def test_native_choice_is_the_plain_one(case: tuple) -> None:
    chosen = _native.choose_code(*case)
    assert chosen == plain_choice(*case)
    _native.HuffmanCoder(case[4], case[5], *chosen[:4])  # proves it complete and fit for its items


def of_items(items: np.ndarray, kind: int, shift: int) -> tuple:
    bits = 8 * items.itemsize
    keys = items ^ items.dtype.type(1 << bits - 1) if kind == 1 else items & items.dtype.type((1 << bits - 1) - 1)
    keys = keys if kind else items
    first = int(keys.min() >> shift)
    counts = np.bincount(((keys >> items.dtype.type(shift)) - items.dtype.type(first)).astype(np.int64)).astype(
        np.uint64
    )
    return counts, shift, first, int(np.bitwise_or.reduce(keys)), items.itemsize, kind, 12


def test_native_choice_is_the_plain_one_on_weights() -> None:
    rng = np.random.default_rng(3)
    tensors = [
        rng.normal(0, 0.05, 20_000).astype(np.float32),
        rng.standard_t(2, 5000).astype(np.float32),
        np.where(rng.random(4000) < 0.9, 0, rng.uniform(-1, 1, 4000)).astype(np.float32),
    ]
    for a in tensors:
        items = a.view(np.uint32)[a != 0]
        assert _native.choose_code(*of_items(items, 2, 15)) == plain_choice(*of_items(items, 2, 15))
        half = a.astype(np.float16).view(np.uint16)
        assert _native.choose_code(*of_items(half, 2, 0)) == plain_choice(*of_items(half, 2, 0))
        small = np.clip(np.rint(a * 300), -127, 127).astype(np.int8).view(np.uint8)
        assert _native.choose_code(*of_items(small, 1, 0)) == plain_choice(*of_items(small, 1, 0))


def test_wide_integers_of_a_narrow_range_cost_what_narrow_ones_do() -> None:
    values = np.random.default_rng(1).integers(3, 14, 4000)
    wide = _native.choose_code(*of_items(values.astype(np.int64).view(np.uint64), 1, 0))
    narrow = _native.choose_code(*of_items(values.astype(np.int16).view(np.uint16), 1, 0))
    assert wide[-1] == narrow[-1] < 4 * len(values)


def test_codes_of_less_than_a_byte() -> None:
    counts = np.zeros(256, np.uint64)
    counts[[1, 3, 6]] = 5, 100, 2
    for bits in (3, 5, 8):
        case = (counts, 0, 0, 0, 1, 0, 12, bits)
        assert _native.choose_code(*case) == plain_choice(*case)
    assert _native.choose_code(np.zeros(256, np.uint64), 0, 0, 0, 1, 0, 12, 3) == (0, 2, 0, b"\0", 0)
    with pytest.raises(ValueError, match="such keys"):
        _native.choose_code(counts, 0, 0, 0, 1, 0, 12, 2)


@pytest.mark.parametrize(
    "case",
    [
        (np.zeros(0, np.uint64), 0, 0, 0, 1, 0, 12),
        (np.zeros(65537, np.uint64), 0, 0, 0, 4, 0, 12),
        (np.ones(4, np.uint64), 0, 0, 0, 3, 0, 12),
        (np.ones(4, np.uint64), 0, 0, 0, 1, 2, 12),
        (np.ones(4, np.uint64), 0, 0, 0, 1, 3, 12),
        (np.ones(4, np.uint64), 0, 0, 0, 1, 0, 7),
        (np.ones(4, np.uint64), 0, 0, 0, 1, 0, 16),
        (np.ones(4, np.uint64), 0, 0, 0, 1, 0, 12, 9),
        (np.ones(4, np.uint64), 8, 0, 0, 1, 0, 12),
        (np.ones(4, np.uint64), 2**32 - 1, 0, 0, 1, 0, 12),
        (np.ones(4, np.uint64), 0, 253, 0, 1, 0, 12),
        (np.ones(4, np.uint64), 0, 2**64 - 1, 0, 8, 0, 12),
        (np.ones(4, np.uint64), 60, 0, 1, 8, 0, 12),
        (np.ones(4, np.uint64), 0, 0, 256, 1, 0, 12),
        (np.full(4, 2**62, np.uint64), 0, 0, 0, 1, 0, 12),
        (np.full(4, 2**64 - 1, np.uint64), 0, 0, 0, 1, 0, 12),
    ],
)
def test_counts_that_no_keys_have_are_refused(case: tuple) -> None:
    with pytest.raises(ValueError, match=r"counts|type"):
        _native.choose_code(*case)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.one_of(st.integers(0, 2**64 - 1), st.just(0), st.integers(0, 9)), min_size=1, max_size=400),
    st.integers(0, 70),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from(TYPES),
    st.integers(8, 15),
    st.integers(0, 70),
)
def test_any_counts_are_safe(counts, shift, first, every, kind, limit, bits) -> None:
    array = np.array(counts, np.uint64)
    for start in (first, first >> 32, first >> 56, 0):
        try:
            chosen = _native.choose_code(array, shift, start, every, *kind, limit, bits)
        except ValueError:
            continue
        _native.HuffmanCoder(*kind, *chosen[:4])
        assert max(chosen[3]) <= limit


@pytest.mark.parametrize(
    ("dtype", "sparsity", "batch", "layout"),
    [
        ("float32", 0.05, None, "dense"), ("float32", 0.5, None, "sell"), ("float32", 0.5, 1, "bitmap"),
        ("float32", 0.9, 1, "sell"), ("float32", 0.9, 128, "sell"), ("bfloat16", 0.2, 1, "bitmap"),
        ("bfloat16", 0.2, None, "dense"), ("int8", 0.1, 4, "dense"), ("int8", 0.8, 1, "sell"),
        ("int64", 0.5, None, "bitmap"), ("int64", 0.97, None, "csr"), ("float32", 0.999, None, "csr"),
    ],
)  # fmt: skip
def test_what_multiplies_fastest(dtype: str, sparsity: float, batch: int | None, layout: str) -> None:
    w = weights((256, 300), element_type(dtype), sparsity)
    assert codec.encode(w, objective="speed", batch=batch).layout == layout
    assert codec.encode(w, layout="csr").to_layout(objective="speed", batch=batch).layout == layout
    assert codec.encode(w[:9], objective="speed", batch=batch).layout == ("csr" if sparsity > 0.95 else "bitmap")


@pytest.mark.parametrize(("r", "c"), [(4, 4), (16, 4), (32, 32)])
def test_blocks_multiply_fastest_as_blocks(r: int, c: int) -> None:
    live = np.random.default_rng(0).random((256 // r, 320 // c)) < 0.2
    w = weights((256, 320), element_type("float32"), 0) * np.kron(live, np.ones((r, c), np.float32))
    p = codec.encode(w, objective="speed", batch=32)
    assert p.layout == "block_offset"
    assert p.params["block"][0] >= 4
    assert codec.encode(w, layout="csr").to_layout(objective="speed", batch=32).layout == "block_offset"
    w[::2] = weights((128, 320), element_type("float32"), 0.8)
    assert codec.encode(w, objective="speed", batch=32).layout == "sell"


def test_two_of_four_multiply_fastest_as_such() -> None:
    w = weights((256, 320), element_type("float32"), 0)
    w = codec.prune.apply_mask(w, codec.prune.mask(w, structure="2:4"))
    assert codec.encode(w, objective="speed", batch=1).layout == "n_m"
    assert codec.encode(w, objective="speed", batch=8).layout == "sell"
    w[0, :4] = 1
    assert codec.encode(w, objective="speed", batch=1).layout == "bitmap"
    codes = codec.encode(w, objective="speed", batch=1, values="codebook", value_bits=4)
    assert codes.layout == "dense"


def test_a_batch_that_is_none_is_refused() -> None:
    for wrong in (0, -1, 1.5, True, "8"):
        with pytest.raises(codec.ArgumentError, match=r"batch=.*; expected an int from 1 on"):
            codec.encode(np.eye(3), objective="speed", batch=wrong)  # type: ignore[arg-type]
