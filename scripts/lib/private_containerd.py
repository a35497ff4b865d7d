"""A containerd of one's own: root, state, sockets and control group apart from the host's, gone without a trace.

Demo and benchmarks use it. Everything it makes is below one folder, except what shims are bound to put
elsewhere: their sockets, and the state of the runtime in a folder named after the namespace. A folder
holds a lock while its program lives; `sweep` removes what a killed program left.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time

from cgroups import ProcessGroup, kill_pids, pids_below, remove_cgroup

PATIENCE_S = 20  # for containerd to come up, and for a command that clears away
LONGEST_SOCKET = 107  # sun_path of unix(7), less its final zero
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where runtimes keep state by namespace.
STATE_FOLDERS = ("/run/containerd/runc", "/run/elastic-mem")

# What containers of one host need not, and what would write outside the folder or wait for the network.
DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
)

CONFIG = """version = 2
root = {root}
state = {state}
disabled_plugins = {disabled}
[grpc]
  address = {address}
[ttrpc]
  address = {ttrpc}
[plugins."io.containerd.internal.v1.opt"]
  path = {opt}
"""


class ContainerdFailed(Exception):
    """containerd or a command of it; the text says which and what it said."""


def find_containerd(folder=None, fallback=None):
    """The folder with the programs containerd and ctr: the one given, else the PATH's, else `fallback`."""
    if folder is None:
        found = shutil.which("containerd", path=os.environ.get("PATH", "") + ":" + STANDARD_PATH)
        folder = os.path.dirname(found) if found else fallback
    if folder is None:
        raise ContainerdFailed("there is no containerd; install Debian's package containerd, or run scripts/setup")
    for name in ("containerd", "ctr"):
        if not os.access(os.path.join(folder, name), os.X_OK):
            raise ContainerdFailed(f"there is no {name} in {folder}")
    return os.path.abspath(folder)


def shim_name(runtime):
    """io.containerd.NAME.VERSION -> containerd-shim-NAME-VERSION, as containerd does it."""
    parts = runtime.split(".")
    if len(parts) < 2 or not all(parts) or "/" in runtime:
        raise ContainerdFailed(f"{runtime} is no name of a runtime such as io.containerd.runc.v2")
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


