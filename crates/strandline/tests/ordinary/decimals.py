"""Decimals and fractions, and a table of them that is kept."""
import decimal
import fractions
from load import run

PRICES = [decimal.Decimal(i) / 7 for i in range(20000)]


def step(number):
    assert sum(PRICES[:5000]) > 0
    total = fractions.Fraction(0)
    for i in range(1, 300):
        total += fractions.Fraction(1, i)
    assert total > 1


run(step)
