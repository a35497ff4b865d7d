"""Slow memory as a model: a plugin of QEMU that delays accesses to far nodes. See docs/testing.md."""

import hashlib
import os
import shutil

from .image import HERE
from .packages import PackageError, run

# q35 places the first 2 GiB below, and what is more from here on.
HIGH_MEMORY = 4 << 30
LOW_MIB = 2048


def far_ranges(topology, delay):
    """First and last address and delay of every node without processors; the first of them has the delay given."""
    first_latency = next((node.latency for node in topology.nodes if not node.cpus), 0)
    found = []
    address = 0
    for node in topology.nodes:
        if address == LOW_MIB << 20:
            address = HIGH_MEMORY
        end = address + (node.mib << 20)
        if not node.cpus:
            # Another is as much slower as the firmware's table says.
            found.append((address, end - 1, delay * node.latency // first_latency))
        address = end
    return found


def arguments(image, topology, delay):
    """QEMU's arguments for the plugin, which is compiled if need be."""
    ranges = far_ranges(topology, delay)
    if topology.cxl or not ranges:
        raise PackageError("the latency model needs far nodes that are no CXL device: --topology flat, hmat, three, four")
    words = [_plugin(image)] + [f"range={first}:{last}:{ns}" for first, last, ns in ranges]
    return ["-plugin", ",".join(words)]


def _plugin(image):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise PackageError("the latency model needs a C compiler")
    with open(f"{HERE}/latency.c", "rb") as file:
        key = hashlib.sha256(file.read()).hexdigest()[:8]
    path = f"{image.store}/latency-{key}.so"
    if not os.path.exists(path):
        fresh = f"{path}.{os.getpid()}"
        run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", fresh, f"{HERE}/latency.c"])
        os.rename(fresh, path)
    return path
