# The front of a bare run (`strandline remedies`): `profile` tells the agent when an outermost decorated function has
# returned, its locals gone, and does nothing else. Runs once, at the first use of `profile`, on every CPython from 2.7
# on; `sys`, `OPTIONS` and the `native_*` functions are given.


def _apart(function, args, kwargs):
    """Calls the function in a forked child: what it allocated goes with the child, its pickled result comes back."""
    import os

    try:
        import cPickle as pickle
    except ImportError:
        import pickle

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(theirs)
            try:
                answer = (True, function(*args, **kwargs))
            except Exception:
                answer = (False, sys.exc_info()[1])
            with os.fdopen(ours, "wb") as pipe:
                pickle.dump(answer, pipe, 2)
            code = 0
        except SystemExit:
            code = 3
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(code)
    os.close(ours)
    with os.fdopen(theirs, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        text = "%s gave no result in a child process: it ended, or what it returns can't be pickled"
        raise RuntimeError(text % function.__name__)
    done, answer = pickle.loads(text)
    if not done:
        raise answer
    return answer


def _marked(function):
    if APART:

        def marked(*args, **kwargs):
            outermost = native_enter()
            try:
                if outermost:
                    return _apart(function, args, kwargs)
                return function(*args, **kwargs)
            finally:
                native_return()

    else:

        def marked(*args, **kwargs):
            native_enter()
            try:
                return function(*args, **kwargs)
            finally:
                native_return()

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        if hasattr(function, name):
            setattr(marked, name, getattr(function, name))
    marked.__dict__.update(function.__dict__)
    marked.__wrapped__ = function
    return marked


def _profile(thing):
    kind = type(thing)
    if kind is staticmethod or kind is classmethod:
        return kind(_profile(thing.__func__))
    if kind is property:
        return property(_profile(thing.fget), thing.fset, thing.fdel, thing.__doc__)
    # Classes and callables of other kinds stay what they are, and so do generators and coroutines, whose call returns
    # before they run: CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR.
    if kind is not FUNCTION or thing.__code__.co_flags & 0x2A0:
        return thing
    return _marked(thing)


def profile(func=None, *args, **kwargs):
    """Take the return of this function as the point at which remedies are measured."""
    if func is None or not (callable(func) or hasattr(func, "__func__") or hasattr(func, "fget")):
        return profile
    return _profile(func)


FUNCTION = type(profile)
APART = OPTIONS & 256
BUILTINS["profile"] = profile
