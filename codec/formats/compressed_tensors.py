"""compressed-tensors up to 0.14, the format of the pruned checkpoints of Neural Magic and Red Hat: values and bitmasks.

Its own readers are gone since release 0.15. Stems are a tensor's name without ".weight" since release 0.9, and with it
before: both are read, the newer ones written. Sources: its modules sparse_bitmask.py and sparse_24_bitmask.py.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError
from codec.formats.base import Place
from codec.formats.positions import from_mask, from_positions, mask_of, positions_of_mask, to_mask, to_positions
from codec.formats.safetensors import Companions, Parts, TensorFiles
from codec.model import TensorInfo
from codec.model.huggingface import CONFIG, FIELD, plain_config
from codec.packed import PackedTensor

# Where a config.json says how its weights are stored, by age; the newest first.
PLACES = (FIELD, "compression_config", "sparsity_config")
WEIGHT = ".weight"
# A closed list: a name that a file brings never chooses what is done with it.
SPARSE = ("sparse-bitmask", "sparse-24-bitmask")
NO_SPARSITY = ("dense",)
MARLIN = "marlin-24"
MOST_CONFIG = 1 << 24  # bytes


class _CompressedTensors(Companions):
    """What both formats have in common."""

    marks = ("compressed", "bitmask")
    element_bits = 1

    def stem(self, name: str) -> str:
        """Without ".weight", which `check` has seen there."""
        return name.removesuffix(WEIGHT)

    def whole(self, stem: str) -> str:
        """With ".weight", whichever style the stem has."""
        return stem if stem.endswith(WEIGHT) else stem + WEIGHT

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it is a weight by its name, as only those are looked for."""
        super().check(name, packed)
        if not name.removesuffix(WEIGHT) or not name.endswith(WEIGHT):
            raise ArgumentError(f"{self.name} has only tensors whose names end in {WEIGHT!r}")
        if not packed.ndim or not packed.size:
            raise ArgumentError(f"{self.name} has no sparse tensor of shape {packed.shape}")

    def claims(self, place: Place) -> bool:
        """By the names and shapes of its tensors; FormatError if its config.json names a format that none reads."""
        if not TensorFiles.claims(self, place):
            return False
        declared = sparsity_format(config_of(place))
        return bool(self.groups(place.tensors)) and self.name == (declared or _told_by(place.tensors))


class SparseBitmask(_CompressedTensors):
    """Non-zeros in order, and a bit for each element."""

    name = "sparse-bitmask"
    summary = "compressed-tensors up to 0.14: the non-zeros, and a bit for each element"
    reads = writes = tuple(BY_NAME)
    parts = ("compressed", "bitmask", "shape", "row_offsets")

    def split(self, packed: PackedTensor) -> Parts:
        """With the offsets that its reader asks for and does not use: running sums along the first dimension."""
        mask, values = to_mask(packed, packed.shape[-1])
        lines = np.unpackbits(mask, axis=1).sum(axis=1, dtype=np.int64).reshape(packed.shape[:-1])
        return {
            "compressed": values,
            "bitmask": mask.reshape(*packed.shape[:-1], mask.shape[-1]),
            "shape": np.array(packed.shape, np.int64),
            "row_offsets": (lines.cumsum(axis=0) if lines.ndim else lines) - lines,
        }

    def join(self, parts: Parts) -> PackedTensor:
        """From the mask; ``row_offsets`` says nothing that the mask does not."""
        values, sizes, mask = parts["compressed"], _sizes(parts["shape"]), parts["bitmask"]
        if values.ndim != 1:
            raise FormatError(f"values of shape {values.shape}; expected a list of them")
        _check_mask(mask, sizes)
        return from_mask(sizes, mask, sizes[-1], values)


