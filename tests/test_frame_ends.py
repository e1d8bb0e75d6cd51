"""Where frames end: layouts that are not aligned end with their last part, and no kernel reads behind a frame."""

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest
from strategies import LAYOUT_PARAMS, layout_id

import codec
from codec.frame import aligned, aligned_copy
from codec.frame.memory import with_slack
from codec.kernels import SLACK
from codec.layouts import LAYOUTS

every_layout = pytest.mark.parametrize(("layout", "params"), LAYOUT_PARAMS, ids=map(layout_id, LAYOUT_PARAMS))


def matrix(dtype: str, rows: int, cols: int, keep: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(rows * cols)
    return np.where(rng.random((rows, cols)) < keep, rng.integers(1, 100, (rows, cols)), 0).astype(dtype)


@every_layout
def test_a_frame_ends_as_its_layout_says(layout: str, params: dict[str, Any]) -> None:
    for rows in (1, 7, 600):
        p = codec.encode(matrix("int16", rows, 501), layout=layout, **params)
        data, head = codec.dumps(p), p.spans.head
        end = int(head.bounds[-1])
        assert len(data) == p.nbytes == head.frame_length
        if LAYOUTS[layout].aligned:
            assert len(data) == -(-end // 64) * 64 + 64
            assert all(int(at) % 8 == 0 for part in head.parts for at in part.offsets)
        else:
            assert len(data) == end == head.data_start + sum(p.parts.values())
        for other in (data[:-1], data + bytes(1), data + bytes(64)):
            with pytest.raises(codec.FormatError):
                codec.loads(other)


class Guarded:
    """Memory that ends where none can be read: a read behind it ends the process."""

    def __init__(self, size: int) -> None:
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, room + mmap.PAGESIZE)
        whole = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        assert libc.mprotect(whole.ctypes.data + room, mmap.PAGESIZE, 0) == 0
        self.bytes = (ctypes.c_uint8 * size).from_address(whole.ctypes.data + room - size)


@every_layout
@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64"])
def test_nothing_behind_a_frame_is_read(layout: str, params: dict[str, Any], dtype: str) -> None:
    large = [(700, 384, 0.3)] * (dtype == "int8")  # several segments
    for rows, cols, keep in ((5, 8, 0.3), (40, 33, 0.3), (64, 64, 0.0), (3, 5, 1.0), *large):
        a = matrix(dtype, rows, cols, keep)
        for values in ("raw", "codebook"):
            if values == "codebook" and dtype == "int8":
                continue
            data = codec.dumps(codec.encode(a, layout=layout, values=values, **params))
            memory = Guarded(len(data))
            memory.bytes[:] = data
            p = codec.loads(memory.bytes)
            expected = codec.decode(data)
            for threads in (1, 2):
                assert p.to_dense(threads=threads).tobytes() == expected.tobytes()
            x = np.ones((cols, 3), a.dtype)
            assert (p @ x).tobytes() == (codec.loads(data, copy=True) @ x).tobytes()
            assert codec.dumps(p.to_layout("csr")) == codec.dumps(codec.loads(data).to_layout("csr"))
            assert codec.decode(p, rows=(rows - 1, rows)).tobytes() == expected[rows - 1 :].tobytes()


def test_a_frame_at_the_end_of_a_mapped_file(tmp_path: Any) -> None:
    a = matrix("float32", 200, 300)
    data = codec.dumps(codec.encode(a, layout="context"))
    path = tmp_path / "frame"
    path.write_bytes(bytes(-len(data) % mmap.PAGESIZE) + data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)[-len(data) :]
        assert codec.decode(view).tobytes() == a.tobytes()
        view.release()


def test_slack_is_what_follows_in_the_same_array() -> None:
    whole = np.arange(200, dtype=np.uint8)
    for data in (whole[10:50], np.frombuffer(whole[10:50].data, np.uint8)):
        assert with_slack(data).tobytes() == whole[10 : 50 + SLACK].tobytes()
    assert with_slack(whole[150:180]).tobytes() == whole[150:].tobytes()
    assert with_slack(whole).tobytes() == whole.tobytes()
    for alone in (b"abc", bytearray(b"abc"), np.arange(3, dtype=np.uint32)):
        data = np.frombuffer(alone, np.uint8)
        assert with_slack(data).tobytes() == data.tobytes()
    for ours in (aligned(100, 7), aligned_copy(whole), aligned(0)):
        assert len(with_slack(ours)) == len(ours) + SLACK
        assert with_slack(ours).ctypes.data == ours.ctypes.data
