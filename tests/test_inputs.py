"""What goes in, and how it is asked for: arrays of every kind, wrong names, out= and rows=, buffers."""

import gc
import mmap
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ELEMENTS, LAYOUT_PARAMS, entropies, layout_id, seeded, under_rule

import codec
from codec.dtypes import ElementType, element_type
from codec.layouts import LAYOUTS

F4 = element_type("float32")
NAMES = ", ".join(LAYOUTS)


def plain(shape: tuple[int, ...] = (6, 9)) -> np.ndarray:
    return under_rule(seeded(shape, F4, 0.5), "value", F4)


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
def test_every_memory_order(element: ElementType) -> None:
    a = under_rule(seeded((6, 8, 10), element, 0.5), "value", element)
    read_only = a.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    for same in (np.asfortranarray(a), read_only, unaligned, a[::2], a[::-1, ::-1], a[1:3, :, ::-3], a.T, a[..., 0]):
        before = same.tobytes()
        p = codec.encode(same)
        assert (p.shape, p.dtype) == (same.shape, a.dtype)
        assert p.to_dense().tobytes() == same.tobytes() == before
    row = np.broadcast_to(a[0, 0], (7, 10))
    assert codec.encode(row).to_dense().tobytes() == row.tobytes()
    if element.width > 1 and element.name != "BF16":
        swapped = a.astype(a.dtype.newbyteorder(">"))
        assert codec.dumps(codec.encode(swapped)) == codec.dumps(codec.encode(a))


def test_no_elements_and_no_dimensions() -> None:
    for shape in ((), (0,), (0, 3), (3, 0), (2, 0, 4), (1,) * 32):
        p = codec.encode(np.ones(shape, np.int16))
        assert p.to_dense().shape == p.shape == shape
        assert (p.size, p.ndim, p.dense_nbytes) == (int(np.prod(shape)), len(shape), 2 * int(np.prod(shape)))
        assert p.sparsity == 1 - p.density
    assert codec.encode(3.5).to_dense() == 3.5
    assert codec.encode(np.float32(2)).dtype == np.float32


def test_what_numpy_makes_an_array_of() -> None:
    assert codec.encode([[0, 1], [2, 0]]).to_dense().tolist() == [[0, 1], [2, 0]]
    assert codec.encode(((0.0, 1.5),)).dtype == np.float64
    assert codec.encode([True, False]).dtype == np.bool_
    assert codec.encode(memoryview(b"abc")).to_dense().tolist() == [97, 98, 99]
    assert codec.encode(bytearray(b"ab")).dtype == np.uint8
    packed = codec.encode(plain())
    assert codec.dumps(codec.encode(packed)) == codec.dumps(packed)


