"""compress_model, to_dense, save_model, load_model: what is packed, ties, names, and nothing dense while loading."""

import copy
import logging

import pytest
from loading import needs_proc, peak

import codec

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402

import codec.torch as ct  # noqa: E402
from codec.model import safe_open  # noqa: E402


def sparse(tensor, share=0.8):
    with torch.no_grad():
        tensor *= torch.rand(tensor.shape, generator=torch.manual_seed(5)) >= share
    return tensor


class Net(nn.Module):
    """One of everything: what is packed, what cannot be, ties, pruned and parametrised layers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(64, 96)
        self.conv = nn.Conv2d(8, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4)
        self.first, self.second = nn.Linear(96, 128), nn.Linear(96, 128)
        self.second.weight = self.first.weight
        self.few = nn.Linear(128, 96)
        self.attention = nn.MultiheadAttention(96, 4)
        self.rnn = nn.GRU(96, 96)
        self.head = nn.Linear(96, 64, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.arange(3))

    def forward(self, tokens, image):
        x = self.embed(tokens)
        x = self.few(torch.relu(self.first(x) + self.second(x)))
        x = self.rnn(self.attention(x, x, x)[0])[0]
        return self.head(x), self.grouped(self.conv(image))


def net():
    torch.manual_seed(0)
    model = Net().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            sparse(parameter, 0.2 if name.startswith("few") else 0.8)
    return model


TOKENS = torch.arange(12).reshape(6, 2)
IMAGE = torch.linspace(-1, 1, 648).reshape(1, 8, 9, 9)
PACKED = {"first", "second"}


def same(model, expected, bound=1e-5):
    for found, other in zip(model(TOKENS, IMAGE), expected, strict=True):
        torch.testing.assert_close(found, other, rtol=bound, atol=bound)


def packed_in(model):
    kinds = (ct.SparseLinear, ct.SparseConv2d)
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def test_what_pays_is_packed_and_the_log_says_why(caplog) -> None:
    model = net()
    expected, count = model(TOKENS, IMAGE), sum(p.numel() for p in model.parameters())
    with caplog.at_level(logging.INFO, "codec.torch"):
        assert ct.compress_model(model) is model
    assert packed_in(model) == PACKED
    assert model.first.weight.data_ptr() == model.second.weight.data_ptr()
    assert model.head.weight is model.embed.weight
    assert ct.parameter_count(model) == count
    same(model, expected)
    for words in (
        "first.weight: <PackedTensor 128x96 float32, layout sell",
        "embed.weight stays dense: Embedding looks rows up",
        "grouped.weight stays dense: a convolution in 4 groups",
        "few.weight stays dense: with 20.",
        "conv.weight stays dense: with 8",
        "attention.in_proj_weight stays dense: MultiheadAttention hands its weights to a function of torch",
        "rnn.weight_ih_l0 stays dense: GRU hands its weights",
    ):
        assert words in caplog.text
    ct.to_dense(model)
    assert not packed_in(model)
    assert model.first.weight is model.second.weight
    assert model.first.weight.requires_grad
    same(model, expected)


def test_plans() -> None:
    model = net()
    expected = model(TOKENS, IMAGE)
    ct.compress_model(
        model, {"few.weight": "csr", "head*": "dense", "conv*": "sell", "first.weight": {"layout": "bitmap"}}
    )
    assert packed_in(model) == {"few", "conv", "first", "second"}
    assert model.few.packed.layout == "csr"
    assert model.second.packed.layout == "bitmap"
    same(model, expected)
    for plan, words in (
        ({"frist.weight": "csr"}, "no weight has such a name; close: first.weight"),
        ({"embed.weight": "csr"}, "stays dense: Embedding looks rows up"),
        ({"few.weight": "crs"}, "crs"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            ct.compress_model(net(), plan)
    with pytest.raises(codec.ArgumentError, match="load the weights first"):
        ct.compress_model(nn.Linear(64, 64, device="meta"))
    with pytest.raises(codec.ArgumentError, match="objective"):
        ct.compress_model(net(), objective="fast")


def test_pruned_parametrised_hooked_and_single_layers() -> None:
    x = torch.randn(4, 96)
    pruned = nn.Linear(96, 64)
    prune.l1_unstructured(pruned, "weight", 0.9)
    prune.l1_unstructured(pruned, "bias", 0.5)

    class Mask(nn.Module):
        def forward(self, weight):
            return weight * (weight.abs() > 0.09)

    parametrised = nn.Linear(96, 64)
    parametrize.register_parametrization(parametrised, "weight", Mask())
    for layer in (pruned, parametrised):
        expected = layer(x)
        new = ct.compress_model(layer)
        assert type(new) is ct.SparseLinear
        assert layer is parametrised or new.packed.negative_zeros == 0  # torch leaves -0.0, folding does not
        torch.testing.assert_close(new(x), expected)
        assert set(new.state_dict()) == {"weight", "bias"}
        assert type(ct.to_dense(new)) is nn.Linear
    hooked = nn.Linear(96, 64)
    sparse(hooked.weight)
    hooked.register_forward_hook(lambda *_: None)
    assert ct.compress_model(hooked) is hooked

    class Own(nn.Linear):
        pass

    own = nn.Sequential(Own(96, 64))
    sparse(own[0].weight)
    assert type(ct.compress_model(own)[0]) is Own
    twice = nn.Linear(96, 96)
    sparse(twice.weight)
    model = nn.Sequential(twice, nn.ReLU(), twice)
    expected = model(x)
    ct.compress_model(model)
    assert model[0] is model[2]
    torch.testing.assert_close(model(x), expected)


def test_an_encoder_of_torch_does_not_take_its_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(96, 4, 256, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            sparse(parameter)
    x = torch.randn(2, 5, 96)
    with torch.no_grad():
        expected = model(x)
        ct.compress_model(model)
        assert len(packed_in(model)) == 4
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_stack_of_torch_with_padding_gets_no_nested_tensors() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(96, 4, 256, batch_first=True), 2).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            sparse(parameter)
    x, padding = torch.randn(2, 5, 96), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=padding)
        found = ct.compress_model(nn.Sequential(model))[0](x, src_key_padding_mask=padding)
    torch.testing.assert_close(found[~padding], expected[~padding], rtol=1e-4, atol=1e-5)


def test_packed_layers_follow_a_plan_when_they_are_saved(tmp_path) -> None:
    model, path = ct.compress_model(net()), tmp_path / "model.safetensors"
    expected = model(TOKENS, IMAGE)
    for objective in (None, "disk"):
        ct.save_model(model, path, objective=objective, plan={"first.weight": "csr", "second.*": {"layout": "bitmap"}})
        with safe_open(path) as file:
            assert [file.info(name).layout for name in ("first.weight", "second.weight")] == ["csr", "bitmap"]
    ct.save_model(model, path, plan={"*": "dense"})
    with safe_open(path) as file:
        assert {file.info(name).stored_as for name in file} == {"dense"}
        assert file.info("second.weight").alias_of == "first.weight"
    other = Net().eval()
    ct.load_model(other, path)
    same(other, expected)


class Reading(nn.Module):
    """As T5 has it: the dtype of one layer's weight, and another's weight in a function."""

    def __init__(self):
        super().__init__()
        self.wi, self.wo, self.out = nn.Linear(96, 96), nn.Linear(96, 96), nn.Linear(96, 96)

    def forward(self, x):
        return nn.functional.linear(self.wo(self.wi(x).to(self.wo.weight.dtype)), self.out.weight)


def test_weights_that_the_model_reads_itself_stay_dense(caplog) -> None:
    model, x = nn.Sequential(Reading()), torch.randn(2, 96)
    for parameter in model.parameters():
        sparse(parameter)
    expected = model(x)
    with caplog.at_level(logging.INFO, "codec.torch"):
        ct.compress_model(model)
    assert packed_in(model) == {"0.wi"}
    torch.testing.assert_close(model(x), expected)
    assert "0.wo.weight stays dense: the forward pass of Reading reads the layer's weight" in caplog.text
    odd = nn.Sequential(nn.Linear(96, 96, dtype=torch.complex64))
    with caplog.at_level(logging.INFO, "codec.torch"):
        assert not packed_in(ct.compress_model(odd))
    assert "cannot code dtype complex64" in caplog.text


def test_what_pays_depends_on_the_batch(tmp_path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    dense = nn.Sequential(nn.Linear(96, 128, dtype=torch.bfloat16), nn.Linear(128, 96, dtype=torch.bfloat16))
    sparse(dense[0].weight, 0.2)
    sparse(dense[1].weight, 0.5)
    codec.save_file(dense.state_dict(), path)
    for batch, packed in ((1, {"0", "1"}), (None, {"1"}), (16, {"1"}), (256, set())):
        assert packed_in(ct.compress_model(copy.deepcopy(dense), batch=batch)) == packed
        loaded = copy.deepcopy(dense)
        ct.load_model(loaded, path, batch=batch)
        assert packed_in(loaded) == packed
        fastest = codec.encode(dense[1].weight, objective="speed", batch=batch).layout
        assert "1" not in packed or loaded[1].packed.layout == fastest
    with pytest.raises(codec.ArgumentError, match="batch=0"):
        ct.compress_model(dense, batch=0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("objective", ["speed", "memory", None])
def test_files(tmp_path, device, objective) -> None:
    model, path = net(), tmp_path / "model.safetensors"
    expected = model(TOKENS, IMAGE)
    ct.save_model(model, path, {"author": "someone"})
    with safe_open(path) as file:
        assert file.metadata()["author"] == "someone"
        assert file.info("attention.in_proj_weight").stored_as == "frame"
        assert {file.info("head.weight").alias_of, file.info("embed.weight").alias_of} != {None}
        stored = file.info("first.weight").layout
    with torch.device(device):
        other = Net().eval()
    assert ct.load_model(other, path, objective=objective) == ([], [])
    assert packed_in(other) == (PACKED if objective == "speed" else PACKED | {"conv", "few"})
    assert not any(tensor.device.type == "meta" for tensor in other.state_dict().values())
    assert other.head.weight is other.embed.weight
    assert other.first.weight is other.second.weight
    assert objective is not None or other.first.packed.layout == stored
    same(other, expected)
    again = tmp_path / "again.safetensors"
    for wish in (None, "disk"):
        ct.save_model(other, again, objective=wish)
        third = Net().eval()
        assert ct.load_model(third, again, dense=True) == ([], [])
        assert not packed_in(third)
        same(third, expected)
    ct.save_model(net(), again, plan={"*": "dense"})
    ct.load_model(other, again)  # a file of dense weights makes dense layers
    assert not packed_in(other)
    same(other, expected)


def test_names_that_do_not_fit(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    state = {name: t for name, t in net().state_dict().items() if name != "rnn.bias_hh_l0"}
    state["frist.weight"] = state.pop("first.weight")
    state["second.weight"] = state["second.weight"].clone()
    codec.save_file(state, path)
    model = net()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(codec.ArgumentError) as caught:
        ct.load_model(model, path)
    for words in ("lacks 'rnn.bias_hh_l0'", "the model lacks 'frist.weight'", "strict=False"):
        assert words in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    # 'first.weight' is tied to 'second.weight', which is there.
    assert ct.load_model(model, path, strict=False) == (["rnn.bias_hh_l0"], ["frist.weight"])
    pruned = nn.Sequential(prune.l1_unstructured(nn.Linear(5, 3), "weight", 0.5))
    codec.save_file(ct.fold_masks(pruned.state_dict()), path)
    assert ct.load_model(nn.Sequential(nn.Linear(5, 3)), path) == ([], [])
    with pytest.warns(UserWarning, match="split in weights and mask"):
        ct.save_model(pruned, path)
    with pytest.raises(codec.ArgumentError, match=r"In the file, pruned tensors are split .* `codec encode --fold`"):
        ct.load_model(nn.Sequential(nn.Linear(5, 3)), path)
    codec.save_file({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, path)
    with pytest.raises(codec.ArgumentError, match=r"'weight' is \(3, 4\) in the file, and \(3, 5\) in the model"):
        ct.load_model(nn.Linear(5, 3), path)
    codec.save_file({"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)}, path)
    with pytest.raises(codec.ArgumentError, match=r"'0\.weight' of the model has no shape yet"):
        ct.load_model(nn.Sequential(nn.LazyLinear(3)), path)
    alone = ct.SparseLinear(4, 3)
    for own, dense in ((torch.ones(3, 4), False), (codec.encode(torch.ones(3, 4)), True)):
        codec.save_file({"weight": own, "bias": torch.ones(3)}, path)
        with pytest.raises(codec.ArgumentError, match="the model itself is a packed layer"):
            ct.load_model(alone, path, dense=dense)
    assert ct.load_model(alone, path) == ([], [])
    torch.testing.assert_close(alone(torch.ones(4)), torch.full((3,), 5.0))
    with pytest.raises(FileNotFoundError):
        ct.load_model(nn.Linear(5, 3), tmp_path / "nothing.safetensors")


def test_arguments_of_other_types_and_names(tmp_path) -> None:
    path, model = tmp_path / "model.safetensors", nn.Sequential(nn.Linear(8, 8))
    state = model.state_dict()
    ct.save_model(model, path)
    for run, words in (
        (lambda: ct.compress_model("model"), "of type str; expected an nn.Module"),
        (lambda: ct.to_dense(None), "of type NoneType"),
        (lambda: ct.parameter_count(3), "of type int"),
        (lambda: ct.save_model(state, path), "OrderedDict; expected an nn.Module; codec.save_file"),
        (lambda: ct.load_model(state, path), "OrderedDict; expected an nn.Module; codec.save_file"),
        (lambda: ct.save_model(model, path, plan={"0.wieght": "csr"}), "no tensor has such a name; close: 0.weight"),
        (lambda: ct.save_model(model, path, plan={"0.weight": None}), "gives '0.weight': None; expected"),
        (lambda: ct.compress_model(model, {0: "csr"}), "gives 0: 'csr'; expected a tensor's name"),
        (lambda: ct.load_model(model, path, objective="fast"), "objective='fast'"),
        (lambda: ct.load_model(model, path, batch=0), "batch=0"),
        (lambda: ct.SparseLinear(8, 8).hold("weight"), "a packed weight is a str"),
        (lambda: ct.to_numpy("weight"), "a str; expected a torch tensor"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            run()


LOAD = """
import torch, codec.torch
from torch import nn
with torch.device("meta"):
    model = nn.Sequential(*[nn.Linear(4096, 4096) for _ in range(6)])
started()
codec.torch.load_model(model, sys.argv[1])
packed = sum(module.weight.numel() for module in model)
model(torch.ones(1, 4096))
print(json.dumps(packed))
"""


@needs_proc
def test_nothing_dense_is_made_while_loading(tmp_path) -> None:
    path, generator = tmp_path / "model.safetensors", torch.manual_seed(0)
    w = torch.randn(4096, 4096, generator=generator) * (torch.rand(4096, 4096, generator=generator) < 0.1)
    packed = [codec.encode(torch.roll(w, n, 0), objective="memory") for n in range(6)]
    codec.save_file(
        {f"{n}.weight": p for n, p in enumerate(packed)} | {f"{n}.bias": torch.zeros(4096) for n in range(6)}, path
    )
    most, held = peak(LOAD, path)
    assert held < most <= held + (64 << 20)  # one dense weight alone has 64 MiB
