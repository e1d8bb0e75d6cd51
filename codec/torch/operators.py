"""torch.ops.codec: products with packed weights as operators of torch.

Each has an implementation for the CPU, and a fake one that tells torch.compile and torch.export the shape of the
result; derivatives.py has their gradients. A packed weight is a buffer of bytes. ``linear`` is a product with W.T, or
``transposed`` with W, a weight (in, out). Layers call `product`, which is ``linear`` by the shortest way.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch

from codec import convolution
from codec.arraylike import from_torch, to_torch, torch_element
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.packed import PackedTensor
from codec.products import multiply
from codec.products.direct import Direct
from codec.torch.frames import frame_in
from codec.torch.internals import is_watched
from codec.torch.threads import on_torchs_threads, thread_count

library = torch.library.Library("codec", "DEF")
_FLOATS = [element for element in BY_NAME.values() if element.is_float]
# torch's floating dtypes, with the dtype of the same bits that NumPy can view (None: its own), and NumPy's name of it.
_VIEWS: dict[torch.dtype, tuple[torch.dtype | None, np.dtype]] = {
    getattr(torch, element.dtype.name): (
        None if element.dtype.isbuiltin == 1 else getattr(torch, f"int{8 * element.width}"),
        element.dtype,
    )
    for element in _FLOATS
    if hasattr(torch, element.dtype.name)
}

# What is no class of tensors of its own, which may have its own idea of an operator.
_PLAIN = (torch.nn.Parameter, torch.Tensor, type(None))
# The dtypes that kernels take as they lie in memory, as NumPy has them; and of narrow ones, the dtype of sums.
_OF_NUMPY = {kind: _VIEWS[kind][1] for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
_SUMS = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def _define(schema: str, run: Callable[..., torch.Tensor], fake: Callable[..., torch.Tensor]) -> None:
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"codec::{name}", fake, lib=library)


def _elements(x: torch.Tensor) -> np.ndarray:
    """The elements of a tensor of floats, sharing its memory; ArgumentError for other dtypes and other devices."""
    found = _VIEWS.get(x.dtype)
    if found is None or not x.is_cpu:
        torch_element(x.dtype)
        if found is not None:
            raise ArgumentError(
                f"the input of a packed layer is on device {x.device}; expected the CPU, where packed weights are "
                "multiplied: codec.torch.to_dense(model) before it moves"
            )
        raise ArgumentError(
            f"the input of a packed layer has dtype {x.dtype}; expected floats: where the model casts to the dtype of "
            'this layer\'s weight, which is packed bytes, keep the layer by plan={"NAME.weight": "dense"}'
        )
    bits, dtype = found
    try:
        array: np.ndarray
        if bits is None:
            array = x.numpy(force=True) if x.requires_grad else x.numpy()
        else:
            array = x.detach().view(bits).numpy().view(dtype)
        return array
    except (RuntimeError, TypeError):  # a negative view, zeros without memory, or a class of tensors of its own
        return from_torch(x.clone() if x._is_zerotensor() else x)


def _matrix(array: np.ndarray) -> np.ndarray:
    """All leading dimensions as one."""
    return array if array.ndim == 2 else array.reshape(prod(array.shape[:-1]), array.shape[-1])


def run_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int, transposed: bool
) -> torch.Tensor:
    """What `linear` does on the CPU."""
    w = frame_in(weight)
    found = _linear_in_place(w, x, bias, outputs, transposed)
    return _linear_of_any(w, x, bias, outputs, transposed) if found is None else found


def _linear_in_place(
    w: PackedTensor, x: torch.Tensor, bias: torch.Tensor | None, outputs: int, transposed: bool
) -> torch.Tensor | None:
    """The product by the short way, with nothing between the tensors' memory and the kernels; None for any other."""
    kind = x.dtype
    known: Direct | None = w.spans.products.get((_OF_NUMPY.get(kind), transposed))
    if (
        known is None
        or type(x) is not torch.Tensor
        or x.layout is not torch.strided
        or x.is_nested
        or not x.is_cpu
        or not x.is_contiguous()
        or x.is_neg()
    ):
        return None
    shape = x.shape
    if not shape or shape[-1] != known.inputs or outputs != known.outputs:
        return None
    place, term, wide = x.data_ptr(), 0, False
    if bias is not None:
        wide = bias.dtype is not kind
        if (
            type(bias) not in _PLAIN
            or (wide and bias.dtype is not _SUMS.get(kind))
            or bias.shape != (outputs,)
            or not bias.is_cpu
            or not bias.is_contiguous()
            or bias.is_neg()
        ):
            return None
        term = bias.data_ptr()
    batch = x.numel() // known.inputs
    if not 0 < batch <= known.most or not place or (bias is not None and not term):
        return None
    sizes = (*shape[:-1], outputs)
    # NumPy's memory is had in less time than torch's, but it has no dtype of torch's narrow ones.
    y: torch.Tensor = x.new_empty(sizes) if kind in _SUMS else torch.from_numpy(np.empty(sizes, known.kind.result))
    team = torch.get_num_threads()
    result = known.at(place, batch, y.data_ptr(), term, wide, thread_count(team), team)
    if result[0]:
        w.spans.raise_for(result)
    return y


