"""Numbers as bits, the least significant first, and exponential Golomb and Rice codes of them (spec section 5.10)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from codec.errors import FormatError

Item = TypeVar("Item")

# Zeros before the first one of a code: numbers of more bits are refused.
MOST_ZEROS = 40


class BitReader:
    """Bits of bytes in order; past the end FormatError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._size, self.at = data, 8 * len(data), 0

    def bits(self, n: int) -> int:
        """A number of n bits."""
        begin, end = self.at, self.at + n
        if end > self._size:
            raise FormatError(f"{self._size // 8} bytes end within a number")
        self.at = end
        return int.from_bytes(self._data[begin // 8 : -(-end // 8)], "little") >> begin % 8 & (1 << n) - 1

    def zeros(self, most: int) -> int:
        """How many zeros stand before the next one, at most so many."""
        found = 0
        while not self.bits(1):
            found += 1
            if found > most:
                raise FormatError(f"more than {most} zeros in a code word")
        return found

    def golomb(self, k: int) -> int:
        """A number in the exponential Golomb code of order k."""
        zeros = self.zeros(MOST_ZEROS)
        return ((1 << zeros | self.bits(zeros)) - 1 << k) | self.bits(k)

    def rice(self, k: int, most: int) -> int:
        """A number of about ``most`` at most in the Rice code of order k."""
        return self.zeros(most >> k) << k | self.bits(k)

    def end(self) -> None:
        """FormatError unless only zeros that fill the last byte are left."""
        rest = self._size - self.at
        if rest >= 8 or self.bits(rest):
            raise FormatError(f"{self._size // 8} bytes do not end with their last number")


class BitWriter:
    """The inverse of `BitReader`."""

    def __init__(self) -> None:
        self._value, self._at = 0, 0

    def bits(self, value: int, n: int) -> None:
        """The last n bits of a number."""
        self._value |= (value & (1 << n) - 1) << self._at
        self._at += n

    def golomb(self, value: int, k: int) -> None:
        """A number in the exponential Golomb code of order k."""
        top = (value >> k) + 1
        n = top.bit_length() - 1
        self.bits(1 << n, n + 1)
        self.bits(top, n)
        self.bits(value, k)

    def rice(self, value: int, k: int) -> None:
        """A number in the Rice code of order k."""
        self.bits(1 << (value >> k), (value >> k) + 1)
        self.bits(value, k)

    def bytes(self) -> bytes:
        """All of them, up to a whole byte."""
        return self._value.to_bytes(-(-self._at // 8), "little")


def golomb_bits(value: int, k: int) -> int:
    """Bits of a number in the exponential Golomb code of order k."""
    return 2 * ((value >> k) + 1).bit_length() - 1 + k


def rice_bits(value: int, k: int) -> int:
    """Bits of a number in the Rice code of order k."""
    return (value >> k) + 1 + k


def best_order(values: Sequence[Item], orders: int, bits: Callable[[Item, int], int]) -> int:
    """The order below ``orders`` of the code that takes the fewest ``bits`` for values; of equal ones the lowest."""
    return min(range(orders), key=lambda k: sum(bits(value, k) for value in values))


def folded(number: int) -> int:
    """A signed number as one from 0 on."""
    return -2 * number - 1 if number < 0 else 2 * number


def unfolded(number: int) -> int:
    """The inverse of `folded`."""
    return -(number >> 1) - 1 if number & 1 else number >> 1
