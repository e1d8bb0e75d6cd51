"""Break-even points are the literature's to its printed digits, and those of real frames within 0.2 %."""

import csv
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import codec
from codec.breakeven import COARSE, break_even, entropy_bound, envelope, frame_bytes, weighed
from codec.cli import main
from codec.dtypes import element_type
from codec.geometry import Grid
from codec.layouts import LAYOUTS

DATA = Path(__file__).parent / "data"
SHAPE = (4096, 4096)
# The literature's names -> ours with parameters, and the power that turns our share of zero elements into its share of
# zero blocks (1 where its share is of elements).
OURS: dict[str, tuple[str, dict[str, object], int]] = {
    "CSR_c8_p32": ("csr", {"index": 8}, 1),
    "CSR_c16_p32": ("csr", {"index": 16}, 1),
    "CSR_c32_p32": ("csr", {"index": 32}, 1),
    "BITMAP": ("bitmap", {}, 1),
    "ENTROPY": ("entropy_bound", {}, 1),
    **{f"REL_k{k}": ("relative_index", {"bits": k, "filler": "value"}, 1) for k in (2, 3, 4, 5, 6, 8)},
    "RLC5_word64": ("run_length", {"bits": 5}, 1),
    **{
        f"BSR_{r}x{c}_i32": ("block_offset", {"block": (r, c), "index": 32}, r * c)
        for r, c in ((1, 4), (4, 4), (8, 8), (16, 16), (32, 32))
    },
    **{
        f"BSR_{r}x{c}_i32_IID": ("block_offset", {"block": (r, c), "index": 32}, 1) for r, c in ((1, 4), (4, 4), (8, 8))
    },
}
# What codec does not write. Other cuts into rows or words (REL_k4_rows, RLC5_unpacked), other streams (COO, row offsets
# of a bitmap, Rice codes, block bitmaps, two levels), or formats of one kernel (TCA_BME, TILED_CSL, SPARTA).
NOT_OURS = {
    "COO_i16", "COO_i32", "COO_i64", "BITMAP_row64", "BITMAP_2LVL_64", "REL_k4_rows", "RLC5_unpacked", "RICE_gap",
    "TCA_BME", "TILED_CSL", "SPARTA_2:4+CSR", *(f"BLOCKBITMAP_{b}" for b in ("1x4", "4x4", "8x8", "16x16", "32x32")),
}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    """A table of tests/data."""
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


BITS, CROSSOVERS = rows("breakeven_bits.csv"), rows("layout_crossovers.csv")


def ours(name: str) -> tuple[str, dict[str, object], int]:
    """Ours for the literature's name, or a skip with the reason."""
    if name in NOT_OURS:
        pytest.skip(f"codec does not write {name}")
    found = OURS[name]
    if found[0] not in LAYOUTS and found[0] != "entropy_bound":
        pytest.skip(f"layout {found[0]} is not in this release")
    return found


def identity(row: dict[str, str]) -> str:
    """A test id."""
    return "-".join(list(row.values())[:-1])


@pytest.mark.parametrize("row", [r for r in BITS if r["layout"] not in NOT_OURS], ids=identity)
def test_closed_forms_are_the_literatures(row: dict[str, str]) -> None:
    name, params, power = ours(row["layout"])
    bits = int(row["value_bits"])
    if row["layout"].endswith("_IID"):  # the one formula that leaves pointers to rows out
        layout = LAYOUTS[name]
        given = layout.params(params, Grid.default(*SHAPE, 4))
        found = min(s for s in np.linspace(0, 1, 10**6 + 1) if layout.ideal_bits(float(s), bits, given) < bits)
        assert found == pytest.approx(float(row["sparsity"]), abs=2e-6)
        return
    found = break_even(name, SHAPE, "float32", headers=False, value_bits=bits, **params).sparsity
    assert found is not None
    assert f"{found**power:.6g}" == f"{float(row['sparsity']):.6g}"


