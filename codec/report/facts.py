"""What a report shows, as plain data: the plans of a model, curves of its shapes, density maps, and advice in words."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from codec.costs.frames import contenders, frame_bytes
from codec.costs.inverse import sparsity_for_bytes
from codec.costs.machine import MachineProfile
from codec.costs.options import named
from codec.costs.plan import Choice, Plan
from codec.costs.planner import plan
from codec.costs.tensors import can_be_counted
from codec.dtypes import BY_NAME
from codec.layouts import make_layout
from codec.matrix import TensorSpec
from codec.model import ModelFile
from codec.packed import PackedTensor
from codec.units import counted, percent, ratio, size

SPARSITIES = (*(round(0.05 * n, 2) for n in range(20)), 0.98, 0.99)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MAP = 40  # cells of a density map along a side
_CURVES = 6  # shapes that have curves and predictions: those with the most weights

Shape = tuple[tuple[int, ...], str]


def facts_of(
    model: ModelFile, name: str, machine: MachineProfile | None, progress: Callable[[str, Any], object] | None = None
) -> dict[str, Any]:
    """All that the page shows of a model.

    Parameters
    ----------
    model : ModelFile
        Open.
    name : str
        What the page calls it.
    machine : MachineProfile or None
        For times; without one the page has none.
    progress : callable, optional
        As for ``plan``.
    """
    disk = plan(model, objective="disk", progress=progress)
    speed = plan(model, objective="speed", machine=machine)
    shapes = _shapes(disk.choices)
    faster = {one.name: _faster(one) for one in speed.choices}
    curves = [_curve(shape, dtype, times, disk.choices, faster, machine) for (shape, dtype), times in shapes[:_CURVES]]
    return {
        "name": name,
        "advice": advice(disk, speed),
        "curves": curves,
        "sparsities": SPARSITIES,
        "batches": BATCHES if machine is not None else (),
        "machine": None if machine is None else machine.cpu,
        "tensors": [
            _row(one, fast, _density_map(model, one)) for one, fast in zip(disk.choices, speed.choices, strict=True)
        ],
        "nbytes": disk.nbytes,
        "dense_nbytes": disk.dense_nbytes,
    }


def advice(disk: Plan, speed: Plan) -> list[str]:
    """What to do, in words, the most important first."""
    packed = [one for one in disk.choices if one.packed]
    large = [one for one in disk.choices if len(one.shape) >= 2]
    smaller = ratio(disk.dense_nbytes, disk.nbytes)
    saved = f"{size(disk.nbytes)} in the place of {size(disk.dense_nbytes)}, {smaller} smaller"
    kept = f"{counted(len(packed), 'tensor')} of {len(disk)} are packed, the others stay as they are"
    lines = [f"Save it with codec encode: {saved}, without a loss. {kept}."]
    if disk.collapsed:
        lines.append(f"Layer collapse: {_few(disk.collapsed)} hold nothing but zeros. Prune them less.")
    if slow := [one.name for one in large if not one.packed and (one.sparsity or 0) > 0]:
        few = counted(len(slow), "layer")
        lines.append(f"{few} with zeros would get little smaller by packing, and stay dense: {_few(slow)}.")
    if speed.seconds is not None:
        faster = ratio(sum(one.dense_seconds or 0.0 for one in speed.choices), speed.seconds)
        few = counted(sum(one.packed for one in speed.choices), "layer")
        lines.append(
            f"Run it packed: one product with each layer is {faster} as fast as the dense library here. "
            f"{few} gain, the others stay dense."
        )
    else:
        lines.append("For times, measure this machine once: codec config --measure.")
    counts = {one.name: _elements(one) for one in large if one.dtype in BY_NAME}
    shapes = {one.name: (one.shape, BY_NAME[one.dtype].dtype) for one in large if counts.get(one.name)}
    half = sparsity_for_bytes(shapes, sum(one.dense_nbytes for one in large) / 2) if shapes else None
    if half is not None:
        zeros = sum(counts[one.name] * (one.sparsity or 0.0) for one in large if one.name in shapes)
        share = percent(zeros / sum(counts.values()))
        lines.append(f"Half of the dense size in memory needs {percent(half)} zeros in all layers; they have {share}.")
    return lines


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _elements(one: Choice) -> int:
    return prod(one.shape)


def _shapes(choices: Sequence[Choice]) -> list[tuple[Shape, int]]:
    """The shapes of layers with how often they come, those with the most weights first."""
    large = [one for one in choices if len(one.shape) >= 2 and _elements(one) and one.dtype in BY_NAME]
    found = Counter((one.shape, one.dtype) for one in large)
    weights = {(one.shape, one.dtype): _elements(one) for one in large}
    return sorted(found.items(), key=lambda item: -item[1] * weights[item[0]])


def _curve(
    shape: tuple[int, ...],
    dtype: str,
    times: int,
    choices: Sequence[Choice],
    faster: Mapping[str, float | None],
    machine: MachineProfile | None,
) -> dict[str, Any]:
    """Bytes, and times by batch, of every layout over the sparsity."""
    spec = TensorSpec.of(BY_NAME[dtype].dtype, shape)
    elements = spec.grid.size
    sides = [one for one in contenders() if one[0] != "dense" and not make_layout(*one).always_coded]
    costs = {named(*one): frame_bytes(one[0], shape, spec.element, spec.row_dims, one[1]) for one in sides}
    found: dict[str, Any] = {
        "shape": "x".join(map(str, shape)),
        "dtype": dtype,
        "times": times,
        "dense_nbytes": elements * spec.element.width,
        "elements": elements,
        "bytes": {label: [int(cost(s)) for s in SPARSITIES] for label, cost in costs.items()},
        "layers": [
            {"name": one.name, "sparsity": one.sparsity, "bits": 8 * one.nbytes / elements, "faster": faster[one.name]}
            for one in choices
            if one.shape == shape and one.dtype == dtype and one.sparsity is not None
        ],
        "seconds": [],
        "dense_seconds": [],
    }
    if machine is not None:
        found["seconds"] = [[_fastest(machine, spec, s, batch) for s in SPARSITIES] for batch in BATCHES]
        found["dense_seconds"] = [machine.dense_seconds(spec, batch) for batch in BATCHES]
    return found


def _fastest(machine: MachineProfile, spec: TensorSpec, sparsity: float, batch: int) -> float:
    """Seconds of the fastest layout."""
    nnz = spec.grid.size - round(sparsity * spec.grid.size)

    def seconds(name: str, params: Mapping[str, Any]) -> float:
        nbytes = int(frame_bytes(name, spec.shape, spec.element, spec.row_dims, params)(sparsity))
        return machine.product_seconds(name, params, spec, nnz, nbytes, batch)

    return min(seconds(*one) for one in machine.executed())


def _row(one: Choice, fast: Choice, density: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": one.name,
        "dtype": one.dtype,
        "shape": "x".join(map(str, one.shape)) or "scalar",
        "zeros": one.sparsity,
        "layout": f"tied to {one.tied_to}" if one.tied_to else one.label if one.packed else "stays dense",
        "dense": one.dense_nbytes,
        "nbytes": 0 if one.tied_to else one.nbytes,
        "pays": one.pays_from,
        "fast": fast.label if fast.packed else "stays dense",
        "faster": _faster(fast),
        "why": one.why,
        "map": density,
    }


def _faster(one: Choice) -> float | None:
    """How many times as fast as the dense library; None where nothing was timed."""
    return None if not one.seconds or one.dense_seconds is None else one.dense_seconds / one.seconds


def _density_map(model: ModelFile, one: Choice) -> dict[str, Any] | None:
    """Shares of non-zeros in a grid of cells (0 to 255), and in which of them whole rows or columns are dead."""
    if len(one.shape) < 2 or not _elements(one) or not can_be_counted(model.info(one.name)):
        return None
    stored = model.get_stored(one.name)
    array = stored.to_dense() if isinstance(stored, PackedTensor) else stored.array()
    grid = TensorSpec.of(array.dtype, array.shape).grid
    kept = array.reshape(grid.rows, grid.cols) != 0
    down, across = min(_MAP, grid.rows), min(_MAP, grid.cols)
    tops, lefts = (np.arange(n) * total // n for n, total in ((down, grid.rows), (across, grid.cols)))
    cells = np.add.reduceat(np.add.reduceat(kept, tops, axis=0, dtype=np.int32), lefts, axis=1)
    heights, widths = np.diff(tops, append=grid.rows), np.diff(lefts, append=grid.cols)
    share = cells / np.outer(heights, widths)
    return {
        "cells": np.rint(255 * share).astype(np.uint8).tolist(),
        "rows": (np.add.reduceat(~kept.any(axis=1), tops) > 0).astype(int).tolist(),
        "cols": (np.add.reduceat(~kept.any(axis=0), lefts) > 0).astype(int).tolist(),
    }
