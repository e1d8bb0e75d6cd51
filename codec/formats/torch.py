"""torch.save: a model's tensors in a pickle, dense, sparse (CSR, BSR, CSC, BSC, COO) or beside their masks.

Only weights_only=True is ever used, under which torch builds tensors and plain containers and runs nothing.
"""

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from codec.arraylike import as_array, is_torch_tensor, to_torch
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError, FormatError
from codec.formats.archives import UNREADABLE
from codec.formats.base import Format, Place, Source, Stored, array_of
from codec.formats.positions import checked_shape, to_positions
from codec.formats.safetensors import with_folded
from codec.interop import from_torch
from codec.interop.checkpoints import beside_state, is_nested, state_of
from codec.interop.csr import coordinates
from codec.model import naming
from codec.model.atomic import write_atomic
from codec.model.disk import open_beside
from codec.model.shards import read_shard_index
from codec.packed import PackedTensor

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".tar")
INDEX_SUFFIX = ".bin.index.json"
HUB_NAME = "pytorch_model.bin"
# The arrays of torch's sparse layouts.
_BY_ROWS, _BY_COLUMNS = ("crow_indices", "col_indices", "values"), ("ccol_indices", "row_indices", "values")
_ARRAYS = {
    "sparse_coo": ("_indices", "_values"),
    "sparse_csr": _BY_ROWS,
    "sparse_bsr": _BY_ROWS,
    "sparse_csc": _BY_COLUMNS,
    "sparse_bsc": _BY_COLUMNS,
}


def load(path: str) -> Any:
    """What torch.save wrote, with weights_only=True; FormatError for what would need more, or is damaged."""
    import torch

    try:
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():  # of torch about its own layouts; they are proved here
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except MemoryError as error:
        raise FormatError(f"{path!r} asks for more memory than there is: it is damaged, or made to do so") from error
    except Exception as error:  # what a damaged pickle raises is anything
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        words = f"it holds a {wants[1]}" if wants else str(error).partition("\n")[0][:200]
        raise FormatError(
            f"{path!r} cannot be read with weights_only=True, and pickles are not read otherwise: {words}; save the "
            "model's state_dict() instead"
        ) from None


def read_tensor(value: Any) -> Any:
    """A tensor of a pickle: a PackedTensor of a sparse one, an array of a dense one.

    Raises FormatError for a layout that is none of those, and for a tensor that is larger than the file, as a view with
    repeated elements is.
    """
    layout = str(value.layout).removeprefix("torch.")
    try:
        if layout == "strided":
            return dense_array(value)
        if layout not in _ARRAYS:
            raise FormatError(f"a tensor of layout {value.layout}; expected one of strided, {', '.join(_ARRAYS)}")
        for name in _ARRAYS[layout]:
            dense_array(getattr(value, name)())
        checked_shape(tuple(value.shape), value._nnz(), "uint8")
        return _coordinates(value) if value.ndim != 2 else PackedTensor.of_csr(from_torch(value))
    except ArgumentError as error:
        raise FormatError(str(error)) from None
    except (RuntimeError, IndexError, TypeError) as error:  # of torch, about arrays that are none of this layout
        raise FormatError(f"a tensor of layout {value.layout} that torch cannot read itself: {error}") from None


def dense_array(value: Any) -> np.ndarray:
    """A dense tensor of a pickle as an array; FormatError for one that repeats elements, else as `as_array`."""
    if value.device.type == "cpu" and value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise FormatError(f"a tensor of shape {tuple(value.shape)} that repeats fewer elements than it has")
    return as_array(value)


def _coordinates(value: Any) -> PackedTensor:
    """A COO tensor of any number of dimensions; values of one place are added up."""
    if str(value.layout) != "torch.sparse_coo" or value.dense_dim() or not value.ndim:
        raise FormatError(
            f"a tensor of layout {value.layout} and shape {tuple(value.shape)}; expected a matrix, or COO"
        )
    indices, values = as_array(value._indices()), as_array(value._values())
    spec = checked_shape(tuple(value.shape), values.size, values.dtype)
    if indices.shape != (value.ndim, values.size) or values.ndim != 1:
        raise FormatError(f"indices of shape {indices.shape} for values of shape {values.shape}")
    outside = (indices < 0) | (indices >= np.array(spec.shape)[:, None])
    if outside.any():
        raise FormatError(f"the index {indices[:, outside.any(axis=0)][:, 0].tolist()} lies outside shape {spec.shape}")
    rows, cols = np.divmod(np.ravel_multi_index(tuple(indices), spec.shape), spec.grid.cols)
    return PackedTensor.of_csr(coordinates((spec.grid.rows, spec.grid.cols), rows, cols, values), spec.shape)


