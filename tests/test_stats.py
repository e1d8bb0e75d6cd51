"""Statistics are what plain loops count, on every matrix and cut; expected ones are what random tensors have."""

import numpy as np
import pytest
from strategies import seeded

import codec
from codec import _native
from codec.dtypes import element_type
from codec.encoding.sources import FrameSource
from codec.encoding.stats import stats_of
from codec.matrix import Grid
from codec.statistics import BLOCKS, CODES, GROUPS, RUNS, STATISTICS, Counts, Need, Run, count, count_all, stats_needs
from codec.statistics.base import Statistic

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


def whole(lengths: np.ndarray) -> np.ndarray:
    """Gaps by length, with the lengths above the longest."""
    return np.pad(lengths, (0, RUNS - len(lengths)))


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
    assert np.array_equal(stats.row_counts, stored.sum(axis=1) if a.size else [])
    assert np.array_equal(stats.col_counts, stored.sum(axis=0) if a.size else [])
    assert np.array_equal(counts.parts, [part.sum() for part in parts])
    for found, long, expected in (
        (counts.gap_lengths, counts.long_gaps, before),
        (counts.zero_gap_lengths, counts.long_zero_gaps, zeros_before),
    ):
        assert np.array_equal(whole(found), lengths(expected))
        assert sorted(long) == sorted(g for part in expected for g in part[part >= RUNS - 1])
    assert np.array_equal(whole(stats.runs)[1:], lengths(before)[1:])
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
        pieces = [stored] if r == "all" and stored.size else [] if r == "all" else parts
        squares = [(padded(p, p.shape[0] if r == "all" else r, c), p.shape[0] if r == "all" else r) for p in pieces]
        live = sum(int(p.reshape(len(p) // h, h, -1, c).any(axis=(1, 3)).sum()) for p, h in squares)
        assert counts.blocks[r, c] == live
        if r != "all":
            live = (padded(part, r, c).reshape(-(-len(part) // r), r, -1, c).any(axis=(1, 3)) for part in parts)
            spread = (np.kron(which, np.ones((r, c), bool)) for which in live)
            inside = [int(all_[: len(p), : p.shape[1]].sum()) for all_, p in zip(spread, parts, strict=True)]
            assert counts.block_elements[r, c] == sum(inside)
            assert counts.block_parts[r, c][:, 1].tolist() == inside
            assert counts.block_parts[r, c][:, 0].sum() == counts.blocks[r, c]
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
    packed = stats_of(FrameSource(again.spans, 2)).counts
    of = {name: statistic for statistic in STATISTICS.values() for name in statistic.gives if name != "keys"}
    for name in of:
        one, other = getattr(packed, name), getattr(counts, name)
        for key in one if isinstance(one, dict) else ():
            assert np.array_equal(one[key], other[key])
        assert isinstance(one, dict) or np.array_equal(one, other)
    assert (packed.keys.shift, packed.keys.first) == (counts.keys.shift, counts.keys.first)
    assert np.array_equal(packed.keys.counts, counts.keys.counts)


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
    for wrong in ((0, 1), (1.5, 2), "ab", ((1, 2, 3),), ("some", 2)):
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
        close(whole(getattr(expected, name)), whole(getattr(found.counts, name)))
        assert abs(int(getattr(expected, name).sum()) - int(getattr(found.counts, name).sum())) <= 1
    assert abs(len(expected.long_gaps) - len(found.counts.long_gaps)) <= 8
    for name in ("escapes", "fillers", "zero_escapes") if sparsity < 0.99 else ():  # a few long gaps scatter too much
        x, y = getattr(expected, name)[:, 2:8].astype(float), getattr(found.counts, name)[:, 2:8].astype(float)
        assert np.all(np.abs(x - y) <= 0.05 * y + 6 * np.sqrt(y) + 2)
    for block in (*BLOCKS, (3, 7)):
        close(expected.blocks[block], found.counts.blocks[block])
        close(expected.block_elements[block], found.counts.block_elements[block])
        close(expected.block_parts[block][:, 0], found.counts.block_parts[block][:, 0])
        assert expected.block_parts[block].sum(axis=0).tolist() == [
            expected.blocks[block],
            expected.block_elements[block],
        ]
    for m in (*GROUPS, 5):
        close(expected.groups[m], found.counts.groups[m])
    close(expected.mask_bytes, found.counts.mask_bytes)


def counter(a: np.ndarray, threads: int = 1) -> Run:
    """What counts a matrix of unsigned integers, of which those that are not 0 are stored."""

    def run(requests: list, grid: Grid) -> tuple:
        every = 256**a.itemsize - 1
        return _native.count(
            a.reshape(-1).view(np.uint8), None, grid.rows, grid.cols, grid.segment_rows, grid.segment_cols, a.itemsize,
            every, 0, requests, threads,
        )  # fmt: skip

    return run


def test_only_what_is_needed_is_counted() -> None:
    a = np.arange(60, dtype=np.uint16).reshape(6, 10)
    run, grid = counter(a), Grid(6, 10, 4, 10)
    found = count(run, [Need("gaps"), Need("blocks", (3, 4)), Need("groups", 8)], element_type("uint16"), grid)
    given = {name for need in found.needs for name in STATISTICS[need.name].gives}
    assert found.nnz == 59
    for name in (name for statistic in STATISTICS.values() for name in statistic.gives):
        assert (getattr(found, name) is not None) == (name in given), name
    assert list(found.blocks) == [(3, 4)]
    assert list(found.groups) == [8]
    assert found.parts.tolist() == [39, 20]
    with pytest.raises(codec.ArgumentError, match="no statistic 'joy'"):
        count(run, [Need("joy")], element_type("uint16"), grid)
    with pytest.raises(AttributeError, match="no statistic gives 'joy'"):
        found.joy  # noqa: B018
    assert {getattr(Counts(3), name) for statistic in STATISTICS.values() for name in statistic.gives} == {None}


def test_counts_are_for_the_grid_that_is_given() -> None:
    rng = np.random.default_rng(7)
    a = (rng.random((96, 130)) < 0.2).astype(np.uint8)
    for grid in (Grid(96, 130, 96, 130), Grid(96, 130, 5, 130), Grid(96, 130, 1, 64), Grid(96, 130, 1, 50)):
        run = counter(a, threads=2)
        found = count(run, stats_needs(((3, 7),)), element_type("uint8"), grid)
        parts = segments(a != 0, grid)
        assert found.parts.tolist() == [int(part.sum()) for part in parts]
        assert found.cols.tolist() == a.sum(axis=0).tolist()
        assert found.rows.tolist() == [int(n) for part in parts for n in part.sum(axis=1)]
        assert np.array_equal(whole(found.gap_lengths), lengths([gaps(part.reshape(-1)) for part in parts]))
        assert found.panels.sum() == found.nnz
        for r, c in ((4, 4), (3, 7)):
            live = [padded(p, r, c).reshape(-(-len(p) // r), r, -1, c).any(axis=(1, 3)).sum() for p in parts]
            assert found.block_parts[r, c][:, 0].tolist() == live


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "float16", "int32", "uint32", "float32", "int64"]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_keys_are_counted_as_finely_as_their_range_allows(dtype: str, threads: int) -> None:
    element, rng = element_type(dtype), np.random.default_rng(8)
    width, kind = element.width, element.kind
    bits = 8 * width - (kind == "float")
    for low, span in ((3, 11), (0, 1), (2 ** (bits - 1) - 300, 600), (5, 2 ** (bits - 1)), (2**bits - 9, 9)):
        # Rows that reach further and further, so that bins have to widen while they fill.
        reach = np.linspace(1, span, 40).reshape(-1, 1)
        above = (rng.random((40, 500)) * reach).astype(np.uint64)
        keys = np.minimum(np.uint64(max(0, low)) + above, np.uint64(2**bits - 1))
        items = keys ^ np.uint64(1 << 8 * width - 1) if kind == "signed" else keys
        a = items.astype(element.unsigned)
        found = count(counter(a, threads), [Need("keys")], element, Grid(40, 500, 1, 500)).keys
        stored = keys[a != 0]
        if not len(stored):
            assert found.counts.sum() == 0
            continue
        shift = np.uint64(bits - 16 if kind == "float" and width > 2 else 0)
        while (stored.max() >> shift) - (stored.min() >> shift) >= 1 << 16:
            shift += np.uint64(1)
        expected = np.bincount(((stored >> shift) - (stored.min() >> shift)).astype(np.int64))
        assert (found.shift, found.first) == (shift, stored.min() >> shift)
        assert found.counts.tolist() == expected.tolist()
        assert found.or_of_keys == np.bitwise_or.reduce(stored)


@pytest.mark.parametrize(
    "shape", [(0, 1 << 40), (1 << 40, 0), (1, 0), (0, 1), (0,), (0, 3, 1 << 35), (3, 0, 2)], ids=str
)
def test_an_empty_tensor_asks_for_no_memory(shape: tuple[int, ...]) -> None:
    stats = codec.tensor_stats(np.zeros(shape, np.float32), block=((3, 2), ("all", 2)), group=5)
    assert (stats.nnz, stats.nans, stats.sparsity, stats.value_entropy, stats.constant_low_bits) == (0, 0, 0, 0, 31)
    assert (stats.dead_rows, stats.dead_cols, stats.dead_channels, stats.runs.sum()) == (0, 0, 0, 0)
    for places in (stats.row_counts, stats.col_counts, stats.panel_counts, stats.row_density, stats.panel_density):
        assert len(places) == 0
    expected = Counts.expected(stats.grid, 0.5)
    of = {name: statistic for statistic in STATISTICS.values() for name in statistic.gives if name != "keys"}
    for name in of:
        one, other = getattr(stats.counts, name), getattr(expected, name)
        if other is None:
            assert type(of[name]).expected is Statistic.expected
        elif isinstance(one, dict):
            assert all(np.array_equal(one[key], other[key]) for key in one)
        else:
            assert np.array_equal(one, other), name


def test_numpy_integers_are_integers() -> None:
    a = np.eye(10, dtype=np.float32)
    two, three, six = np.int64(2), np.uint8(3), np.int32(6)
    stats = codec.tensor_stats(a, block=(two, three), group=six)
    assert (stats.block, stats.group) == (((2, 3),), (6,))
    assert stats.counts.blocks[2, 3] == codec.tensor_stats(a, block=(2, 3)).counts.blocks[2, 3]


@pytest.mark.parametrize(
    ("request_", "grid"),
    [
        (("joy", 0, 0), (4, 4, 4, 4)),
        (("groups", 0, 0), (4, 4, 4, 4)),
        (("groups", 65, 0), (4, 4, 4, 4)),
        (("blocks", 0, 1), (4, 4, 4, 4)),
        (("blocks", 1, 1 << 32), (4, 4, 4, 4)),
        (("keys", 3, 0), (4, 4, 4, 4)),
        (("rows", 0, 0), (4, 4, 0, 4)),
        (("rows", 0, 0), (4, 4, 4, 0)),
        (("rows", 0, 0), (4, 4, 2, 2)),
        (("rows", 0, 0), (1 << 40, 1 << 40, 1, 1 << 20)),
        (("rows", 0, 0), (1 << 33, 1, (1 << 32) - 1, (1 << 32) - 1)),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_refused(request_: tuple, grid: tuple) -> None:
    with pytest.raises(ValueError, match="statistic"):
        _native.statistic_words(*request_, *grid)
    with pytest.raises(ValueError, match="statistic"):
        _native.count(np.zeros(16, np.uint8), None, *grid, 1, 255, 0, [(*request_, np.zeros(9, np.uint64))], 1)


def test_words_and_elements_of_another_size_are_refused() -> None:
    def words(n: int) -> list:
        return [("parts", 0, 0, np.zeros(n, np.uint64))]

    for data, grid, width, out in (
        (16, (4, 4, 4, 4), 1, 2),
        (16, (4, 4, 4, 4), 1, 0),
        (15, (4, 4, 4, 4), 1, 1),
        (16, (4, 4, 4, 4), 3, 1),
        (0, (1 << 32, 1 << 32, 1, 1 << 31), 1, 0),
    ):
        with pytest.raises(ValueError, match=r"words|size|statistic"):
            _native.count(np.zeros(data, np.uint8), None, *grid, width, 255, 0, words(out), 1)
    with pytest.raises(ValueError, match="keep"):
        _native.count(np.zeros(16, np.uint8), np.zeros(3, np.uint8), 4, 4, 4, 4, 1, 255, 0, words(1), 1)


@pytest.mark.parametrize("layout", ["csr", "bitmap", "huffman", "block_offset", "dense"])
def test_a_packed_tensor_is_counted_in_any_grid(layout: str) -> None:
    rng = np.random.default_rng(9)
    a = (rng.random((700, 1030)) < 0.2).astype(np.uint8)
    spans = codec.encode(a, layout=layout).spans
    element, needs = element_type("uint8"), stats_needs(((3, 7),), (5,))
    for grid in (spans.head.grid, Grid(700, 1030, 41, 1030), Grid(700, 1030, 700, 1030), Grid(700, 1030, 1, 200)):

        def run(requests: list, grid: Grid) -> tuple:
            view, _, _ = next(iter(spans.views(0, spans.head.grid.segments, 2)))
            half = grid.segments // 2
            for first, last in ((0, half), (half, half), (half, grid.segments)):
                result = view.count(first, last, grid.segment_rows, grid.segment_cols, requests, 2)
                assert result[0] == 0
            return result, 0

        found, expected = count(run, needs, element, grid), count(counter(a, 2), needs, element, grid)
        for name in (name for statistic in STATISTICS.values() for name in statistic.gives if name != "keys"):
            one, other = getattr(found, name), getattr(expected, name)
            for key in one if isinstance(one, dict) else ():
                assert np.array_equal(one[key], other[key]), (name, key)
            assert isinstance(one, dict) or np.array_equal(one, other), name
        assert found.keys.counts.tolist() == expected.keys.counts.tolist()


def test_a_view_counts_only_what_it_holds() -> None:
    spans = codec.encode(np.eye(2000, dtype=np.float32), layout="bitmap").spans
    view, _, last = next(iter(spans.views(0, spans.head.grid.segments, 1)))
    for first, end, rows, cols in ((0, last + 1, 0, 0), (2, 1, 0, 0), (0, 2001, 1, 2000), (0, 1, 5, 0), (0, 1, 2, 300)):
        with pytest.raises(ValueError, match=r"segments|grid"):
            view.count(first, end, rows or spans.head.grid.segment_rows, cols or 2000 * (rows == 0), [], 1)


def test_what_follows_from_other_segments_is_not_counted_again() -> None:
    rng, element, needs = np.random.default_rng(10), element_type("uint8"), stats_needs(((3, 7), ("all", 2)), (5,))
    a = (rng.random((200, 90)) < 0.3).astype(np.uint8)
    cuts = [Grid(200, 90, *cut) for cut in ((16, 90), (32, 90), (24, 90), (48, 90), (200, 90), (7, 90), (1, 40))]
    fresh = {grid: count(counter(a), needs, element, grid) for grid in cuts}
    passes: list = []

    def run(requests: list, grid: Grid) -> tuple:
        passes.append((grid, [request[0] for request in requests]))
        return counter(a)(requests, grid)

    for known in cuts:
        for grid in cuts:
            found = count(run, needs, element, grid, [fresh[known]])
            for name in (name for statistic in STATISTICS.values() for name in statistic.gives if name != "keys"):
                one, other = getattr(found, name), getattr(fresh[grid], name)
                for key in one if isinstance(one, dict) else ():
                    assert np.array_equal(one[key], other[key]), (known, grid, name, key)
                assert isinstance(one, dict) or np.array_equal(one, other), (known, grid, name)
    assert not any("keys" in names or "columns" in names for _, names in passes)
    passes.clear()
    taller = [Need("lane_bytes"), Need("blocks", (4, 4)), Need("blocks", (8, 3)), Need("rows"), Need("keys")]
    found = count_all(run, {cuts[0]: [Need("gaps")], cuts[1]: taller, cuts[2]: taller}, element)
    assert [grid for grid, _ in passes] == [cuts[0], cuts[2]]
    assert found[cuts[1]].blocks[8, 3] == count(counter(a), taller, element, cuts[1]).blocks[8, 3]
