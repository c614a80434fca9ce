"""Runs the lines of an example's function one by one, without any profiler, and prints what each adds to RSS.

    plain.py lists_deepcopy_clear.py        the name of a program beside this folder
    plain.py PROGRAM 'del y' 'trim()'       does this afterwards; trim() is glibc's malloc_trim(0)
    plain.py --threshold PROGRAM            frees a block of 3 MB first: glibc's threshold for mappings of their own
                                            is then 3 MB
"""
import ctypes
import gc
import io
import os
import sys

MIB = 1048576.0


def rss():
    with io.open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096


arguments = sys.argv[1:]
if arguments[0] == "--threshold":
    del arguments[0]
    block = bytearray(3000000)
    del block
name = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", arguments[0])
with io.open(name) as program:
    text = program.read()
head, body = text.split("@profile\n")
libc = ctypes.CDLL(None)
scope = {"__name__": "plain", "gc": gc, "trim": lambda: libc.malloc_trim(0)}
exec(compile(head, name, "exec"), scope)
lines = [line.strip() for line in body.splitlines()[1:] if line.startswith("    ")]
steps = [line for line in lines if not line.startswith(("return", "function"))] + arguments[1:]
steps = [(line, compile(line, name, "exec")) for line in steps]
before = rss()
for line, code in steps:
    exec(code, scope)
    after = rss()
    print("%10.3f MiB   %s" % ((after - before) / MIB, line))
    before = rss()
