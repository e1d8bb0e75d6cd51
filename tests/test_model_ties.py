"""Tensors that are stored once under several names, and weights that are split in two."""

import warnings

import numpy as np
import pytest
import safetensors.numpy
from commands import facts, refused, run, write_plain
from models import pruned, read_json, resave, same

import codec
from codec.errors import ArgumentError
from codec.interop.folding import masked_pairs
from codec.model import load_file, reindex, safe_open, save_file


def aliases(path):
    with safe_open(path) as model:
        return {name: model.info(name).alias_of for name in model if model.info(name).alias_of}


@pytest.mark.parametrize("plan", [None, {"*": "csr"}, {"*": "dense"}])
def test_one_array_under_two_names(tmp_path, plan):
    w = pruned(200, 64)
    tensors = {"embed": w, "other": pruned(200, 64), "head": w, "view": w[:], "more": w}
    save_file(tensors, tmp_path / "m", plan=plan)
    assert aliases(tmp_path / "m") == {"head": "embed", "view": "embed", "more": "embed"}
    header, data = read_json(tmp_path / "m")
    assert header.keys() == {"__metadata__", "embed", "other"}
    with safe_open(tmp_path / "m") as model:
        assert model.keys() == [*model.files[0].records, "head", "more", "view"]
        assert sum(model.info(name).nbytes for name in model) == len(data)
        assert model.info("head").stored_as == model.info("embed").stored_as
        assert model.info("head").dense_nbytes == w.nbytes
        for name, array in tensors.items():
            same(model.get_tensor(name), array)
            same(model.get_packed(name).to_dense(), array)
            same(model.get_slice(name)[3:7], array[3:7])
        report = model.verify()
        assert report.ok
        assert [check.name for check in report.tensors] == model.keys()
    found = load_file(tmp_path / "m")
    assert found["head"] is found["embed"]  # tied again
    assert safetensors.safe_open(tmp_path / "m", "np").keys()


