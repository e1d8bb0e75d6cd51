"""panels: stored entries of each panel, the piece of a segment that is decoded at a time."""

import numpy as np

from codec.matrix import Grid
from codec.statistics.base import Plain

# Elements of a panel (kPanel in native/contract.hpp).
PANEL = 16384


class Panels(Plain):
    """``panels``, uint64, segment by segment."""

    name = "panels"
    gives = ("panels",)


def panel_sizes(grid: Grid) -> np.ndarray:
    """Elements of each panel, in the order of ``panels`` (int64)."""
    known = {(h, w): _sizes(h, w) for h, w, _ in grid.shapes()}
    return np.concatenate([np.zeros(0, np.int64), *(known[place.rows, place.cols] for place in grid.places())])


def _sizes(rows: int, cols: int) -> np.ndarray:
    """Elements of each panel of a segment: whole rows, or pieces of a longer one."""
    if cols > PANEL:
        return np.tile(np.minimum(PANEL, cols - np.arange(0, cols, PANEL)), rows)
    tall = PANEL // cols
    return np.minimum(tall, rows - np.arange(0, rows, tall)) * cols
