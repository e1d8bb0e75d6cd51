"""Layouts: where the values are. One file each, one row here; everything else loops over LAYOUTS."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from codec.errors import ArgumentError
from codec.layouts.base import Layout, StreamKind
from codec.layouts.bitmap import Bitmap
from codec.layouts.block_offset import BlockOffset
from codec.layouts.context import Context
from codec.layouts.csr import Csr
from codec.layouts.dense import Dense
from codec.layouts.huffman import Huffman
from codec.layouts.n_m import GroupsOfM
from codec.layouts.relative_index import RelativeIndex
from codec.layouts.run_length import RunLength
from codec.layouts.sell import Sell

LAYOUTS: Mapping[str, type[Layout]] = {
    layout.name: layout
    for layout in (Dense, Csr, Bitmap, RelativeIndex, RunLength, Huffman, GroupsOfM, BlockOffset, Sell, Context)
}

__all__ = ["LAYOUTS", "Layout", "StreamKind", "layout_named", "make_layout"]


def layout_named(name: Any) -> type[Layout]:
    """The layout of that name; ArgumentError with the names there are."""
    layout = LAYOUTS.get(name) if isinstance(name, str) else None
    if layout is None:
        raise ArgumentError(f"no layout {name!r}; expected one of auto, {', '.join(LAYOUTS)}")
    return layout


def make_layout(name: Any, params: Mapping[str, Any]) -> Layout:
    """A layout with its parameters; ArgumentError for a name or value that it cannot have. None is the default.

    >>> make_layout("csr", {"of": "zeros"})
    Csr(of='zeros', index=None)
    """
    layout = layout_named(name)
    known = [field.name for field in fields(layout)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ArgumentError(f"layout {name} has no parameter {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    return layout(**{key: value for key, value in params.items() if value is not None})
