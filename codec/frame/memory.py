"""Memory for frames."""

import numpy as np

from codec.frame.head import ALIGNMENT
from codec.kernels import SLACK


def aligned(length: int, at: int = 0, *, zeros: bool = False) -> np.ndarray:
    """So many bytes (uint8), of which byte ``at`` begins a cache line: what is aligned in a frame is so in memory.
    The memory goes on behind them.
    """
    block = (np.zeros if zeros else np.empty)(length + ALIGNMENT + SLACK, np.uint8)
    skip = -(block.ctypes.data + at) % ALIGNMENT
    return block[skip : skip + length]


def aligned_copy(data: np.ndarray) -> np.ndarray:
    """Bytes in such memory: kernels read a copy that begins elsewhere up to a quarter more slowly."""
    found = aligned(len(data))
    found[:] = data
    return found


def with_slack(data: np.ndarray) -> np.ndarray:
    """Bytes (uint8), and those that follow them in the array that they are a part of, up to SLACK of them.

    Kernels load whole registers: of a part behind which memory ends they make a copy.
    """
    whole = data
    while isinstance(below := whole.base.obj if isinstance(whole.base, memoryview) else whole.base, np.ndarray):
        whole = below
    if whole.dtype != np.uint8 or whole.ndim != 1 or not whole.flags.c_contiguous:
        return data
    at = data.ctypes.data - whole.ctypes.data
    return whole[at : at + len(data) + SLACK]
