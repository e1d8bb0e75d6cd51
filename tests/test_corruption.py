"""Damaged, cut and hostile frames: CodecError or the exact tensor, never another exception, a crash or silence."""

import resource
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, repeat
from typing import Any

import head
import msgpack
import numpy as np
import pytest
import reader
import writer
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LAYOUT_PARAMS, complete, layout_id, seeded

import codec
from codec import kernels
from codec.dtypes import element_type
from codec.layouts import LAYOUTS

# Two segments, the last of them clipped: codec itself cuts only what has 2**18 elements.
SHAPE, SEGMENT = (9, 11), (5, 11)
CASES = [
    (layout, params, coding)
    for layout, params in LAYOUT_PARAMS
    for coding in head.CODINGS
    if coding == "huffman" or not LAYOUTS[layout]().always_coded
]
every_case = pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{layout_id(c[:2])}-{c[2]}" for c in CASES])


@cache
def frame_of(number: int) -> bytes:
    """The frame of a case, every stream in its coding, from the plain writer."""
    layout, given, coding = CASES[number]
    element = element_type("int16")
    # Small values, so that their Huffman code is small too.
    a = (seeded(SHAPE, element, 0.8, number) >> 12).view(element.unsigned)
    chosen = complete(layout, given, a)
    codings = {stream.name: coding for stream in chosen.streams(element)}
    return writer.encode(a, element.name, layout, params=chosen.params, segment=SEGMENT, codings=codings).build()


def read(data: Any) -> bytes | None:
    """What codec reads, or None where it refuses; anything but a CodecError fails the test."""
    try:
        return codec.decode(data, threads=1).tobytes()
    except codec.CodecError:
        return None


