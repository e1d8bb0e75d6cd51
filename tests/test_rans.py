"""Coding rans: tables are proved, the kernels' choice and parts are the plain ones, and what is wrong is refused."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from items import TYPES, count, flips, streams
from sets import printed_by_every_set
from strategies import LAYOUT_PARAMS, entropies

import codec
from codec import kernels
from codec.entropy import CODINGS, Items, KeyCounts
from codec.entropy.bits import BitReader, BitWriter, folded, golomb_bits, unfolded
from codec.entropy.rans import LANE_BYTES, RansCode, code_of, coded_bytes, lanes_for
from codec.entropy.rans_plain import choose, decode_part, encode_part
from codec.errors import ArgumentError, FormatError
from codec.matrix import Grid

HALVES = (2048, 2048)


def code_for(items: np.ndarray, kind: str, lanes: int = 2) -> RansCode:
    """The table that is chosen for items, with so many lanes."""
    low, zeros, first, counts = choose(Items(items.itemsize, kind), count(items, kind))
    return RansCode(items.itemsize, kind, low, zeros, first, lanes, counts)


def native_part(items: np.ndarray, code: RansCode) -> bytes:
    """What the kernel in use writes."""
    streams = kernels.Streams(1, len(items), 1, len(items), items.itemsize, 1, 0, 0, (), 1)
    streams.set_part(0, 0, items.view(np.uint8))
    streams.code(0, CODINGS["rans"].coder(code), 1)
    return bytes(streams.part(0, 0))


def native_items(part: bytes, code: RansCode, limit: int) -> np.ndarray:
    """What the kernel in use reads as values of layout dense; FormatError where it refuses them, or where there are
    fewer than ``limit``.
    """
    buffer = np.frombuffer(part + bytes(64), np.uint8)
    stream = (
        buffer, np.zeros(1, np.uint64), np.array([len(part)], np.uint32), np.zeros(1, np.uint32),
        CODINGS["rans"].coder(code), False,
    )  # fmt: skip
    grid, out = Grid(1, limit, 1, limit), np.zeros(limit * code.width, np.uint8)
    view = kernels.backend.view(grid, 0, code.width, (), 0, [stream], None, (0, kernels.NO_STREAM, 0, False))
    kernels.raise_for(view.decode(0, limit, out, True, 1)[0], ["values"])
    return out.view(f"<u{code.width}")


@settings(deadline=None, max_examples=120)
@given(streams(), st.integers(0, 4))
@example((np.zeros(0, "<u4"), "float"), 4)
@example((np.arange(200, dtype="u1"), "unsigned"), 4)
def test_round_trip_and_size(stream: tuple[np.ndarray, str], lanes: int) -> None:
    items, kind = stream
    about, keys = Items(items.itemsize, kind), count(items, kind)
    code = code_for(items, kind, lanes)
    chosen = code_of(about, keys)
    assert (chosen.low, chosen.zeros, chosen.first, chosen.counts) == (code.low, code.zeros, code.first, code.counts)
    assert RansCode.from_header(code.header, items.itemsize, kind) == code
    part = encode_part(items, code)
    assert encode_part(items.tobytes(), code) == part
    assert decode_part(part, code, len(items)).tobytes() == items.tobytes()
    if len(items):
        assert native_part(items, code) == part
        assert native_items(part, code, len(items)).tobytes() == items.tobytes()
    nbytes, chosen = coded_bytes(about, keys, 1)
    assert abs(nbytes - len(encode_part(items, chosen))) <= 2 * LANE_BYTES << chosen.lanes


@pytest.mark.parametrize("lanes", range(5))
@pytest.mark.parametrize(("width", "kind"), TYPES)
def test_long_parts_of_every_number_of_lanes(lanes: int, width: int, kind: str) -> None:
    rng = np.random.default_rng(lanes)
    # Whole blocks, whole rounds of lanes, and what is left over.
    for n in (4096, 4096 + 64 * (lanes + 1), 5000 + lanes):
        items = np.rint(rng.standard_normal(n) * 30).astype("<i8").view(np.uint8).reshape(n, 8)[:, :width]
        items = np.ascontiguousarray(items).view(f"<u{width}").reshape(n)
        code = code_for(items, kind, lanes)
        part = encode_part(items, code)
        assert native_part(items, code) == part
        assert native_items(part, code, n).tobytes() == items.tobytes()
        for cut in (part[:-1], part[:-2], part + b"\0\0", part[: len(part) // 2]):
            with pytest.raises(FormatError):
                native_items(cut, code, n)


def test_part_by_hand() -> None:
    # Symbols 5 and 6 with 1024 and 3072 of 4096; items 5, 6, 5 in two lanes: 65536 takes each of them without a word.
    code = RansCode(1, "unsigned", 0, 0, 5, 1, (1024, 3072))
    first = 65536 // 1024 * 4096  # the last item of lane 0
    lanes = (first // 1024 * 4096, 65536 // 3072 * 4096 + 65536 % 3072 + 1024)
    expected = b"".join(n.to_bytes(4, "little") for n in (3, *lanes))
    assert encode_part(bytes([5, 6, 5]), code) == expected


def test_shares_are_near_the_best() -> None:
    rng = np.random.default_rng(4)
    for spread in (0.3, 1, 3):
        weights = np.exp(spread * rng.standard_normal(200))
        items = rng.choice(200, 50_000, p=weights / weights.sum()).astype("u1")
        _, counts = np.unique(items, return_counts=True)
        share = counts / len(items)
        entropy = -(share * np.log2(share)).sum() * len(items) / 8
        assert len(native_part(items, code_for(items, "unsigned"))) < 1.01 * entropy + 16


def test_skewed_streams_take_less_than_a_bit() -> None:
    # One symbol in a hundred: Huffman code words take a bit at least.
    a = (np.random.default_rng(5).random((500, 600)) < 0.01).astype(np.int8)
    sizes = {stage: codec.encode(a, layout="dense", entropy=stage).nbytes for stage in ("huffman", "rans")}
    assert 8 * sizes["rans"] / a.size < 0.09 < 1 < 8 * sizes["huffman"] / a.size
    assert codec.encode(a, layout="dense", entropy="auto").nbytes <= sizes["rans"]


def stream_bytes(p: codec.PackedTensor) -> dict[str, int]:
    """Bytes of each stream, with what it takes in the header."""
    head = p.spans.head
    state = {one.name: (one.coding, one.state) for one in head.streams if one.coding in CODINGS}
    more = {name: CODINGS[coding].header_bytes(held) for name, (coding, held) in state.items()}
    return {name: size + more.get(name, 0) for name, size in p.parts.items() if name in head.names}


def test_auto_takes_the_smallest_coding_of_each_stream() -> None:
    rng = np.random.default_rng(6)
    a = np.where(rng.random((300, 700)) < 0.1, rng.standard_normal((300, 700)), 0).astype(np.float16)
    for layout, params in LAYOUT_PARAMS:
        if "rans" not in entropies(layout):
            continue
        sizes = {
            stage: stream_bytes(codec.encode(a, layout=layout, entropy=stage, **params))
            for stage in ("none", *CODINGS, "auto")
        }
        for name, size in sizes["auto"].items():
            assert size <= min(sizes[stage][name] for stage in ("none", *CODINGS)) + 8


def test_lanes_take_a_small_share() -> None:
    assert lanes_for(0, 0) == lanes_for(100, 1) == 2
    assert [lanes_for(nbytes, 1) for nbytes in (12_287, 12_288, 10**9)] == [2, 4, 4]
    for nbytes in (10_000, 100_000, 1_000_000, 10**9):
        lanes = lanes_for(nbytes, 1)
        assert LANE_BYTES << lanes <= nbytes / 256
        assert lanes_for(7 * nbytes, 7) == lanes


BAD_HEADERS = {
    "short": [0, 0, 0, 0],
    "bool": [0, 0, 0, True, b"\1\0\0"],
    "lanes": [0, 0, 0, 5, RansCode(1, "unsigned", 0, 0, 0, 0, HALVES).header[-1]],
    "negative lanes": [0, 0, 0, -1, RansCode(1, "unsigned", 0, 0, 0, 0, HALVES).header[-1]],
    "text": [0, 0, 0, 0, "11"],
    "empty": [0, 0, 0, 0, b""],
    "no bits": [8, 8, 0, 0, RansCode(1, "unsigned", 0, 0, 0, 0, (4096,)).header[-1]],
    "outside": [8, 0, 255, 0, RansCode(1, "unsigned", 0, 0, 0, 0, HALVES).header[-1]],
    "zeros": [0, 0, 0, 0, bytes(20)],
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_headers(header: list[object]) -> None:
    with pytest.raises(FormatError):
        RansCode.from_header(header, 2, "unsigned")


@pytest.mark.parametrize(
    "counts",
    [(), (4095,), (4097,), (0, 4096), (4096, 0), (2048, 2049), (1,) * 257],
    ids=lambda counts: str(counts)[:20],
)
def test_tables_that_do_not_add_up(counts: tuple[int, ...]) -> None:
    with pytest.raises(FormatError):
        RansCode(1, "unsigned", 0, 0, 0, 0, counts)
    with pytest.raises(ValueError, match="table"):
        kernels.rans_coder(1, "unsigned", 0, 0, 0, 0, counts)


def test_counts_are_whole_and_not_negative() -> None:
    for counts in ((5000, -904), (2048.0, 2048.0), (True, 4095)):
        with pytest.raises(FormatError):
            RansCode(1, "unsigned", 0, 0, 0, 0, counts)  # type: ignore[arg-type]


def test_any_bytes_are_a_table_or_refused() -> None:
    header = RansCode(2, "float", 3, 2, 60, 1, (100, 0, 3000, 996)).header
    for other in [*flips(header[-1]), *(header[-1][:n] for n in range(len(header[-1])))]:
        with suppress(FormatError):
            code = RansCode.from_header([*header[:-1], other], 2, "float")
            assert sum(code.counts) == 4096
            CODINGS["rans"].coder(code)  # proves it again


PARTS = [
    (np.array([5, 6, 7, 5, 7, 5, 5], "u1"), "unsigned"),
    (np.array([0xBFC0, 0x3F81, 0x3E00, 0x0000, 0x8000], "<u2"), "float"),
    (np.array([-3, 200, 7], "<i4").view("<u4"), "signed"),
    (np.arange(40, dtype="u1"), "unsigned"),
    (np.full(3, 9, "u1"), "unsigned"),
]


@pytest.mark.parametrize(("items", "kind"), PARTS)
def test_damage_is_an_error_or_another_valid_part(items: np.ndarray, kind: str) -> None:
    code = code_for(items, kind, 1)
    part = encode_part(items, code)
    damaged = [part[:n] for n in range(len(part))] + [part + bytes(n) for n in (1, 2, 3)]
    for other in [*damaged, *flips(part)]:
        try:
            decoded = decode_part(other, code, len(items))
        except FormatError:
            with pytest.raises(FormatError):
                native_items(other, code, len(items))
            continue
        # No two parts hold the same items: what is accepted differs, and is written back as it was.
        assert decoded.tobytes() != items.tobytes()
        assert encode_part(decoded, code) == other
        if len(decoded) == len(items):
            assert native_items(other, code, len(items)).tobytes() == decoded.tobytes()


def test_items_without_a_symbol() -> None:
    code = RansCode(1, "unsigned", 0, 0, 5, 1, (2048, 0, 2048))
    for item in (4, 6, 8):
        with pytest.raises(ArgumentError):
            encode_part(bytes([item]), code)
        native_part(np.array([item] * 70, "u1"), code)  # some bytes, and nothing else


@given(st.lists(st.integers(-5000, 5000), max_size=40), st.integers(0, 7))
def test_numbers_as_bits(numbers: list[int], order: int) -> None:
    out = BitWriter()
    for number in numbers:
        assert unfolded(folded(number)) == number
        out.golomb(folded(number), order)
    data = out.bytes()
    assert len(data) == -(-sum(golomb_bits(folded(number), order) for number in numbers) // 8)
    read = BitReader(data)
    assert [unfolded(read.golomb(order)) for _ in numbers] == numbers
    read.end()
    with pytest.raises(FormatError):
        BitReader(data + b"\0").end()


def test_counts_that_no_keys_have_are_refused() -> None:
    for case in (
        (np.zeros(0, np.uint64), 0, 0, 0, 1, 0),
        (np.ones(4, np.uint64), 0, 0, 0, 3, 0),
        (np.ones(4, np.uint64), 0, 253, 0, 1, 0),
        (np.full(4, 2**62, np.uint64), 0, 0, 0, 1, 0),
    ):
        with pytest.raises(ValueError, match=r"counts|type"):
            kernels._native.choose_counts(*case)


def test_counts_near_the_limits() -> None:
    counts = np.array([2**62, 1, 2**61, 7, 0, 3], np.uint64)
    keys = KeyCounts(counts, 0, 0, 7)
    assert code_of(Items(1), keys).counts == choose(Items(1), keys)[3]


_PRINT = """
import hashlib, numpy as np, codec
rng, found = np.random.default_rng(0), hashlib.sha256()
for dtype in ("float32", "float16", "int8", "int64"):
    a = rng.standard_normal((700, 900)) * 20
    a[np.abs(a) < 20] = 0
    for layout in ("dense", "bitmap", "csr"):
        p = codec.encode(np.clip(a, -120, 120).astype(dtype), layout=layout, entropy="rans", threads=1)
        assert "rans" in p.entropy.values()
        found.update(codec.dumps(p))
        found.update(codec.decode(codec.dumps(p)).tobytes())
print(found.hexdigest())
"""


def test_every_instruction_set_writes_the_same() -> None:
    assert len(printed_by_every_set(_PRINT)) == 1
