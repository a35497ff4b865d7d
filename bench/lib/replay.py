"""Plays containerd to a shim: the processes it starts and the calls it makes for one container, in its order.

What is left out is containerd's own work: metadata, snapshots, the bundle. So what is timed is the part of a
container's life that belongs to the shim. The order is that of containerd 1.6 (runtime/v2) for `ctr run --rm`.
"""

import contextlib
import json
import os
import shutil
import time

from bundles import make_config
from measure import PATIENCE_S, NotMeasured
from private_containerd import shim_answer
from ttrpc import CallFailed, Task

PHASES = ("start", "Create", "Start, Wait", "Delete", "Shutdown", "delete")
GROUP_ANNOTATION = "io.containerd.runc.v2.group"


class Container:
    """What containerd prepares for a container before it turns to the shim."""

    def __init__(self, replay, name, args, group=None, adapt=None):
        self.name = name
        self.bundle = os.path.join(replay.folder, name)
        config = make_config(args, "plain", f"{replay.containerd.group.path}/containers/{name}")
        config["root"]["readonly"] = False
        if group is not None:
            config["annotations"] = {GROUP_ANNOTATION: group}
        if adapt is not None:
            adapt(config)
        for inside in ("rootfs", "upper", "work"):
            os.makedirs(os.path.join(self.bundle, inside))
        with open(os.path.join(self.bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.mounts = replay.mounts(self.bundle)
        self.stdout, self.stderr, log = (os.path.join(self.bundle, kind) for kind in ("stdout", "stderr", "log"))
        self.open = []
        for path in (self.stdout, self.stderr, log):
            os.mkfifo(path)
            self.open.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    def said(self):
        """What the shim wrote to its log."""
        with contextlib.suppress(OSError):
            return os.read(self.open[-1], 65536).decode(errors="replace").strip()
        return ""

    def remove(self):
        for file in self.open:
            os.close(file)
        shutil.rmtree(self.bundle, ignore_errors=True)


class Replay:
    def __init__(self, children, containerd, shims, rootfs, has_overlay):
        self.children = children
        self.containerd = containerd
        self.shims = shims  # role -> path
        self.rootfs = rootfs
        self.has_overlay = has_overlay
        self.folder = os.path.join(containerd.folder, "bundles")
        os.mkdir(self.folder)
        self.count = 0
        self.environment = {
            "PATH": containerd.path(),
            "TTRPC_ADDRESS": containerd.ttrpc,
            "GRPC_ADDRESS": containerd.socket,
            "NAMESPACE": containerd.namespace,
            "MAX_SHIM_VERSION": "2",
            "GOMAXPROCS": "2",
            "ELASTIC_MEM_CONFIG": containerd.settings,
        }

    def mounts(self, bundle):
        """The root file system as containerd asks the shim to mount it."""
        if not self.has_overlay:
            return [("bind", self.rootfs, ["rbind", "rw"])]
        upper, work = os.path.join(bundle, "upper"), os.path.join(bundle, "work")
        return [("overlay", "overlay", [f"workdir={work}", f"upperdir={upper}", f"lowerdir={self.rootfs}"])]

    def container(self, role, args, group=None, adapt=None):
        """`adapt` may change the configuration."""
        self.count += 1
        return Container(self, f"{role}-{self.count}", args, group, adapt)

    def shim(self, role, container, action, *more):
        """Runs the shim's program, as containerd does: in the bundle."""
        argv = [self.shims[role], "-namespace", self.containerd.namespace, "-address", self.containerd.socket]
        argv += ["-publish-binary", os.path.join(self.containerd.programs, "containerd"), "-id", container.name]
        before = os.getcwd()
        os.chdir(container.bundle)
        try:
            self.children.run([*argv, *more, action], self.environment)
        finally:
            os.chdir(before)

    def connect(self, role, container):
        """Starts the shim's server, or finds the one of the group; returns its socket and a connection to it."""
        path = None
        at = os.path.getsize(self.children.log_path)
        self.shim(role, container, "start")
        with open(self.children.log_path, "rb") as file:
            file.seek(at)
            reply = file.read().decode(errors="replace")
        with contextlib.suppress(ValueError):
            path, version = shim_answer(reply)
        if path is None:
            raise NotMeasured(f"{self.shims[role]} start answered with no address: {reply!r}")
        # Where a shim does not write it itself: what is left after a crash is found by it.
        with open(os.path.join(container.bundle, "address"), "w", encoding="utf-8") as file:
            file.write(f"unix://{path}")
        return path, Task(path, version, self.containerd.namespace, PATIENCE_S)

    def run(self, role, container):
        """A container's whole life in a shim of its own; returns {phase: seconds}."""
        times = []

        def done():
            times.append(time.perf_counter())

        with self.explained(role, container):
            done()
            _, task = self.connect(role, container)
            done()
            try:
                self.create(task, container)
                done()
                self.begin(task, container)
                status = task.end_wait(container.waits)
                done()
                task.delete(container.name)
                done()
                task.shutdown(container.name)
                task.wait_closed()
            finally:
                task.close()
            done()
            self.shim(role, container, "delete", "-bundle", container.bundle)
            done()
        if status != 0:
            raise NotMeasured(f"the container's process ended with status {status} below {self.shims[role]}")
        return {phase: after - before for phase, before, after in zip(PHASES, times, times[1:])}

    def create(self, task, container):
        task.create(container.name, container.bundle, container.mounts, container.stdout, container.stderr)

    def begin(self, task, container):
        """Start, with a Wait that is pending before: the process may end before Start has been answered."""
        container.waits = task.begin_wait(container.name)
        task.start(container.name)

    def run_in_group(self, role, container, expected):
        """A container's whole life in a shim that lives on for another one."""
        with self.explained(role, container):
            path, task = self.connect(role, container)
            try:
                if path != expected:
                    raise NotMeasured(f"{self.shims[role]} made a second shim for a container of the same group")
                self.create(task, container)
                self.begin(task, container)
                status = task.end_wait(container.waits)
                task.delete(container.name)
                task.shutdown(container.name)
            finally:
                task.close()
            self.shim(role, container, "delete", "-bundle", container.bundle)
        if status != 0:
            raise NotMeasured(f"the container's process ended with status {status} below {self.shims[role]}")

    def end(self, role, task, container):
        """Ends a container that runs, and its shim with it."""
        with self.explained(role, container):
            task.kill(container.name, 9)
            task.end_wait(container.waits)
            task.delete(container.name)
            task.shutdown(container.name)
            task.wait_closed()
            task.close()
            self.shim(role, container, "delete", "-bundle", container.bundle)

    @contextlib.contextmanager
    def explained(self, role, container):
        try:
            yield
        except (CallFailed, OSError) as error:
            said = "".join(f"\n  {line}" for line in container.said().splitlines()[-6:])
            raise NotMeasured(f"{self.shims[role]}: {error}{said}{self.children.log()}") from None
