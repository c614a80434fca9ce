# The module `_strandline` of a program that has the agent in it. Runs on every CPython from 2.7 on; `OWNER` and the
# `native_*` functions are given.


def census(file=None):
    """Say what every resident byte of this process is, as it is now.

    Returns what `strandline census --json` prints, as a dict; writes it to `file` as well if one
    is given, which must not exist.
    """
    import os
    import time

    out = None
    if file is not None:
        out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    written = False
    try:
        number = native_ask()
        while number == -2:
            # Another thread asks, which needs the GIL to read its answer; or another process.
            time.sleep(0.001)
            number = native_ask()
        try:
            if number < 0:
                raise RuntimeError("strandline doesn't answer: no census was taken")
            with open("/proc/%d/fd/%d" % (OWNER, number // 4), "rb") as answer:
                text = answer.read()
        finally:
            native_release()
        if number % 4 != 1:
            raise RuntimeError(text.decode("utf-8", "replace"))
        if out is not None:
            with os.fdopen(out, "wb") as f:
                written = True
                f.write(text)
    finally:
        if out is not None and not written:
            os.close(out)
            os.unlink(file)
    import json

    return json.loads(text.decode("utf-8"))


def trim():
    """Give memory that nothing uses back to the operating system, where that is to be had.

    Runs the collector, malloc_trim and the pool trim (CPython 3.10 to 3.13), each if it may give
    something back. Returns bytes: what each changed resident memory by (more is better, 0 if it
    wasn't run), and resident memory before and after.
    """
    promising = native_promising()
    before = now = native_rss(1 if promising else 0)
    given = {"rss_before": before}
    # The order matters: each makes room for the next.
    for remedy, name in ((1, "collect"), (2, "malloc_trim"), (3, "pool_trim")):
        last = now
        if promising & 1 << remedy:
            now = native_remedy(remedy)
            if remedy != 3:
                # What was freed changes what the next can do.
                promising |= native_promising()
        given[name] = last - now
    given["rss_after"] = now
    return given