def test_the_first_name_by_code_point_is_that_of_the_tensor(tmp_path):
    w, v = pruned(64, 64), np.arange(5)
    save_file({"m": w, "v": v, "z": w, "a": w, "\u00e9": v, "Z": v}, tmp_path / "m")
    assert aliases(tmp_path / "m") == {"m": "a", "z": "a", "v": "Z", "\u00e9": "Z"}
    again = {"a": w, "Z": v, "z": w, "\u00e9": v, "m": w, "v": v}
    save_file(again, tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    for name, array in load_file(tmp_path / "m").items():
        same(array, again[name])


def test_what_is_not_the_same_is_not_tied(tmp_path):
    w = np.random.default_rng(0).integers(1, 9, (64, 64)).astype(np.float32)
    tensors = {
        "w": w,
        "transposed": w.T,
        "half": w[:32],
        "step": w[::2, ::2],
        "bits": w.view(np.uint32),
        "copy": w.copy(),
    }
    save_file(tensors, tmp_path / "m", plan={"*": "dense"})
    assert aliases(tmp_path / "m") == {}
    for name, array in load_file(tmp_path / "m").items():
        same(array, np.ascontiguousarray(tensors[name]))
    empty = np.zeros((0, 3))
    save_file({"a": empty, "b": empty}, tmp_path / "m")
    assert aliases(tmp_path / "m") == {}


def test_packed_tensors_of_the_same_bytes_are_stored_once(tmp_path):
    w = pruned(64, 64)
    packed = codec.encode(w)
    save_file({"a": w, "b": w.copy(), "c": packed, "d": codec.loads(codec.dumps(packed))}, tmp_path / "m")
    assert aliases(tmp_path / "m") == {"b": "a", "c": "a", "d": "a"}
    save_file({"a": w, "b": w}, tmp_path / "m", plan={"a": "csr", "b": "bitmap"})
    assert aliases(tmp_path / "m") == {}  # asked for otherwise


def test_tied_tensors_with_equal_entries_are_packed_once(tmp_path, monkeypatch):
    made = []
    pack = codec.model.packing.pack_array
    monkeypatch.setattr("codec.model.packing.pack_array", lambda a, **asked: made.append(asked) or pack(a, **asked))
    w = pruned(64, 64)
    blocks = {"layout": "block_offset", "block": (4, 4)}
    for one, other in (
        (blocks, {"layout": "block_offset", "block": [4, 4]}),
        ({"layout": "csr"}, {"layout": "csr"}),
        ("csr", "csr"),
    ):
        made.clear()
        save_file({"a": w, "b": w}, tmp_path / "m", plan={"a": one, "b": other})
        assert (len(made), aliases(tmp_path / "m")) == (1, {"b": "a"})
    codec.save_file({"a": w, "b": w}, tmp_path / "m", plan=codec.plan({"a": w, "b": w}))
    assert len(made) == 2  # one of the pair before, one of this
    books = [{"layout": "csr", "values": "codebook", "codebook": np.array([1, 2], np.float32)} for _ in "ab"]
    save_file({"a": w, "b": w}, tmp_path / "m", plan=dict(zip("ab", books, strict=True)))
    assert aliases(tmp_path / "m") == {"b": "a"}  # packed twice, as arrays are not compared, and stored once


def test_arrays_made_on_access_are_compared_by_their_bytes(tmp_path):
    """Memory is used again: an address that comes back says nothing."""

    class Lazy(dict):
        def __getitem__(self, name):
            return np.full((64, 64), float(super().__getitem__(name)), np.float64)

    values = {str(n): n for n in range(1, 20)} | {"again": 7}
    for tensors in (Lazy(values), _mapping(Lazy(values))):
        for plan in (None, {"*": "dense"}):
            save_file(tensors, tmp_path / "m", plan=plan)
            found = load_file(tmp_path / "m")
            assert {name: array[0, 0] for name, array in found.items()} == values
            assert aliases(tmp_path / "m") == ({"again": "7"} if plan is None else {})


def _mapping(values):
    """The same as a mapping that is no dict."""
    from collections.abc import Mapping

    class Other(Mapping):
        def __getitem__(self, name):
            return values[name]

        def __iter__(self):
            return iter(values)

        def __len__(self):
            return len(values)

    return Other()


def test_torch_modules_with_tied_weights(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    embed, head = torch.nn.Embedding(50, 32), torch.nn.Linear(32, 50, bias=False)
    head.weight = embed.weight
    module = torch.nn.ModuleDict({"embed": embed, "head": head, "norm": torch.nn.LayerNorm(32)})
    save_file(module.state_dict(), tmp_path / "m")
    assert aliases(tmp_path / "m") == {"head.weight": "embed.weight"}
    save_file(dict(module.named_parameters(remove_duplicate=False)), tmp_path / "m")
    assert aliases(tmp_path / "m") == {"head.weight": "embed.weight"}
    with safe_open(tmp_path / "m", framework="pt") as model:
        assert torch.equal(model.get_tensor("head.weight"), embed.weight)
    w = embed.weight.detach()
    save_file({"w": w, "t": w.T, "part": w[:25], "bits": w.view(torch.int32)}, tmp_path / "m")
    assert aliases(tmp_path / "m") == {}


def test_verbs_keep_and_expand_them(tmp_path):
    w, bias = pruned(200, 64), np.arange(5, dtype=np.float32)
    save_file({"embed": w, "head": w, "b": bias, "c": bias}, tmp_path / "m.safetensors")
    tied = {"head": "embed", "c": "b"}
    assert aliases(tmp_path / "m.safetensors") == tied
    for verb, options in (("encode", ()), ("convert", ("--objective", "speed")), ("convert", ("--reindex",))):
        found = facts(verb, tmp_path / "m.safetensors", tmp_path / "x.safetensors", *options, "--force")
        assert found["tensors"] == 4
        assert aliases(tmp_path / "x.safetensors") == tied
        assert facts("verify", tmp_path / "x.safetensors", "--against", tmp_path / "m.safetensors")["ok"]
    found = facts("decode", tmp_path / "m.safetensors", tmp_path / "d.safetensors")
    assert found["tensors"] == 4
    dense = safetensors.numpy.load_file(tmp_path / "d.safetensors")
    for name, array in {"embed": w, "head": w, "b": bias, "c": bias}.items():
        same(dense[name], array)


def test_sizes_before_and_after_add_up(tmp_path):
    w = pruned(200, 64)
    plain = write_plain(tmp_path / "m.safetensors", {"embed": w, "head": w, "b": np.arange(5, dtype=np.float32)})
    found = facts("encode", plain, tmp_path / "x.safetensors")
    again = facts("encode", tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert found["bytes_before"] == 2 * w.nbytes + 20
    assert again["bytes_before"] == found["bytes_after"] == again["bytes_after"]
    for facts_of in (found, again):
        for key in ("bytes_before", "bytes_after", "tensors"):
            assert sum(group[key] for group in facts_of["layouts"].values()) == facts_of[key]
    assert (again["tensors"], again["packed"], again["tied"]) == (3, 1, 1)


def test_a_lost_index_loses_the_other_names(tmp_path):
    w = pruned(64, 64)
    save_file({"a": w, "b": w}, tmp_path / "m")
    reindex(resave(tmp_path / "m", tmp_path / "bare", metadata=None), tmp_path / "n")
    assert load_file(tmp_path / "n").keys() == {"a"}


def test_damage_is_told_under_every_name(tmp_path):
    w = pruned(64, 64)
    save_file({"a": w, "b": w}, tmp_path / "m")
    raw = bytearray((tmp_path / "m").read_bytes())
    raw[-80] ^= 1
    (tmp_path / "m").write_bytes(raw)
    with safe_open(tmp_path / "m") as model:
        assert [check.ok for check in model.verify(raise_on_error=False).tensors] == [False, False]
        for name in "ab":
            with pytest.raises(codec.ChecksumError, match=f"tensor '{name}'"):
                model.get_tensor(name)


# Weights in two halves.


@pytest.fixture
def halves(tmp_path):
    rng = np.random.default_rng(0)
    mask = (rng.random((64, 64)) < 0.2).astype(np.float32)
    tensors = {
        "fc.weight_orig": rng.standard_normal((64, 64)).astype(np.float32),
        "fc.weight_mask": mask,
        "fc.bias": np.ones(64, np.float32),
        "lone_orig": np.ones(3, np.float32),
    }
    tensors["fc.weight_orig"][0, 0] = np.nan
    mask[0, 0], mask[0, 1] = 0, 1
    return write_plain(tmp_path / "halves.safetensors", tensors), tensors


def test_halves_are_noticed(halves, tmp_path):
    path, tensors = halves
    result = run("encode", path, tmp_path / "x.safetensors")
    assert result.exit_code == 0
    assert "split in weights and mask" in result.stderr
    assert "'fc.weight'" in result.stderr
    assert "--fold" in result.stderr
    assert run("encode", path, tmp_path / "x.safetensors", "--force", "-q").stderr == ""
    for write in (lambda: save_file(tensors, tmp_path / "m"), lambda: codec.save(tensors)):
        with pytest.warns(UserWarning, match="fc.weight"):
            write()
    with pytest.warns(UserWarning, match="fc.weight"):
        codec.encode_checkpoint(path, tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_file({"a_orig": np.ones(3), "b_mask": np.ones(3)}, tmp_path / "m")
        codec.encode_checkpoint(path, tmp_path / "m", fold=True)


def test_halves_are_folded(halves, tmp_path):
    path, tensors = halves
    found = facts("encode", path, tmp_path / "x.safetensors", "--fold")
    assert found["folded"] == 1
    assert found["bytes_before"] == sum(a.nbytes for a in tensors.values())
    whole = load_file(tmp_path / "x.safetensors")
    assert whole.keys() == {"fc.weight", "fc.bias", "lone_orig"}
    mask = tensors["fc.weight_mask"] != 0
    same(whole["fc.weight"], np.where(mask, tensors["fc.weight_orig"], np.float32(0)))
    assert not np.isnan(whole["fc.weight"]).any()  # what is pruned contributes nothing, whatever it was
    with safe_open(tmp_path / "x.safetensors") as model:
        assert model.info("fc.weight").stored_as == "frame"
    facts("encode", path, tmp_path / "x.safetensors", "--fold", "--include", "fc.weight", "--force")
    assert load_file(tmp_path / "x.safetensors").keys() == {"fc.weight", "fc.bias", "lone_orig"}


def test_what_is_no_mask_is_not_folded(halves, tmp_path):
    path, tensors = halves
    for mask, word in ((tensors["fc.weight_mask"] * 0.5, "values other than 0 and 1"), (np.ones((64, 1)), "has shape")):
        write_plain(path, tensors | {"fc.weight_mask": mask.astype(np.float32)})
        result = run("encode", path, tmp_path / "x.safetensors", "--fold")
        assert result.exit_code != 0
        assert "tensor 'fc.weight_mask'" in result.stderr
        assert word in result.stderr
        with pytest.raises(ArgumentError, match=word):
            codec.encode_checkpoint(path, tmp_path / "x.safetensors", fold=True)


def test_which_tensors_are_halves():
    assert [pair.name for pair in masked_pairs(["a_orig", "a_mask", "b_orig", "c_mask", "_orig", "_mask"])] == ["a"]
    assert masked_pairs(["a_orig", "a_mask", "a"]) == []  # the name is taken
    refused(run("encode", "nowhere", "--fold"), 2, "does not exist")


def test_halves_as_torch_leaves_them(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch.nn.utils import prune

    module = torch.nn.Linear(64, 64)
    prune.l1_unstructured(module, "weight", 0.9)
    with pytest.warns(UserWarning, match="'weight'"):
        save_file(module.state_dict(), tmp_path / "m.safetensors")
    facts("encode", tmp_path / "m.safetensors", tmp_path / "x.safetensors", "--fold")
    expected = module.weight.detach().numpy() + np.float32(0)
    same(load_file(tmp_path / "x.safetensors")["weight"], expected)


def test_tied_tensors_stay_tied_where_they_are_not_packed_any_more(tmp_path):
    w = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    save_file({"embed": w, "head": w}, tmp_path / "m.safetensors", plan={"*": "csr"})
    codec.encode_checkpoint(tmp_path / "m.safetensors", tmp_path / "n.safetensors")
    assert aliases(tmp_path / "n.safetensors") == {"head": "embed"}
    with safe_open(tmp_path / "n.safetensors") as model:
        assert model.info("embed").stored_as == "dense"
        same(model.get_tensor("head"), w)


@pytest.mark.parametrize("packed", [False, True])
def test_breakeven_counts_tied_tensors_once(tmp_path, packed):
    w, v = pruned(128, 128), np.random.default_rng(0).standard_normal(50_000, np.float32)
    signed = w.copy()
    signed[w == 0] = -0.0
    tensors = {"head": w, "embed": w.copy(), "other": pruned(128, 128), "signed": signed, "v": v, "v2": v.copy()}
    source, target = tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    write_plain(source, tensors)
    assert facts("encode", source, target)["tied"] == 1
    if packed:
        source, target = target, tmp_path / "again.safetensors"
        run("encode", source, target)
    found = facts("breakeven", source)
    rows = {row["name"]: row for row in found["tensors"]}
    with safe_open(target) as model:
        infos = {name: model.info(name) for name in model}
    assert {name: row["tied_to"] for name, row in rows.items()} == {n: info.alias_of for n, info in infos.items()}
    assert rows["head"]["tied_to"] == "embed"
    assert rows["head"]["nbytes"] == 0
    assert rows["head"]["dense_nbytes"] == w.nbytes
    assert found["nbytes"] == pytest.approx(sum(info.nbytes for info in infos.values()), rel=0.01)
    line = next(line for line in run("breakeven", source).stdout.splitlines() if line.startswith("head"))
    assert "tied to embed" in line
    assert " 0 B " in line


def test_breakeven_reads_each_tensor_once(tmp_path, monkeypatch):
    w = pruned(128, 128)
    save_file({"a": w, "b": w, "c": w.copy(), "d": pruned(128, 128)}, tmp_path / "m.safetensors", plan={"*": "dense"})
    read, get = [], codec.model.ModelFile.get_stored
    monkeypatch.setattr(codec.model.ModelFile, "get_stored", lambda self, name: read.append(name) or get(self, name))
    rows = {row["name"]: row for row in facts("breakeven", tmp_path / "m.safetensors")["tensors"]}
    assert read == ["a", "c", "d"]
    assert {name: row["tied_to"] for name, row in rows.items()} == {"a": None, "b": "a", "c": "a", "d": None}
