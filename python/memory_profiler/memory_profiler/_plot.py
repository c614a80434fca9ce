"""Plots of profiles: by matplotlib, or as an SVG of our own."""
from . import _svg

COLOURS = ["#1b76bd", "#d9541e", "#4f9d3a", "#8e4ec6", "#c2185b", "#00838f", "#b58900", "#5d4037"]
CHILD_COLOURS = ["#7fb3dd", "#f0a684", "#a3cf95", "#c6a5e2", "#e58bb0", "#74c4cb"]


class Request:
    """What is to be plotted."""

    def __init__(self, profiles, title, functions, labels, window, flame, slope):
        self.profiles = profiles
        self.title = title
        self.functions = functions
        self.labels = labels
        self.window = window
        self.flame = flame
        self.slope = slope
        # One origin for all: the start of the first.
        self.origin = min(p.samples[0][0] for p in profiles)

    def series(self):
        """[(label, colour, [seconds], [MiB], whether it is a child)]"""
        found = []
        for index, profile in enumerate(self.profiles):
            name = profile.filename if len(self.profiles) > 1 else "memory"
            found.append((name, COLOURS[index % len(COLOURS)], profile.samples, False))
            for n, (child, samples) in enumerate(profile.children.items()):
                found.append(("child %s" % child, CHILD_COLOURS[n % len(CHILD_COLOURS)], samples, True))
        return [
            (label, colour, [t - self.origin for t, _ in samples], [m for _, m in samples], child)
            for label, colour, samples, child in found
        ]

    def spans(self):
        """[(label, colour, begin, end, MiB at begin, MiB at end, depth)] of the functions."""
        found = []
        if self.functions:
            names = [name for profile in self.profiles for name in profile.functions]
            colours = {name: COLOURS[(n + 1) % len(COLOURS)] for n, name in enumerate(dict.fromkeys(names))}
            for profile in self.profiles:
                for name, runs in profile.functions.items():
                    for begin, end, memory, last, depth in runs:
                        span = begin - self.origin, end - self.origin, memory, last, depth
                        found.append((self.labels[name], colours[name]) + span)
        return found


def trend(times, values):
    """(slope in MiB/s, value at 0) of the line of least squares; (0, mean) where there is none."""
    count = len(times)
    mean_time = sum(times) / count
    mean = sum(values) / count
    spread = sum((t - mean_time) ** 2 for t in times)
    if spread == 0:
        return 0.0, mean
    slope = sum((t - mean_time) * (v - mean) for t, v in zip(times, values)) / spread
    return slope, mean - slope * mean_time


def plot(request, output, backend):
    """Plot to a file, or on the screen. Returns the file that was written, or None."""
    try:
        import matplotlib
    except ImportError:
        target = output or request.profiles[0].filename.rsplit(".", 1)[0] + ".html"
        text = _svg.draw(request)
        if target.endswith((".html", ".htm")):
            text = _svg.page(text, request.title)
        with open(target, "w", encoding="utf-8") as f:
            f.write(text)
        return target
    if backend:
        matplotlib.use(backend)
    elif output:
        matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    figure = pyplot.figure(figsize=(14, 6), dpi=90)
    axes = figure.add_axes([0.1, 0.1, 0.6, 0.75])
    _onto(axes, request)
    if output:
        figure.savefig(output)
    else:
        pyplot.show()
    return output


def _onto(axes, request):
    for label, colour, times, values, child in request.series():
        if request.slope and not child:
            slope, start = trend(times, values)
            label += " slope %.5f MiB/s" % slope
            axes.plot(times, [start + slope * t for t in times], "--", color=colour, linewidth=0.6)
        axes.plot(times, values, "+-" if not child else "-", color=colour, label=label)
    peak_time, peak = max(
        ((t, m) for _, _, times, values, child in request.series() if not child for t, m in zip(times, values)),
        key=lambda at: at[1],
    )
    axes.axhline(peak, linestyle="--", color="#d00000", linewidth=0.8)
    axes.axvline(peak_time, linestyle="--", color="#d00000", linewidth=0.8)
    shown = set()
    top = axes.get_ylim()[1]
    for label, colour, begin, end, memory, last, depth in request.spans():
        legend = "%s %.3fs" % (label, end - begin) if label not in shown else None
        shown.add(label)
        if request.flame:
            height = top * 0.04
            axes.broken_barh(
                [(begin, max(end - begin, 1e-6))],
                (depth * height, height * 0.9),
                facecolors=colour,
                alpha=0.6,
                label=legend,
            )
        else:
            axes.plot([begin], [memory], marker="$[$", markersize=13, color=colour, linestyle="", label=legend)
            axes.plot([end], [last], marker="$]$", markersize=13, color=colour, linestyle="")
    axes.set_xlabel("time (in seconds)")
    axes.set_ylabel("memory used (in MiB)")
    axes.set_title(request.title)
    axes.grid(True)
    if request.window:
        axes.set_xlim(*request.window)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize="small", frameon=False)