@pytest.mark.parametrize("row", CROSSOVERS, ids=identity)
def test_crossings_are_the_literatures(row: dict[str, str]) -> None:
    (first, first_params, _), (second, params, _) = ours(row["first"]), ours(row["second"])
    found = break_even(
        second,
        SHAPE,
        "float32",
        headers=False,
        value_bits=int(row["value_bits"]),
        against=(first, first_params),
        **params,
    )
    expected = [] if row["sparsities"] == "never" else row["sparsities"].split(" ; ")
    assert [f"{s:.4f}" for s in found.crossings] == expected


def test_every_row_is_ours_or_named() -> None:
    assert {row["layout"] for row in BITS} == set(OURS) | NOT_OURS
    assert {row[side] for row in CROSSOVERS for side in ("first", "second")} <= set(OURS) | NOT_OURS


# Real frames take their time: all value widths with CODEC_TEST_ALL=1, else the one of most models.
WIDTHS = (8, 16, 32) if os.environ.get("CODEC_TEST_ALL") else (16,)


@cache
def order() -> np.ndarray:
    """One random order of the elements: its first n are the zeros."""
    return np.random.default_rng(0).permutation(SHAPE[0] * SHAPE[1]).astype(np.int32)


def masked(sparsity: float, bits: int) -> np.ndarray:
    """A matrix of ones with exactly round(sparsity * size) zeros."""
    a = np.ones(SHAPE, f"u{bits // 8}")
    a.reshape(-1)[order()[: round(sparsity * a.size)]] = 0
    return a


def size(a: np.ndarray, name: str, params: dict[str, object]) -> int:
    """Bytes of the real frame."""
    return codec.encode(a, layout=name, objective="memory", **params).nbytes


@pytest.mark.parametrize(
    "row",
    [r for r in BITS if r["layout"] in OURS and int(r["value_bits"]) in WIDTHS and OURS[r["layout"]][2] == 1],
    ids=identity,
)
def test_frames_break_even_where_they_are_said_to(row: dict[str, str]) -> None:
    name, params, _ = ours(row["layout"])
    bits = int(row["value_bits"])
    if name == "entropy_bound" or params.get("index") == 8:
        pytest.skip("no frame of 4096 columns is coded so")
    sparsity = break_even(name, SHAPE, f"uint{bits}", **params).sparsity
    assert sparsity is not None
    a = masked(sparsity, bits)
    real = size(a, name, params)
    assert abs(real / size(a, "dense", {}) - 1) < 0.002
    assert abs(real / codec.encoded_nbytes(name, SHAPE, a.dtype, sparsity=sparsity, **params) - 1) < 0.002
    a = masked(float(row["sparsity"]), bits)
    assert abs(size(a, name, params) / a.nbytes - 1) < 0.002


@pytest.mark.parametrize("row", [r for r in CROSSOVERS if int(r["value_bits"]) in WIDTHS], ids=identity)
def test_frames_cross_where_they_are_said_to(row: dict[str, str]) -> None:
    (first, first_params, _), (second, params, _) = ours(row["first"]), ours(row["second"])
    bits = int(row["value_bits"])
    found = break_even(second, SHAPE, f"uint{bits}", against=(first, first_params), **params).crossings
    expected = [] if row["sparsities"] == "never" else [float(s) for s in row["sparsities"].split(" ; ")]
    assert [s for s in found if s < 0.999] == pytest.approx(expected, abs=3e-3)
    for sparsity in found:
        if sparsity < 0.999:  # beyond, bytes of headers decide
            a = masked(sparsity, bits)
            assert abs(size(a, first, first_params) / size(a, second, params) - 1) < 0.002


def test_the_zero_table_saves_its_share() -> None:
    for bits, index in ((32, 16), (64, 16), (16, 32)):
        found = break_even("csr", SHAPE, "float64", headers=False, value_bits=bits, of="zeros", index=index)
        pointers = 32 * 4097 / 4096**2
        for s, here, dense in found.curve([0.0, 0.3, 1.0]):
            assert here == pytest.approx(dense - s * (bits - index) + pointers)
        assert found.sparsity == (pytest.approx(pointers / (bits - index)) if bits > index else None)


