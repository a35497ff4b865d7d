"""Traces of elastic-mem, and what they add up to (docs/tracing.md has the form of the files)."""

import csv
import dataclasses
import json

MIB = 1 << 20
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a trace says of a run; a value holds until the next one."""

    duration_s: float
    cpu_s: float
    peak: int  # the kernel's own, where it has one
    used_gib_s: float
    granted_gib_s: float
    kills: int  # processes that the OOM killer ended


def figures(text, declared):
    """`declared` is what is granted while no limit is in force."""
    end = next((json.loads(line[6:]) for line in text.splitlines() if line.startswith("# end ")), None)
    if end is None:
        raise ValueError("the trace was cut off")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    if len(rows) < 2:
        raise ValueError("at least two samples are needed")
    limits = {"limit": None, "high": None}
    usage, before = 0, None
    used = granted = 0
    for row in rows:
        now = int(row["t_us"])
        if before is not None:
            in_force = [limit for limit in limits.values() if limit is not None]
            used += usage * (now - before)
            granted += min(in_force, default=declared) * (now - before)
        before = now
        usage = int(row["usage"] or usage)
        for name in limits:
            if row[name]:
                limits[name] = None if row[name] == "max" else int(row[name])
    cpu = [int(row["cpu_us"]) for row in rows if row["cpu_us"]]
    peak = max(int(row["usage"]) for row in rows if row["usage"])
    return Figures(
        duration_s=(before - int(rows[0]["t_us"])) / 1e6,
        cpu_s=(cpu[-1] - cpu[0]) / 1e6,
        peak=max(peak, end.get("peak") or 0),
        used_gib_s=used / 1e6 / GIB,
        granted_gib_s=granted / 1e6 / GIB,
        kills=end["oomKills"],
    )
