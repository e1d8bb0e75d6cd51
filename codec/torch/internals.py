"""The names of torch that are not public and that codec.torch needs, all in one place, with what each is for.

Another version of torch may lack one: that is said when codec.torch is imported. Beside these, layers are found and
replaced by what nn.Module has always had: ``_parameters``, ``_buffers``, ``_modules``, the dicts of its hooks,
``_apply`` and ``_load_from_state_dict``; and threads.py asks for the file of ``torch._C``.
"""

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

# The version of torch that all tests have run with.
_TRIED = "2.13"

try:
    import torch._C as _C
    import torch._C._functorch as _functorch
    from torch.autograd import function as _function
    from torch.multiprocessing import reductions as _reductions

    # What may want to see an operator: see `is_transformed` and `is_watched`.
    _are_transforms_active = _C._are_functorch_transforms_active
    _dispatch_modes, _function_modes = _C._len_torch_dispatch_stack, _C._len_torch_function_stack
    _tracing_state, _is_profiled = _C._get_tracing_state, torch.autograd._profiler_enabled
    # From the kernel for derivatives on to the kernels below it; forward mode, which torch turns off in its transforms.
    BelowDerivatives, set_forward_mode = _C._AutoDispatchBelowAutograd, forward_ad._set_fwd_grad_enabled
    # torch.autograd.Function without its checks of arguments, which take longer than a product; and what allows it.
    SingleLevelFunction: Any = _function._SingleLevelFunction
    _is_allowed = _functorch.get_single_level_autograd_function_allowed
    _allow = _functorch.set_single_level_autograd_function_allowed
    # Whether the memory of a buffer is gone.
    StorageWeakRef: Any = _reductions.StorageWeakRef
    # Used where they stand: tensors that stand for zeros, without memory; how many levels of forward mode there are.
    _used = torch.Tensor._is_zerotensor, forward_ad._current_level
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"codec.torch does not run with torch {torch.__version__}, which lacks a name that it needs ({error}); it was "
        f"tried with torch {_TRIED}: pip install 'torch=={_TRIED}.*', or a newer codec"
    ) from error


def apply(function: Any, *inputs: Any) -> torch.Tensor:
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
    return bool(forward_ad._current_level >= 0 or _are_transforms_active() or _dispatch_modes())


def is_watched() -> bool:
    """Whether something wants to see every operator: a compiler, tracer, forward mode, transform, mode or profiler."""
    return bool(
        is_compiling() or is_transformed() or _function_modes() or _is_profiled() or _tracing_state() is not None
    )
