"""What is said of files that are no model files, of shards that are missing or broken, and of devices."""

import contextlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from commands import facts, refused, run
from models import MODEL, pruned, same

import codec
from codec.errors import ArgumentError, CodecError, FormatError
from codec.model import load_file, safe_open, save_file
from codec.model.foreign import what_it_is

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def npz():
    out = io.BytesIO()
    np.savez(out, w=np.ones(3))
    return out.getvalue()


def npy():
    out = io.BytesIO()
    np.save(out, np.ones(3))
    return out.getvalue()


def archive(member):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(member, b"x")
    return out.getvalue()


FOREIGN = {
    "lfs": (LFS, "git lfs pull"),
    "torch": (archive("archive/data.pkl"), "weights_only=True"),
    "pickle": (pickle.dumps({"w": 1}, protocol=2), "weights_only=True"),
    "zip": (archive("readme.txt"), "unpack it first"),
    "npz": (npz(), "NumPy arrays"),
    "npy": (npy(), "a NumPy array"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "h5py"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(32), "`codec convert` makes a model file of it"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TFLite"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(20), "gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "zstandard"),
    "json": (b'{"weight_map": {}}', "*.index.json"),
    "zeros": (bytes(1000), "zero bytes"),
    "frame": (codec.dumps(codec.encode(np.zeros((64, 64)))), "codec.loads"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_kinds_of_files_are_known(tmp_path, kind):
    data, words = FOREIGN[kind]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        safe_open(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    for verb, more in (("encode", ()), ("inspect", ()), ("verify", ()), ("decode", ())):
        refused(run(verb, path, *more), 1, words, str(path))


def test_words_do_not_stumble():
    for first in (b"", b"\x08", b"\x08\x07", b"PK\x03\x04", b"PK\x03\x04" + bytes(30), b"\x80", b"TFL3", b"{"):
        what_it_is(first)
    assert what_it_is(b"\x12\x34\x56") is None
    assert "ONNX" in what_it_is(b"anything", "model.onnx")


def test_a_folder_of_other_weights_is_known(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(FOREIGN["torch"][0])
    with pytest.raises(ArgumentError, match=r"holds no \*\.safetensors.*'pytorch_model\.bin' in it is a PyTorch"):
        safe_open(tmp_path)
    assert "weights_only=True" in run("encode", tmp_path).stderr


# Shards.

SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def shards(tmp_path):
    folder, weight_map = tmp_path / "model", {}
    folder.mkdir()
    for number, names in enumerate((("gate", "small"), ("ids", "conv"), ("norm", "scale")), 1):
        shard = f"model-0000{number}-of-00003.safetensors"
        save_file({name: MODEL[name] for name in names}, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("kind", ["lfs", "cut", "lost", "pickle"])
def test_a_bad_shard_is_named(shards, kind):
    path = shards / SECOND
    good = path.read_bytes()
    path.write_bytes({"lfs": LFS, "cut": good[: len(good) // 2], "lost": b""}.get(kind, FOREIGN["pickle"][0]))
    if kind == "lost":
        path.unlink()
    with pytest.raises((FormatError, FileNotFoundError), match=SECOND):
        safe_open(shards)
    for verb in ("inspect", "encode", "decode"):
        refused(run(verb, shards), 1, SECOND)


def test_verify_lists_all_that_is_wrong(shards, tmp_path):
    facts("decode", shards, tmp_path / "original")
    first, second, third = sorted(shards.glob("*.safetensors"))
    second.write_bytes(LFS)
    third.write_bytes(third.read_bytes()[:-3])
    raw = bytearray(first.read_bytes())
    raw[-1] ^= 1
    first.write_bytes(raw)
    for more in ((), ("--against", tmp_path / "original")):
        found = facts("verify", shards, *more, status=1)
        assert [fault["file"] for fault in found["faults"]] == [second.name, third.name, None]
        assert found["faults"][2]["tensor"] == "gate"
        assert "git lfs pull" in found["faults"][0]["fault"]
        assert third.name in found["faults"][1]["fault"]
        text = run("verify", shards, *more).stdout
        assert "2 tensors, 2 files and 1 tensor at fault" in text
    for path in (first, second, third):
        path.unlink()
    found = facts("verify", shards, status=1)
    assert len(found["faults"]) == 3
    assert found["tensors"] == 0


def test_damage_in_a_shard_names_its_file(shards):
    with safe_open(shards) as model:
        last = list(model.files[1].records)[-1]
    raw = bytearray((shards / SECOND).read_bytes())
    raw[-1] ^= 1
    (shards / SECOND).write_bytes(raw)
    with safe_open(shards) as model:
        for read in (model.get_tensor, model.get_packed, lambda name: model.get_slice(name)[...]):
            with pytest.raises(FormatError, match=rf"tensor '{last}'.*{SECOND}"):
                read(last)
        with pytest.raises(FormatError, match=SECOND):
            model.verify()


def test_one_tensor_in_two_shards(shards):
    save_file({"ids": MODEL["ids"], "conv": MODEL["conv"], "gate": MODEL["gate"]}, shards / SECOND)
    with pytest.raises(FormatError, match=r"'gate'.*is in shard 'model-00002"):
        safe_open(shards)
    # Also where the second is only another name.
    save_file({"ids": MODEL["ids"], "conv": MODEL["conv"], "gate": MODEL["ids"]}, shards / SECOND)
    with pytest.raises(FormatError, match="'gate'"):
        safe_open(shards)


def test_other_names_need_not_be_in_the_index(shards):
    save_file({"ids": MODEL["ids"], "conv": MODEL["conv"], "more": MODEL["conv"]}, shards / SECOND)
    with safe_open(shards) as model:
        same(model.get_tensor("more"), MODEL["conv"])
        assert model.verify().ok
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    for shard, fine in ((SECOND, True), ("model-00001-of-00003.safetensors", False)):
        index["weight_map"]["more"] = shard
        (shards / "model.safetensors.index.json").write_text(json.dumps(index))
        if fine:
            assert "more" in load_file(shards)
        else:
            with pytest.raises(FormatError, match="'more'"):
                safe_open(shards)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "GGUF", "", '{"weight_map": {"a": "../x"}}', LFS.decode()])
def test_a_bad_index_is_named(shards, text):
    index = shards / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(FormatError) as caught:
        safe_open(shards)
    assert "../x" in text or str(index) in str(caught.value)
    if text == LFS.decode():
        assert "git lfs pull" in str(caught.value)


# Bytes, and devices.


def test_save_and_load(tmp_path):
    data = codec.save(MODEL, {"author": "someone", "format": "np"})
    save_file(MODEL, tmp_path / "m", {"author": "someone", "format": "np"})
    assert data == (tmp_path / "m").read_bytes()
    for source in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        for name, array in codec.load(source).items():
            same(array, MODEL[name])
            assert array.flags.writeable or not array.size
    for name, packed in codec.load(data, packed=True, objective="speed").items():
        same(packed.to_dense(), MODEL[name])
    safetensors = pytest.importorskip("safetensors.numpy")
    same(codec.load(safetensors.save({"w": np.arange(6.0)}))["w"], np.arange(6.0))
    changing = bytearray(data)
    found = codec.load(changing, packed=True)
    changing[:] = bytes(len(changing))
    same(found["gate"].to_dense(), MODEL["gate"])


def test_bytes_that_are_none_of_ours():
    data = codec.save({"w": pruned(64, 64)})
    for bad in (b"", data[:-1], data + b"\0", LFS, bytes(100)):
        with pytest.raises(FormatError, match="<bytes>"):
            codec.load(bad)
    for wrong in ("text", None, 3, [1, 2]):
        with pytest.raises(ArgumentError, match="expected the bytes of a file"):
            codec.load(wrong)
    with pytest.raises(ArgumentError, match="packed=True"):
        codec.load(data, objective="speed")


def test_devices(path):
    for device in ("cpu", "cpu:0", None):
        assert safe_open(path, "np", device).keys()
        assert load_file(path, device).keys() == MODEL.keys()
    for device in ("cuda", "cuda:0", 0, 1, "mps", "cpu:1"):
        for read in (
            lambda device=device: safe_open(path, device=device),
            lambda device=device: load_file(path, device),
        ):
            with pytest.raises(ArgumentError, match=rf"device={device!r}:.*tensor\.to\({device!r}\)"):
                read()


def test_devices_of_torch(path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for device in (torch.device("cpu"), torch.device("cpu", 0)):
        assert safe_open(path, device=device).keys()
    with pytest.raises(ArgumentError, match=r"device='cuda:1':.*tensor\.to\('cuda:1'\)"):
        safe_open(path, device=torch.device("cuda", 1))


def test_every_error_is_ours(tmp_path):
    """Whatever lies in a file, what is raised for it is a CodecError."""
    rng = np.random.default_rng(0)
    data = bytearray(codec.save({"w": pruned(8, 8), "b": np.arange(3)}))
    for _ in range(300):
        raw = bytearray(data)
        for at in rng.integers(0, len(raw), 3):
            raw[at] = rng.integers(0, 256)
        (tmp_path / "m").write_bytes(raw)
        with contextlib.suppress(CodecError):
            load_file(tmp_path / "m")
