"""Break-even points are the literature's to its printed digits, and those of real frames within 0.2 %."""

import csv
import itertools
import json
import os
import re
from functools import cache
from math import floor, log10, prod
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import codec
from codec.cli import main, plot
from codec.costs.breakeven import break_even
from codec.costs.crossings import COARSE, envelope
from codec.costs.formulas import entropy_bound
from codec.costs.frames import contenders, frame_bytes
from codec.dtypes import element_type
from codec.layouts import make_layout
from codec.model.container import header_bytes

DATA = Path(__file__).parent / "data"
SHAPE, FRAME = (4096, 4096), (1024, 4096)
# The literature's names -> ours with parameters, and the power that turns our share of zero elements into its share of
# zero blocks (1 where its share is of elements).
OURS: dict[str, tuple[str, dict[str, object], int]] = {
    "CSR_c8_p32": ("csr", {"index": 8}, 1),
    "CSR_c16_p32": ("csr", {"index": 16}, 1),
    "CSR_c32_p32": ("csr", {"index": 32}, 1),
    "BITMAP": ("bitmap", {}, 1),
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
# The literature's names -> formulas of formats that codec does not write, and that power.
FORMULA_ROWS: dict[str, tuple[str, dict[str, object], int]] = {
    **{f"COO_i{i}": ("coo", {"index": i}, 1) for i in (16, 32, 64)},
    "BITMAP_row64": ("bitmap_rows", {}, 1),
    "BITMAP_2LVL_64": ("bitmap_two_level", {}, 1),
    "REL_k4_rows": ("relative_index_rows", {"bits": 4}, 1),
    "RLC5_unpacked": ("run_length_packed", {}, 1),
    "RICE_gap": ("rice_gaps", {}, 1),
    "ENTROPY": ("entropy_bound", {}, 1),
    **{
        f"BLOCKBITMAP_{r}x{c}": ("block_bitmap", {"block": (r, c)}, r * c)
        for r, c in ((1, 4), (4, 4), (8, 8), (16, 16), (32, 32))
    },
    "TILED_CSL": ("tiled_csl", {}, 1),
    "TCA_BME": ("tca_bme", {}, 1),
    "SPARTA_2:4+CSR": ("sparta", {}, 1),
}


def rows(name: str) -> list[dict[str, str]]:
    """A table of tests/data."""
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


BITS, CROSSOVERS = rows("breakeven_bits.csv"), rows("layout_crossovers.csv")


def known(name: str) -> tuple[str, dict[str, object], int]:
    """A layout or a formula for the literature's name, its parameters, and the power."""
    return OURS.get(name) or FORMULA_ROWS[name]


def identity(row: dict[str, str]) -> str:
    """A test id."""
    return "-".join(list(row.values())[:-1])


@pytest.mark.parametrize("row", BITS, ids=identity)
def test_closed_forms_are_the_literatures(row: dict[str, str]) -> None:
    name, params, power = known(row["layout"])
    bits = int(row["value_bits"])
    if row["layout"].endswith("_IID"):  # the one formula that leaves pointers to rows out
        layout = make_layout(name, params)
        found = min(s for s in np.linspace(0, 1, 10**6 + 1) if layout.ideal_bits(float(s), bits) < bits)
        assert found == pytest.approx(float(row["sparsity"]), abs=2e-6)
        return
    found = break_even(name, SHAPE, "float32", headers=False, value_bits=bits, **params).sparsity
    assert found is not None
    printed = float(row["sparsity"])  # to six digits; a half may have been rounded either way
    assert abs(found**power - printed) <= 0.5005 * 10.0 ** (floor(log10(printed)) - 5)


@pytest.mark.parametrize("row", CROSSOVERS, ids=identity)
def test_crossings_are_the_literatures(row: dict[str, str]) -> None:
    (first, first_params, _), (second, params, _) = known(row["first"]), known(row["second"])
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


def test_every_row_is_a_layout_or_a_formula() -> None:
    assert {row["layout"] for row in BITS} == set(OURS) | set(FORMULA_ROWS)
    assert {row[side] for row in CROSSOVERS for side in ("first", "second")} <= set(OURS) | set(FORMULA_ROWS)


# Real frames take their time, so they have fewer rows, of the same bytes each; and all value widths with
# CODEC_TEST_ALL=1, else the one of most models.
WIDTHS = (8, 16, 32) if os.environ.get("CODEC_TEST_ALL") else (16,)


@cache
def order() -> np.ndarray:
    """One random order of the elements: its first n are the zeros."""
    return np.random.default_rng(0).permutation(FRAME[0] * FRAME[1]).astype(np.int32)


def masked(sparsity: float, bits: int) -> np.ndarray:
    """A matrix of ones with exactly round(sparsity * size) zeros."""
    a = np.ones(FRAME, f"u{bits // 8}")
    a.reshape(-1)[order()[: round(sparsity * a.size)]] = 0
    return a


def size(a: np.ndarray, name: str, params: dict[str, object]) -> int:
    """Bytes of the real frame."""
    return codec.encode(a, layout=name, objective="memory", **params).nbytes


@pytest.mark.parametrize(
    "row",
    [
        r
        for r in BITS
        if r["layout"] in OURS and int(r["value_bits"]) in WIDTHS and OURS[r["layout"]][2] == 1
        and known(r["layout"])[1].get("index") != 8  # no frame of 4096 columns has so few bits for a column
    ],
    ids=identity,
)  # fmt: skip
def test_frames_break_even_where_they_are_said_to(row: dict[str, str]) -> None:
    name, params, _ = known(row["layout"])
    bits = int(row["value_bits"])
    sparsity = break_even(name, SHAPE, f"uint{bits}", **params).sparsity
    assert sparsity is not None
    a = masked(sparsity, bits)
    real = size(a, name, params)
    assert abs(real / size(a, "dense", {}) - 1) < 0.002
    assert abs(real / codec.encoded_nbytes(name, FRAME, a.dtype, sparsity=sparsity, **params) - 1) < 0.002
    a = masked(float(row["sparsity"]), bits)
    assert abs(size(a, name, params) / a.nbytes - 1) < 0.002


WRITTEN = [r for r in CROSSOVERS if int(r["value_bits"]) in WIDTHS and {r["first"], r["second"]} <= set(OURS)]


@pytest.mark.parametrize("row", WRITTEN, ids=identity)
def test_frames_cross_where_they_are_said_to(row: dict[str, str]) -> None:
    (first, first_params, _), (second, params, _) = known(row["first"]), known(row["second"])
    bits = int(row["value_bits"])
    found = break_even(second, SHAPE, f"uint{bits}", against=(first, first_params), **params).crossings
    expected = [] if row["sparsities"] == "never" else [float(s) for s in row["sparsities"].split(" ; ")]
    assert [s for s in found if s < 0.999] == pytest.approx(expected, abs=3e-3)
    for sparsity in found:
        if sparsity < 0.999:  # beyond, bytes of headers decide
            a = masked(sparsity, bits)
            assert abs(size(a, first, first_params) / size(a, second, params) - 1) < 0.003


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
    sizes = [frame_bytes(name, (64, 64), element_type("int8"), 1, given) for name, given in contenders()]
    for start, best in envelope(sizes, COARSE):
        assert sizes[best](start) == min(one(start) for one in sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "joy"}, "expected one of bytes, matvec"),
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


