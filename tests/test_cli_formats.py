"""codec convert between our files and those of other tools, and codec formats."""

import json

import numpy as np
import pytest
from commands import assert_same, facts, refused, run, write_plain
from networks import fully_connected
from safetensors.numpy import save_file

import codec
from codec.formats import FORMATS, open_file, write_file
from codec.formats.base import array_of


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of compressed-tensors in two shards, as Hugging Face has them."""
    rng = np.random.default_rng(0)
    tensors, weight_map, place = {}, {}, tmp_path / "checkpoint"
    place.mkdir()
    for number in (1, 2):
        name = f"model-{number:05d}-of-00002.safetensors"
        own = {f"l{number}.weight": prune(rng, (64, 96)), f"l{number}.bias": np.ones(64, np.float32)}
        write_file(own, place / name, "sparse-bitmask")
        with codec.safe_open(place / name) as model:
            weight_map |= dict.fromkeys(model.keys(), name)
        tensors |= own
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {"sparsity_config": {"format": "sparse-bitmask"}, "quant_method": "compressed-tensors"}
    (place / "config.json").write_text(json.dumps({"model_type": "m", "quantization_config": config}))
    (place / "tokenizer.json").write_text("{}")
    return place, tensors


def prune(rng, shape):
    return np.where(rng.random(shape) < 0.2, rng.standard_normal(shape), 0).astype(np.float32)


def test_a_folder_of_an_orphaned_format(folder, tmp_path):
    place, tensors = folder
    found = facts("convert", place, tmp_path / "packed")
    assert (found["from"], found["to"], found["sparse"]) == ("sparse-bitmask", "codec", ["l1.weight", "l2.weight"])
    assert found["file_bytes"] < found["dense_nbytes"] / 2
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == sorted(
        path.name.replace("model", "model.codec") for path in place.iterdir()
    )
    said = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]
    assert (said["quant_method"], said["weights"]) == ("codec", "model.codec.safetensors.index.json")
    assert_same(tmp_path / "packed", tensors)
    back = facts("convert", tmp_path / "packed", tmp_path / "back", "--to", "sparse-bitmask")
    assert back["from"] == "codec"
    said = json.loads((tmp_path / "back" / "config.json").read_text())["quantization_config"]["sparsity_config"]
    assert said["format"] == "sparse-bitmask"
    assert 0.75 < said["global_sparsity"] < 0.85
    with open_file(tmp_path / "back") as source:
        assert source.format == "sparse-bitmask"
        for name, a in tensors.items():
            assert array_of(source[name]).tobytes() == a.tobytes()


def test_a_vestigial_configuration_goes(tmp_path):
    place = tmp_path / "dense"
    place.mkdir()
    rng = np.random.default_rng(1)
    save_file({"w": prune(rng, (64, 64))}, place / "model.safetensors")
    (place / "config.json").write_text(
        json.dumps({"a": 1, "compression_config": {"sparsity_config": {"format": "dense"}}})
    )
    for target in ("safetensors", "codec"):
        assert run("convert", place, tmp_path / target, "--to", target).exit_code == 0
        assert json.loads((tmp_path / target / "config.json").read_text()) == {"a": 1}


def test_a_pickle(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune as tool

    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 10))
    tool.l1_unstructured(model[0], "weight", 0.8)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    found = facts("convert", tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert found["from"] == "torch"
    tool.remove(model[0], "weight")
    expected = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    assert_same(tmp_path / "model.safetensors", expected)
    hub = tmp_path / "hub"
    hub.mkdir()
    torch.save(model.state_dict(), hub / "pytorch_model.bin")
    torch.save(1, hub / "training_args.bin")
    assert facts("convert", hub, tmp_path / "from-hub")["left_behind"] == ["training_args.bin"]
    assert_same(tmp_path / "from-hub", expected)
    (hub / "pytorch_model.bin").rename(hub / "other.bin")
    refused(run("convert", hub, tmp_path / "x", "--from", "torch"), 2, "holds no model of torch.save, or several")
    torch.save(model, tmp_path / "whole.pt")
    refused(run("convert", tmp_path / "whole.pt", tmp_path / "x.safetensors"), 1, "weights_only=True", "state_dict()")
    shards = tmp_path / "shards"
    shards.mkdir()
    weight_map = {}
    for number, (name, value) in enumerate(model.state_dict().items(), 1):
        file = f"pytorch_model-{number:05d}-of-00004.bin"
        torch.save({name: value}, shards / file)
        weight_map[name] = file
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert facts("convert", shards, tmp_path / "packed")["left_behind"] == ["pytorch_model.bin.index.json"]
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == [
        *(f"model-{n:05d}-of-00004.safetensors" for n in range(1, 5)),
        "model.safetensors.index.json",
    ]
    assert_same(tmp_path / "packed", expected)


def test_onnx_and_back_into_the_network(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(w, "w")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "dense.onnx")
    assert run("convert", tmp_path / "dense.onnx", tmp_path / "w.safetensors").exit_code == 0
    assert run("prune", tmp_path / "w.safetensors", tmp_path / "p.safetensors", "--sparsity", 0.9).exit_code == 0
    arguments = (
        tmp_path / "p.safetensors",
        tmp_path / "sparse.onnx",
        "--to",
        "onnx",
        "--like",
        tmp_path / "dense.onnx",
    )
    assert facts("convert", *arguments)["sparse"] == ["w"]
    model = onnx.load(tmp_path / "sparse.onnx")
    assert (len(model.graph.node), len(model.graph.sparse_initializer)) == (1, 1)
    # The network stays also without --like where it is the source's own.
    assert (
        run("convert", tmp_path / "sparse.onnx", tmp_path / "again.onnx", "--to", "onnx", "--exclude", "*").exit_code
        == 0
    )
    assert len(onnx.load(tmp_path / "again.onnx").graph.initializer) == 1


def test_tflite_needs_a_network(tmp_path):
    pytest.importorskip("ai_edge_litert")
    w = prune(np.random.default_rng(0), (16, 64))
    (tmp_path / "like.tflite").write_bytes(fully_connected(np.ones_like(w)))
    save_file({"fc.weight": w}, tmp_path / "m.safetensors")
    arguments = ("convert", tmp_path / "m.safetensors", tmp_path / "m.tflite", "--to", "tflite")
    refused(run(*arguments), 2, "name one whose tensors are to be replaced (--like)")
    assert facts(*arguments, "--like", tmp_path / "like.tflite")["sparse"] == ["fc.weight"]
    assert np.array_equal(open_file(tmp_path / "m.tflite")["fc.weight"].to_dense(), w)
    refused(run("convert", tmp_path / "m.tflite", tmp_path / "m.tflite", "--force"), 2, "the name of a file of tflite")
    arguments = ("convert", tmp_path / "m.tflite", tmp_path / "m.tflite", "--to", "tflite", "--force")
    refused(run(*arguments), 2, "is the source itself")


def test_a_file_for_each_tensor(plain, tmp_path, tensors):
    arguments = ("convert", plain, tmp_path / "matrices", "--to", "scipy")
    refused(run(*arguments), 2, "tensor 'half': scipy has no sparse BF16", "--exclude keeps it dense")
    refused(
        run(*arguments, "--exclude", "half"),
        2,
        "tensor 'half': scipy leaves dense tensors to .npy files, which have no bfloat16",
    )
    del tensors["half"]
    tensors["a/b c"] = tensors.pop("bias")
    tensors[".."] = tensors["a/b c"] + 1
    write_plain(plain, tensors)
    refused(run("convert", plain, tmp_path / "one.npz", "--to", "scipy"), 2, "there are 4: name a folder")
    arguments = ("convert", plain, tmp_path / "fresh", "--to", "scipy")
    assert facts(*arguments)["sparse"] == ["w"]
    assert sorted(path.name for path in (tmp_path / "fresh").iterdir()) == [
        "%2E..npy",
        "a%2Fb%20c.npy",
        "steps.npy",
        "w.npz",
    ]
    refused(run(*arguments), 2, "exists already", "--force")
    assert run("convert", tmp_path / "fresh", tmp_path / "back.safetensors").exit_code == 0
    assert_same(tmp_path / "back.safetensors", tensors)


def test_which_tensors_go_sparse(plain, tmp_path):
    arguments = ("convert", plain, tmp_path / "m.safetensors", "--to", "coreml", "--force")
    refused(run(*arguments), 2, "tensor 'half': coreml has no sparse BF16; it has F32, F16, I8, U8")
    assert facts(*arguments, "--exclude", "half")["sparse"] == ["w"]
    assert facts(*arguments, "--exclude", "*")["sparse"] == []
    assert facts(*arguments, "--include", "bias")["sparse"] == ["bias"]
    refused(run(*arguments, "--include", "steps"), 2, "tensor 'steps': coreml has no sparse I64")
    refused(run(*arguments, "--include", "none"), 2, "no tensor has such a name")


def test_faults_in_the_command(plain, packed, tmp_path):
    out = tmp_path / "out.safetensors"
    refused(run("convert", plain, out, "--to", "sparse-bitmap"), 2, "'sparse-bitmap' is not one of", "'sparse-bitmask'")
    refused(run("convert", plain, out, "--to", "coreml", "--objective", "disk"), 2, "--objective is for our own files")
    refused(run("convert", packed, out, "--objective", "disk", "--like", plain), 2, "--like needs --to onnx")
    refused(run("convert", packed, out, "--to", "coreml", "--reindex"), 2, "stands alone")
    refused(run("convert", plain, out, "--from", "scipy"), 2, "holds no file that ends in .npz")
    (tmp_path / "notes.txt").write_text("nothing that anyone knows")
    refused(run("convert", tmp_path / "notes.txt", out), 1, "not a safetensors file")
    assert not out.exists()


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("codec.formats.base.find_spec", lambda name: None)
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    words = ("format onnx needs the package onnx", "pip install 'codec[onnx]'")
    refused(run("convert", tmp_path / "m.onnx", tmp_path / "m.safetensors"), 2, *words)
    save_file({"w": np.eye(64)}, tmp_path / "m.safetensors")
    refused(run("convert", tmp_path / "m.safetensors", tmp_path / "out.onnx", "--to", "onnx"), 2, *words)


def test_layouts_of_what_comes_in(plain, tmp_path):
    assert run("convert", plain, tmp_path / "m.safetensors", "--to", "sparse-bitmask", "--exclude", "*").exit_code == 0
    write_file({"w.weight": prune(np.random.default_rng(0), (64, 64))}, tmp_path / "b.safetensors", "sparse-bitmask")
    found = facts(
        "convert", tmp_path / "b.safetensors", tmp_path / "c.safetensors", "--layout", "csr", "--entropy", "none"
    )
    with codec.safe_open(found["output"]) as model:
        assert model.info("w.weight").layout == "csr"


@pytest.mark.parametrize("target", ["codec", "sparse-bitmask", "torch"])
def test_negative_zeros_are_counted(tmp_path, target):
    if FORMATS[target].modules:
        pytest.importorskip("torch")
    w = prune(np.random.default_rng(0), (64, 64))
    w[3, :] = -0.0
    save_file({"l.weight": w}, tmp_path / "m.safetensors")
    arguments = ("convert", tmp_path / "m.safetensors", tmp_path / f"out{FORMATS[target].suffix}", "--to", target)
    assert facts(*arguments)["negative_zeros"] == 64
    assert "64 negative zeros became +0.0" in run(*arguments, "--force").stdout


def test_formats_lists_them():
    rows = facts("formats")
    assert [row["format"] for row in rows] == list(FORMATS)
    text = run("formats").stdout
    for name, one in FORMATS.items():
        assert f"{name}: {one.summary}" in text
    assert text.splitlines()[0].split() == ["format", "extra", "in", "out"]


def test_masks_beside_weights_are_folded_by_every_verb(tmp_path):
    w, mask = np.random.default_rng(0).standard_normal((64, 64)), np.random.default_rng(1).random((64, 64)) < 0.2
    save_file({"m.weight": w.astype(np.float32), "m.mask": mask}, tmp_path / "m.safetensors")
    expected = {"m.weight": np.where(mask, w, 0).astype(np.float32)}
    assert facts("encode", tmp_path / "m.safetensors", tmp_path / "a.safetensors", "--fold")["folded"] == 1
    arguments = ("--fold", "--sparsity", 0.5, "--dense")
    assert facts("prune", tmp_path / "m.safetensors", tmp_path / "b.safetensors", *arguments)["folded"] == 1
    assert (
        run("convert", tmp_path / "m.safetensors", tmp_path / "c.safetensors", "--from", "safetensors").exit_code == 0
    )
    for name in "abc":
        assert_same(tmp_path / f"{name}.safetensors", expected)
