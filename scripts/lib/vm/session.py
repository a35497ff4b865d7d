"""Runs commands in a guest that was booted for them, or that continues from a snapshot."""

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import sys
import time

from .image import HERE, locked, say
from .machine import BROKEN, LATE, Broken, Late, Machine, Share
from .packages import PackageError, run
from .topology import TOPOLOGIES

PROJECT = os.path.realpath(f"{HERE}/../../..")
STORE = f"{PROJECT}/target/vm"

# How long taking a snapshot may last, boot included.
SNAPSHOT_PATIENCE = 240

# What a snapshot holds beyond a boot: the guest's own containerd, which `ctr` talks to.
START_CONTAINERD = """
if [ -d /run/systemd/system ]; then systemctl start containerd; else
    containerd >/run/containerd.log 2>&1 &
fi
tries=0
until ctr version >/dev/null 2>&1; do
    sleep 0.2
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { cat /run/containerd.log >&2; exit 125; }
done
"""


def shares():
    """The project, and what its target folder leads to elsewhere."""
    found = [Share(PROJECT)]
    for path in (f"{PROJECT}/target", f"{PROJECT}/target/engines"):
        real = os.path.realpath(path)
        if os.path.isdir(real) and not any(real.startswith(f"{share.path}/") for share in found):
            found.append(Share(real))
    return found


@contextlib.contextmanager
def program():
    """The command under test, at a place that the guest sees; none if nothing was built."""
    chosen = os.environ.get("ELASTIC_MEM_BIN")
    candidates = [chosen] if chosen else [f"{PROJECT}/target/{kind}/elastic-mem" for kind in ("release", "debug")]
    found = next((path for path in candidates if os.path.isfile(path)), None)
    if chosen and not found:
        raise Broken(f"ELASTIC_MEM_BIN: there is no {chosen}")
    if not found or any(os.path.realpath(found).startswith(f"{share.path}/") for share in shares()):
        yield found
        return
    folder = f"{STORE}/programs/{os.getpid()}"
    os.makedirs(folder, exist_ok=True)
    try:
        yield shutil.copy(found, f"{folder}/elastic-mem")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prologue(machine, path):
    """Shared folders, and a copy of the command under test where engines look for it.

    A copy: the guest reads all of a shared file again each time it is opened, and containers open programs often.
    """
    lines = [machine.mount_script(), "mkdir -p /usr/local/bin"]
    if path:
        lines.append(f"cp '{path}' /usr/local/bin/elastic-mem || exit 125")
        lines.append("ln -sf elastic-mem /usr/local/bin/containerd-shim-elastic-mem-v1")
    return "\n".join(lines) + "\n"


def environment(path):
    """Where a shell in the guest finds programs."""
    lines = ["export PATH=/usr/local/bin:$PATH RUNC_BIN=/usr/sbin/runc\n"]
    if path:
        lines.insert(0, "export ELASTIC_MEM_BIN=/usr/local/bin/elastic-mem")
    return "\n".join(lines)


def snapshot_folder(image, options):
    """Changes with all that a snapshot depends on."""
    digest = hashlib.sha256()
    for name in ("machine.py", "session.py", "topology.py"):
        with open(f"{HERE}/{name}", "rb") as file:
            digest.update(file.read())
    return f"{image.folder}/snapshots/{options.name()}-{digest.hexdigest()[:8]}"


def can_have_snapshot(options):
    """What was swapped out is not in the guest's memory, and a delay slows down taking it.

    QEMU does not save how a CXL device is set up: afterwards its memory reads as zeros, and programs in it crash.
    """
    return not options.swap and not options.latency and not TOPOLOGIES[options.topology].cxl


