"""torch: sparse tensors in and out; dense ones cross in codec.arraylike."""

from typing import Any

import numpy as np

from codec import arraylike, kernels
from codec.errors import ArgumentError, CodecError
from codec.frame import Spans
from codec.interop.csr import Csr, compressed, coordinates, entries
from codec.matrix import dimensions

LAYOUTS = ("strided", "csr", "coo")
# How torch names the arrays of its compressed layouts.
_BY_ROWS, _BY_COLUMNS = ("crow_indices", "col_indices"), ("ccol_indices", "row_indices")
_COMPRESSED = {"csr": _BY_ROWS, "bsr": _BY_ROWS, "csc": _BY_COLUMNS, "bsc": _BY_COLUMNS}


def to_torch(spans: Spans, layout: Any) -> Any:
    """A torch tensor of the tensor's own shape, sharing the arrays made here.

    The layout is one of LAYOUTS, or what torch calls it: ``torch.sparse_csr``, or that as a text.

    Raises ArgumentError for a layout that is none of LAYOUTS, for csr and coo of a tensor that is no matrix, and for a
    dtype that the installed torch does not have.
    """
    import torch

    asked, layout = layout, _own_name(layout)
    if layout not in LAYOUTS:
        raise ArgumentError(f"layout={asked!r}; expected {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
    if layout == "strided":
        return arraylike.to_torch(spans.dense(kernels.thread_count(None)))
    if len(spans.head.shape) != 2:
        raise ArgumentError(f"torch's {layout} holds matrices; this tensor has {dimensions(len(spans.head.shape))}")
    shape, starts, indices, values = entries(spans)
    columns, items = torch.from_numpy(indices), arraylike.to_torch(values)
    if layout == "csr":
        return torch.sparse_csr_tensor(torch.from_numpy(starts), columns, items, shape, check_invariants=False)
    rows = torch.from_numpy(np.repeat(np.arange(shape[0]), np.diff(starts)))
    # The entries are in row-major order without duplicates, which is what coalesced means.
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), items, shape, is_coalesced=True, check_invariants=False
    )


def from_torch(a: Any) -> Csr:
    """Proved CSR arrays of a sparse torch tensor: COO, CSR, CSC, BSR or BSC, of two dimensions.

    Entries out of order are sorted and duplicates are added up, whatever the tensor's flag ``is_coalesced`` says and
    whether or not torch checked the invariants of its layout.

    Raises ArgumentError for other layouts and numbers of dimensions, for hybrid tensors (with values that are arrays),
    and for tensors whose elements cannot be read.
    """
    layout = _own_name(a.layout)
    if layout not in ("coo", *_COMPRESSED):
        raise ArgumentError(
            f"a torch tensor of layout {a.layout}; expected strided, COO, CSR, CSC, BSR or BSC: give tensor.to_dense()"
        )
    if a.dense_dim():
        raise ArgumentError(
            f"a hybrid torch tensor of shape {tuple(a.shape)}: {a.sparse_dim()} of its dimensions are sparse, and "
            f"{a.dense_dim()} lie in dense values; expected none that is dense: give tensor.to_dense()"
        )
    if a.ndim != 2:
        raise ArgumentError(
            f"a torch tensor of layout {a.layout} with {dimensions(a.ndim)}; expected a matrix: give its matrices one "
            "by one, or tensor.to_dense()"
        )
    shape = tuple(a.shape)
    if layout == "coo":
        indices, values = _read(a, "_indices"), _read(a, "_values")
        if indices.ndim != 2 or len(indices) != 2:
            raise ArgumentError(f"COO indices of shape {indices.shape}; expected (2, entries)")
        return coordinates(shape, indices[0], indices[1], values)
    starts, indices = (_read(a, name) for name in _COMPRESSED[layout])
    return compressed(shape, starts, indices, _read(a, "values"), by_columns=layout in ("csc", "bsc"))


def _own_name(layout: Any) -> str:
    """A layout's name here, of torch's object for it or torch's name."""
    return str(layout).removeprefix("torch.").removeprefix("sparse_")


def _read(a: Any, name: str) -> np.ndarray:
    """One of a sparse tensor's arrays; the tensor's own class may refuse to give it."""
    try:
        part = getattr(a.detach(), name)()
    except CodecError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"a sparse torch tensor whose arrays cannot be read ({str(error).partition(chr(10))[0]}); expected one "
            "with storage of its own"
        ) from error
    return arraylike.from_torch(part)
