"""What all benchmarks share: children and their CPU time, statistics, goals, and how a program ends."""

import contextlib
import ctypes
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.path.join(ROOT, "target", "bench")

FEWEST_ROUNDS = 5
PATIENCE_S = 30  # for one command
RESAMPLES = 2000

OURS, PEER = "ours", "peer"  # the roles of the two that are compared


class NotMeasured(Exception):
    """The benchmark has no result; the text says why."""


class Interrupted(BaseException):
    def __init__(self, number):
        super().__init__(number)
        self.number = number


# Children: everything that is started ends as a child of this process, and is counted when it ends


def become_subreaper():
    """Orphans below this process become its children: helpers left behind, and the containers' init."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise NotMeasured(f"cannot become a subreaper: {os.strerror(ctypes.get_errno())}")


class Children:
    """Starts commands, reaps every child that ends, and adds up the CPU time of all of them."""

    def __init__(self, log_path):
        self.log_path = log_path
        self.ended = {}  # pid -> (status, CPU seconds)
        self.cpu = 0.0
        self._alarm = False
        signal.signal(signal.SIGALRM, self._on_alarm)

    def _on_alarm(self, _number, _frame):
        self._alarm = True
        raise InterruptedError

    def begin(self):
        """Begins a new measurement."""
        self.ended.clear()
        self.cpu = 0.0
        os.truncate(self.log_path, 0)

    def run(self, argv, env=None, patience=PATIENCE_S):
        """Runs a command to its end; returns (wall, CPU) seconds of the command and what it waited for."""
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        begin = time.perf_counter()
        pid = os.posix_spawn(
            argv[0],
            argv,
            os.environ if env is None else env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, self.log_path, log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # A process group of its own: Ctrl-C ends the benchmark, which then cleans up.
            setpgroup=0,
            # This program ignores or handles what a runtime must find at its default.
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )
        status, cpu = self.wait(pid, " ".join(argv), patience)
        wall = time.perf_counter() - begin
        if status != 0:
            raise NotMeasured(f"{' '.join(argv)} ended with status {status}{self.log()}")
        return wall, cpu

    def wait(self, pid, what, patience=PATIENCE_S):
        """Reaps children until `pid` has ended; returns its (status, CPU seconds)."""
        self._alarm = False
        signal.setitimer(signal.ITIMER_REAL, patience, 1)
        try:
            while pid not in self.ended:
                self._reap(0)
        except InterruptedError:
            raise NotMeasured(f"{what}: not ended after {patience} s{self.log()}") from None
        except ChildProcessError:
            raise NotMeasured(f"{what}: process {pid} did not become a child of the benchmark") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.ended[pid]

    def drain(self, patience=2.0, keep=frozenset()):
        """Reaps what is still running, such as a monitor of the container that has just been deleted.

        Children in `keep` may go on running.
        """
        deadline = time.monotonic() + patience
        while set(self.pids()) - keep:
            try:
                if not self._reap(os.WNOHANG):
                    if time.monotonic() > deadline:
                        raise NotMeasured(f"processes are left: {sorted(set(self.pids()) - keep)}")
                    time.sleep(0.0005)
            except ChildProcessError:
                return

    def _reap(self, flags):
        pid, status, usage = os.wait4(-1, flags)
        if pid == 0:
            return False
        cpu = usage.ru_utime + usage.ru_stime
        self.ended[pid] = (os.waitstatus_to_exitcode(status), cpu)
        self.cpu += cpu
        return True

    def pids(self):
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def kill_all(self):
        """Ends every child, and the children that these leave, which are then ours."""
        for _ in range(100):
            try:
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                while self._reap(os.WNOHANG):
                    pass
            except ChildProcessError:
                return
            except OSError:
                return
            time.sleep(0.02)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            lines = file.read().strip().splitlines()[-8:]
        return "".join(f"\n  {line}" for line in lines)


def find_busybox():
    for name in ("/bin/busybox", "/usr/bin/busybox", shutil.which("busybox")):
        if name and os.path.exists(name):
            return name
    raise NotMeasured("there is no busybox; run scripts/setup bench")


# Statistics


def pair_order(seed, round_number, groups):
    """The order of one round: groups at random, and the two roles of a group one after the other.

    Which of the two comes first alternates from round to round, so that neither gains from its place.
    """
    chance = random.Random(f"{seed}/{round_number}")
    groups = list(groups)
    chance.shuffle(groups)
    result = []
    for group in groups:
        first = (round_number + random.Random(f"{seed}/{group}").randrange(2)) % 2
        pair = (OURS, PEER) if first == 0 else (PEER, OURS)
        result += [(group, role) for role in pair]
    return result


def ratio_of_medians(ours, theirs, seed):
    """Ratio of medians with a 95 % bootstrap interval; rounds are resampled, since they are pairs."""
    rounds = sorted(ours.keys() & theirs.keys())
    if len(rounds) < FEWEST_ROUNDS:
        raise NotMeasured(f"only {len(rounds)} rounds were measured; {FEWEST_ROUNDS} are needed")
    pairs = [(ours[number], theirs[number]) for number in rounds]

    def ratio(chosen):
        return statistics.median(a for a, _ in chosen) / statistics.median(b for _, b in chosen)

    chance = random.Random(seed)
    resampled = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return ratio(pairs), resampled[int(RESAMPLES * 0.025)], resampled[int(RESAMPLES * 0.975) - 1]


def median_interval(values, seed):
    """Median with a 95 % bootstrap interval."""
    if len(values) < FEWEST_ROUNDS:
        raise NotMeasured(f"only {len(values)} values were measured; {FEWEST_ROUNDS} are needed")
    chance = random.Random(seed)
    resampled = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return statistics.median(values), resampled[int(RESAMPLES * 0.025)], resampled[int(RESAMPLES * 0.975) - 1]


def slope(values):
    """Growth per step: the line of least squares through the values."""
    middle, mean = (len(values) - 1) / 2, statistics.fmean(values)
    over = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return over / sum((at - middle) ** 2 for at in range(len(values)))


def slope_interval(values, seed, block=5):
    """Growth per step with a 95 % interval: bootstrap of blocks of residuals, since neighbours are alike."""
    if len(values) < 4 * block:
        raise NotMeasured(f"only {len(values)} values for a slope; {4 * block} are needed")
    found = slope(values)
    middle, mean = (len(values) - 1) / 2, statistics.fmean(values)
    line = [mean + found * (at - middle) for at in range(len(values))]
    residuals = [value - fitted for value, fitted in zip(values, line)]
    chance = random.Random(seed)

    def resampled():
        drawn = []
        while len(drawn) < len(values):
            begin = chance.randrange(len(values) - block + 1)
            drawn += residuals[begin : begin + block]
        return slope([fitted + residual for fitted, residual in zip(line, drawn)])

    slopes = sorted(resampled() for _ in range(RESAMPLES // 2))
    return found, slopes[int(len(slopes) * 0.025)], slopes[int(len(slopes) * 0.975) - 1]


def spread(values):
    """Interquartile range."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


