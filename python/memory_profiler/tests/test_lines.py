"""Increments and occurrences: the numbers themselves."""
import inspect
import mmap
import threading

import memory_profiler
import pytest
from memory_profiler import LineProfiler, show_results

BIG = 32 << 20


def measured(profiler, function):
    """{text of a line: (increment, memory, occurrences)}, for one function of a profiler."""
    source, start = inspect.getsourcelines(function)
    lines = profiler.code_map[inspect.unwrap(function).__code__]
    return {source[n - start].strip(): found for n, found in lines.items()}


def near(increment, wanted):
    # The interpreter's own blocks come and go in arenas of up to a MiB.
    return abs(increment - wanted / float(1 << 20)) < 2.5


def test_a_loop_that_frees_and_allocates_is_no_negative_sum():

    def loop():
        for i in range(6):
            b = b"x" * BIG
            del b

    prof = LineProfiler()
    prof(loop)()
    found = measured(prof, loop)
    assert near(found['b = b"x" * BIG'][0], 6 * BIG)
    assert near(found["del b"][0], -6 * BIG)
    assert abs(found["for i in range(6):"][0]) < 2.5
    assert found["for i in range(6):"][2] == 7
    assert found['b = b"x" * BIG'][2] == 6


def test_memory_that_a_loop_has_given_back_is_not_taken_off_in_every_round():
    """#195, #211, #219: a line's highest memory is not what it left behind."""

    def loop():
        for i in range(6):
            a = b"x" * BIG if i == 0 else b""
            c = i
        return a, c

    prof = LineProfiler()
    prof(loop)()
    found = measured(prof, loop)
    assert abs(found['a = b"x" * BIG if i == 0 else b""'][0]) < 2.5
    assert abs(found["c = i"][0]) < 2.5
    assert abs(found["for i in range(6):"][0]) < 2.5
    assert found["c = i"][1] > BIG >> 20


def test_increments_add_up_to_what_the_call_changed():
    """#253, #353."""

    def grows():
        kept = []
        for i in range(20):
            kept.append(b"x" * (1 << 20))
            if i % 5 == 0:
                kept.append(b"y" * (2 << 20))
        return kept

    prof = LineProfiler()
    wrapped = prof(grows)  # reads and parses this file, once
    before = memory_profiler.memory_usage()[0]
    kept = wrapped()
    after = memory_profiler.memory_usage()[0]
    found = measured(prof, grows)
    first = found.pop("def grows():")
    total = sum(one[0] for one in found.values())
    assert abs(total - (after - before)) < 1.5
    assert abs(first[0] - before) < 1.5
    assert len(kept) == 24


def test_a_second_call_is_no_spike_at_its_first_line():
    """#234: what other code does between two calls is not the function's."""

    def small():
        return 1

    prof = LineProfiler()
    wrapped = prof(small)
    wrapped()
    before = measured(prof, small)["def small():"][0]
    kept = b"x" * BIG
    wrapped()
    found = measured(prof, small)
    assert found["def small():"][0] == before
    assert found["def small():"][2] == 2
    assert abs(found["return 1"][0]) < 0.5
    assert len(kept) == BIG


def test_a_call_of_another_profiled_function_is_no_spike():
    def inner():
        return b"x" * BIG

    def outer():
        kept = inner_()
        return kept

    prof = LineProfiler()
    inner_ = prof(inner)
    prof(outer)()
    assert near(measured(prof, outer)["kept = inner_()"][0], BIG)
    assert near(measured(prof, inner)['return b"x" * BIG'][0], BIG)


def test_recursion_counts_every_byte_once():
    def deep(n):
        kept = b"x" * BIG
        if n:
            deep_(n - 1)
        return len(kept)

    prof = LineProfiler()
    deep_ = prof(deep)
    deep_(4)
    found = measured(prof, deep)
    assert near(found['kept = b"x" * BIG'][0], 5 * BIG)
    assert near(found["deep_(n - 1)"][0] + found["return len(kept)"][0], -4 * BIG) or near(
        found["deep_(n - 1)"][0] + found["return len(kept)"][0], -5 * BIG
    )
    assert found['kept = b"x" * BIG'][2] == 5
    assert found["deep_(n - 1)"][2] == 4


def test_arguments_of_a_recursive_call_belong_to_the_line_of_the_call():
    def deep(n, data):
        if n:
            deep_(n - 1, b"x" * BIG)
        return n

    prof = LineProfiler()
    deep_ = prof(deep)
    deep_(3, b"")
    found = measured(prof, deep)
    assert abs(found["def deep(n, data):"][0] - found["def deep(n, data):"][1]) < 3 * BIG / 2 ** 20 + 3
    assert near(found["deep_(n - 1, b\"x\" * BIG)"][0], 0)
    assert near(found["if n:"][0], 0)


def test_nested_code_is_in_the_table_of_the_function_around_it():
    def outer():
        def inner():
            return b"x" * BIG

        kept = [inner() for _ in range(2)]
        return sum(len(x) for x in kept)

    prof = LineProfiler()
    prof(outer)()
    found = measured(prof, outer)
    assert near(found['return b"x" * BIG'][0], 2 * BIG)
    assert found['return b"x" * BIG'][2] == 2
    assert near(found["kept = [inner() for _ in range(2)]"][0], 0)


def test_an_exception_ends_its_line():
    def fails():
        kept = b"x" * BIG
        raise KeyError(len(kept))

    prof = LineProfiler()
    with pytest.raises(KeyError):
        prof(fails)()
    found = measured(prof, fails)
    assert near(found['kept = b"x" * BIG'][0], BIG)
    assert found["raise KeyError(len(kept))"][2] == 1
    assert prof.enable_count == 0


