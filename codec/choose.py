"""Predicted sizes, and the choice of a layout by them: the same code for ``encode`` and for ``encoded_nbytes``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codec import frame
from codec.dtypes import element_type
from codec.entropy import check_entropy, choose_code
from codec.errors import ArgumentError
from codec.geometry import Grid, check_row_dims, matrix_shape
from codec.layouts import LAYOUTS, Counts, layout_named
from codec.source import check_zero
from codec.stats import TensorStats, check_asked
from codec.streams import CODE_HEADER, Target, huffman_bytes
from codec.valuecoding import RAW, ValueCoding, check_values

OBJECTIVES = ("disk", "memory", "speed")

# "speed" until a measured planner takes over (benchmarks/product.py): order "lanes" streams masks and values in the
# order of their use and is ahead of a dense product at every sparsity; from here on listing the few columns beats
# looking at every bit. A mask word of "lanes" covers 64 rows: matrices with fewer keep the order of rows.
CSR_FROM = 0.95
_LANES_FROM = 64


def check_objective(objective: Any) -> str:
    """``objective`` if it is one; ArgumentError otherwise."""
    if objective not in OBJECTIVES or not isinstance(objective, str):
        raise ArgumentError(f"objective={objective!r}; expected one of {', '.join(OBJECTIVES)}")
    return objective


@dataclass(frozen=True)
class Wish:
    """What a caller asked of ``encode``: layout or "auto", parameters, objective, entropy stage."""

    layout: str
    params: Mapping[str, Any]
    objective: str = "disk"
    entropy: str = "auto"
    values: ValueCoding = RAW

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_entropy(self.entropy)
        if self.layout == "auto":
            if self.params:
                raise ArgumentError(
                    f'parameter {next(iter(self.params))!r} with layout="auto"; name the layout that it belongs to'
                )
        elif layout_named(self.layout).entropy_coded and self.entropy not in ("auto", "huffman"):
            raise ArgumentError(
                f"entropy={self.entropy!r} does not apply to layout {self.layout}, which is Huffman-coded by itself"
            )

    @property
    def stage(self) -> str:
        """The entropy stage that this asks for: "auto" is the smallest for "disk" and none for the other objectives."""
        return self.entropy if self.entropy != "auto" or self.objective == "disk" else "none"

    @property
    def needs_stats(self) -> bool:
        """Whether the choice of the layout, or of parameters left out, depends on more than the count of entries."""
        return self.objective != "speed" if self.layout == "auto" else not layout_named(self.layout).known(self.params)

    @property
    def asks(self) -> tuple[tuple[tuple[Any, int], ...], tuple[int, ...]]:
        """Block shapes and group sizes that statistics have to hold for it."""
        return ((), ()) if self.layout == "auto" else check_asked(*layout_named(self.layout).asks(self.params))


def target(
    wish: Wish,
    layout: str,
    params: Mapping[str, Any],
    *,
    dtype: Any,
    shape: tuple[int, ...],
    row_dims: int,
    grid: Grid,
    zero: str,
    counts: Counts,
) -> Target:
    """A frame to be: ``layout`` with ``params`` completed, by ``counts`` where size decides, and checked."""
    found = layout_named(layout)
    element = element_type(dtype)
    chosen = found.decide(found.params(params, grid), grid, element, counts)
    shared = found.share(grid, counts, chosen)
    return Target(element, shape, row_dims, grid, found, chosen, wish.values.on(grid), zero, wish.stage, shared)


def predict(to: Target, counts: Counts, negative_zeros: int) -> int:
    """Bytes of a frame: exact without the entropy stage, within 1 % with Huffman codes, an upper estimate with zstd.

    Where ``counts`` does not tell what a coded stream holds, it counts as incompressible.
    """
    raw = to.values.estimated(to.layout, to.grid, to.element, counts, to.params)
    heads = []
    for kind, size in zip(to.kinds, raw, strict=True):
        if size is None:
            raise ArgumentError(
                f"the size of stream {kind.name!r} of layout {to.layout.name} needs "
                "stats=tensor_stats(a), with its block= or group="
            )
        head = frame.StreamHead(kind.name, size, "none")
        if not kind.plain and (to.entropy in ("huffman", "auto") or to.layout.entropy_coded):
            known = to.values.histogram(to.layout, kind, to.grid, to.element, counts, to.params)
            if known is not None:
                code = choose_code(*known, kind.width, kind.kind, to.longest)
                coded = huffman_bytes(known[0], code, to.grid.segments)
                if coded + CODE_HEADER < size or to.layout.entropy_coded:
                    head = frame.StreamHead(kind.name, coded, "huffman", code)
        heads.append(head)
    return frame.size(to, counts.nnz, negative_zeros, heads)


def candidates(
    wish: Wish,
    stats: TensorStats,
    *,
    most: int,
    to: Callable[[Wish, str, Mapping[str, Any], Counts], Target] | None = None,
) -> list[Target]:
    """The ``most`` smallest layouts for a tensor by prediction, smallest first; ties go by the registry's order.

    ``to`` makes a frame to be of a layout and its parameters; by default `target` does.
    """

    def described(wish: Wish, layout: str, params: Mapping[str, Any], counts: Counts) -> Target:
        return target(
            wish, layout, params, dtype=stats.dtype, shape=stats.shape, row_dims=stats.row_dims, grid=stats.grid,
            zero=stats.zero, counts=counts,
        )  # fmt: skip

    make = to or described
    targets = [make(wish, name, params, stats.counts) for name, params in _candidates(wish.objective, stats)]
    sizes = [predict(t, stats.counts, stats.negative_zeros) for t in targets]
    return [targets[i] for i in sorted(range(len(targets)), key=lambda i: sizes[i])[:most]]


def _candidates(objective: str, stats: TensorStats) -> list[tuple[str, Mapping[str, Any]]]:
    every = [layout for layout in LAYOUTS.values() if objective == "disk" or not layout.entropy_coded]
    return [(layout.name, params) for layout in every for params in layout.choices(stats.counts, stats.grid)]


def fastest(nnz: int, grid: Grid) -> tuple[str, dict[str, Any]]:
    """The layout for "speed": csr from 95 % zeros on, else bitmap, in order "lanes" where there are 64 rows."""
    if grid.size and 1 - nnz / grid.size >= CSR_FROM:
        return "csr", {}
    return "bitmap", {"order": "lanes" if grid.rows >= _LANES_FROM else "rows"}


def encoded_nbytes(
    layout: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    sparsity: float | None = None,
    stats: TensorStats | None = None,
    entropy: str | None = None,
    values: str = "raw",
    value_bits: int | None = None,
    codebook_rows: int | None = None,
    zero: str = "value",
    row_dims: int | None = None,
    **layout_params: Any,
) -> int:
    """Bytes that ``len(dumps(encode(...)))`` will be, without encoding.

    Parameters
    ----------
    layout : str
        A layout's name; parameters of its own follow by keyword, by default as in ``encode``.
    shape, dtype
        Of the tensor.
    sparsity : float, optional
        Share of zeros, 0 to 1, spread independently; ``round(sparsity * size)`` of them.
    stats : TensorStats, optional
        ``tensor_stats(a)`` of the very tensor; exactly one of the two must be given.
    values, value_bits, codebook_rows
        The value coding, as in ``encode``. Codes count as incompressible; where ``sparsity`` does not tell how the
        entries spread over segments, codes of less than 8 bits are right within a byte for each segment.
    entropy : str, optional
        "none", "huffman", "zstd" or "auto"; by default "auto" with ``stats``, "none" with ``sparsity``.
    zero, row_dims
        As in ``encode``; by default those of ``stats``.

    Returns
    -------
    int
        Exact with ``entropy="none"`` (block_offset: an upper bound where ``mask`` keeps zeros); within 1 % for
        Huffman-coded streams, and within a frame's rounding to 64 bytes for each stream where that is more (small
        tensors); with "zstd" and "auto" an upper estimate. Coded patterns of n_m and coded offsets of block_offset are
        estimated from how many entries groups and columns hold.

    Raises
    ------
    ArgumentError
        If neither or both of sparsity and stats are given, they are of another tensor, or a name or parameter is wrong.

    Examples
    --------
    >>> encoded_nbytes("bitmap", (4096, 4096), "bfloat16", sparsity=0.9)
    5453696
    """
    if (sparsity is None) == (stats is None):
        raise ArgumentError("expected one of sparsity= and stats=")
    element = element_type(dtype)
    shape = tuple(shape)
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 for n in shape):
        raise ArgumentError(f"shape {shape}; expected non-negative ints")
    shape = tuple(map(int, shape))
    if stats is not None:
        if (
            stats.shape != shape
            or stats.dtype != element.dtype
            or (row_dims is not None and stats.row_dims != row_dims)
        ):
            raise ArgumentError(
                f"stats of {stats.dtype} {stats.shape}, row_dims {stats.row_dims}; asked for {element.dtype} {shape}"
            )
        dims, zero, grid, counts = stats.row_dims, stats.zero, stats.grid, stats.counts
        negative = stats.negative_zeros
    else:
        if not isinstance(sparsity, int | float | np.floating) or not 0 <= sparsity <= 1:
            raise ArgumentError(f"sparsity={sparsity!r}; expected a number from 0 to 1")
        dims = check_row_dims(shape, row_dims)
        grid = Grid.default(*matrix_shape(shape, dims), element.width)
        counts, negative, zero = Counts.expected(grid, float(sparsity)), 0, check_zero(zero)
    coded = layout != "auto" and layout_named(layout).entropy_coded
    stage = entropy or ("auto" if stats is not None or coded else "none")
    wish = Wish(
        layout, layout_params, "disk", stage, check_values(values, value_bits, None, codebook_rows, None, grid, None)
    )
    if layout == "auto":
        if stats is None:
            raise ArgumentError('layout="auto" needs stats=tensor_stats(a)')
        return predict(candidates(wish, stats, most=1)[0], counts, negative)
    to = target(
        wish,
        layout,
        layout_params,
        dtype=element.dtype,
        shape=shape,
        row_dims=dims,
        grid=grid,
        zero=zero,
        counts=counts,
    )
    return predict(to, counts, negative)
