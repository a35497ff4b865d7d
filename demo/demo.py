"""The demo: real functions below a containerd of its own, first observed, then with memory that follows their need."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it quietly until there is something to clean up

import argparse
import dataclasses
import glob
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts", "lib"))

import table
import curves
from cgroups import hierarchy_of
from fetched import (
    PHOTOGRAPHS_FOLDER,
    PHOTOGRAPHS_PACKAGE,
    PILLOW,
    PYTHON,
    FetchFailed,
    cached,
    from_debian,
    from_pip,
    locked,
    python_version,
    write_atomically,
)
from image import Layer, write_image
from private_containerd import ContainerdFailed, PrivateContainerd, find_containerd, shim_name, sweep

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, "target", "demo")
RUNS = os.path.join(WORK, "runs")
BINARY = os.path.join(ROOT, "target", "release", "elastic-mem")

PHOTOGRAPHS = (  # 1.5, 8.0, 15.9, 6.3 and 10.7 megapixels
    "Picture_1A_by_freespace.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
    "life_by_Aitzol_Berasategi.jpg",
    "Bridge_by_Sander_Klootwijk.jpg",
)

PATIENCE_S = 120  # for one invocation, which takes 1 to 2 s on an idle machine
TRACE_PATIENCE_S = 10  # for the trace of a run to be where traces are kept

OBSERVED = 3  # runs that the plan of the next one is made from
ELASTIC = 3

PREFIX = "elastic-mem-demo"
RUNTIME = "io.containerd.elastic-mem.v1"
IMAGE = "localhost/functions:latest"


@dataclasses.dataclass(frozen=True)
class Function:
    name: str
    about: str
    arguments: tuple = ()


FUNCTIONS = (
    Function(
        "scale",
        "decodes five photographs in full, halves them (Lanczos), writes JPEG",
        ("/output", *(f"/photographs/{name}" for name in PHOTOGRAPHS)),
    ),
    Function("stages", "reads 120,000 orders, sums them up, ranks the customers"),
    Function("compress", "packs 28 MiB of source text quickly, then 2 MiB of it well"),
)


class Failure(Exception):
    """Something that the user can act on; its text is all that is shown."""


class Interrupted(BaseException):
    """A signal asked the demo to end."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def short(path):
    """A path as the user would type it here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def mib(size):
    return f"{size / curves.MIB:.1f} MiB"


class Steps:
    def __init__(self):
        self.number = 0

    def __call__(self, text):
        self.number += 1
        print(f"\n{self.number}. {text}", flush=True)

    @staticmethod
    def note(text):
        print(f"   {text}", flush=True)


# Set-up: what is fetched is kept in target/demo, with a manifest that shows whether it is whole


def fetch_photographs(say):
    def fetch(folder):
        say("downloading the package (about 16 MB) and unpacking it, without installing it")
        from_debian(PHOTOGRAPHS_PACKAGE, folder, "demo", PHOTOGRAPHS, PHOTOGRAPHS_FOLDER)

    return cached(WORK, "photographs", [PHOTOGRAPHS_PACKAGE, *PHOTOGRAPHS], say, fetch)


def fetch_pillow(say):
    version = python_version()

    def fetch(folder):
        say(f"installing pillow {PILLOW} for {version} into a folder of its own (about 7 MB)")
        from_pip([f"pillow=={PILLOW}"], folder, "--no-deps")

    return cached(WORK, "packages", [PILLOW, version], say, fetch)


# The image and its mounts


def system_folders():
    """The host's system folders: links of the merged /usr, and folders from before the merge."""
    links, folders = {}, ["/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        host = f"/{name}"
        if os.path.islink(host):
            links[name] = os.readlink(host)
        elif os.path.isdir(host):
            folders.append(host)
    return links, folders


def build_image(path, packages):
    """The functions and a library. Python comes from the host's /usr, which is mounted."""
    layer = Layer()
    layer.text("etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
    layer.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    links, folders = system_folders()
    for name, target in links.items():
        layer.link(name, target)
    for name in (*folders, "dev", "output", "photographs", "proc", "run", "sys", "tmp"):
        layer.folder(name)
    layer.tree("functions", os.path.join(ROOT, "demo", "functions"))
    layer.tree("packages", packages)
    config = {
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "PYTHONPATH=/packages",
            "PYTHONDONTWRITEBYTECODE=1",
        ],
        "Entrypoint": [PYTHON],
    }
    write_image(path, IMAGE, layer, config)
    return os.path.getsize(path)


def mount_options(photographs, output):
    """What `ctr run` is told to mount besides the image."""
    mounts = [("bind", folder, folder, "rbind:ro:nosuid:nodev") for folder in system_folders()[1]]
    mounts += [
        ("bind", photographs, "/photographs", "rbind:ro:nosuid:nodev"),
        ("bind", output, "/output", "rbind:rw:nosuid:nodev"),
        ("tmpfs", "tmpfs", "/tmp", "nosuid:nodev:mode=1777:size=65536k"),
    ]
    for kind, source, target, options in mounts:
        # ctr reads it as a line of CSV, so a comma in a path needs quotes.
        quoted = source.replace('"', '""')
        yield from ("--mount", f'type={kind},"src={quoted}",dst={target},options={options}')


# Runs: each has a containerd of its own below target/demo/runs


class Run:
    def __init__(self, programs):
        self.containerd = PrivateContainerd(RUNS, PREFIX, programs)
        self.output = os.path.join(self.containerd.folder, "output")
        os.mkdir(self.output)
        self.profiles = os.path.join(self.containerd.folder, "profiles")
        os.symlink(BINARY, os.path.join(self.containerd.bin, shim_name(RUNTIME)))

    def import_image(self, packages):
        """Returns the size of the image."""
        path = os.path.join(self.containerd.folder, "image.tar")
        size = build_image(path, packages)
        self.snapshotter = self.containerd.snapshotter()
        self.containerd.call("image", "import", "--snapshotter", self.snapshotter, path)
        return size

    def choose(self, mode):
        """Has containers that start from now on treated so."""
        folder = json.dumps(self.profiles)
        write_atomically(
            self.containerd.settings,
            lambda file: file.write(f'profile.folder = {folder}\nmemory.mode = "{mode}"\n'),
        )

    def options(self, function, limit):
        """The options of `ctr run` that a reader wants to see."""
        variable = f"ELASTIC_MEM_FUNCTION={function.name}"
        return ["--rm", "--read-only", "--runtime", RUNTIME, "--memory-limit", str(limit), "--env", variable]

    def execute(self, function, limit, photographs):
        """Runs a function once; returns (exit status, output, errors)."""
        containerd = self.containerd
        argv = containerd.ctr(
            "run",
            *self.options(function, limit),
            *("--cgroup", f"{containerd.group.path}/containers/{function.name}", "--snapshotter", self.snapshotter),
            *("--fifo-dir", os.path.join(containerd.folder, "fifo")),
            *mount_options(photographs, self.output),
            *(IMAGE, function.name, PYTHON, f"/functions/{function.name}/handler.py", *function.arguments),
        )
        try:
            # A session of its own: Ctrl-C is answered by this program alone, which then ends everything.
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=PATIENCE_S,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{function.name} did not end within {PATIENCE_S} s") from None
        return done.returncode, *(text.decode(errors="replace").strip() for text in (done.stdout, done.stderr))

    def traces(self):
        """Those that elastic-mem has kept, the oldest first."""
        found = glob.glob(os.path.join(self.profiles, "functions", "*", "traces", "*.csv"))
        return sorted(found, key=os.path.basename)

    def wait_for_trace(self, known):
        """The trace of a run that has just ended: the next one is planned from what is known."""
        deadline = time.monotonic() + TRACE_PATIENCE_S
        while True:
            new = sorted(set(self.traces()) - set(known))
            if new:
                return new[0]
            if time.monotonic() > deadline:
                raise Failure("elastic-mem has kept no trace of a run")
            time.sleep(0.02)

    def remove(self):
        self.containerd.remove()


# The demo itself


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="demo/run", description="Runs real functions, first observed, then with memory that follows their need."
    )
    parser.add_argument("--limit", type=int, default=512, metavar="MIB", help="the declared memory limit (default 512)")
    parser.add_argument("--containerd", metavar="FOLDER", help="folder of containerd and ctr (default: from PATH)")
    options = parser.parse_args(argv)
    if not 16 <= options.limit <= 1 << 20:
        parser.error("--limit: give 16 to 1048576 MiB")
    return options


