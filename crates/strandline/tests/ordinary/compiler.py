"""The standard library's sources, tokenized, parsed and compiled."""
import ast
import io
import os
import tokenize
from load import run

FOLDER = os.path.dirname(ast.__file__)
NAMES = ["argparse.py", "ast.py", "textwrap.py", "heapq.py", "shutil.py", "string.py", "tarfile.py"]


def step(number):
    path = os.path.join(FOLDER, NAMES[number % len(NAMES)])
    with io.open(path, encoding="utf-8") as source:
        text = source.read()
    for _ in tokenize.generate_tokens(io.StringIO(text).readline):
        pass
    if str is bytes:
        text = text.encode("utf-8")
    compile(ast.parse(text), path, "exec")


run(step, 7)
