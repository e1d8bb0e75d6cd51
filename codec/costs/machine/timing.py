"""How times are taken: the same in every measurement of a profile."""

from collections.abc import Callable
from time import thread_time

_MOST = 200  # runs
# What is measured of one row is measured so many times over, so that a moment's other work does not hit all of it.
ROUNDS = 2
Clock = Callable[[], float]


def seconds_of(call: Callable[[], object], budget: float, clock: Clock = thread_time) -> float:
    """The least of a call's times, of its own thread's processor time: other work on the machine does not count.

    Work of several threads needs another clock. The first run, which finds nothing in the caches, counts only where it
    takes more than the budget by itself.
    """
    end = clock() + budget
    times = [_once(call, clock)]
    if times[0] < budget:
        times = [_once(call, clock)]
    while clock() < end and len(times) < _MOST:
        times.append(_once(call, clock))
    return min(times)


def _once(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
