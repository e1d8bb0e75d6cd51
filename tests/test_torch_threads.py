"""Products of torch's operators run on torch's threads, as many as it has, with the same result on any number."""

import os
import subprocess
import sys

import pytest

import codec

torch = pytest.importorskip("torch")

import codec.torch as ct  # noqa: E402
from codec.torch import threads  # noqa: E402

LENT = pytest.mark.skipif(
    threads._region is None or not os.path.exists("/proc/self/task"),
    reason="torch does not compute with OpenMP here, or nothing tells the threads of a process",
)


def test_threads_follow_torch_and_do_not_change_the_result() -> None:
    torch.manual_seed(0)
    dense = torch.nn.Linear(1024, 768)
    dense.weight.data *= torch.rand(768, 1024) < 0.2
    layer, x, before = ct.SparseLinear.from_dense(dense), torch.randn(40, 1024), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert threads.thread_count(torch.get_num_threads()) == 1
        one = layer(x)
        for team, limit, expected in ((2, 2, 2), (2, 1, 1), (3, 2, 2), (2, 3, 2)):
            torch.set_num_threads(team)
            with codec.threadpool_limits(limit), torch.no_grad():
                assert threads.thread_count(torch.get_num_threads()) == expected
                assert torch.equal(layer(x), one)
                assert torch.equal(layer(x.T.contiguous().T), one)  # the way of other strides
    finally:
        torch.set_num_threads(before)


ON_LENT = """
import os, signal, sys
import torch, codec.torch
torch.set_num_threads(3)
dense = torch.nn.Linear(1024, 768)
dense.weight.data *= torch.rand(768, 1024) < 0.2
layer, x = codec.torch.SparseLinear.from_dense(dense, threads=1), torch.randn(40, 1024)
conv = codec.torch.SparseConv2d.from_dense(torch.nn.Conv2d(64, 64, 3), threads=1)
image = torch.randn(2, 64, 30, 30)
torch.randn(4096, 4096).exp_()  # torch starts its threads
there = len(os.listdir("/proc/self/task"))
with torch.no_grad(), codec.threadpool_limits(3):
    expected = [layer(x).tolist(), conv(image).tolist()]
    layer(x), layer(x.bfloat16())
    assert len(os.listdir("/proc/self/task")) == there, "threads were started"
    child = os.fork()
    if not child:  # here torch's threads do not exist: OpenMP would wait for them for ever
        signal.alarm(30)
        found = [layer(x).tolist(), conv(image).tolist()]  # torch itself would compare on its threads
        os._exit(0 if found == expected else 2)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@LENT
def test_no_threads_are_started_beside_those_of_torch_and_a_fork_is_safe() -> None:
    done = subprocess.run([sys.executable, "-c", ON_LENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
