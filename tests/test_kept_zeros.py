"""Zeros that ``mask=`` keeps, or that a sparse matrix stores: nnz is the number of kept positions in every layout."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LAYOUT_PARAMS, entropies, layout_id, tensors, under_rule

import codec
from codec.dtypes import element_type
from codec.encoding.pack import Made, pack_array
from codec.frame import Head, restated
from codec.layouts import make_layout
from codec.packed import PackedTensor

# Layouts whose streams do not tell a kept zero from those that fill up rows, blocks and slices.
FILLED = ("dense", "block_offset", "sell")


def kept_zeros(a: np.ndarray, zero: str, share: float, seed: int) -> np.ndarray:
    """A mask of all that is not zero, and of some zeros."""
    element = element_type(a.dtype)
    stored = under_rule(a, zero, element).reshape(-1).view(element.unsigned) != 0
    return (stored | (np.random.default_rng(seed).random(a.size) < share)).reshape(a.shape)


@settings(deadline=None, max_examples=60)
@given(tensors(), st.sampled_from(["value", "bits"]), st.sampled_from([0.05, 0.5, 1.0]), st.integers(0, 99))
def test_nnz_is_the_number_of_kept_positions_in_every_layout(a: np.ndarray, zero: str, share: float, seed: int) -> None:
    mask = kept_zeros(a, zero, share, seed)
    wanted = int(mask.sum())
    stats = codec.tensor_stats(a, zero=zero, mask=mask)
    assert stats.nnz == wanted
    expected = np.where(mask, a, np.zeros((), a.dtype))
    for layout, params in LAYOUT_PARAMS:
        entropy = entropies(layout)[-1 if seed % 2 else 0]
        with suppress(codec.ArgumentError) if zero_filler(layout, params) else nullcontext():
            p = codec.encode(a, layout=layout, zero=zero, mask=mask, entropy=entropy, **params)
            check(p, wanted, expected)
            if entropy == "none":
                found = codec.encoded_nbytes(layout, a.shape, a.dtype, stats=stats, entropy="none", **params)
                assert found == p.nbytes


def check(p: PackedTensor, wanted: int, expected: np.ndarray) -> None:
    """The count, as it was written, read and reshaped."""
    found = codec.loads(codec.dumps(p))
    assert (p.nnz, found.nnz) == (wanted, wanted)
    assert found.to_dense().tobytes() == expected.tobytes()
    assert not p.size or p.reshape(-1, p.spans.head.grid.cols).nnz == wanted


def zero_filler(layout: str, params: dict) -> bool:
    """Whether a kept zero may read as a filler, and is refused then."""
    return layout == "run_length" or params.get("filler") == "value"


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_nnz_from_other_forms(case: tuple[str, dict]) -> None:
    layout, params = case
    scipy_sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(3)
    # Gaps stay short, so that layouts with fillers can say all kept zeros.
    a = rng.standard_normal((70, 300)).astype(np.float32)
    mask = rng.random(a.shape) < 0.7
    zeros = mask & (rng.random(a.shape) < 0.5)
    a[~mask | zeros] = 0
    matrix = scipy_sparse.csr_array((a[mask], np.nonzero(mask)[1], np.append(0, np.cumsum(mask.sum(axis=1)))), a.shape)
    options = {**params, "bits": 8} if zero_filler(layout, params) else params
    made = PackedTensor(*pack_array(Made(a.copy), layout=layout, mask=mask, **options))
    listed = codec.encode(a, mask=mask, layout="csr")
    every = (made, PackedTensor.from_scipy(matrix, layout=layout, **options), listed.to_layout(layout, **options))
    assert [p.nnz for p in every] == [int(mask.sum())] * 3
    assert len({codec.dumps(p) for p in every[1:]}) == 1
    # A frame of these layouts does not say which zeros were kept.
    left = int(np.count_nonzero(a)) if layout in FILLED else int(mask.sum())
    assert made.to_layout("csr").nnz == made.to_layout("dense").nnz == left
    assert make_layout(layout, params).zero_items or layout not in FILLED
    assert made.to_scipy().nnz == left


def test_the_choice_of_a_layout_does_not_change_nnz(tmp_path: Path) -> None:
    a = np.zeros((64, 64), np.float32)
    a[::4, ::4] = np.arange(256).reshape(16, 16) + 1
    mask = a != 0
    mask[1, :5] = True
    for objective in ("disk", "memory", "speed"):
        for density in (a, np.where(mask, 1, 1).astype(np.float32)):
            kept = mask | (density != 0)
            assert codec.encode(density, mask=kept, objective=objective).nnz == int(kept.sum())
    codec.save_file({"w": codec.encode(a, mask=mask, layout="sell")}, tmp_path / "m.safetensors")
    with codec.safe_open(tmp_path / "m.safetensors") as model:
        assert model.info("w").nnz == model.get_packed("w").nnz == int(mask.sum())
        model.verify()


@pytest.mark.parametrize("layout", FILLED)
def test_bounds_of_nnz_that_a_reader_can_tell(layout: str) -> None:
    """Not fewer than the values that are not zero, and no more than all values."""
    a = np.zeros((70, 300), np.float32)
    a[3, :9] = a[66, 299] = 1
    p = codec.encode(a, layout=layout, entropy="none", **({"block": (2, 2)} if layout == "block_offset" else {}))
    values = p.parts["values"] // 4
    for nnz in {0, 9, 10, values, min(values + 1, a.size)}:
        head, data = p.spans.head, np.frombuffer(codec.dumps(p), np.uint8)
        changed = _with_nnz(head, data, nnz)
        if 10 <= nnz <= values:
            assert codec.decode(changed).tobytes() == a.tobytes()
        else:
            with pytest.raises(codec.FormatError, match=rf"10 to {values} stored entries, expected {nnz} as"):
                codec.decode(changed)


def _with_nnz(head: Head, data: np.ndarray, nnz: int) -> bytes:
    """The frame with another count in its head."""
    spec = head.spec
    return restated(replace(head, nnz=nnz), data, spec.shape, spec.row_dims)[0].tobytes()
