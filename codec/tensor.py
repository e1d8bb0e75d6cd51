"""The spine: dense array -> layout -> entropy stage -> frame, and back. The file to open first."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from codec import _native, interop, kernels, product
from codec.choose import Wish, candidates, fastest, target
from codec.codebook import Quantiser, check_given, given_codebook
from codec.errors import ArgumentError
from codec.frame import Head
from codec.geometry import Grid
from codec.head import Read, parse, read_head
from codec.indexing import take
from codec.layouts import Counts, layout_named
from codec.source import source_of
from codec.spans import Spans, check_out, in_memory, on_demand
from codec.stats import TensorStats, stats_of, stats_of_spans
from codec.streams import Target, pack
from codec.valuecoding import ValueCoding, check_values


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
        coding = self.spans.head.values
        return self.spans.shared("codebook", self.dtype).reshape(-1, coding.entries) if coding.bits else None

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
        count = kernels.thread_count(threads)
        head = self.spans.head
        if values not in (None, "raw", head.values.name) or not isinstance(values, str | None):
            raise ArgumentError(
                f'values={values!r}; expected "raw" or None (as it is): encode the dense tensor for a codebook'
            )
        kept = ValueCoding() if values == "raw" else head.values
        wish = Wish(layout, layout_params, objective, entropy, kept)

        def fill(native: _native.Streams, to: Target) -> int:
            codes = None
            if to.values.bits:
                book, codes = self._recoded(to)
                native.share(len(to.kinds) - 1, kernels.octets(book))
            for view, first, last in self.spans.views(0, head.grid.segments, count):
                self.spans.raise_for(native.transcode(view, first, last, count, codes))
            self.spans.check_stored(native.stored)
            return head.negative_zeros

        return _best(wish, lambda: stats_of_spans(self.spans, count, *wish.asks), self.nnz, self._target, fill, count)

    def _target(self, wish: Wish, layout: str, params: Mapping[str, Any], counts: Counts) -> Target:
        head = self.spans.head
        to = target(
            wish,
            layout,
            params,
            dtype=self.dtype,
            shape=self.shape,
            row_dims=head.row_dims,
            grid=head.grid,
            zero=head.zero,
            counts=counts,
        )
        if not wish.values.bits or not self._no_code_left(to):
            return to
        if to.values.bits < 8:
            return replace(to, values=replace(to.values, bits=to.values.bits + 1))
        if wish.layout == "auto":
            return replace(to, values=ValueCoding())
        raise ArgumentError(
            f'all 256 codes are in use, and layout {layout} pads with a code of its own; take values="raw"'
        )

    def _needs_zero(self, to: Target) -> bool:
        """Whether code 0 is to become a zero that it is not here."""
        head = self.spans.head
        return to.layout.zero_items(to.params) and not head.layout.zero_items(head.params)

    def _no_code_left(self, to: Target) -> bool:
        book = self.codebook
        assert book is not None
        return self._needs_zero(to) and bool((book.view(self.spans.head.element.unsigned)[:, -1] != 0).any())

    def _recoded(self, to: Target) -> tuple[np.ndarray, np.ndarray]:
        """The codebooks for ``to``, and what each code becomes."""
        book, same = self.codebook, np.arange(256, dtype=np.uint8)
        assert book is not None
        if not self._needs_zero(to):
            return book, same
        moved = np.zeros((len(book), to.values.entries), self.dtype)
        moved[:, 1 : book.shape[1] + 1] = book[:, : to.values.entries - 1]
        # The last entry is 0 where there is no room for it.
        return moved, np.where(same < to.values.entries - 1, same + np.uint8(1), np.uint8(0))

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
        return from_csr(*interop.from_scipy(a), options)  # type: ignore[return-value]

    @classmethod
    def from_torch(cls, a: Any, **options: Any) -> Self:
        """Pack a torch tensor, strided, COO, CSR or BSR; ``options`` as for `encode`."""
        if not str(getattr(a, "layout", None)).startswith("torch."):
            raise ArgumentError(f"{type(a).__name__}; expected a torch tensor")
        if str(a.layout) == "torch.strided":
            return encode(a, **options)  # type: ignore[return-value]
        return from_csr(*interop.from_torch(a), options)  # type: ignore[return-value]


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


# Runs the layout stage on native streams for a frame to be; returns the count of negative zeros.
Fill = Callable[[_native.Streams, Target], int]


def _best(
    wish: Wish,
    stats: Callable[[], TensorStats],
    nnz: int | None,
    to: Callable[[Wish, str, Mapping[str, Any], Counts], Target],
    fill: Fill,
    threads: int,
) -> PackedTensor:
    """Make the frame that was wished for; of two candidates for "disk" the smaller."""
    if wish.layout != "auto":
        counts = stats().counts if wish.needs_stats else Counts(0)
        return _packed(to(wish, wish.layout, wish.params, counts), fill, threads)
    counted = stats() if wish.needs_stats or nnz is None else None
    if wish.needs_stats and counted is not None:
        exact = wish.stage == "none"
        frames = [_packed(t, fill, threads) for t in candidates(wish, counted, most=1 if exact else 2, to=to)]
        return min(frames, key=lambda p: p.nbytes)
    counts = counted.counts if counted is not None else Counts(nnz or 0)
    probe = to(wish, "dense", {}, counts)
    return _packed(to(wish, *fastest(counts.nnz, probe.grid), counts), fill, threads)


def _packed(to: Target, fill: Fill, threads: int) -> PackedTensor:
    data, head = pack(to, fill, threads)
    data.flags.writeable = False
    return PackedTensor(data, in_memory(head, data, checked=True))


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
    given = None if codebook is None or values != "codebook" else given_codebook(codebook, source.element)
    entries = None if given is None else given.shape[1]
    if given is not None and layout != "auto" and not (given == 0).any(axis=1).all():
        named = layout_named(layout)
        entries = given.shape[1] + int(named.zero_items(named.params(layout_params, source.grid)))
    coding = check_values(values, value_bits, codebook, codebook_rows, codebook_start, source.grid, entries)
    wish = Wish(layout, layout_params, objective, entropy, coding)
    quantiser = Quantiser(source, coding, start=codebook_start, given=given) if coding.bits else None
    count = kernels.thread_count(threads)

    def to(wish: Wish, name: str, params: Mapping[str, Any], counts: Counts) -> Target:
        return target(
            wish,
            name,
            params,
            dtype=source.element.dtype,
            shape=source.shape,
            row_dims=source.row_dims,
            grid=source.grid,
            zero=source.zero,
            counts=counts,
        )

    def fill(native: _native.Streams, to: Target) -> int:
        if quantiser is None:
            native.encode(source.dense, source.keep, count)
            return int(native.dropped_negatives)
        padded = to.layout.zero_items(to.params)
        if given is not None:
            check_given(given, coding, coding.groups(source.grid), zero_first=padded, layout=to.layout.name)
        book, codes, stored = quantiser.made(zero_first=padded)
        native.share(len(to.kinds) - 1, book)
        native.encode(codes, stored, count)
        return quantiser.negative_zeros

    return _best(wish, lambda: stats_of(source, count, *wish.asks), None, to, fill, count)


def from_csr(
    shape: tuple[int, int], starts: np.ndarray, indices: np.ndarray, values: np.ndarray, options: dict[str, Any]
) -> PackedTensor:
    """Pack proved CSR arrays (int64 starts and ascending indices) without a dense copy; ``options`` as for `encode`."""
    allowed = {"layout": "auto", "objective": "disk", "entropy": "auto", "threads": None}
    zero = options.pop("zero", "value")
    if options.pop("values", "raw") != "raw":
        raise ArgumentError('values="codebook" needs encode(a.toarray(), values="codebook", ...)')
    picked = {name: options.pop(name, default) for name, default in allowed.items()}
    wish = Wish(picked["layout"], options, picked["objective"], picked["entropy"])
    count = kernels.thread_count(picked["threads"])
    # A row of no elements has the dtype, and the grid is the matrix's.
    empty = source_of(np.zeros(0, values.dtype), zero=zero)
    grid = Grid.default(*shape, empty.element.width)

    def to(wish: Wish, name: str, params: Mapping[str, Any], counts: Counts) -> Target:
        return target(
            wish, name, params, dtype=values.dtype, shape=shape, row_dims=1, grid=grid, zero=zero, counts=counts
        )

    def fill(native: _native.Streams, to: Target) -> int:
        native.encode_csr(starts, indices, kernels.octets(values), count)
        return 0

    plain = _packed(to(Wish("bitmap", {}, "memory", "none"), "bitmap", {}, Counts(0)), fill, count)
    return (
        plain
        if wish.layout == "bitmap" and not wish.params and wish.stage == "none"
        else plain.to_layout(
            wish.layout, objective=wish.objective, entropy=wish.entropy, threads=picked["threads"], **wish.params
        )
    )


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
