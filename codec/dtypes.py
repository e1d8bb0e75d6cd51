"""The element types of the format: their names in a file, their NumPy dtypes, and what their bits mean."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from codec.errors import ArgumentError


@dataclass(frozen=True)
class ElementType:
    """One element type (spec section 2).

    ``name`` is the safetensors name, ``number`` what stands for it in a frame; ``dtype`` the little-endian NumPy dtype;
    ``kind`` how the bits of an item are read by the entropy stage ("unsigned", "signed" or "float", spec section 6);
    ``nonzero_bits`` masks the bits that decide under ``zero="value"`` whether an item is non-zero (for floats all but
    the sign).
    """

    name: str
    number: int
    dtype: np.dtype
    kind: str
    is_float: bool

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def unsigned(self) -> np.dtype:
        """The unsigned integer dtype of the same width: the bits as a number."""
        return np.dtype(f"<u{self.width}")

    @property
    def sign_bit(self) -> int:
        """The pattern of -0.0, or 0 for a type without one."""
        return 1 << (8 * self.width - 1) if self.is_float else 0

    def nonzero_bits(self, zero: str) -> int:
        """Bits that decide whether an item is a zero under the rule ``zero`` ("value" or "bits")."""
        every = (1 << (8 * self.width)) - 1
        return every & ~self.sign_bit if zero == "value" else every


def _rows() -> list[ElementType]:
    floats = {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    }
    others = {f"{kind}{8 * w}": np.dtype(f"<{kind.lower()}{w}") for w in (1, 2, 4, 8) for kind in "IU"}
    others["BOOL"] = np.dtype(np.bool_)
    return [
        ElementType(name, number, dtype, _kind(name, dtype.itemsize), name in floats)
        for number, (name, dtype) in enumerate((floats | others).items())
    ]


def _kind(name: str, width: int) -> str:
    if width == 1:
        return "unsigned"
    return {"I": "signed", "U": "unsigned"}.get(name[0], "float")


BY_NAME = {row.name: row for row in _rows()}
_BY_DTYPE = {row.dtype: row for row in BY_NAME.values()}


def element_type(dtype: object) -> ElementType:
    """The element type of anything NumPy can read as a dtype, in either byte order.

    >>> element_type("bfloat16").name
    'BF16'

    Raises ArgumentError for a dtype that the format has no name for (object, complex, strings, structured).
    """
    if (known := _BY_DTYPE.get(dtype) if isinstance(dtype, np.dtype) else None) is not None:
        return known
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError as error:
        raise ArgumentError(f"{dtype!r} is not a dtype; expected one of {', '.join(map(str, _BY_DTYPE))}") from error
    row = _BY_DTYPE.get(found.newbyteorder("<") if found.byteorder == ">" else found)
    if row is None:
        raise ArgumentError(
            f"cannot code dtype {found}; expected one of {', '.join(map(str, _BY_DTYPE))}: convert the array first"
        )
    return row
