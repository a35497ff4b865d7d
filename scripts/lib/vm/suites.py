"""Which tests run in which guests."""

import dataclasses
import json
import re
import shlex
import subprocess
import time

from . import session
from .image import say
from .machine import BROKEN, Options

# An emulated processor takes ten times as long, and a busy host makes it more.
PATIENCE = 6

# The fetched engines that the tests below run; see scripts/engines.
ENGINES = ("containerd-1.7", "containerd-2.1", "docker-28")


@dataclasses.dataclass(frozen=True)
class Group:
    """Tests of one test binary, chosen by parts of their names."""

    binary: str
    filters: tuple = ()
    skips: tuple = ()


@dataclasses.dataclass(frozen=True)
class Stop:
    """One guest and the tests in it."""

    options: Options
    groups: tuple
    # For a host that does other work beside: ten times as long as on a quiet one.
    timeout: float = 2400


# What any guest can be asked, whatever its memory is like.
CGROUPS = Group("system", ("cgroup2::", "devices::", "grants::", "lever::", "top::"))

# Verbs whose work is another with cgroup v2. Tests of what only v1 has would skip.
VERBS = Group(
    "integration",
    ("limits::", "update::", "pause::", "listing::statistics", "listing::ps", "devices::an_allowed", "kill::", "exec::exec", "control::a_container_that_is_bound"),
    (
        "a_swappiness_above_one_hundred",
        "the_oom_killer_can_be_disabled",
        "memory_below_the_usage",
    ),
)
FEW_VERBS = Group(
    "integration",
    ("limits::the_memory_limit", "limits::a_process_above", "limits::cpu_shares", "update::several", "pause::a_paused",
     "listing::statistics_have", "control::a_container_that_is_bound"),
)  # fmt: skip

NODES = Group("system", ("nodes::", "tiers::"))
# What takes a node that can go offline as a whole.
WHOLE_NODE = "faults::a_node_that"
PLACEMENT = Group("system", ("placement::", "life::", "adaptive::", "faults::"), (WHOLE_NODE,))
DIMM = Group("system", (WHOLE_NODE, "faults::memory_that", "placement::the_split"))
# Those that do not wait for pages to be moved.
FEW_PLACEMENT = Group("system", ("placement::i7_weights_are", "placement::an_exec"))
# One test of each kind of trouble, and of what a phase must not do: those that take seconds.
FEW_FAULTS = Group(
    "system",
    ("faults::damon", "faults::memory_that", "life::a_container_that_is", "life::a_killed_monitor"),
)
# A program may have data in the memory of a CXL device, but not its code: each instruction there costs microseconds.
CXL = Group("system", ("tiers::", "nodes::a_node_that", "placement::a_few_megabytes"))
SYSTEMD = Group("system", ("systemd::", "devices::rules_hold"))

# TaskOOM and Stats of the shim. A client of containerd takes seconds there, one of Docker ten.
SHIM = ("an_out_of_memory_kill", "metrics_have")
# Its limit is moved, and containerd acts on it.
GRANTS = ("a_container_has_its_ceiling", "i3_a_shim_that")
MORE_SHIM = SHIM + GRANTS + ("a_limit_holds", "hello", "exec_codes", "pause_and_resume")
DOCKER = Group("engines", ("docker_28::limits", "docker_28::the_out_of_memory", "docker_28::a_container_is_granted"))
# Where a container of theirs has its memory.
PLACED = ("a_container_has_the_ratio",)
PLACED_BY_DOCKER = Group("engines", ("docker_28::a_container_of_docker_has_the_ratio",))
MORE_DOCKER = Group(
    "engines", tuple(f"docker_28::{name}" for name in ("run_and_its", "stats", "update_of", "limits", "pause_and", "a_container_is_granted"))
)


def containerd(version, names):
    """Tests below one containerd."""
    return Group("engines", tuple(f"containerd_{version}::{name}" for name in names))


CI = (
    Stop(Options("6.12", "hmat"), (CGROUPS, NODES, containerd("1_7", SHIM + GRANTS + PLACED))),
    Stop(Options("7", "hmat"), (NODES, FEW_PLACEMENT, FEW_FAULTS, containerd("2_1", SHIM))),
    Stop(Options("7", "one", systemd=True), (SYSTEMD, DOCKER)),
)
FULL = CI + (
    Stop(Options("6.12", "one"), (VERBS, containerd("1_7", MORE_SHIM)), 3600),
    Stop(Options("6.12", "one", systemd=True), (SYSTEMD, containerd("2_1", MORE_SHIM)), 3600),
    Stop(Options("7", "one"), (CGROUPS, VERBS, MORE_DOCKER), 3600),
    Stop(Options("6.12", "flat"), (Group("system", ("nodes::",)),)),
    Stop(Options("6.12", "hmat"), (PLACEMENT, containerd("1_7", PLACED)), 3600),
    Stop(Options("7", "hmat"), (PLACEMENT, containerd("2_1", PLACED), PLACED_BY_DOCKER), 3600),
    Stop(Options("7", "three"), (NODES, PLACEMENT)),
    Stop(Options("7", "four"), (NODES,)),
    Stop(Options("6.12", "dimm"), (DIMM,)),
    Stop(Options("7", "dimm"), (DIMM,)),
    Stop(Options("6.12", "cxl"), (CXL,)),
    Stop(Options("7", "cxl"), (CXL,)),
    Stop(Options("6.12", "one", swap=512), (Group("system", ("swap::reclaim", "swap::a_container")),)),
    Stop(Options("7", "one", swap=512, zswap=True), (Group("system", ("swap::",)),)),
)

