"""The .dat files of mprof: names, reading."""
import glob
import os
import re
import time

NAME = re.compile(r"mprofile_(\d{14})\.dat$")


class NoProfile(ValueError):
    """A profile was asked for that isn't there."""


def all_profiles(directory="."):
    """Names of all profiles in a directory, oldest first."""
    found = glob.glob(os.path.join(directory, "mprofile_??????????????.dat"))
    return sorted(f[2:] if f.startswith("./") else f for f in found if NAME.search(f))


def new_name():
    return "mprofile_%s.dat" % time.strftime("%Y%m%d%H%M%S", time.localtime())


def resolve(argument):
    """A profile by name, or by index in the list of all: negative ones count from the newest."""
    if os.path.exists(argument):
        return argument
    try:
        index = int(argument)
    except ValueError:
        raise NoProfile("No such file: %s" % argument)
    try:
        return all_profiles()[index]
    except IndexError:
        raise NoProfile("Invalid index (non-existing file): %s" % argument)


class Profile:
    """A .dat file. Lines that can't be read are left out: a program that was killed leaves half a line."""

    def __init__(self, filename):
        self.filename = filename
        self.command = ""
        self.samples = []  # (seconds since the epoch, MiB)
        self.children = {}  # number of the child: samples
        self.functions = {}  # name: [(begin, end, MiB at begin, MiB at end, depth)]
        sibling = filename[:-4] + "_ts.dat" if filename.endswith(".dat") else None
        for name in (filename, sibling):
            if name and os.path.exists(name):
                with open(name, errors="replace") as f:
                    for line in f:
                        try:
                            self._take(line)
                        except (ValueError, IndexError):
                            pass
        self.samples.sort()

    def _take(self, line):
        kind, _, rest = line.strip().partition(" ")
        fields = rest.split(" ")
        if kind == "CMDLINE":
            self.command = rest
        elif kind == "MEM":
            self.samples.append((float(fields[1]), float(fields[0])))
        elif kind == "CHLD":
            self.children.setdefault(fields[0], []).append((float(fields[2]), float(fields[1])))
        elif kind == "FUNC":
            name = fields[0]
            memory, begin, last, end = (float(n) for n in fields[1:5])
            depth = int(fields[5]) if len(fields) > 5 else 0
            self.functions.setdefault(name, []).append((begin, end, memory, last, depth))

    def peak(self):
        return max(m for _, m in self.samples) if self.samples else 0.0

    def peak_of(self, name):
        """The highest sample while a function ran, or at its begin or end."""
        found = [0.0]
        for begin, end, memory, last, _ in self.functions.get(name, ()):
            found += [memory, last]
            found += [m for when, m in self.samples if begin <= when <= end]
        return max(found)
