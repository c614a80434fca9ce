"""Resident memory, as the kernel says."""

import os

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024.0 * 1024.0


def resident(pid="self"):
    """Bytes (proc(5), statm). Raises OSError if there is no such process."""
    with open("/proc/%s/statm" % pid) as f:
        return int(f.read().split()[1]) * PAGE


def exactly_resident():
    """Bytes of this process, counted page by page (smaps_rollup, Linux 4.14) where that is to be had."""
    try:
        return _field("/proc/self/smaps_rollup", "Rss:")
    except (OSError, KeyError):
        return resident()


def highest():
    """Most bytes that were ever resident (VmHWM), or None."""
    try:
        return _field("/proc/self/status", "VmHWM:")
    except (OSError, KeyError):
        return None


def _field(file, name):
    with open(file) as f:
        for line in f:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    raise KeyError(name)


def children(pid):
    """Process ids of all descendants of `pid`."""
    below = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    parent = int(f.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            below.setdefault(parent, []).append(int(name))
    found = list(below.get(pid, ()))
    for child in found:
        found.extend(below.get(child, ()))
    return found
