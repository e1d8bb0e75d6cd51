"""SparseLinear and SparseConv2d: products, gradients, compiling, exporting, state, and what does not fit."""

import copy
import gc
import importlib
import io
import pickle

import numpy as np
import pytest
from products import STEP, TINY, weights
from strategies import LAYOUT_PARAMS, layout_id

import codec
from codec.dtypes import BY_NAME, element_type

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.library import opcheck  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import codec.torch as ct  # noqa: E402
from codec.torch import frames, internals, operators  # noqa: E402

FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]


def pruned(layer, amount=0.8):
    prune.l1_unstructured(layer, "weight", amount)
    return layer


def linear(rows=96, cols=80, bias=True):
    torch.manual_seed(rows)
    return pruned(nn.Linear(cols, rows, bias))


def close(found, expected, step=1e-5):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=step, atol=step)


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_every_layout_multiplies_and_has_a_gradient(case) -> None:
    layout, params = case
    dense = linear()
    layer = ct.SparseLinear.from_dense(dense, layout=layout, **params)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.weight.dtype == torch.uint8
    assert layer.packed.layout == layout
    for shape in ((80,), (1, 80), (3, 80), (2, 5, 80), (0, 80)):
        x, y = (torch.randn(shape, generator=torch.manual_seed(1)).requires_grad_() for _ in range(2))
        found, expected = layer(x), dense(y)
        close(found, expected)
        gradient = torch.randn(found.shape)
        layer.bias.grad = dense.bias.grad = None
        found.backward(gradient)
        own = layer.bias.grad.clone()
        dense.bias.grad = None
        expected.backward(gradient)
        close(x.grad, y.grad)
        close(own, dense.bias.grad)
        with torch.no_grad():
            assert torch.equal(layer(x), found)
        with torch.inference_mode():
            assert torch.equal(layer(x), found)


@pytest.mark.parametrize("name", FLOATS)
def test_every_float_comes_and_goes_without_a_copy(name) -> None:
    dtype = getattr(torch, BY_NAME[name].dtype.name)
    x = torch.arange(-6, 6).to(dtype).reshape(3, 4)
    array = ct.to_numpy(x.T)
    assert array.dtype == BY_NAME[name].dtype
    assert array.ctypes.data == x.data_ptr()
    back = ct.from_numpy(array)
    assert back.dtype == dtype
    assert back.data_ptr() == x.data_ptr()
    array[0, 0] = 5
    assert float(x[0, 0]) == 5 == float(back[0, 0])
    w = weights((64, 48), BY_NAME[name], 0.7)
    layer = ct.SparseLinear(48, 64, False)
    layer.hold(frames.buffer_of(codec.encode(w, objective="memory")))
    for given in (name, "F32", "BF16"):
        x = torch.randn(5, 48, generator=torch.manual_seed(0)).to(getattr(torch, BY_NAME[given].dtype.name))
        found, expected = layer(x), x.double() @ torch.from_numpy(w.astype(np.float64)).T
        assert found.dtype == x.dtype
        size = x.double().abs() @ torch.from_numpy(abs(w.astype(np.float64))).T
        assert (
            (found.double() - expected).abs() <= size * 2e-6 + expected.abs() * 1.01 * STEP[given] + TINY.get(given, 0)
        ).all()


