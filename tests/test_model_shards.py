"""Sharded models and folders."""

import json
import os

import pytest
from models import MODEL, same

from codec.errors import ArgumentError, FormatError
from codec.model import load_file, safe_open, save_file

# Shards.


@pytest.fixture
def shards(tmp_path):
    names, folder = list(MODEL), tmp_path / "model"
    folder.mkdir()
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for number, (file, part) in enumerate(parts.items()):
        save_file({name: MODEL[name] for name in part}, folder / file, {"author": "someone", "part": str(number)})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


INDEX = "model.safetensors.index.json"


def remap(folder, **changes):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= changes
    (folder / INDEX).write_text(json.dumps(index))


def test_shards(shards):
    for target in (shards, shards / INDEX):
        with safe_open(target) as model:
            assert sorted(model) == sorted(MODEL)
            assert model.metadata() == {"author": "someone", "format": "pt"}
            assert model.verify().ok
            same(model.get_slice("gate")[3], MODEL["gate"][3])
        for name, array in load_file(target).items():
            same(array, MODEL[name])


def test_shards_from_the_current_folder(shards, monkeypatch):
    monkeypatch.chdir(shards)
    assert load_file(INDEX).keys() == MODEL.keys()
    assert load_file(".").keys() == MODEL.keys()


@pytest.mark.parametrize(
    "name", ["../model/model.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:x", "~x", "a\0", ".x", "a\n"]
)
def test_shard_names_are_bare(shards, name):
    remap(shards, gate=name)
    with pytest.raises(FormatError, match="not a bare file name"):
        safe_open(shards)


def test_shards_must_be_regular_files(shards, tmp_path):
    shard = shards / "model-00001-of-00002.safetensors"
    kept = shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(kept)
    with pytest.raises(FormatError, match="is a link"):
        safe_open(shards)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(FormatError, match="not a regular file"):
        safe_open(shards)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        safe_open(shards)
    shard.mkdir()
    with pytest.raises(FormatError, match="not a regular file"):
        safe_open(shards)


def test_hub_cache(shards, tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(shards.iterdir()):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    assert load_file(snapshot).keys() == MODEL.keys()


def test_shards_that_disagree(shards):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    remap(shards, gate=second)
    with pytest.raises(FormatError, match="maps it to"):
        safe_open(shards)
    remap(shards, gate=first, more=first)
    with pytest.raises(FormatError, match=r"'more'.*is not in shard"):
        safe_open(shards)
    save_file({"gate": MODEL["gate"]}, shards / second)
    with pytest.raises(FormatError, match="maps it to"):
        safe_open(shards)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map":[]}', '{"weight_map":{"a":1}}', '{"weight_map":{"a":"x","a":"y"}}']
)
def test_bad_shard_index(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(FormatError):
        safe_open(tmp_path)


def test_folders(tmp_path, path):
    assert load_file(tmp_path).keys() == MODEL.keys()
    save_file({}, tmp_path / "second.safetensors")
    with pytest.raises(ArgumentError, match="2 models"):
        safe_open(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ArgumentError, match="holds no"):
        safe_open(tmp_path / "none")
