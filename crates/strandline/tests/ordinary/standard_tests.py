"""The standard library's own tests as a load."""
import importlib
import io
import sys
import unittest
from load import run

MODULES = []
for name in ["test.test_heapq", "test.test_bisect", "test.test_textwrap", "test.test_fractions",
             "test.test_collections", "test.test_deque", "test.test_itertools"]:
    try:
        MODULES.append(importlib.import_module(name))
    except (ImportError, unittest.SkipTest):
        pass
if not MODULES:
    sys.stdout.write("without: the package test is not installed\n")
    sys.stdout.flush()
    sys.exit(0)


def step(number):
    module = MODULES[number % len(MODULES)]
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    stream = io.BytesIO() if str is bytes else io.StringIO()
    unittest.TextTestRunner(stream=stream).run(suite)


run(step, 2)
