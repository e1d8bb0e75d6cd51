"""block_offset: the r x c blocks that hold an entry, by their offsets (spec section 5.8; block sparse rows, BSR).

Blocks are counted from the top left of each segment and clipped at its edges. ``block=(1, cols)`` keeps whole rows.
``block=("all", c)`` keeps whole columns of the matrix (or kernels, channels: c columns at a time): one list of them for
all segments, and what is left when the others are taken out.
"""

from typing import Any, ClassVar

import numpy as np

from codec.dtypes import ElementType
from codec.errors import ArgumentError, FormatError
from codec.geometry import MAX_SEGMENT, Grid
from codec.layouts.base import (
    BLOCKS,
    Counts,
    Histogram,
    Layout,
    Params,
    StreamKind,
    choice,
    histogram_of,
    items,
    octets,
)
from codec.layouts.gaps import expected


class BlockOffset(Layout):
    """Streams: ``rows`` (u32 pointers, one more than a segment has rows of blocks), ``columns``, ``values``.

    Whole columns have no ``rows``, and all segments share ``columns``. Parameters: ``block``, (r, c) or ("all", c), by
    default the one of the smallest size; ``index``, bits of an offset (8, 16, 32; by default the fewest).
    """

    name = "block_offset"
    code = 7
    defaults: ClassVar[Params] = {"block": None, "index": 0}
    variants = (
        {},
        {"block": (4, 4)},
        {"block": (1, 8), "index": 32},
        {"block": (8, 1)},
        {"block": (1, 1 << 22)},
        {"block": ("all", 1)},
    )

    def check(self, params: dict[str, Any], grid: Grid) -> dict[str, Any]:
        """A shape, no larger than a segment, and index bits that hold every offset."""
        index = choice(params, "index", (0, 8, 16, 32))
        if params["block"] is None:
            return params
        block = _clipped(params["block"], grid)
        wide = grid.cols if block[0] == "all" and grid.size else grid.segment_cols
        across = -(-wide // block[1])
        fewest = 8 if across <= 1 << 8 else 16 if across <= 1 << 16 else 32
        if (index or 32) < fewest or across > 1 << 32:
            raise ArgumentError(f"index={index} bits for {across} blocks side by side; expected at least {fewest}")
        return {**params, "block": block, "index": index or fewest}

    def decided(self, params: Params) -> bool:
        """With a shape."""
        return params["block"] is not None

    def known(self, given: Params) -> bool:
        """A shape is given, and not of whole columns: which of these are kept stands in one stream for all segments."""
        return given.get("block") is not None and not _whole(given)

    def decide(self, params: Params, grid: Grid, element: ElementType, counts: Counts) -> dict[str, Any]:
        """The shape of the smallest streams: of those that are always counted, whole rows, and whole columns."""
        if params["block"] is not None:
            return dict(params)
        known, best, least = expected(counts, grid), dict(params), None
        for block in (*BLOCKS, (1, max(1, grid.segment_cols)), ("all", 1)):
            try:
                candidate = self.check({**params, "block": block}, grid)
            except ArgumentError:  # more blocks than the index given holds
                continue
            sizes = self.stream_bytes(grid, element.width, known, candidate)
            size = sum(n for n in sizes if n is not None)
            if None not in sizes and (least is None or size < least):
                best, least = candidate, size
        return best if least is not None else self.check({**params, "block": (1, max(1, grid.segment_cols))}, grid)

    def asks(self, given: Params) -> tuple[tuple[tuple[Any, int], ...], tuple[int, ...]]:
        """The shape given; columns tell of whole ones."""
        return ((tuple(given["block"]),) if self.known(given) else (), ())

    def native(self, params: Params) -> tuple[int, ...]:
        """Bytes of an offset, rows of a block (0: all), columns of a block."""
        r, c = params["block"]
        return (params["index"] // 8, 0 if r == "all" else r, c)

    def padded(self, params: Params) -> bool:
        """Blocks hold zeros."""
        return True

    def streams(self, params: Params, element: ElementType) -> tuple[StreamKind, ...]:
        """Pointers, offsets, values."""
        whole, width = _whole(params), params["index"] // 8
        pointers = () if whole else (StreamKind("rows", 4, "unsigned"),)
        columns = StreamKind("columns", width, "unsigned", shared=whole, plain=whole)
        return (*pointers, columns, StreamKind("values", element.width, element.kind))

    def stream_bytes(self, grid: Grid, width: int, counts: Counts, params: Params) -> tuple[int | None, ...]:
        """4 (ceil(h / r) + 1) per segment of h rows; index / 8 for each block, width for each of its elements."""
        blocks, elements = _live(grid, counts, params)
        columns = None if blocks is None else blocks * params["index"] // 8
        values = None if elements is None else elements * width
        if _whole(params):
            return (columns, values)
        pointers = sum((-(-h // params["block"][0]) + 1) * n for h, _, n in grid.shapes())
        return (4 * pointers, columns, values)

    def values_of_parts(self, grid: Grid, counts: Counts, params: Params) -> np.ndarray | None:
        """Of whole columns and whole rows."""
        if _whole(params) and counts.cols is not None and grid.size:
            wide = np.add.reduceat(_live_columns(counts, params), np.arange(0, grid.cols, grid.segment_cols))
            return np.array([place.rows * wide[place.number % grid.across] for place in grid.places()], np.uint64)
        if _whole_rows(grid, params) and counts.rows is not None and grid.size:
            starts = np.cumsum([0, *(place.rows for place in grid.places())][:-1])
            widths = np.array([place.cols for place in grid.places()], np.uint64)
            return np.add.reduceat((counts.rows > 0).astype(np.uint64), starts) * widths
        return None

    def share(self, grid: Grid, counts: Counts, params: Params) -> dict[str, np.ndarray]:
        """The whole columns that hold an entry."""
        if not _whole(params) or counts.cols is None:
            return {}
        live = np.flatnonzero(_live_columns(counts, params)[:: params["block"][1]])
        return {"columns": live.astype(f"<u{params['index'] // 8}")}

    def histogram(
        self, stream: str, grid: Grid, element: ElementType, counts: Counts, params: Params
    ) -> Histogram | None:
        """The entries, and a zero for each other element of their blocks; offsets as often as entries make likely, and
        pointers as if each row of blocks held one for each entry, as far as there are.
        """
        blocks, elements = _live(grid, counts, params)
        if stream == "rows" and counts.rows is not None and blocks is not None:
            return _pointers(grid, counts.rows, params, blocks)
        if stream == "columns" and counts.cols is not None and blocks and not _whole(params):
            likely = _likely(grid, counts.cols, params)
            times = np.rint(likely * (blocks / max(1e-300, likely.sum()))).astype(np.uint64)
            return histogram_of(np.arange(len(likely)), times, params["index"] // 8)
        if stream != "values" or counts.keys is None or elements is None:
            return None
        keys, signed = counts.keys.copy(), element.kind == "signed"
        keys[len(keys) // 2 if signed else 0] += np.uint64(elements - counts.nnz)
        return keys, counts.or_of_keys | (1 << 8 * element.width - 1 if signed and elements > counts.nnz else 0)

    def ideal_bits(self, sparsity: float, value_bits: float, params: Params) -> float:
        """(1 - s^(rc)) (b + i / (rc)); of endless columns none is without an entry."""
        if params.get("block") is None:
            return min(self.ideal_bits(sparsity, value_bits, {**params, "block": block}) for block in BLOCKS)
        r, c = params["block"]
        if r == "all":
            return float(value_bits) if sparsity < 1 else 0.0
        size = int(r) * int(c)
        return float(1 - sparsity**size) * (value_bits + int(params["index"] or 32) / size)

    def pointer_bits(self, rows: int, cols: int, params: Params) -> float:
        """32 bits for each row of blocks, and for one more."""
        if params.get("block") is None or _whole(params):
            return 0.0
        return 32 * (rows / int(params["block"][0]) + 1) / (rows * cols)

    def encode(self, segment: np.ndarray, stored: np.ndarray, params: Params) -> tuple[np.ndarray, ...]:
        """Blocks row by row, each row by row; what holds nothing but zeros that were kept is no block."""
        elements = np.where(stored, segment, 0).astype(segment.dtype)
        (r, c), offset = params["block"], np.dtype(f"<u{params['index'] // 8}")
        if r == "all":
            live = np.repeat(_any(stored, len(stored), c)[0], c)[: elements.shape[1]]
            return octets(np.flatnonzero(live[::c]).astype(offset)), octets(elements[:, live])
        live = _any(elements, r, c)
        down, across = np.nonzero(live)
        values = [
            elements[i * r : (i + 1) * r, j * c : (j + 1) * c].reshape(-1) for i, j in zip(down, across, strict=True)
        ]
        pointers = np.concatenate(([0], np.cumsum(live.sum(axis=1))))
        every = np.concatenate([np.zeros(0, segment.dtype), *values])
        return octets(pointers.astype("<u4")), octets(across.astype(offset)), octets(every)

    def decode(
        self, streams: tuple[np.ndarray, ...], rows: int, cols: int, dtype: np.dtype, params: Params
    ) -> np.ndarray:
        """Puts each block where its offset says: they ascend, lie inside, and hold something."""
        (r, c), out = params["block"], np.zeros((rows, cols), dtype)
        across = -(-cols // c)
        columns = items(streams[-2], f"<u{params['index'] // 8}", None, "columns").astype(np.int64)
        if r == "all":
            _ascending(columns, across)
            live = np.repeat(np.isin(np.arange(across), columns), c)[:cols]
            out[:, live] = items(streams[-1], dtype, rows * int(live.sum()), "values").reshape(rows, -1)
            return out
        pointers = items(streams[0], "<u4", -(-rows // r) + 1, "rows").astype(np.int64)
        if pointers[0] != 0 or np.any(np.diff(pointers) < 0) or pointers[-1] != len(columns):
            raise FormatError(f"pointers do not ascend from 0 to {len(columns)}", stream="rows")
        values, used = items(streams[2], dtype, None, "values"), 0
        for i in range(len(pointers) - 1):
            inside = columns[pointers[i] : pointers[i + 1]]
            _ascending(inside, across)
            for j in inside:
                block = out[i * r : (i + 1) * r, j * c : (j + 1) * c]
                own = values[used : used + block.size]
                if len(own) < block.size or not own.any():
                    raise FormatError(f"row of blocks {i}: block {j} is cut off, or holds only zeros", stream="values")
                block[...] = own.reshape(block.shape)
                used += block.size
        items(streams[2], dtype, used, "values")
        return out


def _pointers(grid: Grid, entries: np.ndarray, params: Params, blocks: int) -> Histogram:
    """Pointers to so many blocks."""
    (r, c), at, held = params["block"], 0, [np.zeros(0)]
    for place in grid.places():
        rows = np.add.reduceat(entries[at : at + place.rows].astype(np.float64), np.arange(0, place.rows, r))
        held.append(np.minimum(rows, -(-place.cols // c)))
        at += place.rows
    scale = blocks / max(1.0, sum(float(rows.sum()) for rows in held))
    every = np.concatenate([np.append(0, np.rint(np.cumsum(rows) * scale)) for rows in held[1:]] or held)
    return histogram_of(every.astype(np.int64), np.ones(len(every), np.uint64), 4)


def _clipped(block: Any, grid: Grid) -> list[Any]:
    """A block no larger than a segment, as the header has it; ArgumentError where it is none."""
    fine = isinstance(block, tuple | list) and len(block) == 2 and (block[0] == "all" or _side(block[0]))
    if not fine or not _side(block[1]):
        raise ArgumentError(f'block={block!r}; expected (rows, columns), or ("all", columns) for whole columns')
    rows = "all" if block[0] == "all" else min(int(block[0]), grid.segment_rows or MAX_SEGMENT)
    return [rows, min(int(block[1]), grid.segment_cols or MAX_SEGMENT)]


def _side(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _whole(params: Params) -> bool:
    """Whether whole columns are kept."""
    block = params["block"]
    return isinstance(block, tuple | list) and len(block) == 2 and isinstance(block[0], str) and block[0] == "all"


def _whole_rows(grid: Grid, params: Params) -> bool:
    return bool(params["block"] == [1, grid.segment_cols])


def _live_columns(counts: Counts, params: Params) -> np.ndarray:
    """For each column of the matrix, whether its block holds an entry (int64)."""
    assert counts.cols is not None
    if not len(counts.cols):
        return np.zeros(0, np.int64)
    c = params["block"][1]
    live = np.add.reduceat(counts.cols, np.arange(0, len(counts.cols), c)) > 0
    return np.repeat(live, c)[: len(counts.cols)].astype(np.int64)


def _live(grid: Grid, counts: Counts, params: Params) -> tuple[int | None, int | None]:
    """Blocks that hold an entry, and their elements; None where ``counts`` does not tell."""
    if not grid.size:
        return 0, 0
    if _whole(params):
        if counts.cols is None:
            return None, None
        live = _live_columns(counts, params)
        return int(live[:: params["block"][1]].sum()), int(live.sum()) * grid.rows
    if counts.blocks is not None and counts.block_elements is not None:
        # Of shapes that are the same once they are clipped, any does.
        asked = (tuple(params["block"]), *counts.blocks)
        for shape in asked:
            if shape in counts.blocks and shape[0] != "all" and _clipped(shape, grid) == params["block"]:
                return counts.blocks[shape], counts.block_elements[shape]
    if _whole_rows(grid, params) and counts.rows is not None:
        parts = BlockOffset().values_of_parts(grid, counts, params)
        return int((counts.rows > 0).sum()), 0 if parts is None else int(parts.sum())
    return None, None


def _likely(grid: Grid, cols: np.ndarray, params: Params) -> np.ndarray:
    """Of each offset, the share of blocks there that hold an entry, were those of a column independent."""
    r, c = params["block"]
    step = grid.segment_cols
    density = np.zeros(step)
    for left in range(0, grid.cols, step):
        piece = cols[left : left + step]
        density[: len(piece)] += piece / (grid.rows * grid.across)
    empty = np.log1p(-np.minimum(density, 1 - 1e-9))
    return np.asarray(-np.expm1(r * np.add.reduceat(empty, np.arange(0, step, c))))


def _any(elements: np.ndarray, r: int, c: int) -> np.ndarray:
    """For each block, whether it holds anything but zeros."""
    whole = np.pad(elements != 0, ((0, -elements.shape[0] % r), (0, -elements.shape[1] % c)))
    return np.asarray(whole.reshape(whole.shape[0] // r, r, -1, c).any(axis=(1, 3)))


def _ascending(columns: np.ndarray, across: int) -> None:
    if np.any(np.diff(columns) <= 0) or np.any(columns >= across):
        raise FormatError(f"blocks do not ascend below {across}", stream="columns")
