"""A packed tensor: what it is, back to dense, products, and other forms."""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from codec import interop, kernels, products
from codec.arraylike import is_torch_tensor
from codec.encoding.pack import pack, pack_array
from codec.encoding.request import EncodeRequest
from codec.encoding.sources import CsrSource, FrameSource
from codec.errors import ArgumentError
from codec.frame import Spans, aligned_copy, check_out, in_memory, parse, restated
from codec.indexing import take
from codec.layouts.csr import Csr
from codec.matrix import TensorSpec, dimensions, is_int
from codec.values import RAW, ValueCoding


class PackedTensor:
    """One tensor, packed: immutable, and never unpacked as a whole unless asked.

    Made by `encode`, `loads`, `load_file`, `from_scipy` and `from_torch`. Indexing, ``np.asarray`` and `to_dense`
    decode (only the segments needed); ``p @ x`` and ``x @ p`` multiply straight from the packed bytes.

    Attributes
    ----------
    shape, dtype, ndim, size
        Of the tensor, as NumPy has them.
    nnz : int
        Stored entries: the elements that are not zero under the zero rule, or the positions that ``mask=`` keeps,
        whatever the layout.
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

    @classmethod
    def of_frame(cls, data: np.ndarray) -> Self:
        """From the bytes of one frame (uint8), of which the head is proved here."""
        return cls(data, in_memory(parse(data), data, checked=False))

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
        return MappingProxyType(self.spans.head.layout.params)

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
        return FrameSource(self.spans, 1).book

    @property
    def zero(self) -> str:
        """The zero rule, "value" or "bits"."""
        return self.spans.head.spec.zero

    @property
    def row_dims(self) -> int:
        """How many leading dimensions are the rows of the matrix view."""
        return self.spans.head.spec.row_dims

    @property
    def negative_zeros(self) -> int:
        """Elements that were -0.0 and became +0.0 (zero="value"); 0 under zero="bits"."""
        return self.spans.head.negative_zeros

    @property
    def entropy(self) -> Mapping[str, str]:
        """The coding of each stream: "none" or a coding of the entropy stage."""
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
        return _from_bytes, (self._bytes.tobytes(),)

    # -- back to dense ---------------------------------------------------------------------------------------------

    def to_dense(self, *, out: np.ndarray | None = None, threads: int | None = None) -> np.ndarray:
        """The dense tensor, bit for bit under the zero rule; see `decode`."""
        return self._rows(0, self.spans.head.grid.rows, self.shape, out, threads)

    def _rows(
        self, start: int, stop: int, shape: tuple[int, ...], out: np.ndarray | None, threads: int | None
    ) -> np.ndarray:
        """Matrix rows [start, stop), as an array of that shape."""
        cols = self.spans.head.grid.cols
        result = np.empty(shape, self.dtype) if out is None else check_out(out, shape, self.dtype)
        plain = result.flags.c_contiguous and result.flags.aligned and not self.spans.overlaps(result)
        direct = result if plain else np.empty(shape, self.dtype)
        count = kernels.thread_count(threads)
        self.spans.decode(start * cols, (stop - start) * cols, kernels.octets(direct), count)
        if direct is not result:
            self.spans.put(direct, result)
        return result

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
        return products.matmul(self, x)

    def __rmatmul__(self, x: Any) -> np.ndarray:
        return products.rmatmul(x, self)

    __array_priority__ = 1000.0
    __array_ufunc__ = None  # so that ndarray @ p comes here

    @property
    def T(self) -> "Transpose":
        """A view that multiplies and decodes as the transpose; nothing is copied."""
        if self.ndim != 2:
            raise ArgumentError(f"the transpose of {dimensions(self.ndim)}; expected 2")
        return Transpose(self)

    def reshape(self, *shape: Any) -> "PackedTensor":
        """The same packed tensor with the shape of its matrix view, such as a convolution's filters as rows.

        Parameters
        ----------
        shape : (rows, cols), or two ints
            Those of the matrix view; one of them may be -1. Parts are copied as they are, nothing is decoded.

        Raises
        ------
        ArgumentError
            For any other shape: decode, reshape and encode then.

        Examples
        --------
        >>> p = encode(np.ones((8, 4, 3, 3), np.float32))
        >>> p.reshape(8, -1).shape
        (8, 36)
        """
        grid = self.spans.head.grid
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        rows, cols = sizes if len(sizes) == 2 else (None, None)
        fits = [is_int(one) and one in (-1, own) for one, own in ((rows, grid.rows), (cols, grid.cols))]
        if not all(fits) or (rows == -1 and cols == -1):
            raise ArgumentError(
                f"reshape to {tuple(sizes)}; a packed tensor of shape {self.shape} only becomes its matrix "
                f"({grid.rows}, {grid.cols}): for others encode(p.to_dense().reshape(...))"
            )
        data, head = restated(self.spans.head, self._bytes, (grid.rows, grid.cols), 1)
        return PackedTensor(data, in_memory(head, data, checked=bool(self.spans.checked.all())))

    # -- other forms -----------------------------------------------------------------------------------------------

    def to_layout(
        self,
        layout: str = "auto",
        *,
        objective: str = "disk",
        entropy: str = "auto",
        values: str | None = None,
        batch: int | None = None,
        threads: int | None = None,
        **layout_params: Any,
    ) -> "PackedTensor":
        """The same tensor in another layout, segment by segment: never through a whole dense tensor.

        Parameters are those of `encode`; zero rule, shape and row_dims stay, and so does the value coding
        (``values="raw"`` makes codes values again; where a layout pads and no code is left for its zeros, codes get one
        bit more). Layouts dense, block_offset and sell do not tell which zeros a mask kept: what is made of them stores
        the elements whose bits are not all 0. ``entropy="auto"`` means the smallest for ``objective="disk"``, and no
        entropy stage for "memory" and "speed".

        Raises
        ------
        ArgumentError
            As `encode`; and for codes of 8 bits, all of them in use, in a layout that pads.
        FormatError, ChecksumError
            If the bytes are damaged.
        """
        count = kernels.thread_count(threads)
        request = EncodeRequest.of(layout, layout_params, objective, entropy, self._kept_values(values), batch)
        return PackedTensor(*pack(FrameSource(self.spans, count), request, count))

    def _kept_values(self, values: Any) -> ValueCoding:
        """The value coding that stays in another layout: the tensor's own, or "raw" if that was asked for."""
        if values not in (None, "raw", self.values) or not isinstance(values, str | None):
            raise ArgumentError(
                f'values={values!r}; expected "raw" or None (as it is): encode the dense tensor for a codebook'
            )
        return RAW if values == "raw" else self.spans.head.values

    def to_scipy(self, format: str = "csr") -> Any:
        """A scipy.sparse array ("csr", "bsr", "csc" or "coo") of a matrix, segment by segment, without a dense copy.

        Raises ArgumentError for a tensor that is not 2-d and for dtypes that scipy has not (float16, bfloat16, fp8).
        """
        return interop.to_scipy(self.spans, format)

    def to_torch(self, layout: Any = "strided") -> Any:
        """A torch tensor: "strided" (dense), "csr" or "coo", or torch's names of these; dtypes as torch has them."""
        return interop.to_torch(self.spans, layout)

    @classmethod
    def from_scipy(cls, a: Any, **options: Any) -> Self:
        """Pack a scipy.sparse matrix or array; ``options`` as for `encode`. Its stored zeros stay stored entries."""
        return cls._in_layout(interop.from_scipy(a), **options)

    @classmethod
    def from_torch(cls, a: Any, **options: Any) -> Self:
        """Pack a torch tensor, strided, COO, CSR, CSC, BSR or BSC; ``options`` as for `encode`."""
        if not is_torch_tensor(a):
            raise ArgumentError(f"{type(a).__name__}; expected a torch tensor")
        if str(a.layout) == "torch.strided":
            return cls(*pack_array(a, **options))
        return cls._in_layout(interop.from_torch(a), **options)

    @classmethod
    def of_csr(cls, arrays: interop.Csr, shape: Any = None, *, zero: str = "value", threads: int | None = None) -> Self:
        """From CSR arrays that `codec.interop` has proved, in layout csr; every value stays a stored entry.

        ``shape`` is that of the tensor whose matrix view the arrays are; by default the matrix is the tensor.
        """
        spec = TensorSpec.of(arrays.values.dtype, arrays.shape if shape is None else shape, zero=zero)
        if (spec.grid.rows, spec.grid.cols) != arrays.shape:
            raise ArgumentError(f"a matrix of {arrays.shape} is not the matrix view of a tensor of shape {spec.shape}")
        source = CsrSource(spec, arrays.starts, arrays.indices, arrays.values)
        return cls(*pack(source, EncodeRequest(Csr(), "memory"), kernels.thread_count(threads)))

    @classmethod
    def _in_layout(
        cls,
        arrays: interop.Csr,
        *,
        zero: str = "value",
        values: str = "raw",
        threads: int | None = None,
        **options: Any,
    ) -> Self:
        """From proved CSR arrays, in the layout that was asked for."""
        if values != "raw":
            raise ArgumentError('values="codebook" needs encode(a.toarray(), values="codebook", ...)')
        plain = cls.of_csr(arrays, zero=zero, threads=threads)
        return plain.to_layout(threads=threads, **options)  # type: ignore[return-value]


def _from_bytes(data: bytes) -> PackedTensor:
    return PackedTensor.of_frame(aligned_copy(np.frombuffer(data, np.uint8)))


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
        return products.matmul(self, x)

    def __rmatmul__(self, x: Any) -> np.ndarray:
        return products.rmatmul(x, self)

    def to_dense(self) -> np.ndarray:
        """The dense transpose."""
        return self.T.to_dense().T

    toarray = to_dense

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.T.__array__(dtype, copy)).T
