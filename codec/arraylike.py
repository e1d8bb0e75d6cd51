"""Anything array-like as an ndarray, and dense torch tensors there and back.

This is the one place where the dtypes of torch meet those of the format. torch names its dtypes as NumPy and ml_dtypes
do, so no table is needed: a name that is no dtype of the format is refused.
"""

import sys
from typing import Any

import numpy as np

from codec.dtypes import BY_NAME, ElementType, element_type
from codec.errors import ArgumentError, CodecError
from codec.matrix import MAX_NDIM


def as_array(a: Any) -> np.ndarray:
    """Anything array-like, also a dense torch tensor, as an ndarray of a dtype that the format has.

    The elements keep every bit, and memory is shared where the other library allows it.

    Parameters
    ----------
    a : array-like or torch tensor
        Any shape of at most 32 dimensions, any strides and byte order.

    Returns
    -------
    ndarray
        Of the same shape, in the byte order that ``a`` has.

    Raises
    ------
    ArgumentError
        For what is no array, sparse matrices among it, for what cannot be read, whatever its own class raises then, and
        for dtypes that the format does not have. Errors of memory and of the system stay what they are.

    Examples
    --------
    >>> as_array([[1.5, 0], [0, 2]]).dtype
    dtype('float64')
    """
    if type(a) is np.ndarray:
        array = a
    elif is_torch_tensor(a):
        array = from_torch(a)
    elif is_scipy_sparse(a):
        raise ArgumentError(
            f"a scipy.sparse {type(a).__name__}; expected a dense array: PackedTensor.from_scipy packs sparse "
            "matrices, and a.toarray() makes a dense array"
        )
    elif isinstance(a, np.ma.MaskedArray):
        raise ArgumentError("a masked array: what its mask hides has no value; give a.filled(0) to make zeros of it")
    else:
        array = _converted(a)
    element_type(array.dtype)
    if array.ndim > MAX_NDIM:
        raise ArgumentError(f"{array.ndim} dimensions; expected at most {MAX_NDIM}: reshape the array")
    return array


def _converted(a: Any) -> np.ndarray:
    """What NumPy makes of an object that is neither an ndarray nor a tensor; torch tensors in lists are read here."""
    try:
        return np.asarray(_with_tensors_read(a) if isinstance(a, list | tuple) and "torch" in sys.modules else a)
    except (CodecError, MemoryError, OSError):  # a PackedTensor's, and those that say nothing of the argument
        raise
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ArgumentError(f"a {type(a).__name__}, which is not an array: {_first_line(error)}") from error
    except Exception as error:  # an __array__ is code of the caller's, and may raise anything
        raise ArgumentError(
            f"a {type(a).__name__} that NumPy cannot read ({type(error).__name__}: {_first_line(error)}); expected an "
            "array: give a NumPy array of its elements"
        ) from error


def _with_tensors_read(a: Any) -> Any:
    """Nested lists with arrays in the places of torch tensors, which NumPy reads without a look at their storage."""
    if not isinstance(a, list | tuple):
        return from_torch(a) if is_torch_tensor(a) else a
    # A list of a million numbers has one type: only that is looked at.
    if not any(issubclass(kind, (list, tuple, *_tensor_class())) for kind in set(map(type, a))):
        return a
    return [_with_tensors_read(item) for item in a]


def is_scipy_sparse(a: Any) -> bool:
    """Whether ``a`` is a sparse matrix or array of scipy; scipy is not imported for it."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(a))


def is_torch_tensor(a: Any) -> bool:
    """Whether ``a`` is a torch tensor, or of a class derived from it; torch is not imported for it."""
    return isinstance(a, _tensor_class())


def _tensor_class() -> tuple[type, ...]:
    """torch's class of tensors, if torch is imported."""
    found = getattr(sys.modules.get("torch"), "Tensor", None)
    return () if found is None else (found,)


def from_torch(tensor: Any) -> np.ndarray:
    """A dense torch tensor's elements as an ndarray, sharing memory where torch allows it.

    Negative and conjugate views are resolved, other devices' tensors are copied, and gradients are left behind.

    Raises
    ------
    ArgumentError
        For tensors that are not dense or hold no elements that can be read (on the meta device, quantised, nested,
        wrapped by a class without storage, with storage that was freed), and for dtypes that the format does not have.
    """
    if not is_torch_tensor(tensor):
        raise ArgumentError(f"a {type(tensor).__name__}; expected a torch tensor")
    try:
        plain = on_cpu(tensor)
        element = torch_element(plain.dtype)
        if element.dtype.isbuiltin == 1:
            return memory_of(plain)
        import torch

        # NumPy does not know this dtype of torch's, but integers of the same width hold the same bits.
        return memory_of(plain.view(getattr(torch, f"int{8 * element.width}"))).view(element.dtype)
    except CodecError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"a {type(tensor).__module__}.{type(tensor).__qualname__} whose elements cannot be read "
            f"({_first_line(error)}); expected a tensor with storage of its own: give the plain tensor behind it, "
            "outside of functionalize, vmap and grad"
        ) from error


