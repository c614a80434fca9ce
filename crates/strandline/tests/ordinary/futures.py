"""A pool of threads from concurrent.futures."""
import concurrent.futures
import hashlib
from load import run

pool = concurrent.futures.ThreadPoolExecutor(max_workers=4)


def task(n):
    return hashlib.sha256(b"%d" % n * 5000).hexdigest()


def step(number):
    assert len(set(pool.map(task, range(200)))) == 200


run(step)