def test_lists_are_parameters_too() -> None:
    found = break_even("block_offset", (64, 64), "float32", block=[4, 4])
    assert found.crossings == break_even("block_offset", (64, 64), "float32", block=(4, 4)).crossings


# Shapes of any size


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**20, 2), "has 2\\*\\*63 bytes or more"),
        ((2**32, 2**31), "has 2\\*\\*63 bytes or more"),
        ((0, 2**63), "has 2\\*\\*63 bytes or more"),
        ((2,) * 33, "33 dimensions"),
        ((-1, 4), "expected non-negative ints"),
        ((4.0, 4), "expected non-negative ints"),
    ],
    ids=str,
)
@pytest.mark.parametrize("headers", [True, False])
def test_what_cannot_be_a_tensor_is_refused(shape: tuple, message: str, headers: bool) -> None:
    with pytest.raises(codec.ArgumentError, match=message):
        break_even("csr", shape, "float32", headers=headers)
    with pytest.raises(codec.ArgumentError, match=message):
        codec.encoded_nbytes("csr", shape, "float32", sparsity=0.5)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (1, 0), (0, 2**40), (3, 0, 3)], ids=str)
def test_tensors_without_elements_have_no_crossings(shape: tuple) -> None:
    for name, params in contenders():
        assert break_even(name, shape, "float32", **params).crossings == ()
        break_even(name, shape, "float32", headers=False, **params)


