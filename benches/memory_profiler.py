#!/usr/bin/env python3
"""python/memory_profiler against memory_profiler: a hot loop and calls under a LineProfiler, memory_usage(), a PySpark UDF.

    benches/memory_profiler.py --original DIR [--python P]... [--spark P] [--rows N] [--rounds N] [--strandline BINARY]

DIR holds memory_profiler and psutil (`pip install -t DIR memory_profiler==0.61.0`). Variants take turns: without a
profiler, with ours (line events in C), with ours in Python alone, with the original. Figures are the lowest of all rounds: CPU time
of loops and calls, elapsed time of memory_usage(). BINARY: target/release/strandline if not given.

With --spark only the UDF runs, under an interpreter that has pyspark: jobs of few rows and of N rows (the original: of a
twentieth of N). Shown for N rows are elapsed time and CPU time (of Java and the worker process together), and what a row costs
the worker; "nothing" is a module that measures nothing, so what PySpark itself adds. The difference between few and many rows is what a row costs, and gives what N rows cost with the original.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The package strandline is in the second.
OURS = "%s:%s" % (ROOT / "python" / "memory_profiler", ROOT / "python")
VARIANTS = ("plain", "ours", "in Python", "original")

LOOP = """
import sys, time
def f(n):
    s = 0
    for i in range(n):
        s += i
    return s
g = f
if sys.argv[1] == "profiled":
    from memory_profiler import LineProfiler
    g = LineProfiler()(f)
n = int(sys.argv[2])
g(10)
best = 1e9
for _ in range(10):
    begin = time.process_time()
    g(n)
    best = min(best, (time.process_time() - begin) / (2 * n))
print(best)
"""

CALLS = LOOP.replace("    g(n)\n", "    for _ in range(n): g(0)\n").replace("/ (2 * n)", "/ n")

USAGE = """
import sys, time
def f():
    time.sleep(0.5)
def measured():
    return memory_usage(f, max_iterations=1) if sys.argv[1] == "profiled" else f()
if sys.argv[1] == "profiled":
    from memory_profiler import memory_usage
measured()
best = 1e9
for _ in range(3):
    begin = time.perf_counter()
    measured()
    best = min(best, time.perf_counter() - begin)
print(best)
"""

SPARK = """
import os, sys, time
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
         .config("spark.ui.showConsoleProgress", "false").config("spark.sql.shuffle.partitions", "1").getOrCreate())
FEW, many = 100, int(sys.argv[2])
def plus(x):
    y = x + 1
    total = 0
    for i in range(10):
        total += i
    return y
def where(x):
    import os
    return os.getpid()
def column(f, rows):
    return spark.range(0, rows, 1, 1).select(udf(f, "long")("id").alias("a"))
worker = column(where, 1).collect()[0][0]
def ppid(pid):
    with open("/proc/%d/stat" % pid) as f:
        return int(f.read().rpartition(")")[2].split()[1])
java = worker
while ppid(java) != os.getpid():
    java = ppid(java)
def cpu(pid):
    spent = 0
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                spent += int(f.read().split()[0])
        except OSError:
            pass
    return spent / 1e9
def job(rows):
    before, begin = (cpu(worker), cpu(java)), time.perf_counter()
    column(plus, rows).agg({"a": "sum"}).collect()
    took, its = time.perf_counter() - begin, cpu(worker) - before[0]
    return took, its, its + cpu(java) - before[1]
if sys.argv[1] == "profiled":
    spark.conf.set("spark.sql.pyspark.udf.profiler", "memory")
for _ in range(4):
    job(FEW), job(many)
few, lots = [[job(rows) for _ in range(int(sys.argv[3]))] for rows in (FEW, many)]
low = [[min(one[i] for one in jobs) for i in range(3)] for jobs in (few, lots)]
print(FEW, *low[0] + low[1])
"""


# What PySpark's own bookkeeping costs at every call: a module that measures nothing.
NOTHING = """
class CodeMap(dict):
    def __init__(self, include_children, backend):
        self._toplevel = []
