"""Prints the rules of Python's and glibc's allocators, as they are found in this very process by censuses of it.

    strandline run -o /dev/null --python python2.7 examples/why/rules.py

docs/why-memory-stays.md has what it prints, side by side for several interpreters.
"""
from __future__ import print_function

import gc
import itertools
import threading

import strandline


def fact(name, value):
    print("%-48s %s" % (name, format(value, ",") if isinstance(value, int) else value))


def arenas(census):
    return len(census["arenas"])


def dead(census, kind):
    """Objects of a type that are dead and kept on a free list."""
    return sum(f["count"] for f in census["free_lists"] if kind in f["name"].split(" or "))


start = strandline.census()
arena = max(a["bytes"] for a in start["arenas"])
# A pool lies at a multiple of its size: an arena that does not has one pool less, hence the largest number.
pools = max(a["used_pools"] + a["free_pools"] for a in start["arenas"])
pools += pools % 2
fact("bytes of an arena", arena)
fact("bytes of a pool", arena // pools)
fact("bytes of the largest small block", max(c["block_bytes"] for c in start["size_classes"]))

# What is left on the free lists after 100,000 objects have died. A full collection would empty that of ints.
COUNT = 100000
gc.disable()
keep = list(range(COUNT)), [[] for _ in itertools.repeat(None, COUNT)]
del keep
now = strandline.census()
fact("dead ints kept, of 100,000", dead(now, "int"))
fact("dead lists kept, of 100,000", dead(now, "list"))

# Arenas: 100,000 strings of some 100 bytes.
before = arenas(now)
keep = ["%050d" % i for i in range(COUNT)]
fact("arenas that 100,000 strings need", arenas(strandline.census()) - before)
keep[:] = [s for i, s in enumerate(keep) if i % 1000 == 0]
fact("of these left when 1 string of 1,000 lives", arenas(strandline.census()) - before)
del keep[:]
now = strandline.census()
fact("of these left when none lives", arenas(now) - before)

# Where the arrays of small lists come from: PyMem. The list of lists is there before.
keep = [None] * COUNT
before = strandline.census()["malloc"]["in_use_bytes"]
for i in range(COUNT):
    keep[i] = [None] * 4
after = strandline.census()["malloc"]["in_use_bytes"]
fact("bytes of malloc for the array of a list of four", max(0, after - before) // COUNT)
del keep

# Large blocks: the largest that was freed so far decides, up to a limit.
for size in (20000000, 40000000):
    block = bytearray(size)
    del block
    malloc = strandline.census()["malloc"]
    for which in ("mmap", "trim"):
        fact("%s threshold, %s bytes freed" % (which, format(size, ",")), malloc["%s_threshold_bytes" % which])

# A heap of its own for each thread.
before = strandline.census()["malloc"]["arenas"]
everyone, done = threading.Semaphore(0), threading.Event()


def work():
    block = bytearray(1000)
    everyone.release()
    done.wait()
    return block


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    everyone.acquire()
fact("more heaps of malloc with four more threads at work", strandline.census()["malloc"]["arenas"] - before)
done.set()
for thread in threads:
    thread.join()
