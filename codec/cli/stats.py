"""The verb that counts what sizes depend on: stats."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.cli.output import Progress, emit, json_option, quiet_option, source
from codec.cli.table import shape_text, table
from codec.costs.tensors import can_be_counted, stats_of_stored
from codec.errors import ArgumentError
from codec.model import ModelFile, safe_open
from codec.statistics import TensorStats
from codec.units import counted, percent


def _counting(model: ModelFile, names: list[str], quiet: bool) -> Iterator[str]:
    """The names one by one, with a progress bar."""
    with Progress(sum(model.info(name).dense_nbytes for name in names), "Counting", quiet) as progress:
        for name in names:
            yield name
            progress.advance(model.info(name).dense_nbytes)


@click.command()
@click.argument("src", type=source)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@quiet_option
@json_option
def stats(src: Path, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Count what the sizes of packed tensors depend on.

    SRC is as for codec inspect. All its tensors are counted, or only those with the given NAMEs; all their data is
    read.

    The columns: the share of zeros; the numbers of -0.0 and of NaN; rows and columns that hold only zeros; the share of
    4x4 blocks that hold a non-zero; the most non-zeros in any four neighbours of a row; the entropy of the non-zero
    values in bits; how many of the lowest bits are zero in all values. --json prints more.
    """
    with safe_open(src) as model:
        for name in names:
            if not can_be_counted(model.info(name)):
                raise ArgumentError(f"tensor {name!r} has dtype {model.info(name).dtype}, which codec does not count")
        wanted = [name for name in names or model.keys() if can_be_counted(model.info(name))]
        rows = [
            {
                "name": name,
                "dtype": model.info(name).dtype,
                "shape": list(model.info(name).shape),
                **_facts(stats_of_stored(model.info(name), model.get_stored(name))),
            }
            for name in _counting(model, wanted, quiet)
        ]
        left_out = [] if names else [name for name in model if name not in set(wanted)]
    facts = {"source": str(src), "tensors": rows, "left_out": left_out}
    emit(facts, lambda: _stats_text(rows, len(left_out)), as_json)


def _facts(found: TensorStats) -> dict[str, Any]:
    counts = found.counts
    assert counts.blocks is not None
    assert counts.groups is not None
    runs = np.flatnonzero(found.runs)
    grid = found.grid
    of_blocks = {(r, c): sum(n * -(-h // r) * -(-w // c) for h, w, n in grid.shapes()) for r, c in counts.blocks}
    return {
        "size": found.size,
        "nnz": found.nnz,
        "sparsity": found.sparsity,
        "negative_zeros": found.negative_zeros,
        "nans": found.nans,
        "value_entropy": found.value_entropy,
        "constant_low_bits": found.constant_low_bits,
        "rows": _spread(found.row_density) | {"dead": found.dead_rows},
        "columns": _spread(found.col_density) | {"dead": found.dead_cols},
        "panels": _spread(found.panel_density),
        "dead_channels": found.dead_channels,
        "runs": {str(length): int(found.runs[length]) for length in runs},
        "live_blocks": {f"{r}x{c}": [counts.blocks[r, c], n] for (r, c), n in of_blocks.items()},
        "groups": {str(m): table.tolist() for m, table in counts.groups.items()},
    }


def _spread(density: np.ndarray) -> dict[str, Any]:
    """The least, middle and largest density."""
    if not len(density):
        return {"count": 0, "least": None, "median": None, "most": None}
    least, most = float(density.min()), float(density.max())
    return {"count": len(density), "least": least, "median": float(np.median(density)), "most": most}


def _stats_text(rows: list[dict[str, Any]], left_out: int) -> str:
    lines = [
        [
            row["name"],
            row["dtype"],
            shape_text(row["shape"]),
            percent(row["sparsity"]),
            f"{row['negative_zeros']:,}",
            f"{row['nans']:,}",
            f"{row['rows']['dead']:,}",
            f"{row['columns']['dead']:,}",
            percent(row["live_blocks"]["4x4"][0] / max(1, row["live_blocks"]["4x4"][1])),
            str(next((j for j in range(4, -1, -1) if row["groups"]["4"][j]), 0)),
            f"{row['value_entropy']:.2f}",
            str(row["constant_low_bits"]),
        ]
        for row in rows
    ]
    header = [
        "name",
        "dtype",
        "shape",
        "zeros",
        "-0.0",
        "NaN",
        "empty rows",
        "empty cols",
        "4x4 blocks",
        "most of 4",
        "entropy",
        "low bits",
    ]
    note = f"\nLeft out: {counted(left_out, 'tensor')} of dtypes that codec does not count." if left_out else ""
    return table(header, lines, left=3) + note
