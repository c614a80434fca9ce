"""A table that a function reads into a module's global, as a list of dicts; then it is asked."""
import csv
from load import run

ROWS = []


def lines():
    yield "id,name,city,amount"
    for i in range(20000):
        yield "%d,name %d,city %d,%d" % (i, i, i % 97, i * 3)


def fill():
    for row in csv.DictReader(lines()):
        ROWS.append(row)


def step(number):
    cities = {}
    for row in ROWS:
        cities[row["city"]] = cities.get(row["city"], 0) + int(row["amount"])
    assert len(cities) == 97


fill()
run(step)
