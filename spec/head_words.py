"""Section 1 of format.md, plainly: limits, refusing, checksums, msgpack; and the codes of numbers of section 5.10."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack

# The table of limits.
LIMITS = {
    "integer": 2**63 - 1,
    "first": 2**64 - 1,
    "dimensions": 32,
    "header": 2**20,
    "segment": 2**22,
    "symbols": 256,
    "code word": 12,
}
LIMITS |= {"raw field": 56, "window": 2**23, "JSON header": 10**8, "nesting": 127, "name": 1024, "checksum": 2**32 - 1}


class SpecError(ValueError):
    """Bytes that format.md says to refuse; ``reason`` is "version", "checksum" or "format"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def refuse(message: str, reason: str = "format") -> NoReturn:
    raise SpecError(reason, message)


def need(condition: bool, message: str, reason: str = "format") -> None:
    if not condition:
        refuse(message, reason)


def _crc_row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_row(byte) for byte in range(256)]


def crc32c(data: bytes, more: bytes = b"") -> int:
    """CRC-32C of data, then more."""
    crc = 0xFFFFFFFF
    for piece in (data, more):
        for byte in piece:
            crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def up(number: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``number``."""
    return -(-number // multiple) * multiple


def unpack(data: bytes) -> tuple[Any, int]:
    """The canonical msgpack that bytes start with, as far as it can be judged without its meaning, and its length."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    try:
        unpacker.feed(data)
        value = unpacker.unpack()
        used = unpacker.tell()
        same = msgpack.packb(value) == data[:used]
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        refuse(f"no msgpack: {error}")
    need(same, "msgpack is not minimal")
    return value, used


def items(value: Any, keys: tuple[str, ...], where: str) -> list[Any]:
    need(type(value) is list and len(value) == len(keys), f"{where}: expected an array of {keys}")
    return list(value)


def numbered(value: Any, names: Iterable[str], where: str) -> str:
    """What stands for a number."""
    listed = list(names)
    return listed[integer(value, where, len(listed) - 1)]


def integer(value: Any, where: str, limit: int = LIMITS["integer"]) -> int:
    need(type(value) is int and 0 <= value <= limit, f"{where}: expected an integer of 0 to {limit}, found {value!r}")
    return int(value)


def integers(value: Any, where: str, limit: int = LIMITS["integer"]) -> list[int]:
    need(type(value) is list, f"{where}: expected an array")
    return [integer(one, where, limit) for one in value]


@dataclass
class Bits:
    """Bits of bytes in order: section 5.10, codes of numbers."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> int:
        need(self.at + count <= 8 * len(self.data), "a number ends behind its bytes")
        found = 0
        for number in range(count):
            place = self.at + number
            found |= (self.data[place // 8] >> place % 8 & 1) << number
        self.at += count
        return found

    def zeros(self) -> int:
        count = 0
        while self.take(1) == 0:
            count += 1
        return count

    def g(self, order: int) -> int:
        more = self.zeros()
        need(more <= 40, "a Golomb code of too many bits")
        q = (1 << more) + self.take(more)
        return (q - 1 << order) + self.take(order)

    def r(self, order: int) -> int:
        return (self.zeros() << order) + self.take(order)


def unfolded(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number + 1) // 2
