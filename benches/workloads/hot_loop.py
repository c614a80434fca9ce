"""hot_loop: the worst case for a line table: a body of six short lines, no allocation in it.

All numbers stay below 257 (CPython keeps those as objects), and `repeat` makes none.
Prints a checksum and, on stderr, the CPU time of one turn in nanoseconds.
"""
import itertools
import resource
import sys

try:
    profile
except NameError:

    def profile(f):
        return f


@profile
def hot(n):
    a = b = c = d = e = f = 0
    for _ in itertools.repeat(None, n):
        a = (a + 1) & 63
        b = (b + a) & 63
        c = a ^ b
        d = c | d
        e = d & a
        f = e | b
    return a + b + c + d + e + f


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5000000
    start = cpu()
    checksum = hot(turns)
    spent = cpu() - start
    print("hot_loop %d" % checksum)
    sys.stderr.write("ns/turn %.1f\n" % (spent * 1e9 / max(turns, 1)))
