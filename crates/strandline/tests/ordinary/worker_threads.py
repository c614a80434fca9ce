"""Threads that work off a queue with a bound."""
import threading
import zlib
from load import run

try:
    import queue
except ImportError:
    import Queue as queue

JOBS = queue.Queue(maxsize=100)
DONE = queue.Queue()


def work():
    while True:
        job = JOBS.get()
        DONE.put(len(zlib.compress(job * 50)))


for _ in range(4):
    thread = threading.Thread(target=work)
    thread.daemon = True
    thread.start()


def step(number):
    for i in range(100):
        JOBS.put(b"job %d " % i * 20 if str is not bytes else "job %d " % i * 20)
    for i in range(100):
        DONE.get()


run(step, 10)
