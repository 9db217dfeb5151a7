"""Charts of the results as SVG, drawn without any library; one function per chart, skipped where its case is missing."""
import math
import statistics
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 64, 56
INK, FAINT, GRID = "#1f2933", "#66737f", "#dfe5ea"
COLORS = ("#0b6bcb", "#d1495b", "#2a9d5c", "#c98a00", "#7a4fb5", "#5b6770")


def text(x, y, words, anchor="middle", size=13, color=INK, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}"{more}>{escape(words)}</text>'


def line(x1, y1, x2, y2, color, width=1.0, dash=""):
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"{style}/>'


def page(parts, title):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="system-ui, sans-serif" role="img"><title>{escape(title)}</title>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>\n'
            + "\n".join([text(LEFT, 24, title, "start", 15, more=' font-weight="600"'), *parts]) + "\n</svg>\n")


def nice_ticks(low, high):
    """Some five round numbers from `low` to `high` or a little above."""
    raw = (high - low) / 5 or 1
    power = 10 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    return [step * i for i in range(first, math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low, high):
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [one * 10.0 ** decade for decade in decades for one in (1, 2, 5)]
    first = max(one for one in marks if one <= low)
    last = next((one for one in marks if one >= high), high)
    return [one for one in marks if first <= one <= last]


class Axes:
    """Maps values to the picture and draws the frame."""

    def __init__(self, xs, ys, xlabel, ylabel, log=False):
        self.log = log
        self.xticks = nice_ticks(min(xs), max(xs))
        self.yticks = log_ticks(min(ys), max(ys)) if log else nice_ticks(0, 1.06 * max(ys))
        self.xlabel, self.ylabel = xlabel, ylabel

    def x(self, value):
        low, high = self.xticks[0], self.xticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        scale = math.log10 if self.log else float
        low, high = scale(self.yticks[0]), scale(self.yticks[-1])
        return HEIGHT - BOTTOM - (scale(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def frame(self, with_x=True):
        parts = [line(LEFT, self.y(one), WIDTH - RIGHT, self.y(one), GRID) +
                 text(LEFT - 8, self.y(one) + 4, f"{one:g}", "end", 12, FAINT) for one in self.yticks]
        if with_x:
            parts += [text(self.x(one), HEIGHT - BOTTOM + 18, f"{one:g}", size=12, color=FAINT) for one in self.xticks]
        parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.xlabel, size=12, color=FAINT),
                  text(16, (TOP + HEIGHT - BOTTOM) / 2, self.ylabel, size=12, color=FAINT,
                       more=f' transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"')]
        return parts


def legend(names):
    """Under the title, one after the other."""
    parts, x = [], LEFT
    for color, name in zip(COLORS, names):
        parts += [f'<rect x="{x:.1f}" y="36" width="12" height="12" rx="2" fill="{color}"/>',
                  text(x + 18, 46, name, "start", 12)]
        x += 18 + 7 * len(name) + 16
    return parts


def curves(title, xlabel, ylabel, series, levels=(), log=False, joined=True):
    """series: name -> [(x, low, middle, high)]; levels: [(y, what)] are drawn dashed."""
    points = [point for one in series.values() for point in one]
    axes = Axes([x for x, *_ in points], [y for _, *ys in points for y in ys] + [y for y, _ in levels], xlabel, ylabel, log)
    parts = axes.frame()
    for y, what in levels:
        parts += [line(LEFT, axes.y(y), WIDTH - RIGHT, axes.y(y), FAINT, 1.2, "5 4"),
                  text(WIDTH - RIGHT, axes.y(y) - 5, what, "end", 11, FAINT)]
    for color, one in zip(COLORS, series.values()):
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, _, y, _ in sorted(one))
        parts += [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'] if joined else []
        for x, low, y, high in one:
            parts += [line(axes.x(x), axes.y(low), axes.x(x), axes.y(high), color, 1.2),
                      f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5" fill="{color}"/>']
    return page(parts + legend(list(series)), title)


def bars(title, ylabel, groups, names, level=None):
    """groups: [(what, [(low, middle, high) or None for each name])]; level: (y, what)."""
    values = [high for _, group in groups for one in group if one for high in one] + ([level[0]] if level else [])
    axes = Axes([0, 1], values, "", ylabel)
    parts = axes.frame(False)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.7 / len(names)
    for at, (what, group) in enumerate(groups):
        begin = LEFT + room * at + room * 0.15
        parts.append(text(LEFT + room * (at + 0.5), HEIGHT - BOTTOM + 18, what, size=12))
        for index, one in enumerate(group):
            if one is None:
                continue
            low, middle, high = one
            x, top = begin + width * index, axes.y(middle)
            parts += [f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" '
                      f'fill="{COLORS[index]}"/>',
                      line(x + width / 2, axes.y(low), x + width / 2, axes.y(high), INK, 1.2),
                      text(x + width / 2, axes.y(high) - 6, f"{middle:.3g}", size=11)]
    if level:
        parts += [line(LEFT, axes.y(level[0]), WIDTH - RIGHT, axes.y(level[0]), FAINT, 1.2, "5 4"),
                  text(WIDTH - RIGHT, axes.y(level[0]) - 5, level[1], "end", 11, FAINT)]
    return page(parts + legend(names), title)


def spread(values):
    values = list(values)
    return min(values), statistics.median(values), max(values)


def of(rounds, key, scale=1.0):
    return spread(one[key] * scale for one in rounds)


# ---- The charts ----------------------------------------------------------------------------------

def requests(details):
    tiny, grpc = details["tiny"], details["grpc"]
    groups = [("REST, 64 connections", [of(tiny["c64"][side], "cpu_us") for side in ("weir", "nginx")]),
              ("REST, 8 connections", [of(tiny["c8"][side], "cpu_us") for side in ("weir", "nginx")]),
              ("gRPC, 16 x 32 streams", [of(grpc["16x32"][side], "cpu_us") for side in ("weir", "nghttpd")])]
    return bars("Server CPU time per request, tiny model", "microseconds", groups,
                ["Weir, with the model", "nginx, nghttpd: constant bytes"])


def single(details):
    found = details["tiny"]["c1"]
    groups = [("", [of(found[side], "p50_us") for side in ("weir", "nginx", "spin")])]
    return bars("One connection, one request at a time: p50", "microseconds", groups, ["Weir", "nginx", "Weir, --loop-spin 50us"])


def large(details):
    groups = []
    for what in ("602KB", "4.8MB"):
        limit = statistics.median(one["p50_us"] for one in details["tensors"][what]["raw"])
        groups.append((f"{what[:-2]} {what[-2:]}", [of(details["tensors"][what][way], "p50_us", 1 / limit)
                                                    for way in ("raw", "http", "grpc")]))
    return bars("A tensor there and back: p50 over that of a bare TCP connection", "times", groups,
                ["bare TCP connection", "Weir, REST", "Weir, gRPC"])


def searches(details):
    series = {}
    for slo in ("15", "30"):
        found = [(one["rate"] / each["C1"], one["p99_us"] / 1e3) for each in details["server"]["rounds"]
                 for one in each[f"tried{slo}"] if one["p99_us"] and one["p99_us"] < 1e3 * 3 * int(slo)]
        series[f"SLO {slo} ms"] = [(x, y, y, y) for x, y in found]
    return curves("Poisson arrivals, weight-heavy perceptron", "rate / C1", "p99, ms", series, [(15, "15 ms"), (30, "30 ms")],
                  joined=False)


def overload(details):
    found = details["overload"]
    rate = found["valid_rate"]
    series = {name: [(float(load), *of(one[side], "goodput", 1 / rate)) for load, one in found["loads"].items()]
              for side, name in (("weir", "Weir"), ("fcfs", "Weir, first come, first served"))}
    return curves("Answers within 15 ms under overload", "offered rate / valid rate", "answers within the SLO / valid rate",
                  series, [(0.85, "target 0.85")])


def tails(details):
    loads = details["tail"]["loads"]
    series = {name: [(float(load), *spread(pick(one) for one in rounds)) for load, rounds in loads.items()]
              for name, pick in (("Weir p99", lambda one: one["latency"]["p99_us"] / 1e3),
                                 ("simulated p99", lambda one: one["simulated"]["p99_us"] / 1e3),
                                 ("Weir p50", lambda one: one["latency"]["p50_us"] / 1e3),
                                 ("simulated p50", lambda one: one["simulated"]["p50_us"] / 1e3))}
    return curves("1 ms model, Poisson arrivals", "load", "milliseconds", series, log=True)


def priorities(details):
    found = details["priority"]
    groups = [("p99 of the urgent class, ms", [spread(run["classes"]["high"]["latency"]["p99_us"] / 1e3 for run in found[side])
                                               for side in ("classes", "fifo")]),
              ("lower class, 100 answers/s", [spread(run["classes"]["low"]["ok"] / run["elapsed_s"] / 100 for run in found[side])
                                              for side in ("classes", "fifo")])]
    return bars("An urgent class beside one that fills the server", "", groups, ["classes", "all equal"])


def pipelines(details):
    groups = [(f"c = {host} ms", [spread(run["per_s"] / statistics.median(one["per_s"] for one in each["serial"])
                                         for run in each["pipelined"]), (each["limit"],) * 3])
              for host, each in sorted(details["pipeline"].items(), key=lambda pair: float(pair[0]))]
    return bars("Host work c beside a device of 10 ms: gain by overlapping", "times", groups, ["Weir", "(c+i) / max(c,i)"])


def contexts(details):
    found = details["instances"]
    groups = [(f"{count} instances" if count != "1" else "1 instance", [of(found[count], "per_s"), (found["limit"][count],) * 3])
              for count in ("1", "2", "3")]
    groups.append(("1, pipelined", [of(found["pipelined"], "per_s"), (1e3 / 2.6,) * 3]))
    return bars("A serial accelerator: 2.6 ms device, 0.4 ms host", "answers/s", groups, ["Weir", "known limit"])


def carried(details):
    found = details["users"]
    names = (("central40", "one queue, 40 ms"), ("in_turn40", "in turn, 40 ms"), ("central80", "one queue, 80 ms"),
             ("in_turn80", "in turn, 80 ms"))
    series = {name: [(int(count), *[100 - 100 * share] * 3) for count, share in found[key]["share"].items()]
              for key, name in names if key in found}
    return curves("Users of four executors", "users", "frames missed, %", series, [(1, "1 %")])


CHARTS = (
    ("bench-requests.svg", requests), ("bench-single.svg", single), ("bench-tensors.svg", large),
    ("bench-server.svg", searches), ("bench-overload.svg", overload), ("bench-tail.svg", tails),
    ("bench-priority.svg", priorities), ("bench-pipeline.svg", pipelines), ("bench-instances.svg", contexts),
    ("bench-users.svg", carried),
)


def draw_all(details, folder):
    """Writes what can be drawn; returns [(file name, title)]."""
    drawn = []
    folder.mkdir(exist_ok=True)
    for name, chart in CHARTS:
        try:
            svg = chart(details)
        except (KeyError, ValueError, IndexError, statistics.StatisticsError):
            continue  # Its case has not been measured, or not to its end.
        (folder / name).write_text(svg)
        drawn.append((name, svg.partition("<title>")[2].partition("</title>")[0]))
    return drawn
