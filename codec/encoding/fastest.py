"""Which layout multiplies fastest: a small table (Zen 4, one thread; benchmarks/speedup.py shows what comes of it).

Each row says for which element types and batches it holds, from which share of zeros on, and what is taken there. Below
the first share the tensor stays dense: skipping its zeros would cost more than multiplying them.
"""

from typing import NamedTuple

from codec.encoding.sources import Source
from codec.kernels import product_kernels
from codec.layouts import Layout
from codec.layouts.bitmap import Bitmap
from codec.layouts.block_offset import BlockOffset
from codec.layouts.csr import Csr
from codec.layouts.dense import Dense
from codec.layouts.n_m import GroupsOfM
from codec.layouts.sell import Sell
from codec.matrix import TensorSpec
from codec.statistics import Need

# A batch that is not told is taken for one of 1 to 16 columns: what is good for 8 is nowhere far from the best.
TYPICAL = 8
# Rows of a tile of sell and of a group of bitmap's lanes: with fewer, lanes of the vectors stay empty.
_ROWS = 64
# Past this share of zeros, the tiles of sell take as many bytes as the few elements in them.
_SELL_TO = 0.998
# What lists few columns beats what looks at every bit from here on.
_CSR_FROM = 0.95
# Batches from so many columns on where weights and x are bfloat16: between these shares of zeros, spreading columns and
# multiplying pairs of elements, zeros included, is faster than looking up non-zeros.
_PAIRS_BATCH, _PAIRS_FROM, _PAIRS_TO = 5, 0.15, ((8, 0.68), (16, 0.55), (None, 0.45))
# Where tiles multiply (AMX), batches of so many columns on, between these shares of zeros by dtype. These kernels were
# never timed. Prototypes by others were, on one core of a Granite Rapids, and beat sell and dense libraries there.
_TILES_BATCH, _TILES_FROM = 5, 0.1
_TILES_TO: dict[str, tuple[tuple[int | None, float], ...]] = {
    "F32": ((16, 0.0), (64, 0.6), (None, 0.85)), "BF16": ((None, 0.93),), "I8": ((None, 0.9),),
}  # fmt: skip
# Codes of up to so many bits are looked up in a register by kernels of their own, for a single column.
_CODE_BITS = 4
# Batches above 8 columns read a row of x for the four rows of a block (below, sell is as fast): blocks are looked for
# from so many zeros on, and taken where that share of their elements is stored. Larger ones are such blocks too.
_BLOCK, _BLOCK_BATCH = (4, 4), 9
_BLOCKS_FROM, _FULL = 0.5, 0.9
# A single column of wide floats reads 2:4 faster than any two of four: of so near to half zeros it is looked for.
_NEAR = 0.02


class _Step(NamedTuple):
    sparsity: float
    layout: Layout


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
    if batch is not None and batch >= _PAIRS_BATCH and _PAIRS_FROM <= sparsity < _of(batch, _PAIRS_TO) and _pairs(spec):
        return _LANES if spec.grid.rows >= _ROWS else Bitmap()
    if batch is not None and _by_tiles(spec, batch, sparsity):
        return _LANES
    shared = single and spec.element.is_float and 0 < code_bits <= _CODE_BITS
    steps = _TABLE.get(("code" if shared else _kind(spec), single))
    if steps and spec.grid.rows >= _ROWS and sparsity <= _SELL_TO:
        return next(step.layout for step in reversed(steps) if sparsity >= step.sparsity)
    if sparsity >= _CSR_FROM:
        return Csr()
    return _LANES if spec.grid.rows >= _ROWS else Bitmap()


def _of(batch: int, shares: tuple[tuple[int | None, float], ...]) -> float:
    """The share of zeros of the first entry that is for so many columns."""
    return next(share for most, share in shares if most is None or batch <= most)


def _by_tiles(spec: TensorSpec, batch: int, sparsity: float) -> bool:
    """Whether tiles multiply the columns of bitmap's lanes faster than anything else."""
    name = spec.element.name
    if batch < _TILES_BATCH or spec.grid.rows < _ROWS or name not in _TILES_TO:
        return False
    return _TILES_FROM <= sparsity < _of(batch, _TILES_TO[name]) and _multiplies("parts")


def _multiplies(items: str) -> bool:
    """Whether this processor has instructions for x of such items; see `product_kernels`."""
    return any(row["items"] == items for row in product_kernels())


def _pairs(spec: TensorSpec) -> bool:
    """Whether this processor multiplies pairs of bfloat16 weights by one instruction."""
    return spec.element.name == "BF16" and _multiplies("bf16")


def structured(source: Source, batch: int | None) -> Layout | None:
    """What multiplies faster than `fastest` because the zeros of a matrix of floats have a structure; None: nothing."""
    grid, element = source.spec.grid, source.spec.element
    if not element.is_float or not grid.size:
        return None
    sparsity = 1 - source.nnz / grid.size
    if (batch or TYPICAL) == 1:
        if element.width < 4 or abs(sparsity - 0.5) > _NEAR or grid.cols % 4:
            return None
        groups = source.counts(frozenset({Need("groups", 4)}), grid).groups
        return GroupsOfM(n=2, m=4) if groups is not None and not groups[4][3:].any() else None
    if (batch or TYPICAL) < _BLOCK_BATCH or not _BLOCKS_FROM <= sparsity <= _SELL_TO or grid.cols % _BLOCK[1]:
        return None
    live = source.counts(frozenset({Need("blocks", _BLOCK)}), grid).block_elements
    return BlockOffset(block=_BLOCK) if live is not None and source.nnz >= _FULL * live[_BLOCK] else None


# torch multiplies dense bfloat16 by instructions of the processor, and is faster for batches than what the table above
# takes: columns at most, and the share of zeros from which ours is (benchmarks/results/speedup_zen4.txt).
_NARROW_LIBRARY = ((1, 0.1), (16, 0.3), (64, 0.5), (None, 0.7))
_PAIRS_LIBRARY = ((1, 0.1), (64, 0.3), (None, 0.6))  # where the same instructions multiply pairs of ours
# A convolution unrolls the pixels for all of its filters together, which has to be made up for: filters at least, and
# the share of zeros at least (of 64 to 1280 filters of 1 x 1 and 3 x 3, for 1 and 8 images of 7 to 224 pixels: 1.2 to
# 4.7 times as fast as torch there; benchmarks/convolution.py).
_LEAST_FILTERS, _LEAST_OF_FILTERS = 64, 0.8


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
        share = _of(columns, _PAIRS_LIBRARY if _pairs(spec) else _NARROW_LIBRARY)
    return nnz <= (1 - share) * spec.grid.size and not isinstance(fastest(nnz, spec, batch), Dense)


def _kind(spec: TensorSpec) -> str:
    element = spec.element
    if element.is_float:
        return "wide float" if element.width >= 4 else "narrow float"
    return "byte" if element.width == 1 else "integer"
