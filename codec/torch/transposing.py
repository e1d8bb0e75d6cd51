"""The transpose of a packed matrix, packed anew: of Conv1D's weights, which model files hold the other way round."""

from typing import Any

import numpy as np

from codec.elements import TOGETHER, Pieces
from codec.encoding.pack import pack_array
from codec.packed import PackedTensor

# How many bands of rows a transpose is made in; one is dense at a time, and has a million elements at least. The matrix
# is decoded once for each of them whenever the elements are looked at.
_BANDS = 4


def transpose(packed: PackedTensor, **options: Any) -> PackedTensor:
    """The transpose of a packed matrix, packed anew under its zero rule, and of one codebook if it has one.

    Parameters
    ----------
    packed : PackedTensor, (rows, cols)
    **options
        As for ``codec.encode``. With a codebook the transpose is dense for a moment, else a quarter of it at a time.

    Raises
    ------
    ArgumentError
        As ``codec.encode``.
    FormatError, ChecksumError
        If the bytes are damaged.
    """
    zero, books = packed.spans.head.spec.zero, packed.codebook
    if books is not None and len(books) == 1 and zero == "value" and "values" not in options:
        # Layouts that pad want a zero among the entries.
        entries = np.unique(np.append(books[0], books.dtype.type(0)))
        if len(entries) <= 256:
            options = {**options, "values": "codebook", "codebook": entries}
    return PackedTensor(*pack_array(_turned(packed), zero=zero, **options))


def _turned(packed: PackedTensor) -> Pieces:
    """The elements of the transpose, some at a time."""
    source = packed.to_layout("bitmap", entropy="none")  # it is decoded fast, and several times
    cols, rows = packed.shape
    height = max(1, -(-rows // _BANDS), TOGETHER // max(1, cols))
    step = max(1, TOGETHER // max(1, rows))
    held: dict[int, np.ndarray] = {}

    def band(number: int) -> np.ndarray:
        if number not in held:
            held.clear()
            first = number * height
            made = np.empty((min(height, rows - first), cols), packed.dtype)
            for top in range(0, cols, step):
                made[:, top : top + step] = source[top : top + step, first : first + height].T
            held[number] = made.reshape(-1)
        return held[number]

    def read(first: int, count: int) -> np.ndarray:
        found = np.empty(count, packed.dtype)
        done = 0
        while done < count:
            number, at = divmod(first + done, height * cols)
            part = band(number)[at : at + count - done]
            found[done : done + len(part)] = part
            done += len(part)
        return found

    return Pieces(packed.dtype, (rows, cols), read)
