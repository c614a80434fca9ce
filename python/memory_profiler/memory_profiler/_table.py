"""The table of lines as text, and the file that puts such text into a log."""
import linecache
import logging
import os
import sys

ROW = "{0:>6} {1:>12} {2:>12}  {3:>10}   {4:<}"
HEADER = ROW.format("Line #", "Mem usage", "Increment", "Occurrences", "Line Contents")


def show_results(prof, stream=None, precision=1):
    """Write the tables of a LineProfiler to a stream, stdout if there is none.

    `precision`: digits after the point of MiB.
    """
    if stream is None:
        stream = sys.stdout
    cell = "{0:" + str(precision + 4) + "." + str(precision) + "f} MiB"
    for filename, lines in prof.code_map.items():
        source = linecache.getlines(filename)
        if not source:
            # Under Python 3.12 and older a notebook's cells are in linecache, everything else is on disk.
            if not os.path.exists(filename):
                stream.write("ERROR: Could not find file " + filename + "\n")
                continue
        stream.write("Filename: " + filename + "\n\n")
        stream.write(HEADER + "\n")
        stream.write("=" * len(HEADER) + "\n")
        for line, measured in lines:
            text = source[line - 1] if 0 < line <= len(source) else "\n"
            if not text.endswith("\n"):
                text += "\n"
            if measured:
                increment, memory, occurrences = measured
                cells = cell.format(memory), cell.format(increment), occurrences
            else:
                cells = "", "", ""
            stream.write(ROW.format(line, cells[0], cells[1], cells[2], text))
        stream.write("\n\n")


class LogFile(object):
    """A stream that logs what is written to it: `sys.stdout = LogFile("name")`.

    `reportIncrementFlag`: of the tables, log only the headings and the lines that added memory.
    """

    def __init__(self, name=None, reportIncrementFlag=False):
        self.logger = logging.getLogger(name)
        self.reportIncrementFlag = reportIncrementFlag

    def write(self, msg, level=logging.INFO):
        text = msg.rstrip("\n")
        if self.reportIncrementFlag and not self._wanted(text):
            return
        self.logger.log(level, text)

    @staticmethod
    def _wanted(text):
        if "Filename:" in text or "Line Contents" in text:
            return True
        cells = text.split(" MiB", 2)
        try:
            return len(cells) == 3 and float(cells[1]) > 0
        except ValueError:
            return False

    def flush(self):
        for handler in self.logger.handlers:
            handler.flush()
