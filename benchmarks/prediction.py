"""Predicted times against measured ones, on cases drawn anew in each run, and predicted break-evens.

Products with one thread: shapes of 256 to 8192 rows and columns, 30 to 98 % zeros, batches of 1 to 128, three dtypes,
four layouts. Errors are quotients: 1.10 means that the greater of the two times is 10 % above the other. Times are
processor time, so that other work on the machine counts less. The profile is measured first, unless --cached.
"""

import argparse
import json
from typing import Any

import numpy as np
from measure import machine, note, one_thread

import codec
from codec.costs.machine import MachineProfile, cached
from codec.costs.machine.timing import seconds_of
from codec.dtypes import BY_NAME
from codec.products import multiply

LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("sell", {}), ("bitmap", {"order": "lanes"}), ("csr", {}), ("relative_index", {}),
]  # fmt: skip
DTYPES = ("F32", "BF16", "F16")
LEAST_SHAPE, MOST_SHAPE, MOST_BATCH = 256, 8192, 128


def measured(profile: MachineProfile, random: np.random.Generator, largest: int) -> dict[str, Any]:
    """One random case: what was predicted, and what it took."""
    name, params = LAYOUTS[int(random.integers(len(LAYOUTS)))]
    dtype = BY_NAME[DTYPES[int(random.integers(len(DTYPES)))]].dtype
    rows, cols = (int(LEAST_SHAPE * (largest / LEAST_SHAPE) ** random.random()) for _ in range(2))
    sparsity, batch = float(random.uniform(0.3, 0.98)), int(MOST_BATCH ** random.random())
    dense = random.standard_normal((rows, cols), np.float32)
    dense[random.random((rows, cols), np.float32) < sparsity] = 0
    w = codec.encode(dense.astype(dtype), layout=name, objective="memory", **params)
    x = random.standard_normal((cols, batch), np.float32)
    options: dict[str, Any] = {"layout": name, "shape": w.shape, "dtype": dtype, "sparsity": w.sparsity, **params}
    found = profile.predict("matmul", batch=batch, **options)
    seconds = seconds_of(lambda: multiply(w, x, threads=1), 0.1)
    return {
        "layout": name, "dtype": str(dtype), "shape": [rows, cols], "sparsity": sparsity, "batch": batch,
        "predicted": found.seconds, "measured": seconds, "quotient": seconds / found.seconds, "bound": found.bound_by,
    }  # fmt: skip


def main() -> None:
    """Print the quantiles of the errors, and each case with --json."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
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
    cases = [measured(profile, random, options.largest) for _ in range(options.cases)]
    errors = np.exp(np.abs(np.log([case["quotient"] for case in cases])))
    median, ninth = (float(q) for q in np.quantile(errors, (0.5, 0.9)))
    if options.json:
        print(json.dumps({"machine": machine(), "median": median, "90th": ninth, "cases": cases}, indent=1))
        return
    print(f"{len(cases)} cases: median error {median:.2f}, 90th percentile {ninth:.2f}")
    for name, _ in LAYOUTS:
        found = [case["quotient"] for case in cases if case["layout"] == name]
        print(f"{name}: measured / predicted {np.median(found):.2f}" if found else f"{name}: no case")


if __name__ == "__main__":
    main()
