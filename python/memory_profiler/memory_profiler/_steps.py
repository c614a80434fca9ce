"""Wrapping a function of any kind so that something is on whenever its own code runs, and off in between."""
import inspect
from functools import update_wrapper


def _steps(iterator, on):
    """Drive a generator or coroutine: `on` is entered for each step. A generator itself, so that it can be
    iterated, awaited, sent to and thrown into like the one it drives (PEP 380)."""
    step, argument = iterator.send, (None,)
    while True:
        try:
            with on:
                value = step(*argument)
        except StopIteration as end:
            return end.value
        try:
            sent = yield value
            step, argument = iterator.send, (sent,)
        except GeneratorExit:
            with on:
                iterator.close()
            raise
        except BaseException as error:
            step, argument = iterator.throw, (error,)


class _Awaitable:
    def __init__(self, iterator, on):
        self.iterator = iterator
        self.on = on

    def __await__(self):
        return _steps(self.iterator, self.on)


def wrap(func, begin):
    """`func` under what `begin()` returns for each call: a context manager that can be entered again and again, and
    what is to be called when the call is over, or None.

    Coroutine functions, generators and asynchronous generators stay what they are, and their kind can be seen.
    """
    if inspect.isasyncgenfunction(func):
        wrapper = _async_generator(func, begin)
    elif inspect.iscoroutinefunction(func):

        async def wrapper(*args, **kwargs):
            on, finished = begin()
            try:
                return await _Awaitable(func(*args, **kwargs), on)
            finally:
                if finished is not None:
                    finished()

    elif inspect.isgeneratorfunction(func):

        def wrapper(*args, **kwargs):
            on, finished = begin()
            try:
                return (yield from _steps(func(*args, **kwargs), on))
            finally:
                if finished is not None:
                    finished()

    else:

        def wrapper(*args, **kwargs):
            on, finished = begin()
            try:
                with on:
                    return func(*args, **kwargs)
            finally:
                if finished is not None:
                    finished()

    return _like(wrapper, func)


def _async_generator(func, begin):
    async def wrapper(*args, **kwargs):
        on, finished = begin()
        inner = func(*args, **kwargs)
        try:
            step = inner.__anext__()
            while True:
                try:
                    value = await _Awaitable(step.__await__(), on)
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                    step = inner.asend(sent)
                except GeneratorExit:
                    await _Awaitable(inner.aclose().__await__(), on)
                    raise
                except BaseException as error:
                    step = inner.athrow(error)
        finally:
            if finished is not None:
                finished()

    return wrapper


def _like(wrapper, func):
    try:
        update_wrapper(wrapper, func)
    except AttributeError:
        wrapper.__wrapped__ = func
    if not hasattr(func, "__name__"):
        wrapper.__name__ = type(func).__name__
    return wrapper
