"""%memit and %mprun."""
import time

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.core.page import page

from ._profiler import LineProfiler
from ._table import show_results
from ._usage import memory_usage


class MemitResult(object):
    """What %memit measured: memory and baseline in MiB, and how it was asked to."""

    def __init__(self, mem_usage, baseline, repeat, timeout, interval, include_children):
        self.mem_usage = mem_usage
        self.baseline = baseline
        self.repeat = repeat
        self.timeout = timeout
        self.interval = interval
        self.include_children = include_children

    def __str__(self):
        highest = max(self.mem_usage)
        return "peak memory: %.02f MiB, increment: %.02f MiB" % (highest, highest - self.baseline)

    def _repr_pretty_(self, p, cycle):
        p.text("<MemitResult : " + str(self) + ">")


class _Text(object):
    """A stream that keeps what is written."""

    def __init__(self):
        self.parts = []

    def write(self, text):
        self.parts.append(text)

    def text(self):
        return "".join(self.parts)


@magics_class
class MemoryProfilerMagics(Magics):
    @line_cell_magic
    def mprun(self, parameter_s="", cell=None):
        """Run a statement and show the memory of functions line by line.

        %mprun -f FUNC [-f FUNC ...] [-r] [-T FILE] [-c] [-b] STATEMENT
        %%mprun -f FUNC [-f FUNC ...] [-r] [-T FILE] [-c] [-b] [STATEMENT]
        STATEMENTS

        -f FUNC: an expression for a function, method or class; can be repeated. Functions defined in a cell are as
        good as those of a file. -r: return the LineProfiler. -T FILE: write the table to a file as well.
        -c: add the memory of child processes. -b: the increment of a first line is its own, and not the whole memory
        before the call.
        """
        options, statement = self.parse_options(parameter_s, "rf:T:cb", list_all=True, posix=False)
        if cell is not None:
            statement = (statement + "\n" if statement.strip() else "") + cell
        namespace = self.shell.user_ns
        profiler = LineProfiler(include_children="c" in options, baseline=False if "b" in options else None)
        for name in options.get("f", []):
            try:
                function = eval(name, self.shell.user_global_ns, namespace)
            except Exception as error:
                raise UsageError("could not find function %r.\n%s: %s" % (name, type(error).__name__, error))
            profiler.add_function(function)

        import builtins

        before = builtins.__dict__.get("profile")
        builtins.__dict__["profile"] = profiler
        message = ""
        try:
            profiler.runctx(self.shell.input_transformer_manager.transform_cell(statement), namespace, namespace)
        except SystemExit:
            message = "*** SystemExit exception caught in code being profiled."
        except KeyboardInterrupt:
            message = "*** KeyboardInterrupt exception caught in code being profiled."
        finally:
            if before is None:
                builtins.__dict__.pop("profile", None)
            else:
                builtins.__dict__["profile"] = before

        out = _Text()
        show_results(profiler, stream=out)
        page(out.text().rstrip())
        if message:
            print(message)
        text_file = options.get("T", [None])[0]
        if text_file:
            with open(text_file, "w", encoding="utf-8") as f:
                f.write(out.text().rstrip())
            print("\n*** Profile printout saved to text file %s. %s" % (text_file, message))
        return profiler if "r" in options else None

    @line_cell_magic
    def memit(self, line="", cell=None):
        """Measure the peak memory of a statement.

        %memit [-r R] [-t T] [-i I] [-c] [-o] [-q] STATEMENT
        %%memit [...] SETUP
        STATEMENTS

        -r R: run it R times (1), and take the highest. -t T: stop repeating after T seconds. -i I: seconds between
        samples (0.1). -c: add the memory of child processes. -o: return a MemitResult. -q: print nothing.
        """
        options, statement = self.parse_options(line, "r:t:i:coq", posix=False, strict=False)
        repeat = int(options.get("r", 1))
        if repeat < 1:
            repeat = 1
        timeout = float(options.get("t", 0)) or None
        interval = float(options.get("i", 0.1))
        children = "c" in options
        namespace = self.shell.user_ns
        transform = self.shell.input_transformer_manager.transform_cell

        if cell is None:
            code = compile(transform(statement), "<memit>", "exec")
        else:
            # The line of a cell is its preparation, and not measured.
            exec(compile(transform(statement), "<memit setup>", "exec"), namespace)
            code = compile(transform(cell), "<memit>", "exec")

        baseline = memory_usage(include_children=children)[0]
        used = []
        begin = time.monotonic()
        for _ in range(repeat):
            used.append(
                memory_usage(
                    (exec, (code, namespace)),
                    interval=interval,
                    include_children=children,
                    max_usage=True,
                    max_iterations=1,
                )
            )
            if timeout is not None and time.monotonic() - begin >= timeout:
                break
        result = MemitResult(used, baseline, repeat, timeout, interval, children)
        if "q" not in options:
            print(result)
        return result if "o" in options else None

    @classmethod
    def register_magics(cls, ip):
        ip.register_magics(cls)
