"""Conv1D of transformers, whose weights lie (in, out): GPT-2 runs, generates and is saved from packed ones."""

import copy
import json
import os
import subprocess
import sys

import pytest
from commands import facts

import codec

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks the hub
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")

from transformers.pytorch_utils import Conv1D  # noqa: E402

import codec.hf  # noqa: E402
from codec.torch import SparseConv1D, SparseLinear, compress_model, load_model, save_model, to_dense  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:You passed `quantization_config`")
transformers.logging.disable_progress_bar()
TOKENS = torch.arange(1, 13).reshape(2, 6)
NAMES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def sparse(model, share=0.8):
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            with torch.no_grad():
                parameter *= torch.rand(parameter.shape, generator=torch.manual_seed(len(name))) >= share
    return model.eval()


def gpt2(**options):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=128, n_positions=64, n_embd=96, n_layer=2, n_head=4, eos_token_id=0, bos_token_id=0, **options
    )
    return sparse(transformers.GPT2LMHeadModel(config))


def packed_in(model, kind=SparseConv1D):
    return {name for name, module in model.named_modules() if isinstance(module, kind)}


ALL = {f"transformer.h.{n}.{name}" for n in range(2) for name in NAMES}


def same(model, expected, bound=1e-5):
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["auto", "bitmap", "csr", "dense"])
def test_a_layer(dtype, layout) -> None:
    torch.manual_seed(1)
    dense = sparse(Conv1D(80, 64)).to(dtype)
    layer = SparseConv1D.from_dense(dense, layout=layout, objective="speed")
    assert layer.packed.shape == (80, 64)
    assert "nf=80, nx=64, bias=True, layout=" in repr(layer)
    bound = {torch.bfloat16: 0.05, torch.float16: 0.01}.get(dtype, 1e-5)
    for shape in ((64,), (1, 64), (3, 64), (2, 5, 64), (40, 64)):
        x, y = (torch.randn(shape, generator=torch.manual_seed(2)).to(dtype).requires_grad_() for _ in range(2))
        for _ in range(2):
            found, expected = layer(x), dense(y)
            torch.testing.assert_close(found, expected, rtol=bound, atol=bound)
            with torch.no_grad():
                torch.testing.assert_close(layer(x), expected, rtol=bound, atol=bound)
        found.float().square().sum().backward()
        expected.float().square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=4 * bound, atol=4 * bound)
    back = layer.to_dense()
    assert type(back) is Conv1D
    assert torch.equal(back.weight, dense.weight)
    assert back.bias is layer.bias
    with pytest.raises(codec.ArgumentError, match="shapes do not match"):
        layer(torch.ones(2, 80, dtype=dtype))
    with pytest.raises(codec.ArgumentError, match="the layer is a Conv1D; expected Linear"):
        SparseLinear.from_dense(dense)
    with pytest.raises(codec.ArgumentError, match="the layer is a Linear; expected Conv1D"):
        SparseConv1D.from_dense(torch.nn.Linear(64, 80))


def test_a_model_is_packed_and_becomes_dense_again(tmp_path) -> None:
    model = gpt2()
    expected, dense = model(TOKENS).logits.detach(), copy.deepcopy(model)
    compress_model(model)
    assert packed_in(model) == ALL
    same(model, expected)
    same(torch.compile(model, fullgraph=True, backend="aot_eager"), expected)
    options = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(TOKENS), "pad_token_id": 0}
    assert torch.equal(model.generate(TOKENS, **options), dense.generate(TOKENS, **options))
    save_model(model, tmp_path / "model.safetensors", objective="disk")
    with torch.device("meta"):
        other = transformers.GPT2LMHeadModel(model.config).eval()
    assert load_model(other, tmp_path / "model.safetensors") == ([], [])
    assert packed_in(other) == ALL
    same(other, expected)
    for plan, names in ((None, ALL), ({"*.mlp.*": "dense"}, {n for n in ALL if "mlp" not in n}), ({"*": "csr"}, ALL)):
        for objective in ("speed", None):
            save_model(other, tmp_path / "again.safetensors", plan=plan)
            third = compress_model(gpt2())  # a file of dense weights makes dense layers of packed ones
            assert load_model(third, tmp_path / "again.safetensors", objective=objective) == ([], [])
            assert packed_in(third) == names
            same(third, expected)
    with codec.safe_open(tmp_path / "again.safetensors") as file:
        assert file.info("transformer.h.0.mlp.c_fc.weight").shape == (96, 384)
        assert file.info("transformer.h.0.mlp.c_fc.weight").layout == "csr"
    assert third.transformer.h[0].mlp.c_fc.packed.layout == "csr"
    assert third.transformer.h[0].mlp.c_fc.packed.shape == (384, 96)
    fourth = compress_model(gpt2(), {"*.c_fc.weight": "bitmap"})
    fourth.load_state_dict(third.state_dict())
    assert fourth.transformer.h[0].mlp.c_fc.packed.layout == "csr"
    same(fourth, expected)
    assert not packed_in(to_dense(model))
    same(model, expected, 0)


