"""What bench/elastic makes of its runs: memory over time, what other ways to grant would have cost, harm, goals."""

import collections
import json
import math
import os
import random
import statistics

import measure
from measure import FEWEST_ROUNDS, RESAMPLES, NotMeasured

MIB, GIB = 1 << 20, 1 << 30

# Ways to grant that need no run: what is granted follows from the largest plain peak of the function and input.
COMPUTED = ("steps", "powers", "exact")
RUN = ("static", "replay", "elastic")
STEP, FIRST_STEP = 64 * MIB, 128 * MIB  # what providers offered in 2020

# A processor takes charges in stocks of 64 pages (MEMCG_CHARGE_BATCH): the kernel's own figures jump by that much.
STOCK = 64 * os.sysconf("SC_PAGESIZE") * (os.cpu_count() or 1)
BIG = 100 * MIB  # below that a function is a small one
LONG_S = 0.8
GOAL_BIG_AND_LONG, GOAL_BIG = 1.20, 1.35
PAD = 8 * MIB
AT_ONCE_S, MORE = 0.004, 1.25  # what comes until a look has had an effect, and what it may be more the next time
GOAL_CPU = 1.02
GOAL_MADE_MS, GOAL_RAISE_MS = 1.0, 1.0
GOAL_SEEN = 0.02
FULL_PAIRS, FULL_RUNS = 300, 1000


# Traces


def areas(rows, ceiling):
    """Bytes x seconds that were granted, used and held; a sample holds until the next one.

    Granted is what was in force: the lower one of limit and high, and never more than the ceiling.
    """
    last = {}
    granted = used = held = seconds = 0.0
    lowest = ceiling
    before = None
    distances, late = [], collections.deque()
    at_once = 0
    for row in rows:
        at = int(row["t_us"]) / 1e6
        if before is not None and last:
            span = at - before
            distances.append((last["grant"] - last["usage"], span))
            seconds += span
            granted += span * last["grant"]
            used += span * last["usage"]
            held += span * last["held"]
        before = at
        for key in ("usage", "anon", "shmem", "kernel"):
            if row[key]:
                last[key] = int(row[key])
        for key in ("limit", "high"):
            if row[key]:
                last[key] = ceiling if row[key] == "max" else int(row[key])
        last["grant"] = min(ceiling, last.get("limit", ceiling), last.get("high", ceiling))
        last.setdefault("usage", 0)
        late.append((at, last["usage"]))
        while len(late) > 1 and late[1][0] <= at - AT_ONCE_S:
            late.popleft()
        at_once = max(at_once, last["usage"] - min(usage for _, usage in late))
        last["held"] = sum(last.get(key, 0) for key in ("anon", "shmem", "kernel"))
        lowest = min(lowest, last["grant"])
    if seconds == 0:
        raise NotMeasured("a trace has fewer than two samples")
    area = {"granted": granted, "used": used, "held": held, "seconds": seconds, "lowest": lowest, "at_once": at_once}
    return area | {"distance": median_over_time(distances)}


def median_over_time(values):
    """The value that is not exceeded during half of the time, of (value, time)."""
    left = sum(span for _, span in values) / 2
    for value, span in sorted(values):
        left -= span
        if left <= 0:
            return value
    return values[-1][0]


def area_of_looks(looks, begin, seconds, ceiling):
    """Bytes x seconds that were granted, as somebody else has seen it in the time of a trace.

    The limit is lowered while Start is being answered, before the program runs; what was in force until then counts in
    neither.
    """
    steps = [(look["at"], min(ceiling, look["limit"]) if look["limit"] >= 0 else ceiling) for look in looks]
    lowered = next((number for number, (_, grant) in enumerate(steps) if grant < ceiling), len(steps))
    steps = steps[lowered:] or [(begin, ceiling)]
    end = begin + seconds * 1e6
    granted = 0.0
    before, grant = begin, steps[0][1]
    for at, then in [*steps, (end, 0)]:
        at = min(max(at, begin), end)
        granted += grant * (at - before) / 1e6
        before, grant = at, then
    return granted


# Earlier calls


def earlier(path, wanted):
    """What earlier calls have left in a file: their runs, and the facts of the host at each. Nothing without the file."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError) as error:
        raise NotMeasured(f"--resume {path}: {error}") from None
    found = document.get("terms", {}) if isinstance(document, dict) else {}
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        told = "; ".join(f"{name} was {found.get(name)}, is {wanted[name]}" for name in other)
        raise NotMeasured(f"--resume {path}: these runs cannot be taken together: {told}; give another file")
    return document["runs"], document["calls"]


# Ways to grant that need no run


def computed_grant(way, peak):
    """The memory that is granted for the whole run, if `peak` is the largest that any run has needed."""
    if way == "steps":
        return max(FIRST_STEP, math.ceil(peak / STEP) * STEP)
    if way == "powers":
        size = FIRST_STEP
        while size < peak:
            size *= 2
        return size
    return peak


def largest_difference(runs):
    """How far a trace's word on what was granted is from the other reader's, as a share of that."""
    return max(abs(run["granted"] / run["seen"] - 1) for run in runs)


def runtime_cpu(runs):
    """What a run costs besides the container, in seconds: the shim with its sampler, and what it starts."""
    kinds = dict.fromkeys(run["kind"] for run in runs)
    return {kind: statistics.median(run["runtime_cpu"] for run in runs if run["kind"] == kind) for kind in kinds}


# Harm


def harm_of(run, digest):
    """What a run has suffered; an empty list is none. `digest` is that of the plain runs' output."""
    harm = []
    if run["oom_kills"] or run["status"] == 137:
        harm.append("kill")
    elif run["status"] is None:
        harm.append("hang")
    elif run["status"] != 0:
        harm.append("failed call")
    elif run["digest"] != digest:
        harm.append("output")
    if run["met"]:
        harm.append("stall")
    return harm


