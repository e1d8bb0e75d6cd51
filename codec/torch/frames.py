"""The packed tensor that lies in a torch buffer: proved at its first use, and remembered while the buffer lives.

An operator gets tensors and nothing else, also from torch.compile and from exported programs. So what is known of a
buffer's frame is found by the buffer's memory.
"""

import ctypes
import weakref
from dataclasses import dataclass

import numpy as np
import torch

from codec.arraylike import from_torch
from codec.errors import ArgumentError
from codec.frame.head import PREFIX
from codec.packed import PackedTensor
from codec.torch.internals import StorageWeakRef

# How many buffers are known before those that are gone are looked for.
_FIRST_SWEEP = 256


@dataclass(frozen=True)
class _Known:
    """What is known of the memory of one buffer.

    ``packed`` views the memory without holding it, as holding it here would keep every buffer for ever. ``prefix``, the
    frame's first bytes, has the checksum of its head, and the head those of all parts: as long as it stands there, the
    frame is the one that was proved. ``buffer`` is the tensor that had it then: where it comes again, the memory lives.
    """

    packed: PackedTensor
    nbytes: int
    buffer: weakref.ref[torch.Tensor]
    storage: StorageWeakRef
    prefix: bytes
    view: memoryview


_known: dict[int, _Known] = {}
_sweep_at = _FIRST_SWEEP


def frame_in(weight: torch.Tensor) -> PackedTensor:
    """The packed tensor in a buffer, to be used while the buffer lives and no longer.

    Parameters
    ----------
    weight : torch.Tensor, (nbytes,), uint8
        One frame, in the memory of the CPU. Changes in place are noticed if they bring another frame.

    Raises
    ------
    ArgumentError
        If it is no buffer of bytes on the CPU.
    FormatError, ChecksumError, VersionError
        If its bytes are not a frame.
    """
    known = _known.get(weight.data_ptr()) if weight.is_cpu else None
    if (
        known is not None
        and known.nbytes == weight.numel()
        and known.view == known.prefix
        and (known.buffer() is weight or not known.storage.expired())
    ):
        return known.packed
    return _learn(weight)


def _learn(weight: torch.Tensor) -> PackedTensor:
    global _sweep_at
    check_buffer(weight)
    length, place = weight.numel(), weight.data_ptr()
    memory = np.frombuffer((ctypes.c_uint8 * length).from_address(place), np.uint8)
    packed = PackedTensor.of_frame(memory)
    view = memory[: PREFIX.size].data
    if len(_known) >= _sweep_at:
        for gone in [key for key, known in list(_known.items()) if known.storage.expired()]:
            _known.pop(gone, None)
        _sweep_at = max(_FIRST_SWEEP, 2 * len(_known))
    _known[place] = _Known(
        packed, length, weakref.ref(weight), StorageWeakRef(weight.untyped_storage()), bytes(view), view
    )
    return packed


def check_buffer(weight: torch.Tensor) -> None:
    """ArgumentError if a tensor cannot hold a frame that is used here: it says how to get one that can."""
    if not isinstance(weight, torch.Tensor):
        raise ArgumentError(f"a packed weight is a {type(weight).__name__}; expected a tensor, uint8, (nbytes,)")
    if weight.device.type == "meta":
        raise ArgumentError("the packed weight is on the meta device, which holds no bytes: load the weights first")
    if not weight.numel():
        raise ArgumentError("the packed weight has no bytes: load a state_dict, or make the layer by from_dense")
    if weight.device.type != "cpu":
        raise ArgumentError(
            f"the packed weight is on device {weight.device}; packed weights are multiplied on the CPU: "
            "model.to('cpu'), or codec.torch.to_dense(model) before it moves"
        )
    if weight.dtype != torch.uint8 or weight.dim() != 1 or not weight.is_contiguous():
        raise ArgumentError(
            f"a packed weight is a {weight.dtype} tensor of shape {tuple(weight.shape)}; expected uint8, (nbytes,), "
            "contiguous: load a state_dict of packed weights, or pack a dense model with codec.torch.compress_model"
        )


def packed_of(weight: torch.Tensor) -> PackedTensor:
    """The packed tensor in a buffer, which holds the buffer's memory; errors as `frame_in`."""
    check_buffer(weight)
    return PackedTensor.of_frame(from_torch(weight))


def buffer_of(packed: PackedTensor) -> torch.Tensor:
    """A new torch buffer with the bytes of a packed tensor."""
    buffer = torch.empty(packed.nbytes, dtype=torch.uint8, device="cpu")
    buffer.numpy()[:] = packed._bytes
    return buffer


def release_memory() -> None:
    """Give back to the system what the C library holds of memory that is free, where it has a call for that.

    Each thread keeps what packing one tensor took for the next: for six layers 191 MB were held where 51 MB are packed.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