@pytest.mark.parametrize("shape", [(131_072, 32_768), (40, 25_000_000), (30_000_000,), (1_000_003, 1_000)], ids=str)
def test_sizes_of_large_shapes_are_those_of_all_their_segments(shape: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """What few segments tell is what all of them do, within 0.5 % and where that is less 0.001 bits per element."""
    wanted = [(name, params, s) for name, params in contenders() for s in (0.1, 0.5, 0.9, 0.99, 0.9999)]

    def sizes() -> list[int]:
        return [codec.encoded_nbytes(name, shape, "float16", sparsity=s, **params) for name, params, s in wanted]

    found = sizes()
    monkeypatch.setattr("codec.encoding.sizes._FEW", 1 << 60)
    monkeypatch.setattr("codec.encoding.sizes._FEW_COLS", 1 << 60)
    assert found == pytest.approx(sizes(), rel=5e-3, abs=prod(shape) * 0.001 / 8)


@pytest.mark.parametrize("shape", ["2147483647x2147483647", "1000000000000"])
def test_large_shapes_are_answered(shape: str) -> None:
    text = run("breakeven", "--shape", shape)
    assert "bitmap: smaller than dense from 6.25 % zeros on" in text
    assert "run_length: smaller than dense from 25.00 % zeros on" in text


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_words_of_small_tensors_are_not_predicted_too_small(sparsity: float) -> None:
    random = np.random.default_rng(0)
    a = (random.standard_normal((3, 384)) * (random.random((3, 384)) >= sparsity)).astype(np.float16)
    predicted = codec.encoded_nbytes("run_length", a.shape, a.dtype, stats=codec.tensor_stats(a))
    assert 0.95 < predicted / codec.encode(a, layout="run_length").nbytes < 1.15


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
    assert "No entropy stage is counted" in text
    facts = json.loads(run("breakeven", "--shape", "64x64", "--dtype", "F32", "--json"))
    assert facts["layouts"][0]["bytes"]["0.5"] == codec.encoded_nbytes("dense", (64, 64), "float32", sparsity=0.5)
    assert "No entropy stage is counted" in facts["counted"]
    for shape in ("4096", "1x0", "0x5"):
        run("breakeven", "--shape", shape)
    for large in ("18446744073709551616x1", "9" * 5000, "1x" + "0" * 30 + "9" * 20):
        result = CliRunner().invoke(main, ["breakeven", "--shape", large])
        assert result.exit_code == 2
        assert "is too large: it has 2**63 bytes or more; expected less" in result.stderr
    for wrong in (
        ["breakeven"],
        ["breakeven", "--shape", "4xx"],
        ["breakeven", "--shape", "a"],
        ["breakeven", "--shape", "-1x4"],
        ["breakeven", "--shape", "9" * 5000],
        ["breakeven", "--shape", "99999999999999999999x2"],
        ["breakeven", "--shape", "4294967296x4294967296"],
        ["breakeven", "--shape", "4x4", "--dtype", "complex"],
        ["breakeven", "--shape", "4x4", "--objective", "disk"],
    ):
        result = CliRunner().invoke(main, wrong)
        assert result.exit_code == 2, wrong
        assert isinstance(result.exception, SystemExit)


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
    memory = json.loads(run("breakeven", path, "--objective", "memory", "--json"))["tensors"]
    rows = {row["name"]: row for row in memory}
    assert rows["w"]["nbytes"] == codec.encode(a, objective="memory").nbytes == min(rows["w"]["bytes"].values())
    assert rows["bias"]["layout"] == "dense"
    assert "87.49 %" in run("breakeven", path)


def test_breakeven_of_a_file_agrees_with_encode(tmp_path: Path) -> None:
    """The same tensors are packed, in the same layouts, within 1 % of the bytes."""
    random = np.random.default_rng(0)
    tensors = {"bias": random.standard_normal(64).astype(np.float32), "step": np.array(7)}
    for name, sparsity in {"w0": 0.0, "w1": 0.3, "w2": 0.7, "w3": 0.95, "w4": 0.999, "w5": 1.0}.items():
        tensors[name] = random.standard_normal((200, 300)).astype(np.float32)
        tensors[name][random.random((200, 300)) < sparsity] = 0
    tensors["codes"] = random.integers(0, 256, (64, 64)).astype(np.uint8)  # incompressible
    blocks = np.kron(random.random((25, 25)) < 0.1, np.ones((8, 8)))
    tensors["blocks"] = (blocks * random.standard_normal((200, 200))).astype(np.float16)
    source, target = tmp_path / "model.safetensors", tmp_path / "packed.safetensors"
    codec.save_file(tensors, source, plan={"*": "dense"})
    predicted = json.loads(run("breakeven", source, "--json"))
    run("encode", source, "-o", target)
    written = {row["name"]: row for row in json.loads(run("inspect", target, "--json"))["tensors"]}
    assert predicted["objective"] == "disk"
    assert predicted["nbytes"] == pytest.approx(sum(row["nbytes"] for row in written.values()), rel=0.01)
    for row in predicted["tensors"]:
        there = written[row["name"]]
        assert row["packed"] == (there["stored_as"] == "frame"), row["name"]
        if row["packed"]:
            # context is encoded beside what is predicted to be smaller.
            assert there["layout"] in (row["layout"].split()[0], "context")
        assert row["nbytes"] == pytest.approx(there["nbytes"], rel=0.01, abs=128)
    text = run("breakeven", source)
    for name in ("bias", "step", "codes"):
        assert "stays dense" in next(line for line in text.splitlines() if line.startswith(name))
    assert "The sizes are those of what codec encode writes" in text


def test_small_savings_are_not_worth_packing(tmp_path: Path) -> None:
    sparse = np.zeros(60_000, np.float32)
    sparse[::10] = np.random.default_rng(0).standard_normal(6000)
    path = tmp_path / "model.safetensors"
    shapes = {"norm": sparse[:10_000], "vector": sparse, "matrix": sparse[:10_000].reshape(100, 100)}
    codec.save_file({**shapes, "small": sparse[:60].reshape(6, 10)}, path, plan={"*": "dense"})
    rows = {row["name"]: row for row in json.loads(run("breakeven", path, "--json"))["tensors"]}
    assert {name for name, row in rows.items() if row["packed"]} == {"vector", "matrix"}
    assert rows["norm"]["nbytes"] == rows["norm"]["dense_nbytes"] == 40_000


def test_what_cannot_be_counted_stays_dense(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = header_bytes([("scales", "F8_E8M0", (64, 64)), ("none", "F32", (0, 2**40)), ("wide", "F32", (1, 0))], {})
    path.write_bytes(header + bytes(64 * 64))
    found = json.loads(run("breakeven", path, "--json"))
    assert found["nbytes"] == found["dense_nbytes"] == 64 * 64
    assert not any(row["packed"] for row in found["tensors"])
    found = json.loads(run("stats", path, "--json"))
    assert [(row["name"], row["shape"], row["size"]) for row in found["tensors"]] == [
        ("none", [0, 2**40], 0),
        ("wide", [1, 0], 0),
    ]
    assert found["left_out"] == ["scales"]
    assert "Left out: 1 tensor of dtypes that codec does not count." in run("stats", path)
    result = CliRunner().invoke(main, ["stats", str(path), "scales"])
    assert result.exit_code == 2
    assert "tensor 'scales' has dtype F8_E8M0" in result.stderr


def test_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    run("breakeven", "--shape", "64x64", "--plot", tmp_path / "out.svg")
    text = (tmp_path / "out.svg").read_text()
    assert text.startswith("<?xml")
    for words in (
        "entropy bound",
        "csr, 8-bit index",
        "relative_index of=zeros",
        "bits above the entropy bound",
        "no entropy stage",
    ):
        assert words in text
    assert re.search(r"context from \d+\.\d\d %", text)
    styles = [plot.style(number) for number in range(len(contenders()))]
    assert len({style["color"] for style in styles}) == len(styles)
    for style, after in itertools.pairwise(styles):
        assert style["linestyle"] != after["linestyle"]
    for suffix in ("png", "pdf"):
        run("breakeven", "--shape", "3x5", "--plot", tmp_path / f"out.{suffix}")
        assert (tmp_path / f"out.{suffix}").stat().st_size > 10_000
    assert CliRunner().invoke(main, ["breakeven", "--shape", "0x5", "--plot", str(tmp_path / "x.png")]).exit_code == 2
