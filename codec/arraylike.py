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
        For what is no array, sparse matrices among it, and for dtypes that the format does not have.

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
        try:
            array = np.asarray(a)
        except CodecError:  # of a PackedTensor
            raise
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise ArgumentError(f"a {type(a).__name__}, which is not an array: {_first_line(error)}") from error
    element_type(array.dtype)
    if array.ndim > MAX_NDIM:
        raise ArgumentError(f"{array.ndim} dimensions; expected at most {MAX_NDIM}: reshape the array")
    return array


def is_scipy_sparse(a: Any) -> bool:
    """Whether ``a`` is a sparse matrix or array of scipy; scipy is not imported for it."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(a))


def is_torch_tensor(a: Any) -> bool:
    """Whether ``a`` is a torch tensor, or of a class derived from it; torch is not imported for it."""
    return isinstance(a, getattr(sys.modules.get("torch"), "Tensor", ()))


def from_torch(tensor: Any) -> np.ndarray:
    """A dense torch tensor's elements as an ndarray, sharing memory where torch allows it.

    Negative and conjugate views are resolved, other devices' tensors are copied, and gradients are left behind.

    Raises
    ------
    ArgumentError
        For tensors that are not dense or hold no elements that can be read (on the meta device, quantised, nested,
        wrapped by a class without storage), and for dtypes that the format does not have.
    """
    try:
        _check_readable(tensor)
        element = torch_element(tensor.dtype)
        plain = tensor.detach().resolve_conj().resolve_neg().cpu()
        if element.dtype.isbuiltin == 1:
            array: np.ndarray = plain.numpy()
            return array
        import torch

        # NumPy does not know this dtype of torch's, but integers of the same width hold the same bits.
        bits: np.ndarray = plain.view(getattr(torch, f"int{8 * element.width}")).numpy()
        return bits.view(element.dtype)
    except CodecError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"a {type(tensor).__module__}.{type(tensor).__qualname__} whose elements cannot be read "
            f"({_first_line(error)}); expected a tensor with storage of its own: give the plain tensor behind it"
        ) from error


def _check_readable(tensor: Any) -> None:
    """Refuse, with the way out, the kinds of tensors that hold no dense elements."""
    layout = str(tensor.layout)
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
