"""Generators in generators, and itertools."""
import itertools
from load import run


def numbers(n):
    for i in range(n):
        yield "n%d" % i


def pairs(items):
    for a, b in zip(items, itertools.islice(itertools.cycle("xyz"), 10 ** 6)):
        yield a + b


def step(number):
    keyed = sorted(pairs(numbers(30000)), key=len)
    groups = [(k, len(list(g))) for k, g in itertools.groupby(keyed, len)]
    assert groups
    assert sum(1 for _ in itertools.combinations(range(60), 3)) == 34220


run(step)
