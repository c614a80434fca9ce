"""``pytest --strandline``, and the markers limit_memory, limit_leaks and limit_stranded.

This file is loaded by every pytest of the environment: it imports nothing that costs anything until
one of them is used.
"""

import pytest

# As pytest-memray counts: all of them by 1024.
_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
_UNITS.update({"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40})

MARKERS = {
    "limit_memory": "limit_memory(size): fail if the test has more than so much in use at one time ('24 MB')",
    "limit_leaks": "limit_leaks(size): fail if more than so much is still in use after the test and a collection",
    "limit_stranded": "limit_stranded(size): fail if more than so much is kept by allocators after the test",
}
_KEY = "strandline"


def pytest_addoption(parser):
    group = parser.getgroup("strandline", "memory by strandline")
    group.addoption(
        "--strandline",
        action="store_true",
        default=False,
        help="show each test's peak, and what it leaves in use, leaked and stranded",
    )
    group.addoption(
        "--strandline-top",
        type=int,
        default=10,
        metavar="N",
        help="show so many tests, those with the highest peak first; 0 shows all (default: 10)",
    )


def pytest_configure(config):
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    config.pluginmanager.register(Plugin(config), "strandline-measuring")


def parse_size(text):
    """Bytes in "24 MB", "1.5 KiB", 100."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return int(text)
    words = str(text).strip()
    digits = words.rstrip("BbKkMmGgTtIi ")
    unit = words[len(digits) :].strip().upper()
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError):
        raise ValueError("%r is no size: write '24 MB', '1.5 GiB'" % (text,))


def show_size(count):
    """MiB, as everywhere in strandline."""
    return "%.3f MiB" % (count / 2.0**20)


class Plugin(object):
    """Measures tests that are to be measured."""

    def __init__(self, config):
        self.all = config.getoption("strandline")
        self.top = config.getoption("strandline_top")
        self.figures = []
        self.worker = hasattr(config, "workerinput")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        limits = {}
        for name in MARKERS:
            marker = pyfuncitem.get_closest_marker(name)
            if marker is not None:
                limits[name] = _limit(name, marker)
        if not limits and not self.all:
            yield
            return
        measured = self.measure(pyfuncitem, self.all or "limit_stranded" in limits, bool(limits))
        outcome = yield
        if measured is None:
            return
        figures = measured.end()
        broken = [
            "%s: %s %s, the limit is %s" % (name, words, show_size(figures[key]), show_size(limits[name]))
            for name, key, words in (
                ("limit_memory", "peak", "peak of memory in use"),
                ("limit_leaks", "leaked", "still in use after the test"),
                ("limit_stranded", "stranded", "stranded by the test"),
            )
            if name in limits and figures[key] is not None and figures[key] > limits[name]
        ]
        pyfuncitem.user_properties.append((_KEY, figures))
        # A test that failed by itself has its own reason.
        if broken and getattr(outcome, "excinfo", None) is None:
            outcome.force_result(None)
            _fail(outcome, "\n".join(broken))

    def measure(self, item, stranded, wanted):
        from ._binary import Error

        try:
            return Measured(stranded)
        except Error as e:
            # A limit that can't be checked is a failure; a figure that can't be had is none.
            if wanted:
                raise
            item.warn(pytest.PytestWarning("strandline does not measure: %s" % e))
            return None

    def pytest_runtest_logreport(self, report):
        # Under xdist the controller gets the reports of all workers, figures included.
        if report.when == "call" and not self.worker and self.all:
            figures = dict(report.user_properties).get(_KEY)
            if figures is not None:
                self.figures.append((report.nodeid, figures))

    def pytest_terminal_summary(self, terminalreporter):
        if not self.figures:
            return
        write = terminalreporter.write_line
        rows = sorted(self.figures, key=lambda row: -row[1]["peak"])
        shown = rows[: self.top] if self.top > 0 else rows
        terminalreporter.section("memory of the tests, by strandline")
        write("%14s %14s %14s %14s   %s" % ("Peak", "In use", "Leaked", "Stranded", "Test"))
        for nodeid, figures in shown:
            cells = [_cell(figures[key]) for key in ("peak", "in_use", "leaked", "stranded")]
            write("%14s %14s %14s %14s   %s" % tuple(cells + [nodeid]))
        if len(shown) < len(rows):
            write("%d more: --strandline-top 0 shows all" % (len(rows) - len(shown)))


def _cell(count):
    return "-" if count is None else show_size(count)


def _limit(name, marker):
    # Both markers' argument has a name in pytest-memray.
    named = dict(marker.kwargs)
    sizes = list(marker.args) + [named.pop(k) for k in ("memory_limit", "location_limit") if k in named]
    if len(sizes) != 1 or named:
        raise ValueError("@pytest.mark.%s wants one size, like '24 MB', and nothing else" % name)
    return parse_size(sizes[0])


def _fail(outcome, words):
    try:
        pytest.fail(words, pytrace=False)
    except BaseException as e:
        if hasattr(outcome, "force_exception"):
            outcome.force_exception(e)
        else:
            # pluggy before 1.1
            outcome._result = None
            outcome._excinfo = (type(e), e, e.__traceback__)


class Measured(object):
    """One test."""

    def __init__(self, stranded):
        import gc

        from ._looks import stranded as look
        from ._window import Window

        self.look = look
        self.window = Window()
        # What earlier tests left to the collector isn't this one's.
        gc.collect()
        self.stranded = look() if stranded else None
        self.window.__enter__()

    def end(self):
        """Bytes: peak, in_use (at the test's end), leaked (after a collection), stranded or None."""
        import gc

        in_use, peak = self.window.in_use, self.window.peak
        gc.collect()
        leaked = self.window.in_use
        figures = {"peak": peak, "in_use": max(in_use, 0), "leaked": max(leaked, 0), "stranded": None}
        if self.stranded is not None:
            figures["stranded"] = max(self.look() - self.stranded, 0)
        return figures
