"""``%load_ext strandline``: %memit, %mprun and %%strand."""

import ast
import time

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, cell_magic, magics_class

from ._memory import MIB
from ._sampling import memory_usage


def load(ipython):
    """Registers the magics."""
    ipython.register_magics(StrandlineMagics)


class MemitResult(object):
    """What ``%memit -o`` returns: amounts in MiB."""

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
        p.text("<MemitResult : %s>" % self)


@magics_class
class StrandlineMagics(Magics):
    """The magics."""

    @line_cell_magic
    def memit(self, line="", cell=None):
        """Measure resident memory while a statement runs.

        ``%memit [-r R] [-t T] [-i I] [-c] [-o] [-q] statement``; ``%%memit setup`` with the code in the cell.

        -r R: run it R times (1), the highest peak counts. -t T: stop watching after T seconds, of a statement
        that is still running what was seen until then counts. -i I: seconds between samples (0.1). -c: with
        child processes. -o: return a MemitResult. -q: print nothing.
        """
        options, code = self.parse_options(line, "r:t:i:coq", posix=False, strict=False)
        repeat = _number(options, "r", int, 1)
        if repeat < 1:
            raise UsageError("%memit: -r is a number from 1 on")
        timeout = _number(options, "t", float, None)
        interval = _number(options, "i", float, 0.1)
        children = "c" in options
        namespace = self.shell.user_ns
        if cell is not None:
            if code.strip():
                exec(self._compiled(code), namespace)
            code = cell
        compiled = self._compiled(code)
        baseline = memory_usage(-1, include_children=children, max_usage=True)
        peaks = []
        for _ in range(repeat):
            began = time.time()
            usage = memory_usage(
                (exec, (compiled, namespace)),
                interval=interval,
                include_children=children,
                timestamps=timeout is not None,
                max_usage=timeout is None,
            )
            if timeout is not None:
                usage = max([mib for mib, when in usage if when <= began + timeout] or [usage[0][0]])
            peaks.append(usage)
        result = MemitResult(peaks, baseline, repeat, timeout, interval, children)
        if "q" not in options:
            print(result)
        return result if "o" in options else None

    @line_cell_magic
    def mprun(self, line="", cell=None):
        """Show the line tables of functions while a statement runs.

        ``%mprun -f FUNC [-f FUNC] [-r] [-T FILE] [-c] statement``; ``%%mprun -f FUNC`` with the code in the cell.

        -f FUNC: a function, as an expression; also one that was defined in a cell. -r: return the tables as
        a list of dicts. -T FILE: write the text to FILE as well. -c is accepted: it has no meaning here.
        """
        from . import _lines

        options, code = self.parse_options(line, "rf:T:c", posix=False, list_all=True, strict=False)
        namespace = self.shell.user_ns
        marked = []
        for name in options.get("f", []):
            try:
                marked.append(eval(name, self.shell.user_global_ns, namespace))
            except Exception as e:
                raise UsageError("%%mprun: %r is no function: %s: %s" % (name, type(e).__name__, e))
        if not marked:
            raise UsageError("%mprun: name the functions to show with -f")
        before = _counts(_lines.tables())
        for function in marked:
            _lines.decorate(function)
        stopped = ""
        try:
            exec(self._compiled(code if cell is None else cell), namespace)
        except SystemExit:
            stopped = "*** SystemExit exception caught in code being profiled.\n"
        except KeyboardInterrupt:
            stopped = "*** KeyboardInterrupt exception caught in code being profiled.\n"
        wanted = set(_code(f).co_name for f in marked if _code(f) is not None)
        new = [_since(t, before) for t in _lines.tables() if t["name"].rpartition(".")[2] in wanted]
        text = stopped + "".join(_render(t) for t in new if t["calls"])
        # A pager's text would not stay in a notebook.
        print(text, end="")
        for name in options.get("T", []):
            with open(name.strip("\"'"), "w") as f:
                f.write(text)
            print("\n*** Profile printout saved to text file %s." % name)
        return new if "r" in options else None

    @cell_magic
    def strand(self, line, cell):
        """Run the cell and say what it allocated and keeps, and what it left behind.

        Peak: the most in use above the beginning. In use: still in use of what was asked for, less what was
        given back. Stranded: what allocators keep that nobody uses. RSS: resident memory.
        """
        from ._looks import stranded
        from ._memory import resident
        from ._window import Window

        body, last = self._parts(cell)
        namespace = self.shell.user_ns
        window = Window()
        kept, rss = stranded(), resident()
        value = None
        with window:
            exec(body, namespace)
            if last is not None:
                value = eval(last, namespace)
        rows = [
            ("Peak", window.peak, "the most that was in use above the beginning"),
            ("In use", window.in_use, "asked for by the cell and not given back"),
            ("Stranded", stranded() - kept, "given back, but kept by Python or the C library"),
            ("RSS", resident() - rss, "resident memory now, above the beginning"),
        ]
        for name, count, words in rows:
            print("%-9s %11.3f MiB   %s" % (name, count / MIB, words))
        return value

    def _parts(self, cell):
        """The cell as code, and its last expression, whose value is shown, as code of its own."""
        text = self.shell.transform_cell(cell)
        name = self.shell.compile.cache(text)
        tree = ast.parse(text, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not cell.rstrip().endswith(";"):
            last = compile(ast.Expression(tree.body.pop().value), name, "eval")
        return compile(tree, name, "exec"), last

    def _compiled(self, code):
        text = self.shell.transform_cell(code)
        return compile(text, self.shell.compile.cache(text), "exec")


def _number(options, name, kind, otherwise):
    text = options.get(name)
    if text is None:
        return otherwise
    try:
        return kind(text)
    except ValueError:
        raise UsageError("%%memit: -%s %s is no number" % (name, text))


def _code(function):
    function = getattr(function, "__func__", function)
    function = getattr(function, "__wrapped__", function)
    return getattr(function, "__code__", None)


_ADDED = ("rss_increment_bytes", "allocated_bytes", "freed_bytes", "occurrences")


def _key(table):
    return table["file"], table["name"], table["first_line"]


def _counts(tables):
    return {_key(t): t for t in tables}


def _since(table, before):
    """What was added to a table since it stood in `before`."""
    earlier = before.get(_key(table))
    if earlier is None:
        return table
    old = {line["line"]: line for line in earlier["lines"]}
    table = dict(table, calls=table["calls"] - earlier["calls"])
    lines = []
    for line in table["lines"]:
        was = old.get(line["line"], {})
        line = dict(line)
        for name in _ADDED:
            if line.get(name) is not None and was.get(name) is not None:
                line[name] -= was[name]
        lines.append(line)
    table["lines"] = lines
    return table


_HEAD = "{0:>6} {1:>12} {2:>12} {3:>12} {4:>12} {5:>12}  {6:>10}   {7}"


def _render(table):
    head = _HEAD.format(
        "Line #", "Mem usage", "Increment", "Peak", "Allocated", "Still in use", "Occurrences", "Line Contents"
    )
    rows = ["Filename: %s" % table["file"], "", head, "=" * len(head)]
    names = ("rss_bytes", "rss_increment_bytes", "peak_bytes", "allocated_bytes", "in_use_bytes")
    for line in table["lines"]:
        ran = bool(line.get("occurrences"))
        cells = [_mib(line.get(name)) if ran else "" for name in names]
        text = (line.get("source") or "").rstrip("\n")
        rows.append(_HEAD.format(line["line"], *(cells + [line["occurrences"] if ran else "", text])).rstrip())
    return "\n".join(rows) + "\n\n\n"


def _mib(count):
    return "-" if count is None else "%.3f MiB" % (count / MIB)
