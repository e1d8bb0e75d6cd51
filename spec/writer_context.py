"""How a plain writer of format.md makes the parts of layout context: section 5.10.

It does not look for the smallest model: what it writes by default goes through most of the section, and a case may ask
for more by ``model``.
"""

from itertools import pairwise
from typing import Any

import numpy as np

Field = tuple[int, int]  # a number and its bits


def g(number: int, order: int) -> list[Field]:
    q = (number >> order) + 1
    b = q.bit_length() - 1
    return [(0, b), (1, 1), (q - (1 << b), b), (number & (1 << order) - 1, order)]


def r(number: int, order: int) -> list[Field]:
    return [(0, number >> order), (1, 1), (number & (1 << order) - 1, order)]


def folded(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def shortest(code: Any, numbers: list[Any], orders: int) -> int:
    """The lowest order that takes the fewest bits."""
    return min(range(orders), key=lambda order: sum(bits for one in numbers for _, bits in code(one, order)))


def joined(fields: list[Field]) -> bytes:
    value = at = 0
    for number, bits in fields:
        value |= number << at
        at += bits
    return value.to_bytes(-(-at // 8), "little")


def probability(level: int) -> int:
    if level > 160:
        return 16384 - probability(320 - level)
    return level if level < 16 else (16 + level % 16) << level // 16 - 1


def level_near(share: float) -> int:
    """The level nearest to a share; 0 and 320 only for none and all."""
    if share in (0, 1):
        return int(320 * share)
    return min(range(1, 320), key=lambda level: abs(probability(level) - 16384 * share))


def line_fields(symbols: list[int], dead: bool, scale: int) -> tuple[list[Field], list[int]]:
    """What the head says of rows or columns, and the counts of their symbols."""
    n = max(symbols) + 1
    if n == 1:
        return g(0, 1), []
    counts = shares_of({one: symbols.count(one) for one in set(symbols)}, n, scale)
    return [*g(n - 1, 1), (int(dead), 1), (scale - 5, 3), *count_fields(counts)], counts


def count_fields(counts: list[int]) -> list[Field]:
    steps = list(pairwise([0, *counts[:-1]]))

    def code(step: tuple[int, int], n: int) -> list[Field]:
        before, now = step
        return g(folded(now - before), max(0, n + before.bit_length() // 2 - 1))

    best = shortest(code, steps, 4)
    return [(best, 2), *(field for step in steps for field in code(step, best))]


def mask_fields(live: np.ndarray, tall: int, wide: int) -> list[Field]:
    places = np.flatnonzero(live).tolist()
    gaps = [place - before - 1 for place, before in zip(places, [-1, *places], strict=False)]
    order = shortest(r, gaps, 16)
    fields = [*g(tall - 1, 2), *g(wide - 1, 2), *g(len(gaps), 8), (order, 4)]
    return [*fields, *(field for gap in gaps for field in r(gap, order))]


def panels(h: int, w: int) -> list[list[int]]:
    """The positions of each panel."""
    place = np.arange(h * w).reshape(h, w)
    if w > 16384:
        return [row[at : at + 16384].tolist() for row in place for at in range(0, w, 16384)]
    tall = 16384 // w
    return [place[row : row + tall].ravel().tolist() for row in range(0, h, tall)]


def shares_of(times: dict[int, int], symbols: int, scale: int) -> list[int]:
    """Counts of 2^scale, at least 1 for each symbol that occurs; what is left goes to the commonest."""
    total = sum(times.values())
    counts = [max(1, (times[s] << scale) // total) if s in times else 0 for s in range(symbols)]
    counts[counts.index(max(counts))] += (1 << scale) - sum(counts)
    return counts


def all_zero(raws: list[int], stored: np.ndarray, panel: list[int], low: int, size: int) -> int:
    """How many of the lowest raw bits are 0 in all values of a panel."""
    number = np.full(size, -1)
    number[stored] = np.arange(len(raws))
    found = [raws[one] for one in number[panel].tolist() if one >= 0]
    return next((bits for bits in range(low, 0, -1) if found and not any(one % (1 << bits) for one in found)), 0)


def context_part(stored: np.ndarray, values: list[int], value_bits: int, kind: str, model: dict[str, Any]) -> bytes:
    """One segment; ``values`` are those of the stored elements in row-major order."""
    h, w = stored.shape
    if not values:
        return joined(g(0, 8))
    lanes, group, near = model.get("lanes", 2), model.get("group", 1), model.get("near", [])
    if w % group or w > 16384:
        group, near = 1, []
    rows, columns = (stored.sum(axis=axis) > stored.sum() / stored.shape[1 - axis] for axis in (1, 0))
    row_classes = list(model.get("rows", rows.astype(int).tolist() if rows.any() and not rows.all() else [0] * h))
    some_columns = (2 * columns).tolist() if columns.any() and not columns.all() else [0] * w
    column_classes = list(model.get("columns", some_columns))
    # A row or a column that may be dead is, if it has no stored element.
    may_be_dead = model.get("dead", [])
    masks, dead = [], np.zeros((h, w), bool)
    lines = []
    for axis, classes, name in ((1, row_classes, "rows"), (0, column_classes, "columns")):
        live = stored.any(axis=axis).tolist()
        if name in may_be_dead:
            dead |= ~stored.any(axis=axis, keepdims=True)
            for i, alive in enumerate(live):
                classes[i] *= alive
        with_dead = [alive * (one + 1) for one, alive in zip(classes, live, strict=True)]
        lines.append((with_dead if name in may_be_dead else classes, name in may_be_dead))
    for tall, wide in model.get("blocks", [(2, 2)]):
        if tall > h or wide > w or tall * wide < 4:
            continue
        edge = np.zeros((-(-h // tall) * tall, -(-w // wide) * wide), bool)
        edge[:h, :w] = stored
        live = edge.reshape(len(edge) // tall, tall, -1, wide).any(axis=(1, 3))
        masks.append(mask_fields(live, tall, wide))
        dead |= ~np.repeat(np.repeat(live, tall, axis=0), wide, axis=1)[:h, :w]
    classes = np.add.outer(np.array(row_classes), np.array(column_classes)).ravel()
    s = 1 + max(row_classes) + max(column_classes)
    line_scale = model.get("line_scale", 7)
    line_heads = [line_fields(own, is_dead, line_scale) for own, is_dead in lines]
    flat = stored.ravel()

    def number_of(panel: list[int], j: int) -> int:
        x = sum(bool(flat[panel[j - one]]) << i for i, one in enumerate(near) if one <= j % group)
        return int(classes[panel[j]]) + s * x

    ones, every = np.zeros(s << len(near), int), np.zeros(s << len(near), int)
    for panel in panels(h, w):
        for j, place in enumerate(panel):
            if not dead.flat[place]:
                every[number_of(panel, j)] += 1
                ones[number_of(panel, j)] += flat[place]
    levels = [level_near(one / of) if of else 160 for one, of in zip(ones.tolist(), every.tolist(), strict=True)]

    sign = model.get("sign", {"float": 2, "signed": 1}.get(kind, 0) if value_bits > 8 else 0)
    top = 1 << value_bits - 1
    keys = [2 * top - one if sign == 4 and one > top else one for one in values]
    keys = [one ^ top if sign == 1 else one % top if sign >= 2 else one for one in keys]
    key_bits = value_bits - (sign >= 2)
    any_bit = int(np.bitwise_or.reduce(np.array(keys, np.uint64)))
    zeros = model.get("zeros", min((any_bit & -any_bit).bit_length() - 1 if any_bit else key_bits - 1, 3))
    low = model.get("low", 0)
    while (max(keys) >> zeros + low) - (min(keys) >> zeros + low) >= (128 if sign == 3 else 256):
        low += 1
    fine = min(low, model.get("fine", 0))
    first = min(keys) >> zeros + low - fine
    keys = [(key >> zeros) - (first << low - fine) for key in keys]
    tops = [key >> low for key in keys]
    symbols = [2 * t + (one >= top) for t, one in zip(tops, values, strict=True)] if sign == 3 else tops
    raws = [
        key & (1 << low) - 1 | (int(one >= top) << low if sign in (2, 4) else 0)
        for key, one in zip(keys, values, strict=True)
    ]
    left_out = model.get("left_out", [])
    if left_out == "all":
        left_out = [all_zero(raws, flat, panel, low, h * w) for panel in panels(h, w)]
    left_of = np.zeros(h * w, int)
    for bits, panel in zip(left_out, panels(h, w), strict=False):
        left_of[panel] = bits
    lefts = left_of[flat].tolist()
    owners = classes[flat].tolist()
    tables = min(model.get("tables", 2), len(set(owners)))
    scale, count = model.get("scale", 10), max(symbols) + 1
    used = sorted(set(owners))
    table_of = [used.index(one) % tables if one in used else 0 for one in range(s)]
    counts = []
    for table in range(tables):
        times: dict[int, int] = {}
        for symbol, owner in zip(symbols, owners, strict=True):
            if table_of[owner] == table:
                times[symbol] = times.get(symbol, 0) + 1
        counts.append(shares_of(times, count, scale))

    head = [*g(len(values), 8), (lanes, 3), (len(masks), 2), *(one for mask in masks for one in mask)]
    head += [*line_heads[0][0], *line_heads[1][0], *g(group - 1, 0)]
    head += [(len(near), 2)] * (group > 1) + [one for distance in near for one in g(distance - 1, 1)]
    for level, before in zip(levels, [160, *levels], strict=False):
        head += g(folded(level - before), 2)
    head += [(tables - 1, 4), *((one, (tables - 1).bit_length()) for one in table_of), (sign, 3), (zeros, 6), (low, 6)]
    head += [(fine, 3), (first, key_bits - low - zeros + fine), (count - 1, 8), (scale - 5, 3)]
    head += [piece for one in counts for piece in count_fields(one)]
    fields = [low + (sign in (2, 4)) - left for left in lefts]
    raw_bytes = -(-sum(fields) // 8)
    head += [(int(bool(left_out)), 1)]
    if left_out:
        order = shortest(r, left_out, 8)
        head += [*g(raw_bytes, 8), (order, 3), *(piece for bits in left_out for piece in r(bits, order))]

    # Everything that is coded, in order: lane, first count, counts, bits of their sum.
    coded: list[tuple[int, int, int, int]] = []
    for (own, _), (_, of) in zip(lines, line_heads, strict=True):
        if of:
            coded += [(i % (1 << lanes), sum(of[:one]), of[one], line_scale) for i, one in enumerate(own)]
    number = 0
    for panel in panels(h, w):
        for start in range(group):
            for i, j in enumerate(range(start, len(panel), group)):
                if dead.flat[panel[j]]:
                    continue
                chance = probability(levels[number_of(panel, j)])
                interval = (0, chance) if flat[panel[j]] else (chance, 16384 - chance)
                coded.append((i % (1 << lanes), *interval, 14))
        for i, place in enumerate([place for place in panel if flat[place]]):
            table = counts[table_of[classes[place]]]
            coded.append((i % (1 << lanes), sum(table[: symbols[number]]), table[symbols[number]], scale))
            number += 1
    states: list[int] = [65536] * (1 << lanes)
    words: list[list[int]] = [[] for _ in range(0, 1 << lanes, 16)]  # of each bank, backwards
    for lane, begin, many, bits in reversed(coded):
        if states[lane] >= many << 32 - bits:
            words[lane // 16].append(states[lane] % 65536)
            states[lane] //= 65536
        states[lane] = (states[lane] // many << bits) + states[lane] % many + begin
    body = b"".join(number.to_bytes(4, "little") for number in [*states, *map(len, words[:-1])])
    body += b"".join(word.to_bytes(2, "little") for bank in words for word in reversed(bank))
    packed = joined([(one >> left, bits) for one, left, bits in zip(raws, lefts, fields, strict=True)])
    return joined(head) + body + packed
