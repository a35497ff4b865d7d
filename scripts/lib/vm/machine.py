"""A running guest: QEMU, the daemons beside it, and the agent inside."""

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from . import latency
from . import topology as topologies
from .image import say

# Statuses of the tool beside those of the commands.
LATE, BROKEN = 124, 125

CPU_MODEL = "Haswell-v4"
ACCELERATOR = "tcg,thread=multi,tb-size=512"
# Periodic ticks: under emulation with several threads a one-shot timer gets lost now and then, and the
# processor that waits for it stands still until something else wakes it.
KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on panic=-1 "
    "nohz=off highres=off"
)
PORTS = ("cmd", "out", "err", "ctl")
END = b"\001END\n"

# How long a guest may take to say that it is there. On a machine that does other work a boot of 7 s takes 60.
BOOT_PATIENCE = 300

# Empty slots for the shared folders of a guest that continues from a snapshot.
SLOTS = 3


class Broken(Exception):
    """The test bed failed, not what ran in it."""


class Late(Exception):
    """A deadline has passed."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What kind of guest."""

    kernel: str = "6.12"
    topology: str = "one"
    systemd: bool = False
    swap: int = 0
    zswap: bool = False
    latency: int = 0

    def name(self):
        """Names guests of the same kind the same; also a name of files."""
        parts = [self.kernel, self.topology]
        parts += ["systemd"] * self.systemd + ["zswap"] * self.zswap
        parts += [f"swap{self.swap}"] * bool(self.swap) + [f"latency{self.latency}"] * bool(self.latency)
        return "-".join(parts)


@dataclasses.dataclass(frozen=True)
class Share:
    """A folder of the host that the guest sees at the same place."""

    path: str

    def tag(self):
        return "s" + hashlib.sha256(self.path.encode()).hexdigest()[:12]


