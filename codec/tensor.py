"""The packed tensor, and the way to it and back: encode, decode, dumps, loads. The file to open first."""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from codec import interop, kernels, product
from codec.choose import Wish
from codec.errors import ArgumentError
from codec.frame import Head
from codec.head import Read, parse, read_head
from codec.indexing import take
from codec.packing import codebook_of, kept_values, pack_array, pack_csr, quantised, repack
from codec.source import source_of
from codec.spans import Spans, check_out, in_memory, on_demand


class PackedTensor:
    """One tensor, packed: immutable, and never unpacked as a whole unless asked.

    Made by `encode`, `loads`, `load_file`, `from_scipy` and `from_torch`. Indexing, ``np.asarray`` and `to_dense`
    decode (only the segments needed); ``p @ x`` and ``x @ p`` multiply straight from the packed bytes.

    Attributes
    ----------
    shape, dtype, ndim, size
        Of the tensor, as NumPy has them.
    nnz : int
        Stored entries.
    nbytes, dense_nbytes : int
        Bytes held, header and padding included; bytes of the dense tensor.
    density, sparsity, ratio : float
        nnz / size, its complement, and dense_nbytes / nbytes.
    layout, params
        Where the values are, and the layout's parameters.
    values, value_bits, codebook
        What the values are: raw, or codes of so many bits for the entries of codebooks.
    zero, negative_zeros
        The zero rule, and how many elements were -0.0 and became +0.0 under zero="value".
    """

    __slots__ = ("__weakref__", "_bytes", "spans")

    def __init__(self, data: np.ndarray, spans: Spans) -> None:
        self._bytes = data
        self.spans = spans

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.spans.head.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the tensor (ml_dtypes for bfloat16 and fp8)."""
        return self.spans.head.element.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.spans.head.grid.size

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.spans.head.nnz

    @property
    def nbytes(self) -> int:
        """Bytes held: the frame's length, ``len(dumps(p))``."""
        return self.spans.head.frame_length

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.size * self.spans.head.element.width

    @property
    def density(self) -> float:
        """nnz / size; 0.0 for an empty tensor."""
        return self.nnz / self.size if self.size else 0.0

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.density

    @property
    def ratio(self) -> float:
        """dense_nbytes / nbytes: how many times smaller."""
        return self.dense_nbytes / self.nbytes

    @property
    def layout(self) -> str:
        """Name of the layout."""
        return self.spans.head.layout.name

    @property
    def params(self) -> Mapping[str, Any]:
        """The layout's parameters."""
        return MappingProxyType(self.spans.head.params)

    @property
    def values(self) -> str:
        """The value coding: "raw" (elements as they are) or "codebook" (weights that share few values)."""
        return self.spans.head.values.name

    @property
    def value_bits(self) -> int:
        """Bits of a value in its stream, before the entropy stage: those of the dtype, or of a code."""
        return self.spans.head.values.bits or 8 * self.spans.head.element.width

    @property
    def codebook(self) -> np.ndarray | None:
        """The codebooks, (groups, entries), in the order of the codes, unused entries 0; None for raw values."""
        return codebook_of(self.spans)

    @property
    def zero(self) -> str:
        """The zero rule, "value" or "bits"."""
        return self.spans.head.zero

    @property
    def row_dims(self) -> int:
        """How many leading dimensions are the rows of the matrix view."""
        return self.spans.head.row_dims

    @property
    def negative_zeros(self) -> int:
        """Elements that were -0.0 and became +0.0 (zero="value"); 0 under zero="bits"."""
        return self.spans.head.negative_zeros

    @property
    def entropy(self) -> Mapping[str, str]:
        """The coding of each stream: "none", "huffman" or "zstd"."""
        return MappingProxyType({stream.name: stream.coding for stream in self.spans.head.streams})

    @property
    def parts(self) -> Mapping[str, int]:
        """Bytes of each stream; with the header and padding they sum to nbytes."""
        return MappingProxyType({stream.name: stream.length for stream in self.spans.head.streams})

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        params = "".join(f", {k}={v!r}" for k, v in self.params.items())
        params += f", codebook of {self.value_bits} bits" if self.values == "codebook" else ""
        return (
            f"<PackedTensor {shape} {self.dtype}, layout {self.layout}{params}, {self.nnz} stored "
            f"({self.sparsity:.1%} zeros), {self.nbytes} bytes ({self.ratio:.2f} times smaller)>"
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return loads, (dumps(self),)

    # -- back to dense ---------------------------------------------------------------------------------------------

    def to_dense(self, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
        """The dense tensor, bit for bit under the zero rule; see `decode`."""
        return decode(self, out=out, threads=threads)

    toarray = to_dense

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a packed tensor becomes an array only by a copy")
        dense = self.to_dense()
        return dense if dtype is None else dense.astype(dtype)

    def __getitem__(self, key: Any) -> Any:
        """NumPy indexing on the tensor's own shape; only the segments of the leading indices named are decoded."""
        return take(self.shape, key, self._leading)

    def _leading(self, start: int, stop: int) -> np.ndarray:
        step = prod(self.shape[1:])
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self.spans.decode(start * step, (stop - start) * step, kernels.octets(out), kernels.thread_count(None))
        return out

    # -- products --------------------------------------------------------------------------------------------------

    def __matmul__(self, x: Any) -> np.ndarray:
        return product.matmul(self, x)

    def __rmatmul__(self, x: Any) -> np.ndarray:
        return product.rmatmul(x, self)

    __array_priority__ = 1000.0
    __array_ufunc__ = None  # so that ndarray @ p comes here

    @property
    def T(self) -> "Transpose":
        """A view that multiplies and decodes as the transpose; nothing is copied."""
        if self.ndim != 2:
            raise ArgumentError(f"the transpose of {self.ndim} dimensions; expected 2")
        return Transpose(self)

    # -- other forms -----------------------------------------------------------------------------------------------

    def to_layout(
        self,
        layout: str = "auto",
        *,
        objective: str = "disk",
        entropy: str = "auto",
        values: str | None = None,
        threads: int | None = None,
        **layout_params: Any,
    ) -> "PackedTensor":
        """The same tensor in another layout, segment by segment: never through a whole dense tensor.

        Parameters are those of `encode`; zero rule, shape and row_dims stay, and so does the value coding
        (``values="raw"`` makes codes values again; where a layout pads and no code is left for its zeros, codes get one
        bit more). ``entropy="auto"`` means the smallest for ``objective="disk"``, and no entropy stage for "memory"
        and "speed".

        Raises
        ------
        ArgumentError
            As `encode`; and for codes of 8 bits, all of them in use, in a layout that pads.
        FormatError, ChecksumError
            If the bytes are damaged.
        """
        wish = Wish(layout, layout_params, objective, entropy, kept_values(self.spans, values))
        return PackedTensor(*repack(self.spans, wish, kernels.thread_count(threads)))

    def to_scipy(self, format: str = "csr") -> Any:
        """A scipy.sparse array ("csr", "bsr", "csc" or "coo") of a matrix, segment by segment, without a dense copy.

        Raises ArgumentError for a tensor that is not 2-d and for dtypes that scipy has not (float16, bfloat16, fp8).
        """
        return interop.to_scipy(self.spans, format)

    def to_torch(self, layout: str = "strided") -> Any:
        """A torch tensor: "strided" (dense), "csr" or "coo"; dtypes as torch has them."""
        return interop.to_torch(self.spans, layout)

    @classmethod
    def from_scipy(cls, a: Any, **options: Any) -> Self:
        """Pack a scipy.sparse matrix or array; ``options`` as for `encode`. Its stored zeros stay stored entries."""
        return cls._from_csr(*interop.from_scipy(a), **options)

    @classmethod
    def from_torch(cls, a: Any, **options: Any) -> Self:
        """Pack a torch tensor, strided, COO, CSR or BSR; ``options`` as for `encode`."""
        if not str(getattr(a, "layout", None)).startswith("torch."):
            raise ArgumentError(f"{type(a).__name__}; expected a torch tensor")
        if str(a.layout) == "torch.strided":
            return encode(a, **options)  # type: ignore[return-value]
        return cls._from_csr(*interop.from_torch(a), **options)

    @classmethod
    def _from_csr(
        cls, shape: tuple[int, int], starts: np.ndarray, indices: np.ndarray, items: np.ndarray, *,
        zero: str = "value", values: str = "raw", threads: int | None = None, **options: Any,
    ) -> Self:  # fmt: skip
        """From proved CSR arrays, by way of a bitmap."""
        if values != "raw":
            raise ArgumentError('values="codebook" needs encode(a.toarray(), values="codebook", ...)')
        plain = cls(*pack_csr(shape, starts, indices, items, zero, kernels.thread_count(threads)))
        return plain.to_layout(threads=threads, **options)  # type: ignore[return-value]


class Transpose:
    """The transpose of a packed matrix, as a view: ``p.T @ x``, ``x @ p.T``, ``p.T.to_dense()``, ``p.T.T is p``."""

    __slots__ = ("T",)
    __array_priority__ = 1000.0
    __array_ufunc__ = None

    def __init__(self, packed: PackedTensor) -> None:
        self.T = packed

    @property
    def shape(self) -> tuple[int, int]:
        """(cols, rows) of the packed matrix."""
        rows, cols = self.T.shape
        return cols, rows

    @property
    def dtype(self) -> np.dtype:
        """The packed matrix's dtype."""
        return self.T.dtype

    def __repr__(self) -> str:
        return f"<transpose of {self.T!r}>"

    def __matmul__(self, x: Any) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim > 2:
            raise ArgumentError(f"x has {x.ndim} dimensions; expected 1 or 2")
        return product.rmatmul(x.T, self.T).T

    def __rmatmul__(self, x: Any) -> np.ndarray:
        return product.linear(x, self.T)

    def to_dense(self) -> np.ndarray:
        """The dense transpose."""
        return self.T.to_dense().T

    toarray = to_dense

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.T.__array__(dtype, copy)).T


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
        What "auto" weighs: the fewest bytes; the fewest without an entropy stage; the fastest product.
    entropy : {"auto", "none", "huffman", "zstd"}
        The entropy stage: each stream takes it only where it gets smaller. "auto": the smallest for "disk", else none.
    values : {"raw", "codebook"}
        What the stored values are: every bit of them, or codes of the nearest entries of a codebook (weight sharing;
        lossy, unless a tensor has no more values than entries). NaN and infinite weights are refused.
    value_bits : int, optional
        Bits of a code, 1 to 8: at most ``2**value_bits`` values. By default as many as ``codebook`` needs, else 8.
        A layout that pads or fills (dense among them) needs one code for its zeros.
    codebook : array-like, (entries,) or (groups, entries), optional
        Distinct entries to use; by default k-means finds them.
    codebook_rows : int, optional
        Rows of the matrix that share a codebook; by default all.
    codebook_start : {"linear", "density", "random"}, optional
        Where k-means begins, as published; by default at (nearly) the optimum.
    zero : {"value", "bits"}
        What a zero is: what compares equal to 0 (-0.0 becomes +0.0, and is counted), or only the bits of +0.0.
    mask : array of bool, optional
        Kept positions, of a's shape: exactly these are stored; all others must be zero.
    row_dims : int, optional
        How many leading dimensions are the rows of the matrix view; by default 1 (2 for (1, n, m), 0 for 1-d).
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
    source = source_of(a, zero=zero, mask=mask, row_dims=row_dims)
    coding, quantiser = quantised(
        source, layout, layout_params, values=values, value_bits=value_bits, codebook=codebook,
        codebook_rows=codebook_rows, codebook_start=codebook_start,
    )  # fmt: skip
    wish = Wish(layout, layout_params, objective, entropy, coding)
    return PackedTensor(*pack_array(source, wish, quantiser, kernels.thread_count(threads)))


def decode(p: Any, *, out: np.ndarray | None = None, rows: Any = None, threads: int | None = None) -> np.ndarray:
    """The dense tensor, or some of its matrix rows.

    Parameters
    ----------
    p : PackedTensor or bytes-like
        A packed tensor, or one frame.
    out : ndarray, optional
        Where to put the result: of its shape and dtype, any strides.
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
    result = np.empty(shape, packed.dtype) if out is None else check_out(out, shape, packed.dtype)
    direct = result if result.flags.c_contiguous and result.flags.aligned else np.empty(shape, packed.dtype)
    packed.spans.decode(
        start * grid.cols, (stop - start) * grid.cols, kernels.octets(direct), kernels.thread_count(threads)
    )
    if direct is not result:
        result[...] = direct
    return result


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
    if (
        isinstance(rows, tuple)
        and len(rows) == 2
        and all(type(r) is int for r in rows)
        and 0 <= rows[0] <= rows[1] <= total
    ):
        return rows
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
        data = data.copy()
    head = parse(data)
    return PackedTensor(data, in_memory(head, data, checked=False))


def frame_info(read: Read, length: int) -> Head:
    """The proved head of a frame of which only that is read; ``read(offset, length)`` returns those bytes."""
    return read_head(read, length)


def read_rows(read: Read, length: int, start: int, stop: int, *, threads: int | None = None) -> np.ndarray:
    """Matrix rows [start, stop) of a frame of which only the head and the segments needed are read; (rows, cols)."""
    head = read_head(read, length)
    start, stop = _row_range((start, stop), head.grid.rows)
    out = np.empty((stop - start, head.grid.cols), head.element.dtype)
    spans = on_demand(head, read)
    spans.decode(
        start * head.grid.cols, (stop - start) * head.grid.cols, kernels.octets(out), kernels.thread_count(threads)
    )
    return out