# The host, files, progress


def ticks():
    """Time of all processors since the host was started, and what of it was stolen: given to others (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        times = [int(word) for word in file.readline().split()[1:9]]
    return sum(times), times[7]


def host_facts():
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "ticks": ticks(),
        "cgroup": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
    }


def conditions(facts):
    """How the host was while something was measured, in words; `facts` are from before, and get the share that was stolen."""
    (all_before, stolen_before), (all_after, stolen_after) = facts["ticks"], ticks()
    facts["steal"] = (stolen_after - stolen_before) / max(all_after - all_before, 1)
    return (
        f"kernel {facts['kernel']}, {facts['cpus']} CPUs, load {facts['load']:.1f} before and {os.getloadavg()[0]:.1f} after, "
        f"steal {facts['steal']:.1%}, cgroup {facts['cgroup']}"
    )


def short(path):
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def check_writable(path):
    """A file that cannot be written is found now, not after the measurement."""
    existed = os.path.exists(path)
    with open(path, "a", encoding="utf-8"):
        pass
    if not existed:
        os.unlink(path)


def show_progress(number, rounds, what=""):
    if sys.stderr.isatty():
        text = f"{what}round {number} of {rounds}" if number < rounds else ""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# Goals


def verdict(text, value, low, high, limit):
    """A goal with what came of it: `certain` unless the interval holds the goal."""
    met = value <= limit
    certain = high <= limit if met else low > limit
    return {"goal": text, "value": value, "met": met, "certain": certain}


def print_goals(goals):
    for goal in goals:
        doubt = "" if goal["certain"] else "  (not certain: the interval holds the goal)"
        print(f"goal: {goal['goal']}: {goal['value']:.2f} {'met' if goal['met'] else 'MISSED'}{doubt}")


def exit_status(goals, check):
    return 1 if check and any(not goal["met"] for goal in goals) else 0


# The program


def add_options(parser, quick, rounds):
    """The options that every benchmark knows."""
    parser.add_argument("--quick", action="store_true", help=f"{quick}, ends within a minute")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"number of rounds (default {rounds})")
    parser.add_argument("--json", metavar="FILE", help="write all samples and results to a file")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order and of the intervals (default 1)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")


EXIT_STATUS = "Exit status: 0 measured, 1 a goal is missed and --check was given, 2 not measured."


def main(name, options, run, cleaned):
    """Runs `run(options, begin)`; returns the exit status. On a signal `run` cleans up and says what."""
    begin = time.monotonic()

    def interrupt(number, _frame):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be interrupted
        raise Interrupted(number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
    try:
        return run(options, begin)
    except (NotMeasured, OSError) as error:
        print(f"\n{name}: not measured: {error}", file=sys.stderr)
        return 2
    except Interrupted as end:
        print(f"\n{name}: interrupted; {cleaned} are removed", file=sys.stderr)
        return 128 + end.number
