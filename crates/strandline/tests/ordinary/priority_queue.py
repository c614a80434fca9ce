"""A heap with a bound: as much goes out as comes in."""
import heapq
import random
from load import run

chance = random.Random(5)
HEAP = []


def push(item):
    heapq.heappush(HEAP, item)
    if len(HEAP) > 30000:
        heapq.heappop(HEAP)


def step(number):
    for i in range(5000):
        push((chance.random(), "item %d of step %d" % (i, number)))


run(step, 12)
