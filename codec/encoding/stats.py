"""Everything that sizes depend on, of one tensor: for every layout, in the segments that it takes."""

from typing import Any

from codec import kernels
from codec.elements import elements_of
from codec.encoding.predict import needs_of
from codec.encoding.request import FramePlan
from codec.encoding.sources import ArraySource, Source
from codec.entropy import codings_of
from codec.layouts import LAYOUTS, Layout
from codec.layouts.base import Needs
from codec.layouts.block_offset import BlockOffset
from codec.matrix import Grid
from codec.statistics import TensorStats, check_asked, stats_needs
from codec.values import RAW


def stats_of(source: Source, blocks: tuple[Any, ...] = (), groups: tuple[int, ...] = ()) -> TensorStats:
    """Count a source: everything in the segments of most layouts, and for the others what their sizes depend on."""
    spec = source.spec
    needs: dict[Grid, Needs] = {spec.grid: stats_needs(blocks, groups)}
    layouts: list[Layout] = [one for layout in LAYOUTS.values() for one in layout.variants()]
    layouts += [BlockOffset(block=block) for block in blocks]
    for layout in layouts:
        grid = layout.grid(spec)
        if grid == spec.grid:  # where everything is counted
            continue
        fitted = layout.fit(spec.cut(grid))
        plan = FramePlan(spec.cut(grid), fitted, RAW, codings_of("auto"))
        wanted = fitted.choose_needs | fitted.share_needs | needs_of(plan)
        needs[grid] = needs.get(grid, frozenset()) | wanted
    source.count(needs)
    counted = {grid: source.counts(wanted, grid) for grid, wanted in needs.items()}
    return TensorStats(spec, counted, source.negative_zeros, blocks, groups)


def tensor_stats(
    a: Any, *, zero: str = "value", mask: Any = None, row_dims: int | None = None, block: Any = (), group: Any = (),
    threads: int | None = None,
) -> TensorStats:  # fmt: skip
    """Count what a tensor's sizes depend on.

    Parameters
    ----------
    a : array-like or torch tensor
        Any shape and any dtype of the format.
    zero, mask, row_dims
        As in ``codec.encode``: statistics hold for the same choice only.
    block : (r, c), ("all", c), or a tuple of them
        Block shapes to count beside (1, 4), (1, 8), (1, 16), (4, 1), (8, 1), (2, 2), (4, 4), (8, 8) and (16, 16).
    group : int, or a tuple of them
        Sizes of groups along a row to count beside 4, 8 and 16.
    threads : int, optional

    Returns
    -------
    TensorStats

    Raises
    ------
    ArgumentError
        For an array or option that ``encode`` would refuse.

    Examples
    --------
    >>> stats = tensor_stats(np.eye(4, dtype=np.float32), block=(2, 3))
    >>> stats.nnz, stats.counts.blocks[2, 2], stats.counts.blocks[2, 3]
    (4, 2, 3)
    """
    blocks, groups = check_asked(block, group)
    tensor = elements_of(a, zero=zero, mask=mask, row_dims=row_dims)
    return stats_of(ArraySource(tensor, kernels.thread_count(threads)), blocks, groups)
