"""Sizes for zeros that come in structures: as predicted, and as the command line says."""

import json
import re

import numpy as np
import pytest
from commands import run

import codec
from codec.costs.frames import frame_bytes
from codec.dtypes import element_type


@pytest.mark.parametrize(
    ("structure", "layout", "params"),
    [
        ("4x4", "block_offset", {"block": (4, 4)}),
        ("1x8", "block_offset", {"block": (1, 8)}),
        ("filter", "block_offset", {}),
        ("4x4", "csr", {}),
        ("2:4", "n_m", {}),
        ("1:8", "n_m", {"m": 8}),
    ],
)
def test_frames_are_as_predicted(structure: str, layout: str, params: dict) -> None:
    shape = (4096, 512)
    a = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
    kept = codec.prune.mask(a, None if ":" in structure else 0.8, structure=structure)
    predicted = frame_bytes(layout, shape, element_type("float16"), 1, params, structure)
    real = codec.encode(np.where(kept, a, np.float16(0)), layout=layout, objective="memory", **params).nbytes
    assert predicted(1 - float(kept.mean())) == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize(("structure", "sparsity"), [("4x4", 0.03), ("2:4", 0.5), ("filter", 0.01)])
def test_structures_pay_earlier_than_independent_zeros(structure: str, sparsity: float) -> None:
    layout = "n_m" if ":" in structure else "block_offset"
    options = {"block": (4, 4)} if structure == "4x4" else {}
    found = codec.break_even(layout, (512, 512), "float16", structure=structure, tolerance=1e-3, **options)
    alone = codec.break_even(layout, (512, 512), "float16", tolerance=1e-3, **options)
    assert found.sparsity == pytest.approx(sparsity, abs=0.01)
    assert alone.sparsity is None or alone.sparsity > 0.5


def test_structures_on_the_command_line() -> None:
    text = run("breakeven", "--shape", "256x256", "--structure", "2:4").stdout
    line = next(line for line in text.splitlines() if line.startswith("n_m:"))
    assert re.match(r"n_m: smaller than dense from (49|50)\.\d\d % zeros on; with independent zeros", line)
    assert "Zeros come in structures of 2:4." in text
    facts = json.loads(run("breakeven", "--shape", "256x256", "--structure", "4x4", "--json").stdout)
    blocks = next(row for row in facts["layouts"] if row["params"] == {"block": [4, 4]})
    assert blocks["pays_from"] < 0.1 < 0.8 < blocks["independent"]["pays_from"]
    for wrong in (["--shape", "4x4", "--structure", "4x"], ["--structure", "4x4"]):
        assert run("breakeven", *wrong).exit_code == 2


def test_closed_forms_have_no_structures() -> None:
    with pytest.raises(codec.ArgumentError, match="structure= needs headers=True"):
        codec.break_even("csr", (64, 64), "float32", headers=False, structure="4x4")
    with pytest.raises(codec.ArgumentError, match="structure='spiral'"):
        codec.break_even("csr", (64, 64), "float32", structure="spiral")