class PrivateContainerd:
    def __init__(self, parent, prefix, programs):
        """`programs` is the folder of containerd and ctr. The folder `bin` of this one comes first in its PATH."""
        self.programs = programs
        self.label = f"{prefix}-{secrets.token_hex(4)}"
        self.folder = os.path.join(parent, self.label)
        with alone(parent):
            os.makedirs(self.folder)
            self._lock = open(os.path.join(self.folder, "lock"), "w", encoding="ascii")  # until the process ends
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.bin = self._subfolder("bin")
        self.log = os.path.join(self.folder, "containerd.log")
        self.namespace = self.label
        self.group = ProcessGroup(f"/{self.label}")
        self.socket = os.path.join(self.folder, "c")
        if len(self.socket + ".ttrpc") > LONGEST_SOCKET:
            elsewhere = tempfile.mkdtemp(prefix=f"{prefix}-", dir="/run")
            self.socket = os.path.join(elsewhere, "c")
            with open(os.path.join(self.folder, "sockets"), "w", encoding="utf-8") as file:
                file.write(elsewhere)
        self.ttrpc = self.socket + ".ttrpc"
        self.settings = os.path.join(self.folder, "elastic-mem.toml")
        self.process = None

    def _subfolder(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, mode=0o711, exist_ok=True)
        return path

    def path(self):
        return f"{self.bin}:{self.programs}:{STANDARD_PATH}"

    def start(self):
        values = {
            "root": self._subfolder("root"),
            "state": self._subfolder("state"),
            "opt": self._subfolder("opt"),
            "address": self.socket,
            "ttrpc": self.ttrpc,
            "disabled": list(DISABLED),
        }
        config = os.path.join(self.folder, "containerd.toml")
        with open(config, "w", encoding="utf-8") as file:
            # A string or list of JSON is one of TOML as well.
            file.write(CONFIG.format(**{key: json.dumps(value) for key, value in values.items()}))
        # Traces of our runtimes do not go to those of the host.
        with open(self.settings, "w", encoding="utf-8") as file:
            file.write(f"profile.folder = {json.dumps(os.path.join(self.folder, 'profiles'))}\n")
        self.group.make()

        def enter():
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.group.enter()

        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.programs, "containerd"), "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": self.path(), "ELASTIC_MEM_CONFIG": self.settings},
                start_new_session=True,
                preexec_fn=enter,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None:
                raise ContainerdFailed(f"containerd ended with status {self.process.returncode}{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ContainerdFailed(f"containerd does not answer after {PATIENCE_S} s{self.log_tail()}")
            time.sleep(0.02)

    def _answers(self):
        if not os.path.exists(self.socket) or not os.path.exists(self.ttrpc):
            return False
        return self._quietly("version").returncode == 0

    def _quietly(self, *words):
        return subprocess.run(
            self.ctr(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            start_new_session=True,
            check=False,
        )

    def ctr(self, *words):
        """The command line of ctr for this containerd and namespace."""
        return [os.path.join(self.programs, "ctr"), "--address", self.socket, "--namespace", self.namespace, *words]

    def call(self, *words):
        """Runs ctr to its end; returns what it printed."""
        result = self._quietly(*words)
        text = result.stdout.decode(errors="replace").strip()
        if result.returncode != 0:
            raise ContainerdFailed(f"ctr {' '.join(words)} ended with status {result.returncode}: {text}")
        return text

    def snapshotter(self):
        """The one that works on the file system of the folder: overlayfs if it can carry the layers of an overlay."""
        names = ("lower", "upper", "work", "all")
        paths = {name: self._subfolder(os.path.join("overlay-test", name)) for name in names}
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"lowerdir={paths['lower']},upperdir={paths['upper']},workdir={paths['work']}".encode()
        mounted = libc.mount(b"overlay", os.fsencode(paths["all"]), b"overlay", 0, options) == 0
        if mounted:
            libc.umount2(os.fsencode(paths["all"]), 0)
        shutil.rmtree(os.path.join(self.folder, "overlay-test"), ignore_errors=True)
        return "overlayfs" if mounted else "native"

    def log_tail(self, lines=6):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            tail = file.read().strip().splitlines()[-lines:]
        return "".join(f"\n  {line}" for line in tail)

    def version_line(self):
        """containerd and its version, in one line."""
        text = subprocess.run(
            [os.path.join(self.programs, "containerd"), "--version"], capture_output=True, text=True, check=False
        ).stdout.split()
        return f"containerd {text[2]}" if len(text) > 2 else "containerd ?"

    def task_folder(self, container):
        """The bundle of a container, as containerd lays it out."""
        return os.path.join(self.folder, "state", "io.containerd.runtime.v2.task", self.namespace, container)

    def stop(self):
        """Ends containerd, as a service manager would. Containers and shims live on."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def remove(self):
        """Ends and removes everything, whatever state it is in."""
        with contextlib.suppress(ChildProcessError):
            self.stop()
        remove(self.folder)
        self._lock.close()


# What was left, found by the folder alone


def remove(folder):
    label = os.path.basename(folder)
    sockets = list(shim_sockets(folder))
    for _ in range(200):
        pids = pids_below(f"/{label}") | pids_of_programs_below(folder)
        pids.discard(os.getpid())
        if not pids:
            break
        kill_pids(pids)
        reap_ended(pids)
        time.sleep(0.02)
    unmount_below(folder)
    remove_cgroup(f"/{label}")
    for path in sockets:
        with contextlib.suppress(OSError):
            os.unlink(path)
    for state in STATE_FOLDERS:
        shutil.rmtree(os.path.join(state, label), ignore_errors=True)
    with contextlib.suppress(OSError):
        with open(os.path.join(folder, "sockets"), encoding="utf-8") as file:
            shutil.rmtree(file.read(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def reap_ended(pids):
    """A child that has ended stays in its control group until its parent asks."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def shim_sockets(folder):
    """The sockets of shims, from what bundles say about them; they are not below the folder."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("root", "rootfs")]
        for name in ("address", "bootstrap.json"):
            if name not in names:
                continue
            with contextlib.suppress(OSError, ValueError):
                with open(os.path.join(base, name), encoding="utf-8") as file:
                    path, _ = shim_answer(file.read())
                if path:
                    yield path


def shim_answer(reply):
    """(socket, version of the task service) in a shim's answer to `start`: a bare address, or a document with one."""
    reply, version = reply.strip(), 2
    if reply.startswith("{"):
        document = json.loads(reply)
        reply, version = document.get("address", ""), document.get("version", version)
    return (reply.removeprefix("unix://"), version) if reply.startswith("unix:///") else (None, version)


def pids_of_programs_below(folder):
    """Processes whose executable is a file below the folder."""
    result = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/exe").startswith(folder + os.sep):
                    result.add(int(name))
    return result


def unmount_below(folder):
    libc = ctypes.CDLL(None, use_errno=True)
    mnt_detach = 2
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        point = unescape(point)
        if point.startswith(folder + os.sep):
            libc.umount2(os.fsencode(point), mnt_detach)


def unescape(text):
    """mountinfo writes blanks and backslashes of paths as octal numbers."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


@contextlib.contextmanager
def alone(parent):
    """Keeps others from making folders there, or looking for dead ones."""
    os.makedirs(parent, exist_ok=True)
    folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def sweep(parent, prefix, say):
    """Removes what killed programs left in folders of that name."""
    with alone(parent):
        for label in os.listdir(parent):
            folder = os.path.join(parent, label)
            if not label.startswith(f"{prefix}-") or not os.path.isdir(folder):
                continue
            with open(os.path.join(folder, "lock"), "a", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its program lives
                say(f"removing what a killed run left: {label}")
                remove(folder)
