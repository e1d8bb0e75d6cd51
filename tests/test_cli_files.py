"""encode, decode, verify and convert on small files."""

import numpy as np
import pytest
from commands import assert_same, facts, refused, run, write_plain

import codec
from codec.cli.write import layout_params
from codec.compare import first_difference, lost_signs

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
    found = facts("encode", plain, "--layout", layout, "--include", "*")
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


def test_results_have_names_of_their_own(packed, plain, tensors):
    assert packed.name == "model.codec.safetensors"
    assert facts("decode", packed)["output"] == str(plain.with_name("model.dense.safetensors"))
    assert_same(plain.with_name("model.dense.safetensors"), tensors)
    refused(run("convert", packed, "--objective", "speed"), 2, "Missing argument 'DST'")


@pytest.mark.parametrize("verb", ["encode", "decode", "convert"])
def test_every_verb_takes_its_target_in_both_ways(packed, tmp_path, verb):
    options = ("--objective", "memory") if verb == "convert" else ()
    assert run(verb, packed, tmp_path / "a.safetensors", *options).exit_code == 0
    assert run(verb, packed, "-o", tmp_path / "b.safetensors", *options).exit_code == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    both = (tmp_path / "c.safetensors", "-o", tmp_path / "d.safetensors")
    refused(run(verb, packed, *both, *options), 2, "give one of them")


# Sharded models


def test_shards_are_kept(sharded, tensors, tmp_path):
    found = facts("encode", sharded, tmp_path / "model.codec.safetensors.index.json")
    assert found["output"] == str(tmp_path / "model.codec.safetensors.index.json")
    assert (tmp_path / "model.codec-00002-of-00002.safetensors").exists()
    assert_same(found["output"], tensors)
    refused(run("encode", sharded, found["output"]), 2, "exists already")
    (tmp_path / "dense").mkdir()
    assert run("decode", found["output"], "-o", tmp_path / "dense" / "dense.safetensors.index.json").exit_code == 0
    assert_same(tmp_path / "dense", tensors)
    assert facts("verify", found["output"], "--against", sharded)["ok"]


def test_shards_become_one_file(sharded, tensors, tmp_path):
    assert run("encode", sharded, "-o", tmp_path / "one.safetensors").exit_code == 0
    assert_same(tmp_path / "one.safetensors", tensors)


def test_one_file_does_not_become_shards(plain, tmp_path):
    refused(run("encode", plain, "-o", tmp_path / "x.safetensors.index.json"), 2, "for a sharded source only")


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
        2,
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
    for text, block in (("block=2x3", (2, 3)), ("block=allx1", ("all", 1))):
        assert run("convert", packed, target, *blocks, text).exit_code == 0
        with codec.safe_open(target) as model:
            assert model.get_packed("w").params["block"] == block
    refused(run("convert", packed, target, "--force", "--layout", "csr", "--param", "bits=5"), 2, "no parameter")
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
    assert layout_params("block_offset", ["block=4x16"]) == {"block": (4, 16)}
    assert layout_params("relative_index", ["bits=3", "of=zeros"]) == {"bits": 3, "of": "zeros"}


def test_convert_keeps_shards(sharded, tensors, tmp_path):
    source = facts("encode", sharded.parent)["output"]
    target = tmp_path / "fast.safetensors.index.json"
    assert facts("convert", source, target, "--objective", "speed")["converted"] == 2
    assert (tmp_path / "fast-00002-of-00002.safetensors").exists()
    assert_same(target, tensors)
    assert facts("convert", source, tmp_path / "one.safetensors", "--objective", "memory")["converted"] == 2
    assert_same(tmp_path / "one.safetensors", tensors)
    refused(run("convert", source, tmp_path / "y.safetensors", "--reindex"), 2, "in another folder")
    assert facts("convert", source, tmp_path / "again", "--reindex")["packed"] == 2
    assert_same(tmp_path / "again", tensors)


def test_convert_says_what_it_needs(packed, plain, tmp_path):
    refused(run("convert", packed, tmp_path / "x.safetensors"), 2, "expected one of --objective, --layout")
    refused(run("convert", packed, tmp_path / "x.safetensors", "--reindex", "--objective", "disk"), 2, "stands alone")
    refused(run("convert", plain, tmp_path / "x.safetensors", "--objective", "disk"), 2, "codec encode packs them")
    nothing = ("--objective", "disk", "--include", "nothing")
    refused(run("convert", packed, tmp_path / "x.safetensors", *nothing), 2, "has such a name")
    assert not (tmp_path / "x.safetensors").exists()


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
