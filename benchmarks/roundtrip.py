"""Real networks through every layout: every bit comes back, and every size is the one predicted.

MiniLM and every network in the folder, at 0, 50, 80, 95 and 100 % zeros (every weight of two or more dimensions pruned
by its own magnitudes, half of what is removed -0.0 as torch's pruning leaves it) and as they are, in six dtypes,
through every layout with every parameter that changes its bytes, without and with Huffman coding, under both zero
rules. Checked for every tensor: the decoded bits; encoded_nbytes equals the bytes without entropy coding, and is
within 1 % of them (or, for small tensors, the alignment of each stream) with Huffman coding.
"""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from datasets import CASES, DTYPES, Tensors, case_name, cast, entropies, is_prunable, networks, pruned_by_product
from measure import Table, arguments, emit, note

import codec
from codec.dtypes import element_type

SPARSITIES = (0.0, 0.5, 0.8, 0.95, 1.0)
RULES = ("value", "bits")
QUICK_TENSORS, QUICK_WEIGHTS = 12, 300_000
Key = tuple[str, str, str]  # zero rule, entropy, case
ALIGNMENT = 64  # bytes: where each stream starts and the frame ends


@dataclass
class Tally:
    """What all round trips together showed."""

    trips: int = 0
    elements: int = 0
    faults: list[str] = field(default_factory=list)
    worst_percent: float = 0.0  # error of a predicted size, where 1 % of the size is more than the alignment
    worst_bytes: int = 0  # where it is less

    def predicted(self, what: str, expected: int, found: int, streams: int, exact: bool) -> None:
        """Compare a predicted size with the size."""
        error = abs(expected - found)
        if exact:
            if error:
                self.faults.append(f"{what}: {found} bytes, predicted {expected}")
            return
        room = ALIGNMENT * (1 + streams)
        if found >= 100 * room:
            self.worst_percent = max(self.worst_percent, 100 * error / found)
        else:
            self.worst_bytes = max(self.worst_bytes, error)
        if error > max(found / 100, room):
            self.faults.append(f"{what}: {found} bytes, predicted {expected}, {100 * error / found:.2f} % off")


def under_rule(a: np.ndarray, rule: str) -> np.ndarray:
    """The bits that must come back."""
    element = element_type(a.dtype)
    bits = np.ascontiguousarray(a).view(element.unsigned)
    return (
        np.where(bits == element.sign_bit, element.unsigned.type(0), bits)
        if rule == "value" and element.sign_bit
        else bits
    )


def trips(tensors: Tensors, where: str, tally: Tally) -> Counter[Key]:
    """Every tensor through every case; bytes of all of them for each (rule, entropy, case)."""
    totals: Counter[Key] = Counter()
    for name, a in tensors.items():
        for rule in RULES:
            expected = under_rule(a, rule)
            stats = codec.tensor_stats(a, zero=rule)
            for layout, params in CASES:
                for entropy in entropies(layout, ("none", "huffman")):
                    case = case_name((layout, params))
                    what = f"{where} {name}, {case}, entropy {entropy}, zero {rule}"
                    packed = codec.encode(a, layout=layout, entropy=entropy, zero=rule, **params)
                    data = codec.dumps(packed)
                    back = codec.decode(data)
                    if (
                        back.dtype != a.dtype
                        or back.shape != a.shape
                        or not np.array_equal(back.view(expected.dtype), expected)
                    ):
                        tally.faults.append(f"{what}: came back different")
                    size = codec.encoded_nbytes(layout, a.shape, a.dtype, stats=stats, entropy=entropy, **params)
                    tally.predicted(what, size, len(data), len(packed.parts), entropy == "none")
                    tally.trips += 1
                    tally.elements += a.size
                    totals[rule, entropy, case] += len(data)
    return totals


def quick(tensors: Tensors) -> Tensors:
    """The first tensors of a network that are not large, QUICK_TENSORS of them."""
    small = [(name, a) for name, a in tensors.items() if a.size <= QUICK_WEIGHTS]
    return dict(small[:QUICK_TENSORS])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="only some small tensors of each network")
    options = parser.parse_args()
    tally, start = Tally(), perf_counter()
    columns = {
        rule: [
            (stage, case_name(case))
            for stage in ("none", "huffman", "auto")
            for case in CASES
            if stage in entropies(case[0], ("none", "huffman"))
        ]
        for rule in RULES
    }
    rows: dict[str, list[list[str | int]]] = {rule: [] for rule in RULES}

    def run(title: str, dtype: str, zeros: str, tensors: Tensors) -> Counter[Key]:
        note(f"{perf_counter() - start:.0f} s: {title} {dtype}, zeros {zeros}, {len(tensors)} tensors")
        return trips(tensors, f"{title} {dtype} {zeros}", tally)

    def add(title: str, dtype: str, zeros: str, dense: int, totals: Counter[Key]) -> None:
        for rule in RULES:
            rows[rule].append([title, dtype, zeros, dense, *(totals[rule, *column] for column in columns[rule])])

    for title, tensors in networks(options.weights):
        chosen = quick(tensors) if options.quick else tensors
        weights = {name: a for name, a in chosen.items() if is_prunable(a)}
        others = {name: a for name, a in chosen.items() if name not in weights}  # the same however much is pruned
        own = "/".join(sorted({element_type(a.dtype).name for a in weights.values()}))
        add(title, own, "its own", sum(a.nbytes for a in chosen.values()), run(title, own, "its own", chosen))
        same = {dtype: run(title, dtype, "none", {n: cast(a, dtype) for n, a in others.items()}) for dtype in DTYPES}
        for sparsity in SPARSITIES:
            cut = pruned_by_product(weights, sparsity)
            for dtype in DTYPES:
                made = {name: cast(a, dtype) for name, a in cut.items()}
                dense = sum(a.nbytes for a in made.values()) + sum(cast(a, dtype).nbytes for a in others.values())
                add(title, dtype, f"{sparsity:.0%}", dense, run(title, dtype, f"{sparsity:.0%}", made) + same[dtype])
    seconds = perf_counter() - start
    tables = [
        Table(
            f'Bytes of all tensors under zero="{rule}"; "+" after a layout is with Huffman coding',
            [
                "network",
                "dtype",
                "zeros",
                "dense",
                *(case + " +" * (entropy != "none") for entropy, case in columns[rule]),
            ],
            rows[rule],
            left=3,
        )
        for rule in RULES
    ]
    summary: list[list[str | int | float]] = [
        ["round trips", tally.trips],
        ["elements", tally.elements],
        ["seconds", seconds],
        ["faults", len(tally.faults)],
        ["worst prediction with Huffman coding, frames above 100 alignments, %", tally.worst_percent],
        ["worst prediction with Huffman coding, smaller frames, bytes", tally.worst_bytes],
    ]
    emit(options, [*tables, Table("All together", ["what", "count"], summary)], tally.faults)


if __name__ == "__main__":
    main()
