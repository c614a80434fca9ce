"""Logging to a handler in memory, which is flushed when it is full."""
import logging
import logging.handlers
from load import run


class Nowhere(logging.Handler):
    def emit(self, record):
        self.format(record)


buffer = logging.handlers.MemoryHandler(5000, logging.CRITICAL + 1, Nowhere())
log = logging.getLogger("load")
log.addHandler(buffer)
log.setLevel(logging.INFO)
log.propagate = False


def step(number):
    for i in range(1000):
        log.info("message %d of %d: %s", i, number, "x" * 100)


run(step, 6)
