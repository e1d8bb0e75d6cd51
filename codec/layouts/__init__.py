"""Layouts: where the values are. One file each, one row here; everything else loops over LAYOUTS."""

from collections.abc import Mapping
from typing import Any

from codec.errors import ArgumentError
from codec.layouts.base import Counts, Histogram, Layout, StreamKind
from codec.layouts.bitmap import Bitmap
from codec.layouts.block_offset import BlockOffset
from codec.layouts.csr import Csr
from codec.layouts.dense import Dense
from codec.layouts.huffman import Huffman
from codec.layouts.n_m import GroupsOfM
from codec.layouts.relative_index import RelativeIndex
from codec.layouts.run_length import RunLength

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (Dense(), Csr(), Bitmap(), RelativeIndex(), RunLength(), Huffman(), GroupsOfM(), BlockOffset())
}

__all__ = ["LAYOUTS", "Counts", "Histogram", "Layout", "StreamKind", "layout_named"]


def layout_named(name: Any) -> Layout:
    """The layout of that name; ArgumentError with the names there are."""
    layout = LAYOUTS.get(name) if isinstance(name, str) else None
    if layout is None:
        raise ArgumentError(f"no layout {name!r}; expected one of auto, {', '.join(LAYOUTS)}")
    return layout
