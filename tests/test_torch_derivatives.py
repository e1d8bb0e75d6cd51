"""Derivatives of packed layers: both modes, their batches, torch.func; and what is refused."""

import pytest

import codec

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.autograd import forward_ad, gradcheck  # noqa: E402
from torch.autograd.gradcheck import gradgradcheck  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402

import codec.torch as ct  # noqa: E402
from codec.torch import operators  # noqa: E402
from codec.torch.frames import buffer_of  # noqa: E402

# torch's own, where it prepares for forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def pruned(layer):
    with torch.no_grad():
        layer.weight *= torch.rand(layer.weight.shape, generator=torch.manual_seed(1)) < 0.3
    return layer


def linear(dtype=torch.float64):
    torch.manual_seed(2)
    dense = pruned(nn.Linear(6, 4, dtype=dtype))
    return dense, ct.SparseLinear.from_dense(dense), torch.randn(3, 6, dtype=dtype)


def conv2d(dtype=torch.float64):
    torch.manual_seed(3)
    dense = pruned(nn.Conv2d(2, 4, 3, stride=(2, 1), padding=1, dtype=dtype))
    return dense, ct.SparseConv2d.from_dense(dense), torch.randn(2, 2, 4, 5, dtype=dtype)


CASES = pytest.mark.parametrize("make", [linear, conv2d], ids=["linear", "conv2d"])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@CASES
def test_both_modes_their_batches_and_second_derivatives(make) -> None:
    _, layer, x = make()
    weight, bias = layer.weight, layer.bias.detach().clone().requires_grad_()
    x.requires_grad_()

    def run(x, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    checks = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(run, (x, bias), **checks)
    # Squares, as the second derivatives of what is linear are zeros.
    assert gradgradcheck(lambda x, bias: run(x, bias) ** 2, (x, bias), check_fwd_over_rev=True, check_rev_over_rev=True)


def test_products_with_the_weight_as_it_lies() -> None:
    torch.manual_seed(4)
    w = torch.randn(6, 4, dtype=torch.float64) * (torch.rand(6, 4) < 0.3)
    packed = buffer_of(codec.encode(w, objective="speed"))
    x, bias = torch.randn(3, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    close(operators.linear(x, packed, bias, 4, True), x @ w + bias)
    both = x.requires_grad_(), bias.requires_grad_()
    checks = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(lambda x, bias: operators.linear(x, packed, bias, 4, True), both, **checks)


@CASES
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_dual_tensors_keep_their_tangents(make, mode) -> None:
    dense, layer, x = make(torch.float32)
    tangent, own = torch.randn_like(x), torch.randn_like(layer.bias)
    with mode(), forward_ad.dual_level():
        assert forward_ad.unpack_dual(layer(x)).tangent is None
        dual = forward_ad.make_dual(layer.bias.detach(), own)
        for given, bias in ((forward_ad.make_dual(x, tangent), layer.bias), (x, dual)):
            found, expected = (
                forward_ad.unpack_dual(functional_call(one, {"bias": bias}, (given,))) for one in (layer, dense)
            )
            close(found.primal, expected.primal)
            close(found.tangent, expected.tangent)


@CASES
def test_transforms_of_torch_func(make) -> None:
    dense, layer, x = make(torch.float32)
    other = torch.randn_like(x)
    close(jvp(layer, (x,), (other,)), jvp(dense, (x,), (other,)))
    gradient = torch.randn_like(layer(x))
    close(vjp(layer, x)[1](gradient), vjp(dense, x)[1](gradient))
    close(jacfwd(layer)(x), jacfwd(dense)(x))
    close(jacrev(layer)(x), jacrev(dense)(x))

    def loss(model):
        return lambda x: model(x).square().sum()

    close(hessian(loss(layer))(x), hessian(loss(dense))(x))
    close(vmap(grad(loss(layer)))(x), vmap(grad(loss(dense)))(x))
    for dim in (0, 1):
        many = torch.stack([x, other], dim)
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                close(vmap(layer, in_dims=dim)(many), vmap(dense, in_dims=dim)(many))
    biases = torch.randn(5, len(layer.bias))

    def with_bias(model, bias, x):
        return functional_call(model, {"weight": model.weight, "bias": bias}, (x,))

    for dims, given in ((None, x), (0, torch.stack([x] * 5) + 1)):
        found, expected = (
            vmap(lambda bias, x, model=model: with_bias(model, bias, x), in_dims=(0, dims))(biases, given)
            for model in (layer, dense)
        )
        close(found, expected)
    twice, model = torch.stack([x, other]), vmap(vmap(layer))
    close(model(twice), vmap(vmap(dense))(twice))


def test_many_packed_weights_at_once_are_refused() -> None:
    _, layer, x = linear()
    weights = torch.stack([layer.weight, layer.weight])
    with pytest.raises(codec.ArgumentError, match=r"torch\.vmap over packed weights"):
        vmap(lambda w: operators.linear(x, w, None, 4, False))(weights)


def test_zeros_without_memory_are_inputs_too() -> None:
    _, layer, x = linear(torch.float32)
    with torch.no_grad():
        found = layer(torch._efficientzerotensor(x.shape))
    close(found, layer.bias.detach().expand(3, 4))
