"""Numbers as bits, the least significant first, and exponential Golomb codes of them (spec section 5.10)."""

from codec.errors import FormatError

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

    def golomb(self, k: int) -> int:
        """A number in the code of order k."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
            if zeros > MOST_ZEROS:
                raise FormatError(f"a number of more than {MOST_ZEROS} bits")
        return ((1 << zeros | self.bits(zeros)) - 1 << k) | self.bits(k)

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
        """A number of n bits."""
        self._value |= value << self._at
        self._at += n

    def golomb(self, value: int, k: int) -> None:
        """A number in the code of order k."""
        top = (value >> k) + 1
        n = top.bit_length() - 1
        self.bits(1 << n, n + 1)
        self.bits(top - (1 << n), n)
        self.bits(value & (1 << k) - 1, k)

    def bytes(self) -> bytes:
        """All of them, up to a whole byte."""
        return self._value.to_bytes(-(-self._at // 8), "little")


def golomb_bits(value: int, k: int) -> int:
    """Bits of a number in the code of order k."""
    return 2 * ((value >> k) + 1).bit_length() - 1 + k


def folded(number: int) -> int:
    """A signed number as one from 0 on."""
    return -2 * number - 1 if number < 0 else 2 * number


def unfolded(number: int) -> int:
    """The inverse of `folded`."""
    return -(number >> 1) - 1 if number & 1 else number >> 1
