"""`python -m memory_profiler`: runs a program with `profile` as a builtin, and writes its tables at the end."""
import argparse
import builtins
import os
import runpy
import sys
import types

from . import _memory
from ._child import Followed, follow_multiprocessing
from ._table import show_results
from ._timestamps import TimeStamper


def _parser():
    from . import __version__

    parser = argparse.ArgumentParser(usage="python -m memory_profiler script_file.py")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--pdb-mmem",
        dest="max_mem",
        metavar="MAXMEM",
        type=float,
        help="step into the debugger when memory exceeds MAXMEM (MiB)",
    )
    parser.add_argument(
        "--precision", dest="precision", type=int, default=3, help="digits after the point in the tables"
    )
    parser.add_argument("-o", dest="out_filename", default=None, help="append results to this file")
    parser.add_argument(
        "--timestamp",
        dest="timestamp",
        action="store_true",
        help="write when decorated functions began and ended instead of tables",
    )
    parser.add_argument(
        "--include-children", dest="include_children", action="store_true", help="add memory of child processes"
    )
    parser.add_argument("--backend", dest="backend", choices=_memory.BACKENDS, default="psutil", help="what is measured")
    parser.add_argument(
        "--no-baseline",
        dest="no_baseline",
        action="store_true",
        help="the increment of a function's first line is its own, and not the whole memory before the call",
    )
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, help="python script or module followed by its command line arguments"
    )
    return parser


def _find_script(name):
    """The path of a script: as it is, or below a directory of PATH. Exits if there is none."""
    if os.path.isfile(name):
        return name
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if directory and os.path.isfile(os.path.join(directory, name)):
            return os.path.join(directory, name)
    sys.stderr.write("Could not find script {0}\n".format(name))
    raise SystemExit(1)


def exec_with_profiler(filename, profiler, backend, passed_args=[]):
    """Run a script as __main__, with `profile` as a builtin."""
    _memory.choose_backend(backend)
    path = _find_script(filename)
    builtins.__dict__["profile"] = profiler
    # A real module, so that pickle and multiprocessing find the program's functions in it.
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins, profile=profiler)
    sys.modules["__main__"] = main
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    sys.argv = [filename] + list(passed_args)
    with open(path, "rb") as f:
        code = compile(f.read(), path, "exec")
    exec(code, main.__dict__)


def run_module_with_profiler(module, profiler, backend, passed_args=[]):
    """Run a module as __main__, with `profile` as a builtin."""
    _memory.choose_backend(backend)
    builtins.__dict__["profile"] = profiler
    sys.argv = [module] + list(passed_args)
    runpy.run_module(module, run_name="__main__", alter_sys=True, init_globals={"profile": profiler})


def main():
    args = _parser().parse_args()
    if not args.program:
        print("A program to run must be provided. Use -h for help")
        sys.exit(1)
    target, arguments = args.program[0], args.program[1:]
    if args.backend == "tracemalloc":
        _memory.start_tracemalloc()
    options = dict(backend=args.backend, include_children=args.include_children)
    if args.timestamp:
        profiler = TimeStamper(**options)
    else:
        profiler = Followed(max_mem=args.max_mem, baseline=False if args.no_baseline else None, **options)

    def show(prof, heading=""):
        stream = open(args.out_filename, "a") if args.out_filename else sys.stdout
        try:
            stream.write(heading)
            if args.timestamp:
                prof.show_results(stream)
            else:
                show_results(prof, stream, precision=args.precision)
        finally:
            if args.out_filename:
                stream.close()

    own = os.getpid()
    follow_multiprocessing(profiler, options, show)
    try:
        if target.endswith(".py"):
            exec_with_profiler(target, profiler, args.backend, arguments)
        else:
            run_module_with_profiler(target, profiler, args.backend, arguments)
    finally:
        # A child that was forked and comes back here has the parent's program, not its results.
        if os.getpid() == own:
            show(profiler)
