"""functools.lru_cache with a bound."""
import functools
from load import run


@functools.lru_cache(maxsize=8000)
def page(number):
    return "page %d" % number * 60


def step(number):
    for i in range(2000):
        page(number * 2000 + i)


run(step, 10)
