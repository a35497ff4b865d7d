"""The demo: an image of a real function, run below a containerd of its own; shows its memory over time."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it quietly until there is something to clean up

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import memory  # makes scripts/lib known
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
from private_containerd import STANDARD_PATH, ContainerdFailed, PrivateContainerd, find_containerd, shim_name, sweep

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

SAMPLE_PERIOD_S = 0.002
PATIENCE_S = 120  # for the function, which takes about 2 s on an idle machine

PREFIX = "elastic-mem-demo"
RUNTIME = "io.containerd.elastic-mem.v1"
IMAGE = "localhost/scale:latest"
CONTAINER = "scale"


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
    return f"{size / memory.MIB:.1f} MiB"


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
    """The function and its library. Python comes from the host's /usr, which is mounted."""
    layer = Layer()
    layer.text("etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
    layer.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    links, folders = system_folders()
    for name, target in links.items():
        layer.link(name, target)
    for name in (*folders, "dev", "output", "photographs", "proc", "run", "sys", "tmp"):
        layer.folder(name)
    layer.tree("function", os.path.join(ROOT, "demo", "functions", "scale"))
    layer.tree("packages", packages)
    config = {
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "PYTHONPATH=/packages",
            "PYTHONDONTWRITEBYTECODE=1",
        ],
        "Entrypoint": [PYTHON, "/function/handler.py"],
        "Cmd": ["/output", *(f"/photographs/{name}" for name in PHOTOGRAPHS)],
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
    def __init__(self, runtime, programs):
        self.runtime = runtime
        self.containerd = PrivateContainerd(RUNS, PREFIX, programs)
        self.output = os.path.join(self.containerd.folder, "output")
        os.mkdir(self.output)
        if runtime == RUNTIME:
            os.symlink(BINARY, os.path.join(self.containerd.bin, shim_name(runtime)))

    def import_image(self, packages):
        """Returns the size of the image."""
        path = os.path.join(self.containerd.folder, "image.tar")
        size = build_image(path, packages)
        self.snapshotter = self.containerd.snapshotter()
        self.containerd.call("image", "import", "--snapshotter", self.snapshotter, path)
        return size

    def options(self, limit):
        """The options of `ctr run` that a reader wants to see."""
        return ["--rm", "--read-only", "--runtime", self.runtime, "--memory-limit", str(limit)]

    def execute(self, limit, photographs):
        """Runs the function; returns (exit status, output, errors, samples)."""
        containerd = self.containerd
        group = f"{containerd.group.path}/containers/{CONTAINER}"
        argv = containerd.ctr(
            "run",
            *self.options(limit),
            *("--cgroup", group, "--snapshotter", self.snapshotter),
            *("--fifo-dir", os.path.join(containerd.folder, "fifo")),
            *mount_options(photographs, self.output),
            *(IMAGE, CONTAINER),
        )
        sampler = memory.Sampler(group)
        out_path, err_path = (os.path.join(containerd.folder, name) for name in ("stdout", "stderr"))
        with open(out_path, "wb") as out, open(err_path, "wb") as err:
            # A session of its own: Ctrl-C is answered by this program alone, which then ends everything.
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE_S
            due = time.monotonic()
            while process.poll() is None:
                sampler.sample()
                if time.monotonic() > deadline:
                    raise Failure(f"the function did not end within {PATIENCE_S} s")
                due = max(due + SAMPLE_PERIOD_S, time.monotonic())
                time.sleep(max(0, due - time.monotonic()))
        finally:
            sampler.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        texts = []
        for path in (out_path, err_path):
            with open(path, encoding="utf-8", errors="replace") as file:
                texts.append(file.read().strip())
        return process.returncode, *texts, sampler.samples

    def remove(self):
        self.containerd.remove()


# The demo itself


def check_runtime(runtime, programs):
    """Fails early, and in plainer words than containerd's."""
    if runtime == RUNTIME:
        if not os.path.exists(BINARY):
            raise Failure(f"{short(BINARY)} does not exist; run make build first")
        return
    name = shim_name(runtime)
    if shutil.which(name, path=f"{programs}:{STANDARD_PATH}") is None:
        raise Failure(f"there is no {name} for runtime {runtime}, neither beside containerd nor in {STANDARD_PATH}")


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="demo/run", description="Runs a real function in a container and shows its memory over time."
    )
    parser.add_argument("--limit", type=int, default=512, metavar="MIB", help="the declared memory limit (default 512)")
    parser.add_argument(
        "--runtime",
        default=os.environ.get("RUNTIME") or RUNTIME,
        metavar="NAME",
        help=f"containerd's name of the runtime, as io.containerd.runc.v2 (default: $RUNTIME, else {RUNTIME})",
    )
    parser.add_argument("--containerd", metavar="FOLDER", help="folder of containerd and ctr (default: from PATH)")
    options = parser.parse_args(argv)
    if not 16 <= options.limit <= 1 << 20:
        parser.error("--limit: give 16 to 1048576 MiB")
    return options


