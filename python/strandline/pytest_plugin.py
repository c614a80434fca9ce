"""``pytest --strandline``, and the markers limit_memory, limit_leaks and limit_stranded.

This file is loaded by every pytest of the environment: it imports nothing that costs anything until
one of them is used.
"""

from collections import namedtuple

import pytest

# As pytest-memray counts: all of them by 1024.
_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
_UNITS.update({"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40})

MARKERS = {
    "limit_memory": "limit_memory(size): fail if the test has more than so much in use at one time ('24 MB')",
    "limit_leaks": "limit_leaks(size, *, filter_fn=None, total=False): fail if any source line asked for more than so "
    "much that is still in use after the test and a collection; total=True: if all of them together did",
    "limit_stranded": "limit_stranded(size): fail if more than so much is kept by allocators after the test",
}
_KEY = "strandline"

StackFrame = namedtuple("StackFrame", "function filename lineno")
StackFrame.__doc__ = "A frame of Python code."
Stack = namedtuple("Stack", "frames")
Stack.__doc__ = """What `filter_fn` of limit_leaks gets: `frames` has the innermost Python frame that asked for the
memory, and nothing where none ran."""


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
    group.addoption(
        "--strandline-quick",
        action="store_true",
        default=False,
        help="as --strandline, without what is stranded, which takes longest",
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
        self.quick = config.getoption("strandline_quick")
        self.all = self.quick or config.getoption("strandline")
        self.top = config.getoption("strandline_top")
        self.figures = []
        self.worker = hasattr(config, "workerinput")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        limits = {}
        for name in MARKERS:
            marker = pyfuncitem.get_closest_marker(name)
            if marker is not None:
                limits[name] = Limit(name, marker)
        if not limits and not self.all:
            yield
            return
        measured = self.measure(pyfuncitem, limits)
        outcome = yield
        if measured is None:
            return
        try:
            figures = measured.end()
            pyfuncitem.user_properties.append((_KEY, figures))
            broken = [limit.broken(figures, measured.places) for limit in limits.values()]
            broken = [words for words in broken if words]
            if broken:
                pytest.fail("\n".join(broken), pytrace=False)
        except BaseException as e:
            # A test that failed by itself has its own reason.
            if getattr(outcome, "excinfo", None) is None:
                _force(outcome, e)

    def measure(self, item, limits):
        from ._binary import Error

        try:
            leaks = limits.get("limit_leaks")
            stranded = (self.all and not self.quick) or "limit_stranded" in limits
            collect = self.all or list(limits) != ["limit_memory"]
            return Measured(stranded, leaks is not None and not leaks.total, collect)
        except Error as e:
            # A limit that can't be checked is a failure; a figure that can't be had is none.
            if limits:
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


# What a limit is on: the figure, and how it is called.
_FIGURES = {
    "limit_memory": ("peak", "peak of memory in use"),
    "limit_leaks": ("leaked", "still in use after the test"),
    "limit_stranded": ("stranded", "stranded by the test"),
}
# Arguments that a marker may have besides the size, and what they are if they aren't given.
_OPTIONS = {
    "limit_memory": {"current_thread_only": False},
    "limit_leaks": {"current_thread_only": False, "filter_fn": None, "total": False},
    "limit_stranded": {},
}
# So many places of a broken limit are shown.
_SHOWN = 10


class Limit(object):
    """What a marker allows."""

    def __init__(self, name, marker):
        # The size has a name in pytest-memray.
        named = dict(marker.kwargs)
        sizes = list(marker.args) + [named.pop(k) for k in ("memory_limit", "location_limit") if k in named]
        options = dict(_OPTIONS[name])
        unknown = [key for key in named if key not in options]
        if len(sizes) != 1 or unknown:
            wants = "".join(", %s=%r" % option for option in sorted(options.items()))
            raise ValueError("@pytest.mark.%s wants one size, like '24 MB'%s, and nothing else" % (name, wants))
        options.update(named)
        self.name = name
        self.size = parse_size(sizes[0])
        self.filter = options.get("filter_fn")
        self.total = options.get("total", False)
        self.one_thread = options.get("current_thread_only", False)

    def broken(self, figures, places):
        """Why the test fails, if it does."""
        if self.name == "limit_leaks" and not self.total:
            words = self._broken_by_places(places)
        else:
            key, called = _FIGURES[self.name]
            if figures[key] is None or figures[key] <= self.size:
                return None
            words = "%s: %s %s, the limit is %s" % (self.name, called, show_size(figures[key]), show_size(self.size))
        if words and self.one_thread:
            words += "\n(current_thread_only: strandline counts all threads; %d run now)" % _threads()
        return words

    def _broken_by_places(self, places):
        found = [
            (count, place)
            for place, count in places.items()
            if count > self.size and (self.filter is None or self.filter(_stack(place)))
        ]
        if not found:
            return None
        found.sort(key=lambda row: -row[0])
        first = "limit_leaks: %d source line%s asked for more that is still in use after the test than %s"
        rows = [first % (len(found), "" if len(found) == 1 else "s", show_size(self.size))]
        rows += ["%14s   %s" % (show_size(count), _show_place(place)) for count, place in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append("and %d more" % (len(found) - _SHOWN))
        return "\n".join(rows)


def _stack(place):
    return Stack(() if place[1] is None else (StackFrame(*place),))


def _show_place(place):
    function, file, line = place
    return "outside of Python code" if file is None else "%s:%s (%s)" % (file, line, function)


def _threads():
    import os

    return len(os.listdir("/proc/self/task"))


def _force(outcome, error):
    if hasattr(outcome, "force_exception"):
        outcome.force_exception(error)
    else:
        # pluggy before 1.1
        outcome._result = None
        outcome._excinfo = (type(error), error, error.__traceback__)


class Measured(object):
    """One test."""

    def __init__(self, stranded, places, collect):
        import gc

        from ._looks import stranded as look
        from ._window import Window

        self.look = look
        self.window = Window()
        # What earlier tests left to the collector isn't this one's. A peak alone isn't worth two collections.
        self.collect = gc.collect if collect else None
        if collect:
            gc.collect()
        self.stranded = look() if stranded else None
        self.before = self._counted() if places else None
        self.places = None
        self.window.__enter__()

    def end(self):
        """Bytes: peak, in_use (at the test's end), leaked (after a collection), stranded or None. `places` says how
        much more than before each source line holds."""
        in_use, peak = self.window.in_use, self.window.peak
        if self.collect is not None:
            self.collect()
        leaked = self.window.in_use
        after = self._counted() if self.before is not None else None
        figures = {"peak": peak, "in_use": max(in_use, 0), "leaked": max(leaked, 0), "stranded": None}
        if self.stranded is not None:
            figures["stranded"] = max(self.look() - self.stranded, 0)
        # Last, since it allocates.
        if after is not None:
            with self.before, after:
                held = self.before.in_use_by_line()
                self.places = {place: n - held.get(place, 0) for place, n in after.in_use_by_line().items()}
        return figures

    def _counted(self):
        from ._lines import Counted

        return Counted()
