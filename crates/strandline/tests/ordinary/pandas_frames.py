"""pandas: a frame that is kept; grouped and merged at each step."""
import numpy
import pandas
from load import run

N = 100000
FRAME = pandas.DataFrame({
    "key": numpy.arange(N) % 1000,
    "value": numpy.arange(N) * 0.5,
    "text": ["text %d" % (i % 5000) for i in range(N)],
})
OTHER = pandas.DataFrame({"key": range(1000), "name": ["name %d" % i for i in range(1000)]})


def step(number):
    merged = FRAME.merge(OTHER, on="key")
    sums = merged.groupby("name")["value"].sum()
    assert len(sums) == 1000


run(step)
