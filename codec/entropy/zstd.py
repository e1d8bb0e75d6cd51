"""zstd: each part is one zstandard frame of its bytes (spec section 6.1; RFC 8878)."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zstandard

from codec.entropy.base import Attempt, Coding, Items, KeyCounts, RawStream
from codec.errors import FormatError
from codec.kernels import SLACK

# The highest level that keeps 100 MB/s on every stream of pruned weights (an EPYC core, one thread: 137 MB/s at worst;
# level 9 falls to 28). Higher ones search for matches that such streams hardly have: level 9 is 2 % smaller on average
# (columns 8 %), and not smaller at all on gaps and 8-bit values.
LEVEL = 3
# The window that RFC 8878 (3.1.1.1.2) wants every decoder to grant; ours are smaller, as parts are.
WINDOW = 1 << 23
# Bytes of a stream that are tried before all of it is.
_SAMPLE = 1 << 16
# A raw, last block of 0 bytes (RFC 8878, 3.1.1.2).
_EMPTY_BLOCK = b"\x01\x00\x00"
# The two lowest bits of the byte behind the magic say how long a Dictionary_ID follows (RFC 8878, 3.1.1.1.1.6).
_DICTIONARY_FLAG = 3


class Zstd(Coding):
    """zstandard at one level; it has no state."""

    name = "zstd"
    number = 2

    def attempt(self, stream: RawStream, least: int | None) -> Attempt | None:
        """All parts compressed, after a sample from the middle where a size is to be beaten."""
        if not stream.nbytes:
            return None
        if least is not None:
            sample = stream.part(stream.parts // 2)[:_SAMPLE]
            if sample and len(compress(sample)) >= least / stream.nbytes * len(sample):
                return None
        parts = _each(stream.threads, compress, map(stream.part, range(stream.parts)))
        return Attempt(sum(map(len, parts)), None, lambda: stream.replace(parts))

    def predict(self, items: Items, counts: KeyCounts | None, nbytes: int, parts: int) -> None:
        """Nothing: what zstandard finds is not in the counts."""
        return

    def expand(
        self, parts: Sequence[np.ndarray], limit: int, threads: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parts decompressed side by side, each straight to its place in one buffer."""
        sizes = np.zeros(len(parts), np.int64)
        for number, part in enumerate(parts):
            try:
                sizes[number] = stated_size(part.data, limit)
            except FormatError as error:
                raise FormatError(error.message, offset=number) from None
        begins = np.cumsum(sizes) - sizes
        room = np.empty(int(sizes.sum()) + SLACK, np.uint8)
        room[-SLACK:] = 0

        def one(number: int) -> None:
            try:
                decompress_into(parts[number].data, room[begins[number] : begins[number] + sizes[number]])
            except FormatError as error:
                raise FormatError(error.message, offset=number) from None

        _each(threads, one, range(len(parts)))
        return room, begins.astype(np.uint64), sizes.astype(np.uint32)


def _each(threads: int, work: Callable[[Any], Any], over: Iterable[Any]) -> list[Any]:
    """The results in order, from up to so many threads: zstandard works without the interpreter's lock."""
    inputs = list(over)
    if threads < 2 or len(inputs) < 2:
        return list(map(work, inputs))
    with ThreadPoolExecutor(min(threads, len(inputs))) as pool:
        return list(pool.map(work, inputs))


def compress(part: Any) -> bytes:
    """One zstandard frame that states its size, without a checksum: there is one for every part already."""
    return zstandard.ZstdCompressor(LEVEL, write_content_size=True, write_checksum=False).compress(part)


def stated_size(part: Any, limit: int) -> int:
    """The bytes that a zstandard frame states; FormatError unless it is one frame of at most ``limit``, whole as far as
    its blocks' headers say, without dictionary or checksum.
    """
    raw = bytes(part[:64])
    try:
        frame = zstandard.get_frame_parameters(raw)
        start = zstandard.frame_header_size(raw)
    except zstandard.ZstdError as error:
        raise FormatError(f"not a zstandard frame: {error}") from error
    if raw[:4] != zstandard.FRAME_HEADER:
        raise FormatError("not a zstandard frame: a skippable one")
    if raw[4] & _DICTIONARY_FLAG or frame.has_checksum:
        raise FormatError("a zstandard frame with a dictionary or a checksum; expected neither")
    if frame.content_size > limit:  # an unknown size is the largest number there is
        raise FormatError(f"a zstandard frame of {frame.content_size} bytes; expected at most {limit}")
    if frame.window_size > (window := max(frame.content_size, WINDOW)):
        raise FormatError(f"a zstandard frame with a window of {frame.window_size} bytes; expected at most {window}")
    if (end := _end_of_blocks(part, start)) != len(part):
        raise FormatError(f"a damaged zstandard frame: its blocks end at byte {end} of {len(part)}")
    if frame.content_size == 0 and part[start:] != _EMPTY_BLOCK:  # zstandard reads no block of an empty frame
        raise FormatError("an empty zstandard frame is not one empty raw block")
    return int(frame.content_size)


def decompress_into(part: Any, out: np.ndarray) -> None:
    """The bytes of a frame whose ``stated_size`` is that of ``out``; FormatError where its blocks do not have them."""
    done, more = 0, b""
    try:
        if len(out):
            reader = zstandard.ZstdDecompressor().stream_reader(part)
            while done < len(out) and (found := reader.readinto(out[done:])):
                done += found
            more = reader.read(1)
    except zstandard.ZstdError as error:
        raise FormatError(f"a damaged zstandard frame: {error}") from error
    if done < len(out) or more:
        raise FormatError(f"a damaged zstandard frame: its blocks do not have the {len(out)} bytes that it states")


def _end_of_blocks(part: Any, start: int) -> int:
    """Where the last block of a frame ends (RFC 8878, 3.1.1.2); past the end of ``part`` if it is cut off."""
    end, last = start, False
    while not last and end + 3 <= len(part):
        header = int.from_bytes(part[end : end + 3], "little")
        last, run = bool(header & 1), header >> 1 & 3 == 1
        end += 3 + (1 if run else header >> 3)
    return end if last else len(part) + 1
