"""A deque with a maxlen, an OrderedDict that forgets the oldest, and a Counter."""
import collections
from load import run

RECENT = collections.deque(maxlen=20000)
CACHE = collections.OrderedDict()
WORDS = collections.Counter()


def lookup(key):
    if key in CACHE:
        return CACHE[key]
    CACHE[key] = "value of %d" % key * 20
    if len(CACHE) > 10000:
        CACHE.popitem(last=False)
    return CACHE[key]


def step(number):
    for i in range(3000):
        n = number * 3000 + i
        RECENT.append("event %d" % n)
        WORDS["word %d" % (n % 500)] += 1
        lookup(n)


run(step, 12)
