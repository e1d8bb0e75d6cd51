"""The codec for arrays of zarr 3, array to bytes: found by its entry point under the name "codec"."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin

from codec.errors import ArgumentError
from codec.formats.chunks import ID, Packing, unpack


@dataclass(frozen=True)
class ZarrCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Packs each chunk as one tensor. Of a chunk that is read in part only the segments that are needed are decoded.

    Examples
    --------
    >>> import zarr
    >>> how = {"shape": (64, 64), "chunks": (32, 32), "dtype": "f4", "compressors": None}
    >>> array = zarr.create_array({}, serializer=ZarrCodec(), **how)
    >>> array[:8] = 1
    >>> float(array[:].sum())
    512.0
    """

    packing: Packing = field(default_factory=Packing)
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From an array's metadata; ArgumentError for a configuration that is not known."""
        given = data.get("configuration", {})
        if data.get("name") != ID or not isinstance(given, dict):
            raise ArgumentError(f"{data!r} is not the metadata of the codec {ID!r}")
        return cls(Packing.of(given))

    def to_dict(self) -> dict[str, Any]:
        """For an array's metadata."""
        return {"name": ID, "configuration": self.packing.as_dict()}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """It depends on the elements, which zarr is to be told by this error."""
        raise NotImplementedError("the size of a packed chunk depends on its elements")

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.buffer.from_bytes(self.packing.pack(chunk_array.as_numpy_array()))

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return self._decoded(chunk_bytes, chunk_spec, ...)

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, chunk_spec: Any) -> Any:
        chunk_bytes = await byte_getter.get(prototype=chunk_spec.prototype)
        return None if chunk_bytes is None else self._decoded(chunk_bytes, chunk_spec, selection)

    def _decoded(self, chunk_bytes: Any, chunk_spec: Any, selection: Any) -> Any:
        dtype = chunk_spec.dtype.to_native_dtype()
        packed = unpack(chunk_bytes.as_numpy_array(), chunk_spec.shape, dtype.newbyteorder("<"))
        found = packed.to_dense() if selection is ... else packed[selection]
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(found, dtype, order="C"))
