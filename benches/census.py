#!/usr/bin/env python3
"""Measures `strandline census`: time, how long the process stands, the reader's own peak.

The process holds tuples, floats, texts, lists and ints in pymalloc's arenas (about 60 bytes each).
Beside it: what a walk over `gc.get_objects()` with `sys.getsizeof` takes inside the process, which
sees only what the collector knows and stops the program for all of it.

    benches/census.py --python python3.11 --mib 64 256 1024
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Bytes of arenas for one of the records.
RECORD = 298
TARGET = """
import gc, sys, time
n = int(sys.argv[1])
keep = [(i, float(i), str(i), [i]) for i in range(n)]
print("ready"); sys.stdout.flush()
sys.stdin.readline()
start = time.perf_counter()
total = {}
for o in gc.get_objects():
    kind = type(o)
    count, size = total.get(kind, (0, 0))
    total[kind] = count + 1, size + sys.getsizeof(o)
print(time.perf_counter() - start); sys.stdout.flush()
"""


def census(binary, pid, paths):
    start = time.perf_counter()
    words = [str(binary), "census", "--json", "--paths", str(paths), str(pid)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    text = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - start
    child.returncode = status
    if status:
        sys.exit("strandline census failed")
    return took, json.loads(text), used.ru_maxrss * 1024


def measure(binary, python, mib, rounds):
    count = mib * (1 << 20) // RECORD
    words = [python, "-S", "-c", TARGET, str(count)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    plain, full = [], []
    for _ in range(rounds):
        plain.append(census(binary, process.pid, 0))
        full.append(census(binary, process.pid, 10))
    process.stdin.write(b"\n")
    process.stdin.close()
    walk = float(process.stdout.readline())
    process.wait()
    report = plain[0][1]
    median = statistics.median
    gib = report["rss_bytes"] / (1 << 30)
    cells = [
        "%.0f MiB" % (gib * 1024),
        "%.1f M" % (sum(t["count"] for t in report["types"]) / 1e6),
        "%.2f s" % median(p[0] for p in plain),
        "%.2f s" % median(f[0] for f in full),
        "%.0f ms" % (median(p[1]["paused_ns"] for p in plain + full) / 1e6),
        "%.2f" % (max(f[2] for f in full) / report["rss_bytes"]),
        "%.2f s" % walk,
        "%d" % report["unnamed_bytes"],
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strandline", default=str(ROOT / "target" / "release" / "strandline"))
    parser.add_argument("--python", default="python3")
    parser.add_argument("--mib", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| RSS | objects | census | with paths | stands for | reader's peak / RSS | gc walk | not named |")
    print("|---|---|---|---|---|---|---|---|")
    for mib in options.mib:
        measure(options.strandline, options.python, mib, options.rounds)


if __name__ == "__main__":
    main()