def conv2d(**options):
    torch.manual_seed(3)
    return pruned(nn.Conv2d(4, 6, **options))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (1, 3), "stride": (2, 1), "bias": False},
        {"kernel_size": 3, "groups": 2, "dilation": 2},
        {"kernel_size": (2, 3), "padding": "same"},
        {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"},
        {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_convolutions(options) -> None:
    dense = conv2d(**options)
    layer = ct.SparseConv2d.from_dense(dense, layout="bitmap")
    for shape in ((2, 4, 9, 8), (4, 9, 8)):
        x, y = (torch.randn(shape, generator=torch.manual_seed(1)).requires_grad_() for _ in range(2))
        found, expected = layer(x), dense(y)
        close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        close(x.grad, y.grad, 1e-4)
    again = layer.to_dense()
    assert repr(again) == repr(nn.Conv2d(4, 6, **options))
    assert torch.equal(again(x), expected)
    with torch.no_grad():
        close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)


def test_operators_keep_the_rules_of_torch() -> None:
    layer, image = ct.SparseLinear.from_dense(linear()), torch.randn(2, 4, 9, 9, requires_grad=True)
    conv = ct.SparseConv2d.from_dense(conv2d(kernel_size=3))
    geometry = ([3, 3], [2, 1], [1, 1], [1, 1], 1)
    opcheck(operators.linear, (torch.randn(3, 80, requires_grad=True), layer.weight, layer.bias, 96, False))
    opcheck(operators.linear, (torch.randn(80).bfloat16(), layer.weight, None, 96, False))
    opcheck(operators.linear, (torch.randn(3, 96, requires_grad=True), layer.weight, None, 80, True))
    opcheck(operators.conv2d, (image, conv.weight, conv.bias, 6, *geometry))
    gradient = torch.randn(2, 6, 5, 9, requires_grad=True)
    opcheck(operators.conv2d_input, (gradient, conv.weight, [2, 4, 9, 9], *geometry))


def test_compile_and_export() -> None:
    layer, dense = ct.SparseLinear.from_dense(linear()), linear()
    model = nn.Sequential(layer, nn.GELU(), ct.SparseLinear.from_dense(linear(32, 96)))
    x = torch.randn(3, 80)
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    own = x.clone().requires_grad_()
    close(compiled(own), expected)
    compiled(own).sum().backward()
    assert own.grad is not None
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert "codec.linear" in str(exported.graph)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch in (1, 3, 17):
        close(loaded(torch.ones(batch, 80)), model(torch.ones(batch, 80)))
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    assert dense.weight.dtype == torch.float32


def test_state_dict() -> None:
    layer = ct.SparseLinear.from_dense(linear())
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for device, assign in (("cpu", False), ("cpu", True), ("meta", True)):
        other = ct.SparseLinear(80, 96, device=device)
        assert "not loaded" in repr(other)
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(torch.ones(2, 80)), layer(torch.ones(2, 80)))
        assert (other.weight.data_ptr() == state["weight"].data_ptr()) == assign
    assert "layout=csr, dtype=float32, nnz=1536 (80.0% zeros)" in repr(
        ct.SparseLinear.from_dense(linear(), layout="csr")
    )
    broken = {**state, "weight": state["weight"].clone()}
    broken["weight"][9] ^= 1
    for found, words in (
        ({**state, "weight": torch.ones(96, 80)}, "expected uint8"),
        ({**state, "weight": torch.ones(4096, dtype=torch.uint8)}, "weight: .*magic|weight: .*frame"),
        (broken, "weight: "),
        (ct.SparseLinear.from_dense(linear(80, 96)).state_dict(), r"has shape \(80, 96\); expected \(96, 80\)"),
        ({"weight": state["weight"]}, "Missing key"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ct.SparseLinear(80, 96).load_state_dict(found)


def test_memory_that_changes_is_noticed() -> None:
    a, b = ct.SparseLinear.from_dense(linear()), ct.SparseLinear.from_dense(linear())
    x = torch.ones(2, 80)
    frame = codec.dumps(codec.encode(-2 * linear().weight.detach(), objective="speed"))
    assert len(frame) == a.weight.numel()
    before = a(x)
    a.weight.copy_(torch.frombuffer(bytearray(frame), dtype=torch.uint8))
    close(a(x) - a.bias, -2 * (before - a.bias))
    for seed in range(50):  # buffers that come and go in the same place
        torch.manual_seed(seed)
        w = torch.randn(96, 80) * (torch.rand(96, 80) < 0.1)
        layer = ct.SparseLinear.from_dense(nn.Linear(80, 96))
        layer.hold(frames.buffer_of(codec.encode(w, objective="memory")))
        close(layer(x) - layer.bias, x @ w.T)
    del layer
    b(x)
    gc.collect()
    assert all(known.packed.nbytes > 0 for known in frames._known.values())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_refused() -> None:
    layer = ct.SparseLinear.from_dense(linear())
    for x, words in (
        (torch.ones(2, 81), "shapes do not match"),
        (torch.ones(()), "shapes do not match"),
        (torch.ones(2, 80, dtype=torch.uint8), "dtype torch.uint8; expected floats: where the model casts"),
        (torch.ones(2, 80, dtype=torch.complex64), "cannot code dtype complex64"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            layer(x)
    nested = torch.nested.as_nested_tensor([torch.ones(2, 80), torch.ones(3, 80)], layout=torch.strided)
    for x in (nested, torch.ones(2, 80).to_sparse()):
        for _ in range(2):  # the second time the short way is known
            with torch.no_grad(), pytest.raises(codec.ArgumentError, match=r"a nested torch|torch\.sparse"):
                layer(x)
            layer(torch.ones(2, 80))
    with pytest.raises(codec.ArgumentError, match="expected a matrix with 5 outputs"):
        operators.linear(torch.ones(2, 80), layer.weight, None, 5, False)
    with pytest.raises(codec.ArgumentError, match="expected uint8"):
        operators.linear(torch.ones(2, 80), torch.ones(96, 80), None, 96, False)
    with pytest.raises(codec.ArgumentError, match="meta device"):
        _ = layer.to("meta").packed
    with pytest.raises(codec.FormatError):
        operators.linear(torch.ones(2, 80), torch.zeros(80, dtype=torch.uint8), None, 96, False)
    with pytest.raises(codec.ArgumentError, match="has no bytes: load a state_dict"):
        ct.SparseLinear(80, 96)(torch.ones(2, 80))
    conv = ct.SparseConv2d.from_dense(conv2d(kernel_size=3))
    with pytest.raises(
        codec.ArgumentError, match=r"the packed weight is \(6, 4, 3, 3\); expected 6 filters of \(3, 1\)"
    ):
        operators.conv2d(torch.ones(1, 4, 9, 9), conv.weight, None, 6, [3, 1], [1, 1], [0, 0], [1, 1], 1)
    assert element_type(conv.packed.dtype).name == "F32"
    for image, words in (
        (torch.ones(1, 4, 2, 9), "smaller than a filter"),
        (torch.ones(4), "x has 1 dimension"),
        (torch.ones(1, 3, 9, 9), "expected 4 channels"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            conv(image)
    with pytest.raises(codec.ArgumentError, match=r"expected .*\(images, 6, 7, 7\) as conv2d gives"):
        operators.conv2d_input(torch.ones(1, 6, 7, 6), conv.weight, [1, 4, 9, 9], [3, 3], [1, 1], [0, 0], [1, 1], 1)


def test_layers_that_cannot_be_taken() -> None:
    with pytest.raises(codec.ArgumentError, match=r"the layer is a Conv2d; expected Linear"):
        ct.SparseLinear.from_dense(nn.Conv2d(4, 6, 3))
    with pytest.warns(FutureWarning):
        normed = nn.utils.weight_norm(nn.Linear(80, 96))
    with pytest.raises(codec.ArgumentError, match="the weight of Linear is no parameter"):
        ct.SparseLinear.from_dense(normed)
    nn.utils.remove_weight_norm(normed)
    x = torch.ones(2, 80)
    close(ct.SparseLinear.from_dense(normed)(x), normed(x))


def test_what_is_shown_without_a_weight() -> None:
    for layer in (ct.SparseLinear(80, 96), ct.SparseLinear(80, 96, nbytes=640, device="meta").to_empty(device="cpu")):
        assert repr(layer) == "SparseLinear(in_features=80, out_features=96, bias=True, not loaded)"


def test_autocast_gives_what_it_gives_dense_layers() -> None:
    pairs = [(linear(), torch.randn(3, 80)), (conv2d(kernel_size=3), torch.randn(2, 4, 9, 9))]
    for dense, x in pairs:
        kind = ct.SparseLinear if isinstance(dense, nn.Linear) else ct.SparseConv2d
        layer = kind.from_dense(dense)
        for dtype, given in ((torch.bfloat16, x), (torch.float16, x), (torch.bfloat16, x.bfloat16())):
            with torch.autocast("cpu", dtype):
                close(layer(given), dense(given), 0.02)
        with torch.autocast("cpu"):
            assert layer(x.double()).dtype == torch.float64
            own = x.clone().requires_grad_()
            layer(own).float().sum().backward()
            assert own.grad.dtype == torch.float32
            close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), dense(x), 0.02)


def test_functions_of_torch() -> None:
    dense, other = linear(), linear()
    with torch.no_grad():
        other.weight_orig.mul_(-2)
    layer, x = ct.SparseLinear.from_dense(dense), torch.randn(5, 3, 80)
    state = ct.SparseLinear.from_dense(other).state_dict()
    close(torch.func.functional_call(layer, state, (x,)), other(x))
    close(torch.autograd.functional.jacobian(layer, x[0, 0]), dense.weight.detach())
    assert torch.autograd.gradcheck(ct.SparseLinear.from_dense(dense.double()), (x[0].double().requires_grad_(),))


def test_tied_layers_stay_tied_when_a_state_is_loaded() -> None:
    first = ct.SparseLinear.from_dense(linear(), layout="csr")
    model = nn.Sequential(first, nn.Linear(96, 80), ct.SparseLinear(80, 96))
    model[2].weight = first.weight
    for layout in ("csr", "bitmap"):  # of the same length, and of another
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        other = ct.SparseLinear.from_dense(linear(), layout=layout).weight
        state["0.weight"] = state["2.weight"] = other
        model.load_state_dict(state)
        assert model[0].weight is model[2].weight
        assert model[2].packed.layout == layout


@pytest.mark.filterwarnings("ignore:Initializing zero-element:UserWarning")
def test_layers_without_inputs_or_outputs() -> None:
    for rows, cols in ((5, 0), (0, 5)):
        dense = nn.Linear(cols, rows)
        layer = ct.SparseLinear.from_dense(dense)
        for shape in ((2, 3, cols), (cols,), (0, cols)):
            x = torch.ones(shape, requires_grad=True)
            close(layer(x), dense(x))
            layer(x).sum().backward()
            assert x.grad.shape == x.shape


def test_a_layer_that_was_moved_becomes_dense_in_that_dtype() -> None:
    for bias in (True, False):
        layer = ct.SparseLinear.from_dense(linear(bias=bias))
        assert layer.to_dense().weight.dtype == torch.float32
        for moved in (layer.half(), copy.deepcopy(layer.bfloat16()), layer.to("cpu"), layer.double()):
            dtype = moved(torch.ones(2, 80, dtype=torch.float16)).dtype
            assert dtype == torch.float16
        assert layer.double().to_dense().weight.dtype == torch.float64
        x = torch.ones(2, 80, dtype=torch.bfloat16)
        close(layer.bfloat16().to("cpu").to_dense()(x), layer(x), 0.02)


def test_what_looks_on_sees_the_operator() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._python_dispatch import TorchDispatchMode

    layer, x = ct.SparseLinear.from_dense(linear()), torch.randn(3, 80)
    seen = []

    class Listing(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with torch.no_grad():
        expected = layer(x)
        with Listing():
            close(layer(x), expected)
        with torch.profiler.profile() as profile:
            layer(x)
        seen += [event.key for event in profile.key_averages()]
        seen.append(make_fx(layer)(x).code)
    assert "codec.linear.default" in seen
    assert "codec::linear" in seen
    assert "codec.linear.default" in seen[-1]
    with torch.device("meta"):
        shape = ct.SparseLinear(80, 96, nbytes=640)(torch.ones(2, 80)).shape
    assert shape == (2, 96)
    pruned_bias = prune.l1_unstructured(ct.SparseLinear.from_dense(linear()), "bias", 0.5)
    assert (pruned_bias(torch.zeros(80)) == 0).sum() >= 48


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_operator_and_the_layer_give_the_same_bits(dtype) -> None:
    """By all ways: the dispatcher, derivatives, a compiler, the short way and that of other strides."""
    dense, step = linear().to(dtype), 0.02 if dtype.itemsize == 2 else 1e-5
    torch.compiler.reset()
    for bias in (dense.bias, dense.bias.float(), None):
        layer = ct.SparseLinear.from_dense(dense)
        layer.bias = bias = None if bias is None else nn.Parameter(bias.detach())
        for shape in ((80,), (1, 80), (5, 80), (2, 40, 80)):
            x = torch.randn(shape, generator=torch.manual_seed(4)).to(dtype)
            exact = nn.functional.linear(x.double(), dense.weight.double(), None if bias is None else bias.double())
            turned = x.mT.contiguous().mT if x.dim() > 1 else x.repeat_interleave(2)[::2]
            with torch.no_grad():
                expected = [layer(x) for _ in range(2)][1]
                close(expected, exact.to(dtype), step)
                for given in (x, turned):
                    assert torch.equal(operators.linear(given, layer.weight, bias, 96, False), expected)
            assert torch.equal(torch.ops.codec.linear(x.requires_grad_(), layer.weight, bias, 96, False), expected)
        assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)


def test_a_torch_without_a_private_name_is_refused(monkeypatch) -> None:
    monkeypatch.delattr(torch._C, "_len_torch_dispatch_stack")
    with pytest.raises(ImportError, match=r"which lacks a name .*'_len_torch_dispatch_stack'.*tried with torch 2\."):
        importlib.reload(internals)
    monkeypatch.undo()
    importlib.reload(internals)
