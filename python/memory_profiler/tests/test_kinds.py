"""@profile on everything that can be called."""
import asyncio
import functools
import inspect
import io

import pytest
from memory_profiler import LineProfiler, TimeStamper, profile

BIG = 32 << 20


def run(awaitable):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.close()


def decorated(**kw):
    out = io.StringIO()
    return out, profile(stream=out, **kw)


def test_names_are_kept():
    out, profiled = decorated()

    @profiled
    def f(a):
        """doc"""
        return a

    f.mark = 1
    assert (f.__name__, f.__doc__, f.__module__, f.mark) == ("f", "doc", __name__, 1)
    assert inspect.unwrap(f) is not f
    assert profile(f).mark == 1


def test_a_table_after_every_call(rows):
    out, profiled = decorated(precision=2)

    @profiled
    def f():
        return 1

    f(), f()
    assert out.getvalue().count("Filename:") == 2
    assert rows(out.getvalue())["return 1"][2] == 1


def test_a_table_after_an_exception(rows):
    out, profiled = decorated()

    @profiled
    def f():
        raise KeyError

    with pytest.raises(KeyError):
        f()
    assert rows(out.getvalue())["raise KeyError"][2] == 1


def test_recursion_has_a_table_for_every_call():
    out, profiled = decorated()

    @profiled
    def f(n):
        return f(n - 1) if n else 0

    f(2)
    assert out.getvalue().count("Filename:") == 3
    # The innermost is the first to end, and the outermost contains the others.
    counts = [line.split()[5] for line in out.getvalue().splitlines() if "return f(n - 1)" in line]
    assert counts == ["1", "2", "3"]


def test_generator(rows):
    out, profiled = decorated()

    @profiled
    def gen(n):
        for i in range(n):
            kept = b"x" * BIG
            got = yield len(kept)
            del kept
        return got

    assert inspect.isgeneratorfunction(gen)
    g = gen(3)
    assert next(g) == BIG
    others = b"x" * BIG  # between two steps: not the generator's
    assert g.send(1) == BIG and g.send(2) == BIG
    with pytest.raises(StopIteration) as end:
        g.send("last")
    assert end.value.value == "last"
    found = rows(out.getvalue())
    assert abs(found['kept = b"x" * BIG'][1] - 96) < 3
    assert abs(found["del kept"][1] + 96) < 3
    assert abs(found["got = yield len(kept)"][1]) < 3
    assert found["got = yield len(kept)"][2] == 3
    assert len(others) == BIG


def test_generator_that_is_closed_or_thrown_into(rows):
    out, profiled = decorated()

    @profiled
    def gen():
        try:
            yield 1
        except KeyError:
            yield 2
        finally:
            events.append("end")

    events = []
    g = gen()
    assert next(g) == 1 and g.throw(KeyError()) == 2
    g.close()
    assert events == ["end"]
    g = gen()
    next(g)
    with pytest.raises(ValueError):
        g.throw(ValueError())
    assert events == ["end", "end"]
    assert out.getvalue().count("Filename:") == 2
    assert rows(out.getvalue())['events.append("end")'][2] == 1


def test_two_generators_at_once():
    def gen(n):
        for i in range(n):
            yield i

    prof = LineProfiler()
    wrapped = prof(gen)
    assert list(zip(wrapped(3), wrapped(3))) == [(0, 0), (1, 1), (2, 2)]
    by_line = sorted(prof.code_map[gen.__code__].items())
    # The second is not asked again when the first has ended, and is closed.
    assert [m[2] for _, m in by_line][2] == 6


def test_coroutine(rows):
    """#161, #225, #270, #289: a table for a coroutine, and what others do while it waits isn't in it."""
    out, profiled = decorated()
    kept = []

    @profiled
    async def work():
        a = b"x" * BIG
        await asyncio.sleep(0)
        del a
        return 5

    async def other():
        kept.append(b"y" * BIG)

    async def both():
        return await asyncio.gather(work(), other())

    assert asyncio.iscoroutinefunction(work)
    assert run(both())[0] == 5
    found = rows(out.getvalue())
    assert abs(found['a = b"x" * BIG'][1] - 32) < 3
    assert abs(found["await asyncio.sleep(0)"][1]) < 3
    assert abs(found["del a"][1] + 32) < 3
    assert found["await asyncio.sleep(0)"][2] == 1


def test_async_generator(rows):
    out, profiled = decorated()
    namespace = {"profiled": profiled, "asyncio": asyncio}

    @profiled
    async def agen(n):
        for i in range(n):
            await asyncio.sleep(0)
            got = yield i
        assert got is None

    async def use():
        return [i async for i in agen(3)]

    assert inspect.isasyncgenfunction(agen) and namespace
    assert run(use()) == [0, 1, 2]
    assert rows(out.getvalue())["got = yield i"][2] == 3


def test_methods_and_classes(rows):
    """A decorated class: the original profiled nothing, and said nothing."""
    out, profiled = decorated()

    @profiled
    class A:
        def method(self):
            return 1

        @classmethod
        def of_class(cls):
            return 2

        @staticmethod
        def static():
            return 3

        @property
        def prop(self):
            return 4

    assert isinstance(A, type)
    assert (A().method(), A.of_class(), A.static(), A().prop) == (1, 2, 3, 4)
    assert {"return 1", "return 2", "return 3", "return 4"} <= set(rows(out.getvalue()))


@pytest.mark.parametrize("kind", [staticmethod, classmethod, property])
def test_above_another_decorator(rows, kind):
    out, profiled = decorated()

    class A:
        @profiled
        @kind
        def f(*args):
            return 1

    assert (A().f if kind is property else A().f()) == 1
    assert rows(out.getvalue())["return 1"][2] == 1


def test_above_a_decorator_that_wraps(rows):
    def other(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) + 1

        return wrapper

    out, profiled = decorated()

    @profiled
    @other
    def f():
        return 1

    @other
    @profiled
    def g():
        return 5

    @profiled
    @functools.lru_cache(None)
    def h():
        return 7

    assert (f(), g(), h()) == (2, 6, 7)
    assert {"return 1", "return 5", "return 7"} <= set(rows(out.getvalue()))


def test_partials_and_callables(rows):
    out, profiled = decorated()

    def f(a, b):
        return a + b

    assert profiled(functools.partial(f, 1))(2) == 3
    assert rows(out.getvalue())["return a + b"][2] == 1
    with pytest.warns(UserWarning, match="code object"):
        assert profiled(len)("abc") == 3


def test_a_time_stamper():
    out = io.StringIO()
    stamper = TimeStamper("psutil")

    @stamper
    def outer():
        return inner()

    @stamper
    def inner():
        return 1

    @stamper(precision=4)
    def gen():
        yield inner()

    assert outer() == 1 and list(gen()) == [1]
    with stamper.timestamp("block"):
        pass
    with pytest.raises(KeyError), stamper.timestamp("fails"):
        raise KeyError
    stamper.show_results(out)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert [(line[0], line[1], line[6]) for line in lines] == [
        ("FUNC", __name__ + ".outer", "0"),
        ("FUNC", __name__ + ".inner", "1"),
        ("FUNC", __name__ + ".inner", "1"),
        ("FUNC", __name__ + ".gen", "0"),
        ("FUNC", ".block", "0"),
        ("FUNC", ".fails", "0"),
    ]
    for line in lines:
        assert all(len(n.split(".")[1]) == 4 for n in line[2:6])
        assert float(line[3]) <= float(line[5])
