"""Predicted times against measured ones, predicted break-evens, and the planner's choices, on cases drawn in each run.

Products with one thread: shapes of 256 to 8192 rows and columns, 30 to 98 % zeros, batches of 1 to 128, three dtypes,
four layouts; break-evens and choices on smaller shapes, as each takes many products. Errors are quotients: 1.10 means
that the greater of two times is 10 % above the other. The profile is measured first, unless --cached.
Times are processor time, so that other work on the machine counts less; what is compared takes turns, round after
round, and a product is timed behind one with another matrix of its kind, as in a network. A break-even is found
twice: what the two differ by is the error of measuring.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from measure import machine, note, one_thread

import codec
from codec.costs.machine import MachineProfile, cached
from codec.costs.machine.libraries import STANDS_FOR, libraries
from codec.costs.machine.timing import Call, Group, by_turns, complete, take_turns
from codec.costs.options import named
from codec.dtypes import BY_NAME, ElementType

LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("sell", {}), ("bitmap", {"order": "lanes"}), ("csr", {}), ("relative_index", {}),
]  # fmt: skip
DTYPES = ("F32", "BF16", "F16")
LEAST_SHAPE, MOST_SHAPE, MOST_BATCH = 256, 8192, 128
FEW = 2048  # rows and columns of break-evens and choices
BUDGET = 0.1  # seconds for a measured time, about
ROUNDS = 1.0  # seconds for times that are compared, about
# Break-evens are looked for up to there: among so many shares of zeros, and then on a line through those so near.
MOST_ZEROS, COARSE, NEAR = 0.99, 8, (-0.08, -0.04, 0.0, 0.04, 0.08)

Random = np.random.Generator
Pair = tuple[Call, Call]


def shape_of(random: Random, largest: int) -> tuple[int, int]:
    """Rows and columns, each size as likely as its double."""
    rows, cols = (int(LEAST_SHAPE * (largest / LEAST_SHAPE) ** random.random()) for _ in range(2))
    return rows, cols


def matrix(random: Random, shape: tuple[int, int], sparsity: float, element: ElementType) -> np.ndarray:
    """Independent zeros."""
    dense = random.standard_normal(shape, np.float32)
    dense[random.random(shape, np.float32) < sparsity] = 0
    return dense.astype(element.dtype)


def matrices(random: Random, shape: tuple[int, int], sparsity: float, element: ElementType) -> list[np.ndarray]:
    """Two of the same kind, to be multiplied by turns."""
    return [matrix(random, shape, sparsity, element) for _ in range(2)]


def products(of: Sequence[np.ndarray], batch: int, layout: str, params: dict[str, Any]) -> Pair:
    """The products with two matrices, packed."""

    def product(a: np.ndarray) -> Call:
        w = codec.encode(a, layout=layout, objective="memory", **params)
        return lambda: codec.matmul(w, x, threads=1)

    one, other = of
    x = np.random.default_rng(0).standard_normal((one.shape[1], batch), np.float32)
    return product(one), product(other)


def dense_products(shape: tuple[int, int], batch: int, element: ElementType) -> list[Pair]:
    """The same by each dense library."""
    found = [of for _, dtype, of in libraries() if element.name in STANDS_FOR[dtype]]
    return [(of(shape)(batch), of(shape)(batch)) for of in found]


def seconds_by_turns(pairs: Sequence[Pair], budget: float = ROUNDS) -> np.ndarray:
    """The time of each pair, from rounds in which all take turns."""
    group = Group([run for number, pair in enumerate(pairs) for run in by_turns([pair], number)])
    take_turns([group], budget)
    complete([group])
    return group.seconds


def time_case(profile: MachineProfile, random: Random, largest: int) -> dict[str, Any]:
    """One random case: what was predicted, and what it took."""
    name, params = LAYOUTS[int(random.integers(len(LAYOUTS)))]
    element = BY_NAME[DTYPES[int(random.integers(len(DTYPES)))]]
    shape, sparsity = shape_of(random, largest), float(random.uniform(0.3, 0.98))
    batch = int(MOST_BATCH ** random.random())
    two = matrices(random, shape, sparsity, element)
    asked: dict[str, Any] = {"layout": name, "shape": shape, "dtype": element.dtype, "sparsity": sparsity, **params}
    found = profile.predict("matmul", batch=batch, **asked)
    seconds = float(seconds_by_turns([products(two, batch, name, params)], BUDGET)[0])
    return {
        "layout": name, "dtype": element.name, "shape": shape, "sparsity": sparsity, "batch": batch,
        "predicted": found.seconds, "measured": seconds, "quotient": seconds / found.seconds, "bound": found.bound_by,
    }  # fmt: skip


def break_even_case(profile: MachineProfile, random: Random) -> dict[str, Any]:
    """The sparsity from which sell beats the dense library: predicted, and measured twice."""
    element, batch = BY_NAME[DTYPES[int(random.integers(2))]], int(2 ** random.integers(0, 6))
    shape = shape_of(random, FEW)
    predicted = codec.break_even("sell", shape, element.dtype, metric="matmul", batch=batch, machine=profile).sparsity
    dense = dense_products(shape, batch, element)

    def times(points: np.ndarray) -> np.ndarray:
        """Of sell, as shares of the dense library's."""
        ours = [products(matrices(random, shape, float(s), element), batch, "sell", {}) for s in points]
        found = seconds_by_turns([*dense, *ours])
        return found[len(dense) :] / found[: len(dense)].min()

    def near(middle: float) -> float:
        points = np.unique(np.clip(middle + np.array(NEAR), 0, MOST_ZEROS))
        slope, start = np.polyfit(points, times(points), 1)
        return float(np.clip((1 - start) / slope, 0, MOST_ZEROS)) if slope < 0 else middle

    coarse = np.linspace(0, MOST_ZEROS, COARSE)
    below = np.flatnonzero((found := times(coarse)) < 1)
    middle = MOST_ZEROS if not len(below) else 0.0
    if len(below) and (at := below[0]):
        middle = float(np.interp(1, found[[at, at - 1]], coarse[[at, at - 1]]))
    measured = [near(middle), near(middle)]
    return {
        "shape": shape, "dtype": element.name, "batch": batch,
        "predicted": MOST_ZEROS if predicted is None else min(MOST_ZEROS, predicted),
        "measured": sum(measured) / 2, "apart": abs(measured[0] - measured[1]),
    }  # fmt: skip


