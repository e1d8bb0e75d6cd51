"""The arrays of Core ML's operation constexpr_sparse_to_dense, as STEM.nonzero_data, STEM.mask and STEM.shape.

A bit for each element in row-major order from the lowest of each byte on, without gaps between rows: unlike in
compressed-tensors a row does not begin on a byte. Source: coremltools, iOS16 and iOS18 operations.
"""

import numpy as np

from codec.errors import ArgumentError, FormatError
from codec.formats.positions import from_mask, to_mask
from codec.formats.safetensors import Companions, Parts
from codec.packed import PackedTensor


class CoreML(Companions):
    """The three inputs of the operation; the mask as iOS 16 has it, one list of bytes."""

    name = "coreml"
    summary = "the inputs of Core ML's constexpr_sparse_to_dense (iOS 16): non-zeros, and a bit for each element"
    reads = writes = ("F32", "F16", "I8", "U8")
    parts = ("nonzero_data", "mask", "shape")
    marks = ("nonzero_data",)
    element_bits = 1

    def check(self, name: str, packed: PackedTensor) -> None:
        """Also that its sizes are numbers of 32 bits."""
        super().check(name, packed)
        if max(packed.shape, default=0) >= 1 << 32:
            raise ArgumentError(f"{self.name} has shapes of 32-bit numbers; this tensor has shape {packed.shape}")

    def split(self, packed: PackedTensor) -> Parts:
        """One line of bits for the whole tensor."""
        mask, values = to_mask(packed, packed.size)
        return {
            "nonzero_data": values,
            "mask": mask.reshape(-1),
            "shape": np.array(packed.shape, np.uint32),
        }

    def join(self, parts: Parts) -> PackedTensor:
        """FormatError for parts that do not belong together."""
        shape, values = parts["shape"], parts["nonzero_data"]
        if shape.dtype != np.uint32 or shape.ndim != 1 or values.ndim != 1:
            raise FormatError(f"shape is {shape.dtype} of shape {shape.shape}; expected a list of uint32")
        size = int(np.prod(shape.astype(object), initial=1))
        if parts["mask"].ndim != 1 or 8 * parts["mask"].size - size not in range(8):
            raise FormatError(f"a mask of shape {parts['mask'].shape} for {size} elements; expected a bit for each")
        return from_mask(shape.tolist(), parts["mask"], size, values)
