"""Statistics are what plain loops count, on every matrix and cut; expected ones are what random tensors have."""

import numpy as np
import pytest
from strategies import seeded

import codec
from codec.dtypes import element_type
from codec.geometry import Grid
from codec.layouts.counts import BLOCKS, CODES, GROUPS, RUNS, Counts

ASKED, SIZES = ((3, 5), (7, 100), (1, 1), ("all", 3)), (3, 64)
SHAPES = [
    (1, 1),
    (3, 5),
    (0, 4),
    (65, 130),
    (17, 4096),
    (300, 100),
    (40_000, 30),
    (3, 600_000),
    (70, 9000),
    (5, 20_000),
    (2000, 1),
]


def segments(stored: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """The segments of a matrix."""
    return [stored[p.row : p.row + p.rows, p.col : p.col + p.cols] for p in grid.places()]


def padded(a: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """With rows and columns of False up to multiples."""
    return np.pad(a, ((0, -a.shape[0] % rows), (0, -a.shape[1] % cols)))


def gaps(flat: np.ndarray) -> np.ndarray:
    """Elements that are not set before each that is."""
    return np.diff(np.flatnonzero(flat), prepend=-1) - 1


def lengths(parts: list[np.ndarray]) -> np.ndarray:
    """As statistics hold them."""
    every = np.concatenate([np.zeros(0, np.int64), *parts])
    return np.bincount(np.minimum(every, RUNS - 1), minlength=RUNS)


def runs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Runs of zeros and of others, short and very long."""
    rng = np.random.default_rng(seed)
    a, at = np.ones(int(np.prod(shape)), np.int8), 0
    while at < a.size:
        zeros, others = (
            int(rng.integers(1, 12)) if rng.random() < 0.6 else int(rng.exponential(60_000)) for _ in range(2)
        )
        a[at : at + zeros] = 0
        at += zeros + others
    return a.reshape(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97, 1.0, None])
def test_counts_are_those_of_plain_loops(shape: tuple[int, ...], sparsity: float | None) -> None:
    dtype = (
        ("float32", "int8", "bfloat16", "float8_e5m2", "float64")[SHAPES.index(shape) % 5]
        if sparsity is not None
        else "int8"
    )
    element = element_type(dtype)
    a = seeded(shape, element, sparsity, 5) if sparsity is not None else runs(shape, 6)
    stats = codec.tensor_stats(a, block=ASKED, group=SIZES, threads=2)
    stored = (a.view(element.unsigned) & element.unsigned.type(element.nonzero_bits("value"))) != 0
    counts, parts = stats.counts, segments(stored, stats.grid)
    before = [gaps(part.reshape(-1)) for part in parts]
    zeros_before = [gaps(~part.reshape(-1)) for part in parts]
    assert counts.nnz == stored.sum()
    assert np.array_equal(stats.row_counts, stored.sum(axis=1))
    assert np.array_equal(stats.col_counts, stored.sum(axis=0))
    assert np.array_equal(counts.parts, [part.sum() for part in parts])
    for found, long, expected in (
        (counts.gap_lengths, counts.long_gaps, before),
        (counts.zero_gap_lengths, counts.long_zero_gaps, zeros_before),
    ):
        assert np.array_equal(found, lengths(expected))
        assert sorted(long) == sorted(g for part in expected for g in part[part >= RUNS - 1])
    assert np.array_equal(stats.runs[1:], lengths(before)[1:])
    for table, expected, less in (
        (counts.escapes, before, 1),
        (counts.fillers, before, 0),
        (counts.zero_escapes, zeros_before, 1),
    ):
        assert table.tolist() == [
            [int((part // (2**k - less)).sum()) for k in range(1, CODES + 1)] for part in expected
        ]
    items = np.zeros(256, np.int64)
    for part in before:
        np.add.at(items, part % 255, 1)
        items[255] += (part // 255).sum()
    assert np.array_equal(counts.gaps, items)
    for r, c in (*BLOCKS, *ASKED):
        whole = [stored] if r == "all" and stored.size else [] if r == "all" else parts
        squares = [(padded(p, p.shape[0] if r == "all" else r, c), p.shape[0] if r == "all" else r) for p in whole]
        live = sum(int(p.reshape(len(p) // h, h, -1, c).any(axis=(1, 3)).sum()) for p, h in squares)
        assert counts.blocks[r, c] == live
        if r != "all":
            live = (padded(part, r, c).reshape(-(-len(part) // r), r, -1, c).any(axis=(1, 3)) for part in parts)
            spread = (np.kron(which, np.ones((r, c), bool)) for which in live)
            inside = sum(int(all_[: len(p), : p.shape[1]].sum()) for all_, p in zip(spread, parts, strict=True))
            assert counts.block_elements[r, c] == inside
    for m in (*GROUPS, *SIZES):
        groups = np.concatenate([np.zeros(0, np.int64), *(padded(p, 1, m).reshape(-1, m).sum(axis=1) for p in parts)])
        assert np.array_equal(counts.groups[m], np.bincount(groups, minlength=m + 1))
    assert stats.panel_counts.sum() == stats.nnz
    assert len(stats.panel_density) == len(stats.panel_counts)
    assert (stats.panel_density <= 1).all()
    if element.is_float:
        with np.errstate(invalid="ignore"):
            assert stats.nans == np.isnan(a.astype(np.float64)).sum()
    again = codec.encode(a, layout="csr").to_layout("huffman")
    assert codec.stats.stats_of_spans(again.spans, 2).counts.gap_lengths.tobytes() == counts.gap_lengths.tobytes()


def test_what_is_read_off_the_counts() -> None:
    a = np.zeros((4, 3, 2, 2), np.float32)
    a[0], a[1, 0] = 1.5, -2.0
    a[0, 2] = 0
    stats = codec.tensor_stats(a)
    assert (stats.nnz, stats.dead_rows, stats.dead_cols, stats.dead_channels) == (12, 2, 4, 1)
    assert stats.row_density.tolist() == [8 / 12, 4 / 12, 0, 0]
    assert stats.col_density.max() == 0.5
    assert stats.constant_low_bits == 22
    assert stats.value_entropy == pytest.approx(np.log2(3) - 2 / 3)
    assert codec.tensor_stats(np.array([np.nan, -0.0, np.inf, 0], np.float16)).nans == 1
    assert codec.tensor_stats(np.zeros((0, 3), np.int16)).value_entropy == 0


def test_stats_hold_what_was_asked_for() -> None:
    a = np.eye(10, dtype=np.float32)
    stats = codec.tensor_stats(a, block=(3, 5), group=6)
    assert (stats.block, stats.group) == (((3, 5),), (6,))
    assert (3, 5) not in codec.tensor_stats(a).counts.blocks
    for wrong in ((0, 1), (1.5, 2), "ab", ((1, 2, 3),), ("some", 2), tuple((i, 1) for i in range(20, 40))):
        with pytest.raises(codec.ArgumentError, match="expected"):
            codec.tensor_stats(a, block=wrong)
    for wrong in (0, 65, "ab", (1.5,)):
        with pytest.raises(codec.ArgumentError, match="expected an int from 1 to 64"):
            codec.tensor_stats(a, group=wrong)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.6, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize("shape", [(700, 1000), (2, 600_000)], ids=str)
def test_expected_counts_are_those_of_random_tensors(shape: tuple[int, int], sparsity: float) -> None:
    rng = np.random.default_rng(1)
    a = np.ones(shape, np.uint8)
    a.reshape(-1)[rng.choice(a.size, round(sparsity * a.size), replace=False)] = 0
    found = codec.tensor_stats(a, block=(3, 7), group=5)
    expected = Counts.expected(found.grid, sparsity)

    def close(one: object, other: object) -> None:
        x, y = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.all(np.abs(x - y) <= 6 * np.sqrt(np.maximum(x, y)) + 2), (one, other)

    assert expected.nnz == found.nnz
    close(expected.parts, found.counts.parts)
    assert expected.parts.sum() == found.nnz
    for name in ("gap_lengths", "zero_gap_lengths"):
        close(getattr(expected, name), getattr(found.counts, name))
        assert abs(int(getattr(expected, name).sum()) - int(getattr(found.counts, name).sum())) <= 1
    assert abs(len(expected.long_gaps) - len(found.counts.long_gaps)) <= 8
    for name in ("escapes", "fillers", "zero_escapes") if sparsity < 0.99 else ():  # a few long gaps scatter too much
        x, y = getattr(expected, name)[:, 2:8].astype(float), getattr(found.counts, name)[:, 2:8].astype(float)
        assert np.all(np.abs(x - y) <= 0.05 * y + 6 * np.sqrt(y) + 2)
    for block in (*BLOCKS, (3, 7)):
        close(expected.blocks[block], found.counts.blocks[block])
        close(expected.block_elements[block], found.counts.block_elements[block])
    for m in (*GROUPS, 5):
        close(expected.groups[m], found.counts.groups[m])
    close(expected.mask_bytes, found.counts.mask_bytes)
