"""Tables that grow from call to call, as PySpark's profiler gets them: its classes, made here as it makes them."""
import pickle
import sys
import types

import pytest

from memory_profiler import CodeMap, LineProfiler, _native, _pyspark


@pytest.fixture
def spark():
    module = types.ModuleType(_pyspark.MODULE)
    space = {"CodeMap": CodeMap, "LineProfiler": LineProfiler, "__name__": _pyspark.MODULE}
    exec(
        """
class Map(CodeMap):
    def add(self, code, toplevel_code=None):
        if code not in self:
            self._toplevel.append((code.co_filename, code))
            self[code] = {}
    def items(self):
        for filename, code in self._toplevel:
            if self[code]:
                yield filename, ((line, self[code][line]) for line in self[code])
class Profiler(LineProfiler):
    def __init__(self, **kw):
        super(Profiler, self).__init__(**kw)
        self.code_map = Map(include_children=False, backend="psutil")
""",
        space,
    )
    return space["Profiler"]


class Call:
    """One call, put down in `results`: a list of what is handed over, by key."""

    def __init__(self, profiler, results, key, func):
        self._accumulator = results
        self._profiler = profiler()
        self._profiler.add_function(func)
        self._result_key = key

    def start(self):
        self._profiler.enable_by_count()

    def __enter__(self):
        self.start()

    def __exit__(self, *error):
        self._profiler.disable_by_count()
        handed = {name: list(lines) for name, lines in self._profiler.code_map.items()}
        self._accumulator.setdefault(self._result_key, []).append(handed)


def udf(x):
    if x % 2:
        x += 1
    return x


FIRST = udf.__code__.co_firstlineno


def counts(results, key):
    """Occurrences by line, counted from the first, after what happens to a result: it is pickled."""
    found = {}
    for handed in pickle.loads(pickle.dumps(results[key])):
        for lines in handed.values():
            for line, measured in lines:
                assert type(measured) is tuple and measured[1] > 1
                found[line - FIRST] = found.get(line - FIRST, 0) + measured[2]
    return found


def test_calls_are_counted_and_what_ran_later_is_there(spark):
    results = {}
    for i in [0] * 10 + [1] * 5:
        with Call(spark, results, 1, udf):
            udf(i)
    assert counts(results, 1) == {0: 15, 1: 15, 2: 5, 3: 15}
    # The first call has three lines, the eleventh one, the others nothing.
    assert [sum(map(len, handed.values())) for handed in results[1]] == [3] + [0] * 9 + [1] + [0] * 4
    (line, growing) = list(results[1][0].values())[0][0]
    increment, highest, occurrences = growing
    assert (line, occurrences, len(growing), growing[1]) == (FIRST, 15, 3, highest)
    assert increment == pytest.approx(highest, abs=4)


def test_a_function_in_two_places_has_a_table_in_each(spark):
    results = {}
    for i in range(6):
        for key in (1, 2) if i % 2 else (1,):
            with Call(spark, results, key, udf):
                udf(0)
    assert counts(results, 1) == {0: 6, 1: 6, 3: 6}
    assert counts(results, 2) == {0: 3, 1: 3, 3: 3}


def test_tasks_are_apart_and_one_that_was_handed_in_is_closed(spark):
    first, second = {}, {}
    for results in (first, second):
        for _ in range(3):
            with Call(spark, results, 1, udf):
                udf(0)
    assert counts(first, 1) == counts(second, 1) == {0: 3, 1: 3, 3: 3}
    with Call(spark, first, 1, udf):
        udf(0)
    assert counts(first, 1) == {0: 4, 1: 4, 3: 4}


def test_what_was_added_up_elsewhere_is_followed_by_single_calls(spark):
    results = {}
    with Call(spark, results, 1, udf):
        udf(0)
    added = [(line, tuple(measured)) for line, measured in list(results[1].pop().values())[0]]
    for _ in range(4):
        with Call(spark, results, 1, udf):
            udf(0)
    assert [n for _, (_, _, n) in added] == [1, 1, 1]
    assert counts(results, 1) == {0: 4, 1: 4, 3: 4}


def test_a_call_in_a_call(spark):
    results = {}
    with Call(spark, results, 1, udf):
        with Call(spark, results, 1, udf):
            udf(0)
    with Call(spark, results, 1, udf):
        udf(0)
    assert sum(counts(results, 1).values()) >= 6


def test_classes_of_that_name_that_are_called_otherwise(spark):
    prof = spark()
    prof.add_function(udf)
    for _ in range(3):
        prof.enable_by_count()
        udf(0)
        prof.disable_by_count()
    assert [n for _, _, n in prof.code_map[udf.__code__].values()] == [3, 3, 3]
    assert type(prof._thread.ready) is _native.Engine
