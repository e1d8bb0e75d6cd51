"""What the verbs pack and what they leave, what they refuse, and what they say of it."""

import numpy as np
import pytest
from commands import assert_same, facts, refused, run, write_plain
from models import pruned

import codec
from codec.model import load_file, safe_open, save_file, worth_packing
from codec.model.shards import find_model


@pytest.fixture
def model(tmp_path):
    """Weights, and what stands beside them: norms, biases, a scalar; a small matrix; and long vectors."""
    tensors = {
        "fc.weight": pruned(128, 128),
        "tiny.weight": pruned(8, 4, keep=0.1),
        "norm.weight": np.ones(4096, np.float32),
        "fc.bias": np.zeros(4096, np.float32),
        "step": np.array(7),
        "table": np.zeros(40_000, np.float32),
        "noise": np.random.default_rng(0).integers(0, 2**32, (64, 64), np.uint32).view(np.float32),
    }
    return write_plain(tmp_path / "model.safetensors", tensors), tensors


def frames(path):
    with safe_open(path) as opened:
        return {name for name in opened if opened.info(name).stored_as == "frame"}


def test_what_others_must_read_stays(model, tmp_path):
    path, tensors = model
    for write in (
        lambda out: facts("encode", path, out),
        lambda out: save_file(tensors, out),
        lambda out: codec.encode_checkpoint(path, out),
    ):
        write(tmp_path / "x.safetensors")
        assert frames(tmp_path / "x.safetensors") == {"fc.weight", "table"}
        assert_same(tmp_path / "x.safetensors", tensors)
        (tmp_path / "x.safetensors").unlink()


@pytest.mark.parametrize(
    ("shape", "dense", "packed", "worth"),
    [
        ((100, 100), 40_000, 39_375, True), ((100, 100), 40_000, 39_376, False), ((4, 4), 512, 256, True),
        ((4, 4), 512, 257, False), ((0, 4), 0, 320, False), ((20_000,), 80_000, 14_464, True),
        ((20_000,), 80_000, 14_465, False), ((), 8, 320, False), ((1, 20_000), 80_000, 14_465, True),
    ],
)  # fmt: skip
def test_the_rule(shape, dense, packed, worth):
    assert worth_packing(shape, dense, packed) is worth


def test_asking_for_it_wins(model, tmp_path):
    path, tensors = model
    found = facts("encode", path, tmp_path / "x.safetensors", "--layout", "bitmap", "--include", "*")["output"]
    assert frames(found) == tensors.keys()
    assert_same(found, tensors)
    plan = {"step": "csr", "norm.*": {"layout": "bitmap"}, "fc.*": "dense"}
    save_file(tensors, tmp_path / "y.safetensors", plan=plan)
    assert frames(tmp_path / "y.safetensors") == {"step", "norm.weight", "table"}


@pytest.mark.parametrize("options", [("n_m",), ("n_m", "--param", "n=4", "--param", "m=4"), ("csr",)])
def test_one_layout_is_for_matrices(model, tmp_path, options):
    path, tensors = model
    result = run("encode", path, tmp_path / "x.safetensors", "--layout", *options)
    assert result.exit_code == 0, result.output
    assert "4 tensors of fewer than two dimensions kept; --include packs them too" in result.stderr
    assert frames(tmp_path / "x.safetensors") == {"fc.weight", "tiny.weight", "noise"}
    assert_same(tmp_path / "x.safetensors", tensors)


def test_a_layout_that_does_not_fit_names_the_tensor(model, tmp_path):
    result = run("encode", model[0], tmp_path / "x.safetensors", "--layout", "n_m", "--param", "n=1", "--param", "m=4")
    assert result.exit_code != 0
    assert "tensor 'fc.weight'" in result.stderr
    assert not (tmp_path / "x.safetensors").exists()


