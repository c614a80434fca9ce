"""What the loads share: a step, again and again until stdin closes."""
import select
import sys


def run(step, warm=3):
    """Calls step(number of the call); says when it is warmed up."""
    number = 0
    while number < warm or not select.select([0], [], [], 0)[0]:
        step(number)
        number += 1
        if number == warm:
            sys.stdout.write("warm\n")
            sys.stdout.flush()
