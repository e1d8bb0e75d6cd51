"""Negative zeros on the command line: a recorded zero rule stays, and every -0.0 that becomes +0.0 is counted."""

import numpy as np
import pytest
from commands import assert_same, facts, run, write_plain
from models import pruned

import codec

SIGNS = 256


@pytest.fixture
def signed():
    """A sparse tensor with negative zeros."""
    a = pruned(64, 64)
    a.reshape(-1)[np.flatnonzero(a == 0)[:SIGNS]] = -0.0
    return a


@pytest.fixture
def kept(tmp_path, signed):
    """A file that keeps them: packed under zero="bits"."""
    codec.save_file({"a": signed}, tmp_path / "kept.safetensors", zero="bits")
    return tmp_path / "kept.safetensors"


@pytest.fixture
def plain(tmp_path, signed):
    return write_plain(tmp_path / "plain.safetensors", {"a": signed})


def rule(path):
    with codec.safe_open(path) as model:
        return model.get_packed("a").zero


@pytest.mark.parametrize("options", [(), ("--objective", "memory"), ("--layout", "csr"), ("--exclude", "a")])
def test_a_tensor_that_is_encoded_again_keeps_its_zero_rule(kept, signed, tmp_path, options):
    found = facts("encode", kept, tmp_path / "out.safetensors", *options)
    assert found["negative_zeros"] == 0
    assert rule(tmp_path / "out.safetensors") == "bits"
    assert_same(tmp_path / "out.safetensors", {"a": signed}, "bits")
    assert "negative zero" not in run("encode", kept, tmp_path / "again.safetensors", *options).stdout


def test_the_library_keeps_the_zero_rule_too(kept, signed, tmp_path):
    codec.encode_checkpoint(kept, tmp_path / "again.safetensors")
    codec.save_file(codec.load_file(kept, packed=True), tmp_path / "saved.safetensors")
    for name in ("again", "saved"):
        assert rule(tmp_path / f"{name}.safetensors") == "bits"
        assert_same(tmp_path / f"{name}.safetensors", {"a": signed}, "bits")
    codec.encode_checkpoint(kept, tmp_path / "asked.safetensors", zero="value")
    assert rule(tmp_path / "asked.safetensors") == "value"


def test_another_rule_that_is_asked_for_is_counted(kept, tmp_path):
    found = facts("encode", kept, tmp_path / "out.safetensors", "--zero", "value")
    assert (found["zero"], found["negative_zeros"]) == ("value", SIGNS)
    assert rule(tmp_path / "out.safetensors") == "value"


def test_signs_that_plain_tensors_lose_are_counted(plain, tmp_path):
    packed = tmp_path / "packed.safetensors"
    assert facts("encode", plain, packed)["negative_zeros"] == SIGNS
    words = "256 negative zeros of the packed tensors became +0.0"
    assert words in run("encode", plain, tmp_path / "other.safetensors").stdout
    # They are lost once: not again when the file is copied or encoded again.
    assert facts("encode", packed, tmp_path / "again.safetensors")["negative_zeros"] == 0
    assert facts("encode", packed, tmp_path / "copied.safetensors", "--exclude", "a")["negative_zeros"] == 0
    assert facts("encode", plain, tmp_path / "kept.safetensors", "--zero", "bits")["negative_zeros"] == 0
    assert facts("encode", plain, tmp_path / "dense.safetensors", "--exclude", "a")["negative_zeros"] == 0


def test_verify_counts_signs_that_are_its_differences(plain, tmp_path):
    packed = facts("encode", plain, tmp_path / "packed.safetensors")["output"]
    found = facts("verify", packed, "--zero", "bits", "--against", plain, status=1)
    assert found["negative_zeros"] == SIGNS
    text = run("verify", packed, "--zero", "bits", "--against", plain).stdout
    assert text.endswith("256 negative zeros became +0.0\n")
