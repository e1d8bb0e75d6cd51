"""Metadata of files, shards and indexes: read as safetensors reads them, and kept through every verb."""

import json

import numpy as np
import pytest
from commands import assert_same, facts, run, write_plain
from models import ENTRY, MODEL, START, entry, pruned, read_json, resave, same, write_raw

import codec
from codec.model import load_file, safe_open, save_file

# As safetensors reads them.
LENIENT = {
    "metadata null": b'{"__metadata__":null,"x":' + ENTRY + b"}",
    "metadata empty": b'{"__metadata__":{},"x":' + ENTRY + b"}",
    "more keys": {"x": entry() | {"more": 1, "less": -1.5e300, "deep": [{"a": None, "dtype": [True]}]}},
    "large numbers": b'{"x":{"n":' + b"9" * 400 + b',"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "spaces": b'{ "x" : ' + ENTRY.replace(b":", b" : ") + b" } \n\t ",
}


@pytest.mark.parametrize("case", LENIENT)
def test_what_safetensors_reads_is_read(tmp_path, case):
    import safetensors.numpy

    write_raw(tmp_path / "m.safetensors", LENIENT[case], b"\1\2\3\4")
    same(load_file(tmp_path / "m.safetensors")["x"], np.array([1, 2, 3, 4], np.uint8))
    if case != "large numbers":  # serde_json stops at those of 1e308
        same(safetensors.numpy.load_file(tmp_path / "m.safetensors")["x"], np.array([1, 2, 3, 4], np.uint8))
    assert run("encode", tmp_path / "m.safetensors").exit_code == 0


@pytest.mark.parametrize("text", ["mine", "", "AAAA", START[1:], "{}", "\u00e9"])
def test_an_entry_of_the_users_own_named_codec(tmp_path, text):
    save_file({"w": pruned(64, 64)}, tmp_path / "m.safetensors", {"codec": text, "a": "b"})
    with safe_open(tmp_path / "m.safetensors") as model:
        assert model.metadata() == {"format": "pt", "codec": text, "a": "b"}
        assert model.verify().ok
    # And through the verbs, from a plain file that has it.
    plain = write_plain(tmp_path / "plain.safetensors", {"w": pruned(64, 64)}, {"codec": text, "a": "b"})
    assert safe_open(plain).metadata() == {"codec": text, "a": "b"}
    packed = facts("encode", plain, tmp_path / "packed.safetensors")["output"]
    facts("convert", packed, tmp_path / "converted.safetensors", "--objective", "speed")
    facts("convert", packed, tmp_path / "indexed.safetensors", "--reindex")
    dense = facts("decode", packed, tmp_path / "dense.safetensors")["output"]
    assert read_json(dense)[0]["__metadata__"]["codec"] == text
    for name in ("packed", "converted", "indexed", "dense"):
        with safe_open(tmp_path / f"{name}.safetensors") as model:
            assert model.metadata() == {"format": "pt", "codec": text, "a": "b"}


def test_it_survives_a_changed_file_that_is_indexed_again(tmp_path):
    save_file({"w": pruned(64, 64), "tied": MODEL["gate"], "again": MODEL["gate"]}, tmp_path / "m", {"codec": "mine"})
    header, data = read_json(tmp_path / "m")
    header["__metadata__"]["more"] = "text"
    write_raw(tmp_path / "m", header, data)
    codec.model.reindex(tmp_path / "m", tmp_path / "n")
    with safe_open(tmp_path / "n") as model:
        assert model.metadata() == {"format": "pt", "codec": "mine", "more": "text"}
        assert model.info("tied").alias_of == "again"
    bare = resave(tmp_path / "m", tmp_path / "bare", metadata={"codec": "mine"})
    codec.model.reindex(bare, tmp_path / "n")
    assert safe_open(tmp_path / "n").metadata() == {"format": "pt", "codec": "mine"}


@pytest.fixture
def described(tmp_path, tensors):
    """A sharded model with metadata everywhere, also that of a variant."""
    folder = tmp_path / "model"
    folder.mkdir()
    weight_map = {}
    for number, names in enumerate((("w", "bias"), ("half", "steps")), 1):
        shard = f"model.fp16-{number:05d}-of-00002.safetensors"
        write_plain(folder / shard, {name: tensors[name] for name in names}, {"shard": str(number), "by": "hand"})
        weight_map |= dict.fromkeys(names, shard)
    metadata = {"total_size": 7, "total_parameters": 32833, "base": {"model": "x"}, "share": 0.25}
    index = folder / "model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map, "made_by": ["someone"]}))
    return index


def test_metadata_of_shards_and_their_index_is_kept(described, tensors, tmp_path):
    for source, verb, options, target in (
        (described.parent, "encode", (), "encoded"),
        (tmp_path / "encoded", "convert", ("--objective", "memory"), "converted"),
        (tmp_path / "encoded", "convert", ("--reindex",), "indexed"),
        (tmp_path / "encoded", "decode", (), "decoded"),
        (described.parent, "prune", ("--sparsity", "0.9"), "pruned"),
    ):
        result = run(verb, source, tmp_path / target, *options)
        assert result.exit_code == 0, result.output
        index = json.loads((tmp_path / target / described.name).read_text())
        with safe_open(tmp_path / target) as model:
            size = sum(model.info(name).nbytes for name in model)
            assert [file.metadata["shard"] for file in model.files] == ["1", "2"]
            assert model.metadata()["by"] == "hand"
        expected = {"total_size": size, "total_parameters": 32833, "base": {"model": "x"}, "share": 0.25}
        assert index["metadata"] == expected
        assert index["made_by"] == ["someone"]
    assert_same(tmp_path / "decoded", tensors)


def test_an_index_of_a_variant_is_opened(described, tensors):
    for place in (described, described.parent):
        assert sorted(load_file(place)) == sorted(tensors)
    for verb in ("inspect", "verify"):
        assert run(verb, described).exit_code == 0


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_metadata_on_which_shards_do_not_agree_is_named(described, tmp_path, verb):
    result = run(verb, described, tmp_path / "one.safetensors")
    assert result.exit_code == 0, result.output
    shards = "'model.fp16-00001-of-00002.safetensors', 'model.fp16-00002-of-00002.safetensors'"
    assert f"Left out metadata 'shard', on which the shards do not agree: {shards}\n" in result.stderr
    assert "'by'" not in result.stderr
    with safe_open(tmp_path / "one.safetensors") as model:
        assert "shard" not in model.metadata()
        assert model.metadata()["by"] == "hand"


def test_metadata_left_out_is_in_the_report(described, tmp_path):
    report = codec.encode_checkpoint(described, tmp_path / "one.safetensors")
    assert report.metadata_left_out == {
        "shard": ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors")
    }
    assert codec.encode_checkpoint(described, f"{tmp_path}/folder/").metadata_left_out == {}