def test_what_it_says() -> None:
    always = break_even("csr", (10, 10), "float32", against=("csr", {"of": "zeros"}))
    assert always.pays(0.9)
    assert break_even("dense", SHAPE, "int8").crossings == ()
    assert break_even("dense", SHAPE, "int8").sparsity is None
    back = break_even(
        "bitmap", SHAPE, "int8", headers=False, against=("relative_index", {"bits": 4, "filler": "value"})
    )
    assert back.sparsity == 0
    assert len(break_even("bitmap", SHAPE, "int8").curve()) == 101
    assert entropy_bound(0.0, 8) == 8
    assert entropy_bound(1.0, 8) == 0
    sizes = [frame_bytes(name, (64, 64), element_type("int8"), 1, given) for name, given in weighed()]
    for start, best in envelope(sizes, COARSE):
        assert sizes[best](start) == min(one(start) for one in sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "matvec"}, "comes with measured machine profiles"),
        ({"metric": "joy"}, 'expected "bytes"'),
        ({"batch": 2}, "batch="),
        ({"value_bits": 4}, "headers=False"),
        ({"against": "nothing"}, "no layout 'nothing'"),
        ({"against": ("csr", 3)}, "expected a layout's name"),
        ({"against": "entropy_bound"}, "headers=False"),
        ({"order": "diagonal"}, "order='diagonal'"),
    ],
    ids=str,
)
def test_what_it_refuses(options: dict, message: str) -> None:
    with pytest.raises(codec.ArgumentError, match=message):
        break_even("bitmap", SHAPE, "float32", **options)


def run(*arguments: object) -> str:
    """The command line's stdout."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_breakeven_on_the_command_line(tmp_path: Path) -> None:
    text = run("breakeven", "--shape", "4096x4096", "--dtype", "bf16")
    assert "bitmap: smaller than dense from 6.25 % zeros on" in text
    assert "csr: smaller than dense from 50.03 % zeros on" in text
    assert "csr of=zeros: never smaller than dense" in text
    facts = json.loads(run("breakeven", "--shape", "64x64", "--dtype", "F32", "--json"))
    assert facts["layouts"][0]["bytes"]["0.5"] == codec.encoded_nbytes("dense", (64, 64), "float32", sparsity=0.5)
    for wrong in (
        ["breakeven"],
        ["breakeven", "--shape", "4096"],
        ["breakeven", "--shape", "4xx"],
        ["breakeven", "--shape", "a"],
    ):
        status = CliRunner().invoke(main, wrong).exit_code
        assert status == (0 if wrong[-1] == "4096" else 2)
    assert CliRunner().invoke(main, ["breakeven", "--shape", "4x4", "--dtype", "complex"]).exit_code == 1


def test_tensors_of_a_file_on_the_command_line(tmp_path: Path) -> None:
    a = np.zeros((64, 256), np.float32)
    a[:8], a[9, 9] = 1.5, np.nan
    path = tmp_path / "model.safetensors"
    codec.save_file({"w": a, "bias": np.ones(64, np.float32), "s": np.float32(0)}, path)
    found = {row["name"]: row for row in json.loads(run("stats", path, "--json"))["tensors"]}
    assert (found["w"]["nnz"], found["w"]["nans"], found["w"]["rows"]["dead"]) == (8 * 256 + 1, 1, 55)
    assert found["w"]["live_blocks"]["8x8"] == [33, 256]
    assert list(json.loads(run("stats", path, "bias", "--json"))["tensors"][0]) == list(found["bias"])
    assert "87.49 %" in run("stats", path)
    rows = {row["name"]: row for row in json.loads(run("breakeven", path, "--json"))["tensors"]}
    assert rows["w"]["nbytes"] == codec.encode(a, objective="memory").nbytes == min(rows["w"]["bytes"].values())
    assert rows["bias"]["layout"] == "dense"
    assert "87.49 %" in run("breakeven", path)


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("breakeven", "--shape", "64x64", "--plot", tmp_path / "out.svg")
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
