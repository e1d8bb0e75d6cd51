"""What every benchmark shares: its command line, the machine it ran on, fair timing, and how results are printed.

Times are only worth something beside each other: contenders take turns within one run, so that whatever else the
machine does hits all of them, and what is compared is the median over the rounds of their quotient in one round.
"""

import argparse
import ctypes
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zstandard

from codec import kernels
from codec.cli.table import table

_THREADS = ("CODEC_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """One result: a title that says the unit, column names, and rows of cells, of which the first `left` are names."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: int = 1

    def text(self) -> str:
        """The table for people."""
        cells = [[_text(cell) for cell in row] for row in self.rows]
        return f"{self.title}\n{table(self.columns, cells, self.left)}"

    def facts(self) -> dict[str, Any]:
        """The table for programs: every row by column name, numbers unrounded."""
        return {"title": self.title, "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows]}


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.{2 if abs(cell) < 9.995 else 1 if abs(cell) < 99.95 else 0}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def arguments(doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has; its docstring is the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FOLDER", help="folder of real networks, *.safetensors"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def one_thread() -> None:
    """Start this command again with one thread for codec and for NumPy's BLAS, which asks for it at import only."""
    if any(os.environ.get(name) != "1" for name in _THREADS):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **dict.fromkeys(_THREADS, "1")})


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "kernel": kernels.info()["kernel"],
        "threads": kernels.thread_count(None),
        "numpy": f"{np.__version__}, {blas['name']} {blas['version']}",
        "zstandard": zstandard.__version__,
    }


def _cpu() -> str:
    """The model's name, and family and model, which a virtual machine does not hide."""
    facts: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 3.0,
    least: int = 5,
    most: int = 200,
    warm: bool = False,
) -> dict[str, np.ndarray]:
    """Seconds of every contender in every round; a first round is not counted.

    Rounds go on for `seconds`, but are at least `least` and at most `most`. With `warm` each turn begins with a run
    that is not counted, for contenders so short that fetching their code and data anew would be much of their time.
    """
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start, rounds = perf_counter(), 0
    while rounds < least or (rounds < most and perf_counter() - start < seconds):
        for name, run in contenders.items():
            if warm:
                run()
            before = perf_counter()
            run()
            times[name].append(perf_counter() - before)
        rounds += 1
    return {name: np.array(samples) for name, samples in times.items()}


def median(times: np.ndarray) -> float:
    """The median."""
    return float(np.median(times))


def times_as_fast(times: np.ndarray, base: np.ndarray) -> float:
    """How many times as fast as `base`: the median over rounds, each against the base's time in the same round."""
    return float(np.median(base / times))


def release_memory() -> None:
    """Give what the C library holds back for later to the system, where it has a call for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def emit(options: argparse.Namespace, tables: Sequence[Table], faults: Sequence[str] = ()) -> None:
    """Print the results; where a promise is broken, say which on stderr and end with status 1."""
    facts = machine()
    if options.json:
        results = [one.facts() for one in tables]
        print(json.dumps({"machine": facts, "tables": results, "faults": list(faults)}, indent=2, ensure_ascii=False))
    else:
        print("; ".join(f"{name} {value}" for name, value in facts.items()))
        for one in tables:
            print(f"\n{one.text()}")
    for fault in faults:
        note(f"broken promise: {fault}")
    if faults:
        raise SystemExit(1)