class LineProfiler(object):
    def __init__(self, **kw):
        self.code_map = CodeMap(False, "psutil")
    def add_function(self, f):
        self.code_map.add(f.__code__)
    def enable_by_count(self):
        pass
    def disable_by_count(self):
        pass
"""


def run(python, program, variant, arguments, args):
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["PATH"] = "%s:%s" % (args.strandline.parent, environ.get("PATH", os.defpath))
    if variant == "original":
        environ["PYTHONPATH"] = args.original
    elif variant in ("ours", "in Python"):
        environ["PYTHONPATH"] = OURS
        environ["STRANDLINE_NATIVE"] = str(int(variant == "ours"))
    with tempfile.TemporaryDirectory() as directory:
        if variant == "nothing":
            environ["PYTHONPATH"] = directory
            with open(os.path.join(directory, "memory_profiler.py"), "w") as f:
                f.write(NOTHING)
        # The original measures nothing in code that is in no file.
        script = os.path.join(directory, "program.py")
        with open(script, "w") as f:
            f.write(program)
        out = subprocess.check_output(
            [python, script, "plain" if variant == "plain" else "profiled"] + [str(a) for a in arguments],
            env=environ,
            universal_newlines=True,
            stderr=subprocess.DEVNULL,
        )
    return [float(word) for word in out.splitlines()[-1].split()]


def lines_and_calls(python, args):
    cases = [
        ("hot loop, a line", LOOP, {"plain": 50000, "ours": 50000, "in Python": 10000, "original": 100}),
        ("empty function, a call", CALLS, {"plain": 5000, "ours": 500, "in Python": 300, "original": 30}),
        ("memory_usage(f), f sleeps 0.5 s", USAGE, dict.fromkeys(VARIANTS, 0)),
    ]
    version = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"]).decode()
    print(
        "%-32s %12s %12s %12s %12s %26s"
        % (("CPython " + version.strip(),) + VARIANTS + ("added, original / ours",))
    )
    for name, program, sizes in cases:
        best = dict.fromkeys(VARIANTS, 1e9)
        for _ in range(args.rounds):
            for variant in VARIANTS:
                best[variant] = min(best[variant], run(python, program, variant, [sizes[variant]], args)[0])
        added = {v: best[v] - best["plain"] for v in VARIANTS}
        print(
            "%-32s %s %26.0f"
            % (
                name,
                " ".join("%9.3f us" % (best[v] * 1e6) for v in VARIANTS),
                added["original"] / max(added["ours"], 1e-9),
            )
        )


def udf(args):
    print(
        "%-12s %14s %14s %14s %14s %16s"
        % ("PySpark UDF", "%d rows" % args.rows, "against plain", "CPU time", "against plain", "worker, a row")
    )
    plain = None
    for variant in ("plain", "nothing") + VARIANTS[1:]:
        rows = args.rows // 20 if variant == "original" else args.rows
        few, *low = run(args.spark, SPARK, variant, [rows, 3 * args.rounds], args)
        a_row = [(lots - small) / (rows - few) for small, lots in zip(low[:3], low[3:])]
        took, _, cpu = [small + one * (args.rows - few) for small, one in zip(low[:3], a_row)]
        plain = plain or (took, cpu)
        print(
            "%-12s %12.3f s %13.1fx %12.3f s %13.1fx %13.2f us"
            % (variant, took, took / plain[0], cpu, cpu / plain[1], a_row[1] * 1e6),
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", required=True, help="directory with memory_profiler and psutil")
    parser.add_argument("--python", action="append", help="an interpreter; this one if none is given")
    parser.add_argument("--spark", help="an interpreter with pyspark")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strandline", type=pathlib.Path, default=ROOT / "target" / "release" / "strandline")
    args = parser.parse_args()
    args.strandline = args.strandline.resolve()
    if args.spark:
        return udf(args)
    for python in args.python or [sys.executable]:
        lines_and_calls(python, args)


if __name__ == "__main__":
    main()