def on_cpu(tensor: Any) -> Any:
    """The plain tensor of a dense torch tensor's elements, in the memory of the CPU.

    Raises ArgumentError, with the way out, for the kinds of tensors that hold no dense elements, and what torch raises
    for those that it cannot read.
    """
    _check_readable(tensor)
    return tensor.detach().resolve_conj().resolve_neg().cpu()


def memory_of(plain: Any) -> np.ndarray:
    """An array of the memory of a tensor that `on_cpu` gave, or of a view of it; torch raises where there is none."""
    array: np.ndarray = plain.numpy()
    if array.size:
        # numpy() makes garbage of tensors that only stand for their elements, as inside functionalize; this raises.
        plain.untyped_storage().data_ptr()
    return array


def _check_readable(tensor: Any) -> None:
    """Refuse, with the way out, the kinds of tensors that hold no dense elements."""
    import torch

    layout = str(tensor.layout)
    if torch.nn.parameter.is_lazy(tensor):
        raise ArgumentError(
            "an uninitialized parameter of a lazy torch module, which has no shape yet: run the module once on an "
            "input, or leave the tensor out"
        )
    if layout.startswith("torch.sparse"):
        raise ArgumentError(f"a torch tensor of layout {layout}; use PackedTensor.from_torch for sparse ones")
    if tensor.is_quantized:
        raise ArgumentError(
            f"a quantised torch tensor ({tensor.dtype}); expected plain elements: give tensor.int_repr() for the "
            "integers, or tensor.dequantize() for floats"
        )
    if tensor.is_nested:
        raise ArgumentError(
            "a nested torch tensor; expected one of a single shape: give its tensors one by one (tensor.unbind())"
        )
    if layout != "torch.strided":
        raise ArgumentError(f"a torch tensor of layout {layout}; expected torch.strided: give tensor.to_dense()")
    if tensor.device.type == "meta":
        raise ArgumentError("a torch tensor on the meta device, which holds no elements: load the weights first")
    _check_storage(tensor)


# Devices whose tensors have no storage to look at; they compute their elements when these are moved to the CPU.
_WITHOUT_STORAGE = ("xla", "lazy")


def _check_storage(tensor: Any) -> None:
    """Refuse a tensor whose elements are not in its storage: torch itself then reads whatever memory comes there."""
    if not tensor.numel() or tensor.device.type in _WITHOUT_STORAGE:
        return
    shape, strides, offset = tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset()
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
    needed, found = reach * tensor.element_size(), tensor.untyped_storage().nbytes()
    if found < needed:
        raise ArgumentError(
            f"a torch tensor whose storage holds {found} bytes; expected at least {needed}, as shape {shape}, stride "
            f"{strides} and offset {offset} need: its memory was freed or shrunk, so gather the full tensor first "
            "(with FSDP: summon_full_params, or a full state dict)"
        )


def to_torch(array: Any) -> Any:
    """A dense torch tensor of the memory of an ndarray (or NumPy scalar).

    Arrays that torch cannot share are copied: those that are read-only (of a mapped file, for example) or have negative
    strides.

    Raises
    ------
    ArgumentError
        For a dtype that the installed torch does not have.
    """
    import torch

    array = np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    dtype = getattr(torch, array.dtype.name, None)
    if not isinstance(dtype, torch.dtype):
        raise ArgumentError(
            f"torch {torch.__version__} has no dtype {array.dtype.name}: take the NumPy array instead, or install "
            "a newer torch"
        )
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"i{array.itemsize}")).view(dtype)


def torch_element(dtype: Any) -> ElementType:
    """The element type of a torch dtype; ArgumentError for one that the format does not have."""
    name = str(dtype).removeprefix("torch.")
    for element in BY_NAME.values():
        if element.dtype.name == name:
            return element
    known = ", ".join(element.dtype.name for element in BY_NAME.values())
    raise ArgumentError(f"cannot code dtype {name}; expected one of {known}: convert the tensor first")


def _first_line(error: BaseException) -> str:
    """The first line of another library's message."""
    return str(error).partition("\n")[0]
