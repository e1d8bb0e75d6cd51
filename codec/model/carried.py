"""Tensors as their bytes, of every dtype that safetensors has: what is only copied never becomes an array."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from codec.arraylike import as_array, is_torch_tensor, memory_of, on_cpu
from codec.dtypes import BY_NAME, element_type
from codec.elements import Pieces
from codec.errors import ArgumentError, ChecksumError, CodecError, FormatError
from codec.kernels import octets
from codec.model.container import CARRIED, array_dtype, shape_fault
from codec.model.index import CRC_STEP, crcs_of

_PIECE = 8 * CRC_STEP  # bytes in memory at a time

# torch's names of the dtypes that are only carried, and how many elements of the file are one of torch's.
_OF_TORCH = {
    "float4_e2m1fn_x2": ("F4", 2),
    "float8_e8m0fnu": ("F8_E8M0", 1),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 1),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "complex64": ("C64", 1),
}
# Types of ml_dtypes with fewer than 8 bits, each item in a byte of its own.
_UNPACKED = {
    np.dtype(getattr(ml_dtypes, name))
    for name in ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "int2", "int4", "uint2", "uint4")
}
_OF_NUMPY = {dtype: name for name, (_, dtype) in CARRIED.items() if dtype is not None}


@dataclass(frozen=True, eq=False, slots=True)
class Carried:
    """A tensor's dtype and shape as safetensors has them, and its bytes when they are asked for.

    ``read(offset, length)`` gives bytes of the tensor. ``place`` says where they are, in memory or in a file, as long
    as ``owner`` lives: two tensors of one place are one and the same (None: nothing tells). Without an owner the bytes
    are made by ``read``, each time anew, and belong to whoever called it; ``piecewise`` says that it makes only those
    that it is asked for. ``crcs`` are known where they come from a file's index. ``in_memory`` is true where the bytes
    are held all the time. ``file`` is the file to name in errors, if there are several.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[int, int], memoryview]
    place: Hashable
    owner: Any
    crcs: tuple[int, ...] | None = None
    in_memory: bool = False
    file: str | None = None
    piecewise: bool = False

    @property
    def can_be_packed(self) -> bool:
        """Whether the format has this dtype, so that `array` can be encoded."""
        return self.dtype in BY_NAME

    def array(self) -> np.ndarray:
        """The tensor as an array; ArgumentError where NumPy has no such dtype."""
        dtype = array_dtype(self.dtype)
        return np.frombuffer(self.whole(), np.uint8).view(dtype).reshape(self.shape)

    def elements(self) -> Pieces:
        """The tensor's elements some at a time; only of one that is ``piecewise``, which has no checksums."""
        dtype = array_dtype(self.dtype)

        def read(first: int, count: int) -> np.ndarray:
            found = self.read(first * dtype.itemsize, count * dtype.itemsize)
            return np.frombuffer(found, np.uint8).view(dtype)

        return Pieces(dtype, self.shape, read)

    def whole(self) -> memoryview:
        """All bytes, compared with their checksums where those are known."""
        data = self.read(0, self.nbytes)
        if self.crcs is not None:
            self._compare(data, 0, self.crcs)
        return data

    def checksums(self) -> tuple[int, ...]:
        """The CRC-32C of each MiB."""
        if self.crcs is not None:
            return self.crcs
        return tuple(crc for _, piece in self._pieces() for crc in crcs_of(piece, None))

    def parts(self, crcs: tuple[int, ...]) -> Iterator[memoryview]:
        """The bytes, piece by piece; FormatError if they are not those that ``crcs`` were made of."""
        for offset, piece in self._pieces():
            self._compare(piece, offset, crcs)
            yield piece

    def pieces(self) -> Iterator[memoryview]:
        """The bytes, piece by piece, compared with their checksums where those are known."""
        for offset, piece in self._pieces():
            if self.crcs is not None:
                self._compare(piece, offset, self.crcs)
            yield piece

    def _compare(self, data: memoryview, offset: int, crcs: tuple[int, ...]) -> None:
        for number, found in enumerate(crcs_of(data, None), offset // CRC_STEP):
            if found != crcs[number]:
                at = number * CRC_STEP
                if self.crcs is None:
                    raise FormatError("the file changed while it was copied", offset=at)
                words = f"bytes are damaged: their CRC-32C is {found:08x}, the index says {crcs[number]:08x}"
                raise ChecksumError(words, offset=at)

    def _pieces(self) -> Iterator[tuple[int, memoryview]]:
        for at in range(0, self.nbytes, _PIECE):
            yield at, self.read(at, min(_PIECE, self.nbytes - at))


def carry(value: Any) -> Carried:
    """An array, a torch tensor or anything else NumPy reads, with its bytes in row-major order and little endian.

    Raises ArgumentError for what safetensors has no dtype for, and for what NumPy holds in another form than
    safetensors (items of 4 and 6 bits, one in a byte).
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError("is a masked array, and masks are not stored: fill it first, or encode it with mask=")
    if isinstance(value, np.ndarray) and (name := _carried_name(value.dtype)) is not None:
        return _in_memory(name, value.shape, np.asarray(value, CARRIED[name][1]), value)
    if is_torch_tensor(value) and str(value.dtype).removeprefix("torch.") in _OF_TORCH:
        return _of_torch(value)
    array = as_array(value)
    row = element_type(array.dtype)
    if fault := shape_fault(row.name, array.shape):
        raise ArgumentError(fault)
    return _in_memory(row.name, array.shape, np.asarray(array, row.dtype), value)


def _in_memory(name: str, shape: tuple[int, ...], array: np.ndarray, owner: Any) -> Carried:
    """The elements of ``owner``, which were read: only then does it have a place that can be asked for."""
    view = octets(np.ascontiguousarray(array)).data
    read = lambda offset, length: view[offset : offset + length]  # noqa: E731
    return Carried(name, shape, len(view), read, _place(owner), owner, in_memory=True)


def _carried_name(dtype: np.dtype) -> str | None:
    little = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
    if little in _UNPACKED:
        raise ArgumentError(
            f"NumPy's {little} holds one element in each byte, safetensors packs them: convert it first"
        )
    return _OF_NUMPY.get(little)


def _of_torch(tensor: Any) -> Carried:
    name, packed = _OF_TORCH[str(tensor.dtype).removeprefix("torch.")]
    if str(tensor.layout) != "torch.strided":
        raise ArgumentError(f"a {tensor.dtype} tensor of layout {tensor.layout}; such a dtype is stored as it is only")
    import torch

    try:
        data = memory_of(on_cpu(tensor).contiguous().reshape(-1).view(torch.uint8))
    except CodecError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"is no tensor that can be read ({error}): give the plain tensor behind it") from error
    shape = tuple(tensor.shape)
    if packed > 1 and not shape:
        raise ArgumentError(f"a {tensor.dtype} tensor without dimensions; expected one at least")
    return _in_memory(name, (*shape[:-1], shape[-1] * packed) if packed > 1 else shape, data, tensor)


def _place(value: Any) -> Hashable:
    """What says of two live objects that their elements are the same memory in the same order, or None."""
    if type(value) is np.ndarray and value.nbytes:
        return "array", value.__array_interface__["data"][0], value.dtype, value.shape, value.strides
    if is_torch_tensor(value) and str(value.layout) == "torch.strided" and value.device.type == "cpu" and value.numel():
        bits = value.is_neg(), value.is_conj()
        return "torch", value.data_ptr(), value.dtype, tuple(value.shape), tuple(value.stride()), bits
    return None
