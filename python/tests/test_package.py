"""The package in a process that was not started under strandline, against what is known of the sizes."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

import strandline

MIB = 1 << 20


def python(code, *prefix, **options):
    """Runs code in a fresh interpreter: (exit code, stdout, stderr)."""
    command = list(prefix) + [sys.executable, "-c", textwrap.dedent(code)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = child.communicate()
    return child.returncode, out.decode(), err.decode()


def answer(case, code, *prefix):
    status, out, err = python(code, *prefix)
    case.assertEqual(status, 0, err)
    return json.loads(out.splitlines()[-1])


class Import(unittest.TestCase):
    def test_changes_nothing_until_something_is_used(self):
        seen = answer(
            self,
            """
            import sys, json, os, threading, subprocess, ctypes, tempfile, time, builtins
            maps, names = open("/proc/self/maps").read().count("r-xp"), set(dir(builtins))
            fds = os.listdir("/proc/self/fd")
            import strandline
            same = open("/proc/self/maps").read().count("r-xp") == maps and set(dir(builtins)) == names
            print(json.dumps([same, os.listdir("/proc/self/fd") == fds, "_strandline" in sys.modules]))
            """,
        )
        self.assertEqual(seen, [True, True, False])


class MemoryUsage(unittest.TestCase):
    def test_of_this_process(self):
        (mib,) = strandline.memory_usage()
        with open("/proc/self/status") as f:
            (line,) = [line for line in f if line.startswith("VmRSS")]
        self.assertAlmostEqual(mib, int(line.split()[1]) / 1024.0, delta=4)
        samples = strandline.memory_usage(-1, interval=0.01, timeout=0.05, timestamps=True)
        self.assertEqual(len(samples), 5)
        self.assertLess(samples[0][1], samples[-1][1])

    def test_of_a_function_that_runs_once_and_is_gone_between_two_samples(self):
        calls = []

        def f(n, more=0):
            calls.append(n)
            return len(b"x" * (n + more))

        before = strandline.memory_usage(max_usage=True)
        usage, returned = strandline.memory_usage((f, (90 * MIB,), {"more": 10 * MIB}), max_usage=True, retval=True)
        self.assertEqual((calls, returned), ([90 * MIB], 100 * MIB))
        self.assertGreater(usage - before, 95)
        self.assertLess(usage - before, 112)

    def test_samples_are_taken_while_a_function_holds_the_gil(self):
        # One call into C, which lets nobody else run.
        usage = strandline.memory_usage((sorted, (list(range(3000000, 0, -1)) * 3,)), interval=0.001)
        self.assertGreater(len(usage), 5)

    def test_exceptions_come_through(self):
        with self.assertRaises(ZeroDivisionError):
            strandline.memory_usage((lambda: 1 // 0,))

    def test_children_and_streams(self):
        code = "x = bytearray(60 << 20); input()"

        def f():
            child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
            while strandline.memory_usage(child.pid, max_usage=True) < 60:
                pass
            (alone,) = strandline.memory_usage(-1)
            (both,) = strandline.memory_usage(-1, include_children=True)
            child.communicate(b"\n")
            return both - alone

        usage, more = strandline.memory_usage(f, interval=0.002, include_children=True, max_usage=True, retval=True)
        self.assertGreater(more, 59)
        self.assertGreater(usage, 59 + strandline.memory_usage(max_usage=True) - 30)
        with tempfile.TemporaryFile("w+") as f:
            self.assertIsNone(strandline.memory_usage(-1, stream=f))
            f.seek(0)
            self.assertRegex(f.read(), r"^MEM \d+\.\d{6} \d+\.\d{4}\n$")

    def test_of_a_popen(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.assertGreaterEqual(len(strandline.memory_usage(child, interval=0.01, timeout=0.05)), 1)
        child.communicate(b"\n")
        self.assertEqual(strandline.memory_usage(child), [])


class Looks(unittest.TestCase):
    def test_census_adds_up(self):
        seen = strandline.census()
        self.assertEqual(seen["pid"], os.getpid())
        self.assertEqual(seen["rss_bytes"], sum(c["bytes"] for c in seen["classes"]))
        self.assertIn("resident memory (RSS)", strandline.census(text=True))

    def test_census_to_a_file(self):
        with tempfile.TemporaryDirectory() as d:
            file = os.path.join(d, "census.json")
            seen = strandline.census(file)
            with open(file) as f:
                self.assertEqual(json.load(f), seen)
            with self.assertRaises(FileExistsError):
                strandline.census(file)

    def test_explain(self):
        seen = strandline.explain()
        self.assertEqual(seen["schema"], "strandline-explain/1")
        self.assertIn("process %d" % os.getpid(), strandline.explain(text=True))

    def test_trim_gives_back_what_malloc_kept(self):
        seen = answer(
            self,
            """
            import json, strandline, ctypes
            blocks = [bytearray(2000) for _ in range(20000)]
            pin = bytearray(2000)
            del blocks
            print(json.dumps(strandline.trim()))
            """,
        )
        self.assertGreater(seen["malloc_trim"], 30 * MIB)
        self.assertEqual(seen["rss_before"] - seen["rss_after"], seen["collect"] + seen["malloc_trim"] + seen["pool_trim"])


    POOLS = """
        import json, strandline, sys
        {first}
        # One in a thousand stays, and with it each arena, but few of its pools.
        blocks = [bytes(450) for _ in range(200000)]
        kept = blocks[::1000]
        del blocks
        given = strandline.trim()
        same = all(len(block) == 450 and not any(block) for block in kept)
        again = [bytes(450) for _ in range(200000)]
        del again
        print(json.dumps([given, same and strandline.trim()["rss_after"] > 0]))
        """

    def test_trim_gives_back_pools(self):
        for first in ("", "strandline.Window()"):
            given, same = answer(self, self.POOLS.format(first=first))
            self.assertTrue(same)
            parts = [given[name] for name in ("collect", "malloc_trim", "pool_trim")]
            self.assertEqual(given["rss_before"] - given["rss_after"], sum(parts))
            if (3, 10) <= sys.version_info < (3, 14):
                self.assertGreater(given["pool_trim"], 50 * MIB)
            else:
                # Other memory than that of pools may come and go.
                self.assertLess(abs(given["pool_trim"]), MIB)

    def test_trim_counts_nothing_from_then_on(self):
        code = """
            import json, strandline, sys
            strandline.trim()
            print(json.dumps([strandline.snapshot()["in_use_bytes"], "_strandline" in sys.modules]))
            """
        self.assertEqual(answer(self, code), [None, False])


class Windows(unittest.TestCase):
    CODE = """
        import json, strandline, sys
        first = strandline.snapshot()["in_use_bytes"]
        window = strandline.Window()
        with window:
            kept = [bytes(1000) for _ in range(10000)]
            gone = bytearray(50 << 20)
            del gone
        size = sum(map(sys.getsizeof, kept)) + sys.getsizeof(kept)
        old = [bytes(100) for _ in range(10000)]
        with strandline.Window() as second:
            del old, kept
        now = strandline.snapshot()
        print(json.dumps([first, window.peak, window.in_use, size, second.in_use, now["since"]]))
        """

    def check(self, seen, first, since):
        before, peak, in_use, size, freed, origin = seen
        self.assertEqual(before is None, first)
        self.assertEqual(origin, since)
        # The window's own objects, and the int that says what is in use, are some hundred bytes.
        self.assertAlmostEqual(in_use, size, delta=4000)
        self.assertAlmostEqual(peak, size + (50 << 20), delta=4000)
        self.assertLess(freed, -11 * 1000 * 1000)

    def test_bytes_are_exact_where_the_agent_is_loaded(self):
        self.check(answer(self, self.CODE), True, "load")

    def test_and_under_strandline_run(self):
        binary = strandline._binary.path()
        self.check(answer(self, self.CODE, binary, "run", "-o", "/dev/null", "--"), False, "start")

    def test_blocks_from_before_count_for_nothing(self):
        seen = answer(
            self,
            """
            import json, strandline
            old = [bytes(100) for _ in range(100000)] + [bytearray(5000) for _ in range(1000)]
            with strandline.Window() as window:
                del old
            print(json.dumps([window.in_use, window.peak]))
            """,
        )
        self.assertLess(abs(seen[0]), 4000)
        self.assertLess(seen[1], 4000)

    def test_libraries_that_come_later_are_seen(self):
        seen = answer(
            self,
            """
            import json, strandline
            window = strandline.Window()
            import sqlite3
            with window:
                db = sqlite3.connect(":memory:")
                db.execute("create table t (x)")
                db.executemany("insert into t values (?)", [("y" * 1000,) for _ in range(5000)])
            peak = window.in_use
            print(json.dumps(peak))
            """,
        )
        self.assertGreater(seen, 5000 * 1000)

    def test_threads_forks_and_the_exit_code_are_what_they_were(self):
        code = """
            import strandline, threading, os, sys
            strandline.Window()
            def work():
                for _ in range(200):
                    [bytes(n) for n in range(0, 4000, 7)]
            threads = [threading.Thread(target=work) for _ in range(4)]
            [t.start() for t in threads]
            work()
            [t.join() for t in threads]
            pid = os.fork()
            if pid == 0:
                work()
                os._exit(7)
            status = os.waitpid(pid, 0)[1]
            print("done", os.WEXITSTATUS(status))
            sys.exit(3)
            """
        self.assertEqual(python(code), (3, "done 7\n", ""))


class Lines(unittest.TestCase):
    def run_script(self, text, *prefix):
        with tempfile.TemporaryDirectory() as d:
            file = os.path.join(d, "app.py")
            with open(file, "w") as f:
                f.write(textwrap.dedent(text))
            child = subprocess.Popen(
                list(prefix) + [sys.executable, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = child.communicate()
        self.assertEqual(child.returncode, 0, err.decode())
        return out.decode(), err.decode()

    APP = """\
        import json, sys
        from strandline import profile

        @profile
        def f():
            kept = [bytes(1000) for _ in range(10000)]
            gone = bytearray(50 << 20)
            del gone
            return kept

        kept = f()
        """

    def test_a_table_at_exit(self):
        out, err = self.run_script(self.APP)
        self.assertEqual(out, "")
        (row,) = [line for line in err.splitlines() if line.endswith("del gone")]
        # Mem usage, increment, peak, allocated, freed.
        self.assertEqual(row.split()[9:11], ["50.000", "MiB"])
        (row,) = [line for line in err.splitlines() if "kept = [bytes" in line]
        self.assertIn("9.93", row)

    def test_the_same_under_run(self):
        out, err = self.run_script(self.APP, strandline._binary.path(), "run", "--")
        self.assertEqual(err.count("Filename: "), 1)
        self.assertRegex(err, r"9\.93\d MiB.* kept = \[bytes")

    def test_tables_as_values(self):
        text = self.APP + "\n        print(json.dumps(sys.modules['strandline'].tables()))"
        self.check_tables(self.run_script(text)[0], None)

    def test_tables_as_values_under_run(self):
        # With a child in the capture as well.
        text = self.APP + """
        import os
        pid = os.fork()
        if pid == 0:
            f()
            os._exit(0)
        os.waitpid(pid, 0)
        print(json.dumps(sys.modules['strandline'].tables()))
        print(sys.modules['strandline'].tables(text=True).count("kept = [bytes"), file=sys.stderr)
        """
        out, err = self.run_script(text, strandline._binary.path(), "run", "--")
        self.check_tables(out, int)
        self.assertEqual(err.splitlines()[0], "1")

    def test_tables_of_a_run_by_call_path(self):
        text = self.APP + """
        try:
            sys.modules['strandline'].tables()
        except sys.modules['strandline'].Error as e:
            print(e)
        """
        with tempfile.TemporaryDirectory() as d:
            profile = os.path.join(d, "app.strand")
            out, _ = self.run_script(text, strandline._binary.path(), "run", "--stacks", "-o", profile, "--")
        self.assertIn("under `strandline run --stacks` the profile has it", out)

    def check_tables(self, out, stranded):
        (table,) = json.loads(out)
        lines = {line["line"]: line for line in table["lines"]}
        self.assertEqual((table["name"], table["calls"]), ("f", 1))
        self.assertGreaterEqual(lines[7]["peak_bytes"], 50 << 20)
        self.assertGreaterEqual(lines[8]["freed_bytes"], 50 << 20)
        kind = type(lines[7]["stranded_increment_bytes"])
        self.assertIs(kind, type(None) if stranded is None else stranded)
        self.assertAlmostEqual(lines[6]["in_use_bytes"], 10000 * 1033 + 86000, delta=4000)


if __name__ == "__main__":
    unittest.main()