@on_torchs_threads
def _linear_of_any(
    w: PackedTensor, x: torch.Tensor, bias: torch.Tensor | None, outputs: int, transposed: bool
) -> torch.Tensor:
    array = _elements(x)
    _check_matrix(w.shape, array, outputs, transposed)
    result = x.new_empty((*x.shape[:-1], outputs))
    term = None if bias is None else _elements(bias)[:, None]
    out = _matrix(_elements(result)).T
    multiply(
        w, _matrix(array).T, transposed=transposed, out=out, bias=term, threads=thread_count(torch.get_num_threads())
    )
    return result


def _check_matrix(shape: tuple[int, ...], x: np.ndarray, outputs: int, transposed: bool) -> None:
    """ArgumentError where x (..., inputs) and a result (..., outputs) do not go with a packed matrix."""
    if len(shape) != 2 or shape[transposed] != outputs or not x.ndim or x.shape[-1] != shape[not transposed]:
        raise ArgumentError(
            f"shapes do not match: the input is {x.shape}, the packed weight {shape}; expected a matrix with "
            f"{outputs} outputs, and as many items along the last dimension of the input as it has inputs"
        )


_define(
    "linear(Tensor x, Tensor weight, Tensor? bias, SymInt outputs, bool transposed) -> Tensor",
    run_linear,
    lambda x, weight, bias, outputs, transposed: x.new_empty((*x.shape[:-1], outputs)),
)


@on_torchs_threads
def run_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    filters: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """What `conv2d` does on the CPU."""
    w = frame_in(weight)
    _check_filters(w.shape, filters, kernel)
    found = convolution.conv2d(
        _elements(x), w, None if bias is None else _elements(bias), threads=thread_count(torch.get_num_threads()),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    result: torch.Tensor = to_torch(found)
    return result


@on_torchs_threads
def run_conv2d_input(
    gradient: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """What `conv2d_input` does on the CPU."""
    w = frame_in(weight)
    _check_filters(w.shape, gradient.shape[-3], kernel)
    shape = (1, *size) if len(size) == 3 else tuple(size)
    found = convolution.conv2d_input(
        shape, w, _elements(gradient).reshape(-1, *gradient.shape[-3:]), threads=thread_count(torch.get_num_threads()),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    result: torch.Tensor = to_torch(found.reshape(tuple(size)))
    return result


def _check_filters(shape: tuple[int, ...], filters: int, kernel: Sequence[int]) -> None:
    if len(shape) != 4 or shape[0] != filters or shape[2:] != tuple(kernel):
        raise ArgumentError(
            f"the packed weight is {shape}; expected {filters} filters of {tuple(kernel)} pixels: load the weights "
            "that were saved from this layer"
        )


def _output_shape(
    x: torch.Tensor,
    filters: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    sizes = [
        (size + 2 * pad - gap * (width - 1) - 1) // step + 1
        for size, pad, gap, width, step in zip(x.shape[-2:], padding, dilation, kernel, stride, strict=True)
    ]
    return [*x.shape[:-3], filters, *sizes]


_define(
    "conv2d(Tensor x, Tensor weight, Tensor? bias, SymInt filters, SymInt[] kernel, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups) -> Tensor",
    run_conv2d,
    lambda x, weight, bias, filters, kernel, stride, padding, dilation, groups: x.new_empty(
        _output_shape(x, filters, kernel, stride, padding, dilation)
    ),
)
_define(
    "conv2d_input(Tensor gradient, Tensor weight, SymInt[] size, SymInt[] kernel, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups) -> Tensor",
    run_conv2d_input,
    lambda gradient, weight, size, *_: gradient.new_empty(size),
)

linear = torch.ops.codec.linear.default
conv2d = torch.ops.codec.conv2d.default
conv2d_input = torch.ops.codec.conv2d_input.default


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, outputs: int, transposed: bool
) -> torch.Tensor:
    """`linear`, without torch's dispatcher where nothing on the way to the kernel would take part.

    The dispatcher takes some 3 microseconds of a call, as much as a small product, and derivatives as much again.
    """
    run = linear if is_watched() or takes_part(x, bias) or type(bias) not in _PLAIN else run_linear
    return run(x, weight, bias, outputs, transposed)


def takes_part(x: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether torch does something more with these than to compute: derivatives, a class of tensors, another device."""
    return (
        type(x) is not torch.Tensor
        or not x.is_cpu
        or (torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)))
    )
