"""The way to a packed tensor and back: encode, decode, dumps, loads. The file to open first.

encode   array -> elements -> request -> source -> counts -> plan -> streams -> frame -> PackedTensor
decode   PackedTensor -> spans -> panels -> dense array
dumps    PackedTensor -> the frame's bytes
loads    bytes -> proved head -> PackedTensor
"""

from typing import Any

import numpy as np

from codec.encoding.pack import pack_array
from codec.errors import ArgumentError
from codec.frame import aligned_copy
from codec.matrix import is_int
from codec.packed import PackedTensor


def encode(
    a: Any,
    *,
    layout: str = "auto",
    objective: str = "disk",
    entropy: str = "auto",
    values: str = "raw",
    value_bits: int | None = None,
    codebook: Any = None,
    codebook_rows: int | None = None,
    codebook_start: str | None = None,
    zero: str = "value",
    mask: Any = None,
    row_dims: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    **layout_params: Any,
) -> PackedTensor:
    """Pack an array.

    Parameters
    ----------
    a : array-like or torch tensor
        Any shape (also empty and 0-d), any strides and byte order, any dtype of the format: float64, float32, float16,
        bfloat16, float8_e4m3fn, float8_e5m2, (u)int8 to (u)int64, bool.
    layout : str
        "auto", or a layout's name; its parameters follow by keyword.
    objective : {"disk", "memory", "speed"}
        What "auto" weighs: the fewest bytes; the fewest without an entropy stage; the fastest product, which leaves a
        tensor dense where too few of its elements are zeros.
    entropy : {"auto", "none", "huffman", "rans", "zstd"}
        The entropy stage: each stream takes it only where it gets smaller. "auto": the smallest for "disk", else none.
        Layout context codes all that it stores itself, and takes only "auto".
    values : {"raw", "codebook"}
        What the stored values are: every bit of them, or codes of the nearest entries of a codebook (weight sharing;
        lossy, unless a tensor has no more values than entries). NaN and infinite weights are refused.
    value_bits : int, optional
        Bits of a code, 1 to 8: at most ``2**value_bits`` values. By default as many as ``codebook`` needs, else 8.
        A layout that pads or fills (dense among them) needs one code for its zeros.
    codebook : array-like, (entries,) or (groups, entries), optional
        Distinct entries to use; by default k-means finds them. Weights nearest to an entry 0 become zeros, which are
        not stored unless ``mask`` keeps them.
    codebook_rows : int, optional
        Rows of the matrix that share a codebook; by default all.
    codebook_start : {"linear", "density", "random"}, optional
        Where k-means begins, as published; by default at (nearly) the optimum.
    zero : {"value", "bits"}
        What a zero is: what compares equal to 0 (-0.0 becomes +0.0, and is counted), or only the bits of +0.0.
    mask : array of bool, optional
        Kept positions, of a's shape: exactly these are stored and counted in ``nnz``, zeros among them too; all others
        must be zero.
    row_dims : int, optional
        How many leading dimensions are the rows of the matrix view; by default 1 (2 for (1, n, m), 0 for 1-d).
    batch : int, optional
        Columns, of the weights' dtype, that are multiplied at a time: what "speed" is chosen for. By default what is
        good for 1 to 16.
    threads : int, optional
        At most this many threads; the bytes do not depend on it.

    Returns
    -------
    PackedTensor

    Raises
    ------
    ArgumentError
        For a dtype, shape, name or parameter that cannot be coded as asked.

    Examples
    --------
    >>> p = encode(np.eye(64, dtype=np.float32), layout="csr", entropy="none")
    >>> p.nnz, p.layout, bool((p.to_dense() == np.eye(64)).all())
    (64, 'csr', True)
    """
    return PackedTensor(
        *pack_array(
            a, layout=layout, objective=objective, entropy=entropy, values=values, value_bits=value_bits,
            codebook=codebook, codebook_rows=codebook_rows, codebook_start=codebook_start, zero=zero, mask=mask,
            row_dims=row_dims, batch=batch, threads=threads, **layout_params,
        )
    )  # fmt: skip


def decode(p: Any, *, out: np.ndarray | None = None, rows: Any = None, threads: int | None = None) -> np.ndarray:
    """The dense tensor, or some of its matrix rows.

    Parameters
    ----------
    p : PackedTensor or bytes-like
        A packed tensor, or one frame.
    out : ndarray, optional
        Where to put the result: of its shape and dtype, any strides. It may lie in the frame's own memory, which is
        overwritten only after all was read.
    rows : slice or (start, stop), optional
        Only these rows of the matrix view (a slice's step must be 1); the result is 2-d, (rows, cols).
    threads : int, optional

    Returns
    -------
    ndarray
        ``out``, or a new array.

    Raises
    ------
    ArgumentError
        For an out or rows that do not fit.
    FormatError, ChecksumError, VersionError
        If the bytes are not a whole, undamaged frame: checksums are compared on every call.

    Examples
    --------
    >>> decode(dumps(encode(np.arange(4, dtype=np.int8))))
    array([0, 1, 2, 3], dtype=int8)
    """
    packed = p if isinstance(p, PackedTensor) else loads(p)
    grid = packed.spans.head.grid
    start, stop = _row_range(rows, grid.rows)
    shape = packed.shape if rows is None else (stop - start, grid.cols)
    return packed._rows(start, stop, shape, out, threads)


def _row_range(rows: Any, total: int) -> tuple[int, int]:
    if rows is None:
        return 0, total
    if isinstance(rows, slice):
        try:
            start, stop, step = rows.indices(total)
        except TypeError as error:
            raise ArgumentError(f"rows={rows!r}: {error}") from None
        if step != 1:
            raise ArgumentError(f"rows={rows!r}; expected a slice with step 1: slice the result, or index the tensor")
        return start, max(start, stop)
    if isinstance(rows, tuple) and len(rows) == 2 and all(map(is_int, rows)) and 0 <= rows[0] <= rows[1] <= total:
        return int(rows[0]), int(rows[1])
    raise ArgumentError(f"rows={rows!r}; expected a slice, or (start, stop) within 0 to {total}")


def dumps(p: PackedTensor) -> bytes:
    """One frame: the tensor's bytes, ``p.nbytes`` of them."""
    if not isinstance(p, PackedTensor):
        raise ArgumentError(f"{type(p).__name__}; expected a PackedTensor (codec.encode makes one)")
    return p._bytes.tobytes()


def loads(buffer: Any, *, copy: bool = False) -> PackedTensor:
    """A packed tensor from one frame; every span and all padding is proved here, checksums where the parts are used.

    Parameters
    ----------
    buffer : bytes-like
        Exactly one frame. Without ``copy`` the tensor keeps using this memory: it must stay as it is.

    Raises
    ------
    ArgumentError
        If it is not a contiguous buffer.
    FormatError, ChecksumError, VersionError
        If it is not a frame, or a damaged or a newer one.
    """
    try:
        view = memoryview(buffer)
    except (TypeError, BufferError, ValueError) as error:  # ValueError: an ndarray of a dtype that no buffer describes
        raise ArgumentError(f"{type(buffer).__name__} is not a buffer of bytes ({error})") from None
    if not view.c_contiguous:
        raise ArgumentError("the buffer is not contiguous; expected one frame's bytes, side by side")
    data = np.frombuffer(view, np.uint8) if view.nbytes else np.zeros(0, np.uint8)
    if copy:
        data = aligned_copy(data)
    return PackedTensor.of_frame(data)
