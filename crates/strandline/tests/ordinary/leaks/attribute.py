"""A leak: an object that lives as long as the program notes all that it has seen."""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import time
from load import run


class Monitor(object):
    def __init__(self):
        self.seen = []

    def note(self, number):
        self.seen.append(("event", "what happened at %d" % number * 30))


MONITOR = Monitor()


def step(number):
    for i in range(300):
        MONITOR.note(number * 300 + i)
    time.sleep(0.01)


run(step, 40)