SUITES = {"ci": CI, "full": FULL}


def groups_for(options):
    """The tests that are meant for such a guest."""
    for stops in SUITES.values():
        for stop in stops:
            if stop.options == options:
                return stop.groups
    return (CGROUPS,)


def groups_of(words):
    """Groups as the command line names them: SUITE or SUITE:FILTER."""
    found = {}
    for word in words:
        binary, _, wanted = word.partition(":")
        found.setdefault(binary, []).append(wanted)
    return [Group(binary, tuple(filters if all(filters) else ())) for binary, filters in found.items()]


def executables(names):
    """Builds test binaries; where they are."""
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json"]
    for name in names:
        command += ["--test", name]
    done = subprocess.run(command, cwd=session.PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise OSError("the tests cannot be built")
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["kind"] == ["test"]:
            found[message["target"]["name"]] = message["executable"]
    return found


def engines_of(groups):
    """The engines that the chosen tests run; all of them if the choice does not tell."""
    found = set()
    for group in (group for group in groups if group.binary == "engines"):
        words = " ".join(group.filters)
        named = {name for name in ENGINES if re.sub("[-.]", "_", name) in words}
        found |= named or set(ENGINES)
    if "docker-28" in found:
        found.add("containerd-2.1")
    return sorted(found)


def script_of(groups, programs):
    """Runs the groups one after the other, all of them, and ends with the closing line of each."""
    lines = [
        f"export ELASTIC_MEM_PATIENCE={PATIENCE} ELASTIC_MEM_MAX_SKIPS=0 RUST_BACKTRACE=0",
        "status=0",
        ": >/run/closing-lines",
        "mkdir -p /var/lib/tests",
    ]
    # Copies, for the reason of the command's.
    for binary in sorted({group.binary for group in groups}):
        lines.append(f"cp {shlex.quote(programs[binary])} /var/lib/tests/{binary}")
    engines = engines_of(groups)
    if engines:
        lines.append("export ELASTIC_MEM_ENGINES=/var/lib/engines; mkdir -p $ELASTIC_MEM_ENGINES")
    lines += [f"cp -a target/engines/{name} $ELASTIC_MEM_ENGINES/ || exit 125" for name in engines]
    for number, group in enumerate(groups):
        words = [f"/var/lib/tests/{group.binary}", "--test-threads=2", *group.filters]
        if group.binary == "engines":
            # What most hosts lack is ignored, so that it is not skipped there.
            words.append("--include-ignored")
        for skip in group.skips:
            words += ["--skip", skip]
        lines.append(f"echo '== {group.binary} {' '.join(group.filters)}'")
        # The status of a pipe is that of its end: the tests leave theirs in a file.
        lines.append(
            f"{{ {shlex.join(words)} 2>&1; echo $? >/run/status-{number}; }} | tee /run/output-{number}\n"
            f"read result </run/status-{number}; [ \"$result\" = 0 ] || status=1\n"
            f"closing=$(grep '^test result:' /run/output-{number}) || {{ closing='no result'; status=1; }}\n"
            # A filter that matches nothing tests nothing.
            f"case $closing in *': ok. 0 passed'*) closing=\"$closing (no such test)\"; status=1 ;; esac\n"
            f"echo \"{group.binary}: $closing\" >>/run/closing-lines"
        )
    lines += ["echo; cat /run/closing-lines", "exit $status"]
    return "\n".join(lines)


def run_tests(image, options, words, timeout, cold):
    """Runs tests in one guest; 0 if all passed."""
    groups = groups_of(words) if words else groups_for(options)
    programs = executables(sorted({group.binary for group in groups}))
    return session.run_script(image, options, script_of(groups, programs), timeout, cold)


def run_suite(image, name):
    """Runs every stop of a suite, also after one has failed, and says how each ended."""
    stops = SUITES[name]
    programs = executables(sorted({group.binary for stop in stops for group in stop.groups}))
    ends = []
    for stop in stops:
        print(f"\n=== {stop.options.name()}", flush=True)
        began = time.monotonic()
        script = script_of(stop.groups, programs)
        status = session.run_script(image, stop.options, script, stop.timeout, cold=True)
        if status == BROKEN:
            # QEMU crashes now and then when it emulates a CXL device. A guest that breaks twice is a failure.
            say(f"RETRY {stop.options.name()}: the guest broke, not a test")
            status = session.run_script(image, stop.options, script, stop.timeout, cold=True)
        ends.append((stop.options.name(), status, time.monotonic() - began))
    for guest, status, seconds in ends:
        say(f"{guest}: {'ok' if status == 0 else f'FAILED (status {status})'} ({seconds:.0f} s)")
    failed = [status for _, status, _ in ends if status]
    return max(failed, default=0)
