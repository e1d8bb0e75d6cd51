"""Operations and energy are those that papers print: Li 2017, EIE, Deep Compression, and the 45 nm table."""

import csv
from math import ceil, inf
from pathlib import Path

import pytest

import codec
from codec.costs.accelerators import eie_seconds
from codec.costs.energy import ENERGY_45NM, energy
from codec.costs.operations import Layer, Network, sharing_ratio

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[dict[str, str]]:
    """A table of tests/data."""
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def saved(network: Network, removed: dict[str, int]) -> tuple[float, float]:
    """Per cent of multiply-adds and of parameters that removing filters saves."""
    before, after = network.operations(), network.without_filters(removed).operations()
    assert before.compression_ratio(after) == pytest.approx(before.parameters / after.parameters)
    return 100 * (1 - after.macs / before.macs), 100 * (1 - after.parameters / before.parameters)


def vgg16() -> Network:
    """VGG-16 for CIFAR-10 as Li 2017 has it: thirteen convolutions and two linear layers."""
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    sides = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    layers, channels = [], 3
    for number, (width, side) in enumerate(zip(widths, sides, strict=True), 1):
        reads = f"conv{number - 1}" if number > 1 else None
        layers.append(Layer(f"conv{number}", width, channels, (3, 3), side * side, reads=reads))
        channels = width
    return Network.of([*layers, Layer("fc1", 512, 512, reads="conv13"), Layer("fc2", 10, 512)])


def resnet(depth: int) -> tuple[Network, dict[int, str]]:
    """A ResNet for CIFAR-10, and the first convolutions of its blocks by their number in the paper."""
    blocks = (depth - 2) // 6
    layers, firsts, channels, number = [Layer("conv1", 16, 3, (3, 3), 1024)], {}, 16, 1
    for width, side in ((16, 32), (32, 16), (64, 8)):
        for _ in range(blocks):
            first, second = f"conv{number + 1}", f"conv{number + 2}"
            firsts[number + 1] = first
            layers.append(Layer(first, width, channels, (3, 3), side * side))
            layers.append(Layer(second, width, width, (3, 3), side * side, reads=first))
            channels, number = width, number + 2
    return Network.of([*layers, Layer("fc", 10, 64, bias=True)]), firsts


def test_vgg16_of_li_2017() -> None:
    network = vgg16()
    assert (network.operations().macs, network.operations().parameters) == (313_463_808, 14_977_728)
    removed = {"conv1": 32, **{f"conv{n}": 256 for n in range(8, 14)}}
    after = network.without_filters(removed).operations()
    assert (after.macs, after.parameters) == (206_279_680, 5_390_176)
    macs, parameters = saved(network, removed)
    assert (f"{macs:.1f}", f"{parameters:.1f}") == ("34.2", "64.0")