class Refuses:
    """An array of another library that does not become a NumPy array by itself, as those on a GPU and sparse ones."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise self.error("give .get() instead\nof this")


class LostError(Exception):
    """An error of another library."""


@pytest.mark.parametrize(
    "wrong",
    [
        *map(Refuses, (TypeError, ValueError, RuntimeError)),
        *map(Refuses, (KeyError, AttributeError, ZeroDivisionError, LostError)),
        np.array([None, 1]),
        np.ones(3, complex),
        np.array(["a"]),
        b"abc",
        "abc",
        np.zeros(2, [("x", "f4"), ("y", "i4")]),
        np.array(["2020-01-01"], "M8[D]"),
        np.ones(2, np.longdouble),
        None,
        {"a": 1},
        [[1, 2], [3]],
        object(),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.ma.masked_array(np.ones(2)),
    ],
    ids=lambda a: f"{type(a).__name__}-{getattr(a, 'dtype', '')}",
)
def test_what_cannot_be_coded(wrong: Any) -> None:
    for ask in (codec.encode, codec.tensor_stats, lambda a: codec.encode(plain((2, 2))) @ a):
        with pytest.raises(codec.ArgumentError) as caught:
            ask(wrong)
        if isinstance(wrong, np.ma.MaskedArray):
            assert "a.filled(0)" in str(caught.value)
        if isinstance(wrong, Refuses):
            if wrong.error in (TypeError, ValueError, RuntimeError):
                assert str(caught.value).endswith("a Refuses, which is not an array: give .get() instead")
            else:
                assert f"a Refuses that NumPy cannot read ({wrong.error.__name__}: " in str(caught.value)
                assert ".get() instead" in str(caught.value)
                assert str(caught.value).endswith("expected an array: give a NumPy array of its elements")


@pytest.mark.parametrize("error", [OSError, MemoryError, KeyboardInterrupt])
def test_errors_that_say_nothing_of_the_argument_pass(error: type[Exception]) -> None:
    with pytest.raises(error):
        codec.encode(Refuses(error))


def test_a_damaged_packed_tensor_is_no_wrong_argument() -> None:
    data = bytearray(codec.dumps(codec.encode(plain((40, 9)))))
    data[codec.loads(data).spans.head.data_start] ^= 1
    with pytest.raises(codec.ChecksumError):
        codec.encode(codec.loads(data))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"layout": "csc"}, f"no layout 'csc'; expected one of auto, {NAMES}"),
        ({"layout": None}, f"no layout None; expected one of auto, {NAMES}"),
        ({"layout": ["csr"]}, "expected one of auto"),
        ({"layout": "auto", "of": "zeros"}, "parameter 'of' with layout=\"auto\"; name the layout"),
        ({"layout": "csr", "order": "rows"}, "layout csr has no parameter 'order'; it has: of, index"),
        ({"layout": "dense", "order": "rows"}, "layout dense has no parameter 'order'; it has: none"),
        ({"layout": "csr", "of": "ones"}, "nonzeros"),
        ({"layout": "csr", "index": 9}, "16"),
        ({"layout": "csr", "index": True}, "16"),
        ({"layout": "bitmap", "order": "columns"}, "lanes"),
        ({"layout": "huffman", "max_length": 7}, "max_length=7; expected an int from 8 to 15"),
        ({"layout": "huffman", "max_length": 12.0}, "expected an int from 8 to 15"),
        ({"layout": "huffman", "entropy": "zstd"}, "does not apply to layout huffman"),
        ({"objective": "small"}, "objective='small'; expected one of disk, memory, speed"),
        ({"objective": None}, "expected one of disk, memory, speed"),
        ({"entropy": "lzma"}, "entropy='lzma'; expected one of 'auto', 'none', 'huffman', 'rans', 'zstd'"),
        ({"entropy": None}, "'auto', 'none', 'huffman', 'rans', 'zstd'"),
        ({"entropy": ["none"]}, "'auto', 'none', 'huffman', 'rans', 'zstd'"),
        ({"zero": "exact"}, "zero='exact'; expected \"value\""),
        ({"zero": 0}, 'expected "value"'),
        ({"values": "kmeans"}, 'values=\'kmeans\'; expected "raw" or "codebook"'),
        ({"value_bits": 4}, 'value_bits belongs to values="codebook"'),
        ({"row_dims": 3}, "row_dims=3 for shape (6, 9); expected an int from 0 to 2"),
        ({"row_dims": -1}, "expected an int from 0 to 2"),
        ({"row_dims": True}, "expected an int from 0 to 2"),
        ({"threads": 0}, "threads=0; expected an int from 1 to 64"),
        ({"threads": 2.0}, "expected an int from 1 to 64"),
        ({"mask": np.ones((6, 8), bool)}, "mask is bool of shape (6, 8); expected bool of shape (6, 9)"),
        ({"mask": np.ones((6, 9))}, "mask is float64 of shape (6, 9); expected bool"),
        ({"mask": np.zeros((6, 9), bool)}, "set them to zero first"),
        ({"colour": "red"}, "parameter 'colour'"),
    ],
    ids=str,
)
def test_wrong_names_say_what_is_allowed(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(codec.ArgumentError) as caught:
        codec.encode(plain(), **asked)
    assert says in str(caught.value)
    if asked.keys() <= {"layout", "of", "order", "index", "max_length", "objective", "entropy", "threads"}:
        with pytest.raises(codec.ArgumentError) as caught:
            codec.encode(plain()).to_layout(**{"layout": "auto", **asked})
        assert says in str(caught.value)


def test_too_narrow_an_index() -> None:
    with pytest.raises(codec.ArgumentError, match="index=8 bits for 300 columns; expected at least 16"):
        codec.encode(np.zeros((2, 300)), layout="csr", index=8)


def test_too_many_dimensions() -> None:
    for ndim in (33, 64):
        with pytest.raises(codec.ArgumentError, match=f"{ndim} dimensions; expected at most 32"):
            codec.encode(np.ones((1,) * ndim))


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_decode_into_out(case: tuple[str, dict[str, Any]]) -> None:
    a = plain((6, 9, 4))
    p = codec.encode(a, layout=case[0], **case[1])
    wide = np.zeros((12, 9, 8), "f4")
    outs = [
        np.empty_like(a),
        np.empty_like(a, order="F"),
        wide[::2, :, ::2],
        wide[::-2, ::-1, ::-2],
        np.empty((4, 9, 6), "f4").T,
    ]
    unaligned = np.zeros(a.nbytes + 1, np.uint8)[1:].view("f4").reshape(a.shape)
    for out in [*outs, unaligned]:
        assert codec.decode(p, out=out) is out
        assert out.tobytes() == a.tobytes()
        out[...] = 0
        assert p.to_dense(out=out) is out
        assert out.tobytes() == a.tobytes()
    part = np.empty((2, 36), "f4")
    assert codec.decode(p, out=part, rows=(1, 3)) is part
    assert part.tobytes() == a[1:3].tobytes()


def over(frame: np.ndarray, place: int, out: np.ndarray) -> np.ndarray:
    """A view of the frame's memory from ``place`` on, of the shape and dtype of ``out``."""
    return frame[place : place + out.nbytes].view(out.dtype).reshape(out.shape)