def _die_with_parent():
    """Nothing of a run outlives the tool, even if that is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    # An interrupt of the terminal is for the tool, which ends the rest in order.
    os.setpgid(0, 0)


class Machine:
    """One guest. A context manager: at its end nothing is left."""

    def __init__(self, image, options, shares, deadline, disk=None, snapshot=None, spare_slots=False):
        self.image, self.options, self.shares = image, options, shares
        self.deadline, self.disk, self.snapshot = deadline, disk, snapshot
        self.spare_slots = spare_slots or bool(snapshot)
        self.topology = topologies.TOPOLOGIES[options.topology]
        self.started = time.monotonic()
        self.folder = tempfile.mkdtemp(prefix="elastic-mem-vm-")
        self._processes, self._listeners, self._sockets = [], {}, {}
        self._answers = b""
        self._ended = {name: threading.Event() for name in ("out", "err")}

    def __enter__(self):
        try:
            for share in self.shares:
                self._serve(share)
            self._start()
            self._connect()
            return self
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind, error, _):
        self.close()

    # Start

    def _serve(self, share):
        """Starts the daemon that serves a shared folder."""
        path = f"{self.folder}/{share.tag()}"
        command = self.image.tool("usr/libexec/virtiofsd", "--socket-path", path, "--shared-dir", share.path)
        self._spawn([*command, "--sandbox", "none", "--cache", "auto"], "virtiofsd.log")
        self._wait(lambda: os.path.exists(path), "the shared folder is served")

    def _spawn(self, command, log):
        with open(f"{self.folder}/{log}", "ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=_die_with_parent
            )
        self._processes.append(process)
        return process

    def _wait(self, holds, what):
        while not holds():
            if any(process.poll() is not None for process in self._processes):
                raise Broken(f"a process ended before {what}")
            if time.monotonic() > self.deadline:
                raise Late(what)
            time.sleep(0.02)

    def _start(self):
        tools, kernel = f"{self.image.folder}/tools/usr/share", self.image.kernel(self.options.kernel)
        line = KERNEL_LINE
        if self.options.systemd:
            line += " guest.systemd systemd.show_status=0"
        if self.topology.dimm or self.topology.cxl:
            # As far memory is used: for what can be moved away again, and nothing of the kernel's own.
            line += " memhp_default_state=online_movable"
        if self.options.zswap:
            line += " zswap.enabled=1"
        command = self.image.tool(
            "usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-L", f"{tools}/qemu", "-L", f"{tools}/seabios", "-accel", ACCELERATOR,
            *topologies.arguments(self.topology, CPU_MODEL),
            "-kernel", kernel, "-initrd", f"{kernel}.initramfs", "-append", line,
            "-drive", f"if=none,id=root,{self._disk()},cache=unsafe", "-device", "virtio-blk-pci,drive=root,bus=pcie.0",
            "-device", "virtio-rng-pci,bus=pcie.0", "-device", "virtio-serial-pci,bus=pcie.0,id=serial",
            "-serial", f"file:{self.folder}/console.log", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
        )  # fmt: skip
        command += self._swap_disk()
        for name in PORTS:
            command += ["-chardev", f"socket,id={name},path={self.folder}/{name}"]
            command += ["-device", f"virtserialport,bus=serial.0,chardev={name},name={name}"]
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{self.folder}/{name}")
            listener.listen(1)
            listener.settimeout(0.2)
            self._listeners[name] = listener
        if self.spare_slots:
            for slot in range(SLOTS):
                command += ["-device", f"pcie-root-port,id=slot{slot},bus=pcie.0,chassis={20 + slot},slot={20 + slot}"]
        else:
            for share in self.shares:
                tag = share.tag()
                command += ["-chardev", f"socket,id={tag},path={self.folder}/{tag}"]
                command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag},bus=pcie.0"]
        if self.options.latency:
            command += latency.arguments(self.image, self.topology, self.options.latency)
        if self.snapshot:
            command += ["-incoming", f"file:{self.snapshot}/ram"]
        self.qemu = self._spawn(command, "qemu.log")

    def _disk(self):
        """The root disk. Unless it is one of a snapshot in the making, nothing of a run is kept."""
        if self.disk and not self.snapshot:
            return f"file={self.disk},format=qcow2"
        return f"file={self.disk},format=qcow2,snapshot=on" if self.disk else f"file={self.image.rootfs},format=raw,snapshot=on"

    def _swap_disk(self):
        if not self.options.swap:
            return []
        path = f"{self.folder}/swap"
        with open(path, "wb") as file:
            file.truncate(self.options.swap << 20)
        drive = f"if=none,id=swap,file={path},format=raw,cache=unsafe,snapshot=on"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=swap,bus=pcie.0"]

    def _connect(self):
        for name, listener in self._listeners.items():
            while name not in self._sockets:
                with contextlib.suppress(TimeoutError):
                    self._sockets[name] = listener.accept()[0]
                self._wait(lambda: True, "it was connected")
                if time.monotonic() > self.deadline:
                    raise Late("QEMU connects")
        for name, descriptor in (("out", 1), ("err", 2)):
            threading.Thread(target=self._pump, args=(name, descriptor), daemon=True).start()

    # Commands

    def _pump(self, name, descriptor):
        """Passes output on, up to the mark that ends a command's."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := self._sockets[name].recv(1 << 16):
                rest += data
                if END in rest:
                    before, _, rest = rest.partition(END)
                    _write(descriptor, before)
                    self._ended[name].set()
                # A part of the mark may be the end of what has come so far.
                keep = next((n for n in range(len(END) - 1, 0, -1) if rest.endswith(END[:n])), 0)
                _write(descriptor, rest[: len(rest) - keep])
                rest = rest[len(rest) - keep :]
        self._ended[name].set()

    def _answer(self):
        """A line of the agent."""
        while b"\n" not in self._answers:
            self._sockets["ctl"].settimeout(max(0.01, min(1, self.deadline - time.monotonic())))
            try:
                data = self._sockets["ctl"].recv(4096)
            except TimeoutError:
                if time.monotonic() > self.deadline:
                    raise Late("the guest answers") from None
                self._wait(lambda: True, "the guest answered")
                continue
            except OSError as error:
                raise Broken(f"the guest went away: {error}") from None
            if not data:
                raise Broken("the guest went away")
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode().split()

    def wait_until_ready(self):
        """Waits for the end of the boot and does what the kind of guest needs."""
        whole, self.deadline = self.deadline, min(self.deadline, time.monotonic() + BOOT_PATIENCE)
        answer = self._answer()
        if answer[:1] != ["READY"]:
            raise Broken(f"unexpected answer: {answer}")
        script = topologies.setup_script(self.topology)
        if self.options.swap:
            script += "mkswap /dev/vdb >/dev/null && swapon /dev/vdb || exit 125\n"
        if self.options.zswap:
            script += '[ "$(cat /sys/module/zswap/parameters/enabled)" = Y ] || { echo "no zswap" >&2; exit 125; }\n'
        if script and self.run(script):
            raise Broken("the guest could not be set up")
        self.deadline = whole

    def run(self, script):
        """Runs a shell script; its status. What it prints is printed."""
        for event in self._ended.values():
            event.clear()
        self._sockets["cmd"].sendall(script.encode() + b"\n#RUN\n")
        answer = self._answer()
        if answer[:1] != ["EXIT"]:
            raise Broken(f"unexpected answer: {answer}")
        for event in self._ended.values():
            if not event.wait(max(0.01, self.deadline - time.monotonic())):
                raise Late("the output ends")
        return int(answer[1])

    def mount_script(self):
        """Mounts the shared folders where the host has them, and goes to the first."""
        lines = []
        for share in self.shares:
            quoted = "'" + share.path.replace("'", "'\\''") + "'"
            mount = f"mount -t virtiofs {share.tag()} {quoted}"
            # A folder that was plugged in just now appears a moment later.
            lines.append(
                f"mkdir -p {quoted} && {{ tries=0; until mountpoint -q {quoted} || {mount} 2>/run/mount.log; do sleep 0.1; "
                f"tries=$((tries + 1)); [ $tries -lt 300 ] || {{ cat /run/mount.log >&2; exit 125; }}; done; }} || exit 125"
            )
        if self.shares:
            lines.append("cd '" + self.shares[0].path.replace("'", "'\\''") + "'")
        return "\n".join(lines) + "\n"

    # Snapshots

    def qmp(self, command, **arguments):
        """Runs one command of QEMU's own; what it returns."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(max(0.01, self.deadline - time.monotonic()))
            monitor.connect(f"{self.folder}/qmp")
            with monitor.makefile("rw") as stream:
                stream.readline()
                answer = {}
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    while True:
                        line = stream.readline()
                        if not line:
                            raise Broken(f"QEMU went away during {command}")
                        answer = json.loads(line)
                        if "error" in answer:
                            raise Broken(f"{command}: {answer['error']}")
                        if "return" in answer:
                            break
                return answer["return"]

    def resume(self):
        """Lets a guest that was read from a snapshot go on, with the shared folders plugged in."""
        while (status := self.qmp("query-status")["status"]) != "running":
            # It was saved while it stood still.
            if status == "paused":
                self.qmp("cont")
            self._wait(lambda: True, "the guest continued")
            if time.monotonic() > self.deadline:
                raise Late("the guest continues")
            time.sleep(0.01)
        for slot, share in enumerate(self.shares):
            tag = share.tag()
            address = {"type": "unix", "data": {"path": f"{self.folder}/{tag}"}}
            self.qmp("chardev-add", id=tag, backend={"type": "socket", "data": {"server": False, "addr": address}})
            self.qmp("device_add", driver="vhost-user-fs-pci", chardev=tag, tag=tag, bus=f"slot{slot}")
        if self.run(f"date -s @{time.time():.0f} >/dev/null"):
            raise Broken("the clock could not be set")

    def save(self, folder):
        """Writes the guest's memory into a folder. It does not go on afterwards."""
        self.qmp("stop")
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.qmp("migrate", uri=f"file:{folder}/ram")
        while (status := self.qmp("query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled"):
                raise Broken(f"the snapshot {status}")
            if time.monotonic() > self.deadline:
                raise Late("the snapshot is written")
            time.sleep(0.05)

    # End

    def keep_logs(self, into):
        """Copies console and messages to a folder, and prints their ends."""
        os.makedirs(into, exist_ok=True)
        for name in ("qemu.log", "virtiofsd.log", "console.log"):
            with contextlib.suppress(OSError):
                shutil.copy(f"{self.folder}/{name}", into)
                with open(f"{self.folder}/{name}", encoding="utf-8", errors="replace") as file:
                    if tail := file.read()[-3000:].strip():
                        print(f"--- {name}, its end\n{tail}", file=sys.stderr)
        say(f"logs: {into}")

    def close(self):
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        for opened in (*self._sockets.values(), *self._listeners.values()):
            opened.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(descriptor, data):
    while data:
        data = data[os.write(descriptor, data) :]
