"""Which layout multiplies fastest: a small table (Zen 4, one thread; benchmarks/speedup.py shows what comes of it).

Each row says for which element types and batches it holds, from which share of zeros on, and what is taken there. Below
the first share the tensor stays dense: skipping its zeros would cost more than multiplying them.
"""

from typing import NamedTuple

from codec.layouts import Layout
from codec.layouts.bitmap import Bitmap
from codec.layouts.csr import Csr
from codec.layouts.dense import Dense
from codec.layouts.sell import Sell
from codec.matrix import TensorSpec

# A batch that is not told is taken for one of 1 to 16 columns: what is good for 8 is nowhere far from the best.
TYPICAL = 8
# Rows of a tile of sell and of a group of bitmap's lanes: with fewer, lanes of the vectors stay empty.
_ROWS = 64
# Past this share of zeros, the tiles of sell take as many bytes as the few elements in them.
_SELL_TO = 0.998
# What lists few columns beats what looks at every bit from here on.
_CSR_FROM = 0.95


class _Step(NamedTuple):
    sparsity: float
    layout: Layout


# Codes of up to so many bits are looked up in a register by kernels of their own, for a single column.
_CODE_BITS = 4

# By the kind of element and whether the batch is a single column: steps of rising sparsity, the first from 0 on.
_LANES = Bitmap(order="lanes")
_TABLE: dict[tuple[str, bool], tuple[_Step, ...]] = {
    ("wide float", True): (_Step(0, Dense()), _Step(0.1, _LANES), _Step(0.65, Sell())),
    ("wide float", False): (_Step(0, Dense()), _Step(0.3, Sell())),
    ("narrow float", True): (_Step(0, Dense()), _Step(0.1, _LANES), _Step(0.6, Sell())),
    ("narrow float", False): (_Step(0, Dense()), _Step(0.3, Sell())),
    ("code", True): (_Step(0, Dense()), _Step(0.55, Sell())),
    ("byte", True): (_Step(0, Dense()), _Step(0.3, _LANES), _Step(0.7, Sell())),
    ("byte", False): (_Step(0, Dense()), _Step(0.4, Sell())),
}


def fastest(nnz: int, spec: TensorSpec, batch: int | None, code_bits: int = 0) -> Layout:
    """The layout for "speed" of a matrix of which ``nnz`` elements are stored, multiplied by ``batch`` columns.

    ``code_bits``: of codes of a codebook, if its values are such; else 0.
    """
    sparsity = 1 - nnz / spec.grid.size if spec.grid.size else 0.0
    single = (batch or TYPICAL) == 1
    shared = single and spec.element.is_float and 0 < code_bits <= _CODE_BITS
    steps = _TABLE.get(("code" if shared else _kind(spec), single))
    if steps and spec.grid.rows >= _ROWS and sparsity <= _SELL_TO:
        return next(step.layout for step in reversed(steps) if sparsity >= step.sparsity)
    if sparsity >= _CSR_FROM:
        return Csr()
    return _LANES if spec.grid.rows >= _ROWS else Bitmap()


# torch multiplies dense bfloat16 by instructions of the processor, and is faster for batches than what the table above
# takes: columns at most, and the share of zeros from which ours is (benchmarks/results/speedup_zen4.txt).
_NARROW_LIBRARY = ((1, 0.1), (16, 0.45), (64, 0.6), (None, 0.7))
# A convolution unrolls the pixels for all of its filters together, which has to be made up for: filters at least, and
# the share of zeros at least (of 1 x 1 and 3 x 3, for 1 and 8 images of 7 to 56 pixels: 0.8 to 1.3 times as fast as
# torch there, 1 to 3 times at 512 filters, and 0.3 to 0.9 times at 64 filters whatever the zeros).
_LEAST_FILTERS, _LEAST_OF_FILTERS = 128, 0.8


def faster_than_dense(nnz: int, spec: TensorSpec, batch: int | None) -> bool:
    """Whether the layout for "speed" of a tensor multiplies faster than a dense library does; see `fastest`.

    A tensor of four dimensions is taken for the filters of a convolution.
    """
    columns, share = batch or TYPICAL, 0.0
    if len(spec.shape) == 4:
        if spec.shape[0] < _LEAST_FILTERS:
            return False
        share = _LEAST_OF_FILTERS
    elif _kind(spec) == "narrow float":
        share = next(share for most, share in _NARROW_LIBRARY if most is None or columns <= most)
    return nnz <= (1 - share) * spec.grid.size and not isinstance(fastest(nnz, spec, batch), Dense)


def _kind(spec: TensorSpec) -> str:
    element = spec.element
    if element.is_float:
        return "wide float" if element.width >= 4 else "narrow float"
    return "byte" if element.width == 1 else "integer"
