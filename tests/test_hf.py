"""transformers: packed folders run, shard, generate, are saved again, and are an error without codec.hf."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import facts, refused, run
from loading import needs_proc, peak

import codec

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks the hub
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")

import codec.hf  # noqa: E402
from codec.torch import SparseLinear, parameter_count  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:You passed `quantization_config`")
transformers.logging.disable_progress_bar()
TOKENS = torch.arange(1, 13).reshape(2, 6)


def sparse(model, share=0.8):
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            with torch.no_grad():
                parameter *= torch.rand(parameter.shape, generator=torch.manual_seed(len(name))) >= share
    return model.eval()


def llama(dtype=torch.float32, **options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, **options,
    )  # fmt: skip
    return sparse(transformers.LlamaForCausalLM(config)).to(dtype)


def opened(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(str(folder), **options)


def packed_in(model):
    return {name for name, module in model.named_modules() if isinstance(module, SparseLinear)}


def same(model, expected, bound=1e-5):
    with torch.no_grad():
        found = model(TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def field(folder):
    return json.loads((folder / "config.json").read_text()).get("quantization_config")


def weights(folder):
    return {path.name for path in folder.iterdir() if ".safetensors" in path.name}


@pytest.fixture
def dense(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "tokenizer.json").write_text("{}")
    return model, model(TOKENS).logits.detach(), tmp_path / "dense"


def test_a_folder_that_encode_packed(dense, tmp_path) -> None:
    model, expected, source = dense
    facts("encode", source, tmp_path / "packed")
    assert weights(tmp_path / "packed") == {"model.codec.safetensors"}
    assert (tmp_path / "packed" / "tokenizer.json").exists()
    assert field(tmp_path / "packed") == {
        "quant_method": "codec",
        "format": "frames",
        "weights": "model.codec.safetensors",
        "num_parameters": model.num_parameters(),
    }
    found = opened(tmp_path / "packed")
    assert len(packed_in(found)) == 15
    assert found.lm_head.packed.layout == "sell"
    assert parameter_count(found) == model.num_parameters()
    same(found, expected)
    same(torch.compile(found, fullgraph=True, backend="aot_eager"), expected)
    options = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(TOKENS), "pad_token_id": 0}
    assert torch.equal(found.generate(TOKENS, **options), model.generate(TOKENS, **options))
    for objective in (None, "memory"):
        kept = opened(tmp_path / "packed", quantization_config=codec.hf.CodecConfig(objective=objective))
        same(kept, expected)
    facts("decode", tmp_path / "packed", tmp_path / "again")
    assert weights(tmp_path / "again") == {"model.safetensors"}
    assert field(tmp_path / "again") is None
    same(opened(tmp_path / "again"), expected, 0)


def test_a_folder_that_convert_packed(dense, tmp_path) -> None:
    _, expected, source = dense
    facts("convert", source, tmp_path / "bitmask", "--to", "sparse-bitmask")
    facts("convert", tmp_path / "bitmask", tmp_path / "packed")
    found = opened(tmp_path / "packed")
    assert len(packed_in(found)) == 15
    same(found, expected)


def test_saved_in_shards_with_a_dense_head_and_saved_again(dense, tmp_path) -> None:
    model, expected, _ = dense
    first, second = tmp_path / "first", tmp_path / "second"
    codec.hf.save_pretrained(model, first, ignore=["lm_head"], max_shard_size="200KB")
    assert "model.codec.safetensors.index.json" in weights(first)
    assert len(weights(first)) > 3
    index = json.loads((first / "model.codec.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == model.num_parameters() == field(first)["num_parameters"]
    with codec.safe_open(first) as file:
        assert file.info("lm_head.weight").stored_as == "dense"
        file.verify()
    found = opened(first)
    assert len(packed_in(found)) == 14
    same(found, expected)
    found.save_pretrained(second)  # codec.hf's own: that of transformers would name the weights as dense ones are
    assert weights(second) == {"model.codec.safetensors"}
    assert field(second)["ignore"] == ["lm_head"]
    again = opened(second)
    assert packed_in(again) == packed_in(found)
    same(again, expected)
    again.save_pretrained(first, objective="disk")  # over the shards, which go
    assert weights(first) == {"model.codec.safetensors"}
    same(opened(first), expected)


def test_dequantized(dense, tmp_path) -> None:
    _, expected, source = dense
    facts("encode", source, tmp_path / "packed")
    for found in (
        opened(tmp_path / "packed", quantization_config=codec.hf.CodecConfig(dequantize=True)),
        opened(tmp_path / "packed").dequantize(),
    ):
        assert not packed_in(found)
        same(found, expected, 0 if found.lm_head.weight.dtype == torch.float32 else 1e-5)
        found(TOKENS, labels=TOKENS).loss.backward()
        assert found.lm_head.weight.grad is not None
        found.save_pretrained(tmp_path / "dense again")
        assert weights(tmp_path / "dense again") == {"model.safetensors"}
        assert field(tmp_path / "dense again") is None


def test_a_dense_model_is_packed_while_it_is_loaded(dense) -> None:
    _, expected, source = dense
    config = codec.hf.CodecConfig(ignore=["lm_head", "model.layers.0.*"], plan={"*.1.mlp.up_proj.weight": "csr"})
    found = opened(source, quantization_config=config)
    assert len(packed_in(found)) == 7
    assert found.model.layers[1].mlp.up_proj.packed.layout == "csr"
    same(found, expected)


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_and_ties(tmp_path, tied) -> None:
    model = llama(torch.bfloat16, tie_word_embeddings=tied)
    with torch.no_grad():
        expected = model(TOKENS).logits
    codec.hf.save_pretrained(model, tmp_path)
    found = opened(tmp_path)
    assert found.dtype == torch.bfloat16
    assert ("lm_head" in packed_in(found)) != tied
    assert (found.lm_head.weight is found.model.embed_tokens.weight) == tied
    assert parameter_count(found) == model.num_parameters() == field(tmp_path)["num_parameters"]
    same(found, expected, 0.05)  # torch rounds to bfloat16 between its steps, as we do


def test_experts_that_transformers_merges(tmp_path) -> None:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=256, hidden_size=96, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3,
    )  # fmt: skip
    model = sparse(transformers.MixtralForCausalLM(config))
    expected = model(TOKENS).logits.detach()
    model.save_pretrained(tmp_path / "dense")
    facts("encode", tmp_path / "dense", tmp_path / "packed")
    codec.hf.save_pretrained(model, tmp_path / "saved")
    for folder in ("packed", "saved"):
        found = opened(tmp_path / folder)
        assert len(packed_in(found)) >= 4
        same(found, expected)
        found.save_pretrained(tmp_path / f"{folder} again")
        same(opened(tmp_path / f"{folder} again"), expected)


def test_t5_reads_the_dtype_of_a_weight(tmp_path) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=64, d_model=96, d_kv=24, d_ff=128, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    model = sparse(transformers.T5ForConditionalGeneration(config))
    with torch.no_grad():
        expected = model(input_ids=TOKENS, decoder_input_ids=TOKENS).logits
    model.save_pretrained(tmp_path / "dense")
    codec.hf.save_pretrained(model, tmp_path / "packed")
    for folder, options in (("dense", {"quantization_config": codec.hf.CodecConfig()}), ("packed", {})):
        found = transformers.T5ForConditionalGeneration.from_pretrained(str(tmp_path / folder), **options)
        assert len(packed_in(found)) == 14
        assert not any(name.endswith(".wo") for name in packed_in(found))
        with torch.no_grad():
            logits = found(input_ids=TOKENS, decoder_input_ids=TOKENS).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_copies_and_what_a_batch_changes(dense, tmp_path) -> None:
    _, expected, source = dense
    facts("encode", source, tmp_path / "packed")
    found = opened(tmp_path / "packed", quantization_config=codec.hf.CodecConfig(batch=1))
    assert found.lm_head.packed.layout == "sell"
    twin = copy.deepcopy(found)
    found.lm_head.hold(codec.torch.SparseLinear.from_dense(llama(torch.float32).lm_head, layout="csr").weight)
    twin.save_pretrained(tmp_path / "twin")
    again = opened(tmp_path / "twin", quantization_config=codec.hf.CodecConfig(objective=None))
    assert again.lm_head.packed.layout == "sell"
    same(again, expected)
    assert "batch" not in field(tmp_path / "twin")


WITHOUT = """
import sys, transformers
for folder in sys.argv[1:]:
    for options in ({}, {"ignore_mismatched_sizes": True}):
        try:
            transformers.LlamaForCausalLM.from_pretrained(folder, **options)
        except OSError as error:
            print("refused:", str(error)[:60])