class TorchFile(Format):
    """Matrices go out in CSR, tensors of other numbers of dimensions in COO, and what is not sparse dense."""

    name = "torch"
    summary = "torch.save: sparse CSR, BSR, CSC, BSC and COO come in, CSR (or COO) goes out; masks beside are folded"
    reads = writes = tuple(BY_NAME)
    entry_bits = 64
    extra, modules = "torch", ("torch",)
    suffix = ".pt"
    endings = SUFFIXES

    def claims(self, place: Place) -> bool:
        """A zip archive with a pickle, or a pickle, or a folder with pytorch_model.bin."""
        if place.is_folder:
            return bool(place.ending(INDEX_SUFFIX) or _only_file(place))
        if place.path.endswith(INDEX_SUFFIX) or (
            place.first[:1] == b"\x80" and place.first[1:2] in b"\x02\x03\x04\x05"
        ):
            return True
        return place.first.startswith(b"PK\x03\x04") and bool(pickle_of(place.path))

    def open(self, place: Place) -> Source:
        """All tensors of a file are in memory, or mapped, while it is open."""
        tensors: dict[str, Stored] = {}
        left: list[str] = []
        for path, promised in files_of(place).items():
            file, (state, others) = os.path.basename(path), self.state(path)
            stem = next((file.removesuffix(suffix) for suffix in SUFFIXES if file.endswith(suffix)), file)
            if wrong := [name for name in state if not isinstance(name, str)]:
                raise FormatError(f"{path!r}: {wrong[0]!r} is no name of a tensor; expected a text")
            if twice := [name for name in state if name in tensors]:
                raise FormatError(f"{path!r}: another shard has this tensor too", tensor=twice[0])
            if lost := promised - state.keys():
                raise FormatError(f"{path!r} lacks it, and the index says that it is there", tensor=min(lost))
            reads = self.reads_of(state)
            tensors |= {name: Stored(read, stem) for name, read in reads.items() if read is not None}
            left += [*(name for name, read in reads.items() if read is None), *others]
        notes = [f"left out, as they are no tensors of the model: {', '.join(map(repr, left[:5]))}"] if left else []
        return Source(self.name, place.path, with_folded(tensors), notes=notes)

    def reads_of(self, state: Mapping[str, Any]) -> dict[str, Callable[[], Any] | None]:
        """What gives each tensor; None for a value that is none."""
        return {name: partial(read_tensor, value) if is_torch_tensor(value) else None for name, value in state.items()}

    def state(self, path: str) -> tuple[dict[str, Any], list[str]]:
        """The tensors of one file by name, and the names of what lies beside them in a checkpoint."""
        found = load(path)
        if not isinstance(found, Mapping):
            raise FormatError(f"{path!r} holds a {type(found).__name__}; expected the state_dict of a model")
        try:
            if not is_nested(found):
                return dict(found), []
            return state_of(found), [str(name) for name in beside_state(found)]
        except ArgumentError as error:
            raise FormatError(f"{path!r}: {error}") from None

    def write(self, path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str], like: str | None) -> None:
        """All tensors of the file are in memory."""
        made: dict[str, Any] = {}
        for name in tensors:
            value = tensors[name]
            with naming(name):
                entries = self.entries(name, value)
            if both := made.keys() & entries.keys():
                raise ArgumentError(f"tensor {min(both)!r}: another tensor's part has this name; rename it")
            made |= entries
        save(path, made)

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that it is no scalar."""
        super().check(name, packed)
        if not packed.ndim:
            raise ArgumentError(f"{self.name} has no sparse scalar")

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        """What is saved of one tensor."""
        if not isinstance(value, PackedTensor):
            return {name: to_torch(array_of(value))}
        self.check(name, value)
        with warnings.catch_warnings():  # torch warns that its CSR is young, once in a process
            warnings.simplefilter("ignore")
            return {name: value.to_torch("csr") if value.ndim == 2 else _coo(value)}


def _coo(packed: PackedTensor) -> Any:
    """A COO tensor; its entries are in row-major order without duplicates, which is what coalesced means."""
    import torch

    positions, values = to_positions(packed)
    indices = torch.from_numpy(np.stack(np.unravel_index(positions, packed.shape)))
    return torch.sparse_coo_tensor(indices, to_torch(values), packed.shape, is_coalesced=True, check_invariants=False)


def save(path: str, made: Mapping[str, Any]) -> None:
    """Write a file as torch.save does."""
    import torch

    stream = io.BytesIO()
    torch.save(dict(made), stream)
    write_atomic(path, [stream.getbuffer()])


def pickle_of(path: str) -> bytes:
    """The pickle in a zip archive of torch.save, without what it refers to; nothing if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith("/data.pkl"):
                    return archive.read(member) if member.file_size <= 1 << 28 else b"\x80"
    except (OSError, *UNREADABLE):
        pass  # not such an archive: this is asked to recognise a format, and a damaged file is of none
    return b""


def _only_file(place: Place) -> list[str]:
    """The file of a folder's model: the one that transformers looks for, or the only one there is."""
    found = [name for name in place.names if name == HUB_NAME] or place.ending(*SUFFIXES)
    return found if len(found) == 1 else []


def files_of(place: Place) -> dict[str, set[str]]:
    """The files of a model, each with the names of the tensors that an index says are in it.

    Raises FormatError for an index that names anything but regular files in its folder.
    """
    index = [place.path] if place.path.endswith(INDEX_SUFFIX) else []
    if place.is_folder:
        index = [os.path.join(place.path, name) for name in place.ending(INDEX_SUFFIX)]
        files = index or [os.path.join(place.path, name) for name in _only_file(place)]
        if len(files) != 1:
            raise ArgumentError(f"{place.path!r} holds no model of torch.save, or several: name its file or index")
        if not index:
            return {files[0]: set()}
    if not index:
        return {place.path: set()}
    found: dict[str, set[str]] = {}
    for tensor, file in read_shard_index(index[0]).weight_map.items():
        found.setdefault(file, set()).add(tensor)
    for file in found:
        open_beside(place.folder, file).close()
    return {os.path.join(place.folder, file): names for file, names in found.items()}
