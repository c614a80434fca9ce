# Prints, for every code object of some modules of the standard library: its first line, its
# line table in hex, and the line of every offset as PyCode_Addr2Line gives it. Runs on 2.7 and
# 3.6+. The first line is the version.
import argparse
import ast
import binascii
import ctypes
import decimal
import difflib
import inspect
import sys
import textwrap

line_of = ctypes.pythonapi.PyCode_Addr2Line
line_of.argtypes = [ctypes.py_object, ctypes.c_int]
line_of.restype = ctypes.c_int

CODE = type(inspect.getsource.__code__)
ODD = """
x = (1 +

     f(2,
       3))
def g(a): return [b for b in
   a if b]
try:
    with x as y:
        del y
except ValueError: pass
""" + "\n" * 400 + "z = 1; w = (\n" + "\n" * 200 + "2)\n" + "q = {%s}\n" % ", ".join(
    "'k%d': %d" % (i, i) for i in range(300))


def walk(code):
    table = code.co_linetable if hasattr(code, "co_linetable") else code.co_lnotab
    lines = [line_of(code, at) for at in range(0, len(code.co_code), 2 - (sys.version_info[0] < 3))]
    print("%d %s %s" % (code.co_firstlineno, binascii.hexlify(table).decode() or "-",
                        ",".join(map(str, lines))))
    for const in code.co_consts:
        if isinstance(const, CODE):
            walk(const)


print("%d %d" % sys.version_info[:2])
for module in (argparse, ast, decimal, difflib, inspect, textwrap):
    with open(inspect.getsourcefile(module), "rb") as source:
        walk(compile(source.read(), module.__name__, "exec"))
walk(compile(ODD, "odd", "exec"))