# Tables


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def ratio(runs):
    """Granted / used of all runs together."""
    return sum(run["granted"] for run in runs) / sum(run["used"] for run in runs)


def table(runs, kinds):
    """One row for each workload."""
    rows = []
    for name in dict.fromkeys(run["workload"] for run in runs):
        of = {kind: [r for r in runs if r["workload"] == name and r["kind"] == kind] for kind in kinds}
        plain = of["plain"]
        peak = max(run["peak"] for run in plain)
        held = statistics.fmean(run["held"] for run in plain)
        row = {
            "workload": name,
            "own": plain[0]["own"],
            "asked": plain[0].get("asked", False),
            "runs": len(plain),
            "seconds": statistics.median(run["seconds"] for run in plain),
            "peak": peak,
            "used": statistics.fmean(run["used"] for run in plain),
            "held": held,
            "ratio": {},
            "to_held": {},
            "distance": {},
            "at_once": max(run["at_once"] for run in plain),
            "cpu": {},
            "wall": {},
        }
        for way in COMPUTED:
            granted = [computed_grant(way, peak) * run["seconds"] for run in plain]
            row["ratio"][way] = sum(granted) / sum(run["used"] for run in plain)
            row["to_held"][way] = statistics.fmean(granted) / held
        for kind in kinds:
            if kind == "plain" or not of[kind]:
                continue
            row["ratio"][kind] = ratio(of[kind])
            row["to_held"][kind] = statistics.fmean(run["granted"] for run in of[kind]) / held
            row["distance"][kind] = statistics.median(run["distance"] for run in of[kind])
            for what in ("cpu", "wall"):
                row[what][kind] = geometric_mean(run[what] / partner[what] for run, partner in pairs_of(plain, of[kind]))
        rows.append(row)
    return rows


def pairs_of(plain, others):
    """Runs of the same round."""
    by_round = {run["round"]: run for run in plain if run["round"] is not None}
    return [(run, by_round[run["round"]]) for run in others if run["round"] in by_round]


def effect(runs, kind, what, seed):
    """Geometric mean of kind / plain over all pairs, with its 95 % interval; resampled within each workload."""
    groups = []
    for name in dict.fromkeys(run["workload"] for run in runs):
        of = [run for run in runs if run["workload"] == name and not run["own"]]
        pairs = pairs_of([r for r in of if r["kind"] == "plain"], [r for r in of if r["kind"] == kind])
        if pairs:
            groups.append([math.log(run[what] / partner[what]) for run, partner in pairs])
    count = sum(len(group) for group in groups)
    if count < FEWEST_ROUNDS:
        raise NotMeasured(f"only {count} pairs were measured; {FEWEST_ROUNDS} are needed")
    chance = random.Random(seed)

    def drawn():
        return sum(sum(chance.choices(group, k=len(group))) for group in groups) / count

    means = sorted(drawn() for _ in range(RESAMPLES))
    middle = sum(sum(group) for group in groups) / count
    low, high = means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975) - 1]
    return {"ratio": math.exp(middle), "low": math.exp(low), "high": math.exp(high), "pairs": count}


def later(runs, kind, seed):
    """By how many ms Create and Start are answered later than in the plain run of the round: the median with its 95 %
    interval."""
    plain = [run for run in runs if run["kind"] == "plain"]
    others = [run for run in runs if run["kind"] == kind]
    differences = []
    for name in dict.fromkeys(run["workload"] for run in runs):
        pairs = pairs_of(*([run for run in of if run["workload"] == name] for of in (plain, others)))
        differences += [1000 * (run["made"] - partner["made"]) for run, partner in pairs]
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    low, high = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]
    return {"value": statistics.median(differences), "low": low, "high": high, "pairs": len(differences)}


def worst_but_one_percent(seconds):
    """In ms."""
    return 1000 * sorted(seconds)[math.ceil(len(seconds) * 0.99) - 1]


GROUPS = {
    # Those that are started for one request; what is kept alive waits most of the time.
    "over 0.8 s and 100 MB": lambda row: row["peak"] > BIG and row["seconds"] > LONG_S and not row["asked"],
    "kept alive": lambda row: row["asked"],
    "over 100 MB": lambda row: row["peak"] > BIG,
    "small": lambda row: row["peak"] <= BIG,
}


