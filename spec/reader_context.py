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
class Lines:
    """Rows or columns."""

    counts: list[int]
    scale: int = 0
    dead: int = 0
    classes: list[int] = field(default_factory=list)  # -1 for a dead one

    @property
    def largest(self) -> int:
        return len(self.counts) - 1 - self.dead


@dataclass
class Coded:
    """The head of a part."""

    k: int
    lanes: int = 0
    live: list[tuple[int, int, set[int]]] = field(default_factory=list)
    rows: Lines = field(default_factory=lambda: Lines([1]))
    columns: "Lines" = field(default_factory=lambda: Lines([1]))
    g: int = 1
    distances: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    table_of: list[int] = field(default_factory=list)
    sign: int = 0
    zeros: int = 0
    low: int = 0
    base: int = 0
    scale: int = 0
    tables: list[list[int]] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    raw_bytes: int = 0

    @property
    def s(self) -> int:
        return 1 + self.rows.largest + self.columns.largest

    @property
    def raw_field(self) -> int:
        return self.low + (1 if self.sign in (2, 4) else 0)

    def dead(self, row: int, column: int, w: int) -> bool:
        if self.rows.classes[row] < 0 or self.columns.classes[column] < 0:
            return True
        return any(row // tall * -(-w // wide) + column // wide not in live for tall, wide, live in self.live)


def read_line_counts(bits: Bits) -> Lines:
    symbols = bits.g(1) + 1
    need(symbols <= 64, "coded: too many symbols of lines")
    if symbols == 1:
        return Lines([1])
    dead, scale = bits.take(1), bits.take(3) + 5
    lines = Lines(read_symbol_counts(bits, symbols, scale), scale, dead)
    need(lines.counts[0] > 0 and lines.counts[-1] > 0, "coded: a first or last symbol of lines that does not occur")
    return lines


def read_symbol_counts(bits: Bits, symbols: int, scale: int) -> list[int]:
    n, count, counts = bits.take(2), 0, []
    for _ in range(symbols - 1):
        count += unfolded(bits.g(max(0, n + count.bit_length() // 2 - 1)))
        counts.append(count)
        need(count >= 0 and sum(counts) <= 1 << scale, "coded: counts outside their limits")
    return [*counts, (1 << scale) - sum(counts)]


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
    head.rows, head.columns = read_line_counts(bits), read_line_counts(bits)
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
    head.sign, head.zeros, head.low = bits.take(3), bits.take(6), bits.take(6)
    need(head.sign <= 4, "coded: a sign that there is not")
    key_bits = value_bits - (head.sign >= 2) - head.zeros
    need(key_bits > head.low and head.raw_field <= 56, "coded: too many raw bits")
    fine = bits.take(3)
    need(fine <= head.low, "coded: more fine bits than raw bits")
    head.base = bits.take(key_bits - head.low + fine) << head.low - fine
    symbols, head.scale = bits.take(8) + 1, bits.take(3) + 5
    last = (symbols - 1) // (2 if head.sign == 3 else 1)
    need(head.base + ((last + 1) << head.low) <= 1 << key_bits, "coded: symbols outside the range of keys")
    need(tables << head.scale <= 32768, "coded: tables that are too large")
    head.tables = [read_symbol_counts(bits, symbols, head.scale) for _ in range(tables)]
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
    if 0 < label_bits < 8:
        most = (head.base + (len(head.tables[0]) << head.low) - 1) << head.zeros
        need(
            head.sign == 0 and most < 1 << label_bits, "coded: a sign of a label, or a symbol for one that is too large"
        )
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

    for lines, many in ((head.rows, h), (head.columns, w)):
        bounds = [0, *accumulate(lines.counts)]
        lines.classes = [decode(i % count, bounds) - lines.dead if len(lines.counts) > 1 else 0 for i in range(many)]
    bounds_of = [[0, *accumulate(counts)] for counts in head.tables]
    values: list[int] = []
    positions: list[int] = []
    for (row, column, tall, wide), left in zip(panels_of(h, w), head.left_out, strict=True):
        f, low = head.raw_field - left, head.low - left
        place = [(row + j // wide, column + j % wide) for j in range(tall * wide)]
        stored = [False] * len(place)
        classes = [head.rows.classes[y] + head.columns.classes[x] for y, x in place]
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
            key = head.base + (t << head.low | (piece & (1 << low) - 1) << left) << head.zeros
            if head.sign == 1:
                key ^= 1 << value_bits - 1
            if head.sign == 4:
                values.append(((1 << value_bits) - key) % (1 << value_bits) if sign else key)
            else:
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
