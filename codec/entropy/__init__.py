"""The entropy stage: parts of a stream <-> fewer bytes (spec section 6). One file for each coding.

A stream says which codings it may take, and a caller which of them to try; the smallest wins, and "none" wherever no
coding is smaller.
"""

from collections.abc import Mapping
from typing import Any

from codec.entropy.base import KINDS, LONGEST, NONE, Attempt, Coding, Items, KeyCounts, RawStream
from codec.entropy.huffman import Huffman
from codec.entropy.rans import Rans
from codec.entropy.zstd import Zstd
from codec.errors import ArgumentError

CODINGS: Mapping[str, Coding] = {coding.name: coding for coding in (Huffman(), Rans(), Zstd())}

BY_NUMBER: Mapping[int, Coding] = {coding.number: coding for coding in CODINGS.values()}

# What the argument ``entropy`` may be: one coding (or none), or "auto" for all of them.
CHOICES = ("auto", NONE, *CODINGS)

__all__ = [
    "BY_NUMBER",
    "CHOICES",
    "CODINGS",
    "KINDS",
    "LONGEST",
    "NONE",
    "Attempt",
    "Coding",
    "Items",
    "KeyCounts",
    "RawStream",
    "check_entropy",
    "codings_of",
]


def check_entropy(entropy: Any) -> str:
    """``entropy`` if it is a choice; ArgumentError otherwise."""
    if entropy not in CHOICES or not isinstance(entropy, str):
        raise ArgumentError(f"entropy={entropy!r}; expected one of {', '.join(map(repr, CHOICES))}")
    return entropy


def codings_of(entropy: str) -> tuple[str, ...]:
    """The names that a stream's "coding" may have for a choice of the entropy stage."""
    return (NONE, *CODINGS) if entropy == "auto" else tuple(dict.fromkeys((NONE, entropy)))
