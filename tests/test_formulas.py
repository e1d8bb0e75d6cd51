"""Formulas of formats that codec does not write: what holds for all of them, and the tables of the papers."""

import csv
from pathlib import Path

import numpy as np
import pytest

import codec
from codec.costs.formulas import FORMULAS, entropy_bound, make_formula

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_sizes(name: str) -> None:
    """They never go below the entropy bound, and say where they are from."""
    formula = make_formula(name, {})
    assert formula.source
    assert make_formula(name, formula.params) == formula
    for bits in (4, 16, 32):
        for s in np.linspace(0, 1, 101):
            least = entropy_bound(float(s), bits) if name not in ("zero_table", "block_bitmap") else 0
            assert formula.ideal_bits(float(s), bits, 4096, 4096) >= least - 1e-9
    found = codec.break_even(name, (4096, 4096), "float32", headers=False, against="entropy_bound").curve([0.0, 0.5])
    assert found[0, 1] >= 32
    with pytest.raises(codec.ArgumentError, match="has no parameter 'joy'"):
        codec.break_even(name, (64, 64), "float32", headers=False, joy=1)
    with pytest.raises(codec.ArgumentError, match="headers=False"):
        codec.break_even(name, (64, 64), "float32")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("coo", {"index": 0}),
        ("zero_table", {"index": "wide"}),
        ("bitmap_rows", {"pointer": 65}),
        ("bitmap_two_level", {"word": 1}),
        ("block_bitmap", {"block": (0, 4)}),
        ("relative_index_rows", {"case": "hopeful"}),
        ("run_length_packed", {"bits": 17}),
        ("rice_gaps", {"parameter": -1}),
    ],
)
def test_formulas_refuse_parameters_out_of_range(name: str, params: dict) -> None:
    with pytest.raises(codec.ArgumentError, match=f"{next(iter(params))}=.*expected"):
        codec.break_even(name, (64, 64), "float32", headers=False, **params)


def test_the_zero_table_pays_while_an_index_is_narrower_than_a_value() -> None:
    for bits, index in ((32, 16), (64, 16), (16, 32), (16, 16)):
        found = codec.break_even("zero_table", (64, 64), "float64", headers=False, value_bits=bits, index=index)
        assert (found.sparsity is not None) == (index < bits)
        for s, here, dense in found.curve([0.0, 0.3, 1.0]):
            assert here == pytest.approx(dense - s * (bits - index))


def rows(name: str) -> list[dict[str, str]]:
    """A table of tests/data."""
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


# Columns of SpInfer's table of compression ratios -> the format with parameters.
SPINFER = {
    "CSR": ("csr", {"index": 32}),
    "Tiled-CSL": ("tiled_csl", {"padded": False}),
    "SparTA": ("sparta", {}),
    "TCA-BME": ("tca_bme", {"padded": False}),
    "MACKO": ("relative_index_rows", {}),
}
SPINFER_SHAPE = (28672, 8192)


@pytest.mark.parametrize("row", rows("spinfer_ratios.csv"), ids=lambda row: row["sparsity"])
def test_compression_ratios_of_spinfer(row: dict[str, str]) -> None:
    for column, (name, params) in SPINFER.items():
        found = codec.break_even(name, SPINFER_SHAPE, "float16", headers=False, **params)
        (_, bits, dense), *_ = found.curve([float(row["sparsity"])])
        assert dense / bits == pytest.approx(float(row[column]), abs=6e-5), column


@pytest.mark.parametrize("row", rows("spinfer_crossings.csv"), ids=lambda row: row["format"])
def test_crossings_of_spinfer(row: dict[str, str]) -> None:
    name, params = SPINFER[row["format"]]
    found = codec.break_even(name, SPINFER_SHAPE, "float16", headers=False, **params).sparsity
    assert found == pytest.approx(float(row["sparsity"]), abs=6e-6)


# Columns of MACKO's table of effective densities, bits against 16-bit values without pointers.
MACKO = {
    "CSR32": ("coo", {"index": 32}),
    "CSR16/TiledCSL": ("coo", {"index": 16}),
    "MACKO_best": ("relative_index_rows", {"case": "best", "pointer": 0}),
    "MACKO_expected": ("relative_index_rows", {"pointer": 0}),
    "MACKO_worst": ("relative_index_rows", {"case": "worst", "pointer": 0}),
    "bitmask": ("bitmap", {}),
    "entropy_bound": ("entropy_bound", {}),
}


@pytest.mark.parametrize("row", rows("macko_effective_density.csv"), ids=lambda row: row["density"])
def test_effective_densities_of_macko(row: dict[str, str]) -> None:
    for column, (name, params) in MACKO.items():
        found = codec.break_even(name, (4096, 4096), "float16", headers=False, **params)
        (_, bits, dense), *_ = found.curve([1 - float(row["density"])])
        digits = len(row[column].partition(".")[2])
        assert bits / dense == pytest.approx(float(row[column]), abs=0.51 * 10.0**-digits), column


def test_scnn_stores_pay_from_a_fifth_of_zeros() -> None:
    """16-bit values behind 4-bit zero counts (SCNN, section 4): 20 bits against 16."""
    found = codec.break_even("relative_index", (4096, 4096), "float16", headers=False, bits=4, filler="value")
    assert found.sparsity == pytest.approx(0.2, abs=1e-9)


@pytest.mark.parametrize(("zeros", "overhead"), [(0.387, 0.21), (0.725, 0.12), (0.793, 0.09)])
def test_eyeriss_words_above_the_entropy_bound(zeros: float, overhead: float) -> None:
    """Three pairs of 5 + 16 bits in 64, at the sparsities of Eyeriss's feature maps (JSSC 2017); real ones take 5-10 %
    above the bound, as their zeros are not independent.
    """
    found = codec.break_even(
        "run_length", (4096, 4096), "float16", headers=False, preset="eyeriss", against="entropy_bound"
    )
    (_, words, bound), *_ = found.curve([zeros])
    assert words / bound - 1 == pytest.approx(overhead, abs=0.01)
