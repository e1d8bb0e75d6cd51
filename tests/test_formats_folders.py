"""Folders of models from format to format: names of files, config.json, indexes, and what an interruption leaves."""

import json

import numpy as np
import pytest
from commands import assert_same, facts, refused, run
from safetensors.numpy import save_file

import codec
from codec.formats import FORMATS, open_file, write_file
from codec.formats.base import array_of

CONFIG = {"model_type": "bert", "hidden_size": 64}


def tensors(seed=0):
    rng = np.random.default_rng(seed)
    w = np.where(rng.random((64, 96)) < 0.2, rng.standard_normal((64, 96)), 0).astype(np.float32)
    return {"l.weight": w, "l.bias": np.ones(64, np.float32)}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "hf"
    place.mkdir()
    save_file(tensors(), place / "model.safetensors", {"format": "pt"})
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


def sharded(place, count=2):
    place.mkdir()
    weight_map = {}
    for number in range(1, count + 1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        own = {f"{number}.{key}": value for key, value in tensors(number).items()}
        save_file(own, place / name, {"format": "pt"})
        weight_map |= dict.fromkeys(own, name)
    index = {"metadata": {"total_size": 0, "kept": "yes"}, "weight_map": weight_map}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


def config(place):
    return json.loads((place / "config.json").read_text())


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_convert_writes_the_folder_that_encode_writes(folder, tmp_path):
    facts("encode", folder, tmp_path / "encoded")
    facts("convert", folder, tmp_path / "converted", "--to", "codec")
    assert names(tmp_path / "encoded") == names(tmp_path / "converted") == ["config.json", "model.codec.safetensors"]
    assert config(tmp_path / "encoded") == config(tmp_path / "converted")
    for name in names(tmp_path / "encoded"):
        assert (tmp_path / "encoded" / name).read_bytes() == (tmp_path / "converted" / name).read_bytes()


def test_shards_too(tmp_path):
    place = sharded(tmp_path / "hf")
    facts("encode", place, tmp_path / "encoded")
    facts("convert", place, tmp_path / "converted", "--to", "codec")
    assert names(tmp_path / "encoded") == names(tmp_path / "converted")
    assert config(tmp_path / "encoded") == config(tmp_path / "converted")
    index = "model.codec.safetensors.index.json"
    assert json.loads((tmp_path / "encoded" / index).read_text()) == json.loads(
        (tmp_path / "converted" / index).read_text()
    )


def test_a_pickle_of_the_hub_becomes_a_packed_folder(folder, tmp_path):
    torch = pytest.importorskip("torch")
    (folder / "model.safetensors").unlink()
    torch.save({name: torch.from_numpy(a) for name, a in tensors().items()}, folder / "pytorch_model.bin")
    facts("convert", folder, tmp_path / "packed")
    assert names(tmp_path / "packed") == ["config.json", "model.codec.safetensors"]
    said = config(tmp_path / "packed")["quantization_config"]
    assert (said["weights"], said["num_parameters"]) == ("model.codec.safetensors", 64 * 96 + 64)
    assert_same(tmp_path / "packed", tensors())


@pytest.mark.parametrize("target", ["safetensors", "sparse-bitmask"])
def test_a_packed_folder_becomes_one_of_another_format(folder, tmp_path, target):
    facts("encode", folder, tmp_path / "packed")
    facts("convert", tmp_path / "packed", tmp_path / "out", "--to", target)
    assert names(tmp_path / "out") == ["config.json", "model.safetensors"]
    said = config(tmp_path / "out")
    if target == "safetensors":
        assert said == CONFIG
    else:
        assert said["quantization_config"]["quant_method"] == "compressed-tensors"
        assert said["quantization_config"]["sparsity_config"]["format"] == target
    with open_file(tmp_path / "out") as source:
        assert source.format == target
        for name, a in tensors().items():
            assert array_of(source[name]).tobytes() == a.tobytes()


def test_a_real_quantization_in_the_old_place_stays(folder, tmp_path):
    groups = {"config_groups": {"group_0": {}}, "quant_method": "compressed-tensors"}
    old = {**CONFIG, "compression_config": {**groups, "sparsity_config": {"format": "dense"}}}
    (folder / "config.json").write_text(json.dumps(old))
    facts("convert", folder, tmp_path / "out", "--to", "safetensors")
    assert config(tmp_path / "out") == {**CONFIG, "compression_config": groups}


def test_texts_that_utf_8_does_not_have(folder, tmp_path):
    (folder / "config.json").write_text('{"model_type": "bert", "odd": "\\ud800\\u00e9", "sparsity_config": {}}')
    for verb in ("encode", "convert"):
        arguments = ("--to", "safetensors") if verb == "convert" else ()
        facts(verb, folder, tmp_path / verb, *arguments)
        assert config(tmp_path / verb)["odd"] == "\ud800\u00e9"


def test_what_an_index_says_besides_stays(tmp_path):
    facts("convert", sharded(tmp_path / "hf"), tmp_path / "out", "--to", "sparse-bitmask")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["kept"] == "yes"


def test_no_shards_of_an_earlier_model_stay(tmp_path):
    facts("convert", sharded(tmp_path / "three", 3), tmp_path / "out", "--to", "safetensors")
    result = run("convert", sharded(tmp_path / "two", 2), tmp_path / "out", "--to", "safetensors", "--force")
    assert "Removed shards of an earlier model: 'model-00001-of-00003.safetensors'" in result.stderr.replace(
        f"{tmp_path}/out/", ""
    )
    assert len(names(tmp_path / "out")) == 4


def test_two_models_do_not_share_a_folder(folder, tmp_path):
    facts("convert", sharded(tmp_path / "shards"), tmp_path / "out", "--to", "safetensors")
    result = run("convert", folder, tmp_path / "out", "--to", "safetensors", "--force")
    refused(result, 2, "holds another model")


@pytest.mark.parametrize("verb", ["encode", "convert"])
def test_packed_weights_do_not_lie_beside_plain_ones(folder, tmp_path, verb):
    facts("convert", folder, tmp_path / "bitmask", "--to", "sparse-bitmask")
    source = folder if verb == "encode" else tmp_path / "bitmask"
    target = tmp_path / "there"
    target.mkdir()
    save_file(tensors(), target / "model.safetensors")
    refused(run(verb, source, target, "--force"), 2, "holds another model, 'model.safetensors'")


def test_a_name_of_another_format_is_refused(tmp_path):
    save_file(tensors(), tmp_path / "m.safetensors")
    words = "is the name of a file of onnx, and a file of codec ends in .safetensors: give another name"
    refused(run("convert", tmp_path / "m.safetensors", tmp_path / "m.onnx", "--from", "safetensors"), 2, words)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_file_of_another_kind_is_called_what_it_is(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    found = run("inspect", tmp_path / "m.pt").stderr
    assert found.startswith(f"Error: '{tmp_path}/m.pt': not a safetensors file, but a PyTorch checkpoint")
    assert "`codec convert`" in found


def test_a_folder_without_permission_names_the_file(tmp_path, monkeypatch):
    import tempfile

    save_file(tensors(), tmp_path / "m.safetensors")

    def refuses(**options):
        raise PermissionError(13, "Permission denied", f"{options['dir']}/{options['prefix']}x")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuses)
    result = run("convert", tmp_path / "m.safetensors", tmp_path / "x.safetensors", "--to", "codec")
    assert result.stderr == f"Error: {tmp_path}/x.safetensors: Permission denied\n"


def test_a_failure_leaves_what_was_there(folder, tmp_path):
    out = tmp_path / "out"
    facts("convert", folder, out, "--to", "coreml")
    before = {name: (out / name).read_bytes() for name in names(out)}
    save_file({"l.weight": tensors()["l.weight"], "n.weight": np.eye(64)}, folder / "model.safetensors")
    refused(run("convert", folder, out, "--to", "coreml", "--force"), 2, "coreml has no sparse F64")
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_files_of_one_tensor_that_was_not_finished_go(tmp_path, monkeypatch):
    made = FORMATS["tca-bme"].write_sparse.__globals__
    original, calls = made["write_atomic"], []

    def fails(path, parts):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", path)
        original(path, parts)

    monkeypatch.setitem(made, "write_atomic", fails)
    with pytest.raises(OSError, match="No space"):
        write_file({"w": np.eye(64, dtype=np.float16)}, tmp_path, "tca-bme")
    assert not list(tmp_path.iterdir())


def test_shards_whose_new_names_would_be_one(tmp_path):
    torch = pytest.importorskip("torch")
    place = tmp_path / "hub"
    place.mkdir()
    weight_map = {}
    for file in ("pytorch_model-1.bin", "model-1.bin"):
        torch.save({file: torch.ones(4)}, place / file)
        weight_map[file] = file
    (place / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    facts("convert", place, tmp_path / "out", "--to", "safetensors")
    with codec.safe_open(tmp_path / "out") as model:
        assert sorted(model.keys()) == sorted(weight_map)


def test_the_way_out_of_a_removed_format_is_named(tmp_path):
    place = tmp_path / "hf"
    place.mkdir()
    write_file(tensors(), place / "model.safetensors", "sparse-bitmask")
    (place / "config.json").write_text(
        json.dumps({**CONFIG, "quantization_config": {"sparsity_config": {"format": "sparse-bitmask"}}})
    )
    refused(run("encode", place, tmp_path / "out"), 2, "`codec convert` reads it")
    facts("convert", place, tmp_path / "out")
    assert config(tmp_path / "out")["quantization_config"]["quant_method"] == "codec"


def test_a_single_file_of_a_dense_tensor_is_named_as_it_is(tmp_path):
    save_file({"bias": np.ones(8, np.float32)}, tmp_path / "m.safetensors")
    found = facts("convert", tmp_path / "m.safetensors", tmp_path / "bias.npz", "--to", "scipy")
    assert found["output"] == str(tmp_path / "bias.npy")


def test_metadata_that_has_no_room_is_told(tmp_path):
    save_file({"w": np.eye(64)}, tmp_path / "m.safetensors", {"license": "mit"})
    result = run("convert", tmp_path / "m.safetensors", tmp_path / "w.npz", "--to", "scipy")
    assert "Metadata left out, for which scipy has no room: 'license'" in result.stderr
