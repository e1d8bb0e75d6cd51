"""Energy of a product by the published table of a 45 nm process (EIE, table I; Horowitz 2014)."""

from collections.abc import Mapping
from types import MappingProxyType

from codec.costs.operations import Operations

# Picojoules of one operation on 32 bits.
ENERGY_45NM: Mapping[str, float] = MappingProxyType(
    {
        "int add": 0.1,
        "float add": 0.9,
        "int multiply": 3.1,
        "float multiply": 3.7,
        "SRAM read": 5.0,  # of 32 KB
        "DRAM read": 640.0,  # LPDDR2
    }
)
_PICO = 1e-12
_WORD = 4  # bytes


def energy(operations: Operations, weight_bytes: float, *, batch: int = 1, floats: bool = True) -> float:
    """Joules of a batch of inputs.

    The stored weights are read from DRAM once for the whole batch, and the inputs and outputs once each; a multiply-add
    reads an activation from SRAM. Numbers other than weights have 32 bits.

    Parameters
    ----------
    operations : Operations
        For one input.
    weight_bytes : float
        Bytes that hold the weights, positions included.
    batch : int
    floats : bool
        Whether multiply-adds are those of floats, or of ints.

    Examples
    --------
    >>> from codec.costs.operations import Layer
    >>> dense = Layer("fc7", 4096, 4096)
    >>> round(1e3 * energy(dense.operations(), 4 * 4096**2), 1)
    10.9
    """
    kind = "float" if floats else "int"
    mac = ENERGY_45NM[f"{kind} multiply"] + ENERGY_45NM[f"{kind} add"] + ENERGY_45NM["SRAM read"]
    moved = weight_bytes / _WORD + batch * (operations.accesses - operations.parameters)
    return _PICO * (moved * ENERGY_45NM["DRAM read"] + batch * operations.macs * mac)