def ensure_snapshot(image, options):
    """Boots such a guest and saves it, unless that was done. Returns where."""
    folder = snapshot_folder(image, options)
    if os.path.exists(f"{folder}/complete"):
        return folder
    with locked(f"{image.folder}/snapshots/lock-{options.name()}", fcntl.LOCK_EX, SNAPSHOT_PATIENCE):
        if os.path.exists(f"{folder}/complete"):
            return folder
        say(f"taking a snapshot of {options.name()}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        # The base is named from the snapshot's place, so that the cache may be moved.
        base = os.path.relpath(image.rootfs, folder)
        disk = f"{folder}/disk.qcow2"
        run(image.tool("usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", disk))
        deadline = time.monotonic() + SNAPSHOT_PATIENCE
        with Machine(image, options, [], deadline, disk=disk, spare_slots=True) as machine:
            with logged(machine):
                machine.wait_until_ready()
                # Less memory in use, fewer bytes to save.
                script = START_CONTAINERD + "sync\necho 3 >/proc/sys/vm/drop_caches\n"
                if machine.run(script):
                    raise Broken("containerd does not start in the guest")
                machine.save(folder)
        with open(f"{folder}/complete", "w", encoding="utf-8"):
            pass
    return folder


@contextlib.contextmanager
def logged(machine):
    """Keeps the logs of a guest that fails."""
    try:
        yield
    except (Broken, Late):
        machine.keep_logs(f"{STORE}/logs/{time.strftime('%Y%m%d-%H%M%S')}-{machine.options.name()}-{os.getpid()}")
        raise


@contextlib.contextmanager
def guest(image, options, deadline, cold):
    """A guest that is ready. One that does not get that far is tried once more, with a boot."""
    folder = None
    if not cold and can_have_snapshot(options):
        try:
            folder = ensure_snapshot(image, options)
        except (Broken, Late) as error:
            say(f"no snapshot: {error}")
    for last in (False, True):
        with contextlib.ExitStack() as stack:
            try:
                disk = f"{folder}/disk.qcow2" if folder else None
                machine = Machine(image, options, shares(), deadline, disk=disk, snapshot=folder)
                stack.enter_context(machine)
                stack.enter_context(logged(machine))
                if folder:
                    machine.resume()
                else:
                    machine.wait_until_ready()
            except Broken as error:
                if last:
                    raise
                say(f"starting the guest again: {error}")
                if folder:
                    shutil.rmtree(folder, ignore_errors=True)
                    folder = None
                continue
            yield machine
            return


def run_script(image, options, script, timeout, cold=False):
    """Runs a shell script in a guest of its own; its status, or why there is none."""
    began = time.monotonic()
    try:
        with image.in_use(), program() as path, guest(image, options, began + timeout, cold) as machine:
            ready = time.monotonic()
            status = machine.run(prologue(machine, path) + environment(path) + script)
            say(f"{options.name()}: ready after {ready - began:.1f} s, ran for {time.monotonic() - ready:.1f} s")
            return status
    except Late as error:
        say(f"{options.name()}: the deadline of {timeout:g} s has passed; still waiting until {error}")
        return LATE
    except (Broken, PackageError, OSError) as error:
        say(f"{options.name()}: the test bed failed: {error}")
        return BROKEN


def as_script(command):
    """A single argument is a script, several are a command."""
    return command[0] if len(command) == 1 else shlex.join(command)


def run_lines(image, options, timeout, cold):
    """Runs the lines of the standard input, each as a script, in one guest; the last status."""
    interactive = sys.stdin.isatty()
    try:
        with image.in_use(), program() as path, guest(image, options, time.monotonic() + timeout, cold) as machine:
            status, folder = 0, "/run/shell-folder"
            if machine.run(prologue(machine, path) + f"pwd >{folder}"):
                raise Broken("the guest could not be set up")
            while True:
                if interactive:
                    print(f"{options.name()}# ", end="", file=sys.stderr, flush=True)
                line = sys.stdin.readline()
                if not line:
                    return status
                # Each line has a shell of its own; the folder is all that passes from one to the next.
                keep = f"trap 'pwd >{folder}' EXIT\ncd \"$(cat {folder})\"\n"
                status = machine.run(environment(path) + keep + line)
    except Late as error:
        say(f"the deadline of {timeout:g} s has passed; still waiting until {error}")
        return LATE
    except (Broken, PackageError, OSError) as error:
        say(f"the test bed failed: {error}")
        return BROKEN