VERBS = {
    "encode": (),
    "convert": ("--objective", "speed"),
    "prune": ("--sparsity", "0.5"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_exclude_that_fits_nothing_is_told(model, tmp_path, verb):
    packed = facts("encode", model[0])["output"]
    found = run(verb, packed, tmp_path / "x.safetensors", *VERBS[verb], "--exclude", "fc.wieght")
    assert "--exclude 'fc.wieght': no tensor has such a name; there are 'fc.weight'" in found.stderr


@pytest.mark.parametrize("verb", ["encode", "convert"])
def test_an_include_that_fits_nothing_is_refused(model, tmp_path, verb):
    packed = facts("encode", model[0])["output"]
    for names in (("nothing",), ("fc.*", "--include", "weight")):
        target = tmp_path / "x.safetensors"
        words = ("no tensor has such a name", repr(names[-1]))
        refused(run(verb, packed, target, *VERBS[verb], "--include", *names), 2, *words)
        assert not target.exists()
    assert run(verb, packed, target, *VERBS[verb], "--include", "fc.weight", "--include", "t*").exit_code == 0


PARAMETERS = [
    ("csr", "bits=5", "no parameter 'bits'"), ("n_m", "n=5", "n=5"), ("relative_index", "bits=17", "bits=17"),
    ("block_offset", "block=0x4", "block="), ("bitmap", "order=sideways", "order='sideways'"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "parameter", "words"), PARAMETERS)
def test_bad_parameters_are_faults_of_the_command(model, tmp_path, layout, parameter, words):
    packed = facts("encode", model[0])["output"]
    more = ("--param", "m=4") if layout == "n_m" else ()
    for verb in ("encode", "convert"):
        target = tmp_path / "x.safetensors"
        refused(run(verb, packed, target, "--layout", layout, "--param", parameter, *more), 2, words)
        assert not target.exists()
    refused(run("encode", packed, target, "--layout", "huffman", "--entropy", "zstd"), 2, "does not apply")


def test_excluded_frames_stay_as_they_are(model, tmp_path):
    packed = facts("encode", model[0])["output"]
    out = facts("encode", packed, tmp_path / "x.safetensors", "--objective", "memory", "--exclude", "fc.*")["output"]
    with safe_open(packed) as old, safe_open(out) as new:
        assert codec.dumps(new.get_packed("fc.weight")) == codec.dumps(old.get_packed("fc.weight"))


def test_verify_states_the_rule(tmp_path):
    w = pruned(64, 64)
    w[0, :5] = -0.0
    tensors = {"w": w, "v": np.array([-0.0, 1], np.float32)}
    plain = write_plain(tmp_path / "m.safetensors", tensors)
    packed = facts("encode", plain)["output"]
    found = facts("verify", packed, "--against", plain)
    assert (found["compared_under"], found["negative_zeros"]) == ({"bits": 1, "value": 1}, 5)
    text = run("verify", packed, "--against", plain).stdout
    assert "The same: 1 tensor with every bit, 1 tensor under zero='value' (-0.0 is a zero too)" in text
    assert "5 negative zeros became +0.0" in text
    # The rule can be asked for.
    found = facts("verify", packed, "--against", plain, "--zero", "bits", status=1)
    assert [fault["tensor"] for fault in found["faults"]] == ["w"]
    assert "-0.0 (0x80000000) (zero='bits')" in found["faults"][0]["fault"]
    write_plain(tmp_path / "n.safetensors", tensors | {"v": np.array([0.0, 1], np.float32)})
    assert not facts("verify", packed, "--against", tmp_path / "n.safetensors", status=1)["ok"]
    assert facts("verify", packed, "--against", tmp_path / "n.safetensors", "--zero", "value")["compared_under"] == {
        "value": 2
    }
    refused(run("verify", packed, "--zero", "bits"), 2, "--against")


def test_sizes_add_up_for_a_file_that_was_packed_before(model, tmp_path):
    packed = facts("encode", model[0])
    again = facts("encode", packed["output"], tmp_path / "x.safetensors", "--objective", "memory")
    assert again["bytes_before"] == packed["bytes_after"]
    for found in (packed, again):
        for key in ("bytes_before", "bytes_after", "tensors"):
            assert sum(group[key] for group in found["layouts"].values()) == found[key]


def test_names_from_a_file_do_not_act_on_the_terminal(tmp_path):
    name = "w\x1b[2J\n\u202eevil"
    path = write_plain(
        tmp_path / "m.safetensors", {f"{name}_orig": pruned(64, 64), f"{name}_mask": np.ones((64, 64), "f4")}
    )
    for verb, more in (("encode", ()), ("verify", ("--against", tmp_path / "m.codec.safetensors")), ("decode", ())):
        result = run(verb, path, *more)
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    write_plain(tmp_path / "n.safetensors", {name: np.ones(3, np.float32)})
    result = run("verify", path, "--against", tmp_path / "n.safetensors")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "\\x1b" in result.output


def test_a_folder_means_its_model(tmp_path):
    write_plain(tmp_path / "a.safetensors", {"w": pruned(64, 64)})
    assert find_model(str(tmp_path)) == str(tmp_path / "a.safetensors")
    (tmp_path / ".hidden.safetensors").write_bytes(b"")
    assert load_file(tmp_path).keys() == {"w"}
