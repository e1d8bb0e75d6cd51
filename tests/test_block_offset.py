"""block_offset: any shape of blocks on any matrix, sizes from the counts, the shape that is chosen, what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import check, x_for
from strategies import seeded, under_rule

import codec
from codec.dtypes import element_type
from codec.layouts.block_offset import BlockOffset
from codec.statistics import BLOCKS, Need

SIDES = st.one_of(st.integers(1, 9), st.sampled_from([16, 63, 64, 65, 100, 20_000, 1 << 40]))
SHAPES = st.sampled_from([(1, 1), (5, 13), (64, 64), (37, 130), (200, 65), (3, 20_000), (2, 600_000), (0, 7), (7, 0)])


def blocky(shape: tuple[int, int], r: int, c: int, share: float, seed: int = 0) -> np.ndarray:
    """Blocks of which a share holds anything; a few of their elements are zeros."""
    rng = np.random.default_rng(seed)
    live = rng.random((-(-shape[0] // r), -(-shape[1] // c))) < share
    a = rng.standard_normal(shape) * np.kron(live, np.ones((r, c)))[: shape[0], : shape[1]]
    a[rng.random(shape) < 0.1] = 0
    return np.where(a == 0, 0, a).astype(np.float32)


@given(SHAPES, st.one_of(SIDES, st.just("all")), SIDES, st.sampled_from([0.0, 0.5, 0.97, 1.0]), st.data())
@settings(max_examples=80, deadline=None)
def test_any_block(shape: tuple[int, int], r: Any, c: int, sparsity: float, data: st.DataObject) -> None:
    element = element_type(data.draw(st.sampled_from(["float32", "int8", "bfloat16", "float64"])))
    a = seeded(shape, element, sparsity, data.draw(st.integers(0, 99)))
    options: dict[str, Any] = {"layout": "block_offset", "block": (r, c), "entropy": "none"}
    p = codec.encode(a, **options)
    expected = under_rule(a, "value", element)
    assert codec.decode(codec.dumps(p)).tobytes() == expected.tobytes()
    stats = codec.tensor_stats(a, block=(r, c))
    sizes = {"shape": shape, "dtype": a.dtype, "block": (r, c), "entropy": "none"}
    assert codec.encoded_nbytes("block_offset", **sizes, stats=stats) == p.nbytes
    assert codec.dumps(codec.encode(a, layout="bitmap").to_layout(**options)) == codec.dumps(p)
    assert p.to_layout("csr").to_dense().tobytes() == expected.tobytes()
    if a.size:
        row = shape[0] // 2
        assert codec.decode(p, rows=(row, row + 1)).tobytes() == expected[row : row + 1].tobytes()


BLOCK_SIDES = st.sampled_from([1, 2, 3, 4, 8, 16, 32])


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    st.tuples(BLOCK_SIDES, BLOCK_SIDES),
    st.integers(0, 3),
    st.sampled_from([(), (1,), (2,), (5,), (8,), (33,)]),
    st.sampled_from(["f4", "bfloat16", "i1", "f8"]),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_products_of_whole_blocks(
    many: tuple[int, int], block: tuple[int, int], over: int, batch: tuple[int, ...], dtype: str, seed: int
) -> None:
    """Blocks that are all equally wide go to kernels as they stand; the lowest may be clipped, rows in pieces."""
    r, c = block
    shape = (many[0] * r + over, many[1] * c * (1 if seed % 9 else 2048))
    element = element_type(dtype)
    w = (blocky(shape, r, c, 0.4, seed) * 9).astype(element.dtype)
    p = codec.encode(w, layout="block_offset", block=(r, c))
    x, left = x_for(element, (shape[1], *batch), seed), x_for(element, (*batch, shape[0]), seed)
    check(p @ x, w, x)
    check((left @ p).T, w.T, left.T)
    assert p.to_layout("csr").to_dense().tobytes() == w.tobytes()
    if element.is_float:
        shared = codec.encode(w, layout="block_offset", block=(r, c), values="codebook", value_bits=3, codebook_rows=r)
        check(shared @ x, shared.to_dense(), x)
        x[0] = np.inf
        with np.errstate(invalid="ignore"):
            assert np.array_equal(np.isfinite(p @ x).all(axis=None), not w[:, 0].any())


@pytest.mark.parametrize("block", [(3, 5), (8, 1), (1, 8), (64, 64), (130, 3), ("all", 7)], ids=str)
def test_products(block: tuple[Any, int]) -> None:
    w = blocky((300, 410), 4, 4, 0.2)
    p = codec.encode(w, layout="block_offset", block=block)
    rng = np.random.default_rng(1)
    for batch in ((), (1,), (19,)):
        x = rng.standard_normal((410, *batch)).astype(np.float32)
        left = rng.standard_normal((*batch, 300)).astype(np.float32)
        check(p @ x, w, x)
        check((left @ p).T, w.T, left.T)


def test_the_default_is_the_smallest() -> None:
    for number, (r, c) in enumerate([*BLOCKS, (1, 320), (128, 1)]):
        a = blocky((128, 320), r, c, 0.15, number)
        a[a == 0] = np.where(np.kron(_live(a, r, c), np.ones((r, c)))[: len(a), : a.shape[1]], 1, 0)[a == 0]
        p = codec.encode(a, layout="block_offset", entropy="none")
        every = [*BLOCKS, (1, 320), ("all", 1)]
        sizes = [codec.encode(a, layout="block_offset", block=block, entropy="none").nbytes for block in every]
        assert p.nbytes == min(sizes)
        assert codec.loads(codec.dumps(p)).params == p.params


def _live(a: np.ndarray, r: int, c: int) -> np.ndarray:
    whole = np.pad(a != 0, ((0, -a.shape[0] % r), (0, -a.shape[1] % c)))
    return np.asarray(whole.reshape(len(whole) // r, r, -1, c).any(axis=(1, 3)))


def test_auto_takes_blocks_where_they_are() -> None:
    a = blocky((512, 512), 16, 16, 0.1)
    a[a == 0] = np.where(np.kron(_live(a, 16, 16), np.ones((16, 16))), 1, 0)[a == 0]
    p = codec.encode(a, objective="memory")
    assert (p.layout, p.params["block"]) == ("block_offset", (16, 16))


def test_zeros_that_are_kept_make_blocks() -> None:
    a = np.zeros((4, 8), np.float32)
    a[0, 0] = 1
    mask = np.zeros((4, 8), bool)
    mask[0, :2] = mask[3, 7] = True
    for block, values in (((2, 2), 8), (("all", 1), 12)):
        p = codec.encode(a, mask=mask, layout="block_offset", block=block, entropy="none")
        assert (p.nnz, p.parts["values"]) == (3, 4 * values)
        assert codec.decode(codec.dumps(p)).tobytes() == a.tobytes()
        assert p.to_layout("csr").nnz == 1


def test_what_it_refuses() -> None:
    a = np.ones((4, 600), np.int8)
    for block in (5, "4x4", (4,), (0, 4), (4, 0), (4, "all"), (True, 4), (1.5, 2), (4, 4, 4), ("some", 1)):
        with pytest.raises(codec.ArgumentError, match="expected"):
            codec.encode(a, layout="block_offset", block=block)
    for block in ((4, 1), ("all", 2)):
        with pytest.raises(codec.ArgumentError, match=r"index=8 bits for .* blocks side by side; expected at least 16"):
            codec.encode(a, layout="block_offset", block=block, index=8)
    assert codec.encode(a, layout="block_offset", index=8).params["index"] == 8
    with pytest.raises(codec.ArgumentError, match="needs stats=tensor_stats"):
        codec.encoded_nbytes(
            "block_offset", a.shape, a.dtype, stats=codec.tensor_stats(a), entropy="none", block=(3, 5)
        )
    assert BlockOffset(block=(3, 5)).size_needs == {Need("blocks", (3, 5)), Need("rows")}


def test_columns_of_a_matrix_of_many_segments_across() -> None:
    """A header may speak of more columns than 32 bits count."""
    a = seeded((3, 1_200_000), element_type("int8"), 0.9999)
    p = codec.encode(a, layout="block_offset", block=("all", 1 << 40))
    assert p.params["block"] == ("all", 133_376)  # no wider than a segment
    assert p.to_dense().tobytes() == a.tobytes()
    for block in (("all", 7), (2, 1000)):
        assert codec.encode(a, layout="block_offset", block=block).to_dense().tobytes() == a.tobytes()
