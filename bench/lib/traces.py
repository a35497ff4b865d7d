"""Traces of elastic-mem, and what bench/lib/reference.c has seen at the same time."""

import csv
import datetime
import json
import re


def read_csv(path):
    """(context, end, samples as texts by column) of a trace; None for a line that is missing."""
    said, lines = {}, []
    with open(path, encoding="utf-8", newline="") as file:
        for line in file:
            found = re.match("# (context|end) ({.*})", line)
            if found:
                said[found[1]] = json.loads(found[2])
            elif not line.startswith("#"):
                lines.append(line)
    return said.get("context"), said.get("end"), list(csv.DictReader(lines))


def begin_of(context):
    """When a run began, in microseconds of the epoch: its name says so. Before that, the container was being made."""
    stamp = context["run"].split("Z-")[0]
    moment = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%S.%f").replace(tzinfo=datetime.timezone.utc)
    return round(moment.timestamp() * 1e6)


def read_looks(path):
    """Control group -> what the reference has seen of it, look by look."""
    looks = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            group, *numbers = line.split()
            names = ("at", "held", "usage", "counter", "limit")
            looks.setdefault(group, []).append(dict(zip(names, map(int, numbers))))
    return looks
