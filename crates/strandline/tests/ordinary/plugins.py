"""Classes that a decorator puts into a table while the program is imported."""
from load import run

REGISTRY = {}


def plugin(name):
    def add(cls):
        REGISTRY[name] = cls
        return cls
    return add


def make(i):
    @plugin("plugin %d" % i)
    class Plugin(object):
        title = "the plugin with the number %d" % i
        table = list(range(i, i + 300))

        def run(self, n):
            return self.table[n % 300] + len(self.title)


for i in range(1500):
    make(i)


def step(number):
    for cls in REGISTRY.values():
        cls().run(number)


run(step)
