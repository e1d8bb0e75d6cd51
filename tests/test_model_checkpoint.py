"""Whole checkpoints: folders, shard by shard, resumed after an interruption, side by side, in little memory."""

import json
import os
import shutil
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from commands import assert_same, facts, refused, run, write_plain
from models import pruned, same

import codec
from codec.errors import ArgumentError, ChecksumError, FormatError
from codec.model import load_file, safe_open, save_file
from codec.model.checkpoint import Encode
from codec.model.journal import digest

SHARDS = 4


@pytest.fixture
def folder(tmp_path):
    """A folder as Hugging Face has them: a sharded model, and other files."""
    root = tmp_path / "model"
    (root / "1_Pooling").mkdir(parents=True)
    (root / ".git").mkdir()
    weight_map = {}
    for number in range(1, SHARDS + 1):
        shard = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {f"layer.{number}.weight": pruned(64, 64), f"layer.{number}.bias": np.arange(64, dtype=np.float32)}
        write_plain(root / shard, tensors)
        weight_map |= dict.fromkeys(tensors, shard)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    others = ["config.json", "tokenizer.json", "README.md", "1_Pooling/config.json", "merges.txt", "modeling_x.py"]
    for name in others:
        (root / name).write_text(name)
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.onnx", "extra.safetensors", ".git/HEAD"):
        (root / name).write_text("weights in another form")
    (root / "link.txt").symlink_to("/etc/passwd")
    return root


OTHERS = {"config.json", "tokenizer.json", "README.md", "1_Pooling/config.json", "merges.txt", "modeling_x.py"}