def show_plot(samples, declared):
    interactive = sys.stdout.isatty()
    color = interactive and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    width = min(shutil.get_terminal_size((100, 24)).columns, 160)
    for line in memory.terminal_plot(samples, declared, width, color=color, unicode=unicode):
        print(line)


def demo(options):
    if os.geteuid() != 0:
        raise Failure("containers need root; run this as root")
    programs = find_containerd(options.containerd)
    check_runtime(options.runtime, programs)
    memory.memory_controller()
    os.makedirs(RUNS, exist_ok=True)
    step = Steps()
    print("A real function, its declared memory, and what it uses of it.")

    with locked(os.path.join(WORK, "lock"), step.note, "demo"):
        sweep(RUNS, PREFIX, step.note)
        step(f"Photographs: {len(PHOTOGRAPHS)} of Debian's package {PHOTOGRAPHS_PACKAGE}")
        photographs = fetch_photographs(step.note)
        step(f"Library: pillow {PILLOW}")
        packages = fetch_pillow(step.note)
        run = Run(options.runtime, programs)

    try:
        limit = options.limit * memory.MIB
        step("containerd: one of its own, with root, state and sockets below target/demo")
        run.containerd.start()
        engine = run.containerd.version_line()
        step.note(f"{engine} ({programs})")

        step(f"Image {IMAGE}: the function demo/functions/scale and pillow")
        step.note(f"{mib(run.import_image(packages))}, imported with ctr image import")

        step("One invocation: decode in full, halve (Lanczos), write JPEG; its memory is sampled from outside")
        step.note(" ".join(["ctr run", *run.options(limit), "...", IMAGE, CONTAINER]))
        step.note("mounted besides: the host's /usr and the photographs, read-only; a folder for the output")
        status, output, errors, samples = run.execute(limit, photographs)
        if status != 0:
            reason = f"the function or the runtime failed with status {status}"
            if samples and max(s.usage for s in samples) > 0.95 * limit:
                reason += f"; {options.limit} MiB are too little for this function"
            raise Failure("\n".join([reason, *errors.splitlines()[-12:]]))
        try:
            answer = json.loads(output)
        except ValueError:
            raise Failure(f"the function did not answer with JSON but with: {output[:200]!r}") from None
        if len(samples) < 10:
            raise Failure(f"only {len(samples)} samples of the container's memory were taken")
        step.note(output)
        step.note(
            f"{len(answer['photographs'])} photographs: {mib(answer['input_bytes'])} in, "
            f"{mib(answer['output_bytes'])} out, {answer['duration_ms']:.0f} ms"
        )
        pictures = os.path.join(WORK, "output")
        with locked(os.path.join(WORK, "lock"), step.note, "demo"):
            shutil.rmtree(pictures, ignore_errors=True)
            os.rename(run.output, pictures)
    finally:
        run.remove()

    f = memory.figures(samples, limit)
    step("Memory over time")
    print()
    show_plot(samples, limit)
    print()
    step.note(
        f"peak {f.peak / memory.MIB:.0f} MiB (anonymous {f.anon_peak / memory.MIB:.0f} MiB), "
        f"mean {f.mean / memory.MIB:.0f} MiB, declared {options.limit} MiB"
    )
    step.note(
        f"waste: {f.waste:.0%} of the declared memory x time was not used "
        f"({f.mean * f.duration_s / 2**30:.2f} of {limit * f.duration_s / 2**30:.2f} GiB-s used)"
    )
    step.note(f"{len(samples)} samples in {f.duration_s:.2f} s, one each {f.period_ms:.1f} ms")

    table, picture = (os.path.join(WORK, name) for name in ("memory.csv", "memory.svg"))
    write_atomically(table, lambda file: memory.write_csv(file, samples))
    title = f"scale: {len(PHOTOGRAPHS)} photographs, one invocation"
    plot = memory.svg_plot(samples, limit, title, f"{engine}, {options.runtime}")
    write_atomically(picture, lambda file: file.write(plot))
    step.note(f"written: {short(table)}, {short(picture)}, {short(pictures)}/")


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
    except (Failure, FetchFailed, ContainerdFailed, memory.NoMemoryController) as failure:
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