def test_threads_have_their_own_lines():
    def work(barrier):
        barrier.wait(60)
        kept = b"x" * 100
        return kept

    prof = LineProfiler()
    wrapped = prof(work)
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=wrapped, args=(barrier,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    found = measured(prof, work)
    assert found['kept = b"x" * 100'][2] == 4
    assert found["return kept"][2] == 4


def test_the_table_of_a_code_map():
    def f(a):
        b = a
        if a > 100:
            b = 0
        return b

    prof = LineProfiler()
    prof(f)(1)
    (toplevel,) = prof.code_map._toplevel
    start = f.__code__.co_firstlineno
    assert toplevel == (__file__, f.__code__, range(start, start + 5))
    ((name, lines),) = prof.code_map.items()
    lines = list(lines)
    assert name == __file__
    assert [n for n, _ in lines] == list(range(start, start + 5))
    assert [m and m[2] for _, m in lines] == [1, 1, 1, None, 1]
    increment, memory, _ = lines[0][1]
    assert increment == memory
    assert isinstance(prof.code_map, dict)


def test_enabling_by_hand():
    def f():
        return 1

    prof = LineProfiler()
    prof.add_function(f)
    f()
    assert not prof.code_map[f.__code__]
    prof.enable_by_count()
    prof.enable_by_count()
    assert prof.enable_count == 2
    f()
    prof.disable_by_count()
    f()
    prof.disable_by_count()
    f()
    assert measured(prof, f)["return 1"][2] == 2
    with prof:
        f()
    assert prof.runctx("f()", {"f": f}, {}) is prof
    assert measured(prof, f)["return 1"][2] == 4
    assert prof.wrap_function(f)() == 1
    assert measured(prof, f)["return 1"][2] == 5


def test_a_subclass_may_replace_the_code_map():
    """What PySpark does: a map of its own whose toplevel entries are pairs."""

    class Map(memory_profiler.CodeMap):
        def add(self, code, toplevel_code=None, *, sub_lines=None, start_line=None):
            if code not in self:
                self[code] = {}
                self._toplevel.append((code.co_filename, code))

        def items(self):
            for filename, code in self._toplevel:
                yield filename, iter([(line, self[code][line]) for line in self[code]])

    class Profiler(LineProfiler):
        def __init__(self, **kw):
            super().__init__(**kw)
            self.code_map = Map(include_children=False, backend="psutil")

    def f():
        return 1

    prof = Profiler()
    prof.code_map.add(f.__code__, sub_lines=None)
    with prof:
        f()
    ((_, lines),) = prof.code_map.items()
    assert [measured[2] for _, measured in lines] == [1, 1]


def test_tracers_of_others_go_on():
    import sys

    seen = []

    def tracer(frame, event, arg):
        if frame.f_code is f.__code__:
            seen.append(event)
        return tracer

    def f():
        a = 1
        return a

    prof = LineProfiler()
    wrapped = prof(f)
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        wrapped()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert seen == ["call", "line", "line", "return"]
    assert measured(prof, f)["a = 1"][2] == 1


def test_other_code_is_not_slowed_by_line_events():
    """The original traced every line of everything that a profiled function calls."""
    events = []

    def callee():
        events.append(1)
        return 1

    def f():
        return callee()

    prof = LineProfiler()
    prof.code_map.reader = lambda code: lambda: events.append(2) or 1
    prof(f)()
    # One reading at the call of f, one at the first line, one at its return.
    assert events.count(2) == 3


def test_show_results_without_source():
    import io

    names = {}
    exec(compile("def f():\n    return 1\n", "<nowhere>", "exec"), names)
    prof = LineProfiler()
    prof(names["f"])()
    out = io.StringIO()
    show_results(prof, stream=out)
    assert out.getvalue() == "ERROR: Could not find file <nowhere>\n"


def test_the_baseline_is_an_option(capsys, rows, monkeypatch):
    def f():
        return 1

    def increment(decorated):
        assert decorated() == 1
        return rows(capsys.readouterr().out)["def f():"][1]

    whole = increment(memory_profiler.profile(f))
    assert whole > 5
    assert abs(increment(memory_profiler.profile(f, baseline=False))) < 1
    assert abs(increment(memory_profiler.profile(baseline=False)(f))) < 1
    monkeypatch.setenv("MEMORY_PROFILER_BASELINE", "0")
    assert abs(increment(memory_profiler.profile(f))) < 1
    assert increment(memory_profiler.profile(f, baseline=True)) > 5
    prof = LineProfiler()
    prof(f)()
    first = f.__code__.co_firstlineno
    assert abs(prof.code_map[f.__code__][first][0]) < 1 and prof.code_map[f.__code__][first][1] > 5


def test_a_backend_that_counts_page_by_page():
    """The kernel's own figure of resident memory moves in batches of pages."""
    maps = [mmap.mmap(-1, 16 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(20)]
    for one in maps:
        if hasattr(one, "madvise"):
            one.madvise(mmap.MADV_NOHUGEPAGE)
    data = b"x" * (16 << 12)

    def f():
        for one in maps:
            one.write(data)

    prof = LineProfiler(backend="exact")
    prof(f)()
    pages = measured(prof, f)["one.write(data)"][0] * 256
    # The interpreter itself may touch a few.
    assert 320 <= pages < 336
