"""The model of a segment in layout context in plain Python: the head of a part (spec section 5.10)."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from codec.entropy.bits import BitReader, BitWriter, best_order, folded, golomb_bits, rice_bits, unfolded
from codec.errors import FormatError

MASK_BITS, LEVELS, LOW = 14, 321, 1 << 16
PANEL, BANK = 16384, 16
_MOST_CLASSES, _MOST_CHANCES, _MOST_ITEMS, _MOST_RAW, _LEAST_SCALE = 63, 256, 1 << 15, 56, 5
# How the bits of a value are read as a key.
NONE, INVERTED, RAW, MODELLED = range(4)


def refuse(what: str) -> FormatError:
    """The error for a part that is not as the spec says."""
    return FormatError(what, stream="coded")


def chance_at(level: int) -> int:
    """The probability of a one at a level, of 2**14."""
    exponent, rest = divmod(min(level, 320 - level), 16)
    chance = 16 + rest << exponent - 1 if exponent else rest
    return chance if level <= 160 else (1 << MASK_BITS) - chance


@dataclasses.dataclass
class Model:
    """What the head of a part says; arrays are of the segment's rows and columns."""

    stored: int
    lanes: int = 1
    blocks: tuple[tuple[int, int, np.ndarray], ...] = ()  # rows, columns, whether each holds stored elements
    row_class: np.ndarray | None = None
    col_class: np.ndarray | None = None
    group: int = 1
    near: tuple[int, ...] = ()
    levels: tuple[int, ...] = (160,)
    table_of: tuple[int, ...] = (0,)
    sign: int = NONE
    zeros: int = 0
    low: int = 0
    first: int = 0
    scale: int = 12
    tables: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), init=False)
    # Lowest raw bits of each panel that are 0 and not written, or nothing; bytes of all raw bits.
    left_out: tuple[int, ...] = dataclasses.field(default=(), init=False)
    raw_bytes: int = dataclasses.field(default=0, init=False)

    @property
    def classes(self) -> int:
        """Classes of an element: those of its row and of its column, added."""
        return 1 + sum(int(one.max()) for one in (self.row_class, self.col_class) if one is not None)

    @property
    def banks(self) -> int:
        """Banks of lanes, each of which has words of its own."""
        return max(1, self.lanes // BANK)

    @property
    def field(self) -> int:
        """Raw bits of a value."""
        return self.low + (self.sign == RAW)

    def class_of(self, rows: int, cols: int) -> np.ndarray:
        """The class of every element; -1 where a coarse mask says that none is stored."""
        found = np.zeros((rows, cols), np.int64)
        if self.row_class is not None:
            found += self.row_class[:, None]
        if self.col_class is not None:
            found += self.col_class
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


def read_model(part: bytes, rows: int, cols: int, width: int) -> tuple[Model, int]:
    """The head of a part and its bytes."""
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
    if data.bits(1):
        model.row_class = _read_classes(data, rows)
    if data.bits(1):
        model.col_class = _read_classes(data, cols)
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


def _read_classes(data: BitReader, n: int) -> np.ndarray:
    k, middle = data.bits(3), data.bits(6)
    found = np.array([middle + unfolded(data.rice(k, 2 * _MOST_CLASSES)) for _ in range(n)])
    if found.min() != 0 or not 0 < found.max() < _MOST_CLASSES:
        raise refuse(f"classes from {found.min()} to {found.max()}")
    return found


def _read_values(data: BitReader, model: Model, width: int) -> None:
    tables = data.bits(4) + 1
    bits = (tables - 1).bit_length()
    model.table_of = tuple(data.bits(bits) for _ in range(model.classes))
    model.sign, model.zeros, model.low = data.bits(2), data.bits(6), data.bits(6)
    key_bits = 8 * width - (model.sign >= RAW)
    if max(model.table_of) >= tables or (width == 1 and model.sign >= RAW):
        raise refuse("a table that is not there, or a sign of values of a byte")
    if model.low + model.zeros >= key_bits or model.field > _MOST_RAW:
        raise refuse(f"{model.low} raw and {model.zeros} zero bits of {key_bits}")
    top = key_bits - model.low - model.zeros
    model.first, symbols, model.scale = data.bits(top), data.bits(8) + 1, _LEAST_SCALE + data.bits(3)
    if model.first + (symbols - 1 >> (model.sign == MODELLED)) >= 1 << top or tables << model.scale > _MOST_ITEMS:
        raise refuse(f"{symbols} symbols from {model.first}, {tables} tables")
    found = []
    for _ in range(tables):
        k, count, counts = data.bits(3), 0, []
        for _ in range(symbols):
            count += unfolded(data.golomb(k))
            if not 0 <= count <= 1 << model.scale:
                raise refuse(f"a symbol of {count}")
            counts.append(count)
        if sum(counts) != 1 << model.scale:
            raise refuse(f"a table of {sum(counts)}")
        found.append(tuple(counts))
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


def write_model(model: Model, width: int) -> bytes:
    """The inverse of `read_model`."""
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
    for classes in (model.row_class, model.col_class):
        out.bits(classes is not None, 1)
        if classes is not None:
            middle = int(np.sort(classes)[-(-len(classes) // 2) - 1])
            steps = [folded(int(one) - middle) for one in classes]
            k = best_order(steps, 8, rice_bits)
            out.bits(k, 3)
            out.bits(middle, 6)
            for value in steps:
                out.rice(value, k)
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
    out.bits(model.sign, 2)
    out.bits(model.zeros, 6)
    out.bits(model.low, 6)
    out.bits(model.first, 8 * width - (model.sign >= RAW) - model.low - model.zeros)
    out.bits(len(model.tables[0]) - 1, 8)
    out.bits(model.scale - _LEAST_SCALE, 3)
    for counts in model.tables:
        steps = [folded(count - before) for count, before in zip(counts, (0, *counts), strict=False)]
        k = best_order(steps, 8, golomb_bits)
        out.bits(k, 3)
        for step in steps:
            out.golomb(step, k)
