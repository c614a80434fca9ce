#!/usr/bin/env python3
"""python/memory_profiler against memory_profiler: a hot loop and calls under a LineProfiler, memory_usage(), a PySpark UDF.

    benches/memory_profiler.py --original DIR [--spark PYTHON] [--rounds N]

DIR holds memory_profiler and psutil (`pip install -t DIR memory_profiler==0.61.0`). With --spark the UDF runs as well, under
an interpreter that has pyspark. The lowest of all rounds, CPU time for
the first two and elapsed time for the others; the variants take turns.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

OURS = pathlib.Path(__file__).resolve().parent.parent / "python" / "memory_profiler"

LOOP = """
import io, sys, time
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
begin = time.process_time()
g(n)
print((time.process_time() - begin) / (2 * n))
"""

CALLS = LOOP.replace("g(n)\nprint((time.process_time() - begin) / (2 * n))", "for _ in range(n): g(0)\nprint((time.process_time() - begin) / n)")

USAGE = """
import sys, time
def f():
    return sum(range(1000000))
begin = time.perf_counter()
if sys.argv[1] == "profiled":
    from memory_profiler import memory_usage
    memory_usage(f, max_iterations=1)
    begin = time.perf_counter()
    memory_usage(f, max_iterations=1)
else:
    f()
print(time.perf_counter() - begin)
"""

SPARK = """
import os, sys, time
os.environ["PYSPARK_PYTHON"] = sys.executable
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
         .config("spark.sql.shuffle.partitions", "1").getOrCreate())
def plus(x):
    y = x + 1
    total = 0
    for i in range(10):
        total += i
    return y
def run():
    begin = time.perf_counter()
    spark.range(int(sys.argv[2])).select(udf(plus, "long")("id").alias("a")).agg({"a": "sum"}).collect()
    return time.perf_counter() - begin
run()
if sys.argv[1] == "profiled":
    spark.conf.set("spark.sql.pyspark.udf.profiler", "memory")
    run()
print(min(run() for _ in range(3)))
"""


def measure(python, program, variant, size, path):
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        environ["PYTHONPATH"] = str(path)
    with tempfile.TemporaryDirectory() as directory:
        # The original measures nothing in code that is in no file.
        script = os.path.join(directory, "program.py")
        with open(script, "w") as f:
            f.write(program)
        out = subprocess.check_output(
            [python, script, variant, str(size)], env=environ, universal_newlines=True, stderr=subprocess.DEVNULL
        )
    return float(out.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", required=True, help="directory with memory_profiler and psutil")
    parser.add_argument("--spark", help="an interpreter with pyspark")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cases = [
        ("hot loop, a line", LOOP, sys.executable, {"ours": 200000, "original": 5000, "plain": 2000000}),
        ("empty function, a call", CALLS, sys.executable, {"ours": 2000, "original": 300, "plain": 20000}),
        ("memory_usage(f, max_iterations=1)", USAGE, sys.executable, dict.fromkeys(("ours", "original", "plain"), 0)),
    ]
    if args.spark:
        cases.append(("PySpark UDF, 2,000 rows", SPARK, args.spark, dict.fromkeys(("ours", "original", "plain"), 2000)))
    print("%-36s %12s %12s %12s %22s" % ("", "plain", "ours", "original", "added, original/ours"))
    for name, program, python, sizes in cases:
        best = {}
        for _ in range(args.rounds):
            for variant, path in (("plain", None), ("ours", OURS), ("original", args.original)):
                took = measure(python, program, "plain" if variant == "plain" else "profiled", sizes[variant], path)
                best[variant] = min(took, best.get(variant, took))
        added = {v: best[v] - best["plain"] for v in ("ours", "original")}
        # Within a tenth of the plain run it is noise.
        told = min(added.values()) > best["plain"] / 10
        ratio = "%.0f" % (added["original"] / added["ours"]) if told else "-"
        print(
            "%-36s %9.2f us %9.2f us %9.2f us %22s"
            % (name, best["plain"] * 1e6, best["ours"] * 1e6, best["original"] * 1e6, ratio)
        )


if __name__ == "__main__":
    main()
