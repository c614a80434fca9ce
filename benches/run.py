#!/usr/bin/env python3
"""Measures what strandline costs, and optionally what its peers cost, in one interleaved run.

    cargo build --release
    benches/run.py --python python3.11 --python python3.13

Needs the standard library only. Every figure is the median, over the rounds, of a ratio (or a
difference) of two runs made one after the other: the unprofiled program and the profiled one.
Behind a ratio stand the lowest and the highest: if the target lies between, nothing is proved.
CPU time is user + system of all processes of a run, strandline's own included. A program whose
output changes under a profiler is an error.

`--venv DIR` makes a virtual environment for every interpreter in DIR and installs numpy and
pandas there, which w4 needs; `--peers` (with --venv) installs memray and memory_profiler, too,
and adds the table of peers, with smaller sizes since they are slow. Prints Markdown.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
WORKLOADS = HERE / "workloads"
EXAMPLES = ROOT / "examples"

# Name, arguments at full size, arguments for the slow peers, target on 3.11, target on others.
CPU_ROWS = [
    ("w1", "w1 deepcopy of lists", [], ["300000"], 1.10, 1.16),
    ("w2", "w2 json", [], ["300"], 1.15, 1.21),
    ("w3", "w3 calls", [], ["24", "60000"], 1.03, 1.09),
    ("w4", "w4 numpy, pandas", [], ["300000"], 1.05, 1.11),
    ("w5", "w5 8 threads", [], ["150000"], 1.20, 1.26),
]
HOT_TARGET = 2.5
FOUNDING_TARGET = 1.10
START_TARGET_MS = 40
FIXED_TARGET_MIB = 10
HEAP_TARGET_PERCENT = 10
MIB = 1 << 20
# `-c pass`, which says at its end how much was resident at most. (wait4's maximum won't do: it
# starts with what was resident in this script when it forked.)
HIGH_WATER = (
    "import sys; sys.stderr.write('high %s' % "
    "[l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
)
ONE_TABLE = "@profile\ndef f():\n    pass\nf()"
GROUPS = ["start", "memory", "hot", "workloads", "stacks", "events", "native", "founding"]
# Recording by call path: group, options, targets of w1 to w5 (None: none was set).
BY_PATH = [
    ("stacks", ["--stacks"], [1.20, 1.27, 1.05, 1.08, 1.35]),
    ("events", ["--stacks", "--events"], [1.6, 1.6, 1.08, 1.15, 1.9]),
    ("native", ["--stacks", "--native"], [None] * 5),
]


class Failed(Exception):
    """A run that did not do what it should."""


class Ran:
    """One run: what it used and what it wrote."""

    def __init__(self, command, cwd):
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "LD_", "MALLOC_", "GLIBC_", "VIRTUAL_ENV"))
        }
        env.update(PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.perf_counter()
            child = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=str(cwd),
                env=env,
            )
            _, status, usage = os.wait4(child.pid, 0)
            self.wall = time.perf_counter() - start
            child.returncode = 0  # waited for above
            out.seek(0)
            err.seek(0)
            self.out = out.read().decode("utf-8", "replace")
            self.err = err.read().decode("utf-8", "replace")
        # wait4 counts the child and the descendants that it waited for.
        self.cpu = usage.ru_utime + usage.ru_stime
        if status != 0:
            tail = "\n".join(self.err.splitlines()[-5:])
            raise Failed("%s: wait status %d\n%s" % (command, status, tail))


class Python:
    """An interpreter to measure with."""

    def __init__(self, name):
        code = (
            "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])"
        )
        done = subprocess.run([name, "-c", code], stdout=subprocess.PIPE, check=True)
        self.path, self.version = done.stdout.decode().split("\n")[:2]
        self.minor = self.version.rsplit(".", 1)[0]

    def has(self, *modules):
        code = "import " + ", ".join(modules)
        with open(os.devnull, "wb") as null:
            return subprocess.call([self.path, "-c", code], stdout=null, stderr=null) == 0

    def into_venv(self, folder, packages):
        """The same interpreter in an environment that has the packages."""
        venv = pathlib.Path(folder).resolve() / self.version
        inside = venv / "bin" / "python"
        if not inside.exists():
            note("making %s" % venv)
            subprocess.run([self.path, "-m", "venv", str(venv)], check=True)
        self.path = str(inside)
        pip = [self.path, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for package in packages:
            # One by one: a peer that doesn't exist for this version is left out.
            if subprocess.call(pip + [package]) != 0:
                note("%s is not to be had for %s" % (package, self.version))


def high_water(ran):
    """MiB."""
    # A report beside it may quote the program.
    return int(re.search(r"high\s+(\d+)", ran.err).group(1)) / 1024


def note(text):
    print(text, file=sys.stderr, flush=True)


def rounds(variants, count, warm=True):
    """Runs every variant once a round, starting with another one each time. Returns for each
    the list of its runs. The outputs of a round have to be the same."""
    if warm:
        variants[0][1]()
    results = {name: [] for name, _ in variants}
    for turn in range(count):
        shift = turn % len(variants)
        for name, run in variants[shift:] + variants[:shift]:
            results[name].append(run())
    plain = variants[0][0]
    for name, runs in results.items():
        for one, reference in zip(runs, results[plain]):
            if one.out != reference.out:
                raise Failed("%s changes the output:\n%s%s" % (name, reference.out, one.out))
    return results


class Ratio(float):
    """The median of some ratios, which remembers the lowest and the highest."""

    def __new__(cls, values):
        self = super().__new__(cls, statistics.median(values))
        self.low, self.high = min(values), max(values)
        return self


def ratios(results, name, plain="plain", of="cpu"):
    pairs = zip(results[name], results[plain])
    return Ratio([getattr(a, of) / getattr(b, of) for a, b in pairs])


class Bench:
    def __init__(self, options):
        self.strandline = str(pathlib.Path(options.strandline).resolve())
        self.rounds = options.rounds
        self.quick = options.quick
        self.work = tempfile.TemporaryDirectory(prefix="strandline-bench-")
        self.dir = pathlib.Path(self.work.name)
        self.report = self.dir / "report.json"
        self.problems = []

    def plain(self, python, *words):
        return "plain", lambda: Ran([python.path, *words], self.dir)

    def profiled(self, python, *words):
        def run():
            if self.report.exists():
                self.report.unlink()
            options = ["run", "--json", "-o", self.report, "--python", python.path]
            return Ran([self.strandline, *options, *words], self.dir)

        return "strandline", run

    def by_path(self, options, python, *words):
        profile = self.dir / "run.strand"
        command = [self.strandline, "run", *options, "--force", "-o", profile]
        command += ["--python", python.path, *words]
        return " ".join(["strandline", *options]), lambda: Ran(command, self.dir)

    def pair(self, python, *words):
        return [self.plain(python, *words), self.profiled(python, *words)]

    def guarded(self, what, measure):
        """The measured value, or a word for why there is none."""
        try:
            value = measure()
            note("%s: %s" % (what, value if isinstance(value, str) else "%.3f" % value))
            return value
        except Failed as error:
            self.problems.append("%s: %s" % (what, error))
            note(self.problems[-1])
            return "failed"

    # The rows.

    def start_ms(self, python):
        runs = rounds(self.pair(python, "-c", "pass"), max(self.rounds, 5) * 4)
        pairs = zip(runs["strandline"], runs["plain"])
        return statistics.median(a.wall - b.wall for a, b in pairs) * 1000

    def ledger(self):
        report = json.loads(self.report.read_text())
        return report["processes"][report["main"]]

    def own_fixed(self, python, program="pass"):
        self.profiled(python, "-c", program)[1]()
        return self.ledger()["exit"]["profiler_bytes"] / MIB

    def kernel_fixed(self, python):
        runs = rounds(self.pair(python, "-c", HIGH_WATER), self.rounds)
        pairs = zip(runs["strandline"], runs["plain"])
        return statistics.median(high_water(a) - high_water(b) for a, b in pairs)

    def own_percent(self, python, fixed_program, *words):
        """What is added to the fixed part, that of `fixed_program`, of the peak in use."""
        self.profiled(python, "-c", fixed_program)[1]()
        fixed = self.ledger()["exit"]["profiler_bytes"]
        self.profiled(python, *words)[1]()
        process = self.ledger()
        # Strandline's memory never shrinks: at exit it is what it was at the peak.
        own = process["exit"]["profiler_bytes"] - fixed
        return 100.0 * own / process["peak_in_use_bytes"]

    def cpu_ratio(self, python, *words):
        return ratios(rounds(self.pair(python, *words), self.rounds), "strandline")

    def by_path_ratio(self, options, python, *words):
        name, run = self.by_path(options, python, *words)
        return ratios(rounds([self.plain(python, *words), (name, run)], self.rounds), name)

    def example(self, name, plain):
        """A founding program; `plain`: with a `profile` that does nothing."""
        text = (EXAMPLES / name).read_text()
        if not plain:
            return str(EXAMPLES / name)
        path = self.dir / name
        path.write_text("profile = lambda f: f\n" + text)
        return str(path)

    def founding_ratio(self, python, name):
        plain = self.plain(python, self.example(name, True))
        profiled = self.profiled(python, self.example(name, False))
        # Short programs: more of them, or start-up's noise is all that is seen.
        return ratios(rounds([plain, profiled], 4 * self.rounds), "strandline")

    def workload(self, name):
        return str(WORKLOADS / (name + ".py"))

    def main_table(self, pythons, groups):
        rows = []

        def row(title, target, measure, unit="×"):
            cells = []
            for python in pythons:
                what = "%s on %s" % (title, python.version)
                value = self.guarded(what, lambda: measure(python))
                wanted = target(python) if callable(target) else target
                cells.append(cell(value, unit, wanted))
            rows.append([title, target_text(target, unit)] + cells)

        def w4_or(name, measure):
            def run(python):
                if name == "w4" and not python.has("numpy", "pandas"):
                    return "not installed"
                return measure(python)

            return run

        if "start" in groups:
            row("start-up added to `-c pass`, wall", START_TARGET_MS, self.start_ms, "ms")
        if "memory" in groups:
            row("memory added to `-c pass`, own ledger", FIXED_TARGET_MIB, self.own_fixed, "MiB")
            row("the same, by the kernel (maximum RSS)", FIXED_TARGET_MIB, self.kernel_fixed, "MiB")
            w1 = [self.workload("w1")] + (["300000"] if self.quick else [])
            founding = self.example("list_deepcopy_del.py", False)
            percent = HEAP_TARGET_PERCENT
            title = "memory added to one function with a line table, own ledger"
            row(title, FIXED_TARGET_MIB, lambda p: self.own_fixed(p, ONE_TABLE), "MiB")
            title = "memory above the fixed part, of the peak in use: w1"
            row(title, percent, lambda p: self.own_percent(p, "pass", *w1), "%")
            title = "the same: `list_deepcopy_del.py`"
            row(title, percent, lambda p: self.own_percent(p, ONE_TABLE, founding), "%")
        if "hot" in groups:
            turns = "1000000" if self.quick else "5000000"
            hot = [self.workload("hot_loop"), turns]
            row("hot loop, all lines profiled, CPU", HOT_TARGET, lambda p: self.cpu_ratio(p, *hot))
        if "workloads" in groups:
            for name, title, full, small, on_311, others in CPU_ROWS:
                words = [self.workload(name)] + (small if self.quick else full)

                def target(python, pair=(on_311, others)):
                    return pair[0] if python is None or python.minor == "3.11" else pair[1]

                measure = lambda p, words=words: self.cpu_ratio(p, *words)
                row(title + ", CPU", target, w4_or(name, measure))
        for group, options, targets in BY_PATH:
            if group not in groups:
                continue
            for (name, title, full, small, _, _), target in zip(CPU_ROWS, targets):
                words = [self.workload(name)] + (small if self.quick else full)
                measure = lambda p, o=options, w=words: self.by_path_ratio(o, p, *w)
                title = "`%s`, %s, CPU" % (" ".join(options), title)
                row(title, target, w4_or(name, measure))
        if "founding" in groups:
            for path in sorted(EXAMPLES.glob("*.py")):
                measure = lambda p, name=path.name: self.founding_ratio(p, name)
                row("`%s` with its table, CPU" % path.name, FOUNDING_TARGET, measure)
        head = ["what", "must reach"] + [p.version for p in pythons]
        return markdown(head, rows)

    # Peers.

    def peer_variants(self, python, words):
        found = [self.plain(python, *words), self.profiled(python, *words)]
        for _, options, _ in BY_PATH:
            found.append(self.by_path(options, python, *words))
        count = iter(range(1000000))
        if python.has("memray"):

            def memray(*options):
                capture = self.dir / ("memray-%d.bin" % next(count))
                command = [python.path, "-m", "memray", "run", "-q", "-f", "-o", capture]
                ran = Ran([*command, *options, *words], self.dir)
                capture.unlink()
                return ran

            found.append(("memray", memray))
            python_allocators = lambda: memray("--trace-python-allocators")
            found.append(("memray, python allocators", python_allocators))
        command = [python.path, "-X", "tracemalloc=1"]
        found.append(("tracemalloc, 1 frame", lambda: Ran([*command, *words], self.dir)))
        return found

    def peer_table(self, python, count):
        rows = {}

        def put(name, value):
            rows.setdefault(name, []).append(value)

        titles = []
        for name, title, _, small, _, _ in CPU_ROWS:
            if name == "w4" and not python.has("numpy", "pandas"):
                continue
            words = [self.workload(name)] + small
            titles.append("%s (%s)" % (name, " ".join(small)))
            try:
                variants = self.peer_variants(python, words)
                results = rounds(variants, count)
            except Failed as error:
                self.problems.append("peers, %s: %s" % (name, error))
                for each, _ in variants:
                    put(each, "failed")
                continue
            for each, _ in variants[1:]:
                cpu, wall = ratios(results, each), ratios(results, each, of="wall")
                put(each, "%.2f (%.2f)" % (cpu, wall))
                note("peers, %s: %s %.2f" % (title, each, cpu))
        text = markdown(["CPU (wall) over plain"] + titles, [[n] + c for n, c in rows.items()])
        start = self.peer_start(python, count)
        return text + "\n" + start + "\n" + self.peer_hot(python, count)

    def peer_start(self, python, count):
        start = rounds(self.peer_variants(python, ["-c", "pass"]), count * 2)
        memory = rounds(self.peer_variants(python, ["-c", HIGH_WATER]), count)
        rows = []
        for name in list(start)[1:]:
            pairs = zip(start[name], start["plain"])
            ms = statistics.median(a.wall - b.wall for a, b in pairs) * 1000
            pairs = zip(memory[name], memory["plain"])
            mib = statistics.median(high_water(a) - high_water(b) for a, b in pairs)
            rows.append([name, "%.0f ms" % ms, "%.1f MiB" % mib])
        return markdown(["`-c pass`", "wall added", "maximum RSS added"], rows)

    def peer_hot(self, python, count):
        """ns a turn as the program itself measures it, so that start-up doesn't matter."""
        script = self.workload("hot_loop")
        turns = lambda ran: float(ran.err.split("ns/turn")[1].split()[0])
        variants = [
            ("plain", lambda: Ran([python.path, script, "1000000"], self.dir)),
            ("strandline", lambda: self.profiled(python, script, "1000000")[1]()),
        ]
        if python.has("memory_profiler"):
            command = [python.path, "-m", "memory_profiler", script, "3000"]

            def run():
                ran = Ran(command, self.dir)
                ran.out = ""  # it prints its table there
                return ran

            variants.append(("memory_profiler", run))
        results = {name: [] for name, _ in variants}
        for _ in range(count):
            for name, run in variants:
                results[name].append(turns(run()))
        plain = statistics.median(results["plain"])
        rows = []
        for name, values in results.items():
            ns = statistics.median(values)
            rows.append([name, "%.0f ns" % ns, "%.1f" % (ns / plain)])
        return markdown(["hot loop", "CPU a turn", "over plain"], rows)


