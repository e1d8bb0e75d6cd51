"""Closed forms: what formats take that codec does not write. A file for each family, a row in FORMULAS for each."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from codec.costs.formulas.base import Formula
from codec.costs.formulas.bitmaps import BitmapRows, BlockBitmap, TwoLevelBitmap
from codec.costs.formulas.bound import EntropyBound, entropy_bound
from codec.costs.formulas.gaps import PackedRunLength, RelativeRows, RiceGaps
from codec.costs.formulas.listed import Coo, ZeroTable
from codec.costs.formulas.tiles import Sparta, TcaBme, TiledCsl
from codec.errors import ArgumentError

FORMULAS: Mapping[str, type[Formula]] = {
    formula.name: formula
    for formula in (
        Coo, ZeroTable, BitmapRows, TwoLevelBitmap, BlockBitmap, RelativeRows, PackedRunLength, RiceGaps, TiledCsl,
        TcaBme, Sparta, EntropyBound,
    )
}  # fmt: skip

__all__ = ["FORMULAS", "Formula", "entropy_bound", "make_formula"]


def make_formula(name: str, params: Mapping[str, Any]) -> Formula:
    """A formula of the registry with its parameters; ArgumentError for a parameter that it has not.

    >>> make_formula("coo", {"index": 16}).ideal_bits(0.5, 16, 4096, 4096)
    16.0
    """
    formula = FORMULAS[name]
    known = [field.name for field in fields(formula)]
    if unknown := sorted(set(params) - set(known)):
        raise ArgumentError(f"formula {name} has no parameter {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    return formula(**{key: value for key, value in params.items() if value is not None})
