"""A packed tensor among Python's objects: copies, pickles, arrays, its facts and its repr."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from strategies import LAYOUT_PARAMS, layout_id, seeded, under_rule

import codec
from codec.dtypes import element_type


def plain(shape: tuple[int, ...] = (6, 9)) -> np.ndarray:
    element = element_type("float32")
    return under_rule(seeded(shape, element, 0.5), "value", element)


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_copies_and_pickles(case: tuple[str, dict[str, Any]]) -> None:
    p = codec.encode(plain(), layout=case[0], **case[1])
    copies = [pickle.loads(pickle.dumps(p, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for same in [*copies, copy.copy(p), copy.deepcopy({"w": p})["w"]]:
        assert isinstance(same, codec.PackedTensor)
        assert codec.dumps(same) == codec.dumps(p)


def test_as_an_array() -> None:
    a = plain()
    p = codec.encode(a)
    assert np.asarray(p).tobytes() == p.toarray().tobytes() == a.tobytes()
    assert np.asarray(p, dtype="f8").dtype == np.float64
    assert np.array_equal(np.asarray(p.T), a.T)
    assert np.array_equal(p.T.to_dense(), a.T)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(p, copy=False)
    with pytest.raises(TypeError):
        np.add(p, 1)
    assert len(p) == 6
    assert np.array_equal(list(p), a)
    with pytest.raises(TypeError, match="0-d"):
        len(codec.encode(1.0))
    for shape, dimensions in (((), "0 dimensions"), ((3,), "1 dimension"), ((2, 3, 4), "3 dimensions")):
        with pytest.raises(codec.ArgumentError, match=f"transpose of {dimensions}; expected 2"):
            _ = codec.encode(plain(shape)).T


def test_what_it_says_of_itself() -> None:
    a = np.zeros((8, 8), "f4")
    a[0, :4], a[1] = 1, -0.0
    p = codec.encode(a, layout="csr", entropy="none")
    assert (p.shape, p.ndim, p.size, p.nnz, p.negative_zeros) == ((8, 8), 2, 64, 4, 8)
    assert (p.density, p.sparsity, p.ratio) == (0.0625, 0.9375, 256 / p.nbytes)
    assert (p.layout, dict(p.params), p.zero, p.row_dims) == ("csr", {"index": 8, "of": "nonzeros"}, "value", 1)
    assert dict(p.parts) == {"pointers": 36, "columns": 4, "values": 16}
    assert dict(p.entropy) == dict.fromkeys(p.parts, "none")
    said = f"<PackedTensor 8x8 float32, layout csr, index=8, of='nonzeros', 4 stored (93.8% zeros), {p.nbytes} bytes"
    assert repr(p).startswith(said)
    assert repr(p.T) == f"<transpose of {p!r}>"
    assert "scalar" in repr(codec.encode(1.0))
    assert p.T.shape == (8, 8)
    assert p.T.dtype == p.dtype
    assert p.T.T is p
    # Equal only to itself, as a file handle is: use codec.dumps, or decode, to compare.
    other = codec.loads(codec.dumps(p))
    assert p == p
    assert p != other
    assert len({p, other, p}) == 2
    with pytest.raises(AttributeError):
        p.shape = (64,)  # type: ignore[misc]
    with pytest.raises(TypeError):
        p.params["of"] = "zeros"  # type: ignore[index]
