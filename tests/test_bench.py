"""codec bench: what it measures, and what it refuses. How fast anything is, is no test."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import facts, refused, run
from products import weights

import codec
from codec.bench import bound, measurable
from codec.dtypes import element_type


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {
        "sparse": weights((128, 300), element_type("float32"), 0.8),
        "full": weights((128, 300), element_type("float32"), 0.0),
        "bytes": weights((70, 65), element_type("int8"), 0.9),
        "bias": np.ones(128, np.float32),
        "filters": weights((8, 3, 3, 3), element_type("float32"), 0.5),
    }
    codec.save_file(tensors, path)
    return path


def test_every_matrix_is_measured(model: Path) -> None:
    found = facts("bench", model, "--batch", "1", "--batch", "3", "--seconds", "0.001", "--threads", "1")
    assert {row["name"] for row in found["matrices"]} == {"sparse", "full", "bytes"}
    layouts = {row["name"]: [one["layout"] for one in row["products"]] for row in found["matrices"]}
    assert layouts == {"sparse": ["sell", "sell"], "full": ["dense", "dense"], "bytes": ["sell", "sell"]}
    for row in found["matrices"]:
        for one, batch in zip(row["products"], (1, 3), strict=True):
            assert one["batch"] == batch
            assert all(seconds > 0 for seconds in one["seconds"].values())
            assert {"codec", "numpy"} <= set(one["seconds"])
            assert one["bound_by"] in ("memory", "calls", "arithmetic")
    for batch, total in zip((1, 3), found["sums"], strict=True):
        assert total["batch"] == batch
        assert total["speed_up"] == pytest.approx(total["dense_seconds"] / total["codec_seconds"])
        assert total["slowest"] <= total["geometric_mean"]


def test_the_table_and_single_matrices_as_they_are_stored(model: Path) -> None:
    result = run("bench", model, "sparse", "--batch", "2", "--seconds", "0.001", "--as-stored")
    assert result.exit_code == 0, result.output
    assert "Batch 2, " in result.output
    assert "bytes" not in [line.split()[0] for line in result.output.splitlines()[4:] if line]
    found = json.loads(run("bench", model, "sparse", "--seconds", "0.001", "--as-stored", "--json").stdout)
    stored = codec.load_file(model, packed=True)["sparse"]
    assert {one["layout"] for one in found["matrices"][0]["products"]} == {stored.layout}


def test_what_is_no_matrix_is_refused(model: Path, tmp_path: Path) -> None:
    refused(run("bench", model, "filters"), 2, "8x3x3x3; expected a matrix")
    refused(run("bench", model, "spars"), 2, "sparse")
    codec.save_file({"bias": np.ones(5, np.float32)}, tmp_path / "none.safetensors")
    refused(run("bench", tmp_path / "none.safetensors"), 2, "no matrix")


def test_what_is_measurable_and_what_bounds() -> None:
    assert measurable("BF16", (3, 4))
    assert measurable("I8", (3, 4))
    for dtype, shape in (("F32", (3,)), ("F32", (0, 4)), ("I32", (3, 4)), ("F4", (3, 4))):
        assert not measurable(dtype, shape)
    assert [bound(1e-3, n, 1e10) for n in (10**7, 10**5)] == ["memory", "arithmetic"]
    assert bound(1e-6, 10, 1e10) == "calls"
