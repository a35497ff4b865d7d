"""What the runs of functions say, as a table."""

import dataclasses
import statistics

import curves

HEAD = [
    "function",
    "peak",
    "static",
    "granted GiB-s",
    "used GiB-s",
    "saved of static",
    "saved of declared",
    "CPU",
    "kills",
    "failed",
]


@dataclasses.dataclass(frozen=True)
class Run:
    """One invocation."""

    figures: curves.Figures
    failure: str | None  # why its answer is not the right one


def row(name, observed, elastic, declared):
    """`static` is the largest peak of the observed runs: the least limit that would have been enough for all of them."""
    static = max(run.figures.peak for run in observed)

    def median(value, runs=elastic):
        return statistics.median(value(run.figures) for run in runs)

    def percent(value, sign=""):
        return f"{value:{sign}.0%}".replace("%", " %")

    def saved(limit):
        return percent(median(lambda f: 1 - f.granted_gib_s / (limit / curves.GIB * f.duration_s)))

    runs = [*observed, *elastic]
    return [
        name,
        f"{max(run.figures.peak for run in elastic) / curves.MIB:.0f} MiB",
        f"{static / curves.MIB:.0f} MiB",
        f"{median(lambda f: f.granted_gib_s):.3f}",
        f"{median(lambda f: f.used_gib_s):.3f}",
        saved(static),
        saved(declared),
        percent(median(lambda f: f.cpu_s) / median(lambda f: f.cpu_s, observed) - 1, "+"),
        str(sum(run.figures.kills for run in runs)),
        f"{sum(run.failure is not None for run in runs)} of {len(runs)}",
    ]


def lines(rows):
    """Names to the left, numbers to the right."""
    widths = [max(len(each[column]) for each in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([f"{each[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(each[1:], widths[1:]))])
        for each in rows
    ]
