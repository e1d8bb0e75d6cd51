"""How values become items of a stream: as they are, or as codes of a codebook.

One place for every layout: a layout speaks of a stream "values" of elements, and here that becomes a stream "labels"
of 1 to 8 bits each, with a stream "codebook" behind all others that every segment shares. A layout's reader and
writer work on codes as on elements of one byte.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import NONE, Items, KeyCounts
from codec.errors import ArgumentError, FormatError
from codec.kernels import NO_STREAM
from codec.layouts import Layout, StreamKind
from codec.layouts.base import Sizes
from codec.matrix import Grid, is_int
from codec.statistics import Counts


@dataclass(frozen=True)
class ValueCoding:
    """``bits`` of a code (0: values are elements as they are), ``rows`` of the matrix to a codebook (0: all)."""

    bits: int = 0
    rows: int = 0

    @property
    def name(self) -> str:
        """ "raw" or "codebook"."""
        return "codebook" if self.bits else "raw"

    @property
    def entries(self) -> int:
        """Entries of a codebook."""
        return 1 << self.bits

    def width(self, element: ElementType) -> int:
        """Bytes of a value as layouts see it."""
        return 1 if self.bits else element.width

    def groups(self, grid: Grid) -> int:
        """Codebooks of a matrix."""
        return 0 if not grid.size else -(-grid.rows // self.rows) if self.rows else 1

    def on(self, grid: Grid) -> "ValueCoding":
        """The same, with 0 for as many rows as the matrix has or more."""
        return replace(self, rows=0) if self.rows >= grid.rows or not grid.size else self

    def to_header(self) -> list[int]:
        """A frame's "values": nothing, or bits and rows of a codebook."""
        return [self.bits, self.rows] if self.bits else []

    @classmethod
    def from_header(cls, value: Any, grid: Grid) -> "ValueCoding":
        """From a frame's "values"; FormatError for any that a writer does not write."""
        if value == []:
            return cls()
        if not isinstance(value, list) or len(value) != 2:
            raise FormatError(f"values {value!r:.200}: neither nothing nor bits and rows of a codebook")
        bits, rows = value
        if type(bits) is not int or not 1 <= bits <= 8 or type(rows) is not int or rows < 0:
            raise FormatError(f"codes of {bits!r} bits, {rows!r} rows to a codebook; expected 1 to 8 bits")
        found = cls(bits, rows)
        if found.on(grid) != found:
            raise FormatError(f"{rows} rows to a codebook for a matrix of {grid.rows} rows; expected 0")
        return found

    def streams(self, layout: Layout, element: ElementType) -> tuple[StreamKind, ...]:
        """The layout's streams, with codes in the place of values, and the codebook."""
        streams = layout.streams(element)
        if not self.bits:
            return streams
        coded = (self._codes(one) if one.name == "values" else one for one in streams)
        book = StreamKind("codebook", Items(element.width, element.kind), shared=True, codings=(NONE,))
        return (*coded, book)

    def _codes(self, values: StreamKind) -> StreamKind:
        return replace(values, name="labels", items=Items(1, bits=self.bits, longest=values.items.longest))

    def stream_bytes(self, layout: Layout, grid: Grid, element: ElementType, counts: Counts) -> tuple[Sizes, ...]:
        """Exact bytes of each stream's parts; None where ``counts`` does not hold what decides it."""
        sizes = layout.stream_bytes(grid, self.width(element), counts)
        if not self.bits:
            return sizes
        named = zip(layout.streams(element), sizes, strict=True)
        packed = (
            -(-size * self.bits // 8) if stream.name == "values" and size is not None else size
            for stream, size in named
        )
        return (*packed, np.array([self.groups(grid) * self.entries * element.width]))

    def key_counts(
        self, layout: Layout, stream: str, grid: Grid, element: ElementType, counts: Counts
    ) -> KeyCounts | None:
        """Keys of a stream's items; None for codes, which statistics of values do not tell."""
        if self.bits:
            names = {one.name for one in layout.streams(element)}
            if stream in ("labels", "codebook") or "values" not in names:
                return None
        return layout.key_counts(stream, grid, element, counts)

    def native(self, layout: Layout, element: ElementType) -> tuple[int, int, int, bool]:
        """Bits of a code, number of the stream of codes, rows of a codebook, whether code 0 stands for zero."""
        if not self.bits:
            return 0, NO_STREAM, 0, False
        names = [one.name for one in self.streams(layout, element)]
        return self.bits, names.index("labels") if "labels" in names else NO_STREAM, self.rows, layout.zero_items


RAW = ValueCoding()


def check_values(
    values: Any,
    value_bits: Any,
    codebook: Any,
    codebook_rows: Any,
    codebook_start: Any,
    grid: Grid,
    entries: int | None,
) -> ValueCoding:
    """The value coding that arguments of ``encode`` ask for; ``entries``: of the codebook given, at most, or None."""
    given = {
        "value_bits": value_bits,
        "codebook": codebook,
        "codebook_rows": codebook_rows,
        "codebook_start": codebook_start,
    }
    if values == "raw" and isinstance(values, str):
        for name, value in given.items():
            if value is not None:
                raise ArgumentError(f'{name} belongs to values="codebook"; here values="raw"')
        return RAW
    if values != "codebook" or not isinstance(values, str):
        raise ArgumentError(f'values={values!r}; expected "raw" or "codebook"')
    if value_bits is None:
        value_bits = 8 if entries is None else max(1, (entries - 1).bit_length())
    if not is_int(value_bits) or not 1 <= value_bits <= 8:
        raise ArgumentError(f"value_bits={value_bits!r}; expected an int from 1 to 8")
    if codebook_rows is None:
        codebook_rows = 0
    elif not is_int(codebook_rows) or codebook_rows < 1:
        raise ArgumentError(f"codebook_rows={codebook_rows!r}; expected an int of at least 1, or None for one codebook")
    if codebook_start is not None and codebook_start not in ("linear", "density", "random"):
        raise ArgumentError(
            f'codebook_start={codebook_start!r}; expected "linear", "density", "random", or None for the best'
        )
    if codebook is not None and codebook_start is not None:
        raise ArgumentError("codebook_start with codebook=: a given codebook is used as it is")
    return ValueCoding(int(value_bits), int(codebook_rows)).on(grid)
