"""What a process has resident, in bytes, as Linux counts it.

Imports nothing of this package: memory_usage() gives the source of this very file to a helper process, which
samples from outside, where the profiled function's hold on the GIL doesn't matter.
"""
import os
import select
import sys
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid):
    """RSS: the second field of statm, in pages (proc(5))."""
    with open("/proc/%d/statm" % pid, "rb") as f:
        return int(f.read().split()[1]) * PAGE


def _smaps(pid, wanted):
    path = "/proc/%d/smaps_rollup" % pid
    if not os.path.exists(path):  # before Linux 4.14
        path = "/proc/%d/smaps" % pid
    total = 0
    with open(path, "rb") as f:
        for line in f:
            if line.startswith(wanted):
                total += int(line.split()[1]) * 1024
    return total


def exact(pid):
    """RSS, counted page by page: what statm says the kernel puts down in batches."""
    return _smaps(pid, b"Rss:")


def proportional(pid):
    """PSS: shared pages divided by the number of processes that share them."""
    return _smaps(pid, b"Pss:")


def unique(pid):
    """USS: what would be free if the process ended."""
    return _smaps(pid, b"Private_")


def _children(pid):
    found = []
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task), "rb") as f:
                found += [int(p) for p in f.read().split()]
        return found
    except OSError:
        pass
    # A kernel without CONFIG_PROC_CHILDREN, or a process that has ended.
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as f:
                    # The name in parentheses may hold anything.
                    if int(f.read().rpartition(b")")[2].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                pass
    return found


def descendants(pid, without=()):
    """Children of `pid` and their children, but for those in `without`."""
    found = []
    todo = [pid]
    while todo:
        for child in _children(todo.pop()):
            if child not in without and child not in found:
                found.append(child)
                todo.append(child)
    return found


METRICS = {
    "psutil": resident,
    "posix": resident,
    "psutil_pss": proportional,
    "psutil_uss": unique,
    "exact": exact,
}


def each_child(pid, metric, without=()):
    """(pid, bytes) of the descendants that are still there."""
    found = []
    for child in descendants(pid, without):
        try:
            found.append((child, METRICS[metric](child)))
        except (OSError, IndexError):
            pass
    return found


def measure(pid, metric="psutil", include_children=False, without=()):
    """Bytes of the process, and of its descendants if they are asked for."""
    total = METRICS[metric](pid)
    if include_children:
        total += sum(n for _, n in each_child(pid, metric, without))
    return total


def peak(pid="self"):
    """The highest RSS so far (VmHWM), or 0 where the kernel doesn't say."""
    with open("/proc/%s/status" % pid, "rb") as f:
        for line in f:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def serve(pid, metric, include_children):
    """Sample `pid`: a line with an interval in seconds starts, the next line stops; the samples go to stdout.

    One line is written when the first sample is taken, and one with all of them at the end. Ends with the input.
    """
    own = (os.getpid(),)

    def sample():
        samples.append("%d:%.6f" % (measure(pid, metric, include_children, own), time.time()))

    while True:
        line = sys.stdin.readline()
        if not line:
            return
        interval = float(line)
        samples = []
        sample()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not select.select([0], [], [], interval)[0]:
            sample()
        sys.stdin.readline()
        sample()
        sys.stdout.write(" ".join(samples) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3] == "1")
