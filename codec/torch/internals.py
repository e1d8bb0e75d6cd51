"""The names of torch that are not public and that codec.torch needs, all in one place, with what each is for.

Another version of torch may lack one: that is said when codec.torch is imported. Beside these, layers are found and
replaced by what nn.Module has always had: ``_parameters``, ``_buffers``, ``_modules``, the dicts of its hooks,
``_apply`` and ``_load_from_state_dict``.
"""

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

# The version of torch that all tests have run with.
_TRIED = "2.13"

try:
    # What may want to see an operator: see `is_transformed` and `is_watched`.
    from torch._C import (
        _are_functorch_transforms_active,
        _get_tracing_state,
        _len_torch_dispatch_stack,
        _len_torch_function_stack,
    )

    # From the kernel for derivatives on to the kernels below it.
    from torch._C import _AutoDispatchBelowAutograd as BelowDerivatives

    # What allows the function below.
    from torch._C._functorch import (
        get_single_level_autograd_function_allowed as _is_allowed,
    )
    from torch._C._functorch import (
        set_single_level_autograd_function_allowed as _allow,
    )
    from torch.autograd import _profiler_enabled

    # Forward mode, which torch turns off inside of its transforms.
    from torch.autograd.forward_ad import _set_fwd_grad_enabled as set_forward_mode

    # torch.autograd.Function without its checks of arguments, which take longer than a product.
    from torch.autograd.function import _SingleLevelFunction as SingleLevelFunction

    # Whether the memory of a buffer is gone.
    from torch.multiprocessing.reductions import StorageWeakRef

    # Tensors that stand for zeros, without memory; how many levels of forward mode there are.
    _used = torch.Tensor._is_zerotensor, forward_ad._current_level
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"codec.torch does not run with torch {torch.__version__}, which lacks a name that it needs ({error}); it was "
        f"tried with torch {_TRIED}: pip install 'torch=={_TRIED}.*', or a newer codec"
    ) from error

__all__ = [
    "BelowDerivatives",
    "SingleLevelFunction",
    "StorageWeakRef",
    "apply",
    "is_transformed",
    "is_watched",
    "set_forward_mode",
]


def apply(function: type[SingleLevelFunction], *inputs: Any) -> torch.Tensor:
    """``function.apply(*inputs)``, which torch allows its own transforms alone unless it is told."""
    allowed = _is_allowed()
    _allow(True)
    try:
        found: torch.Tensor = function.apply(*inputs)
    finally:
        _allow(allowed)
    return found


def is_transformed() -> bool:
    """Whether something takes part between torch's kernels for derivatives and those that compute."""
    return bool(forward_ad._current_level >= 0 or _are_functorch_transforms_active() or _len_torch_dispatch_stack())


def is_watched() -> bool:
    """Whether something wants to see every operator: a compiler, tracer, forward mode, transform, mode or profiler."""
    return bool(
        is_compiling()
        or is_transformed()
        or _len_torch_function_stack()
        or _profiler_enabled()
        or _get_tracing_state() is not None
    )
