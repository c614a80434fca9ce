"""Long strings are built, split and thrown away."""
from load import run


def step(number):
    text = ""
    for i in range(20000):
        text += "part %d of %d;" % (i, number)
    assert len(text.split(";")) == 20001
    assert text.upper().lower() == text.replace(",", ".")


run(step)