def cell(value, unit, target):
    if isinstance(value, str):
        return value
    text = {"×": "%.2f", "ms": "%.0f ms", "MiB": "%.1f MiB", "%": "%.1f %%"}[unit] % value
    if isinstance(value, Ratio):
        # Without the spread a reader can't tell a miss from a busy machine.
        text += " (%.2f–%.2f)" % (value.low, value.high)
    return text if target is None or value <= target else "%s **(missed)**" % text


def target_text(target, unit):
    if target is None:
        return "–"
    if callable(target):
        return "≤ %.2f on 3.11, else 0.06 more" % target(None)
    return "≤ %s %s" % (target, unit) if unit != "×" else "≤ %.2f" % target


def markdown(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines) + "\n"


def processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        name = next(l.split(":", 1)[1].strip() for l in text.splitlines() if "model name" in l)
    except (OSError, StopIteration):
        name = platform.processor() or "unknown"
    return "%s, %d cores" % (name, os.cpu_count())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strandline", default=ROOT / "target/release/strandline")
    parser.add_argument("--python", action="append", help="interpreter; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--only", action="append", choices=GROUPS, help="these rows; repeatable")
    parser.add_argument("--venv", metavar="DIR", help="make environments with numpy and pandas")
    parser.add_argument("--peers", action="store_true", help="peers as well; needs --venv")
    parser.add_argument("--no-main", action="store_true", help="the table of peers only")
    options = parser.parse_args()
    if options.peers and not options.venv:
        parser.error("--peers needs --venv DIR, where they are installed")
    if not pathlib.Path(options.strandline).exists():
        parser.error("%s: not there; cargo build --release" % options.strandline)
    pythons = [Python(name) for name in options.python or [sys.executable]]
    if options.venv:
        packages = ["numpy", "pandas"] + (["memray", "memory_profiler"] if options.peers else [])
        for python in pythons:
            python.into_venv(options.venv, packages)
    bench = Bench(options)
    versions = ", ".join(p.version for p in pythons)
    day = datetime.date.today().isoformat()
    print("%s; %s; Linux %s; CPython %s; medians of %d paired runs.\n"
          % (day, processor(), platform.release(), versions, options.rounds))
    if not options.no_main:
        print(bench.main_table(pythons, options.only or GROUPS), flush=True)
    if options.peers:
        for python in pythons:
            print("Peers on %s, smaller sizes:\n" % python.version)
            print(bench.peer_table(python, options.rounds), flush=True)
    for problem in bench.problems:
        print("Problem: %s\n" % problem)
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
