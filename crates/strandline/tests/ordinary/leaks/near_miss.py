"""A leak, and next to its list's array, nearer to a module than the list is, a word that looks like a
pointer into that array: as text has one that ends within a word that was a pointer before."""
import ctypes, os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import time
from array import array
from load import run


class Monitor(object):
    def __init__(self):
        self.seen = []

    def note(self, number):
        self.seen.append(("event", "what happened at %d" % number * 30))


MONITOR = Monitor()
NUMBERS = array("L", [0])


def step(number):
    for i in range(300):
        MONITOR.note(number * 300 + i)
    # `ob_item` of a list (Include/listobject.h).
    array_at = ctypes.c_size_t.from_address(id(vars(MONITOR)["seen"]) + 24).value
    NUMBERS[0] = array_at + 80 * 8
    # The list's own address was an int's value, which 2.7 leaves in memory: it is written over.
    sum([n + 1000 for n in range(64)])
    time.sleep(0.01)


run(step, 40)
