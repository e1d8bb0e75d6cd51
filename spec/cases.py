"""What a case is, and what the case files share: small tensors, right frames, and edits that make them wrong."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from writer import Draft, Edit, encode
from writer_coding import BITS, kind_of, negative_zero

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "csr": ("csr", {"index": 8, "of": "nonzeros"}),
    "csr_zeros": ("csr", {"index": 8, "of": "zeros"}),
    "bitmap": ("bitmap", {"order": "rows"}),
    "bitmap_lanes": ("bitmap", {"order": "lanes"}),
    "huffman": ("huffman", {"max_length": 12}),
    "relative": ("relative_index", {"bits": 3, "filler": "escape", "of": "nonzeros"}),
    "relative_fillers": ("relative_index", {"bits": 2, "filler": "value", "of": "nonzeros"}),
    "relative_zeros": ("relative_index", {"bits": 1, "filler": "escape", "of": "zeros"}),
    "run_length": ("run_length", {"bits": 5}),
    "n_m": ("n_m", {"m": 4, "n": 4}),
    "blocks": ("block_offset", {"block": [2, 3], "index": 8}),
    "blocks_rows": ("block_offset", {"block": [1, 99], "index": 8}),
    "blocks_columns": ("block_offset", {"block": ["all", 2], "index": 8}),
    "sell": ("sell", {}),
    "context": ("context", {}),
}
# Those that have fillers: entry 0 of a codebook is theirs.
PADDED = ("dense", "relative_fillers", "run_length", "n_m", "blocks", "blocks_rows", "blocks_columns", "sell")


@dataclass(frozen=True)
class Tensor:
    """What a reader must find: bits, element type, zero rule; a shape, where ``bits`` are bytes of another type."""

    bits: np.ndarray
    dtype: str
    zero: str = "value"
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Case:
    name: str
    section: str
    data: bytes
    tensors: dict[str, Tensor]
    metadata: dict[str, str] | None = None  # of a model file


def sample(shape: tuple[int, ...], dtype: str, percent: int = 40, seed: int = 1) -> np.ndarray:
    """Bits with about ``percent`` stored elements of few different values, from a fixed linear congruence."""
    state, out = seed, []
    for _ in range(int(np.prod(shape, dtype=np.int64))):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        there, low, high = state >> 33 & 127, state >> 40 & 31, state >> 50 & 3
        value = (0x3E + high << 8 | low << 3) << (BITS[dtype] - 16) if BITS[dtype] > 8 else 0x30 + low
        if kind_of(dtype) != "unsigned" and state >> 60 & 1:
            value ^= 1 << (BITS[dtype] - 1)
        if dtype == "BOOL":
            value = 1
        out.append(value if there * 100 < percent * 128 else 0)
    return np.array(out, f"<u{BITS[dtype] // 8}").reshape(shape)


def large_line() -> np.ndarray:
    """One row of which a dense frame has parts just large enough to begin at a multiple of 64 always."""
    return np.resize(np.arange(1, 129, dtype=np.uint8), (1, (1 << 16) + 24))


def frame_case(name: str, section: str, bits: np.ndarray, dtype: str, variant: str, **options: Any) -> Case:
    layout, params = VARIANTS[variant]
    params = {**params, **options.pop("params", {})}
    draft = encode(bits, dtype, layout, params=params, **options)
    zero = options.get("zero", "value")
    expected = bits.copy()
    if zero == "value" and negative_zero(dtype):
        expected[(expected == negative_zero(dtype)) & ~np.asarray(options.get("keep", False))] = 0
    return Case(name, section, draft.build(), {"": Tensor(expected, dtype, zero)})


def book_of(bits: np.ndarray, label_bits: int, group_rows: int, *, zero: bool) -> tuple[int, int, list[list[int]]]:
    """Codebooks with every element of a matrix, zero first if it is needed for fillers; as ``encode`` takes them."""
    step = group_rows or len(bits)
    groups = [bits[at : at + step] for at in range(0, len(bits), step)] if bits.size else []
    found = [[*[0] * zero, *sorted({int(one) for one in group.ravel()} - {0})] for group in groups]
    assert all(len(group) <= 1 << label_bits for group in found)
    return label_bits, group_rows, found


def few(shape: tuple[int, int], dtype: str, values: int, seed: int) -> np.ndarray:
    """Bits with so many different values and as many zeros."""
    bits = sample(shape, dtype, 50, seed)
    chosen = np.unique(sample((1, 400), dtype, 100, 77))[:values]
    return np.where(bits != 0, chosen[np.arange(bits.size).reshape(shape) * 7 % len(chosen)], 0).astype(bits.dtype)


# For what a reader must refuse ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """``rule`` is one of format.md, ``error`` the class of error that it names."""

    name: str
    rule: str
    data: bytes
    error: str = "format"
    model: bool = False


def base(variant: str = "bitmap", **options: Any) -> Draft:
    """A right frame of 5 x 13 elements in three segments."""
    layout, params = VARIANTS[variant]
    options = {"segment": (2, 13), **options, "params": params | options.get("params", {})}
    return encode(sample((5, 13), "BF16", 40, seed=9), "BF16", layout, **options)


def poke(where: str, value: int, offset: int = 0) -> Edit:
    """Change the bits ``value`` of one byte."""

    def edit(frame: bytearray, marks: dict[str, int]) -> None:
        frame[marks[where] + offset] ^= value

    return edit


def put(where: int | str, form: str, value: int, offset: int = 0) -> Edit:
    """Write an integer, at a place or at a mark."""

    def edit(frame: bytearray, marks: dict[str, int]) -> None:
        struct.pack_into(form, frame, (marks[where] if isinstance(where, str) else where) + offset, value)

    return edit


def add(where: int | str, form: str, change: int, offset: int = 0) -> Edit:
    """Add to an integer, modulo its size."""

    def edit(frame: bytearray, marks: dict[str, int]) -> None:
        at = (marks[where] if isinstance(where, str) else where) + offset
        size = 8 * struct.calcsize(form)
        struct.pack_into(form, frame, at, (struct.unpack_from(form, frame, at)[0] + change) % 2**size)

    return edit


def both(first: Edit, second: Edit) -> Edit:
    def edit(frame: bytearray, marks: dict[str, int]) -> None:
        first(frame, marks)
        second(frame, marks)

    return edit
