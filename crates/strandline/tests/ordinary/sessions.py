"""Objects with methods: sessions that begin, collect something and end; parents know their
children and these their parents, so the collector has its part to do."""
from load import run


class Item(object):
    def __init__(self, owner, text):
        self.owner = owner
        self.text = text


class Session(object):
    def __init__(self, number):
        self.items = [Item(self, "item %d of %d" % (i, number)) for i in range(20)]


class Server(object):
    def __init__(self):
        self.open = {}

    def begin(self, number):
        self.open[number] = Session(number)

    def end(self, number):
        self.open.pop(number, None)


SERVER = Server()


def step(number):
    for i in range(200):
        SERVER.begin(number * 200 + i)
        SERVER.end(number * 200 + i - 3000)


run(step, 20)
