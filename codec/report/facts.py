"""What a report shows, as plain data: the plans of a model, curves of its shapes, density maps, and advice in words."""

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isqrt, prod
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
# Cells of a density map along a side, at most and at least; and of all maps together, so that the page stays small.
_MAP, _SMALL_MAP, _CELLS = 40, 8, 1 << 19
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
    side = max(_SMALL_MAP, min(_MAP, isqrt(_CELLS // max(1, len(disk)))))
    faster = {one.name: _faster(one) for one in speed.choices}
    curves = [_curve(shape, dtype, times, disk.choices, faster, machine) for (shape, dtype), times in shapes[:_CURVES]]
    return {
        "name": name,
        "advice": advice(disk, speed, machine is not None),
        "curves": curves,
        "sparsities": SPARSITIES,
        "batches": BATCHES if machine is not None else (),
        "machine": None if machine is None else machine.cpu,
        "tensors": [
            _row(one, fast, _density_map(model, one, side))
            for one, fast in zip(disk.choices, speed.choices, strict=True)
        ],
        "nbytes": disk.nbytes,
        "dense_nbytes": disk.dense_nbytes,
    }


def advice(disk: Plan, speed: Plan, timed: bool) -> list[str]:
    """What to do, in words, the most important first; ``timed`` says whether the plan for speed knows times."""
    packed = sum(one.packed for one in disk.choices)
    large = [one for one in disk.choices if len(one.shape) >= 2]
    lines = ["Nothing to pack: no tensor would take fewer bytes than it does dense."]
    if packed:
        saved = f"{size(disk.nbytes)} in the place of {size(disk.dense_nbytes)}"
        smaller = ratio(disk.dense_nbytes, disk.nbytes)
        few = f"{packed:,} of {counted(len(disk), 'tensor')} are packed"
        lines = [f"Save it with codec encode: {saved}, without a loss ({smaller}). {few}."]
    if disk.collapsed:
        lines.append(f"Layer collapse: {_few(disk.collapsed)} hold nothing but zeros. Prune them less.")
    if slow := [one.name for one in large if not one.packed and (one.sparsity or 0) > 0]:
        few = counted(len(slow), "layer")
        lines.append(f"Packing would save little of {few} with zeros, so dense is the choice: {_few(slow)}.")
    lines += _to_run(speed) if timed else ["For times, measure this machine once: codec config --measure."]
    layers = [one for one in large if 0 not in one.shape and one.dtype in BY_NAME and one.tied_to is None]
    shapes = [(one.shape, BY_NAME[one.dtype].dtype) for one in layers]
    half = sparsity_for_bytes(shapes, sum(one.dense_nbytes for one in layers) / 2) if shapes else None
    if half is not None:
        zeros = sum(_size(one) * (one.sparsity or 0.0) for one in layers)
        share = percent(zeros / sum(map(_size, layers)))
        lines.append(f"Half of the dense size in memory needs {percent(half)} zeros in all layers; they have {share}.")
    return lines


def _to_run(speed: Plan) -> list[str]:
    """What a plan for speed says of running the model."""
    if speed.seconds is None:  # there are no layers
        return []
    gain = sum(one.packed for one in speed.choices)
    if not gain:
        return ["Run it dense: no layer is multiplied faster packed."]
    faster = ratio(sum(one.dense_seconds or 0.0 for one in speed.choices), speed.seconds)
    told = f"one product with each layer is {faster} as fast as with the dense library here"
    return [f"Run it packed: {told}. {counted(gain, 'layer')} gain by packing; the others stay dense."]


def _size(one: Choice) -> int:
    return prod(one.shape)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _shapes(choices: Sequence[Choice]) -> list[tuple[Shape, int]]:
    """The shapes of layers with how often they come, those with the most weights first."""
    large = [one for one in choices if len(one.shape) >= 2 and 0 not in one.shape and one.dtype in BY_NAME]
    found = Counter((one.shape, one.dtype) for one in large if one.tied_to is None)
    return sorted(found.items(), key=lambda item: -item[1] * prod(item[0][0]))


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
    if machine is not None and machine.multiplies(spec.element):
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
        "block": one.block,
        "dtype": one.dtype,
        "shape": "x".join(map(str, one.shape)) or "scalar",
        "zeros": _short(one.sparsity),
        "layout": f"tied to {one.tied_to}" if one.tied_to else one.label if one.packed else "stays dense",
        "dense": one.dense_nbytes,
        "nbytes": 0 if one.tied_to else one.nbytes,
        "pays": _short(one.pays_from),
        "fast": fast.label if fast.packed else "stays dense",
        "faster": _short(_faster(fast)),
        "seconds": _short(fast.seconds),
        "dense_seconds": _short(fast.dense_seconds),
        "why": one.why,
        "map": density,
    }


def _short(number: float | None) -> float | None:
    """With as many digits as are shown, and a few more."""
    return None if number is None else float(f"{number:.6g}")


def _faster(one: Choice) -> float | None:
    """How many times as fast as the dense library; None where nothing was timed."""
    return None if not one.seconds or one.dense_seconds is None else one.dense_seconds / one.seconds


def _density_map(model: ModelFile, one: Choice, side: int) -> dict[str, Any] | None:
    """Shares of non-zeros in a grid of cells, a byte each, in base64; and in which of them rows or columns are dead."""
    if len(one.shape) < 2 or 0 in one.shape or not can_be_counted(model.info(one.name)):
        return None
    stored = model.get_stored(one.name)
    array = stored.to_dense() if isinstance(stored, PackedTensor) else stored.array()
    grid = TensorSpec.of(array.dtype, array.shape).grid
    kept = array.reshape(grid.rows, grid.cols) != 0
    down, across = min(side, grid.rows), min(side, grid.cols)
    tops, lefts = (np.arange(n) * total // n for n, total in ((down, grid.rows), (across, grid.cols)))
    cells = np.add.reduceat(np.add.reduceat(kept, tops, axis=0, dtype=np.int32), lefts, axis=1)
    heights, widths = np.diff(tops, append=grid.rows), np.diff(lefts, append=grid.cols)
    share = cells / np.outer(heights, widths)
    return {
        "height": down,
        "width": across,
        "cells": base64.b64encode(np.rint(255 * share).astype(np.uint8).tobytes()).decode(),
        "rows": np.flatnonzero(np.add.reduceat(~kept.any(axis=1), tops)).tolist(),
        "cols": np.flatnonzero(np.add.reduceat(~kept.any(axis=0), lefts)).tolist(),
    }
