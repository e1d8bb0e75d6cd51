"""The transpose of a packed matrix: the same bytes as of the dense transpose, and never dense as a whole."""

import tracemalloc

import numpy as np
import pytest
from products import weights

import codec
from codec.dtypes import element_type

pytest.importorskip("torch")
from codec.torch.transposing import transpose

SHAPES = [(0, 5), (5, 0), (1, 1), (3, 7), (300, 4000), (4000, 300), (1, 1_100_000), (1100, 2100)]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64", "int8"])
def test_the_same_as_packing_the_dense_transpose(name: str) -> None:
    for number, shape in enumerate(SHAPES):
        w = weights(shape, element_type(name), 0.9, number)
        for zero, objective in (("value", "speed"), ("bits", "memory")):
            found = transpose(codec.encode(w, layout="csr", zero=zero), objective=objective)
            assert codec.dumps(found) == codec.dumps(codec.encode(w.T, objective=objective, zero=zero))


def test_a_codebook_stays_one() -> None:
    w = weights((70, 90), element_type("float32"), 0.8)
    packed = codec.encode(w, layout="csr", values="codebook", value_bits=3)
    found = transpose(packed, objective="memory")
    assert found.values == "codebook"
    assert np.array_equal(found.to_dense(), packed.to_dense().T)
    assert transpose(packed, values="raw").values == "raw"


def test_a_quarter_is_dense_at_a_time() -> None:
    w = weights((2048, 4096), element_type("float32"), 0.9)
    packed = codec.encode(w, layout="csr")
    tracemalloc.start()
    try:
        transpose(packed, objective="speed")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.9 * w.nbytes  # packed twice over, .2 each, and a quarter
