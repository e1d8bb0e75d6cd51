"""How times are taken.

What is measured is cut into groups of calls that take turns, round after round, until the time is used up. So the runs
of a call lie far apart, and what else the machine does for a moment spoils few of them.

A product is timed behind the same one with another matrix: code and x are in the caches then, weights where that matrix
left them, and the processor has not learned a matrix's branches, as happens to one that comes again and again and to no
layer of a network. Decoding, encoding and bandwidths are timed behind the same call.
"""

from collections.abc import Callable, Sequence
from math import inf
from time import thread_time

import numpy as np
import numpy.typing as npt

Call = Callable[[], object]
Clock = Callable[[], float]
_MOST = 200  # runs
# Of the times of a call. Other work on the machine only ever adds to a time, so the slower ones say less; but the least
# of many would be less than the least of few where a time depends on what else the caches do.
_QUARTILE = 0.25


class Group:
    """Calls that run one after the other, each once in a round.

    Parameters
    ----------
    calls : sequence of (int or None, function)
        With the number of the time that a call counts for; None: for none, it only brings operands into the caches.
    weight : float
        How much of the time the group gets, beside others.
    """

    def __init__(self, calls: Sequence[tuple[int | None, Call]], weight: float = 1.0) -> None:
        self._calls, self._weight = calls, weight
        numbers = {number for number, _ in calls if number is not None}
        self._times: list[list[float]] = [[] for _ in numbers]
        self._spent = 0.0

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Of each number, the lower quartile of its thread's processor time; inf before the first round."""
        return np.array([np.quantile(times, _QUARTILE) if times else inf for times in self._times])

    @property
    def had(self) -> float:
        """Seconds that it has had, by its weight."""
        return self._spent / self._weight

    def round(self) -> None:
        """Run each call once."""
        start = thread_time()
        for number, call in self._calls:
            if number is None:
                call()
            else:
                self._times[number].append(_once(call, thread_time))
        self._spent += thread_time() - start


def by_turns(pairs: Sequence[tuple[Call, Call]], first: int = 0) -> list[tuple[int | None, Call]]:
    """For a Group: products with two matrices of the same kind, each pair with another x, numbered from ``first`` on.

    That with the second matrix is timed behind that with the first. Before, the second has had two turns: weights that
    come from memory take more than one to settle in the last cache.
    """
    one, other = pairs[0]
    calls: list[tuple[int | None, Call]] = [(None, other), (None, one), (None, other)]
    for number, (one, other) in enumerate(pairs, first):
        calls += [(None, one), (number, other)]
    return calls


def warm_and_timed(calls: Sequence[Call]) -> list[tuple[int | None, Call]]:
    """For a Group: each call twice, first to bring what it needs into the caches."""
    return [run for number, call in enumerate(calls) for run in ((None, call), (number, call))]


def take_turns(groups: Sequence[Group], seconds: float) -> None:
    """Rounds of groups for so many seconds of processor time: the one that has had the least of it is always next."""
    end = thread_time() + seconds
    while groups and thread_time() < end:
        min(groups, key=lambda group: group.had).round()


def complete(groups: Sequence[Group]) -> None:
    """A round for each group that has had none."""
    for group in groups:
        if not group.had:
            group.round()


def seconds_of(call: Call, budget: float, clock: Clock = thread_time) -> float:
    """The least of a call's times in so many seconds, of its own thread's processor time: other work does not count.

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


def _once(call: Call, clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
