"""How times are taken: the same in every measurement of a profile."""

from collections.abc import Callable, Sequence
from time import thread_time

_MOST = 200  # runs
Clock = Callable[[], float]


def seconds_of(call: Callable[[], object], budget: float, clock: Clock = thread_time) -> float:
    """The least of a call's times, of its own thread's processor time: other work on the machine does not count.

    Work of several threads needs another clock. The first run, which finds nothing in the caches, counts only where it
    takes more than the budget by itself.
    """
    end = clock() + budget
    times = [_once(call, clock)]
    if times[0] < budget:
        times = [_once(call, clock), _once(call, clock)]
    while clock() < end and len(times) < _MOST:
        times.append(_once(call, clock))
    return min(times)


def _once(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def split(
    tall: Sequence[float], square: Sequence[float], tall_rows: int, square_rows: int
) -> tuple[tuple[float, ...], list[float]]:
    """Seconds of a row, and what is left without rows, from two matrices of as many elements, by batch."""
    rows = tuple(max(0.0, (a - b) / (tall_rows - square_rows)) for a, b in zip(tall, square, strict=True))
    return rows, [b - square_rows * row for b, row in zip(square, rows, strict=True)]
