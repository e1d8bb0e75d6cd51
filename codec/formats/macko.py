"""MACKO (github.com/vlejd/macko_spmv), as its script for whole models saves it: c_0 to c_4 in a file of torch.save.

In a tensor's name "weight" becomes c_0 (values, fillers among them), c_1 (zeros before each, two to a byte), c_2 (where
each row begins), c_3 and c_4 (rows and columns). Source: Macko, arXiv 2511.13061, section 3; util_compress_llm.py.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from codec.arraylike import is_torch_tensor, to_torch
from codec.errors import ArgumentError, FormatError
from codec.formats.base import Place, missing
from codec.formats.positions import from_csr, to_csr
from codec.formats.torch import TorchFile, pickle_of, read_tensor
from codec.layouts.gaps import split
from codec.matrix import is_int
from codec.packed import PackedTensor

PARTS = tuple(f"c_{number}" for number in range(5))
WORD = "weight"
# A part by its name: not enc_0, which also ends so.
_PART = re.compile(r"(?<![0-9A-Za-z])c_[0-4]$")
_PART_BYTES = re.compile(rb"(?<![0-9A-Za-z])c_[0-4]")
_SPAN = 16  # elements that an entry with the largest count stands for
_MULTIPLE = 8  # the arrays are filled up with zeros to a multiple of this


class Macko(TorchFile):
    """Float16 as its package has it, and the int8 variant of its encoder."""

    name = "macko"
    summary = "MACKO's arrays c_0 to c_4 in a file of torch.save: values, and four bits for the zeros before each"
    reads = writes = ("F16", "I8")
    entry_bits = 4
    matrices = drops_zeros = True

    def claims(self, place: Place) -> bool:
        """By the names in its pickle."""
        if place.is_folder or not super().claims(place):
            return False
        return len(set(_PART_BYTES.findall(pickle_of(place.path)))) == len(PARTS)

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that the tensor has a name of which its parts' are made."""
        super().check(name, packed)
        if not name.endswith(WORD) or name.count(WORD) != 1:
            raise ArgumentError(f"{self.name} has only tensors whose names end in {WORD!r}")

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        """Five arrays and numbers of a sparse tensor."""
        if not isinstance(value, PackedTensor):
            return super().entries(name, value)
        self.check(name, value)
        values, counts, pointers = arrays_of_rows(value)
        parts = [to_torch(values), to_torch(counts), to_torch(pointers), *value.shape]
        return {name.removesuffix(WORD) + part: array for part, array in zip(PARTS, parts, strict=True)}

    def reads_of(self, state: Mapping[str, Any]) -> dict[str, Callable[[], Any] | None]:
        """One tensor of each five; FormatError where one of them is missing, or the tensor is there as well."""
        stems = dict.fromkeys(name[: -len(PARTS[0])] for name in state if _PART.search(name))
        groups = {stem: {part: state[stem + part] for part in PARTS if stem + part in state} for stem in stems}
        for stem, group in groups.items():
            if len(group) < len(PARTS):
                raise missing(stem.removesuffix("."), group, PARTS)
        parts = {stem + part for stem in stems for part in PARTS}
        others = super().reads_of({name: value for name, value in state.items() if name not in parts})
        if both := others.keys() & {stem + WORD for stem in stems}:
            raise FormatError("is in the file twice, whole and as c_0 to c_4: keep one", tensor=min(both))
        return others | {stem + WORD: partial(_tensor, group) for stem, group in groups.items()}


def arrays_of_rows(packed: PackedTensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, counts of zeros (two to a byte) and row pointers of a matrix, as MACKO's encoders make them.

    For int8 fillers stay behind a row's last value, one for every 16 zeros; for float16 they do not.
    """
    csr = to_csr(packed)
    kept = csr.values != 0  # as its encoders ask; a stored zero is none for them
    starts = np.concatenate(([0], np.cumsum(kept)))[csr.starts]
    columns, stored = csr.indices[kept], csr.values[kept]
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    first = np.zeros(len(columns), bool)
    first[starts[:-1][np.diff(starts) > 0]] = True
    before = np.where(first, -1, np.roll(columns, 1))
    gaps = columns - before - 1
    codes, entry = split(gaps, _SPAN, _SPAN - 1)
    pointers = np.concatenate(([0], np.cumsum(gaps // _SPAN + 1)))[starts]
    behind = np.zeros(len(starts) - 1, np.int64)
    if packed.dtype == np.int8:
        last = np.full(len(starts) - 1, -1)
        last[rows] = columns
        behind = (packed.shape[1] - 1 - last) // _SPAN
    shift = np.concatenate(([0], np.cumsum(behind)))
    place = np.arange(len(codes)) + np.repeat(shift[:-1], np.diff(pointers))
    pointers = pointers + shift
    size = -(-int(pointers[-1]) // _MULTIPLE) * _MULTIPLE
    values, counts = np.zeros(size, stored.dtype), np.zeros(size, np.uint8)
    counts[: pointers[-1]] = _SPAN - 1
    counts[place] = codes
    values[place[entry]] = stored
    return values, counts[::2] | counts[1::2] << 4, pointers.astype(np.int32)


def _tensor(group: Mapping[str, Any]) -> PackedTensor:
    """The matrix of five parts; FormatError for parts that do not belong together."""
    values, packed, pointers = (_list(part, group[part]) for part in PARTS[:3])
    rows, cols = (_number(part, group[part]) for part in PARTS[3:])
    if values.dtype not in (np.float16, np.int8) or packed.dtype != np.uint8 or pointers.dtype != np.int32:
        raise FormatError(
            f"{values.dtype} values, {packed.dtype} counts, {pointers.dtype} pointers; expected float16 or "
            "int8, uint8 and int32"
        )
    edges = pointers.astype(np.int64)
    if 2 * len(packed) != len(values) or len(edges) != rows + 1:
        raise FormatError(f"{len(values)} values, {len(packed)} bytes of counts, {len(edges)} pointers for {rows} rows")
    if edges[0] != 0 or (np.diff(edges) < 0).any() or edges[-1] > len(values):
        raise FormatError(f"row pointers that do not ascend from 0 to at most {len(values)}")
    used = int(edges[-1])
    counts = np.stack((packed & 15, packed >> 4), axis=1).reshape(-1)
    if counts[used:].any() or (values[used:] != 0).any():
        raise FormatError(f"entries behind the last row, which ends at {used}")
    ends = np.concatenate(([0], np.cumsum(counts[:used].astype(np.int64) + 1)))
    columns = ends[1:] - 1 - np.repeat(ends[edges[:-1]], np.diff(edges))
    kept = values[:used] != 0  # fillers, and zeros that are none
    starts = np.concatenate(([0], np.cumsum(kept)))[edges]
    return from_csr((rows, cols), starts, columns[kept], values[:used][kept])


def _list(part: str, value: Any) -> np.ndarray:
    array = read_tensor(value) if is_torch_tensor(value) else None
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise FormatError(f"{part} is no list of numbers; expected a dense tensor of one dimension")
    return array


def _number(part: str, value: Any) -> int:
    number = value.item() if is_torch_tensor(value) and value.numel() == 1 else value
    if not is_int(number) or number < 0:
        raise FormatError(f"{part} is {number!r}; expected a number of rows or columns")
    return int(number)
