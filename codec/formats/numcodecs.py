"""The codec for numcodecs, and with it for arrays of zarr 2: found by its entry point under the id "codec"."""

from typing import Any, ClassVar, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_ndarray, ndarray_copy

from codec.errors import FormatError
from codec.formats.chunks import ID, Packing, unpack


class NumcodecsCodec(Codec):
    """Packs each chunk as one tensor; it has to come first, as it needs the array's dtype and shape.

    Parameters
    ----------
    objective, layout, zero
        See `codec.formats.chunks.Packing`.

    Examples
    --------
    >>> codec = NumcodecsCodec(objective="memory")
    >>> codec.decode(codec.encode(np.eye(3))).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    codec_id: ClassVar[str] = ID

    def __init__(self, objective: str = "disk", layout: str = "auto", zero: str = "bits") -> None:
        self.packing = Packing(objective, layout, zero)

    def encode(self, buf: Any) -> bytes:
        """The frame of an array, in the order of its memory; ArgumentError for a dtype that the format does not have.

        Of an array that lies column by column the transpose is packed: numcodecs' callers go by the memory.
        """
        array = np.asarray(ensure_ndarray(buf))
        return self.packing.pack(array.T if array.flags.f_contiguous else array)

    def decode(self, buf: Any, out: Any = None) -> np.ndarray:
        """The array of a frame, in the order of the memory that it had; FormatError if it does not fill ``out``."""
        packed = unpack(np.asarray(ensure_ndarray(buf)).reshape(-1).view(np.uint8))
        if out is None:
            return packed.to_dense()
        if packed.dense_nbytes != (size := ensure_ndarray(out).nbytes):
            raise FormatError(f"a chunk of {packed.dense_nbytes} bytes; the array has {size} for it")
        return ndarray_copy(packed.to_dense(), out)  # type: ignore[no-any-return, unused-ignore]

    def get_config(self) -> dict[str, str]:
        """What is recorded in an array's metadata."""
        return {"id": ID, **self.packing.as_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """From what is recorded."""
        return cls(**Packing.of({key: value for key, value in config.items() if key != "id"}).as_dict())
