"""LeNet-300-100 as in Deep Compression (S. Han, H. Mao, W. Dally, ICLR 2016, tables 1 and 2), with weights of our own.

The densities are the paper's, but nothing is retrained behind pruning and sharing. Every byte of the file counts.
`pytest -s` on this file prints the bytes beside the paper's.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

import codec
from codec.demo import bundled
from codec.prune import magnitude

LAYERS = {"ip1": "fc1.weight", "ip2": "fc2.weight", "ip3": "fc3.weight"}  # by the paper's names
DENSE = 1_066_440  # bytes of all weights and biases in 32 bits
# Bits of a label -> bytes of the frames of the layers, and of the whole file.
BYTES = {5: ([15823, 2709, 421], 21297), 6: ([17376, 3099, 582], 23401)}
# Per cent of 32-bit dense in the paper's table 2, all stages (6 bits), and the size of the whole in table 1.
PAPER, PAPER_TIMES = {"ip1": 2.32, "ip2": 3.04, "ip3": 12.7}, 40


def rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / "deep_compression.csv").open() as file:
        every = csv.DictReader(line for line in file if not line.startswith("#"))
        return [row for row in every if row["network"] == "LeNet-300-100" and row["layer"] in LAYERS]


@pytest.mark.parametrize("bits", BYTES)
def test_lenet_300_100(tmp_path: Path, bits: int) -> None:
    with codec.safe_open(bundled()) as source:
        tensors = {name: source.get_tensor(name) for name in source}
    assert sum(a.nbytes for a in tensors.values()) == DENSE
    for row in rows():
        name = LAYERS[row["layer"]]
        tensors[name] = magnitude(tensors[name], 1 - int(row["kept_pct"]) / 100)
    shared = {"values": "codebook", "value_bits": bits, "codebook_start": "linear"}
    codec.save_file(tensors, tmp_path / "lenet", plan=dict.fromkeys(LAYERS.values(), shared))
    with codec.safe_open(tmp_path / "lenet") as model:
        frames = [model.info(name).nbytes for name in LAYERS.values()]
        for name in LAYERS.values():
            back = model.get_tensor(name)
            assert np.array_equal(back != 0, tensors[name] != 0)
            assert len(np.unique(back)) <= 2**bits + 1
    nbytes = (tmp_path / "lenet").stat().st_size
    for row, frame in zip(rows(), frames, strict=True):
        rate = 100 * frame / (4 * int(row["weights"]))
        print(f"{row['layer']}: {frame:,} bytes, {rate:.2f} % of dense; the paper {PAPER[row['layer']]} %")
    print(f"file with biases, {bits} bits: {nbytes:,} bytes, {DENSE / nbytes:.1f}x; the paper {PAPER_TIMES}x")
    assert (frames, nbytes) == BYTES[bits]


def test_smaller_than_the_paper() -> None:
    assert DENSE / BYTES[5][1] > 49
    assert DENSE / BYTES[6][1] > 44  # with as many bits as the paper has
