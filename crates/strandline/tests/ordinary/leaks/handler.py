"""A leak: a handler puts what it was asked into a module's dict, and nobody takes it out."""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import time
from load import run

ANSWERS = {}


def handle(number):
    ANSWERS["request %d" % number] = "answer to %d" % number * 60


def step(number):
    for i in range(300):
        handle(number * 300 + i)
    time.sleep(0.01)


run(step, 40)
