"""Objects that a weak dictionary knows as long as somebody else holds them."""
import collections
import weakref
from load import run


class Record(object):
    def __init__(self, number):
        self.number = number
        self.text = "record %d" % number * 10


KNOWN = weakref.WeakValueDictionary()
IN_USE = collections.deque(maxlen=15000)


def get(number):
    record = KNOWN.get(number)
    if record is None:
        record = KNOWN[number] = Record(number)
    return record


def step(number):
    for i in range(3000):
        IN_USE.append(get(number * 2000 + i))


run(step, 8)
