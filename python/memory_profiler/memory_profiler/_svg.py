"""A plot as SVG, for where matplotlib isn't."""
from html import escape

WIDTH, HEIGHT = 1120, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 330, 40, 50


def _steps(low, high, wanted=8):
    """Round numbers between two values, `wanted` or fewer."""
    size = 10.0 ** -6
    factors = (2.0, 2.5, 2.0)
    n = 0
    while (high - low) / size > wanted:
        size *= factors[n % 3]
        n += 1
    first = int(low / size)
    marks = []
    while first * size <= high + size * 1e-9:
        if first * size >= low - size * 1e-9:
            marks.append(first * size)
        first += 1
    return marks


def page(svg, title):
    """The SVG in an HTML page that needs nothing else."""
    return '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>%s</title></head>\n<body>%s</body></html>\n' % (
        escape(title),
        svg,
    )


def draw(request):
    """The plot as SVG text."""
    from ._plot import trend

    series = request.series()
    if request.window:
        low, high = request.window
    else:
        low = min(min(times) for _, _, times, _, _ in series)
        high = max(max(times) for _, _, times, _, _ in series)
    high = max(high, low + 1e-3)
    top = max(max(values) for _, _, _, values, _ in series) * 1.05 or 1.0

    def x(t):
        return LEFT + (t - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(m):
        return HEIGHT - BOTTOM - m / top * (HEIGHT - TOP - BOTTOM)

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
        'font-family="sans-serif" font-size="12" role="img">' % (WIDTH, HEIGHT, WIDTH, HEIGHT),
        "<title>%s</title>" % escape(request.title),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="%d" y="22" font-size="14">%s</text>' % (LEFT, escape(request.title)),
        '<clipPath id="area"><rect x="%d" y="%d" width="%d" height="%d"/></clipPath>'
        % (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM),
    ]
    _grid(out, _steps(low, high), _steps(0.0, top), x, y)
    legend = []
    for label, colour, times, values, child in series:
        if request.slope and not child:
            slope, start = trend(times, values)
            label += " slope %.5f MiB/s" % slope
            ends = ((t, start + slope * t) for t in (times[0], times[-1]))
            out.append(_line(ends, x, y, colour, 'stroke-dasharray="4 3" stroke-width="0.8"'))
        out.append(_line(zip(times, values), x, y, colour, 'stroke-width="%s"' % ("1" if child else "1.6")))
        legend.append((label, colour))
    _spans(out, legend, request, x, y)
    for n, (label, colour) in enumerate(legend):
        at = TOP + 10 + 18 * n
        out.append('<rect x="%d" y="%d" width="12" height="3" fill="%s"/>' % (WIDTH - RIGHT + 12, at - 5, colour))
        out.append('<text x="%d" y="%d">%s</text>' % (WIDTH - RIGHT + 30, at, escape(label)))
    out.append("</svg>\n")
    return "\n".join(out)


def _grid(out, times, values, x, y):
    for t in times:
        out.append('<path d="M%.2f %dV%d" stroke="#dddddd"/>' % (x(t), TOP, HEIGHT - BOTTOM))
        out.append('<text x="%.2f" y="%d" text-anchor="middle">%g</text>' % (x(t), HEIGHT - BOTTOM + 16, t))
    for m in values:
        out.append('<path d="M%d %.2fH%d" stroke="#dddddd"/>' % (LEFT, y(m), WIDTH - RIGHT))
        out.append('<text x="%d" y="%.2f" text-anchor="end">%g</text>' % (LEFT - 6, y(m) + 4, m))
    out.append(
        '<text x="%d" y="%d" text-anchor="middle">time (in seconds)</text>'
        % ((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 12)
    )
    out.append('<text x="14" y="%d" transform="rotate(-90 14 %d)" text-anchor="middle">memory used (in MiB)</text>' % ((HEIGHT // 2,) * 2))


def _line(points, x, y, colour, more):
    where = " ".join("%.2f,%.2f" % (x(t), y(m)) for t, m in points)
    return '<polyline points="%s" fill="none" stroke="%s" %s clip-path="url(#area)"/>' % (where, colour, more)


def _spans(out, legend, request, x, y):
    shown = set()
    for label, colour, begin, end, memory, last, depth in request.spans():
        name = "%s %.3fs" % (label, end - begin)
        if label not in shown:
            shown.add(label)
            legend.append((name, colour))
        if request.flame:
            height = 18
            out.append(
                '<rect x="%.2f" y="%.2f" width="%.2f" height="%d" fill="%s" opacity="0.6" clip-path="url(#area)">'
                "<title>%s</title></rect>"
                % (x(begin), HEIGHT - BOTTOM - (depth + 1) * height, max(x(end) - x(begin), 1), height - 2, colour, escape(name))
            )
        else:
            for t, m, side in ((begin, memory, 5), (end, last, -5)):
                out.append(
                    '<path d="M%.2f %.2fh%dv16h%d" fill="none" stroke="%s" stroke-width="2" clip-path="url(#area)">'
                    "<title>%s</title></path>" % (x(t) + side, y(m) - 8, -side, side, colour, escape(name))
                )
