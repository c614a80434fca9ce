"""`profile` as a builtin in processes that multiprocessing starts afresh, which run the program's main module again."""
import builtins


def make_known():
    """Called in the child, before its main module runs."""
    from ._profiler import LineProfiler

    if not hasattr(builtins, "profile"):
        builtins.__dict__["profile"] = LineProfiler()


class _Announcement:
    """Unpickled by the child with what else it is told; no key of multiprocessing's own is touched."""

    def __reduce__(self):
        return make_known, ()


def follow_multiprocessing():
    """From now on children under spawn and forkserver have the builtin."""
    from multiprocessing import spawn

    prepare = spawn.get_preparation_data

    def get_preparation_data(name):
        data = prepare(name)
        data["memory_profiler"] = _Announcement()
        return data

    spawn.get_preparation_data = get_preparation_data