"""


def test_without_our_package_a_folder_is_an_error(dense, tmp_path) -> None:
    model, _, source = dense
    facts("encode", source, tmp_path / "packed")
    codec.hf.save_pretrained(model, tmp_path / "sharded", max_shard_size="200KB")
    opened(tmp_path / "packed").save_pretrained(tmp_path / "again")
    folders = [str(tmp_path / name) for name in ("packed", "sharded", "again")]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.count("refused: Error no file named model.safetensors") == 6, done.stdout + done.stderr


def test_equal_weights_are_stored_for_each_name(tmp_path) -> None:
    model = llama()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.copy_(model.model.layers[0].mlp.up_proj.weight)
    expected = model(TOKENS).logits.detach()
    model.save_pretrained(tmp_path / "dense")
    facts("encode", tmp_path / "dense", tmp_path / "packed")
    assert facts("convert", tmp_path / "packed", tmp_path / "fast", "--objective", "speed")["packed"] == 16
    codec.hf.save_pretrained(model, tmp_path / "saved")
    for name in ("packed", "fast", "saved"):
        same(opened(tmp_path / name), expected)
    with codec.safe_open(tmp_path / "packed") as file:
        state = {name: file.get_packed(name) for name in file}
    path = tmp_path / "packed" / "model.codec.safetensors"
    codec.save_file(state, tmp_path / "once.safetensors")  # here one of the two names is in the index alone
    path.write_bytes((tmp_path / "once.safetensors").read_bytes())
    with pytest.raises(codec.ArgumentError, match="where transformers does not find it"):
        opened(tmp_path / "packed")


def test_what_is_left_of_removed_formats_is_left_out(dense, tmp_path) -> None:
    _, expected, source = dense
    config = json.loads((source / "config.json").read_text())
    left = {"format": "dense", "sparsity_structure": "unstructured"}
    quantised = {"quant_method": "compressed-tensors", "sparsity_config": left, "config_groups": {}}
    for words in ({"sparsity_config": left}, {"compression_config": left}, {"quantization_config": quantised}):
        (source / "config.json").write_text(json.dumps({**config, **words}))
        facts("encode", source, tmp_path / "packed", "--force")
        assert field(tmp_path / "packed")["quant_method"] == "codec"
        same(opened(tmp_path / "packed"), expected)
        facts("decode", source, tmp_path / "plain", "--force")
        plain = json.loads((tmp_path / "plain" / "config.json").read_text())
        assert not {"sparsity_config", "compression_config", "quantization_config"} & set(plain)
        same(opened(tmp_path / "plain"), expected)
    quantised["config_groups"] = {"group_0": {}}
    (source / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    facts("encode", source, tmp_path / "packed", "--force")  # for storage: its own method stays
    assert field(tmp_path / "packed") == {"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}}
    assert weights(tmp_path / "packed") == {"model.codec.safetensors"}
    codec.save_file({"w.compressed": np.ones(3), "w.bitmask": np.ones(3)}, source / "model.safetensors")
    refused(run("encode", source, tmp_path / "other"), 2, "'w.compressed' is in a sparse format")


def test_refused(dense, tmp_path) -> None:
    model, _, source = dense
    packed = tmp_path / "packed"
    facts("encode", source, packed)
    for options, words in (
        ({"format": "pickle"}, "format 'pickle'"),
        ({"quant_method": "other"}, "method 'other'"),
        ({"objective": "fast"}, "objective='fast'"),
        ({"ignore": "lm_head"}, "expected a list of names"),
        ({"ignore": 3}, "expected a list of names"),
        ({"dequantize": "no"}, "expected True or False"),
        ({"plan": "csr"}, "plan is a str"),
        ({"batch": 0}, "batch=0"),
        ({"num_parameters": "many"}, "expected a count"),
        ({"weights": 3}, "expected a text"),
        ({"entropy_model": 2}, "'entropy_model', which this version does not know"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            codec.hf.CodecConfig(**options)
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"]["weights"] = "../dense/model.safetensors"
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="inside the model directory"):
        opened(packed)
    with pytest.raises(codec.ArgumentError, match=r"holds 'model\.safetensors', which transformers without codec"):
        codec.hf.save_pretrained(model, source)
    for options, words in (
        ({"ignore": ["lm_haed"]}, r"'lm_haed', and no module has such a name; close: lm_head"),
        ({"plan": {"lm_haed.weight": "csr"}}, r"close: lm_head\.weight"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            codec.hf.save_pretrained(model, tmp_path / "other", **options)
        with pytest.raises(codec.ArgumentError, match=words):
            opened(source, quantization_config=codec.hf.CodecConfig(**options))
    assert not weights(tmp_path / "other")
    with pytest.raises(codec.ArgumentError, match="expected a model of transformers"):
        codec.hf.save_pretrained(torch.nn.Linear(3, 3), tmp_path / "other")
    with pytest.raises(codec.ArgumentError, match="multiplied on the CPU"):
        codec.hf.CodecQuantizer(codec.hf.CodecConfig()).validate_environment(device_map={"": "cuda:0"})
    config["quantization_config"]["weights"] = "model.codec.safetensors"
    (packed / "config.json").write_text(json.dumps(config))
    path = packed / "model.codec.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises((codec.FormatError, RuntimeError)):
        opened(packed)(TOKENS)


MAPPED = """
import gc, sys, transformers, codec.hf
transformers.logging.disable_progress_bar()
models = [transformers.AutoModelForCausalLM.from_pretrained(folder) for folder in sys.argv[1:]]
gc.collect()
print(sum("model.codec.safetensors" in line for line in open("/proc/self/maps")))
"""


@needs_proc
def test_files_do_not_stay_mapped_for_the_sake_of_a_few_norms(dense, tmp_path) -> None:
    folders = [tmp_path / name for name in ("packed", "saved", "layouts as they are")]
    facts("encode", dense[2], folders[0])
    codec.hf.save_pretrained(dense[0], folders[1], objective="speed")
    opened(folders[1], quantization_config=codec.hf.CodecConfig(objective=None)).save_pretrained(folders[2])
    command = [sys.executable, "-c", MAPPED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # The last folder says that layouts stay as they are: its weights run from the mapped file.
    assert int(done.stdout) == 1


LOAD = """
import torch, transformers, codec.hf
from codec.torch import SparseLinear
transformers.logging.disable_progress_bar()
transformers.AutoModelForCausalLM.from_pretrained(sys.argv[2])  # what transformers imports at the first model
started()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
layers = [module for module in model.modules() if isinstance(module, SparseLinear)]
packed = sum(layer.weight.numel() for layer in layers) + sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps([packed, sum(layer.packed.dense_nbytes for layer in layers)]))
"""


@needs_proc
def test_nothing_dense_is_made_while_loading(dense, tmp_path) -> None:
    codec.hf.save_pretrained(dense[0], tmp_path / "small")
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=2048, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(1 << 23).astype(np.float32)
    pool[rng.random(len(pool)) < 0.9] = 0
    state = {name: pool[: tensor.numel()].reshape(tensor.shape) for name, tensor in model.state_dict().items()}
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path / "source")
    codec.save_file(state, tmp_path / "source" / "model.safetensors", objective="memory")
    codec.encode_checkpoint(tmp_path / "source", tmp_path / "packed", plan={"*": "dense"})  # as they are
    most, (packed, dense_nbytes) = peak(LOAD, tmp_path / "packed", tmp_path / "small")
    assert packed < most <= packed + (64 << 20) < dense_nbytes / 2
