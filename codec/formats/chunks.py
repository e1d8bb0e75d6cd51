"""How a codec for the chunks of an array packs them: the arguments that zarr's and numcodecs' codecs have in common."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from codec.encoding.request import check_objective
from codec.errors import ArgumentError, FormatError
from codec.layouts import LAYOUTS
from codec.matrix import check_zero
from codec.packed import PackedTensor
from codec.tensor import dumps, encode, loads

ID = "codec"  # what both libraries call it


@dataclass(frozen=True)
class Packing:
    """How each chunk becomes a packed tensor.

    Attributes
    ----------
    objective, layout : str
        As for `codec.encode`.
    zero : {"bits", "value"}
        By default "bits": every bit comes back. "value" makes +0.0 of -0.0.
    """

    objective: str = "disk"
    layout: str = "auto"
    zero: str = "bits"

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_zero(self.zero)
        if not isinstance(self.layout, str) or (self.layout != "auto" and self.layout not in LAYOUTS):
            raise ArgumentError(f"layout={self.layout!r}; expected auto or one of {', '.join(LAYOUTS)}")

    @classmethod
    def of(cls, given: dict[str, Any]) -> Self:
        """From the configuration that a file records; ArgumentError for one that is not known."""
        if unknown := given.keys() - cls().as_dict().keys():
            raise ArgumentError(
                f"the configuration of {ID!r} has {', '.join(sorted(unknown))}, which is not known here"
            )
        return cls(**given)

    def as_dict(self) -> dict[str, str]:
        """What a file records."""
        return asdict(self)

    def pack(self, chunk: Any) -> bytes:
        """The frame of a chunk."""
        return dumps(encode(np.asarray(chunk), objective=self.objective, layout=self.layout, zero=self.zero))


def unpack(data: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> PackedTensor:
    """The packed tensor of a frame; FormatError for a frame of another shape or dtype than the array has."""
    packed = loads(data)
    if (shape is not None and packed.shape != shape) or (dtype is not None and packed.dtype != np.dtype(dtype)):
        raise FormatError(f"a chunk of {packed.dtype} and shape {packed.shape}; the array says {dtype} and {shape}")
    return packed
