"""What break_even compares beside bytes: seconds of products and of decoding on a machine, and joules.

Each metric is a row of METRICS: a function that gives the cost of a layout over the sparsity. Layout "dense" stands for
the way without codec: the fastest dense library's product, a copy of the dense tensor, or all its multiply-adds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from codec.costs.crossings import Cost
from codec.costs.energy import energy
from codec.costs.frames import frame_bytes
from codec.costs.machine import MachineProfile, cached
from codec.costs.operations import Layer
from codec.errors import ArgumentError
from codec.matrix import TensorSpec

DENSE = "dense"


@dataclass(frozen=True)
class Asked:
    """What is compared: a layout with its parameters, for one tensor, batch and machine."""

    layout: str
    params: Mapping[str, Any]
    spec: TensorSpec
    batch: int
    machine: MachineProfile | None

    @property
    def _bytes(self) -> Cost:
        return frame_bytes(self.layout, self.spec.shape, self.spec.element, self.spec.row_dims, self.params)

    def joules(self) -> Cost:
        """Energy by the 45 nm table: zero weights are read and multiplied by the dense way only."""
        layer, floats = Layer("matrix", self.spec.grid.rows, self.spec.grid.cols), self.spec.element.is_float
        if self.layout == DENSE:
            dense = self.spec.grid.size * self.spec.element.width
            constant = energy(layer.operations(), dense, batch=self.batch, floats=floats)
            return lambda sparsity: constant
        nbytes = self._bytes
        return lambda s: energy(layer.operations(sparsity=s), nbytes(s), batch=self.batch, floats=floats)

    def product(self) -> Cost:
        """Seconds of a product."""
        machine, size = self._known(), self.spec.grid.size
        if self.layout == DENSE:
            constant = machine.dense_seconds(self.spec, self.batch)
            return lambda sparsity: constant
        nbytes = self._bytes
        return lambda s: machine.product_seconds(
            self.layout, self.params, self.spec, size - round(s * size), int(nbytes(s)), self.batch
        )

    def decode(self) -> Cost:
        """Seconds to decode; of the dense tensor, to copy it."""
        machine, dense = self._known(), self.spec.grid.size * self.spec.element.width
        if self.layout == DENSE:
            return lambda sparsity: dense / machine.copy
        return lambda s: (
            machine.predict(
                "decode",
                layout=self.layout,
                shape=self.spec.shape,
                dtype=self.spec.element.dtype,
                sparsity=s,
                **self.params,
            ).seconds
        )

    def _known(self) -> MachineProfile:
        if self.machine is None:
            raise ArgumentError(
                "times need a machine profile: machine=codec.profile_machine(), or once `codec config --measure`"
            )
        return self.machine


METRICS: Mapping[str, Callable[[Asked], Cost]] = {
    "matvec": Asked.product,
    "matmul": Asked.product,
    "decode": Asked.decode,
    "energy": Asked.joules,
}


def machine_for(metric: str, machine: MachineProfile | None) -> MachineProfile | None:
    """The machine that was given, or the one that was measured before."""
    return machine if machine is not None or metric == "energy" else cached()