def means(rows, ways):
    """Geometric means of granted / used, for each group of workloads that has one."""
    result = {}
    for group, belongs in GROUPS.items():
        of = [row for row in rows if belongs(row)]
        if of:
            result[group] = {way: geometric_mean(row["ratio"][way] for row in of) for way in ways if way in of[0]["ratio"]}
            result[group]["count"] = len(of)
    return result


def harm_table(runs):
    """How many runs of each kind there are, and how many have suffered what."""
    result = {}
    for kind in dict.fromkeys(run["kind"] for run in runs):
        of = [run for run in runs if run["kind"] == kind]
        result[kind] = {"runs": len(of)}
        for what in ("kill", "hang", "failed call", "output", "stall"):
            result[kind][what] = sum(what in run["harm"] for run in of)
    return result


def exact(text, value, limit):
    return measure.verdict(text, value, value, value, limit)


def harm_verdicts(harm, of):
    kinds = [kind for kind in harm if kind != "plain"]
    runs = sum(harm[kind]["runs"] for kind in kinds)
    names = {"kill": "kills", "hang": "hangs", "failed call": "failed system calls", "output": "other outputs", "stall": "stalls"}
    return [exact(f"{names[what]} in {runs} {of} <= 0", sum(harm[kind][what] for kind in kinds), 0) for what in names]


def room(row):
    """What has to be free above usage if no limit is to be met: the pad, or what the function grows by at once."""
    return max(PAD, MORE * row["at_once"]) + STOCK  # what is charged in stocks is not used yet


def verdicts(rows, result):
    goals = harm_verdicts(result["harm"], "tuned runs")
    limits = {"over 0.8 s and 100 MB": GOAL_BIG_AND_LONG, "over 100 MB": GOAL_BIG}
    for group, limit in limits.items():
        if group in result["means"]:
            goals.append(exact(f"granted / used, {group} <= {limit:.2f}", result["means"][group]["elastic"], limit))
    small = [row for row in rows if GROUPS["small"](row)]
    if small:
        worst = max(row["distance"]["elastic"] - room(row) for row in small) / MIB
        goals.append(exact("distance of the grant from usage, of a small function: MiB above its pad or what it grows by at once <= 0", worst, 0))
        if "static" in small[0]["ratio"]:
            worst = max(row["ratio"]["elastic"] / row["ratio"]["static"] for row in small)
            goals.append(exact("granted by elastic / by static, of a small function <= 1", worst, 1))
    goals.append(exact(f"difference to another reader of the limits <= {GOAL_SEEN}", result["seen"], GOAL_SEEN))
    high = result["effect"]["elastic"]["cpu"]["high"]
    pairs = result["effect"]["elastic"]["cpu"]["pairs"]
    goals.append(exact(f"upper bound of CPU, elastic / plain, {pairs} pairs <= {GOAL_CPU:.2f}", high, GOAL_CPU))
    made = result["made"]["elastic"]
    text = f"Create and Start, elastic - plain, ms <= {GOAL_MADE_MS:.0f}"
    goals.append(measure.verdict(text, made["value"], made["low"], made["high"], GOAL_MADE_MS))
    goals.append(exact(f"a write that raises the limit, ms <= {GOAL_RAISE_MS:.0f}", result["raise"], GOAL_RAISE_MS))
    return goals


def print_table(rows, ways):
    print(f"{'':<18}{'runs':>5}{'s':>7}{'MiB':>7}{'GiB-s':>8}  granted / used{'':{8 * len(ways) - 14}}{'elastic / plain':>17}")
    print(f"{'function':<18}{'':>5}{'':>7}{'peak':>7}{'used':>8}  {''.join(f'{way:>8}' for way in ways)}{'CPU':>9}{'wall':>8}")
    for row in rows:
        cells = "".join(f"{row['ratio'][way]:>8.2f}" if way in row["ratio"] else f"{'-':>8}" for way in ways)
        effects = "".join(f"{row[what]['elastic']:>8.3f}" if "elastic" in row[what] else f"{'-':>8}" for what in ("cpu", "wall"))
        print(
            f"{row['workload']:<18}{row['runs']:>5}{row['seconds']:>7.2f}{row['peak'] / MIB:>7.0f}{row['used'] / GIB:>8.4f}  {cells} {effects}"
        )


def print_means(groups, ways):
    for group, values in groups.items():
        name = f"{group} ({values['count']})"
        print(f"{name:<47}{''.join(f'{values[way]:>8.2f}' if way in values else f'{chr(45):>8}' for way in ways)}")


def print_harm(harm):
    print(f"{'kind':<12}{'runs':>6}{'kills':>7}{'hangs':>7}{'failed calls':>14}{'output':>8}{'stalls':>8}")
    for kind, row in harm.items():
        print(f"{kind:<12}{row['runs']:>6}{row['kill']:>7}{row['hang']:>7}{row['failed call']:>14}{row['output']:>8}{row['stall']:>8}")
