"""The coder of layout context in plain Python (spec section 5.10): what native code is held to.

Interleaved rANS: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540, 2013); F. Giesen, "Interleaved entropy coders"
(arXiv 1402.3392, 2014).
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from codec.entropy.context_model import (
    BANK,
    INVERTED,
    LOW,
    MASK_BITS,
    MODELLED,
    NEGATED,
    RAW,
    Model,
    chance_at,
    panels,
    read_head,
    refuse,
    write_head,
)

__all__ = ["Model", "decode", "encode", "read_model"]


def _order(n: int, group: int) -> Iterator[tuple[int, int]]:
    """Elements of a panel in the order in which their bits are coded, and the lane of each but for its modulus."""
    for k in range(group):
        for number, at in enumerate(range(k, n, group)):
            yield at, number


def _chance(model: Model, own: int, stored: np.ndarray, at: int) -> int:
    place = at % model.group
    near = sum(int(stored[at - one]) << i for i, one in enumerate(model.near) if one <= place)
    return chance_at(model.levels[near * model.classes + own])


class _Lanes:
    """The states of all lanes and the words of their banks, from where they begin in a part to where they end."""

    def __init__(self, model: Model, part: bytes, begin: int, end: int) -> None:
        at = begin + 4 * model.lanes
        rest = end - at - 4 * (model.banks - 1)
        if rest < 0 or rest % 2:
            raise refuse(f"{len(part)} bytes do not hold states, raw bits and words")
        self.states = np.frombuffer(part[begin:at], "<u4").tolist()
        if min(self.states) < LOW:
            raise refuse(f"a state of {min(self.states)}")
        ends = np.cumsum(np.frombuffer(part[at : end - rest], "<u4"), dtype=np.int64).tolist()
        if ends and ends[-1] > rest // 2:
            raise refuse(f"banks of {ends[-1]} words, there are {rest // 2}")
        words = np.frombuffer(part[end - rest : end], "<u2").tolist()
        self.words = [iter(words[begin:end]) for begin, end in pairwise([0, *ends, len(words)])]

    def take(self, number: int, cuts: list[int], scale: int) -> int:
        """The symbol in the lane of a number, of which cuts[s] to cuts[s + 1] of 2**scale stand for s."""
        lane = number % len(self.states)
        low, high = self.states[lane] & (1 << scale) - 1, self.states[lane] >> scale
        symbol = next(s for s in range(len(cuts) - 1) if cuts[s] <= low < cuts[s + 1])
        state = (cuts[symbol + 1] - cuts[symbol]) * high + low - cuts[symbol]
        if state < LOW:
            word = next(self.words[lane // BANK], None)
            if word is None:
                raise refuse("the words end too early")
            state = state << 16 | word
        self.states[lane] = state
        return symbol


def _cuts(counts: tuple[int, ...]) -> list[int]:
    return [0, *np.cumsum(counts).tolist()]


def _begin(model: Model, part: bytes, at: int, rows: int, cols: int) -> tuple[_Lanes, int]:
    """Reads the symbols of lines, behind the head, into the model; the lanes that follow, and where raw bits begin."""
    raw = len(part) - model.raw_bytes
    lanes = _Lanes(model, part, at, raw)
    for lines, n in ((model.rows, rows), (model.cols, cols)):
        if lines.coded:
            cuts = _cuts(lines.counts)
            lines.symbols = np.array([lanes.take(number, cuts, lines.scale) for number in range(n)])
    return lanes, raw


def read_model(part: bytes, rows: int, cols: int, width: int) -> Model:
    """The model of a part that has stored elements or none."""
    model, at = read_head(part, rows, cols, width)
    if model.stored:
        _begin(model, part, at, rows, cols)
    return model


def decode(part: bytes, rows: int, cols: int, dtype: np.dtype) -> np.ndarray:
    """A segment's elements from its part."""
    width = dtype.itemsize
    model, at = read_head(part, rows, cols, width)
    out = np.zeros((rows, cols), np.uint64)
    if not model.stored:
        if len(part) > at:
            raise refuse(f"{len(part)} bytes, expected {at}")
        return out.astype(dtype)
    lanes, at = _begin(model, part, at, rows, cols)
    raw, raw_at = int.from_bytes(part[at:], "little"), 0
    cuts = [_cuts(counts) for counts in model.tables]
    classes, taken = model.class_of(rows, cols), 0
    for panel, (row, col, tall, wide) in enumerate(panels(rows, cols)):
        left = model.left_out[panel] if model.left_out else 0
        field = model.field - left
        own = classes[row : row + tall, col : col + wide].reshape(-1)
        stored = np.zeros(len(own), bool)
        for place, number in _order(len(own), model.group):
            if own[place] >= 0:
                chance = _chance(model, int(own[place]), stored, place)
                # A one comes first.
                stored[place] = lanes.take(number, [0, chance, 1 << MASK_BITS], MASK_BITS) == 0
        found = np.zeros(len(own), np.uint64)
        if int(stored.sum()) > model.stored - taken:
            raise refuse(f"more than {model.stored} stored elements")
        for number, place in enumerate(np.flatnonzero(stored).tolist()):
            symbol = lanes.take(number, cuts[model.table_of[own[place]]], model.scale)
            bits = raw >> raw_at & (1 << field) - 1
            low = model.low - left
            found[place] = _value(model, symbol, (bits & (1 << low) - 1) << left | bits >> low << model.low, width)
            taken, raw_at = taken + 1, raw_at + field
        out[row : row + tall, col : col + wide] = found.reshape(tall, wide)
    if taken != model.stored or any(list(rest) for rest in lanes.words) or any(state != LOW for state in lanes.states):
        raise refuse("values, words or states are left over")
    if -(-raw_at // 8) != model.raw_bytes or raw >> raw_at:
        raise refuse("raw bits are left over, or a bit behind the last one is set")
    return out.astype(dtype)


def _value(model: Model, symbol: int, raw: int, width: int) -> int:
    top = 8 * width - 1
    sign = symbol & 1 if model.sign == MODELLED else raw >> model.low
    index = symbol >> 1 if model.sign == MODELLED else symbol
    key = model.base + (index << model.low | raw & (1 << model.low) - 1) << model.zeros
    if model.sign == NEGATED:
        return -key % (2 << top) if sign else key
    return key ^ 1 << top if model.sign == INVERTED else key | sign << top if model.sign >= RAW else key


def encode(segment: np.ndarray, stored: np.ndarray, model: Model) -> bytes:
    """A segment's part under a model that fits it."""
    width = segment.dtype.itemsize
    head = write_head(model, width)
    if not model.stored:
        return head
    states: list[int] = [LOW] * model.lanes
    words: list[list[int]] = [[] for _ in range(model.banks)]

    def put(lane: int, start: int, count: int, scale: int) -> None:
        state = states[lane]
        if state >= count << 32 - scale:
            words[lane // BANK].append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // count << scale) + state % count + start

    top, raw, at = 8 * width - 1, 0, 0
    split = []
    left_of = np.zeros(segment.shape, np.int64)
    for left, (row, col, tall, wide) in zip(model.left_out, panels(*segment.shape), strict=False):
        left_of[row : row + tall, col : col + wide] = left
    for item, left in zip(segment[stored].tolist(), left_of[stored].tolist(), strict=True):
        own = -item if model.sign == NEGATED and item >> top else item
        key = own ^ 1 << top if model.sign == INVERTED else own & (1 << top) - 1 if model.sign >= RAW else own
        key = (key >> model.zeros) - model.base
        split.append(2 * (key >> model.low) + (item >> top) if model.sign == MODELLED else key >> model.low)
        own = key & (1 << model.low) - 1
        raw |= (own | (item >> top << model.low if model.field > model.low else 0)) >> left << at
        at += model.field - left
    classes = model.class_of(*segment.shape)
    for row, col, tall, wide in reversed(list(panels(*segment.shape))):
        own = classes[row : row + tall, col : col + wide].reshape(-1)
        there = stored[row : row + tall, col : col + wide].reshape(-1)
        for number, place in reversed(list(enumerate(np.flatnonzero(there).tolist()))):
            counts, symbol = model.tables[model.table_of[own[place]]], split.pop()
            put(number % model.lanes, sum(counts[:symbol]), counts[symbol], model.scale)
        for place, number in reversed(list(_order(len(own), model.group))):
            if own[place] >= 0:
                chance = _chance(model, int(own[place]), there, place)
                start, count = (0, chance) if there[place] else (chance, (1 << MASK_BITS) - chance)
                put(number % model.lanes, start, count, MASK_BITS)
    for lines in (model.cols, model.rows):
        for number, symbol in reversed(list(enumerate([] if lines.symbols is None else lines.symbols.tolist()))):
            put(number % model.lanes, sum(lines.counts[:symbol]), lines.counts[symbol], lines.scale)
    coded = b"".join(one.to_bytes(4, "little") for one in (*states, *map(len, words[:-1])))
    coded += b"".join(np.array(own[::-1], "<u2").tobytes() for own in words)
    return head + coded + raw.to_bytes(-(-at // 8), "little")
