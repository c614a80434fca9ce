"""memory_usage() of a call, sampled by the command of the package strandline."""
import os
import time

import pytest

from memory_profiler import _usage, memory_usage
from memory_profiler._sampler import Sampler

MIB = 1 << 20


def test_the_command_samples():
    sampler = _usage._sampler("psutil", False)
    assert type(sampler) is Sampler
    sampler.close()
    for other in (_usage._sampler("psutil", True), _usage._sampler("psutil_uss", False)):
        assert type(other) is _usage._Helper
        other.close()


def test_samples_of_a_call_that_holds_the_gil():
    def f(n, more=0):
        block = bytearray(n * MIB + more)
        # Long enough that the command has its turn on a busy machine.
        end = time.time() + 1
        while True:
            count = len(sorted(range(2000000, 0, -1)))
            if time.time() > end:
                return count, len(block)

    before = memory_usage(max_usage=True)
    samples, value = memory_usage((f, (50,), {"more": 7}), interval=0.001, timestamps=True, retval=True)
    assert value == (2000000, 50 * MIB + 7)
    assert len(samples) > 4 and samples == sorted(samples, key=lambda sample: sample[1])
    assert 45 < max(samples)[0] - before < 250
    assert abs(time.time() - samples[-1][1]) < 60


def test_short_calls_are_repeated_and_nothing_is_left():
    descriptors = len(os.listdir("/proc/self/fd"))
    calls = []
    memory_usage((calls.append, (1,)), interval=0.1)
    assert len(calls) > 1
    assert len(memory_usage((calls.append, (1,)), max_iterations=1)) >= 2
    with pytest.raises(ZeroDivisionError):
        memory_usage(lambda: 1 // 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