def invoke(run, function, limit, photographs, right):
    """One invocation; `right` is the answer that it is to give, None if nobody knows yet. Returns (run, answer)."""
    known = run.traces()
    status, output, errors = run.execute(function, limit, photographs)
    answer, failure = None, None
    try:
        answer = {key: value for key, value in json.loads(output).items() if key != "duration_ms"}
    except (ValueError, AttributeError):
        failure = f"the function did not answer with JSON but with {output[:200]!r}"
    path = run.wait_for_trace(known)
    try:
        with open(path, encoding="utf-8") as file:
            figures = curves.figures(file.read(), limit)
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None
    if status != 0:
        failure = "\n".join([f"it ended with status {status}", *errors.splitlines()[-12:]])
        if figures.peak > 0.95 * limit:
            failure = f"{limit // curves.MIB} MiB are too little for this function: {failure}"
    elif failure is None and right is not None and answer != right:
        failure = f"it answered {answer} in place of {right}"
    return table.Run(figures, failure), answer


def rounds(run, step, count, limit, photographs, answers):
    """Runs each function so often, in turns; the runs by function."""
    result = {function.name: [] for function in FUNCTIONS}
    for _ in range(count):
        for function in FUNCTIONS:
            one, answer = invoke(run, function, limit, photographs, answers.get(function.name))
            if function.name not in answers and one.failure:
                raise Failure(f"{function.name}: {one.failure}")
            answers.setdefault(function.name, answer)
            result[function.name].append(one)
    for function in FUNCTIONS:
        runs = result[function.name]
        each = ", ".join(f"{one.figures.duration_s:.2f} s" for one in runs)
        step.note(f"{function.name}: peak {mib(max(one.figures.peak for one in runs))}; {each}")
        for one in runs:
            if one.failure:
                step.note(f"{function.name} failed: {one.failure}")
    return result