class Sparse24Bitmask(_CompressedTensors):
    """Two values for every four elements, also where some of them are zeros, and a bit for each element."""

    name = "sparse-24-bitmask"
    summary = "compressed-tensors up to 0.14: 2:4 matrices, two values for every four elements and a bit for each"
    reads = writes = tuple(BY_NAME)
    parts = ("compressed", "bitmask", "shape")

    def is_smaller(self, shape: tuple[int, ...], nnz: int, width: int) -> bool:
        """Every 2:4 matrix is; one with more entries cannot be 2:4."""
        return len(shape) == 2 and shape[1] % 4 == 0 and 2 * nnz <= shape[0] * shape[1]

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it is a matrix, and that no group of four has three entries, of which the format drops one."""
        super().check(name, packed)
        if packed.ndim != 2 or packed.shape[1] % 4:
            raise ArgumentError(f"{self.name} has matrices of 4 n columns; this has shape {packed.shape}")
        groups = to_positions(packed)[0] // 4
        third = groups[2:] == groups[:-2]
        if third.any():
            row, column = divmod(4 * int(groups[np.argmax(third)]), packed.shape[1])
            raise ArgumentError(
                f"row {row}, columns {column} to {column + 3}: three entries or more in a group of four; {self.name} "
                "keeps two: prune to 2:4 before"
            )

    def split(self, packed: PackedTensor) -> Parts:
        """Groups with fewer entries store their first zeros as well."""
        rows, cols = packed.shape
        positions, values = to_positions(packed)
        kept = _FILLED[mask_of(positions, rows, cols)]
        if cols % 8:
            kept[:, -1] &= 0b1111
        row, column = np.divmod(positions, cols)
        group = kept[row, column // 8] >> (column // 4 % 2 * 4).astype(np.uint8)
        before = np.bitwise_count(group & ((1 << column % 4) - 1).astype(np.uint8))
        both = np.zeros(packed.size // 2, values.dtype)
        both[positions // 4 * 2 + before] = values
        return {
            "compressed": both.reshape(rows, cols // 2),
            "bitmask": kept,
            "shape": np.array([[rows], [cols]], np.int64),
        }

    def join(self, parts: Parts) -> PackedTensor:
        """Groups are of the flat tensor, so they may run over the ends of rows; zeros that fill them are no entries."""
        values, sizes, mask = parts["compressed"], _sizes(parts["shape"]), parts["bitmask"]
        if len(sizes) != 2 or values.shape != (sizes[0], sizes[1] // 2):
            raise FormatError(f"values of shape {values.shape} for a matrix of shape {sizes}; expected two of four")
        _check_mask(mask, sizes)
        spec, positions = positions_of_mask(sizes, mask, sizes[1], values)
        groups = positions // 4
        counts_two = spec.grid.size % 4 == 0 and np.array_equal(groups[::2], groups[1::2])
        if not counts_two or not np.array_equal(groups[::2], np.arange(len(groups) // 2)):
            found = np.bincount(groups, minlength=-(-spec.grid.size // 4))
            at = int(np.argmax(found != 2))
            raise FormatError(f"elements {4 * at} to {4 * at + 3} have {int(found[at])} set bits; expected two of four")
        flat = values.reshape(-1)
        kept = flat.view(spec.element.unsigned) != 0
        return from_positions(sizes, positions[kept], flat[kept])


def _filled() -> np.ndarray:
    """For each byte of a mask, two groups of four bits, the byte in which each has two at least: their first zeros."""
    half = np.arange(16, dtype=np.uint8)
    for bit in range(4):
        half = np.where(np.bitwise_count(half) < 2, half | np.uint8(1 << bit), half)
    both = np.arange(256)
    found: np.ndarray = (half[both & 15] | half[both >> 4] << 4).astype(np.uint8)
    return found


_FILLED = _filled()


def _sizes(shape: np.ndarray) -> tuple[int, ...]:
    if shape.dtype.kind not in "iu" or not shape.size or (shape < 0).any():
        raise FormatError(f"a shape of {shape.tolist()}; expected sizes of a tensor with one dimension or more")
    return tuple(int(n) for n in shape.reshape(-1))


def _check_mask(mask: np.ndarray, sizes: tuple[int, ...]) -> None:
    if mask.shape != (*sizes[:-1], -(-sizes[-1] // 8)):
        raise FormatError(f"a bitmask of shape {mask.shape} for a tensor of shape {sizes}")


def _told_by(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Which of the formats the tensors of a file have that no config.json tells of."""
    for name, info in tensors.items():
        if name.endswith(".compressed"):
            return SPARSE[len(info.shape) == 2]
        if name.endswith(".row_offsets"):
            return SPARSE[0]
    return SPARSE[0] if any(name.endswith(".bitmask") for name in tensors) else None


def config_of(place: Place) -> dict[str, Any]:
    """The config.json beside a model, or nothing."""
    path = os.path.join(place.folder, CONFIG)
    if not os.path.isfile(path):
        return {}
    if os.path.getsize(path) > MOST_CONFIG:
        raise FormatError(f"{path!r} has {os.path.getsize(path)} bytes; expected {MOST_CONFIG} at most")
    with open(path, "rb") as file:
        try:
            found = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path!r} is not valid JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def sparsity_format(config: Mapping[str, Any]) -> str | None:
    """The sparse format that a config.json names, or None.

    Raises FormatError for names that are not known, and for marlin-24, which only a GPU kernel that is gone could read.

    >>> sparsity_format({"quantization_config": {"sparsity_config": {"format": "sparse-bitmask"}}})
    'sparse-bitmask'
    """
    for place in PLACES:
        outer = config.get(place)
        if not isinstance(outer, dict):
            continue
        inner = outer if place == "sparsity_config" else outer.get("sparsity_config")
        if place != "sparsity_config" and outer.get("format") == MARLIN:
            inner = outer
        if not isinstance(inner, dict) or "format" not in inner:
            continue
        found = inner["format"]
        if found == MARLIN:
            raise FormatError(
                f"{CONFIG} says {MARLIN!r}: values in the order of one GPU kernel, and its own package has no way "
                "back; convert the checkpoint that it was made from"
            )
        if found in SPARSE:
            return str(found)
        if found not in NO_SPARSITY:
            raise FormatError(
                f"{CONFIG} names the sparse format {found!r}; known are {', '.join((*SPARSE, *NO_SPARSITY))}"
            )
    return None


def with_sparsity(config: Mapping[str, Any], name: str, sparsity: float) -> dict[str, Any]:
    """A config.json for weights in one of the formats; ``sparsity`` is the share of zeros of all weights.

    Raises ArgumentError if another quantiser than compressed-tensors has its settings there.
    """
    found = plain_config(config)
    outer = found.get(FIELD)
    outer = outer if isinstance(outer, dict) else {}
    if outer.get("quant_method", "compressed-tensors") != "compressed-tensors":
        raise ArgumentError(f"{CONFIG} has the settings of {outer['quant_method']!r}: {name} cannot stand beside them")
    settings = {
        "format": name,
        "global_sparsity": sparsity,
        "sparsity_structure": "2:4" if name == SPARSE[1] else "unstructured",
        "targets": ["Linear"],
        "ignore": [],
        "registry_requires_subclass": False,
    }
    return found | {FIELD: {**outer, "quant_method": "compressed-tensors", "sparsity_config": settings}}
