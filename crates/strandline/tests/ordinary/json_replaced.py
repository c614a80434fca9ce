"""The newest document stands in a global; each one takes the place of the one before."""
import json
import random
from load import run

LATEST = None
chance = random.Random(1)


def fetch(size):
    return json.dumps([{"id": i, "text": "text %d" % i} for i in range(size)])


def step(number):
    global LATEST
    LATEST = json.loads(fetch(chance.randrange(5000, 20000)))


run(step)