@pytest.mark.parametrize("stage", ["auto", "none"])
@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_decode_over_the_frame_itself(case: tuple[str, dict[str, Any]], stage: str) -> None:
    """All is read before anything is written; what is no longer a frame after that says so."""
    a = plain((70, 90))
    small = plain((3, 90))
    stage = stage if stage in entropies(case[0]) else "auto"
    data = codec.dumps(codec.encode(a, layout=case[0], entropy=stage, **case[1]))
    memory = np.zeros(len(data) + a.nbytes, np.uint8)
    frame = memory[: len(data)]
    start = codec.loads(data).spans.head.data_start
    for place in (0, start, start // 2, len(data) // 8 * 4):
        for ask in (codec.decode, lambda frame, out: codec.loads(frame).to_dense(out=out)):
            frame[:] = np.frombuffer(data, np.uint8)
            out = over(memory, place, a)
            assert ask(frame, out=out) is out
            assert out.tobytes() == a.tobytes()
        frame[:] = np.frombuffer(data, np.uint8)
        out = over(memory, place, a)[::-1]
        assert codec.decode(frame, out=out).tobytes() == a.tobytes()
        frame[:] = np.frombuffer(data, np.uint8)
        part = over(memory, place, small)
        p = codec.loads(frame)
        assert codec.decode(p, out=part, rows=(5, 8)).tobytes() == a[5:8].tobytes()
        if place == start and stage == "none":
            with pytest.raises(codec.CodecError):
                p @ np.ones(90, "f4")
            with pytest.raises(codec.CodecError):
                p.to_dense()


def test_what_was_proved_does_not_change_with_the_memory() -> None:
    """The lengths of parts bound what native code reads."""
    for layout in ("csr", "bitmap", "dense"):
        frame = np.frombuffer(codec.dumps(codec.encode(plain(), layout=layout)), np.uint8).copy()
        p = codec.loads(frame)
        before = [parts.lengths.tolist() for parts in p.spans.head.parts]
        frame[:] = 255
        assert [parts.lengths.tolist() for parts in p.spans.head.parts] == before
        with pytest.raises(codec.ChecksumError):
            p.to_dense()


def test_decode_into_what_does_not_fit() -> None:
    p = codec.encode(plain())
    read_only = np.empty((6, 9), "f4")
    read_only.flags.writeable = False
    wrong = [
        np.empty((9, 6), "f4"),
        np.empty((6, 9)),
        np.empty((6, 9), ">f4"),
        np.empty(54, "f4"),
        bytearray(216),
        [],
        "a",
    ]
    for out in [*wrong, read_only]:
        with pytest.raises(codec.ArgumentError, match=r"^out is "):
            codec.decode(p, out=out)  # type: ignore[arg-type]
    with pytest.raises(codec.ArgumentError, match=r"expected a float32 array of shape \(2, 9\)"):
        codec.decode(p, out=np.empty((6, 9), "f4"), rows=(0, 2))


def test_rows() -> None:
    a = plain()
    p = codec.encode(a)
    for rows in (
        slice(None),
        slice(2, 5),
        slice(-3, None),
        slice(4, 2),
        slice(0, 99),
        slice(6, 6),
        (0, 6),
        (2, 2),
        (3, 5),
    ):
        expected = a[rows if isinstance(rows, slice) else slice(*rows)]
        assert np.array_equal(codec.decode(p, rows=rows), expected)
    assert codec.decode(codec.encode(plain((2, 3, 4))), rows=(1, 2)).shape == (1, 12)
    assert codec.decode(codec.encode(plain((5,))), rows=(0, 1)).shape == (1, 5)
    for wrong in (
        slice(0, 6, 2),
        slice(None, None, -1),
        (4, 2),
        (0, 7),
        (-1, 2),
        (0.0, 2.0),
        (0,),
        3,
        "all",
        [0, 1],
        slice("a"),
    ):
        with pytest.raises(codec.ArgumentError, match="rows="):
            codec.decode(p, rows=wrong)


def test_loads_takes_any_contiguous_buffer(tmp_path: Path) -> None:
    a = plain((40, 9))
    data = codec.dumps(codec.encode(a))
    path = tmp_path / "frame"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert codec.decode(mapped).tobytes() == a.tobytes()
        copied = codec.loads(mapped, copy=True)
    array = np.frombuffer(data, np.uint8)
    for buffer in (bytearray(data), memoryview(data), array, array.reshape(-1, 1)):
        assert codec.decode(buffer).tobytes() == a.tobytes()
        assert codec.dumps(codec.loads(buffer)) == data
    whole = np.frombuffer(codec.dumps(codec.encode(a, layout="csr")), np.uint8)  # it ends with a tail
    for buffer in (whole.view("<u8"), whole.reshape(2, -1)):
        assert codec.decode(buffer).tobytes() == a.tobytes()
    odd = memoryview(b"x" + data)[1:]  # no alignment is asked of memory
    assert codec.decode(odd).tobytes() == a.tobytes()
    shared = bytearray(data)
    p, q = codec.loads(shared), codec.loads(shared, copy=True)
    shared[p.spans.head.data_start] ^= 1
    with pytest.raises(codec.ChecksumError):
        p.to_dense()
    assert q.to_dense().tobytes() == copied.to_dense().tobytes() == a.tobytes()


def test_loads_refuses_what_is_no_buffer() -> None:
    data = codec.dumps(codec.encode(plain()))
    array = np.frombuffer(data, np.uint8)
    wrong = ["text", 7, None, [1, 2], object(), 1.5, np.zeros(4, element_type("bfloat16").dtype)]
    for buffer in [*wrong, memoryview(data)[::2], array[::-1], np.asfortranarray(np.tile(array, (2, 1)))]:
        for ask in (codec.loads, codec.decode):
            with pytest.raises(codec.ArgumentError, match="buffer"):
                ask(buffer)
    for other in (data, None, plain(), codec.encode(plain()).T):
        with pytest.raises(codec.ArgumentError, match="expected a PackedTensor"):
            codec.dumps(other)  # type: ignore[arg-type]
    with pytest.raises(codec.FormatError, match="0 bytes, expected at least 12"):
        codec.loads(b"")


@given(st.lists(st.integers(0, 5), max_size=4).map(tuple), st.data())
@settings(max_examples=80, deadline=None)
def test_any_view(shape: tuple[int, ...], data: st.DataObject) -> None:
    a = under_rule(seeded(shape, F4, 0.5), "value", F4)
    view = a.transpose(data.draw(st.permutations(range(a.ndim))))
    view = view[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -2]))) for _ in shape)]
    out = np.empty_like(view)
    assert codec.decode(codec.encode(view), out=out) is out
    assert out.tobytes() == view.tobytes()


@pytest.mark.parametrize("options", [{}, {"values": "codebook"}, {"objective": "memory"}, {"layout": "csr"}], ids=str)
def test_an_array_is_freed_as_soon_as_it_is_packed(options: dict[str, Any]) -> None:
    """Nothing waits for the garbage collector: a model is packed with one tensor in memory."""
    gc.collect()
    gc.disable()
    try:
        a = np.maximum(np.arange(5400, dtype=np.float32).reshape(60, 90) % 11 - 5, 0)
        alive = weakref.ref(a)
        packed = codec.encode(a, **options)
        codec.tensor_stats(a)
        del a
        assert alive() is None
        alive = weakref.ref(packed)
        other = packed.to_layout("bitmap")
        del packed
        assert alive() is None
        assert other.to_dense().any()
    finally:
        gc.enable()
