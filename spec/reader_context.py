"""Section 5.10 of format.md, plainly: layout context."""

from dataclasses import dataclass, field
from itertools import accumulate

from head_words import Bits, need, unfolded


def probability(level: int) -> int:
    if level > 160:
        return 16384 - probability(320 - level)
    a, c = divmod(level, 16)
    return c if a == 0 else (16 + c) * 2 ** (a - 1)


@dataclass
class Coded:
    """The head of a part."""

    k: int
    lanes: int = 0
    live: list[tuple[int, int, set[int]]] = field(default_factory=list)
    row_classes: list[int] = field(default_factory=list)
    column_classes: list[int] = field(default_factory=list)
    g: int = 1
    distances: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    table_of: list[int] = field(default_factory=list)
    sign: int = 0
    zeros: int = 0
    low: int = 0
    first: int = 0
    scale: int = 0
    tables: list[list[int]] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    raw_bytes: int = 0

    @property
    def s(self) -> int:
        return 1 + max(self.row_classes) + max(self.column_classes)

    @property
    def raw_field(self) -> int:
        return self.low + (1 if self.sign == 2 else 0)

    def dead(self, row: int, column: int, w: int) -> bool:
        return any(row // tall * -(-w // wide) + column // wide not in live for tall, wide, live in self.live)


def read_classes(bits: Bits, count: int) -> list[int]:
    if not bits.take(1):
        return [0] * count
    order, middle = bits.take(3), bits.take(6)
    found = [middle + unfolded(bits.r(order)) for _ in range(count)]
    need(min(found) == 0 < max(found), "coded: classes that do not begin at 0, or do not differ")
    return found


def read_coded_head(bits: Bits, h: int, w: int, value_bits: int) -> Coded:
    head = Coded(bits.g(8))
    need(head.k <= h * w, "coded: more stored elements than elements")
    if not head.k:
        return head
    head.lanes, masks = bits.take(3), bits.take(2)
    need(head.lanes <= 6 and masks <= 2, "coded: too many lanes or masks")
    for _ in range(masks):
        tall, wide = bits.g(2) + 1, bits.g(2) + 1
        need(tall <= h and wide <= w and tall * wide >= 4, "coded: blocks that do not fit")
        live, order, at, places = bits.g(8), 0, -1, set()
        blocks = -(-h // tall) * -(-w // wide)
        need(live <= blocks, "coded: more live blocks than blocks")
        order = bits.take(4)
        for _ in range(live):
            at += 1 + bits.r(order)
            need(at < blocks, "coded: a live block behind the last one")
            places.add(at)
        head.live.append((tall, wide, places))
    head.row_classes, head.column_classes = read_classes(bits, h), read_classes(bits, w)
    head.g = bits.g(0) + 1
    if head.g > 1:
        need(w <= 16384 and w % head.g == 0, "coded: groups that do not fit")
        head.distances = [bits.g(1) + 1 for _ in range(bits.take(2))]
        ascending = sorted({*head.distances, head.g}) == [*head.distances, head.g]
        need(bool(head.distances) and ascending, "coded: distances do not ascend below the group")
    count = head.s << len(head.distances)
    need(head.s <= 63 and count <= 256, "coded: too many classes or levels")
    level = 160
    for _ in range(count):
        level += unfolded(bits.g(2))
        need(0 <= level <= 320, "coded: a level outside its limits")
        head.levels.append(level)
    read_tables(bits, head, value_bits)
    head.raw_bytes, head.left_out = -(-head.k * head.raw_field // 8), [0] * len(panels_of(h, w))
    if bits.take(1):
        head.raw_bytes, order = bits.g(8), bits.take(3)
        head.left_out = [bits.r(order) for _ in head.left_out]
        need(0 < max(head.left_out) <= head.low, "coded: raw bits left out that there are not, or none")
    return head


def read_tables(bits: Bits, head: Coded, value_bits: int) -> None:
    tables = bits.take(4) + 1
    head.table_of = [bits.take((tables - 1).bit_length()) for _ in range(head.s)]
    need(max(head.table_of) < tables, "coded: a table that is not there")
    head.sign, head.zeros, head.low = bits.take(2), bits.take(6), bits.take(6)
    need(value_bits > 8 or head.sign < 2, "coded: a sign of values of 8 bits")
    top = value_bits - (head.sign >= 2) - head.low - head.zeros
    need(top >= 1 and head.raw_field <= 56, "coded: too many raw bits")
    head.first, symbols, head.scale = bits.take(top), bits.take(8) + 1, bits.take(3) + 5
    last = (symbols - 1) // (2 if head.sign == 3 else 1)
    need(head.first + last < 1 << top, "coded: symbols outside the range of keys")
    need(tables << head.scale <= 32768, "coded: tables that are too large")
    for _ in range(tables):
        order, count, counts = bits.take(3), 0, []
        for _ in range(symbols):
            count += unfolded(bits.g(order))
            need(0 <= count <= 1 << head.scale, "coded: a count outside its limits")
            counts.append(count)
        need(sum(counts) == 1 << head.scale, "coded: an incomplete table")
        head.tables.append(counts)
    begin = 2 if head.sign == 3 else 1
    need(any(sum(counts[:begin]) for counts in head.tables), "coded: a first symbol that does not occur")
    need(any(counts[-1] for counts in head.tables), "coded: a last symbol that does not occur")


def coded_elements(data: bytes, h: int, w: int, value_bits: int, label_bits: int = 0) -> tuple[list[int], list[int]]:
    """Values of a part, and their positions; ``label_bits`` if they are labels."""
    bits = Bits(data)
    head = read_coded_head(bits, h, w, value_bits)
    need(bits.take(-bits.at % 8) == 0, "coded: padding of the head")
    at = bits.at // 8
    if not head.k:
        need(at == len(data), "coded: bytes behind the head")
        return [], []
    if label_bits:
        most = ((head.first + len(head.tables[0]) << head.low) - 1) << head.zeros
        need(head.sign == 0 and most < 1 << label_bits, "coded: a symbol for a label that is too large")
    count = 1 << head.lanes
    end, banks = len(data) - head.raw_bytes, -(-count // 16)
    begin = at + 4 * count + 4 * (banks - 1)
    need(begin <= end and (end - begin) % 2 == 0, "coded: too short, or half a word")
    numbers = [int.from_bytes(data[place : place + 4], "little") for place in range(at, begin, 4)]
    states, lengths = numbers[:count], numbers[count:]
    need(min(states) >= 65536, "coded: a state is too small")
    lengths.append((end - begin) // 2 - sum(lengths))
    need(lengths[-1] >= 0, "coded: more words in banks than there are")
    words: list[list[int]] = []  # of each bank, the last one first
    for length in lengths:
        words.append([int.from_bytes(data[begin + 2 * i :][:2], "little") for i in range(length)][::-1])
        begin += 2 * length
    raw, raw_at = int.from_bytes(data[end:], "little"), 0

    def decode(lane: int, bounds: list[int]) -> int:
        """The number of the interval that a lane's state lies in; the last bound is a power of 2."""
        high, rest = divmod(states[lane], bounds[-1])
        symbol = sum(bound <= rest for bound in bounds) - 1
        state = (bounds[symbol + 1] - bounds[symbol]) * high + rest - bounds[symbol]
        if state < 65536:
            need(bool(words[lane // 16]), "coded: words end too early")
            state = state * 65536 + words[lane // 16].pop()
        states[lane] = state
        return symbol

    bounds_of = [[0, *accumulate(counts)] for counts in head.tables]
    values: list[int] = []
    positions: list[int] = []
    for (row, column, tall, wide), left in zip(panels_of(h, w), head.left_out, strict=True):
        f, low = head.raw_field - left, head.low - left
        place = [(row + j // wide, column + j % wide) for j in range(tall * wide)]
        stored = [False] * len(place)
        classes = [head.row_classes[y] + head.column_classes[x] for y, x in place]
        for start in range(head.g):
            for i, j in enumerate(range(start, len(place), head.g)):
                if head.dead(*place[j], w):
                    continue
                x = sum(stored[j - one] << bit for bit, one in enumerate(head.distances) if one <= start)
                chance = probability(head.levels[classes[j] + head.s * x])
                # An interval without counts holds no state.
                stored[j] = decode(i % count, [0, chance, 16384]) == 0 if 0 < chance < 16384 else chance > 0
        for i, j in enumerate(j for j in range(len(place)) if stored[j]):
            need(len(values) < head.k, "coded: more stored elements than k")
            symbol = decode(i % count, bounds_of[head.table_of[classes[j]]])
            piece, raw_at = raw >> raw_at & (1 << f) - 1, raw_at + f
            t, sign = (symbol // 2, symbol % 2) if head.sign == 3 else (symbol, piece >> low)
            key = (head.first + t << head.low | (piece & (1 << low) - 1) << left) << head.zeros
            if head.sign == 1:
                key ^= 1 << value_bits - 1
            values.append(key | sign << value_bits - 1 if head.sign >= 2 else key)
            positions.append(place[j][0] * w + place[j][1])
    need(len(values) == head.k, "coded: fewer stored elements than k")
    need(not any(words) and all(state == 65536 for state in states), "coded: words or states are left over")
    need(head.raw_bytes == -(-raw_at // 8) and raw >> raw_at == 0, "coded: raw bits are left over")
    return values, positions


def panels_of(h: int, w: int) -> list[tuple[int, int, int, int]]:
    """First row, first column, rows and columns of each panel."""
    if w <= 16384:
        tall = 16384 // w
        return [(row, 0, min(tall, h - row), w) for row in range(0, h, tall)]
    return [(row, at, 1, min(16384, w - at)) for row in range(h) for at in range(0, w, 16384)]
