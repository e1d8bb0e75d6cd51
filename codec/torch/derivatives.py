"""Derivatives of the operators, in reverse and in forward mode, and their batches under torch.vmap.

An operator is linear in x and in its bias; the packed weight is a constant. So in forward mode its derivative is
itself, and in reverse mode its adjoint: the products with W and with W.T are each other's, as are conv2d and
conv2d_input. What torch.library.register_autograd makes would drop the tangents of forward mode in silence.
"""

from collections.abc import Callable
from typing import Any

import torch

from codec.errors import ArgumentError
from codec.torch.internals import BelowDerivatives, SingleLevelFunction, apply, is_transformed, set_forward_mode
from codec.torch.operators import (
    conv2d,
    conv2d_input,
    library,
    linear,
    run_conv2d,
    run_conv2d_input,
    run_linear,
    takes_part,
)

Operator = Callable[..., torch.Tensor]


def _linear_adjoint(
    gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size, outputs: int, transposed: bool
) -> torch.Tensor:
    return linear(gradient, weight, None, shape[-1], not transposed)


def _conv2d_adjoint(
    gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size, filters: int, *geometry: Any
) -> torch.Tensor:
    return conv2d_input(gradient, weight, shape, *geometry)


def _conv2d_input_adjoint(
    gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size, size: Any, *geometry: Any
) -> torch.Tensor:
    return conv2d(gradient, weight, None, shape[-3], *geometry)


def _differentiable(operator: Operator, on_cpu: Operator, adjoint: Operator, channel: int | None) -> Operator:
    """The operator(x, weight[, bias], *numbers) with its derivatives.

    ``on_cpu`` is what it does in the end, ``channel`` the dimension of its result that the bias has (None: it takes no
    bias).
    """
    first = 2 if channel is None else 3  # of the numbers

    class Derivatives(SingleLevelFunction):
        """What torch calls once for each level of its transforms."""

        @staticmethod
        def forward(x: torch.Tensor, *others: Any) -> torch.Tensor:
            if not (is_transformed() or takes_part(x, None if channel is None else others[1])):
                return on_cpu(x, *others)
            # Outer transforms of torch.func differentiate what this one calls: torch has turned that off here.
            with torch.enable_grad(), set_forward_mode(True), BelowDerivatives():
                return operator(x, *others)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            x, weight = inputs[:2]
            ctx.save_for_backward(weight)
            ctx.save_for_forward(weight)
            ctx.shape, ctx.result, ctx.numbers = x.shape, output.shape, inputs[first:]

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
            (weight,) = ctx.saved_tensors
            own = adjoint(gradient, weight, ctx.shape, *ctx.numbers) if ctx.needs_input_grad[0] else None
            found = [own, None]
            if channel is not None:
                term = gradient.movedim(channel, -1)
                found.append(term.sum_to_size(term.shape[-1]) if ctx.needs_input_grad[2] else None)
            return *found, *[None] * len(ctx.numbers)

        @staticmethod
        def jvp(ctx: Any, x: torch.Tensor | None, _: None, *terms: torch.Tensor | None) -> torch.Tensor:
            (weight,) = ctx.saved_tensors
            if x is not None:
                return operator(x, weight, *terms[: first - 2], *ctx.numbers)
            (bias,) = terms[: first - 2]
            assert bias is not None
            assert channel is not None
            return bias.reshape(-1, *[1] * (-1 - channel)).expand(ctx.result)

    def run(x: torch.Tensor, *others: Any) -> torch.Tensor:
        if not (is_transformed() or takes_part(x, None if channel is None else others[1])):
            return on_cpu(x, *others)
        return apply(Derivatives, x, *others)

    return run


for _operator, _on_cpu, _adjoint, _channel in (
    (linear, run_linear, _linear_adjoint, -1),
    (conv2d, run_conv2d, _conv2d_adjoint, -3),
    (conv2d_input, run_conv2d_input, _conv2d_input_adjoint, None),
):
    library.impl(_operator, _differentiable(_operator, _on_cpu, _adjoint, _channel), "Autograd")


# torch.vmap: x has one dimension more, which becomes the first of those that the operator takes anyway.


def _vmap_linear(
    info: Any, dims: tuple[int | None, ...], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
    *numbers: Any,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    _check_weight(dims)
    x, shared = _first(x, dims[0]), bias if dims[2] is None else None
    return _with_biases(linear(x, weight, shared, *numbers), dims, bias, 1), 0


def _vmap_conv2d(
    info: Any, dims: tuple[int | None, ...], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
    *numbers: Any,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    _check_weight(dims)
    x, shared = _first(x, dims[0]), bias if dims[2] is None else None
    result = conv2d(x.reshape(-1, *x.shape[-3:]), weight, shared, *numbers)
    return _with_biases(result.reshape(*x.shape[:-3], *result.shape[-3:]), dims, bias, 3), 0


def _first(x: torch.Tensor, dim: int | None) -> torch.Tensor:
    return x if dim is None else x.movedim(dim, 0)


def _with_biases(
    result: torch.Tensor, dims: tuple[int | None, ...], bias: torch.Tensor | None, last: int
) -> torch.Tensor:
    """The results with a bias for each, where there are such; ``last`` dimensions of a result belong to one vector."""
    if bias is None or dims[2] is None:
        return result
    result, terms = result if dims[0] is not None else result[None], _first(bias, dims[2])
    return result + terms.reshape(len(terms), *[1] * (result.dim() - 1 - last), -1, *[1] * (last - 1))


def _vmap_conv2d_input(
    info: Any, dims: tuple[int | None, ...], gradient: torch.Tensor, weight: torch.Tensor, size: Any, *numbers: Any
) -> tuple[torch.Tensor, int]:
    _check_weight(dims)
    assert dims[0] is not None
    gradient = gradient.movedim(dims[0], 0)
    images = gradient.reshape(-1, *gradient.shape[-3:])
    result = conv2d_input(images, weight, [len(images), *size[-3:]], *numbers)
    return result.reshape(*gradient.shape[:-3], *result.shape[-3:]), 0


def _check_weight(dims: tuple[int | None, ...]) -> None:
    if dims[1] is not None:
        raise ArgumentError(
            "torch.vmap over packed weights: a frame is one tensor; expected the same weight for all, so stack the "
            "results of a loop over the layers, or the dense models (codec.torch.to_dense)"
        )


for _operator, _vmap in ((linear, _vmap_linear), (conv2d, _vmap_conv2d), (conv2d_input, _vmap_conv2d_input)):
    torch.library.register_vmap(_operator, _vmap, lib=library)