def files_of(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def tensors_of(root):
    return load_file(root)


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_becomes_a_folder(folder, tmp_path, made):
    out = tmp_path / "packed"
    if made:
        out.mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = run("encode", folder, out)
    assert result.exit_code == 0, result.output
    weights = {f"model-{n:05d}-of-{SHARDS:05d}.safetensors" for n in range(1, SHARDS + 1)}
    assert files_of(out) == OTHERS | weights | {"model.safetensors.index.json"}
    for name in OTHERS:
        assert (out / name).read_text() == name
    assert_same(out, tensors_of(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for name in ("'extra.safetensors'", "'link.txt'", "'model.onnx'", "'pytorch_model.bin'"):
        assert name in result.stderr
    assert ".git" not in result.stderr
    assert run("decode", out, tmp_path / "dense").exit_code == 0
    assert files_of(tmp_path / "dense") == files_of(out)
    assert_same(tmp_path / "dense", tensors_of(folder))
    assert facts("verify", out, "--against", folder)["ok"]
    assert run("convert", out, tmp_path / "fast", "--objective", "speed").exit_code == 0
    assert files_of(tmp_path / "fast") == files_of(out)
    assert run("inspect", tmp_path / "fast").exit_code == 0


def test_a_folder_with_one_file(tmp_path, tensors):
    root = tmp_path / "model"
    root.mkdir()
    write_plain(root / "model.safetensors", tensors)
    (root / "config.json").write_text("{}")
    assert facts("encode", root)["output"] == str(tmp_path / "model.codec" / "model.safetensors")
    assert files_of(tmp_path / "model.codec") == {"config.json", "model.safetensors"}
    assert_same(tmp_path / "model.codec", tensors)
    assert facts("decode", tmp_path / "model.codec")["output"] == str(tmp_path / "model.dense" / "model.safetensors")
    refused(run("encode", root), 2, "exists already", "--force")
    assert facts("encode", root, tmp_path / "one.safetensors")["packed"] == 2
    assert facts("encode", root / "model.safetensors", tmp_path / "model.codec", "--force")["packed"] == 2
    assert facts("prune", root, tmp_path / "pruned", "--sparsity", "0.9")["file_bytes"]
    assert files_of(tmp_path / "pruned") == {"config.json", "model.safetensors"}


def test_a_snapshot_of_the_hub_cache(folder, tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    number = 0
    for name in files_of(folder):
        if not name.startswith("."):
            blob, number = f"{number:040x}", number + 1
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, blobs / blob)
            (snapshot / name).symlink_to(os.path.join(*[".."] * (2 + name.count("/")), "blobs", blob))
    facts("encode", snapshot, tmp_path / "packed")
    assert files_of(tmp_path / "packed") >= OTHERS
    assert not any(path.is_symlink() for path in (tmp_path / "packed").rglob("*"))
    assert_same(tmp_path / "packed", tensors_of(folder))
    refused(run("decode", tmp_path / "packed", snapshot, "--force"), 2, "Hugging Face cache")


def test_two_models_do_not_meet_in_a_folder(folder, tmp_path):
    index = folder / "model.safetensors.index.json"
    refused(run("encode", folder, folder), 2, "the source's own folder")
    refused(run("encode", folder, f"{folder}/../model/", "--force"), 2, "the source's own folder")
    refused(run("encode", index), 2, "give DST")
    refused(run("encode", index, folder / "x.safetensors.index.json"), 2, "holds another model")
    refused(run("decode", index, folder / "x.safetensors.index.json", "--force"), 2, "holds another model")
    refused(run("encode", folder, tmp_path / "no" / "where"), 2, "does not exist: create it first")
    refused(run("encode", folder, tmp_path / "no" / "x.safetensors"), 2, "does not exist: create it first")
    with pytest.raises(ArgumentError, match="own folder"):
        codec.encode_checkpoint(folder, folder)
    one = write_plain(tmp_path / "one.safetensors", {"w": pruned(64, 64)})
    refused(run("encode", one, folder), 2, "holds another model")
    assert facts("encode", index, tmp_path)["packed"] == SHARDS  # an index into a folder: its shards alone
    assert "config.json" not in files_of(tmp_path)


def test_what_lies_there_is_not_overwritten(folder, tmp_path):
    out = tmp_path / "packed"
    out.mkdir()
    (out / "config.json").write_text("precious")
    refused(run("encode", folder, out), 2, "config.json", "exists already")
    assert files_of(out) == {"config.json"}
    assert run("encode", folder, out, "--force").exit_code == 0
    assert (out / "config.json").read_text() == "config.json"


def test_a_folder_inside_the_source(folder):
    facts("encode", folder, folder / "packed")
    assert files_of(folder / "packed") >= OTHERS
    assert not (folder / "packed" / "packed").exists()


# Resuming.


class StopError(Exception):
    """Stands for whatever interrupts the work."""


def interrupted(after, **options):
    """Encode or decode, and stop after so many tensors."""
    calls = []

    def progress(*call):
        calls.append(call)
        if len(calls) == after:
            raise StopError

    return {"progress": progress, **options}


def test_finished_shards_are_not_packed_again(folder, tmp_path):
    out, whole = tmp_path / "packed", tmp_path / "whole"
    codec.encode_checkpoint(folder, whole)
    with pytest.raises(StopError):
        codec.encode_checkpoint(folder, out, **interrupted(5))  # in the third shard
    assert not (out / "model.safetensors.index.json").exists()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(times) == 2
    calls = []
    report = codec.encode_checkpoint(folder, out, progress=lambda *call: calls.append(call))
    assert [os.path.basename(path) for path in report.resumed] == sorted(path.name for path in times)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(calls) == SHARDS  # two shards of two tensors
    assert calls[-1][0] == calls[-1][1] == sum(a.nbytes for a in tensors_of(folder).values())
    assert files_of(out) == files_of(whole)
    for name in files_of(out):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    again = codec.encode_checkpoint(folder, out)
    assert again.resumed == ()  # nothing was left to resume


def _stop_after(monkeypatch, number):
    """Interrupt a verb when it adds that file to the journal."""
    real, calls = codec.model.journal.Journal.add, []

    def add(self, path):
        real(self, path)
        calls.append(path)
        if len(calls) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(codec.model.journal.Journal, "add", add)


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_the_same_command_goes_on(folder, tmp_path, monkeypatch, verb):
    source = folder
    if verb == "decode":
        facts("encode", folder, source := tmp_path / "packed")
    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        assert run(verb, source, tmp_path / "out").exit_code != 0
    result = run(verb, source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"2 files of {SHARDS} had been finished by an earlier run" in result.stderr
    assert_same(tmp_path / "out", tensors_of(folder))
    assert not [name for name in files_of(tmp_path / "out") if name.startswith(".")]


def changed_source(folder, out):
    write_plain(folder / "model-00001-of-00004.safetensors", {
        "layer.1.weight": pruned(64, 64), "layer.1.bias": np.arange(64, dtype=np.float32)
    })  # fmt: skip


def damaged_result(folder, out):
    path = out / "model-00001-of-00004.safetensors"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)


def other_result(folder, out):
    save_file(load_file(out / "model-00001-of-00004.safetensors"), out / "model-00001-of-00004.safetensors", {"x": "y"})


def lost_result(folder, out):
    (out / "model-00001-of-00004.safetensors").unlink()


def broken_journal(folder, out):
    (out / ".codec-model.safetensors.index.json.journal").write_bytes(b'{"files": ')


@pytest.mark.parametrize("change", [changed_source, damaged_result, other_result, lost_result, broken_journal])
def test_what_changed_is_packed_again(folder, tmp_path, change):
    out = tmp_path / "packed"
    with pytest.raises(StopError):
        codec.encode_checkpoint(folder, out, **interrupted(5))
    change(folder, out)
    report = codec.encode_checkpoint(folder, out)
    names = [os.path.basename(path) for path in report.resumed]
    assert names == ([] if change is broken_journal else ["model-00002-of-00004.safetensors"])
    assert safe_open(out).verify().ok
    assert_same(out, tensors_of(folder))


OTHER_REQUESTS = [{"objective": "memory"}, {"zero": "bits"}, {"plan": {"*": "csr"}}, {"resume": False}, {"fold": True}]


@pytest.mark.parametrize("options", OTHER_REQUESTS)
def test_other_arguments_begin_anew(folder, tmp_path, options):
    with pytest.raises(StopError):
        codec.encode_checkpoint(folder, tmp_path / "packed", **interrupted(5))
    assert codec.encode_checkpoint(folder, tmp_path / "packed", **options).resumed == ()
    assert_same(tmp_path / "packed", tensors_of(folder))


def test_what_tells_requests_from_each_other():
    plans = [
        None, {"*": "csr"}, {"*": {"layout": "csr", "index": 8}}, {"*": {"codebook": np.arange(4.0)}},
        {"*": {"codebook": np.arange(4.0) + 1}}, {"*": {"block": (2, 2)}}, {"a*": "csr", "*b": "dense"},
        {"*b": "dense", "a*": "csr"}, {"*": {"bits": np.int64(4)}},
    ]  # fmt: skip
    found = [Encode(plan=plan).request() for plan in plans]
    assert len(set(found)) == len(plans)
    assert None not in found
    assert Encode(plan={"*": {"bits": 4}}).request() == found[-1]
    assert digest([object()]) is None
    assert Encode(plan={"*": {"codebook": [object()]}}).request() is None  # so nothing is resumed


def test_a_hostile_journal_is_believed_of_nothing(folder, tmp_path):
    out = tmp_path / "packed"
    journal = out / ".codec-model.safetensors.index.json.journal"
    out.mkdir()
    request = Encode().request()
    entries = [3, [], ["a"], ["a", "b", "c"], {"a": 1}, None, "text", [1, 2], [None, None]]
    for entry in entries:
        files = dict.fromkeys((f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)), entry)
        journal.write_text(json.dumps({"request": request, "files": files}))
        assert codec.encode_checkpoint(folder, out).resumed == ()
    for text in ("[]", "3", '{"request": "x"}', json.dumps({"request": request, "files": []}), "[" * 100_000):
        journal.write_text(text)
        assert codec.encode_checkpoint(folder, out).resumed == ()
    assert_same(out, tensors_of(folder))


# Side by side.


class Eager:
    """The least that an executor is: as distributed's, its futures are not those of the standard library."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return type("Result", (), {"result": future.result})()


@pytest.mark.parametrize("kind", ["threads", "processes", "eager"])
def test_shards_side_by_side(folder, tmp_path, kind):
    makers = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
        "eager": lambda: None,
    }
    codec.encode_checkpoint(folder, tmp_path / "one")
    calls = []
    pool = makers[kind]()
    try:
        executor = pool or Eager()
        codec.encode_checkpoint(
            folder, tmp_path / "packed", executor=executor, progress=lambda *call: calls.append(call)
        )
        codec.decode_checkpoint(tmp_path / "packed", tmp_path / "dense", executor=executor)
    finally:
        if pool:
            pool.shutdown()
    for name in files_of(tmp_path / "one"):
        assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert_same(tmp_path / "dense", tensors_of(folder))
    assert [name for *_, name in calls] == [f"model-0000{n}-of-00004.safetensors" for n in range(1, SHARDS + 1)]
    assert calls[-1][0] == calls[-1][1]


def test_a_failure_of_one_shard_leaves_the_others_finished(folder, tmp_path):
    packed = tmp_path / "packed"
    codec.encode_checkpoint(folder, packed)
    shard = packed / "model-00003-of-00004.safetensors"
    raw = bytearray(shard.read_bytes())
    good = bytes(raw)
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(ChecksumError, match=r"layer.3.weight.*model-00003-of-00004"), ThreadPoolExecutor(1) as executor:
        codec.decode_checkpoint(packed, tmp_path / "dense", executor=executor)
    assert not (tmp_path / "dense" / "model.safetensors.index.json").exists()
    shard.write_bytes(good)
    report = codec.decode_checkpoint(packed, tmp_path / "dense")
    assert len(report.resumed) == 2
    assert_same(tmp_path / "dense", tensors_of(folder))


def test_arguments_are_checked_first(folder, tmp_path):
    for options in ({"objective": "size"}, {"zero": "none"}, {"plan": ["csr"]}):
        with pytest.raises(ArgumentError):
            codec.encode_checkpoint(folder, tmp_path / "packed", **options)
    with pytest.raises(FileNotFoundError):
        codec.encode_checkpoint(tmp_path / "absent", tmp_path / "packed")
    with pytest.raises(FormatError):
        codec.decode_checkpoint(folder / "config.json", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_the_report(folder, tmp_path):
    report = codec.encode_checkpoint(folder, tmp_path / "packed")
    assert [os.path.basename(path) for path in report.files] == sorted(n.name for n in folder.glob("model-*"))
    assert report.index == str(tmp_path / "packed" / "model.safetensors.index.json")
    assert set(report.copied) == OTHERS
    assert "pytorch_model.bin" in report.left_behind
    one = codec.encode_checkpoint(folder, tmp_path / "one.safetensors")
    assert (one.files, one.index, one.copied) == ((str(tmp_path / "one.safetensors"),), None, ())
    same(load_file(tmp_path / "one.safetensors")["layer.2.bias"], np.arange(64, dtype=np.float32))


# Replacing a model.


@pytest.mark.parametrize("after", [1, 3])
def test_two_models_are_never_mixed(folder, tmp_path, after):
    """An index must not find new shards and old ones."""
    out = tmp_path / "packed"
    codec.encode_checkpoint(folder, out)
    old = tensors_of(out)
    for shard in sorted(folder.glob("model-*.safetensors")):
        write_plain(shard, {name: array + 1 for name, array in load_file(shard).items()})
    with pytest.raises(StopError):
        codec.encode_checkpoint(folder, out, **interrupted(after))
    if after == 1:  # nothing is replaced yet
        assert_same(out, old)
    else:
        with pytest.raises(ArgumentError, match=r"holds 'model\.safetensors\.index\.json' unfinished"):
            safe_open(out)
    codec.encode_checkpoint(folder, out)
    assert_same(out, tensors_of(folder))
    assert not [name for name in files_of(out) if name.startswith(".")]