def plot(trace, title, *options):
    """Draws a run, on our terminal if there is one and nothing else is said."""
    sys.stdout.flush()
    argv = [BINARY, "plot", "run", "--title", title, *options, trace]
    status = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise Failure(f"{' '.join(argv)} ended with status {status}")


def keep(run, step):
    """The last run of each function as a picture and as a trace, below target/demo."""
    last = {}
    for path in run.traces():
        last[os.path.basename(os.path.dirname(os.path.dirname(path)))] = path
    written = []
    for function in FUNCTIONS:
        # Folders are named after the function, with its namespaces before it.
        path = next((path for name, path in last.items() if name.endswith(function.name)), None)
        if path is None:
            raise Failure(f"there is no trace of {function.name}")
        kept = os.path.join(WORK, f"{function.name}.csv")
        shutil.copyfile(path, f"{kept}.{os.getpid()}")
        os.replace(f"{kept}.{os.getpid()}", kept)
        picture = os.path.join(WORK, f"{function.name}.svg")
        plot(kept, f"{function.name}: what it was granted, and what it used", "--output", picture)
        written += [short(picture), short(kept)]
    plot(os.path.join(WORK, f"{FUNCTIONS[0].name}.csv"), FUNCTIONS[0].name, "--terminal")
    print()
    step.note(f"written: {', '.join(written)}, {short(os.path.join(WORK, 'output'))}/")


def demo(options):
    if os.geteuid() != 0:
        raise Failure("containers need root; run this as root")
    programs = find_containerd(options.containerd)
    if not os.path.exists(BINARY):
        raise Failure(f"{short(BINARY)} does not exist; run make build first")
    hierarchy = hierarchy_of("memory")
    if hierarchy is None:
        raise Failure("no cgroup hierarchy with the memory controller is mounted")
    os.makedirs(RUNS, exist_ok=True)
    step = Steps()
    print("Real functions, the memory that they are granted, and what they use of it.")

    with locked(os.path.join(WORK, "lock"), step.note, "demo"):
        sweep(RUNS, PREFIX, step.note)
        step(f"Photographs: {len(PHOTOGRAPHS)} of Debian's package {PHOTOGRAPHS_PACKAGE}")
        photographs = fetch_photographs(step.note)
        step(f"Library: pillow {PILLOW}")
        packages = fetch_pillow(step.note)
        run = Run(programs)

    try:
        limit = options.limit * curves.MIB
        step("containerd: one of its own, with root, state and sockets below target/demo")
        run.containerd.start()
        step.note(f"{run.containerd.version_line()} ({programs}), cgroup v{hierarchy[0]}")

        step(f"Image {IMAGE}: {len(FUNCTIONS)} functions of demo/functions, and pillow")
        step.note(f"{mib(run.import_image(packages))}, imported with ctr image import")
        for function in FUNCTIONS:
            step.note(f"{function.name} {function.about}")

        answers = {}
        step(f'Observed: {OBSERVED} runs of each, memory.mode = "observe"')
        run.choose("observe")
        step.note(" ".join(["ctr run", *run.options(FUNCTIONS[0], limit), "...", IMAGE, FUNCTIONS[0].name]))
        observed = rounds(run, step, OBSERVED, limit, photographs, answers)
        step(f'Elastic: {ELASTIC} more of each, memory.mode = "elastic"; their plan comes from the runs before')
        run.choose("elastic")
        elastic = rounds(run, step, ELASTIC, limit, photographs, answers)
        with locked(os.path.join(WORK, "lock"), step.note, "demo"):
            pictures = os.path.join(WORK, "output")
            shutil.rmtree(pictures, ignore_errors=True)
            os.rename(run.output, pictures)
            step(f"Grant over use: the last run of {FUNCTIONS[0].name}")
            print()
            keep(run, step)
    finally:
        run.remove()

    step(f"What that comes to, with {options.limit} MiB declared for each")
    print()
    rows = [table.HEAD]
    for function in FUNCTIONS:
        rows.append(table.row(function.name, observed[function.name], elastic[function.name], limit))
    for line in table.lines(rows):
        print(f"   {line}")
    print()
    step.note("static: the largest peak of the observed runs, for the whole run; medians of runs")
    step.note("CPU: time used, against the observed runs; failed: invocations without the right answer")
    failures = sum(one.failure is not None for runs in (observed, elastic) for each in runs.values() for one in each)
    if failures:
        raise Failure(f"{failures} invocations failed")


def main(argv):
    options = parse(argv)

    def interrupt(number, _frame):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be interrupted
        raise Interrupted(number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
    try:
        demo(options)
    except (Failure, FetchFailed, ContainerdFailed) as failure:
        print(f"demo: error: {failure}", file=sys.stderr)
        return 1
    except Interrupted as end:
        print("\ndemo: interrupted; containerd, the container and their state are removed", file=sys.stderr)
        return 128 + end.number
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
