"""A memo that a function fills, and that ends where its domain ends: ten thousand numbers."""
from load import run

MEMO = {}


def fibonacci(n):
    if n < 2:
        return n, ""
    if n not in MEMO:
        MEMO[n] = (fibonacci(n - 1)[0] + fibonacci(n - 2)[0], "%d of ten thousand" % n * 20)
    return MEMO[n]


def step(number):
    for n in range(10000):
        fibonacci(n)


run(step)
