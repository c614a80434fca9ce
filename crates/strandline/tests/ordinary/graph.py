"""A graph in a module's global, that a function has filled; searched breadth first."""
import collections
import random
from load import run

EDGES = {}


def connect(a, b):
    EDGES.setdefault(a, []).append(b)
    EDGES.setdefault(b, []).append(a)


def build():
    chance = random.Random(11)
    for a in range(20000):
        for _ in range(3):
            connect(a, chance.randrange(20000))


def step(number):
    seen = {number}
    todo = collections.deque([number])
    while todo:
        for other in EDGES[todo.popleft()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    assert len(seen) > 10000


build()
run(step)
