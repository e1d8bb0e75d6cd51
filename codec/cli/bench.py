"""The verb that measures products on the user's own file and machine: bench."""

from math import exp, log
from pathlib import Path
from typing import Any

import click

from codec import bench as runner
from codec.cli.output import Progress, emit, json_option, quiet_option, source, threads_option
from codec.cli.table import shape_text, table
from codec.errors import ArgumentError
from codec.kernels import info, thread_count
from codec.model import safe_open
from codec.units import counted, duration, percent, ratio, size

DENSE = ("numpy", "torch", "torch bfloat16", "torch float16")


@click.command()
@click.argument("src", type=source)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 32), show_default=True, metavar="N",
    help="Columns that are multiplied at a time; may be given several times.",
)  # fmt: skip
@click.option("--as-stored", is_flag=True, help="Multiply from the layouts in the file, not from those for speed.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=0.2, show_default=True, metavar="S",
    help="Measure each matrix and batch for about S seconds.",
)  # fmt: skip
@threads_option
@quiet_option
@json_option
def bench(
    src: Path,
    names: tuple[str, ...],
    batches: tuple[int, ...],
    as_stored: bool,
    seconds: float,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure how fast matrices multiply, packed and dense.

    SRC is a model file, packed or plain, the .safetensors.index.json of a sharded model, or a folder that holds one of
    them. Every matrix in it is multiplied with float32 columns, or those with the given NAMEs: by codec in the layout
    that is chosen for speed at that batch, by NumPy, and by torch where it is installed. Weights come from memory, as
    in a model. "vs dense" compares with the fastest dense library of the run.
    """
    with safe_open(src) as model:
        for name in names:
            if not runner.measurable(model.info(name).dtype, model.info(name).shape):
                raise ArgumentError(
                    f"tensor {name!r} is {model.info(name).dtype} {shape_text(model.info(name).shape)}; expected a "
                    "matrix of floats or bytes"
                )
        wanted = [n for n in names or model if runner.measurable(model.info(n).dtype, model.info(n).shape)]
    if not wanted:
        raise ArgumentError(f"{src} holds no matrix of floats or bytes: nothing to measure")
    count = thread_count(threads)
    rows = []
    with Progress(len(wanted), "Measuring", quiet) as progress:
        for found in runner.bench(str(src), wanted, batches, count, seconds, as_stored):
            rows.append(found)
            progress.advance(1)
    facts = {
        "source": str(src),
        "kernel": info()["kernel"],
        "threads": count,
        "matrices": rows,
        "sums": [_sum(rows, i, batch) for i, batch in enumerate(batches)],
    }
    emit(facts, lambda: _text(facts, batches), as_json)


def _best_dense(product: dict[str, Any]) -> float:
    return min(float(s) for name, s in product["seconds"].items() if name in DENSE)


def _sum(rows: list[dict[str, Any]], number: int, batch: int) -> dict[str, Any]:
    """One pass over all matrices, each time by the dense library that is fastest for it."""
    products = [row["products"][number] for row in rows]
    dense = [_best_dense(one) for one in products]
    ours = [one["seconds"]["codec"] for one in products]
    gains = [d / o for d, o in zip(dense, ours, strict=True)]
    return {
        "batch": batch,
        "codec_seconds": sum(ours),
        "dense_seconds": sum(dense),
        "speed_up": sum(dense) / sum(ours),
        "geometric_mean": exp(sum(map(log, gains)) / len(gains)),
        "slowest": min(gains),
    }


def _text(facts: dict[str, Any], batches: tuple[int, ...]) -> str:
    head = f"{counted(facts['threads'], 'thread')}, kernels: {facts['kernel']}"
    header = ("matrix", "shape", "dtype", "zeros", "layout", "bytes", "codec", "best dense", "vs dense", "bound by")
    parts = []
    for i, batch in enumerate(batches):
        lines = []
        for row in facts["matrices"]:
            one = row["products"][i]
            ours, dense = one["seconds"]["codec"], _best_dense(one)
            lines.append((
                row["name"], shape_text(row["shape"]), row["dtype"], percent(row["sparsity"]), one["layout"],
                size(one["bytes"]), duration(ours), duration(dense), ratio(dense, ours), one["bound_by"],
            ))  # fmt: skip
        found = facts["sums"][i]
        total = (
            "all", "", "", "", "", size(sum(row["products"][i]["bytes"] for row in facts["matrices"])),
            duration(found["codec_seconds"]), duration(found["dense_seconds"]), f"{found['speed_up']:.2f}x", "",
        )  # fmt: skip
        parts.append(f"Batch {batch}, {head}\n\n" + table(header, lines, left=1, total=total))
    return "\n\n".join(parts)
