"""How the items of a stream are cut into symbols and raw bits, whatever codes the symbols (spec sections 6.2, 6.3)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from codec.entropy.base import KINDS, Items
from codec.errors import FormatError

# Symbols of a code; raw bits per item (one 64-bit load, shifted by up to 7, holds them).
SYMBOLS, FIELD = 256, 56


@dataclass(frozen=True)
class Split(ABC):
    """The cut of one stream's items; a code of its symbols adds what it needs.

    A key is ``(first + symbol) << (low + zeros) | raw << zeros``: the item if unsigned, the item with its sign bit
    inverted if signed, the item without its sign bit if float.

    Parameters
    ----------
    width : int
        Bytes of an item: 1, 2, 4 or 8.
    kind : {"unsigned", "signed", "float"}
        How an item's bits are read.
    low, zeros : int
        Raw bits of a key, and the bits below them, which are zero in every key and not stored.
    first : int
        What symbol 0 stands for.

    Raises
    ------
    FormatError
        If these and the code do not fit together: an instance is always one that can be used.
    """

    width: int
    kind: str
    low: int
    zeros: int
    first: int

    def __post_init__(self) -> None:
        if self.width not in (1, 2, 4, 8) or self.kind not in KINDS or (self.kind == "float" and self.width == 1):
            raise FormatError(f"no code for {self.kind} items of {self.width} bytes")
        bits = Items(self.width, self.kind).key_bits
        for name, value in (("low", self.low), ("zeros", self.zeros), ("first", self.first)):
            if type(value) is not int or value < 0:
                raise FormatError(f"{name} of a code is {value!r}, not an integer from 0")
        if self.low + self.zeros >= bits:
            raise FormatError(f"a code that codes no bit: {self.low} raw and {self.zeros} zero bits of {bits}")
        if self.field > FIELD:
            raise FormatError(f"a code with {self.field} raw bits per item; at most {FIELD} are allowed")
        if not 1 <= self.symbols <= SYMBOLS:
            raise FormatError(f"a code of {self.symbols} symbols; 1 to {SYMBOLS} are allowed")
        room = 1 << (bits - self.low - self.zeros)
        if self.first + self.symbols > room:
            raise FormatError(f"symbols of a code go up to {self.first + self.symbols - 1}; expected below {room}")

    @property
    @abstractmethod
    def symbols(self) -> int:
        """Number of symbols, with those that do not occur."""

    @property
    def field(self) -> int:
        """Raw bits of an item: the low bits of its key, and the sign of a float."""
        return self.low + (self.kind == "float")

    def check(self, items: Items) -> None:
        """FormatError where a symbol stands for more than items of less than a byte can hold."""
        top = items.key_bits - self.low - self.zeros
        if items.bits and (top < 1 or self.first + self.symbols > 1 << top):
            raise FormatError(f"a code for items above {items.bits} bits")