def read_bounded(data: bytes) -> bytes | None:
    """What codec reads, in less than 2 MiB of Python's memory and 64 MiB of all."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        found = read(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 16  # KiB
    return found


def read_plainly(data: bytes) -> bytes | None:
    """The same by the reader of spec/."""
    try:
        return reader.read_frame(data)[0].tobytes()
    except reader.SpecError:
        return None


def shared_streams(header: dict[str, Any]) -> set[str]:
    """The streams that have one part for all segments (spec section 4.3)."""
    whole = header["layout"] == "block_offset" and header["params"]["block"][0] == "all"
    return {"codebook"} | ({"columns"} if whole else set())


@dataclass(frozen=True)
class Place:
    """A part: its stream, its span, and where its length and CRC stand in the table."""

    stream: str
    begin: int
    end: int
    length: int


@dataclass(frozen=True)
class Marks:
    """A frame's parts in the order of the table, and where the head ends."""

    parts: list[Place]
    start: int

    @classmethod
    def of(cls, data: bytes) -> "Marks":
        begin = start = int.from_bytes(data[5:8], "little")
        unpacker = msgpack.Unpacker()
        unpacker.feed(data[12:])
        _, (rows, _), _, height, number, params, *_ = unpacker.unpack()
        table = 12 + unpacker.tell()
        layout, (streams, _) = list(head.LAYOUTS.items())[number]
        whole = layout == "block_offset" and params[0][0] == 0
        step = 8 if layout != "context" else 1
        shared, own = ([streams[1]], [streams[2]]) if whole else ([], streams)
        parts: list[Place] = []
        for record in chain([shared] * bool(shared), repeat(own, -(-rows // (height or rows)))):
            for stream in record:
                end = begin + struct.unpack_from("<I", data, table)[0]
                parts.append(Place(stream, begin, end, table))
                begin = -(-end // step) * step
                table += 8
        return cls(parts, start)


def repaired(data: bytes, marks: Marks) -> bytes:
    """The bytes with every checksum right again (spec section 4), as one who means harm would make them.

    Places come from the bytes themselves where they still say so, and from ``marks`` otherwise.
    """
    out = bytearray(data)
    with suppress(Exception):
        again = Marks.of(data)
        inside = again.start < len(data) and all(part.length + 8 <= again.start for part in again.parts)
        marks = again if inside else marks
    for part in marks.parts:
        struct.pack_into("<I", out, part.length + 4, kernels.crc32c(data[part.begin : part.end]))
    struct.pack_into("<I", out, 8, kernels.crc32c(out[12 : marks.start], kernels.crc32c(out[:8])))
    return bytes(out)


def changes(data: bytes, seed: int) -> Iterator[bytes]:
    """For every byte one of: a bit of it flipped, 00, ff, one step up, one step down."""
    rng = np.random.default_rng(seed)
    for at, byte in enumerate(data):
        ways = (byte ^ 1 << int(rng.integers(8)), 0, 255, (byte + 1) & 255, (byte - 1) & 255)
        yield data[:at] + bytes([ways[int(rng.integers(5))]]) + data[at + 1 :]


@every_case
def test_every_cut_bit_and_byte(number: int) -> None:
    data = frame_of(number)
    assert read(data) == read_plainly(data) is not None
    silent = [n for n in range(len(data)) if read(data[:n]) is not None]
    damaged = bytearray(data)
    for at, byte in enumerate(data):
        # All bits of the prefix. A CRC or a rule covers any other byte whole: one of its bits, another in each case.
        bits = range(8) if at < 12 else ((at + number) % 8,)
        for other in [*(byte ^ 1 << bit for bit in bits), 0, 255]:
            damaged[at] = other
            if other != byte and read(damaged) is not None:
                silent.append(at)
        damaged[at] = byte
    # Not one change is accepted, whatever it would read as: every bit of a frame is covered.
    assert silent == []
    assert read(data + bytes(64)) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_codec_wrote(layout: str) -> None:
    a = seeded(SHAPE, element_type("bfloat16"), 0.7)
    data = codec.dumps(codec.encode(a, layout=layout))
    for at in range(len(data)):
        assert read(data[:at]) is None
        assert read(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]) is None


@every_case
def test_with_checksums_repaired_both_readers_agree(number: int) -> None:
    data = frame_of(number)
    marks = Marks.of(data)
    assert repaired(data, marks) == data
    accepted = 0
    for changed in islice(changes(data, number), number % 2, None, 2):
        hostile = repaired(changed, marks)
        found = read(hostile)
        assert found == read_plainly(hostile)
        accepted += found is not None
    assert accepted  # else the repair does not reach what lies behind the checksums


@every_case
def test_moved_parts_with_checksums_repaired(number: int) -> None:
    """Every length of the table a little up and down: a part longer, shorter, empty, or elsewhere."""
    data = frame_of(number)
    marks = Marks.of(data)
    for at in sorted({part.length for part in marks.parts}):
        for step in (-64, -8, -4, -2, -1, 1, 2, 4, 8, 64, 1 << 31):
            changed = bytearray(data)
            struct.pack_into("<I", changed, at, (struct.unpack_from("<I", data, at)[0] + step) % (1 << 32))
            hostile = repaired(bytes(changed), marks)
            assert read(hostile) == read_plainly(hostile)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_several_changes_at_once(data: st.DataObject) -> None:
    right = frame_of(data.draw(st.integers(0, len(CASES) - 1)))
    marks = Marks.of(right)
    changed = bytearray(right)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(12, len(right) - 1))
        length = data.draw(st.integers(1, 4))
        changed[at : at + length] = data.draw(st.binary(min_size=length, max_size=length))[: len(right) - at]
    hostile = repaired(bytes(changed), marks)
    assert read(hostile) == read_plainly(hostile)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes, begins_well: bool) -> None:
    if begins_well:
        data = frame_of(0)[:12] + data
    with pytest.raises(codec.CodecError):
        codec.loads(data)


@every_case
def test_errors_say_where(number: int) -> None:
    data = frame_of(number)
    marks = Marks.of(data)
    for part in marks.parts:
        if part.begin == part.end:
            continue
        damaged = bytearray(data)
        damaged[part.begin] ^= 0x10
        with pytest.raises(codec.ChecksumError) as caught:
            codec.decode(damaged)
        assert (caught.value.stream, caught.value.offset) == (part.stream, part.begin)
        assert f"stream {part.stream!r}, byte {part.begin}" in str(caught.value)
        assert "fetch them again" in str(caught.value)
    for changed in islice(changes(data, number), 0, None, 5):
        hostile = repaired(changed, marks)
        if read(hostile) is None:
            with pytest.raises(codec.FormatError) as refused:
                codec.decode(hostile)
            assert refused.value.offset is not None or refused.value.stream is not None
            assert refused.value.offset is None or 0 <= refused.value.offset < len(data)


@pytest.mark.parametrize(
    ("shape", "segment"),
    [
        ([1 << 40, 1 << 20], (4, 1 << 20)),
        ([1 << 62], (1, 1 << 22)),
        ([1 << 31, 1 << 31], (1, 1 << 22)),
        ([(1 << 62) - 1, 1], (1 << 22, 1)),
        ([0, 1 << 62], (0, 0)),
        ([1 << 30, 0, 1 << 30], (0, 0)),
    ],
    ids=str,
)
def test_a_huge_shape_takes_no_memory(shape: list[int], segment: tuple[int, int]) -> None:
    """What a header of a few bytes claims is not allocated before the frame's own length bears it out."""
    for number, (_, _, coding) in enumerate(CASES):
        header = reader.read_frame(frame_of(number))[1]
        header |= {"dtype": "I8", "shape": shape, "row_dims": len(shape) // 2, "segment": segment, "nnz": 0}
        shared = shared_streams(header)
        parts: list[list[bytes]] = [
            [b""] if 0 not in shape or stream["name"] in shared else [] for stream in header["streams"]
        ]
        found = read_bounded(writer.Draft(header, parts, frozenset(shared)).build())
        assert found is None or 0 in shape
        assert found == b"" or coding != "none" or 0 not in shape


def test_claims_of_a_part_take_no_memory() -> None:
    """Counts inside parts that their bytes cannot bear: the items of a coded part, the size of a zstd frame."""
    for number, (_, _, coding) in enumerate(CASES):
        marks = Marks.of(frame_of(number))
        begin = marks.parts[-1].begin
        for claim in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f") if coding != "none" else ():
            hostile = bytearray(frame_of(number))
            if coding in ("huffman", "rans"):
                hostile[begin : begin + 4] = claim
            else:  # magic, a descriptor of four bytes of content size, and the claim
                hostile[begin + 4 : begin + 9] = b"\xa0" + claim
            assert read_bounded(repaired(bytes(hostile), marks)) is None


def test_bytes_that_change_while_they_are_read() -> None:
    """Another writer in the memory that loads() uses: any result or CodecError, but no crash."""
    a = seeded((120, 300), element_type("int16"), 0.8)
    frames = [bytearray(codec.dumps(codec.encode(a, layout=name, **params))) for name, params in LAYOUT_PARAMS]
    packed = [(codec.loads(frame), np.frombuffer(frame, np.uint8)) for frame in frames]
    stop = threading.Event()

    def scribble() -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            for p, memory in packed:
                at = int(rng.integers(p.spans.head.data_start, int(p.spans.head.bounds[-1])))
                old, memory[at] = memory[at], rng.integers(256)
                time.sleep(0)
                memory[at] = old

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        x, until = np.ones((300, 4), np.int16), time.monotonic() + 1
        while time.monotonic() < until:
            for p, _ in packed:
                for work in (p.to_dense, lambda p=p: p @ x, lambda p=p: p.to_layout("csr")):
                    try:
                        work()
                    except codec.CodecError:
                        continue
    finally:
        stop.set()
        thread.join()
