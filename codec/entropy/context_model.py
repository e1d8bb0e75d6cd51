"""The model of a segment in layout context in plain Python: the head of a part (spec section 5.10)."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from codec.entropy.bits import BitReader, BitWriter, best_order, folded, golomb_bits, rice_bits, unfolded
from codec.errors import FormatError

MASK_BITS, LEVELS, LOW = 14, 321, 1 << 16
PANEL, BANK = 16384, 16
_MOST_CLASSES, _MOST_CHANCES, _MOST_ITEMS, _MOST_RAW, _LEAST_SCALE = 63, 256, 1 << 15, 56, 5
_MOST_SYMBOLS = 64  # of rows, and of columns
# How the bits of a value are read as a key.
NONE, INVERTED, RAW, MODELLED, NEGATED = range(5)


def refuse(what: str) -> FormatError:
    """The error for a part that is not as the spec says."""
    return FormatError(what, stream="coded")


def chance_at(level: int) -> int:
    """The probability of a one at a level, of 2**14."""
    exponent, rest = divmod(min(level, 320 - level), 16)
    chance = 16 + rest << exponent - 1 if exponent else rest
    return chance if level <= 160 else (1 << MASK_BITS) - chance


@dataclasses.dataclass
class Lines:
    """How all rows, or all columns, are classed: each has a symbol, which is coded with the values."""

    counts: tuple[int, ...] = (0,)  # of each symbol; of one alone, nothing is coded
    scale: int = _LEAST_SCALE
    dead: bool = False  # whether symbol 0 stands for lines without stored elements
    symbols: np.ndarray | None = None  # of each line

    @property
    def coded(self) -> bool:
        """Whether there is anything to tell."""
        return len(self.counts) > 1

    @property
    def most(self) -> int:
        """The largest class."""
        return len(self.counts) - 1 - self.dead

    def classes(self, n: int) -> np.ndarray:
        """The class of each of n lines; -1 for a dead one."""
        return np.zeros(n, np.int64) if self.symbols is None else self.symbols - self.dead


@dataclasses.dataclass
class Model:
    """What the head of a part says; arrays are of the segment's rows and columns."""

    stored: int
    lanes: int = 1
    blocks: tuple[tuple[int, int, np.ndarray], ...] = ()  # rows, columns, whether each holds stored elements
    rows: Lines = dataclasses.field(default_factory=Lines)
    cols: Lines = dataclasses.field(default_factory=Lines)
    group: int = 1
    near: tuple[int, ...] = ()
    levels: tuple[int, ...] = (160,)
    table_of: tuple[int, ...] = (0,)
    sign: int = NONE
    zeros: int = 0
    low: int = 0
    fine: int = 0
    first: int = 0
    scale: int = dataclasses.field(default=12, init=False)
    tables: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), init=False)
    # Lowest raw bits of each panel that are 0 and not written, or nothing; bytes of all raw bits.
    left_out: tuple[int, ...] = dataclasses.field(default=(), init=False)
    raw_bytes: int = dataclasses.field(default=0, init=False)

    @property
    def classes(self) -> int:
        """Classes of an element: those of its row and of its column, added."""
        return 1 + self.rows.most + self.cols.most

    @property
    def banks(self) -> int:
        """Banks of lanes, each of which has words of its own."""
        return max(1, self.lanes // BANK)

    @property
    def base(self) -> int:
        """The least key, without its zeros."""
        return self.first << self.low - self.fine

    @property
    def field(self) -> int:
        """Raw bits of a value."""
        return self.low + (self.sign in (RAW, NEGATED))

    def class_of(self, rows: int, cols: int) -> np.ndarray:
        """The class of every element; -1 for a dead one."""
        by_row, by_col = self.rows.classes(rows)[:, None], self.cols.classes(cols)
        found = np.where((by_row < 0) | (by_col < 0), -1, by_row + by_col)
        for tall, wide, live in self.blocks:
            grown = np.repeat(np.repeat(live, tall, axis=0), wide, axis=1)[:rows, :cols]
            found[~grown] = -1
        return found


def panels(rows: int, cols: int) -> Iterator[tuple[int, int, int, int]]:
    """Row, column and extent of every panel (spec section 3)."""
    tall = PANEL // cols
    for row in range(0, rows, max(1, tall)):
        for col in range(0, cols, PANEL):
            yield row, col, min(max(1, tall), rows - row), min(PANEL, cols - col)


def read_head(part: bytes, rows: int, cols: int, width: int) -> tuple[Model, int]:
    """The head of a part, which lacks the symbols of lines, and its bytes."""
    data = BitReader(part)
    model = Model(data.golomb(8))
    if model.stored > rows * cols:
        raise refuse(f"{model.stored} stored elements of {rows * cols}")
    if model.stored:
        _read_mask(data, model, rows, cols)
        _read_values(data, model, width)
        _read_left_out(data, model, rows, cols)
    if data.bits(-data.at % 8):
        raise refuse("a bit behind the head is set")
    return model, data.at // 8


def _read_mask(data: BitReader, model: Model, rows: int, cols: int) -> None:
    lanes, masks = data.bits(3), data.bits(2)
    if lanes > 6 or masks > 2:
        raise refuse(f"2**{lanes} lanes, {masks} coarse masks")
    model.lanes = 1 << lanes
    model.blocks = tuple(_read_blocks(data, rows, cols) for _ in range(masks))
    model.rows, model.cols = _read_lines(data), _read_lines(data)
    model.group = data.golomb(0) + 1
    if model.group > 1:
        if cols > PANEL or cols % model.group:
            raise refuse(f"groups of {model.group} of {cols} columns")
        model.near = tuple(data.golomb(1) + 1 for _ in range(data.bits(2)))
        if not model.near or model.near[-1] >= model.group or sorted(set(model.near)) != list(model.near):
            raise refuse(f"neighbours {model.near} in groups of {model.group}")
    chances = model.classes << len(model.near)
    if model.classes > _MOST_CLASSES or chances > _MOST_CHANCES:
        raise refuse(f"{model.classes} classes, {chances} probabilities")
    level, levels = 160, []
    for _ in range(chances):
        level += unfolded(data.golomb(2))
        if not 0 <= level < LEVELS:
            raise refuse(f"a probability of level {level}")
        levels.append(level)
    model.levels = tuple(levels)


def _read_blocks(data: BitReader, rows: int, cols: int) -> tuple[int, int, np.ndarray]:
    tall, wide = data.golomb(2) + 1, data.golomb(2) + 1
    if tall > rows or wide > cols or tall * wide < 4:
        raise refuse(f"blocks of {tall} x {wide} in {rows} x {cols}")
    live = np.zeros((-(-rows // tall), -(-cols // wide)), bool)
    count, k, at = data.golomb(8), data.bits(4), 0
    if count > live.size:
        raise refuse(f"{count} blocks of {live.size}")
    for _ in range(count):
        at += data.rice(k, live.size)
        if at >= live.size:
            raise refuse(f"block {at} of {live.size}")
        live.flat[at] = True
        at += 1
    return tall, wide, live


def _read_lines(data: BitReader) -> Lines:
    symbols = data.golomb(1) + 1
    if symbols > _MOST_SYMBOLS:
        raise refuse(f"{symbols} symbols of lines")
    if symbols == 1:
        return Lines()
    dead, scale = bool(data.bits(1)), _LEAST_SCALE + data.bits(3)
    counts = _read_counts(data, symbols, scale)
    if not counts[0] or not counts[-1]:
        raise refuse("a first or last symbol of lines that does not occur")
    return Lines(counts, scale, dead)


def _count_order(n: int, before: int) -> int:
    """The order of the code of a count's difference to the one before it, which differs the more the larger it is."""
    return max(0, n + before.bit_length() // 2 - 1)


def _read_counts(data: BitReader, symbols: int, scale: int) -> tuple[int, ...]:
    """Counts with the sum 2**scale: the last is what the others leave."""
    n, count, left, counts = data.bits(2), 0, 1 << scale, []
    for _ in range(symbols - 1):
        count += unfolded(data.golomb(_count_order(n, count)))
        if not 0 <= count <= left:
            raise refuse(f"a symbol of {count}, where {left} are left")
        counts.append(count)
        left -= count
    return (*counts, left)


def _read_values(data: BitReader, model: Model, width: int) -> None:
    tables = data.bits(4) + 1
    bits = (tables - 1).bit_length()
    model.table_of = tuple(data.bits(bits) for _ in range(model.classes))
    model.sign, model.zeros, model.low = data.bits(3), data.bits(6), data.bits(6)
    key_bits = 8 * width - (model.sign >= RAW)
    if max(model.table_of) >= tables or model.sign > NEGATED:
        raise refuse(f"table {max(model.table_of)} of {tables}, sign {model.sign}")
    if model.low + model.zeros >= key_bits or model.field > _MOST_RAW:
        raise refuse(f"{model.low} raw and {model.zeros} zero bits of {key_bits}")
    model.fine = data.bits(3)
    if model.fine > model.low:
        raise refuse(f"{model.fine} bits below a symbol, which has {model.low}")
    model.first = data.bits(key_bits - model.low - model.zeros + model.fine)
    symbols, model.scale = data.bits(8) + 1, _LEAST_SCALE + data.bits(3)
    end = model.base + ((symbols - 1 >> (model.sign == MODELLED)) + 1 << model.low)
    if end > 1 << key_bits - model.zeros or tables << model.scale > _MOST_ITEMS:
        raise refuse(f"{symbols} symbols from {model.base}, {tables} tables")
    found = [_read_counts(data, symbols, model.scale) for _ in range(tables)]
    head = 2 if model.sign == MODELLED else 1
    if not any(any(one[:head]) for one in found) or not any(one[-1] for one in found):
        raise refuse("a first or last symbol that does not occur")
    model.tables = tuple(found)


def _read_left_out(data: BitReader, model: Model, rows: int, cols: int) -> None:
    model.raw_bytes = -(-model.stored * model.field // 8)
    if not data.bits(1):
        return
    model.raw_bytes, k = data.golomb(8), data.bits(3)
    model.left_out = tuple(data.rice(k, 2 * _MOST_RAW) for _ in panels(rows, cols))
    if not 0 < max(model.left_out) <= model.low:
        raise refuse(f"{max(model.left_out)} of {model.low} raw bits left out")


def write_head(model: Model, width: int) -> bytes:
    """The inverse of `read_head`."""
    out = BitWriter()
    out.golomb(model.stored, 8)
    if not model.stored:
        return out.bytes()
    out.bits(model.lanes.bit_length() - 1, 3)
    out.bits(len(model.blocks), 2)
    for tall, wide, live in model.blocks:
        gaps = (np.diff(np.flatnonzero(live), prepend=-1) - 1).tolist()
        k = best_order(gaps, 16, rice_bits)
        out.golomb(tall - 1, 2)
        out.golomb(wide - 1, 2)
        out.golomb(len(gaps), 8)
        out.bits(k, 4)
        for gap in gaps:
            out.rice(gap, k)
    for lines in (model.rows, model.cols):
        out.golomb(len(lines.counts) - 1, 1)
        if lines.coded:
            out.bits(lines.dead, 1)
            out.bits(lines.scale - _LEAST_SCALE, 3)
            _write_counts(out, lines.counts)
    out.golomb(model.group - 1, 0)
    if model.group > 1:
        out.bits(len(model.near), 2)
        for one in model.near:
            out.golomb(one - 1, 1)
    for level, before in zip(model.levels, (160, *model.levels), strict=False):
        out.golomb(folded(level - before), 2)
    _write_values(out, model, width)
    out.bits(bool(model.left_out), 1)
    if model.left_out:
        out.golomb(model.raw_bytes, 8)
        k = best_order(list(model.left_out), 8, rice_bits)
        out.bits(k, 3)
        for bits in model.left_out:
            out.rice(bits, k)
    return out.bytes()


def _write_values(out: BitWriter, model: Model, width: int) -> None:
    out.bits(len(model.tables) - 1, 4)
    for table in model.table_of:
        out.bits(table, (len(model.tables) - 1).bit_length())
    out.bits(model.sign, 3)
    out.bits(model.zeros, 6)
    out.bits(model.low, 6)
    out.bits(model.fine, 3)
    out.bits(model.first, 8 * width - (model.sign >= RAW) - model.low - model.zeros + model.fine)
    out.bits(len(model.tables[0]) - 1, 8)
    out.bits(model.scale - _LEAST_SCALE, 3)
    for counts in model.tables:
        _write_counts(out, counts)


def _write_counts(out: BitWriter, counts: tuple[int, ...]) -> None:
    steps = [(folded(count - before), before) for count, before in zip(counts[:-1], (0, *counts), strict=False)]
    n = best_order(steps, 4, lambda one, n: golomb_bits(one[0], _count_order(n, one[1])))
    out.bits(n, 2)
    for step, before in steps:
        out.golomb(step, _count_order(n, before))