@pytest.mark.parametrize(
    ("depth", "skipped", "shares", "macs", "parameters", "printed"),
    [
        (56, (16, 20, 38, 54), (0.1, 0.1, 0.1), 112_435_840, 769_466, (10.4, 9.4)),
        (56, (16, 18, 20, 34, 38, 54), (0.6, 0.3, 0.1), 90_907_264, 732_026, (27.6, 13.7)),
        (110, (36,), (0.5, 0.0, 0.0), 212_779_648, 1_680_698, (15.9, 2.3)),
        (110, (36, 38, 74), (0.5, 0.4, 0.3), 155_124_352, 1_161_722, (38.6, 32.4)),
    ],
)
def test_resnets_of_li_2017(
    depth: int, skipped: tuple, shares: tuple, macs: int, parameters: int, printed: tuple
) -> None:
    """Counts are exact; of the printed digits the paper rounds some and cuts off others (13.77 is printed as 13.7)."""
    network, firsts = resnet(depth)
    blocks = len(firsts) // 3
    removed = {
        name: ceil(round(shares[at // blocks] * 16 * 2 ** (at // blocks), 9))
        for at, (number, name) in enumerate(firsts.items())
        if number not in skipped
    }
    after = network.without_filters(removed).operations()
    assert (after.macs, after.parameters) == (macs, parameters)
    assert saved(network, removed) == pytest.approx(printed, abs=0.1)


def resnet34() -> tuple[Network, dict[int, str]]:
    """ResNet-34 for ImageNet as Li 2017 counts it, without its shortcuts' projections."""
    layers, firsts, before, channels, number = [Layer("conv1", 64, 3, (7, 7), 112 * 112)], {}, None, 64, 2
    for width, side, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        for _ in range(blocks):
            first, second = f"conv{number}", f"conv{number + 1}"
            firsts[number] = first
            layers.append(Layer(first, width, channels, (3, 3), side * side, reads=before))
            layers.append(Layer(second, width, width, (3, 3), side * side, reads=first))
            before, channels, number = second, width, number + 2
    return Network.of([*layers, Layer("fc", 1000, 512)]), firsts


@pytest.mark.parametrize(
    ("shares", "macs", "parameters", "printed"),
    [
        ((0.3, 0.3, 0.3, 0), 3_080_916_992, 19_962_560, ("15.5", "7.6")),
        ((0.5, 0.6, 0.4, 0), 2_763_001_856, 19_280_576, ("24.2", "10.8")),
    ],
)
def test_resnet34_of_li_2017(shares: tuple, macs: int, parameters: int, printed: tuple) -> None:
    """Pruned in the first layers of its blocks, but for the sensitive ones; all printed digits are these."""
    network, firsts = resnet34()
    whole = network.operations()
    assert (whole.macs, whole.parameters) == (3_644_493_824, 21_607_616)  # printed as 3.64e9 and 21.6 M
    stages = [0] * 3 + [1] * 4 + [2] * 6 + [3] * 3
    removed = {
        name: ceil(round(shares[stage] * 64 * 2**stage, 9))
        for (number, name), stage in zip(firsts.items(), stages, strict=True)
        if number not in (2, 8, 14, 16, 26, 28, 30, 32)
    }
    after = network.without_filters(removed).operations()
    assert (after.macs, after.parameters) == (macs, parameters)
    assert tuple(f"{share:.1f}" for share in saved(network, removed)) == printed


def test_resnet34_of_li_2017_by_its_second_layers() -> None:
    """A fifth of what the blocks of the third stage hand on; 7.4 % of the multiply-adds, where the paper prints 7.5."""
    network, firsts = resnet34()
    third = [f"conv{number + 1}" for number in firsts][7:13]
    assert saved(network, dict.fromkeys(third, ceil(0.2 * 256))) == pytest.approx((7.5, 7.2), abs=0.1)


def test_what_removing_filters_reaches() -> None:
    """Batch norm of the filters, the layer behind, and a linear layer behind a feature map of 7 x 7."""
    layers = [
        Layer("a", 8, 3, (3, 3), 196, batch_norm=True),
        Layer("b", 4, 8, (1, 1), 49, stride=2, reads="a", batch_norm=True),
        Layer("fc", 10, 4 * 49, reads="b", per_channel=49),
    ]
    network = Network.of(layers)
    found = network.without_filters({"a": 2, "b": 1}).layers
    assert [(layer.filters, layer.channels) for layer in found] == [(6, 3), (3, 6), (10, 147)]
    a, b, fc = (layer.operations() for layer in found)
    assert (a.parameters, b.parameters, fc.parameters) == (6 * 27 + 12, 3 * 6 + 6, 1470)
    assert (a.macs, b.macs, fc.macs) == (6 * 27 * 196, 18 * 49, 1470)
    assert b.accesses == b.parameters + 6 * 196 + 3 * 49
    sparse = network.operations({"fc": 0.5})
    assert network.operations().macs - sparse.macs == 5 * 196
    assert network.operations().theoretical_speedup(sparse) > 1


def test_a_network_that_is_pruned_away() -> None:
    layer = Layer("a", 8, 3)
    dense, nothing = layer.operations(), layer.operations(sparsity=1.0)
    assert dense.compression_ratio(nothing) == dense.theoretical_speedup(nothing) == inf
    for wrong in ({"sparsity": 1.5}, {"sparsity": float("nan")}, {"activations": -0.1}):
        with pytest.raises(codec.ArgumentError, match=r"expected a share of zeros from 0 to 1"):
            layer.operations(**wrong)


@pytest.mark.parametrize(
    ("removed", "message"),
    [({"z": 1}, "there is no such layer"), ({"conv1": 65}, "it has 64"), ({"conv1": -1}, "it has 64")],
)
def test_filters_that_are_not_there(removed: dict, message: str) -> None:
    with pytest.raises(codec.ArgumentError, match=message):
        vgg16().without_filters(removed)


def test_networks_that_do_not_fit_together() -> None:
    a = Layer("a", 8, 3)
    for layers in ([a, a], [a, Layer("b", 4, 9, reads="a")], [Layer("b", 4, 9, reads="a")]):
        with pytest.raises(codec.ArgumentError, match=r"same name|reads 9 channels"):
            Network.of(layers)
    with pytest.raises(codec.ArgumentError, match="expected ints"):
        Layer("a", -1, 3)
    with pytest.raises(codec.ArgumentError, match="no layer 'z'"):
        vgg16().operations({"z": 0.5})


@pytest.mark.parametrize("row", rows("eie_layers.csv"), ids=lambda row: row["layer"])
def test_layers_of_eie(row: dict[str, str]) -> None:
    """Operations are weight density times activation density; times hold within 25 %, as densities are rounded."""
    inputs, outputs = int(row["inputs"]), int(row["outputs"])
    density, active = float(row["weight_pct"]) / 100, float(row["act_pct"]) / 100
    layer = Layer(row["layer"], outputs, inputs)
    share = layer.operations(sparsity=1 - density, activations=1 - active).macs / layer.operations().macs
    assert 100 * share == pytest.approx(float(row["flop_pct"]), abs=1.01)
    seconds = eie_seconds(outputs, inputs, density=density, activations=active)
    assert 1e6 * seconds == pytest.approx(float(row["theoretical_us"]), rel=0.25)


@pytest.mark.parametrize(
    "row",
    # In the printed digits of a smaller layer one weight more or less shows.
    [row for row in rows("deep_compression.csv") if row["layer"] != "Total" and int(row["weights"]) > 2000],
    ids=lambda r: r["network"] + r["layer"],
)
def test_prune_and_quantise_of_deep_compression(row: dict[str, str]) -> None:
    """Codes and gaps by the closed form of relative_index, and the codebook of 32-bit values."""
    weights, bits, index = int(row["weights"]), int(row["weight_bits"]), int(row["index_bits"])
    form = codec.break_even(
        "relative_index", (4096, 4096), "float32", headers=False, value_bits=bits, bits=index, filler="value"
    )
    (_, each, _), *_ = form.curve([1 - float(row["kept_pct"]) / 100])
    assert 100 * (each / 32 + 2**bits / weights) == pytest.approx(float(row["rate_pct"]), abs=0.5)


def test_weight_sharing_of_deep_compression() -> None:
    """The example of section 3: 16 weights of 32 bits share 4 values."""
    assert sharing_ratio(16, 32, 4) == pytest.approx(3.2)


def test_the_table_of_energy() -> None:
    names = {
        "32b int ADD": "int add", "32b float ADD": "float add", "32b int MULT": "int multiply",
        "32b float MULT": "float multiply", "32b 32KB SRAM": "SRAM read", "32b DRAM (LPDDR2)": "DRAM read",
    }  # fmt: skip
    printed = {names[row["operation"]]: float(row["energy_pJ"]) for row in rows("energy_45nm.csv")}
    assert dict(ENERGY_45NM) == printed
    layer = Layer("connections", 1000, 1_000_000)  # EIE, section 1: 1 G connections at 20 Hz take 12.8 W of DRAM
    dense = layer.operations()
    assert 20 * energy(dense, 4e9) > 12.8
    assert 20 * (energy(dense, 4e9) - energy(dense, 0)) == pytest.approx(12.8)
    assert energy(dense, 4e9, batch=8) < 8 * energy(dense, 4e9)


@pytest.mark.parametrize("row", rows("mao2017.csv"), ids=lambda row: row["network"] + row["granularity"])
def test_mao_2017_is_from_memory_only(row: dict[str, str]) -> None:
    """No exact test: the rows are marked, and only what follows from 8-bit weights with a 4-bit index per granule is
    asked of them, as a lower limit (granules of 1 x 1 kernels hold one weight).
    """
    assert "from memory" in row["provenance"]
    least = float(row["density_pct"]) * (8 + 4 / int(row["granule"])) / 8
    assert float(row["storage_pct"]) > 0.98 * least