def test_folders(tmp_path) -> None:
    model = gpt2(tie_word_embeddings=False)
    expected = model(TOKENS).logits.detach()
    model.save_pretrained(tmp_path / "dense")
    facts("encode", tmp_path / "dense", tmp_path / "packed")
    codec.hf.save_pretrained(model, tmp_path / "saved", max_shard_size="100KB")
    opened = transformers.AutoModelForCausalLM.from_pretrained
    for folder in ("packed", "saved"):
        found = opened(tmp_path / folder)
        assert packed_in(found) == ALL
        assert packed_in(found, SparseLinear) == {"lm_head"}
        same(found, expected)
        found.save_pretrained(tmp_path / "again")
        again = opened(tmp_path / "again", quantization_config=codec.hf.CodecConfig(ignore=["c_fc"]))
        assert packed_in(again) == {name for name in ALL if not name.endswith("c_fc")}
        same(again, expected)
        config = json.loads((tmp_path / "again" / "config.json").read_text())
        assert config["quantization_config"]["num_parameters"] == model.num_parameters()
    dense = opened(tmp_path / "packed", quantization_config=codec.hf.CodecConfig(dequantize=True))
    assert not packed_in(dense)
    same(dense, expected, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_weights_stay_shared(tmp_path, dtype) -> None:
    dense = torch.nn.Sequential(sparse(Conv1D(128, 96)).to(dtype))
    for bits in (3, 8):
        plan = {"0.weight": {"layout": "bitmap", "values": "codebook", "value_bits": bits}}
        save_model(dense, tmp_path / "model.safetensors", plan=plan)
        for objective, layout in (("speed", "sell"), (None, "bitmap")):
            model = torch.nn.Sequential(Conv1D(128, 96).to(dtype))
            load_model(model, tmp_path / "model.safetensors", objective=objective)
            packed = model[0].packed
            assert packed.layout == layout
            assert packed.values == ("codebook" if bits == 3 else "raw")  # 256 entries and a zero are too many
            save_model(model, tmp_path / "again.safetensors")
            with (
                codec.safe_open(tmp_path / "model.safetensors") as a,
                codec.safe_open(tmp_path / "again.safetensors") as b,
            ):
                first, second = a.get_packed("0.weight"), b.get_packed("0.weight")
            assert (first.to_dense() == second.to_dense()).all()
            assert second.values == packed.values
            save_model(model, tmp_path / "raw.safetensors", plan={"0.weight": {"values": "raw"}})
            assert codec.load_file(tmp_path / "raw.safetensors", packed=True)["0.weight"].values == "raw"


WITHOUT = """
import sys, torch, transformers, codec.torch
model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=128, n_embd=96, n_layer=1, n_head=4))
for parameter in model.parameters():
    parameter.data *= torch.rand(parameter.shape) > 0.8
print(sum(isinstance(module, codec.torch.SparseConv1D) for module in codec.torch.compress_model(model).modules()))
print(codec.torch.SparseConv1D.from_dense(transformers.pytorch_utils.Conv1D(64, 96)).packed.shape)
"""


def test_without_codec_hf() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["4", "(64, 96)"]
