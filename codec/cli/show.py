"""The verbs that only print: inspect, config, demo."""

import math
from pathlib import Path
from typing import Any

import click

from codec.cli.output import Progress, emit, json_option, quiet_option, source, source_file
from codec.cli.table import AS_ITSELF, shape_text, table
from codec.config import configuration, configuration_text
from codec.costs.machine import profile_machine
from codec.costs.machine.profile import cache_path
from codec.model import safe_open
from codec.units import counted, duration, percent, ratio, size

LABELS = {
    "safetensors": "safetensors, dense",
    "zstd": "the same, zstd -9",
    "npz": "CSR arrays, compressed npz",
    "codec": "codec file, for disk",
    "speed": "codec in memory, for speed",
    "encode": "encode for disk",
    "save": "save the file",
    "load": "load the file, packed",
    "decode": "decode to dense",
    "to_speed": "turn into layouts for speed",
}
PASSES = {
    "numpy": "numpy, dense",
    "speed": "codec, in the layouts for speed",
    "disk": "codec, straight from the layouts for disk",
}


@click.command()
@click.argument("src", type=source)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@quiet_option
@json_option
def inspect(src: Path, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """List the tensors of a model with their layouts and sizes.

    SRC is a .safetensors file, packed or plain, the .safetensors.index.json of a sharded model, or a folder that holds
    one of these. All tensors are listed, or only those with the given NAMEs. Only headers are read, no tensor data.
    """
    with safe_open(src) as model:
        facts: dict[str, Any] = {"source": str(src), "metadata": model.metadata(), "tensors": []}
        for name in names or model.keys():
            info = model.info(name)
            elements = math.prod(info.shape)
            facts["tensors"].append(
                {
                    "name": name,
                    "dtype": info.dtype,
                    "shape": list(info.shape),
                    "stored_as": info.stored_as,
                    "layout": info.layout,
                    "nnz": info.nnz,
                    "sparsity": None if info.nnz is None else 1 - info.nnz / max(1, elements),
                    "nbytes": info.nbytes,
                    "dense_nbytes": info.dense_nbytes,
                    "ratio": info.dense_nbytes / info.nbytes if info.nbytes else None,
                }
            )
    facts["nbytes"] = sum(row["nbytes"] for row in facts["tensors"])
    facts["dense_nbytes"] = sum(row["dense_nbytes"] for row in facts["tensors"])
    emit(facts, lambda: _inspect_text(facts), as_json)


def _inspect_text(facts: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            row["dtype"],
            shape_text(row["shape"]),
            row["layout"] if row["stored_as"] == "frame" else AS_ITSELF,
            "-" if row["sparsity"] is None else percent(row["sparsity"]),
            size(row["dense_nbytes"]),
            size(row["nbytes"]),
            ratio(row["dense_nbytes"], row["nbytes"]),
        ]
        for row in facts["tensors"]
    ]
    dense, stored = facts["dense_nbytes"], facts["nbytes"]
    total = [counted(len(rows), "tensor"), "", "", "", "", size(dense), size(stored), ratio(dense, stored)]
    return table(["name", "dtype", "shape", "layout", "zeros", "dense", "stored", "ratio"], rows, left=4, total=total)


@click.command()
@click.option("--measure", is_flag=True, help="Measure this machine first, and keep the result for predictions.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=10, show_default=True, help="How long --measure takes, about."
)
@quiet_option
@json_option
def config(measure: bool, seconds: float, quiet: bool, as_json: bool) -> None:
    """Print versions, kernels and threads.

    A bug report needs these. --measure measures how fast this machine multiplies and decodes. codec plan --objective
    speed and codec breakeven --metric predict times from that. It prints the name of the file in which the result is
    kept.
    """
    facts = configuration()
    text = configuration_text()
    if measure:
        with Progress(100, "Measuring", quiet) as bar:
            done = [0]

            def told(share: float) -> None:
                step = int(100 * share) - done[0]
                done[0] += step
                bar.advance(step)

            profile_machine(seconds, progress=told)
        facts["profile"] = cache_path()
        text += f"\n{'profile':<12}{cache_path()}"
    emit(facts, lambda: text, as_json)


