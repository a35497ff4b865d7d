"""Control groups, as far as demo and benchmarks need them: where they are, their processes, their end."""

import os
import signal
import time


def cgroup_mounts(mountinfo=None):
    """Yields (version, mount point, controllers) of every mounted cgroup hierarchy."""
    if mountinfo is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
    for line in mountinfo.splitlines():
        fields = line.split()
        dash = fields.index("-")
        kind, mount_point = fields[dash + 1], fields[4]
        if kind == "cgroup2":
            yield 2, mount_point, set()
        elif kind == "cgroup":
            yield 1, mount_point, set(fields[dash + 3].split(","))


def hierarchy_of(controller, mounts=None):
    """(version, mount point) of the hierarchy that has a controller, None without one. A hybrid host has it on v1."""
    mounts = list(cgroup_mounts() if mounts is None else mounts)
    for version, mount_point, controllers in mounts:
        if version == 1 and controller in controllers:
            return version, mount_point
    for version, mount_point, _ in mounts:
        if version == 2:
            return version, mount_point
    return None


def pids_below(path):
    """The processes of a control group and of those below it, in every hierarchy."""
    result = set()
    for _, mount_point, _ in cgroup_mounts():
        for folder, _, _ in os.walk(mount_point + path):
            try:
                with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
                    result.update(int(pid) for pid in file.read().split())
            except OSError:
                pass  # it has gone
    return result


def remove_cgroup(path, patience=0.5):
    """Removes a control group with all below it in every hierarchy; True if nothing is left.

    A group whose last process has just ended stays busy for a moment.
    """
    gone = True
    deadline = time.monotonic() + patience
    for _, mount_point, _ in cgroup_mounts():
        for folder, _, _ in os.walk(mount_point + path, topdown=False):
            while True:
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    pass
                except OSError:
                    if time.monotonic() < deadline:
                        time.sleep(0.01)
                        continue
                    gone = False
                break
    return gone


class ProcessGroup:
    """A control group `PATH` with a member group for processes of ours and room for containers below it.

    Everything that is started from a member is one too, whoever its parent becomes: that is how what a
    daemon leaves behind is found, and how its CPU time is counted.
    """

    def __init__(self, path):
        found = hierarchy_of("cpuacct")
        if found is None:
            raise OSError("no cgroup hierarchy is mounted")
        self.path = path
        self.version, mount_point = found
        self.folder = mount_point + path
        self.members = os.path.join(self.folder, "members")

    def make(self):
        os.makedirs(self.members)

    def enter(self):
        """Moves the calling process into it; for the time between fork and exec."""
        with open(os.path.join(self.members, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")

    def pids(self):
        with open(os.path.join(self.members, "cgroup.procs"), encoding="ascii") as file:
            return {int(pid) for pid in file.read().split()}

    def cpu(self):
        """Seconds of CPU that all its processes have used so far, containers below it and ended ones included."""
        if self.version == 1:
            with open(os.path.join(self.folder, "cpuacct.usage"), encoding="ascii") as file:
                return int(file.read()) / 1e9
        with open(os.path.join(self.folder, "cpu.stat"), encoding="ascii") as file:
            fields = dict(line.split() for line in file)
        return int(fields["usage_usec"]) / 1e6


def kill_pids(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
