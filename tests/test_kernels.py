"""The kernel in use does what the plain references do, on good input and on bad; a demand for another raises."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from once import ONCE
from strategies import ELEMENTS, LAYOUT_PARAMS, complete, layout_id, seeded

import codec
from codec import kernels
from codec.dtypes import ElementType
from codec.errors import FormatError
from codec.layouts import Layout
from codec.matrix import Grid

SHAPES = [(1, 1), (3, 5), (1, 64), (2, 63), (65, 7), (130, 70), (64, 256), (3, 300), (1, 1000)]
# Those that kernels tell apart: to them, others of the same width, kind and zero rule are the same.
TOLD_APART = list({(e.width, e.kind, e.sign_bit, e.nonzero_bits("value")): e for e in ELEMENTS}.values())


def raw_streams(a: np.ndarray, element: ElementType, layout: Layout) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """A one-segment matrix's streams from the kernel, its elements as bits, and which are stored."""
    rows, cols = a.shape
    kinds = layout.streams(element)
    native = kernels.Streams(
        rows, cols, rows, cols, element.width, element.nonzero_bits("value"), element.sign_bit, layout.number,
        layout.native(), len(kinds),
    )  # fmt: skip
    shared = layout.share(Grid(rows, cols, rows, cols), codec.tensor_stats(a).counts)
    for number, kind in enumerate(kinds):
        if kind.shared:
            native.share(number, kernels.octets(shared[kind.name]))
    native.encode(kernels.octets(a), None, 1)
    bits = a.view(element.unsigned)
    stored = (bits & element.unsigned.type(element.nonzero_bits("value"))) != 0
    streams = [
        bytes(kernels.octets(shared[k.name])) if k.shared else bytes(native.part(0, s)) for s, k in enumerate(kinds)
    ]
    return streams, bits, stored


def kernel_decode(streams: list[bytes], shape: tuple[int, int], element: ElementType, layout: Layout) -> np.ndarray:
    """What the kernel makes of one segment's streams; FormatError if it refuses them."""
    rows, cols = shape
    kinds = layout.streams(element)
    parts = [
        (
            np.frombuffer(stream + bytes(64), np.uint8), np.zeros(1, np.uint64), np.array([len(stream)], np.uint32),
            np.zeros(1, np.uint32), None, kind.shared,
        )
        for stream, kind in zip(streams, kinds, strict=True)
    ]  # fmt: skip
    coding = (0, kernels.NO_STREAM, 0, False)
    view = kernels.backend.view(
        Grid(rows, cols, rows, cols), layout.number, element.width, layout.native(), 0, parts, None, coding
    )
    out = np.full(rows * cols * element.width + 64, 0xA5, np.uint8)
    result, *_ = view.decode(0, rows * cols, out[:-64], True, 1)
    assert (out[-64:] == 0xA5).all()
    kernels.raise_for(result, [kind.name for kind in kinds])
    return out[:-64].view(element.unsigned).reshape(shape)


@pytest.mark.parametrize("element", TOLD_APART, ids=lambda e: e.name)
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_streams_are_the_references(case: tuple[str, dict], element: ElementType) -> None:
    for seed, shape in enumerate(SHAPES):
        a = seeded(shape, element, (0.2, 0.6, 0.95, 1.0, 0.0)[seed % 5], seed)
        layout = complete(*case, a)
        streams, bits, stored = raw_streams(a, element, layout)
        expected = layout.encode(bits, stored)
        assert [s.tobytes() for s in expected] == streams
        reference = layout.decode(expected, *shape, element.unsigned)
        assert np.array_equal(reference, np.where(stored, bits, 0))
        assert np.array_equal(kernel_decode(streams, shape, element, layout), reference)


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_damaged_streams_are_refused_by_both_or_read_the_same_by_both(case: tuple[str, dict]) -> None:
    element = next(e for e in ELEMENTS if e.name == "I16")
    rng = np.random.default_rng(7)
    refused = 0
    for seed, shape in enumerate([(3, 5), (2, 63), (65, 7), (4, 300), (1, 700)]):
        a = seeded(shape, element, 0.8, seed)
        layout = complete(*case, a)
        streams, _, _ = raw_streams(a, element, layout)
        for _ in range(150):
            damaged = list(streams)
            which = int(rng.integers(len(streams)))
            bytes_ = bytearray(damaged[which])
            kind = rng.integers(4)
            if kind == 0 and bytes_:
                bytes_[rng.integers(len(bytes_))] ^= 1 << int(rng.integers(8))
            elif kind == 1 and bytes_:
                bytes_[rng.integers(len(bytes_))] = rng.choice([0, 1, 254, 255])
            elif kind == 2:
                del bytes_[int(rng.integers(len(bytes_) + 1)) :]
            else:
                bytes_ += rng.bytes(int(rng.integers(1, 9)))
            damaged[which] = bytes(bytes_)
            try:
                expected = layout.decode(tuple(np.frombuffer(s, np.uint8) for s in damaged), *shape, element.unsigned)
            except FormatError:
                refused += 1
                with pytest.raises(FormatError):
                    kernel_decode(damaged, shape, element, layout)
            else:
                assert np.array_equal(kernel_decode(damaged, shape, element, layout), expected)
    assert refused > 50


def test_crc32c() -> None:
    assert kernels.crc32c(b"123456789") == 0xE3069283
    data = np.random.default_rng(0).bytes(5000)
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    crc = 0xFFFFFFFF
    for length, byte in enumerate(data):
        if length % 7 == 0 or length < 600:
            assert kernels.crc32c(data[:length]) == crc ^ 0xFFFFFFFF
            assert kernels.crc32c(data[length:], crc ^ 0xFFFFFFFF) == kernels.crc32c(data)
        crc = table[(crc ^ byte) & 255] ^ crc >> 8


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_kernel_demanded_is_the_one_in_use() -> None:
    wanted = os.environ.get("CODEC_KERNEL")
    if wanted:
        assert kernels.info()["kernel"] == wanted
    for name in (*kernels.info()["available"], kernels.MODEL):
        done = run("import codec.kernels; print(codec.kernels.info()['kernel'])", CODEC_KERNEL=name)
        assert done.stdout.strip() == name, done.stderr


def test_a_demand_that_cannot_be_met_raises() -> None:
    done = run("import codec.kernels; codec.kernels.info()", CODEC_KERNEL="avx1024")
    assert "CODEC_KERNEL=avx1024 is not a kernel: expected one of amx, avx512, avx2, scalar, amx-model" in done.stderr
    for name in set(kernels.SETS) - set(kernels.info()["available"]):
        done = run("import codec.kernels; codec.kernels.info()", CODEC_KERNEL=name)
        assert "CPU does not have" in done.stderr or "is not built" in done.stderr


def test_files_that_run_with_one_set_are_there_and_call_no_kernels() -> None:
    listed = [name for files in ONCE.values() for name in files]
    assert len(listed) == len(set(listed))
    for name in listed:
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        modules = {node.module for node in nodes} | imported
        assert not modules & {"codec.kernels", "products", "sets"}, name


def test_threads() -> None:
    with codec.threadpool_limits(3):
        assert kernels.thread_count(None) == 3
        assert kernels.thread_count(1) == 1
    for wrong in (0, -1, 65, 1.5, True, "2"):
        with pytest.raises(codec.ArgumentError, match="expected an int from 1 to 64"):
            kernels.thread_count(wrong)  # type: ignore[arg-type]
    done = run("import codec.kernels; codec.kernels.thread_count(None)", CODEC_NUM_THREADS="many")
    assert "CODEC_NUM_THREADS='many'" in done.stderr