@click.command()
@click.option(
    "--model",
    type=source_file,
    help="Use the floating-point matrices of your own .safetensors file.",
)
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="Prune the weights to this share of zeros; 0 leaves them as they are.",
)
@quiet_option
@json_option
def demo(model: Path | None, sparsity: float, quiet: bool, as_json: bool) -> None:
    """Do the whole job on real weights, and measure it.

    The weights are pruned, saved, read back, compared bit for bit, and multiplied without being unpacked. Without
    --model they are those of the encoder of all-MiniLM-L6-v2, which is downloaded once (83 MB).
    """
    from codec import demo as demonstration  # zipfile, tempfile and subprocess are for this verb alone

    def echo(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    weights = demonstration.Weights(model, model.name) if model else demonstration.real_weights(echo)
    facts = demonstration.run(weights, sparsity=sparsity, echo=echo)
    emit(facts, lambda: _demo_text(facts), as_json)


def _demo_text(facts: dict[str, Any]) -> str:
    what, exact, machine = facts["weights"], facts["exact"], facts["machine"]
    zeros = percent(facts["pruned"]["zeros"])
    same = f"{exact['layers']} of {what['layers']} layers came back bit for bit under zero={exact['zero']!r}"
    chosen = {k: ", ".join(f"{name} ({n})" for name, n in names.items()) for k, names in facts["layouts"].items()}
    sizes = [
        [LABELS[name], size(row["bytes"]), f"{row['bits_per_weight']:.2f}", f"{row['ratio']:.2f}x"]
        for name, row in facts["sizes"].items()
    ]
    times = [
        [LABELS[name], duration(row["seconds"]), f"{row['dense_mb_per_s']:,.0f} MB/s"]
        for name, row in facts["times"].items()
    ]
    products = [
        [
            f"{PASSES[name]}, {counted(run['threads'], 'thread')}",
            str(run["batch"]),
            duration(run[name]["seconds"]),
            f"{_times_numpy(facts, run, name):.2f}x",
            f"{run[name]['worst_error']:.1e}",
        ]
        for run in sorted(facts["products"], key=lambda run: run["batch"])
        for name in PASSES
    ]
    lines = [
        f"{what['title']}: {counted(what['layers'], 'layer')}, {counted(what['weights'], 'weight')}, {zeros} zeros",
        f"Layouts for disk: {chosen['disk']}; for speed: {chosen['speed']}",
        f"{same}; {counted(exact['negative_zeros'], 'negative zero')} became +0.0",
        "",
        table(["size", "bytes", "bits/weight", "vs safetensors"], sizes),
        "",
        table(["step", "time", "of dense bytes"], times),
        "",
        table(["one pass over all layers", "batch", "time", "vs best numpy", "worst error"], products),
        *_slower(facts),
        "Medians of passes in turn; errors against float64, relative to the largest output of the layer.",
        f"Kernels: {machine['kernel']['kernel']}; steps ran on {counted(machine['kernel']['threads'], 'thread')}.",
    ]
    return "\n".join(lines)


def _times_numpy(facts: dict[str, Any], run: dict[str, Any], name: str) -> float:
    """How many times faster than NumPy: at its best, as more threads slow it down where cores are shared."""
    best = min(other["numpy"]["seconds"] for other in facts["products"] if other["batch"] == run["batch"])
    return float(best / run[name]["seconds"])


def _slower(facts: dict[str, Any]) -> list[str]:
    """A line for each batch at which codec, at its best, is slower than the dense product."""
    best: dict[tuple[int, str], float] = {}
    for run in sorted(facts["products"], key=lambda run: run["batch"]):
        for name in ("speed", "disk"):
            key = run["batch"], name
            best[key] = max(best.get(key, 0.0), _times_numpy(facts, run, name))
    return [
        f"At batch {batch}, {PASSES[name].replace(',', '')} is slower than the dense product: {times:.2f}x its speed."
        for (batch, name), times in best.items()
        if times < 1
    ]
