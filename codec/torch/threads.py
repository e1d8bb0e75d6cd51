"""The threads of the operators: those that torch itself computes with, where they are OpenMP's.

Such threads spin for milliseconds after each of torch's own loops. Threads of ours beside them would have to share
their CPUs, and two would be no faster than one.
"""

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from codec import kernels


def _parallel_region() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch computes with; None where it has no such."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        found = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # looked up in the libraries that torch is linked to
    except (OSError, AttributeError):
        return None
    return ctypes.cast(found, ctypes.c_void_p).value


_region = _parallel_region()
if _region is not None:
    kernels.lend_threads(_region)


def on_torchs_threads(run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same with its products on as many threads as torch's own loops have."""

    @wraps(run)
    def borrowing(*args: Any) -> torch.Tensor:
        kernels.borrow_threads(torch.get_num_threads())
        try:
            return run(*args)
        finally:
            kernels.borrow_threads(0)

    return borrowing


def thread_count(team: int) -> int:
    """How many of torch's threads a product takes: codec.threadpool_limits bounds them too."""
    return team if team == 1 else min(kernels.thread_count(None), team)
