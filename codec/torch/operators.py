"""torch.ops.codec: products with packed weights as operators of torch.

Each has an implementation for the CPU, a fake one that tells torch.compile and torch.export the shape of the result,
and a gradient for its input: ``linear`` and ``linear_input`` are each other's, as are ``conv2d`` and ``conv2d_input``.
A packed weight is a buffer of bytes, which has no gradient. ``linear_without_gradient`` is ``linear`` for where none is
wanted: torch's way to a gradient takes some 5 microseconds of each call, as much as a small product.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from codec import convolution, kernels, products
from codec.arraylike import from_torch, to_torch, torch_element
from codec.dtypes import BY_NAME
from codec.errors import ArgumentError
from codec.products import TILE_BYTES, multiply
from codec.torch.frames import frame_in

_library = torch.library.Library("codec", "DEF")
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

_WIDE, _HALVES = (torch.float32, torch.float64), (torch.bfloat16, torch.float16)


def _define(schema: str, run: Callable[..., torch.Tensor], fake: Callable[..., torch.Tensor]) -> None:
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"codec::{name}", fake, lib=_library)


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
    except (RuntimeError, TypeError):  # a negative view, or a class of tensors of its own
        return from_torch(x)


def _matrix(array: np.ndarray) -> np.ndarray:
    """All leading dimensions as one."""
    return array if array.ndim == 2 else array.reshape(prod(array.shape[:-1]), array.shape[-1])


def _threads() -> int:
    """torch.set_num_threads bounds the threads, and so does codec.threadpool_limits."""
    return min(kernels.thread_count(None), int(torch.get_num_threads()))


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rows: int) -> torch.Tensor:
    w = frame_in(weight)
    half = x.dtype in _HALVES
    if x.dtype in _WIDE or (half and 4 * x.numel() <= TILE_BYTES):
        # The sums are the result as they are; of a small batch of halves, torch rounds them.
        array = _elements(x.float() if half else x)
        _check_matrix(w.shape, array, 1, rows)
        term = None if bias is None else _elements(bias.float() if bias.dtype in _HALVES else bias)
        found = products.linear(_matrix(array), w, term, threads=_threads())
        result = torch.from_numpy(found if array.ndim == 2 else found.reshape(*array.shape[:-1], rows))
        return result.to(x.dtype) if half else result
    array = _elements(x)
    _check_matrix(w.shape, array, 1, rows)
    result = x.new_empty((*array.shape[:-1], rows))
    term = None if bias is None else _elements(bias)[:, None]
    multiply(w, _matrix(array).T, out=_matrix(_elements(result)).T, bias=term, threads=_threads())
    return result


def _linear_input(gradient: torch.Tensor, weight: torch.Tensor, cols: int) -> torch.Tensor:
    w, array = frame_in(weight), _elements(gradient)
    _check_matrix(w.shape, array, 0, cols)
    result = gradient.new_empty((*gradient.shape[:-1], cols))
    multiply(w, _matrix(array).T, transposed=True, out=_matrix(_elements(result)).T, threads=_threads())
    return result


def _check_matrix(shape: tuple[int, ...], x: np.ndarray, inner: int, outer: int) -> None:
    """ArgumentError where x (..., shape[inner]) and a result (..., outer) do not go with a packed matrix."""
    if len(shape) != 2 or shape[1 - inner] != outer or not x.ndim or x.shape[-1] != shape[inner]:
        raise ArgumentError(
            f"shapes do not match: the input is {x.shape}, the packed weight {shape}; expected a matrix with "
            f"{outer} outputs, and as many items along the last dimension of the input as it has inputs"
        )


def _result_shape(x: torch.Tensor, last: int) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], last))


for _name in ("linear", "linear_without_gradient"):
    _define(
        f"{_name}(Tensor x, Tensor weight, Tensor? bias, SymInt rows) -> Tensor",
        _linear,
        lambda x, weight, bias, rows: _result_shape(x, rows),
    )
_define(
    "linear_input(Tensor gradient, Tensor weight, SymInt cols) -> Tensor",
    _linear_input,
    lambda gradient, weight, cols: _result_shape(gradient, cols),
)


def _conv2d(
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
    w = frame_in(weight)
    _check_filters(w.shape, filters, kernel)
    found = convolution.conv2d(
        _elements(x), w, None if bias is None else _elements(bias), threads=_threads(),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    result: torch.Tensor = to_torch(found)
    return result


def _conv2d_input(
    gradient: torch.Tensor,
    weight: torch.Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    w = frame_in(weight)
    _check_filters(w.shape, gradient.shape[-3], kernel)
    shape = (1, *size) if len(size) == 3 else tuple(size)
    found = convolution.conv2d_input(
        shape, w, _elements(gradient).reshape(-1, *gradient.shape[-3:]), threads=_threads(),
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
    _conv2d,
    lambda x, weight, bias, filters, kernel, stride, padding, dilation, groups: x.new_empty(
        _output_shape(x, filters, kernel, stride, padding, dilation)
    ),
)
_define(
    "conv2d_input(Tensor gradient, Tensor weight, SymInt[] size, SymInt[] kernel, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups) -> Tensor",
    _conv2d_input,
    lambda gradient, weight, size, *_: gradient.new_empty(size),
)

linear = torch.ops.codec.linear.default
linear_without_gradient = torch.ops.codec.linear_without_gradient.default
linear_input = torch.ops.codec.linear_input.default
conv2d = torch.ops.codec.conv2d.default
conv2d_input = torch.ops.codec.conv2d_input.default


# Gradients. Each context keeps the buffer of the weight and the numbers of the call.


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, *rest = inputs
    ctx.save_for_backward(weight)
    ctx.shape, ctx.rest = x.shape, rest


def _bias_gradient(ctx: Any, gradient: torch.Tensor, channel: int) -> torch.Tensor | None:
    """The sum over everything but the channels; the bias stands behind x and weight."""
    return gradient.movedim(channel, -1).sum_to_size(gradient.shape[channel]) if ctx.needs_input_grad[2] else None


def _linear_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    (weight,) = ctx.saved_tensors
    own = linear_input(gradient, weight, ctx.shape[-1]) if ctx.needs_input_grad[0] else None
    return own, None, _bias_gradient(ctx, gradient, -1), None


def _linear_input_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    (weight,) = ctx.saved_tensors
    return linear(gradient, weight, None, ctx.shape[-1]), None, None


def _conv2d_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    (weight,) = ctx.saved_tensors
    _, _, *numbers = ctx.rest
    own = conv2d_input(gradient, weight, ctx.shape, *numbers) if ctx.needs_input_grad[0] else None
    return own, None, _bias_gradient(ctx, gradient, -3), *[None] * 6


def _conv2d_input_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    (weight,) = ctx.saved_tensors
    _, *numbers = ctx.rest
    return conv2d(gradient, weight, None, ctx.shape[-3], *numbers), *[None] * 7


for _name, _backward in (
    ("linear", _linear_backward),
    ("linear_input", _linear_input_backward),
    ("conv2d", _conv2d_backward),
    ("conv2d_input", _conv2d_input_backward),
):
    torch.library.register_autograd(f"codec::{_name}", _backward, setup_context=_keep, lib=_library)
