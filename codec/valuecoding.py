"""How values become items of a stream (spec section 4.5): as they are, or as codes of a codebook.

One place for every layout: a layout speaks of a stream "values" of elements, and here that becomes a stream "codes"
of 1 to 8 bits each, with a stream "codebook" behind all others that every segment shares. A layout's reader and
writer work on codes as on elements of one byte.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codec.dtypes import ElementType
from codec.entropy import HuffmanCode
from codec.errors import ArgumentError, FormatError
from codec.geometry import Grid
from codec.layouts import Counts, Histogram, Layout, StreamKind
from codec.layouts.base import Params

NO_STREAM = 4  # kStreams in native/kernels.hpp: codes that stand inside another stream


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

    def to_header(self) -> dict[str, Any]:
        """A frame's "values"."""
        return {"coding": "codebook", "bits": self.bits, "rows": self.rows} if self.bits else {"coding": "raw"}

    @classmethod
    def from_header(cls, value: Any, grid: Grid) -> "ValueCoding":
        """From a frame's "values"; FormatError for any that a writer does not write."""
        if value == {"coding": "raw"}:
            return cls()
        keys = ["coding", "bits", "rows"]
        if not isinstance(value, dict) or list(value) != keys or value["coding"] != "codebook":
            raise FormatError(f"value coding {value!r} is neither raw nor codebook")
        bits, rows = value["bits"], value["rows"]
        if type(bits) is not int or not 1 <= bits <= 8 or type(rows) is not int or rows < 0:
            raise FormatError(f"codes of {bits!r} bits, {rows!r} rows to a codebook; expected 1 to 8 bits")
        found = cls(bits, rows)
        if found.on(grid) != found:
            raise FormatError(f"{rows} rows to a codebook for a matrix of {grid.rows} rows; expected 0")
        return found

    def kinds(self, layout: Layout, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """The layout's streams, with codes in the place of values."""
        kinds = layout.streams(params, element)
        if not self.bits:
            return kinds
        coded = (
            StreamKind("codes", 1, "unsigned", bits=self.bits) if kind.name == "values" else kind for kind in kinds
        )
        return (*coded, StreamKind("codebook", element.width, element.kind, shared=True, plain=True))

    def stream_bytes(
        self, layout: Layout, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> tuple[int | None, ...]:
        """Exact bytes of each stream; None where ``counts`` does not hold what decides it."""
        raw = layout.stream_bytes(grid, self.width(element), counts, params)
        if not self.bits:
            return raw
        sizes = []
        for kind, size in zip(layout.streams(params, element), raw, strict=True):
            exact = size
            if kind.name == "values" and size is not None and self.bits < 8:
                parts = np.array([size]) if grid.segments < 2 else layout.values_of_parts(grid, counts, params)
                exact = None if parts is None else int((-(-parts.astype(np.int64) * self.bits // 8)).sum())
            sizes.append(exact)
        return (*sizes, self.groups(grid) * self.entries * element.width)

    def estimated(
        self, layout: Layout, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> tuple[int | None, ...]:
        """As ``stream_bytes``, but within a byte a segment where only the rounding of packed codes is not known."""
        if not self.bits:
            return self.stream_bytes(layout, grid, element, counts, params)
        raw = layout.stream_bytes(grid, 1, counts, params)
        exact = self.stream_bytes(layout, grid, element, counts, params)
        sizes = [
            (n * self.bits + 4 * grid.segments) // 8 if size is None and n is not None else size
            for n, size in zip(raw, exact, strict=False)
        ]
        return (*sizes, exact[-1])

    def histogram(
        self, layout: Layout, stream: StreamKind, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """Keys of a stream's items; None for codes, which statistics of values do not tell."""
        names = {kind.name for kind in layout.streams(params, element)}
        if self.bits and (stream.name in ("codes", "codebook") or "values" not in names):
            return None
        return layout.histogram(stream.name, grid, element, counts, params)

    def native(self, layout: Layout, params: Params, element: ElementType) -> tuple[int, int, int, bool]:
        """struct Coding in native/engine.hpp."""
        if not self.bits:
            return 0, NO_STREAM, 0, False
        names = [kind.name for kind in self.kinds(layout, params, element)]
        return self.bits, names.index("codes") if "codes" in names else NO_STREAM, self.rows, layout.zero_items(params)

    def check_code(self, code: HuffmanCode, kind: StreamKind) -> None:
        """FormatError for a Huffman code of items that are no codes."""
        top = kind.bits - code.low - code.zeros
        if kind.bits and (top < 1 or code.first + code.symbols > 1 << top):
            raise FormatError(f"a Huffman code of items above {kind.bits} bits")


RAW = ValueCoding()


def packed_bytes(sizes: np.ndarray, kind: StreamKind) -> np.ndarray:
    """Bytes of parts of one-byte items once they are packed."""
    return -(-sizes * np.uint64(kind.bits) // np.uint64(8)) if kind.bits else sizes


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
    if isinstance(value_bits, bool) or not isinstance(value_bits, int | np.integer) or not 1 <= value_bits <= 8:
        raise ArgumentError(f"value_bits={value_bits!r}; expected an int from 1 to 8")
    if codebook_rows is None:
        codebook_rows = 0
    elif isinstance(codebook_rows, bool) or not isinstance(codebook_rows, int | np.integer) or codebook_rows < 1:
        raise ArgumentError(f"codebook_rows={codebook_rows!r}; expected an int of at least 1, or None for one codebook")
    if codebook_start is not None and codebook_start not in ("linear", "density", "random"):
        raise ArgumentError(
            f'codebook_start={codebook_start!r}; expected "linear", "density", "random", or None for the best'
        )
    if codebook is not None and codebook_start is not None:
        raise ArgumentError("codebook_start with codebook=: a given codebook is used as it is")
    return ValueCoding(int(value_bits), int(codebook_rows)).on(grid)
