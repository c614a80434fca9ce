"""Comparing texts line by line."""
import difflib
import random
from load import run

chance = random.Random(3)
LINES = ["line %d of the text %d" % (i, chance.randrange(1000)) for i in range(2000)]


def step(number):
    other = [line for line in LINES if chance.random() < 0.97]
    assert list(difflib.unified_diff(LINES, other, n=1))


run(step)
