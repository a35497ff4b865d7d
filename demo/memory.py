"""Memory over time: sampling a container's cgroup, figures, a terminal plot, CSV and SVG."""

import bisect
import dataclasses
import errno
import itertools
import os
import sys
import time
from xml.sax.saxutils import escape

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts", "lib"))

from cgroups import hierarchy_of

MIB = 1 << 20

# cgroup v1 says "no limit" with the largest multiple of the page size.
V1_NO_LIMIT = 1 << 60


@dataclasses.dataclass(frozen=True)
class Sample:
    t_us: int
    usage: int
    anon: int
    limit: int | None  # None: no limit in force


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a series of samples says; a sample holds until the next one."""

    duration_s: float
    peak: int
    mean: float
    anon_peak: int
    declared: int
    waste: float  # share of declared limit x time that was not used
    period_ms: float


def figures(samples, declared):
    if len(samples) < 2:
        raise ValueError("at least two samples are needed")
    duration = samples[-1].t_us - samples[0].t_us
    used = sum(a.usage * (b.t_us - a.t_us) for a, b in zip(samples, samples[1:]))
    mean = used / duration
    return Figures(
        duration_s=duration / 1e6,
        peak=max(s.usage for s in samples),
        mean=mean,
        anon_peak=max(s.anon for s in samples),
        declared=declared,
        waste=1 - mean / declared,
        period_ms=duration / 1e3 / (len(samples) - 1),
    )


# Reading the cgroup


class NoMemoryController(Exception):
    pass


def memory_controller(mounts=None):
    """(version, mount point) of the hierarchy that accounts memory. A hybrid host has it on v1."""
    found = hierarchy_of("memory", mounts)
    if found is None:
        raise NoMemoryController("no cgroup hierarchy with the memory controller is mounted")
    return found


class Sampler:
    """Samples one cgroup from outside through files that stay open."""

    FILES = {
        1: ("memory.usage_in_bytes", "memory.stat", "memory.limit_in_bytes"),
        2: ("memory.current", "memory.stat", "memory.max"),
    }
    ANON = {1: b"rss ", 2: b"anon "}

    def __init__(self, cgroups_path, controller=None):
        self.version, mount_point = controller or memory_controller()
        self.folder = mount_point + cgroups_path
        self.samples = []
        self._files = None
        self._begin = 0

    def sample(self):
        """Takes one sample; False when the cgroup does not exist (yet, or any more)."""
        if self._files is None and not self._open():
            return False
        usage_file, stat_file, limit_file = self._files
        try:
            now = time.monotonic_ns()
            usage = int(os.pread(usage_file, 32, 0))
            stat = os.pread(stat_file, 8192, 0)
            limit = os.pread(limit_file, 32, 0).strip()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            self.close()
            return False
        if not self.samples:
            if usage == 0:  # nothing has run in it yet
                return True
            self._begin = now
        self.samples.append(
            Sample((now - self._begin) // 1000, usage, self._anon(stat), self._limit(limit))
        )
        return True

    def close(self):
        for file in self._files or ():
            os.close(file)
        self._files = None

    def _open(self):
        files = []
        try:
            for name in self.FILES[self.version]:
                files.append(os.open(f"{self.folder}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, OSError) as error:
            for file in files:
                os.close(file)
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            return False
        self._files = tuple(files)
        return True

    def _anon(self, stat):
        key = self.ANON[self.version]
        begin = 0 if stat.startswith(key) else stat.find(b"\n" + key) + 1
        return int(stat[begin + len(key) :].split(b"\n", 1)[0])

    @staticmethod
    def _limit(text):
        if text == b"max" or int(text) >= V1_NO_LIMIT:
            return None
        return int(text)


# Showing it


def write_csv(file, samples):
    file.write("t_us,usage,anon,limit\n")
    for s in samples:
        file.write(f"{s.t_us},{s.usage},{s.anon},{'' if s.limit is None else s.limit}\n")


def buckets(samples, count):
    """The largest (usage, anon) in each of `count` equal spans of time; an empty span holds the value before."""
    begin, end = samples[0].t_us, samples[-1].t_us
    times = [s.t_us for s in samples]
    result = []
    for i in range(count):
        low = bisect.bisect_left(times, begin + (end - begin) * i / count)
        high = bisect.bisect_left(times, begin + (end - begin) * (i + 1) / count)
        span = samples[low:high] if high > low else [samples[max(0, low - 1)]]
        result.append((max(s.usage for s in span), max(s.anon for s in span)))
    return result


def nice_step(span, most):
    """The smallest of 1, 2, 5 x 10^n that divides `span` into at most `most` parts."""
    step = 1e-3
    while True:
        for factor in (1, 2, 5):
            if span / (step * factor) <= most:
                return step * factor
        step *= 10


BLOCKS = " ▁▂▃▄▅▆▇█"


def terminal_plot(samples, declared, width, height=12, color=False, unicode=True):
    """A plot of usage against the declared limit, as lines of text."""
    top = max(declared, max(s.usage for s in samples))
    label_width = max(len(f"{top // MIB}"), 3) + 5
    columns = max(10, width - label_width - 2)
    series = buckets(samples, columns)
    limit_row = min(height - 1, int(declared / top * height - 1e-9))

    def paint(text, code):
        return f"\x1b[{code}m{text}\x1b[0m" if color and code else text

    full, shade, line = ("█", "▒", "─") if unicode else ("#", ":", "-")
    lines = []
    for row in reversed(range(height)):
        cells = []
        for usage, anon in series:
            level = usage / top * height - row
            if level <= 0 or (level < 1 and round(level * 8) == 0):
                cells.append((line, "33") if row == limit_row else (" ", ""))
            else:
                anonymous = anon / top * height >= row + min(level, 1) / 2  # most of the cell
                if level < 1 and unicode:
                    cell = BLOCKS[round(level * 8)]
                else:
                    cell = full if anonymous else shade
                cells.append((cell, "36" if anonymous else "2;36"))
        runs = itertools.groupby(cells, key=lambda cell: cell[1])
        body = "".join(paint("".join(cell for cell, _ in run), code) for code, run in runs)
        label = ""
        if row == height - 1:
            label = f"{top // MIB} MiB"
        elif row % 3 == 0:
            label = f"{round(top * row / height / MIB)} MiB"
        # A label names the lower edge of its row, the topmost one the upper edge.
        lines.append(f"{label:>{label_width}} {'│' if unicode else '|'}{body.rstrip()}")
    seconds = (samples[-1].t_us - samples[0].t_us) / 1e6
    axis, labels = [("─" if unicode else "-")] * columns, [" "] * columns
    step = nice_step(seconds, 6)
    for i in range(int(seconds / step) + 1):
        at = min(columns - 1, int(i * step / seconds * columns))
        axis[at] = "┬" if unicode else "+"
        text = f"{i * step:g} s"
        if at + len(text) <= columns:
            labels[at : at + len(text)] = text
    lines.append(f"{'':>{label_width}} {'└' if unicode else '+'}{''.join(axis)}")
    lines.append(f"{'':>{label_width}}  {''.join(labels).rstrip()}")
    key = (
        f"{paint(full, '36')} anonymous memory   {paint(shade, '2;36')} file cache and kernel   "
        f"{paint(line, '33')} declared limit"
    )
    lines.append(f"{'':>{label_width}}  {key}")
    return lines


SVG_STYLE = """
  :root { color-scheme: light dark; }
  .paper { fill: #ffffff; } .ink { fill: #1f2328; } .dim { fill: #59636e; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
  .anon { fill: #0969da; } .rest { fill: #80b8f5; } .waste { fill: #bc4c00; opacity: .09; }
  .limit { stroke: #bc4c00; } .grant { stroke: #1a7f37; }
  .mean { stroke: #1f2328; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .ink { fill: #e6edf3; } .dim { fill: #9198a1; }
    .grid { stroke: #30363d; } .axis { stroke: #9198a1; }
    .anon { fill: #388bfd; } .rest { fill: #1f4f8f; } .waste { fill: #f0883e; opacity: .12; }
    .limit { stroke: #f0883e; } .grant { stroke: #3fb950; }
    .mean { stroke: #e6edf3; }
  }
  text { font: 13px system-ui, "DejaVu Sans", Arial, sans-serif; }
  .title { font-size: 17px; font-weight: 600; }
"""


def svg_plot(samples, declared, title, note=""):
    """The same plot as a picture, for light and dark pages. `note` says what it ran under."""
    width, height, left, right, head, foot = 900, 440, 70, 24, 84, 46
    inner_w, inner_h = width - left - right, height - head - foot
    f = figures(samples, declared)
    top = max(declared, f.peak) * 1.04
    seconds = f.duration_s

    def x(t_us):
        return left + (t_us - samples[0].t_us) / 1e6 / seconds * inner_w

    def y(size):
        return head + inner_h * (1 - size / top)

    def steps(values):
        """Corners of a curve on which each value holds until the next one."""
        previous = None
        for sample, value in values:
            if y(value) != previous:
                if previous is not None:
                    yield x(sample.t_us), previous
                yield x(sample.t_us), y(value)
                previous = y(value)
        yield x(values[-1][0].t_us), previous

    def path(points):
        return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in points)

    def area(values, base):
        return f"{path(steps(values))}L{x(samples[-1].t_us):.1f},{base:.1f}L{left},{base:.1f}Z"

    usage = [(s, s.usage) for s in samples]
    anon = [(s, min(s.anon, s.usage)) for s in samples]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{SVG_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
        f'<text class="ink title" x="{left}" y="30">{escape(title)}</text>',
        f'<text class="dim" x="{left}" y="52">peak {f.peak / MIB:.0f} MiB, mean {f.mean / MIB:.0f} MiB, '
        f"declared {declared / MIB:.0f} MiB: {f.waste:.0%} of the declared memory x time was not used</text>",
    ]
    step = declared / MIB / 4  # quarters, as memory is declared in powers of two
    for i in range(int(top / MIB / step) + 1):
        at = y(i * step * MIB)
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text class="dim" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{i * step:g} MiB</text>')
    step = nice_step(seconds, 8)
    for i in range(int(seconds / step) + 1):
        at = left + i * step / seconds * inner_w
        out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{y(0):.1f}" y2="{y(0) + 5:.1f}"/>')
        out.append(f'<text class="dim" x="{at:.1f}" y="{y(0) + 21:.1f}" text-anchor="middle">{i * step:g} s</text>')
    out += [
        f'<path class="waste" d="{area(usage, y(declared))}"/>',
        f'<path class="rest" d="{area(usage, y(0))}"/>',
        f'<path class="anon" d="{area(anon, y(0))}"/>',
        f'<line class="axis" x1="{left}" x2="{width - right}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>',
        f'<line class="limit" x1="{left}" x2="{width - right}" y1="{y(declared):.1f}" '
        f'y2="{y(declared):.1f}" stroke-width="2"/>',
        f'<line class="mean" x1="{left}" x2="{width - right}" y1="{y(f.mean):.1f}" y2="{y(f.mean):.1f}" '
        f'stroke-dasharray="3 4"/>',
    ]
    peak = max(samples, key=lambda s: s.usage)
    if f.peak < 0.9 * declared:  # else the limit's line runs through the text
        side = "end" if x(peak.t_us) > width / 2 else "start"
        out.append(
            f'<text class="ink" x="{x(peak.t_us):.1f}" y="{y(peak.usage) - 7:.1f}" text-anchor="{side}">'
            f"peak {f.peak / MIB:.0f} MiB</text>"
        )
    granted = [(s, s.limit) for s in samples if s.limit is not None]
    if any(limit < declared for _, limit in granted):
        out.append(f'<path class="grant" d="{path(steps(granted))}" fill="none" stroke-width="1.5"/>')
    # The key stands in one row under the title, so that it never covers the curve.
    at = left
    for kind, text in (
        ("anon", "anonymous memory"),
        ("rest", "file cache and kernel"),
        ("waste", "declared, not used"),
    ):
        out.append(f'<rect class="{kind}" x="{at}" y="63" width="12" height="12" rx="2"/>')
        out.append(f'<text class="dim" x="{at + 18}" y="74">{text}</text>')
        at += 40 + 8 * len(text)
    for kind, style, text in (
        ("limit", 'stroke-width="2"', "declared limit"),
        ("mean", 'stroke-dasharray="3 4"', "mean use"),
    ):
        out.append(f'<line class="{kind}" x1="{at}" x2="{at + 18}" y1="69" y2="69" {style}/>')
        out.append(f'<text class="dim" x="{at + 24}" y="74">{text}</text>')
        at += 46 + 8 * len(text)
    if note:
        out.append(f'<text class="dim" x="{width - right}" y="30" text-anchor="end">{escape(note)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
