"""A leak: a cache without a bound, for keys that never come again."""
import functools
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import time
from load import run


@functools.lru_cache(maxsize=None)
def page(number):
    return "page %d" % number * 80


def step(number):
    for i in range(300):
        page(number * 300 + i)
    time.sleep(0.01)


run(step, 40)