def choice_case(profile: MachineProfile, random: Random) -> dict[str, Any]:
    """What the planner takes, and how much slower that is than the best of all."""
    element, batch = BY_NAME[DTYPES[int(random.integers(2))]], int(2 ** random.integers(0, 6))
    shape, sparsity = shape_of(random, FEW), float(random.uniform(0.3, 0.98))
    two = matrices(random, shape, sparsity, element)
    chosen = codec.plan({"w": two[0]}, objective="speed", machine=profile, batch=batch).choice("w")
    packed = {}
    for name, params in [*profile.executed(), *([(chosen.layout, dict(chosen.params))] if chosen.packed else [])]:
        with suppress(codec.ArgumentError):
            packed[named(name, params)] = products(two, batch, name, params)
    dense = dense_products(shape, batch, element)
    found = seconds_by_turns([*dense, *packed.values()])
    times = {"library": found[: len(dense)].min(), **dict(zip(packed, found[len(dense) :], strict=True))}
    taken = named(chosen.layout, chosen.params) if chosen.packed else "library"
    best = min(times, key=times.__getitem__)
    return {
        "shape": shape, "dtype": element.name, "batch": batch, "sparsity": sparsity, "taken": taken, "best": best,
        "quotient": float(times[taken] / times[best]),
    }  # fmt: skip


def main() -> None:
    """Print the quantiles of the errors, and each case with --json."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--shapes", type=int, default=10, help="break-evens and choices, each")
    parser.add_argument("--largest", type=int, default=MOST_SHAPE, help="rows and columns of the largest matrices")
    parser.add_argument("--cached", action="store_true", help="take the profile that was measured before")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    profile = cached() if options.cached else None
    if profile is None:
        note("measuring the machine")
        profile = codec.profile_machine(cache=False)
    random = np.random.default_rng(options.seed)
    note("times")
    cases = [time_case(profile, random, options.largest) for _ in range(options.cases)]
    note("break-evens")
    evens = [break_even_case(profile, random) for _ in range(options.shapes)]
    note("choices")
    choices = [choice_case(profile, random) for _ in range(options.shapes)]
    if options.json:
        print(json.dumps({"machine": machine(), "times": cases, "break_evens": evens, "choices": choices}, indent=1))
        return
    if cases:
        errors = np.exp(np.abs(np.log([case["quotient"] for case in cases])))
        median, ninth = np.quantile(errors, (0.5, 0.9))
        print(f"{len(cases)} cases: median error {median:.2f}, 90th percentile {ninth:.2f}")
    for name, _ in LAYOUTS:
        found = [case["quotient"] for case in cases if case["layout"] == name]
        print(f"{name}: measured / predicted {np.median(found):.2f}" if found else f"{name}: no case")
    near = sum(abs(one["predicted"] - one["measured"]) <= 0.05 for one in evens)
    print(f"break-even within 5 points of the measured one: {near} of {len(evens)}")
    if evens:
        middle, most = np.quantile([100 * one["apart"] for one in evens], (0.5, 1))
        print(f"break-even measured twice: {middle:.1f} points apart in the middle, {most:.1f} at most")
    good = sum(one["quotient"] <= 1.1 for one in choices)
    print(f"choice within 10 % of the best: {good} of {len(choices)}")


if __name__ == "__main__":
    main()
